//! Becoming a daemon, with real processes and the service's own code.
//!
//! A process with a second thread must not fork, and the standard test harness always has
//! one. So this test brings its own `main` (`harness = false`): it starts itself again, as a
//! daemon with a role, and looks at it from outside.
#![allow(unreachable_pub)] // the module is the service's, where others use it

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{self, Child, Command, Output, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getppid, getsid};
use socket_takeover::sys::inherited_fds;
use tempfile::TempDir;

#[path = "../src/daemon/daemonize.rs"]
mod daemonize;
#[path = "support/harness.rs"]
mod harness;

use daemonize::daemonize;
use harness::{Harness, scenarios};

/// Says which role this process plays; unset in the tester.
const ROLE: &str = "DAEMONIZE_ROLE";
/// Where the daemon finds the tester.
const TESTER: &str = "DAEMONIZE_TESTER";

const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    if let Ok(role) = env::var(ROLE) {
        return play(&role);
    }
    Harness::of(env::args().skip(1)).run(scenarios![
        parent_exits_with_the_reported_code,
        parent_of_a_silent_death_exits_with_1,
        parent_waits_for_the_report,
        daemon_is_alone_in_its_session,
        daemon_inherits_no_descriptor_and_no_mask,
        stderr_ends_with_the_report,
        stderr_is_kept_on_request,
        daemon_outlives_a_killed_parent,
    ]);
}

// ---- the daemon's side

fn play(role: &str) {
    if let Some(code) = role.strip_prefix("report ") {
        let code: u8 = code.parse().unwrap();
        daemonize(false).unwrap().report(code);
        process::exit(code.into());
    }
    match role {
        "die" => {
            let _readiness = daemonize(false).unwrap();
            process::exit(0);
        }
        "wait" => {
            let readiness = daemonize(false).unwrap();
            let mut tester = tester();
            await_word(&mut tester);
            readiness.report(0);
            await_word(&mut tester);
            tester.write_all(b"alive").unwrap();
        }
        "inherit" => {
            // Close-on-exec, so it is our own.
            let own = fs::File::open("/dev/null").unwrap();
            let readiness = daemonize(false).unwrap();
            let inherited = inherited_fds().len();
            let own_is_open = own.metadata().is_ok();
            let blocked = SigSet::thread_get_mask().unwrap() != SigSet::empty();
            readiness.report(0);
            let seen = format!("{inherited} {own_is_open} {blocked}");
            tester().write_all(seen.as_bytes()).unwrap();
        }
        "look" => {
            let readiness = daemonize(false).unwrap();
            readiness.report(0);
            tester().write_all(circumstances().as_bytes()).unwrap();
        }
        "write" | "write and keep" => {
            let readiness = daemonize(role == "write and keep").unwrap();
            let mut tester = tester();
            eprintln!("before");
            readiness.report(0);
            eprintln!("after");
            await_word(&mut tester);
        }
        other => panic!("no role {other:?}"),
    }
}

