//! Who is at the other end of a channel, and whether it still lives.
//!
//! The kernel notes a process's credentials when it calls connect(2) or listen(2). SO_PEERCRED
//! tells them to the other side, and they decide who is trusted. A process id is only for logs,
//! because the number can belong to another process by now. The pidfd tells of a death, and signals
//! are sent through it. The end of a channel is not a death: a process may just close it.
//!
//! Root and our own user are trusted. They could take our sockets by other means anyway (ptrace(2),
//! pidfd_getfd(2)).

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::channel::Channel;
use crate::sys;

/// A trusted process at the other end of a connected Unix socket.
#[derive(Debug)]
pub struct Identity {
    pid: u32,
    uid: u32,
    pidfd: Option<OwnedFd>,
}

/// What a process that does not answer is doing, as far as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs, or could run: it waits for a processor, or for the next period of a CPU quota.
    Running,
    /// It waits for something.
    Waiting,
    /// It was stopped by a signal, or a debugger has stopped it.
    Stopped,
    /// It has crashed and the kernel writes its core: it never runs again.
    Dumping,
    /// It is dead.
    Dead,
    /// Unknown: this kernel does not tell, or the process is in a pid namespace that we cannot see.
    Unknown,
}

/// Why there is no [`Identity`].
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// Neither root nor our own user.
    Untrusted {
        /// Its process id, for the log; 0 if it is in another pid namespace.
        pid: u32,
        /// Its user id.
        uid: u32,
    },
    /// The kernel did not tell, most often because no descriptor was free.
    Os(io::Error),
}

impl Identity {
    /// The process that has connected to, or listened for, the other end of `socket`.
    ///
    /// # Errors
    /// [`IdentityError::Untrusted`] if it must not learn or give anything.
    pub fn of(socket: impl AsFd) -> Result<Identity, IdentityError> {
        let socket = socket.as_fd();
        let peer = getsockopt(&socket, sockopt::PeerCredentials).map_err(os)?;
        // The kernel's own numbers are never negative; 0 stands for another pid namespace.
        let (pid, uid) = (peer.pid().unsigned_abs(), peer.uid());
        if !is_trusted(uid) {
            return Err(IdentityError::Untrusted { pid, uid });
        }
        let pidfd = match getsockopt(&socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(pidfd),
            // Linux before 6.5.
            Err(Errno::ENOPROTOOPT) => pidfd_of(pid, socket)?,
            Err(error) => return Err(os(error)),
        };
        Ok(Identity { pid, uid, pidfd })
    }

    /// Its process id, for logs only; 0 if it is in another pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its effective user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its pidfd, which is readable once the process is dead. `None` if the kernel gives no pidfd
    /// across pid namespaces; before Linux 6.5 also if it had hung up already.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Whether the process is known to be dead. This can become true milliseconds after the channel
    /// has ended, because a dying process closes its files first.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.pidfd()
            .is_some_and(|pidfd| ready(pidfd, PollFlags::POLLIN))
    }

    /// Waits up to `longest` for the process to be known dead. Returns false if it is not dead
    /// then, if there is no pidfd to tell, or if it is this very process, which would not see its
    /// own death.
    #[must_use]
    pub fn dies_within(&self, longest: Duration) -> bool {
        self.pid != std::process::id()
            && self
                .pidfd()
                .is_some_and(|pidfd| ready_within(pidfd, PollFlags::POLLIN, longest))
    }

    /// What the process is doing. A process that writes its core has not closed anything yet, so
    /// neither its channel nor its pidfd tells of its end (core(5)).
    #[must_use]
    pub fn condition(&self) -> Condition {
        let status = self.pid_now().and_then(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.ok()
        });
        // Asked last: as long as it is not dead its number is its own.
        if self.is_dead() {
            return Condition::Dead;
        }
        status.as_deref().map_or(Condition::Unknown, condition_in)
    }

    /// Whether it runs, or would run if it got a processor. False if it is this process, which
    /// runs now, and if that cannot be seen.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.pid != std::process::id() && self.condition() == Condition::Running
    }

    /// Its number in our pid namespace, as its pidfd tells (proc_pid_fdinfo(5)). `None` if it has
    /// none there.
    fn pid_now(&self) -> Option<u32> {
        let info = format!("/proc/self/fdinfo/{}", self.pidfd()?.as_raw_fd());
        let info = fs::read_to_string(info).ok()?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        pid.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// Kills the process (SIGKILL).
    ///
    /// # Errors
    /// As for [`Identity::terminate`]. `Unsupported` also if both sides are one process, as in a
    /// test: the caller would end itself.
    pub fn kill(&self) -> io::Result<()> {
        if self.pid == std::process::id() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.terminate(libc::SIGKILL)
    }

    /// Sends a signal that ends the process.
    ///
    /// # Errors
    /// `ESRCH` if it is dead. `EPERM` if it may not be signalled, because it is root and we are
    /// not. `Unsupported` without a pidfd: a signal by number could hit a stranger.
    pub fn terminate(&self, signal: i32) -> io::Result<()> {
        let pidfd = self.pidfd().ok_or(io::ErrorKind::Unsupported)?;
        sys::pidfd_send_signal(pidfd, signal)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pid {} uid {}", self.pid, self.uid)
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Untrusted { pid, uid } => write!(
                out,
                "pid {pid} runs as uid {uid}, trusted are only root and our own uid {}",
                geteuid()
            ),
            IdentityError::Os(error) => write!(out, "other side cannot be identified: {error}"),
        }
    }
}

