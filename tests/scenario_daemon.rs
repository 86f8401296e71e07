//! The service as a daemon: the process that was started from a terminal exits with the truth
//! about the start, and the pid file names whoever owns the service.

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use socket_takeover::sys::{pidfd_open, pidfd_send_signal};
use support::{BOUND, Kind, Log, Peers, Server, Stage, seed, wait_readable};

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
    let pid_file = stage.file("pid");
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
