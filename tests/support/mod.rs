//! What every scenario needs: the service as a process of its own, and clients that check
//! every byte.
//!
//! | file | what it has |
//! |---|---|
//! | `server.rs` | [`Server`], one process; [`Stage`], the folder it lives in |
//! | `log.rs` | [`Log`], the lines that a process has written, and waiting for the next |
//! | `peers.rs` | [`Peers`], any number of clients on one thread |
//! | `crowd.rs` | their thread |
//! | `peer.rs` | one client: what it sends, what it must get back |
//! | `verdict.rs` | [`Verdict`], what became of them |
//! | `random.rs` | a small generator, its seed printed by every run |
//! | `client.rs` | [`Client`], one that does exactly what it is told |
//! | `corner.rs` | [`Guest`](corner::Guest), one in each corner of TCP |
//! | `apart.rs` | parts that need another process, user or network |
//! | `failpoints.rs` | the service with failpoints, built when it is wanted |
//! | `harness.rs` | what a test binary with its own `main` understands of `cargo test` |
//! | `fault.rs` | [`Fault`], a system call that fails |
//! | `scene.rs` | [`Scene`], a donor with clients that watch it |
//! | `side.rs` | one side of a takeover, played by the test |
//! | `pair.rs` | donor and taker on two reactors in the test's own process |
//! | `waiting.rs` | waiting for a process's descriptors, or the text of a file |
//! | `original.rs` | the original C program, played |
//! | `pinned.rs` | [`Pinned`](pinned::Pinned), a real process held at an exact record |
//!
//! Nothing here waits without a bound ([`BOUND`]) and nothing sleeps: a test waits for a log
//! line, for the end of a process, or for what its clients have seen. Where a wait runs out
//! the test panics, and each [`Server`] that is dropped then prints its log.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports, unused_macros, unreachable_pub)]

mod crowd;
mod log;
mod peer;
mod peers;
mod random;
mod server;
mod verdict;

pub mod apart;
mod client;
pub mod corner;
pub mod failpoints;
pub mod fault;
pub mod harness;
pub mod original;
pub mod pair;
pub mod pinned;
mod scene;
pub mod side;
mod waiting;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use client::Client;
pub use fault::Fault;
pub use log::{Log, figure};
pub use peer::Kind;
pub use peers::Peers;
pub use random::{Random, seed};
pub use scene::Scene;
pub use server::{PATIENT, Server, Stage};
pub use verdict::Verdict;
pub use waiting::{wait_text, wait_until};

/// No single wait is longer. A machine with much else to do reaches a tenth of it.
pub const BOUND: Duration = Duration::from_secs(60);

/// Makes sure that a program is there that `tools/setup` installs.
pub fn need(program: &str) {
    let is_there = || {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
    };
    if !is_there() {
        let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/setup");
        let status = Command::new(setup).status();
        assert!(
            is_there(),
            "{program} is missing, and tools/setup did not help: {status:?}"
        );
    }
}

/// Whether the kernel copies descriptors of other processes: pidfd_getfd(2), since Linux 5.6.
pub fn can_copy() -> bool {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    let copied = own.and_then(|own| pidfd_getfd(own, 0, PidfdGetfdFlags::empty()));
    let can = copied.err() != Some(rustix::io::Errno::NOSYS);
    if !can {
        eprintln!("skipped: before Linux 5.6 there is no pidfd_getfd(2)");
    }
    can
}

/// A copy of a program at a place where every user may run it. Another process writes it: a child
/// that a test of this process is just starting would have our descriptor for a moment, and nobody
/// can run what somebody may write to (execve(2), ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let mut copy = Command::new("cp");
    let copied = copy.arg(from.as_ref()).arg(to).status();
    assert!(copied.expect("cp(1) runs").success());
    fs::set_permissions(to, Permissions::from_mode(0o755)).expect("it is ours");
}

/// Lets this process hold as many descriptors as its hard limit allows; thousands of clients
/// need it. The servers inherit the limit.
pub fn raise_nofile() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("RLIMIT_NOFILE exists");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("soft may be raised to hard");
}

/// Whether stdout has a reader. The harness of a test collects what `println!` says, so that it
/// cannot be written in another way; where there is no harness it panics without a reader.
pub fn is_heard() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let left = PollFlags::POLLERR | PollFlags::POLLHUP;
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && !fds[0].revents().is_some_and(|seen| seen.intersects(left))
}

/// Waits until `fd` is readable; false if `bound` has passed first.
pub fn wait_readable(fd: impl AsFd, bound: Duration) -> io::Result<bool> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let end = Instant::now() + bound;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX);
        match epoll.wait(&mut [EpollEvent::empty()], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
