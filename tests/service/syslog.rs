//! The real binary and a real `/dev/log`: in a mount namespace of its own it finds a `/dev` with
//! a syslog socket that belongs to the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use socket_takeover::sys::{pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that stands in for `/dev`.
struct Dev {
    folder: TempDir,
    log: UnixDatagram,
}

impl Dev {
    /// `None`, with a word about it, where this process may not make a mount namespace.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("null")).unwrap();
        let log = UnixDatagram::bind(folder.path().join("log")).unwrap();
        log.set_read_timeout(Some(PATIENCE)).unwrap();
        let dev = Self { folder, log };
        let possible = dev
            .run("true", &[])
            .is_ok_and(|mut child| child.wait().unwrap().success());
        if !possible {
            eprintln!("SKIPPED: no mount namespace for a /dev of our own");
        }
        possible.then_some(dev)
    }

    fn run(&self, program: &str, args: &[&str]) -> std::io::Result<Child> {
        const SCRIPT: &str = r#"
            mount --bind /dev/null "$1/null" && mount --rbind "$1" /dev || exit 111
            shift
            exec "$@"
        "#;
        Command::new("unshare")
            .args(if geteuid().is_root() {
                &["-m"][..]
            } else {
                &["-r", "-m"]
            })
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(self.folder.path())
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    fn serve(&self, more: &[&str]) -> Child {
        let mut args = vec!["-a", "127.0.0.1", "-p", "0", "-S", "local3"];
        args.extend(more);
        self.run(env!("CARGO_BIN_EXE_socket-takeover"), &args)
            .unwrap()
    }

    /// The next line's facility and pid.
    fn next(&self) -> (u8, i32) {
        let mut room = [0; 8192];
        let length = self.log.recv(&mut room).expect("no line");
        let line = str::from_utf8(&room[..length]).unwrap();
        let (priority, rest) = line.strip_prefix('<').unwrap().split_once('>').unwrap();
        let (pid, text) = rest
            .strip_prefix("socket-takeover[")
            .unwrap()
            .split_once("]: ")
            .unwrap();
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        (priority.parse::<u8>().unwrap() >> 3, pid.parse().unwrap())
    }
}

#[test]
fn foreground_service_logs_under_its_facility_and_pid() {
    let Some(dev) = Dev::new() else { return };
    let mut service = dev.serve(&[]);
    assert_eq!(dev.next(), (19, service.id().cast_signed()));
    service.kill().unwrap();
    service.wait().unwrap();
}

/// As syslog-ng and others make it.
#[test]
fn service_logs_over_a_stream_and_goes_on_when_the_syslog_daemon_is_restarted() {
    let Some(dev) = Dev::new() else { return };
    let path = dev.folder.path().join("log");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let takeover = dev.folder.path().join("takeover");
    let mut service = dev.serve(&["-t", takeover.to_str().unwrap(), "-v"]);
    let mut daemon = accepted(&listener);
    let first = next_of_stream(&mut daemon);
    assert!(first.starts_with(&format!("<158>socket-takeover[{}]: ", service.id())));
    let (_, port) = first.split_once("]:").unwrap().1.split_once("]:").unwrap();
    let port: u16 = port.split(' ').next().unwrap().parse().unwrap();
    // The last line of its start.
    while !next_of_stream(&mut daemon).contains("Starting Takeover channel") {}
    drop(daemon);
    kill(Pid::from_raw(service.id().cast_signed()), Signal::SIGHUP).unwrap();
    let mut daemon = accepted(&listener);
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(next_of_stream(&mut daemon).contains("127.0.0.1"));
    service.kill().unwrap();
    service.wait().unwrap();
}

fn accepted(listener: &UnixListener) -> BufReader<UnixStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn next_of_stream(stream: &mut BufReader<UnixStream>) -> String {
    let mut message = Vec::new();
    stream.read_until(0, &mut message).unwrap();
    assert_eq!(message.pop(), Some(0));
    String::from_utf8(message).unwrap()
}

#[test]
fn daemon_logs_under_the_pid_that_it_has_after_the_forks() {
    let Some(dev) = Dev::new() else { return };
    let mut parent = dev.serve(&["-d"]);
    let (facility, pid) = dev.next();
    parent.wait().unwrap();
    assert_eq!(facility, 19);
    assert_ne!(pid, parent.id().cast_signed());
    // A pidfd first: what is found behind it then is what is ended.
    if let Ok(daemon) = pidfd_open(pid.unsigned_abs()) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        assert!(
            name.is_empty() || name.starts_with("socket-takeover"),
            "{name}"
        );
        let _ = pidfd_send_signal(daemon.as_fd(), libc::SIGKILL);
    }
}

#[test]
fn service_without_syslog_sends_nothing() {
    let Some(dev) = Dev::new() else { return };
    let mut service = dev
        .run(
            env!("CARGO_BIN_EXE_socket-takeover"),
            &["-G", "-T", "/nobody/offers/this"],
        )
        .unwrap();
    assert!(!service.wait().unwrap().success());
    dev.log.set_nonblocking(true).unwrap();
    assert!(
        dev.log.recv(&mut [0; 8192]).is_err(),
        "a line in spite of -G"
    );
}
