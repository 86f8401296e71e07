//! Processes to try a fact with: the test binary once more, told by a variable what to be.
//!
//! Its standard input is the socket that it works with. It says `ready` when it has done its
//! part, and a line beginning with `=` for what it has found.

use crate::support::copy_program;
use std::fs;
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const ROLE: &str = "KERNEL_CONTRACT_ROLE";

/// A process that plays a role; it is killed when dropped.
pub(crate) struct Actor {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Actor {
    pub(crate) fn start(role: &str, stdin: impl Into<Stdio>) -> Actor {
        let exe = std::env::current_exe().expect("we have a name");
        Actor::start_by(&mut Command::new(exe), role, stdin)
    }

    /// By a command that begins with the binary, or with what is to run it.
    pub(crate) fn start_by(command: &mut Command, role: &str, stdin: impl Into<Stdio>) -> Actor {
        let mut child = command
            .args(["--exact", "role::play", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        Actor { child, says }
    }

    /// The next thing that it has found; `None` if it ends without a word.
    pub(crate) fn found(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.says.read_line(&mut line).expect("a pipe") == 0 {
                return None;
            }
            // The harness writes what it does in front of it, without a line's end.
            if let Some((_, found)) = line.trim_end().split_once('=') {
                return Some(found.to_owned());
            }
        }
    }

    pub(crate) fn wait_ready(&mut self) {
        let said = self.found();
        assert_eq!(said.as_deref(), Some("ready"), "the other process");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it; it stays a zombie until it is dropped.
    pub(crate) fn kill(&self) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, Signal::SIGKILL).expect("it is our child");
    }

    /// Waits until it has ended, and collects it.
    pub(crate) fn wait(&mut self) {
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary at a place where every user may run it.
pub(crate) fn for_everybody() -> PathBuf {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("it is ours");
        let path = folder.path().join("contract");
        copy_program(std::env::current_exe().expect("we have a name"), &path);
        (folder, path)
    });
    path.clone()
}

/// Says what was found.
pub(crate) fn say(what: &str) {
    let mut out = stdout();
    writeln!(out, "={what}").expect("the test listens");
    out.flush().expect("the test listens");
}

/// What the actor was given to work with.
pub(crate) fn given() -> OwnedFd {
    let stdin = std::io::stdin();
    let fd: BorrowedFd<'_> = stdin.as_fd();
    fd.try_clone_to_owned().expect("a descriptor is free")
}

/// Does nothing more until it is killed, by the end of the test at the latest.
pub(crate) fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// What an actor runs; without a role it is nothing.
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "sender" => crate::channel::sender(),
        "unprivileged" => crate::limits::unprivileged(),
        "short of slots" => crate::limits::short_of_slots(),
        "full" => crate::limits::full(),
        "acceptor" => crate::identity::acceptor(),
        "caller" => crate::identity::caller(),
        "stranger" => crate::identity::stranger(),
        "locker" => crate::identity::locker(),
        "silent" => {
            say("ready");
            stay();
        }
        other => panic!("no such role: {other}"),
    }
}