fn tester() -> UnixStream {
    let stream = UnixStream::connect(env::var(TESTER).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn await_word(stream: &mut UnixStream) {
    stream.read_exact(&mut [0]).unwrap();
}

/// What the daemon sees of itself, a line each.
fn circumstances() -> String {
    let open = |fd: u32| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/stat").unwrap();
    // After the command's closing bracket: state, ppid, pgrp, session, tty_nr (proc_pid_stat(5)).
    let terminal = status
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(4)
        .unwrap();
    [
        format!("pid {}", process::id()),
        format!("parent {}", getppid()),
        format!("session {}", getsid(None).unwrap()),
        format!("terminal {terminal}"),
        format!("folder {}", env::current_dir().unwrap().display()),
        format!("umask {:03o}", umask(Mode::empty()).bits()),
        format!("streams {:?} {:?} {:?}", open(0), open(1), open(2)),
    ]
    .join("\n")
}

// ---- the tester's side

/// A daemon to be started, and the socket it reports to.
struct Stage {
    _folder: TempDir,
    socket: UnixListener,
    command: Command,
}

impl Stage {
    fn new(role: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tester");
        let socket = UnixListener::bind(&path).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(ROLE, role).env(TESTER, path);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            _folder: folder,
            socket,
            command,
        }
    }

    fn start(&mut self) -> Child {
        self.command.spawn().unwrap()
    }

    fn daemon(&self) -> UnixStream {
        let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(
            poll(&mut wanted, patience),
            Ok(1),
            "the daemon does not come"
        );
        let (stream, _) = self.socket.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// Starts a daemon and waits for its parent, and for the end of the parent's streams.
fn outcome(role: &str) -> Output {
    Stage::new(role).command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn parent_exits_with_the_reported_code() {
    for code in [0, 1, 69, 75, 76, 255] {
        let output = outcome(&format!("report {code}"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(text(&output.stderr), "");
    }
}

fn parent_of_a_silent_death_exits_with_1() {
    let output = outcome("die");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("ended while it started"),
        "{output:?}"
    );
}

fn parent_waits_for_the_report() {
    let mut stage = Stage::new("wait");
    let mut parent = stage.start();
    let mut daemon = stage.daemon();
    assert!(
        parent.try_wait().unwrap().is_none(),
        "the parent did not wait"
    );
    daemon.write_all(b"!").unwrap();
    assert_eq!(parent.wait().unwrap().code(), Some(0));
    daemon.write_all(b"!").unwrap();
    let mut word = String::new();
    daemon.read_to_string(&mut word).unwrap();
    assert_eq!(word, "alive");
}

fn daemon_is_alone_in_its_session() {
    let mut stage = Stage::new("look");
    let mut parent = stage.start();
    let mut seen = String::new();
    stage.daemon().read_to_string(&mut seen).unwrap();
    assert_eq!(parent.wait().unwrap().code(), Some(0));

    let of = |key: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in {seen}"))
            .trim()
            .to_owned()
    };
    assert_ne!(
        of("pid"),
        of("session"),
        "it leads its session and could get a terminal"
    );
    assert_ne!(of("session"), getsid(None).unwrap().to_string());
    assert_ne!(of("parent"), parent.id().to_string());
    assert_eq!(of("terminal"), "0");
    assert_eq!(of("folder"), "/");
    assert_eq!(of("umask"), "027");
    assert_eq!(of("streams"), r#""/dev/null" "/dev/null" "/dev/null""#);
}

fn daemon_inherits_no_descriptor_and_no_mask() {
    let mut stage = Stage::new("inherit");
    let program = stage.command.get_program().to_owned();
    let environment: Vec<_> = stage
        .command
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_owned()))
        .collect();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 5</dev/null 8>&1 && exec \"$0\""])
        .arg(program);
    shell
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    stage.command = shell;
    // A child starts with the mask of the thread that makes it.
    let ours = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .unwrap();
    let mut parent = stage.start();
    ours.thread_set_mask().unwrap();
    let mut seen = String::new();
    stage.daemon().read_to_string(&mut seen).unwrap();
    assert_eq!(parent.wait().unwrap().code(), Some(0));
    assert_eq!(seen, "0 true false");
}

fn stderr_ends_with_the_report() {
    let mut stage = Stage::new("write");
    // Returns at the end of both streams, though the daemon lives on.
    let output = stage.command.output().unwrap();
    let mut daemon = stage.daemon();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "before\n");
    daemon.write_all(b"!").unwrap();
}

fn stderr_is_kept_on_request() {
    let mut stage = Stage::new("write and keep");
    let mut parent = stage.start();
    let mut stderr = parent.stderr.take().unwrap();
    let mut daemon = stage.daemon();
    let mut lines = [0; "before\nafter\n".len()];
    stderr.read_exact(&mut lines).unwrap();
    assert_eq!(text(&lines), "before\nafter\n");
    assert_eq!(parent.wait().unwrap().code(), Some(0));
    daemon.write_all(b"!").unwrap();
}

fn daemon_outlives_a_killed_parent() {
    let mut stage = Stage::new("wait");
    let mut parent = stage.start();
    let mut daemon = stage.daemon();
    kill(Pid::from_raw(parent.id().cast_signed()), Signal::SIGKILL).unwrap();
    parent.wait().unwrap();
    // The report finds nobody, which must not matter.
    daemon.write_all(b"!!").unwrap();
    let mut word = String::new();
    daemon.read_to_string(&mut word).unwrap();
    assert_eq!(word, "alive");
}
