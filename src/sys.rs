//! The few system calls that have no safe wrapper in std or nix.
//!
//! `unsafe` lives here and in `takeover/scm.rs`, nowhere else in the library. Every
//! function is safe to call: what the kernel or libc demands of the caller is checked or
//! held by the signature. None allocates, none logs.
//!
//! - [`fork_alone`]: fork(2), for daemonizing only, refused where a second thread runs
//! - [`pidfd_open`], [`pidfd_send_signal`]: a process that cannot be mistaken for another
//! - [`pidfd_getfd`]: a descriptor of another process
//! - [`wait_pidfd`]: the end of one child, and of no other
//! - [`unblock_signals_in`]: a child that does not inherit what this process has blocked
//! - [`unread_bytes`], [`unsent_bytes`]: the two TCP queue lengths (tcp(7), SIOCINQ and
//!   SIOCOUTQ)
//! - [`socket_protocol`], [`socket_cookie`], [`tcp_state`], [`tcp_progress`], [`has_tcp_ulp`],
//!   [`refuse_passed_fds`]: socket options that nix has no type for
//! - [`open_tun`]: a network interface of our own
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::signal::SigSet;

use crate::procfs;

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old process; the child's process id.
    Parent(u32),
    /// The new process.
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// `Unsupported` if a second thread runs: the child would have only the calling thread and
/// could deadlock on a lock that another one held (fork(2), "async-signal-safe"). Without
/// `/proc`, which tells that, an error that says so. Else what
/// fork(2) says (`EAGAIN`, `ENOMEM`).
pub fn fork_alone() -> io::Result<Fork> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(procfs::explain)?
        .count();
    if threads != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("fork with {threads} threads running"),
        ));
    }
    // SAFETY: the only thread of the process is the caller, so the child inherits no lock
    // that somebody else holds and may use all of std.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid.unsigned_abs())),
    }
}

/// A descriptor for the process `pid` (pidfd_open(2)); readable once it has died. It is
/// close-on-exec.
///
/// # Errors
/// `ESRCH` if there is no such process, `EMFILE` at the descriptor limit.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)); it can never hit
/// another process that got the same number later.
///
/// # Errors
/// `ESRCH` if the process is gone, `EPERM` if it may not be signalled.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the siginfo pointer may be null (the kernel then fills in that of kill(2)),
    // the other arguments are integers and a descriptor that the borrow keeps open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A copy of descriptor `number` of the process behind `pidfd` (pidfd_getfd(2)): the same open
/// file, as if it had been passed. It is close-on-exec.
///
/// # Errors
/// `EPERM` if we may not trace the process (ptrace(2), `PTRACE_MODE_ATTACH_REALCREDS`), `EBADF`
/// if it has no such descriptor, `ESRCH` if it is gone, `EMFILE` at the limit.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three integers and touches no memory of ours; the borrow keeps the
    // descriptor open.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a child's status is collected, after which nobody can ask for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// It is; the process and its number are gone then.
    Yes,
    /// It is left for the next one who asks.
    No,
}

/// How the child behind `pidfd` has ended; `None` while it runs (waitid(2), `P_PIDFD`). It
/// neither waits nor touches any other child.
///
/// # Errors
/// `ECHILD` if it is no child of this process, or was collected already.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, collect: Collect) -> io::Result<Option<ExitStatus>> {
    let collect = match collect {
        Collect::Yes => 0,
        Collect::No => libc::WNOWAIT,
    };
    // SAFETY: all zeroes is a valid siginfo_t, and what waitid leaves there if nobody has ended.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the call writes one siginfo_t, which outlives it, and the borrow keeps the
    // descriptor open.
    let done = unsafe {
        libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd().cast_unsigned(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | collect,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: for a child that has ended waitid fills in these two fields (waitid(2)), else
    // both are the zeroes from above.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    // As wait(2) puts it together, which is what std takes apart.
    Ok(Some(ExitStatus::from_raw(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })))
}

/// Has the process that `command` starts begin with these signals unblocked. A process inherits
/// what its parent's thread has blocked, and an exec keeps it (signal(7)).
pub fn unblock_signals_in(command: &mut Command, signals: SigSet) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed
    // (signal-safety(7)): this is one pthread_sigmask(3), without allocation.
    unsafe {
        command.pre_exec(move || Ok(signals.thread_unblock()?));
    }
}

/// Bytes that have arrived on a TCP connection and were not read yet.
///
/// # Errors
/// `EINVAL` on a listener, `ENOTTY` on what is no socket.
pub fn unread_bytes(socket: impl AsFd) -> io::Result<u32> {
    queue_length(socket.as_fd(), libc::FIONREAD)
}

/// Bytes that were written to a TCP connection and not acknowledged by its peer yet.
///
/// # Errors
/// `EINVAL` on a listener, `ENOTTY` on what is no socket.
pub fn unsent_bytes(socket: impl AsFd) -> io::Result<u32> {
    queue_length(socket.as_fd(), libc::TIOCOUTQ)
}

fn queue_length(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests store one int at the given address, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes.unsigned_abs())
}

