//! The service as a process of its own, and the folder in which it and its successors live.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use socket_takeover::sys::pidfd_open;

use super::{BOUND, Log, failpoints, wait_readable};

/// Options of a service that a busy machine cannot make give up a takeover: one that hangs
/// runs into [`BOUND`].
pub const PATIENT: [&str; 8] = [
    "--deadline",
    "hello=60000",
    "--deadline",
    "freeze=60000",
    "--deadline",
    "end=60000",
    "--deadline",
    "claim=60000",
];

const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");

/// Most lines of a log that a failed test shows.
const LAST: usize = 30;

/// A folder with a PATH for the takeovers of one test.
#[derive(Debug)]
pub struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Stage {
        super::raise_nofile();
        Stage {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// PATH.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("takeover")
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A cold start that offers takeovers at PATH; it serves when this returns.
    pub fn serve(&self, more: &[&str]) -> Server {
        let server = self.start(more);
        server.wait_line("Starting Takeover channel on");
        server
    }

    /// The same, but it has only been started when this returns.
    pub fn start(&self, more: &[&str]) -> Server {
        let mut args = strings(["-G", "-a", "127.0.0.1", "-p", "0", "-t"]);
        args.push(self.path().into());
        args.extend(strings(more.iter().copied()));
        Server::start(&args)
    }

    /// A successor, as soon as it is started.
    pub fn take_over(&self, more: &[&str]) -> Server {
        Server::take_over(&self.path(), more)
    }

    /// A successor that does something to itself in a state of the takeover; see the service's
    /// failpoints.
    pub fn take_over_failing(&self, failpoint: &str, more: &[&str]) -> Server {
        let mut args = strings(["-G", "-T"]);
        args.push(self.path().into());
        args.extend(more.iter().map(Into::into));
        Server::start_failing(failpoint, &args)
    }

    /// A whole takeover: the successor serves and `donor` has exited with 0.
    pub fn replace(&self, donor: &mut Server, more: &[&str]) -> Server {
        let taker = self.take_over(more);
        taker.wait_line("Serving on ");
        assert_eq!(donor.wait_exit(), 0, "the donor's exit code");
        taker
    }
}

/// One process of the service. Killed if it still runs when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pidfd: OwnedFd,
    log: Log,
    exit: Option<i32>,
}

impl Server {
    /// Runs the service with these arguments.
    pub fn start<A: AsRef<OsStr>>(args: &[A]) -> Server {
        Server::spawn(Command::new(BINARY).args(args))
    }

    /// The same in a process group of its own: Ctrl-C at the terminal is the test's business.
    pub fn start_apart<A: AsRef<OsStr>>(args: &[A]) -> Server {
        Server::spawn(Command::new(BINARY).args(args).process_group(0))
    }

    /// The same, with a failpoint such as `donor.await-claim.before:kill`.
    pub fn start_failing<A: AsRef<OsStr>>(failpoint: &str, args: &[A]) -> Server {
        let mut command = Command::new(failpoints::service());
        Server::spawn(command.args(args).env("TAKEOVER_FAILPOINT", failpoint))
    }

    /// Runs the service with at most `nofile` descriptors, which it cannot raise.
    pub fn start_limited<A: AsRef<OsStr>>(nofile: usize, args: &[A]) -> Server {
        let script = format!("ulimit -n {nofile} && exec \"$0\" \"$@\"");
        Server::spawn(
            Command::new("sh")
                .arg("-c")
                .arg(script)
                .arg(BINARY)
                .args(args),
        )
    }

    /// Runs a successor of whoever offers a takeover at `path`; it has only been started
    /// when this returns.
    pub fn take_over(path: &Path, more: &[&str]) -> Server {
        let mut args = strings(["-G", "-T"]);
        args.push(path.into());
        args.extend(strings(more.iter().copied()));
        Server::start(&args)
    }

    /// The same, stopped before it is anything but a shell: somebody can attach to it, and
    /// then [`Server::go_on`].
    pub fn take_over_stopped(path: &Path, more: &[&str]) -> Server {
        let script = "kill -STOP $$; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, BINARY, "-G", "-T"]);
        Server::spawn(command.arg(path).args(more))
    }

    /// Runs `command`, whose stderr is the log.
    pub fn spawn(command: &mut Command) -> Server {
        Server::spawn_to(command, Stdio::piped())
    }