impl Error for IdentityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            IdentityError::Untrusted { .. } => None,
            IdentityError::Os(error) => Some(error),
        }
    }
}

/// Whether this kernel can tell who is at the other end of a channel.
///
/// # Errors
/// In words, before Linux 5.3: it has neither SO_PEERPIDFD nor pidfd_open(2). Otherwise those of
/// socketpair(2).
pub fn supported() -> io::Result<()> {
    let (near, _far) = Channel::pair()?;
    match Identity::of(&near) {
        Err(IdentityError::Os(error)) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let what = "this kernel cannot identify the other process (pidfd_open): a takeover \
                        needs Linux 5.3 or later";
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        }
        // What else may be wrong is told when it matters.
        _ => Ok(()),
    }
}

/// As proc_pid_status(5) has it.
fn condition_in(status: &str) -> Condition {
    let value = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim()
    };
    match value("State:").chars().next() {
        _ if value("CoreDumping:") == "1" => Condition::Dumping,
        Some('Z' | 'X') => Condition::Dead,
        Some('T' | 't') => Condition::Stopped,
        Some('R') => Condition::Running,
        Some(_) => Condition::Waiting,
        None => Condition::Unknown,
    }
}

/// Whether what belongs to this user is as good as ours. The user has to be root or our own
/// effective user, and not the one that stands for everybody whom a user namespace does not map.
#[must_use]
pub fn is_trusted(uid: u32) -> bool {
    trusts(uid, geteuid().as_raw(), in_initial_user_namespace)
}

/// A user namespace shows every user that it does not map as the overflow uid (user_namespaces(7)).
/// There that uid is anybody, even if it equals our own.
fn trusts(uid: u32, own: u32, in_initial_namespace: impl FnOnce() -> bool) -> bool {
    if uid == OVERFLOW_UID {
        return uid == own && in_initial_namespace();
    }
    uid == own || uid == ROOT
}

fn in_initial_user_namespace() -> bool {
    // One line that maps every id to itself; unreadable means not known to be so.
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// A pidfd by number, for kernels that cannot give it by socket.
///
/// The process may die, and its number may be taken again, before the pidfd is opened. If the
/// process's end of the channel is open even *after* that, the process was alive and the number was
/// its own. If it is closed there is no pidfd, as for a process in another pid namespace: what it
/// said before it hung up, such as BUSY, is still to be read.
fn pidfd_of(pid: u32, socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, IdentityError> {
    if pid == 0 {
        return Ok(None);
    }
    let opened = sys::pidfd_open(pid);
    if ready(socket, PollFlags::empty()) {
        return Ok(None);
    }
    // ESRCH too: the process is dead and another one has its end, who is not known.
    opened.map(Some).map_err(IdentityError::Os)
}

/// Whether one of `events`, an error or a hang-up is there at once. Errors and hang-ups need not be
/// asked for (poll(2)).
fn ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    ready_within(fd, events, Duration::ZERO)
}

/// Whether one of `events`, or an error or the end, comes to `fd` within `longest`. A `fd` that
/// cannot be asked is as one to which nothing comes.
#[must_use]
pub fn ready_within(fd: BorrowedFd<'_>, events: PollFlags, longest: Duration) -> bool {
    let mut wanted = [PollFd::new(fd, events)];
    let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut wanted, timeout) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.is_ok_and(|count| count > 0),
        }
    }
}

fn os(error: Errno) -> IdentityError {
    IdentityError::Os(error.into())
}

const ROOT: u32 = 0;
/// The default of `/proc/sys/kernel/overflowuid`.
const OVERFLOW_UID: u32 = 65534;

#[cfg(test)]
mod tests;