/// The socket's protocol: `IPPROTO_TCP`, or 262 for MPTCP (socket(7), `SO_PROTOCOL`).
///
/// # Errors
/// `ENOTSOCK` on what is no socket, `EBADF` on an `O_PATH` descriptor.
pub fn socket_protocol(socket: impl AsFd) -> io::Result<i32> {
    let mut protocol = [0; 4];
    get_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_PROTOCOL,
        &mut protocol,
    )?;
    Ok(i32::from_ne_bytes(protocol))
}

/// The kernel's own number for a socket, the same through every descriptor of it and never
/// used for another one until the next boot (socket(7), `SO_COOKIE`).
///
/// # Errors
/// `ENOTSOCK` on what is no socket, `EBADF` on an `O_PATH` descriptor.
pub fn socket_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = [0; 8];
    get_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_COOKIE,
        &mut cookie,
    )?;
    Ok(u64::from_ne_bytes(cookie))
}

/// The state of a TCP socket as its own number in `linux/tcp_states.h`: 1 established,
/// 7 closed, 10 listening …
///
/// # Errors
/// `ENOPROTOOPT` or `EOPNOTSUPP` on another kind of socket, `ENOTSOCK` on what is none.
pub fn tcp_state(socket: impl AsFd) -> io::Result<u8> {
    // The kernel gives as much of struct tcp_info as there is room for (tcp(7), TCP_INFO),
    // and the state is its first byte.
    let mut state = [0; 1];
    get_option(
        socket.as_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        &mut state,
    )?;
    Ok(state[0])
}

/// What the kernel counts of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpProgress {
    /// As [`tcp_state`].
    pub state: u8,
    /// Bytes of ours that the peer has acknowledged; its SYN and FIN count as one each, the
    /// SYN only on the side that has connected.
    pub acknowledged: u64,
    /// Bytes of the peer that have arrived in order, its FIN counted as one.
    pub received: u64,
}

/// Where a TCP connection is in its two streams, as far as its peer knows
/// (`struct tcp_info` in `linux/tcp.h`, since Linux 4.1).
///
/// # Errors
/// As for [`tcp_state`]; `Unsupported` from a kernel that does not count.
pub fn tcp_progress(socket: impl AsFd) -> io::Result<TcpProgress> {
    // tcpi_bytes_acked and tcpi_bytes_received; what lies behind them is not asked for.
    const ACKNOWLEDGED: usize = 120;
    const RECEIVED: usize = 128;
    let mut info = [0; RECEIVED + 8];
    let length = get_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let number = |at: usize| {
        info[at..]
            .first_chunk()
            .map(|word| u64::from_ne_bytes(*word))
    };
    match (number(ACKNOWLEDGED), number(RECEIVED)) {
        (Some(acknowledged), Some(received)) if length == info.len() => Ok(TcpProgress {
            state: info[0],
            acknowledged,
            received,
        }),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether a protocol such as TLS runs in the kernel on top of a TCP socket (`TCP_ULP`).
///
/// # Errors
/// As for [`tcp_state`].
pub fn has_tcp_ulp(socket: impl AsFd) -> io::Result<bool> {
    let mut name = [0; 16]; // TCP_ULP_NAME_MAX
    let length = get_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_ULP, &mut name)?;
    Ok(length > 0)
}

/// Makes the kernel refuse descriptors that others would send to this Unix socket, and to
/// those accepted from it: their sendmsg fails with `EPERM`. Before Linux 6.16 there is no
/// such option and this does nothing.
///
/// # Errors
/// `EOPNOTSUPP` on a socket that is not a Unix one.
pub fn refuse_passed_fds(socket: impl AsFd) -> io::Result<()> {
    /// From `asm-generic/socket.h`; libc does not have it yet.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    // SAFETY: the option reads one int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of_val(&no) as libc::socklen_t,
        )
    };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        error => Err(error),
    }
}

/// Reads an option whose value is plain bytes; returns how many there are.
fn get_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, all of them inside `value`. Only
    // options that contain no address of ours to be followed are asked for.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(length as usize)
}

/// Opens the device behind a tun interface: one IP packet a read, or a write. The interface is
/// made with it and gone with its last descriptor, unless it was made to persist
/// (`Documentation/networking/tuntap.rst`). It is non-blocking and close-on-exec.
///
/// # Errors
/// `InvalidInput` if the name is longer than 15 bytes. `EPERM` without CAP_NET_ADMIN, `EBUSY`
/// if somebody has the interface open, `ENOENT` without the driver.
pub fn open_tun(interface: &str) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // struct ifreq: a name of 16 bytes, NUL included, then a union that begins with the flags.
    let mut request = [0_u8; mem::size_of::<libc::ifreq>()];
    let name = request[..15].get_mut(..interface.len());
    let name = name.ok_or(io::ErrorKind::InvalidInput)?;
    name.copy_from_slice(interface.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel copies one struct ifreq in and out, which is what the request is as
    // long as; it keeps no pointer to it.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) } {
        0.. => Ok(device),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An MPTCP socket, for tests of what is to be told from TCP; nix has no name for it.
#[cfg(test)]
pub(crate) fn mptcp_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes three integers and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