    /// Runs `command` with another stderr; of its log nothing is seen here.
    pub fn spawn_to(command: &mut Command, stderr: impl Into<Stdio>) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the service can be run");
        let log = match child.stderr.take() {
            Some(stderr) => Log::of(stderr),
            None => Log::of(std::io::empty()),
        };
        let pidfd = pidfd_open(child.id()).expect("it is our child");
        Server {
            child,
            pidfd,
            log,
            exit: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its stderr.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The first line that contains `part`.
    ///
    /// # Panics
    /// If it does not come within [`BOUND`] or before the process has ended.
    pub fn wait_line(&self, part: &str) -> String {
        self.wait_nth_line(part, 1)
    }

    /// The `nth` line (the first is 1) that contains `part`; panics like
    /// [`Server::wait_line`].
    pub fn wait_nth_line(&self, part: &str, nth: usize) -> String {
        self.log
            .wait(part, nth, BOUND)
            .unwrap_or_else(|| panic!("pid {} has not logged {part:?} ({nth})", self.pid()))
    }

    /// Waits until a taker serves; false if it has given up.
    pub fn serves(&self) -> bool {
        self.log.wait("Serving on ", 1, BOUND).is_some()
    }

    /// Where it listens, as its log says; panics like [`Server::wait_line`].
    pub fn address(&self) -> SocketAddr {
        let line = self.wait_line(" on [");
        // "Starting TCP server on [host]:port (fd:n)", "Serving on [host]:port (fd:n) …"
        let shown = line.split(' ').find(|word| word.starts_with('[')).unwrap();
        let (host, port) = shown[1..].split_once("]:").unwrap();
        SocketAddr::new(host.parse().unwrap(), port.parse().unwrap())
    }

    /// Waits for its end and returns the exit code; 128 and the signal if one ended it. Its
    /// log is complete then.
    ///
    /// # Panics
    /// If it still runs after [`BOUND`], or has left its stderr to a process that does.
    pub fn wait_exit(&mut self) -> i32 {
        let code = self.wait_exit_within(BOUND);
        let code = code.unwrap_or_else(|| panic!("pid {} does not exit", self.pid()));
        assert!(self.log.wait_end(BOUND), "its stderr is still open");
        code
    }

    /// Like [`Server::wait_exit`]; `None` if it still runs after `bound`.
    pub fn wait_exit_within(&mut self, bound: Duration) -> Option<i32> {
        if self.exit.is_none() && wait_readable(&self.pidfd, bound).expect("a pidfd can be polled")
        {
            let status = self.child.wait().expect("it is our child");
            let signalled = || 128 + status.signal().unwrap_or(0);
            self.exit = Some(status.code().unwrap_or_else(signalled));
        }
        self.exit
    }

    /// Whether it has not exited.
    pub fn is_running(&mut self) -> bool {
        self.wait_exit_within(Duration::ZERO).is_none()
    }

    /// Whether it has exited, for those who only look: a zombie has.
    pub fn has_exited(&self) -> bool {
        wait_readable(&self.pidfd, Duration::ZERO).expect("a pidfd can be polled")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).expect("it is our child");
    }

    /// Ends it by SIGTERM: how many connections it has accepted and how many messages it has
    /// answered, by its counters, which travel.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn retire(&mut self) -> [u64; 2] {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait_exit(), 0, "the exit code of pid {}", self.pid());
        let lines = self.log.lines();
        let line = lines.iter().rfind(|line| line.contains(" accepted, "));
        let words: Vec<&str> = line.expect("it says so").split(' ').collect();
        // "… 4 accepted, 17 messages; …"
        ["accepted,", "messages;"].map(|name| {
            let at = words.iter().position(|word| *word == name);
            at.and_then(|at| words[at - 1].parse().ok()).expect(name)
        })
    }

    /// SIGSTOPs it, and returns when it has stopped.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        self.wait_stopped();
    }

    /// Waits until it has stopped, whoever stops it.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn wait_stopped(&self) {
        let pid = Id::Pid(Pid::from_raw(self.pid().cast_signed()));
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = waitid(pid, flags).expect("it is our child");
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// Lets it run on after [`Server::stop`].
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its open descriptors: number and what `/proc/PID/fd` shows for each.
    pub fn fds(&self) -> Vec<(i32, String)> {
        fds_of(self.pid())
    }

    /// What its descriptors are, without their numbers and those of sockets and pipes.
    pub fn fd_kinds(&self) -> Vec<String> {
        let kind = |(_, target): (i32, String)| {
            let end = target.find(":[").unwrap_or(target.len());
            target[..end].to_owned()
        };
        let mut kinds: Vec<String> = self.fds().into_iter().map(kind).collect();
        kinds.sort_unstable();
        kinds
    }

    /// Descriptors that a program which it executes would inherit, without stdin, stdout and
    /// stderr, and without those that it has itself inherited from whoever runs the tests.
    pub fn inheritable_fds(&self) -> Vec<(i32, String)> {
        let mut fds = inheritable_fds_of(self.pid());
        let ours = inheritable_fds_of(std::process::id());
        fds.retain(|fd| !ours.contains(fd));
        fds
    }
}

fn fds_of(pid: u32) -> Vec<(i32, String)> {
    let mut fds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs") {
        let entry = entry.expect("it runs");
        let number = entry.file_name().to_string_lossy().parse().unwrap();
        // One that was closed meanwhile is none.
        if let Ok(target) = fs::read_link(entry.path()) {
            fds.push((number, target.to_string_lossy().into_owned()));
        }
    }
    fds.sort_unstable();
    fds
}

fn inheritable_fds_of(pid: u32) -> Vec<(i32, String)> {
    let cloexec = OFlag::O_CLOEXEC.bits().cast_unsigned();
    let mut fds = fds_of(pid);
    fds.retain(|(number, _)| {
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else {
            return false;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        *number > 2 && flags & cloexec == 0
    });
    fds
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let exit = self.exit.map_or("killed".into(), |code| code.to_string());
            eprintln!("--- log of pid {} (exit: {exit})", self.pid());
            let lines = self.log.lines();
            for line in &lines[lines.len().saturating_sub(LAST)..] {
                eprintln!("    {line}");
            }
        }
    }
}

fn strings<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}
