//! The service as a daemon: the process that was started from a terminal exits with the truth
//! about the start, and the pid file names whoever owns the service.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{BOUND, Client, Kind, Log, Peers, Server, Stage, seed, wait_readable};
use nix::sys::signal::Signal;
use socket_takeover::sys::{pidfd_open, pidfd_send_signal};

/// A daemon by its pid file. Killed if it still runs when this is dropped.
struct Daemon {
    pid: u32,
    pidfd: OwnedFd,
    /// What it and the process that started it have written to stderr.
    launcher: Server,
}

/// What the pid file says, if it says something.
fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Daemon {
    /// Runs `-d` with these arguments, until the start is over.
    fn start(pid_file: &Path, args: &[&str]) -> Daemon {
        let mut all = vec!["-d", "-l", "-G", "-P", pid_file.to_str().unwrap()];
        all.extend(args);
        let mut launcher = Server::start(&all);
        assert_eq!(launcher.wait_exit_within(BOUND), Some(0));
        let pid = pid_in(pid_file).expect("the pid file has been written by now");
        assert_ne!(pid, launcher.pid());
        let pidfd = pidfd_open(pid).expect("the owner runs");
        Daemon {
            pid,
            pidfd,
            launcher,
        }
    }

    fn log(&self) -> &Log {
        self.launcher.log()
    }

    fn signal(&self, signal: Signal) {
        use std::os::fd::AsFd;
        pidfd_send_signal(self.pidfd.as_fd(), signal as i32).expect("it is ours");
    }

    fn wait_end(&self) {
        let ended = wait_readable(&self.pidfd, BOUND).unwrap();
        assert!(ended, "daemon {} does not end", self.pid);
        assert!(self.log().wait_end(BOUND));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Of one that has ended there is nothing to kill.
        use std::os::fd::AsFd;
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL as i32);
    }
}

/// Looks at the pid file all the time, on a thread of its own.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Watch {
    fn over(file: PathBuf) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) && wrong.len() < 10 {
                let said = fs::read_to_string(&file);
                let named = said.as_ref().ok().and_then(|text| text.trim().parse().ok());
                // A zombie has no program any more.
                let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe"));
                let lives = named.is_some_and(|pid| program(pid).is_ok());
                // What was read may have been outdated since; what is wrong stays so.
                if !lives && fs::read_to_string(&file).ok() == said.as_ref().ok().cloned() {
                    wrong.push(format!("{said:?}"));
                }
            }
            wrong
        });
        Watch { stop, thread }
    }

    fn assert_always_named_a_process(self) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.thread.join().unwrap();
        assert_eq!(wrong, [""; 0], "the pid file named nobody who lives");
    }
}

#[test]
fn daemons_in_a_row_keep_the_pid_file_with_the_owner() {
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    // In memory, as below /run: for a disk that is busy the new owner waits no longer than 100 ms.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let pid_file = memory.path().join("pid");
    let args = ["-a", "127.0.0.1", "-p", "0", "-t", path];
    let mut owner = Daemon::start(&pid_file, &args);
    let kinds = [(Kind::Talking, 30), (Kind::Idle, 30)];
    let peers = Peers::connect(owner.launcher.address(), seed(), &kinds);
    let watch = Watch::over(pid_file.clone());
    for _ in 0..10 {
        let next = Daemon::start(&pid_file, &["-T", path]);
        owner.wait_end();
        assert_ne!(next.pid, owner.pid);
        peers.echoes(8);
        owner = next;
    }
    watch.assert_always_named_a_process();
    let verdict = peers.finish();
    verdict.assert_flawless();
    owner.signal(Signal::SIGTERM);
    owner.wait_end();
    assert!(!pid_file.exists() && !stage.path().exists());
}

#[test]
fn taker_without_a_pid_file_option_keeps_that_of_the_donor() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let mut donor = stage.serve(&["-P", pid_file.to_str().unwrap()]);
    let mut taker = stage.replace(&mut donor, &[]);
    // The donor has gone, so the file names the taker by now.
    assert_eq!(pid_in(&pid_file), Some(taker.pid()));
    taker.signal(Signal::SIGTERM);
    assert_eq!(taker.wait_exit(), 0);
    assert!(!pid_file.exists());
}

/// Takes over from a donor whose pid file was spoiled by `spoil`: nobody notices, and the
/// taker, which is returned, says what is wrong.
fn take_over_spoilt(stage: &Stage, spoil: impl FnOnce(&Path)) -> Server {
    let pid_file = stage.file("pid");
    let mut donor = stage.serve(&["-P", pid_file.to_str().unwrap()]);
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Talking, 10)]);
    spoil(&pid_file);
    let taker = stage.replace(&mut donor, &[]);
    peers.echoes(8);
    peers.finish().assert_flawless();
    taker
}

#[test]
fn pid_file_with_other_content_costs_the_file_and_no_takeover() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let mut taker = take_over_spoilt(&stage, |file| fs::write(file, "hello\n").unwrap());
    let line = taker.wait_line("pid file ");
    assert!(
        line.contains("other content") && line.contains("HUP"),
        "{line}"
    );
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), "hello\n");
    taker.signal(Signal::SIGHUP);
    taker.wait_nth_line("other content", 2);
    // Mended, it is found by the next one.
    fs::write(&pid_file, "").unwrap();
    taker.signal(Signal::SIGHUP);
    taker.wait_line("is ours");
    assert_eq!(pid_in(&pid_file), Some(taker.pid()));
    let mut next = stage.replace(&mut taker, &[]);
    assert_eq!(pid_in(&pid_file), Some(next.pid()));
    next.retire();
    assert!(!pid_file.exists());
}

#[test]
fn pid_file_that_was_given_to_another_user_costs_the_file_and_no_takeover() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root to give a file away");
    }
    let stage = Stage::new();
    let give = |file: &Path| std::os::unix::fs::chown(file, Some(12_345), None).unwrap();
    let mut taker = take_over_spoilt(&stage, give);
    taker.wait_line("it belongs to uid 12345");
    taker.retire();
    assert!(stage.file("pid").exists());
}

#[test]
fn pid_file_that_was_removed_is_made_again_by_the_next_takeover() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let taker = take_over_spoilt(&stage, |file| fs::remove_file(file).unwrap());
    taker.wait_line("is made again");
    assert_eq!(pid_in(&pid_file), Some(taker.pid()));
}

#[test]
fn pid_file_that_was_removed_is_made_again_on_a_hangup_signal() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let mut server = stage.serve(&["-P", pid_file.to_str().unwrap()]);
    fs::remove_file(&pid_file).unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_line("is made again");
    assert_eq!(pid_in(&pid_file), Some(server.pid()));
    // Another one does not take it.
    let mut other = Server::start(&["-G", "-a", "::1", "-p", "0", "-P", utf8(&pid_file)]);
    assert_eq!(other.wait_exit(), 1);
    server.retire();
    assert!(!pid_file.exists());
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whoever starts it reads a pipe to its end, and holds a lock by a numbered descriptor.
#[test]
fn daemon_lets_go_of_what_it_has_inherited() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let (lock, path) = (stage.file("lock"), stage.path());
    let script = "exec 7>&1 9>\"$0\" && flock 9 && exec \"$@\" >/dev/null";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, utf8(&lock)]);
    command.arg(env!("CARGO_BIN_EXE_socket-takeover"));
    command.args(["-d", "-l", "-G", "-P", utf8(&pid_file), "-t", utf8(&path)]);
    command.args(["-a", "127.0.0.1", "-p", "0", "--report", "/dev/null"]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut launcher = command
        .stdin(std::process::Stdio::null())
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(command);
    assert_eq!(launcher.wait().unwrap().code(), Some(0));
    let ended = wait_readable(&reader, BOUND).unwrap();
    assert!(ended && std::io::read_to_string(reader).unwrap().is_empty());
    let free = fs::File::open(&lock).unwrap();
    assert!(free.try_lock().is_ok(), "its lock is held");
    let daemon = Daemon::start(&pid_file, &["-T", utf8(&path)]);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_end();
}

/// In the foreground it keeps what it was given, and room for a takeover all the same.
#[test]
fn foreground_service_with_many_inherited_descriptors_is_taken_over_when_it_is_full() {
    const NOFILE: usize = 200;
    const INHERITED: usize = 100;
    let stage = Stage::new();
    let path = stage.path();
    let script = format!(
        "for n in $(seq 60 {}); do eval \"exec $n</dev/null\"; done; ulimit -n {NOFILE}; \
         exec \"$0\" \"$@\"",
        59 + INHERITED
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_socket-takeover")]);
    command.args(["-G", "-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)]);
    let mut donor = Server::spawn(&mut command);
    donor.wait_line("Starting Takeover channel on");
    let mut clients: Vec<Client> = (0..NOFILE)
        .map(|_| Client::connect(donor.address()))
        .collect();
    clients.iter_mut().for_each(Client::say);
    let full = donor.wait_line("no more peers are accepted");
    assert!(full.contains("kept in reserve"), "{full}");
    let kept = donor.fds().iter().filter(|fd| fd.1 == "/dev/null").count();
    assert!(kept >= INHERITED);
    // It has room for them all.
    let _taker = stage.replace(&mut donor, &[]);
    clients.iter_mut().for_each(Client::hear);
}

#[test]
fn daemon_that_cannot_take_over_exits_with_the_reason() {
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let taker = ["-d", "-l", "-G", "-T", path];
    let mut nobody = Server::start(&taker);
    assert_eq!(nobody.wait_exit(), 69);

    let donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Idle, 200)]);
    let mut refused = Server::start_limited(150, &taker);
    assert_eq!(refused.wait_exit(), 75);
    refused.wait_line("refused");
    let mut second = stage.start(&["-d", "-l"]);
    assert_eq!(second.wait_exit(), 1);
    peers.finish().assert_flawless();
}

#[test]
fn daemon_started_with_relative_names_makes_them_where_it_was_started() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    let script = "cd \"$0\" && exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(script)
        .arg(stage.path().parent().unwrap());
    command.arg(env!("CARGO_BIN_EXE_socket-takeover"));
    command.args(["-d", "-l", "-G", "-P", "pid", "-a", "127.0.0.1", "-p", "0"]);
    let mut launcher = Server::spawn(command.args(["-t", "takeover"]));
    assert_eq!(launcher.wait_exit_within(BOUND), Some(0));
    let daemon = Daemon::start(&pid_file, &["-T", stage.path().to_str().unwrap()]);
    launcher.wait_exit();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_end();
    assert!(!pid_file.exists() && !stage.path().exists());
}
