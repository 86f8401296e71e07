//! The few system calls that have no safe wrapper in std or nix.
//!
//! `unsafe` lives here and in `takeover/os/scm.rs`, nowhere else in the library. Every
//! function is safe to call: what the kernel or libc demands of the caller is checked or
//! held by the signature. None logs, none but `count_forks` allocates.
//!
//! - [`fork_alone`]: fork(2), for daemonizing only, refused where a second thread runs
//! - `count_forks`, `forks`: whether this process is a child of the one that asked before
//! - [`pidfd_open`], [`pidfd_send_signal`]: a process that cannot be mistaken for another
//! - [`pidfd_getfd`]: a descriptor of another process
//! - [`wait_pidfd`]: the end of one child, and of no other
//! - [`unblock_signals_in`]: a child that does not inherit what this process has blocked
//! - [`ignore_signal`]: a signal that shall neither end nor stop this process
//! - [`inherited_fds`], [`close_inherited_fds`]: what came along from whoever started us
//! - [`own_table`]: a thread that holds one descriptor, and none of those of the process
//! - [`unread_bytes`], [`unsent_bytes`]: the two TCP queue lengths (tcp(7), SIOCINQ and
//!   SIOCOUTQ)
//! - [`socket_protocol`], [`socket_domain`], [`socket_cookie`], [`network_cookie`], [`tcp_state`], [`tcp_backlog`], [`tcp_progress`],
//!   [`has_tcp_ulp`], [`refuse_passed_fds`]: socket options that nix has no type for
//! - [`listen`]: with any backlog
//! - [`ask_for_shorter_slices`]: to run as soon as the process is woken
//! - [`open_tun`]: a network interface of our own
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{self, SigHandler, SigSet, Signal};

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

/// How many forks lie between this process and the one that began to count.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Has each child know that it is one, whoever calls fork(3) (pthread_atfork(3)). A child of
/// vfork(2), posix_spawn(3) or a bare clone(2) does not: the first two lead to an exec.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn count_forks() -> io::Result<()> {
    extern "C" fn one_more() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static COUNTED: OnceLock<i32> = OnceLock::new();
    // SAFETY: the handler lives as long as the program, and does what a child of fork(2) may do
    // at once (signal-safety(7)): it adds to an atomic number.
    let code = COUNTED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(one_more)) });
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(*code)),
    }
}

/// The present count: another one than before tells that this is a child of the process that
/// asked then. It costs no system call.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
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

/// Ignores `signal` (signal(7)) in this process, and in each program that it executes. Of SIGXFSZ
/// and SIGPIPE nothing is lost by that: the write that raises them fails with `EFBIG` or `EPIPE`.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn ignore_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN is no handler, so no code of ours ever runs in a signal's context.
    unsafe { signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

/// The descriptors beyond stderr that this process was started with. Whatever std and nix open
/// is close-on-exec, and an exec leaves nothing open that is, so those that are not have come
/// through one.
#[must_use]
pub fn inherited_fds() -> Vec<i32> {
    let mut numbers = open_fds();
    numbers.retain(|number| {
        // SAFETY: F_GETFD reads a flag of a number, which need not even be open.
        let flags = unsafe { libc::fcntl(*number, libc::F_GETFD) };
        *number > libc::STDERR_FILENO && flags >= 0 && flags & libc::FD_CLOEXEC == 0
    });
    numbers
}

/// Numbers among which all open ones are.
fn open_fds() -> Vec<i32> {
    match fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
            names
                .filter_map(|name| name.to_str()?.parse().ok())
                .collect()
        }
        // No /proc, or no descriptor to read it by: then every number that one can have.
        Err(_) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
            (0..i32::try_from(limit).unwrap_or(i32::MAX)).collect()
        }
    }
}

/// Closes [`inherited_fds`]; returns how many there were. To be called before this process makes
/// any descriptor inheritable on purpose.
pub fn close_inherited_fds() -> usize {
    let inherited = inherited_fds();
    for number in &inherited {
        // SAFETY: nothing in this process has opened it, so nothing owns it. What close(2) says
        // is about data of others; the number is free in any case.
        unsafe { libc::close(*number) };
    }
    inherited.len()
}

/// Gives the calling thread a descriptor table of its own with a copy of `number` alone in it,
/// and returns that copy. A thread that is stuck in a system call then keeps nothing of the
/// process open, and the process's own table goes on growing as that of a single thread does:
/// without the RCU grace period for each doubling (`fs/file.c`, `expand_fdtable`).
///
/// It is for the first thing that a thread does: other descriptors that it was given are closed
/// for it. Before Linux 5.9 the table stays shared, and what is returned is a duplicate.
///
/// # Errors
/// `EBADF` if `number` is not open, `EMFILE`, `ENOMEM`.
pub fn own_table(number: i32) -> io::Result<OwnedFd> {
    let Ok(kept) = libc::c_uint::try_from(number) else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    // What lies above goes with the copying, so that a large table is not copied for nothing
    // (close_range(2), CLOSE_RANGE_UNSHARE).
    let unshare = libc::CLOSE_RANGE_UNSHARE.cast_signed();
    // SAFETY: the call takes integers. What it closes it closes in a copy of the table that
    // belongs to this thread, and the others go on with theirs.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, unshare) };
    let mine = if done == 0 {
        if let Some(below) = kept.checked_sub(1) {
            // SAFETY: as above, but for the unsharing, which has been done.
            unsafe { libc::syscall(libc::SYS_close_range, 0, below, 0) };
        }
        // SAFETY: F_GETFD reads a flag of a number, which need not even be open.
        match unsafe { libc::fcntl(number, libc::F_GETFD) } {
            0.. => number,
            _ => -1,
        }
    } else {
        // SAFETY: the call takes three integers.
        unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) }
    };
    if mine < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, in a table that nobody else knows or as a fresh duplicate: in either
    // case it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(mine) })
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

/// The family of a socket, such as `AF_INET` (socket(7), `SO_DOMAIN`).
///
/// # Errors
/// `ENOTSOCK` on what is no socket.
pub fn socket_domain(socket: impl AsFd) -> io::Result<i32> {
    let mut domain = [0; 4];
    get_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_DOMAIN,
        &mut domain,
    )?;
    Ok(i32::from_ne_bytes(domain))
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

/// The kernel's own number for the network namespace that a socket was made in, never used for
/// another one until the next boot (`net/core/sock.c`, `SO_NETNS_COOKIE`).
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14; else as [`socket_cookie`].
pub fn network_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = [0; 8];
    get_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_NETNS_COOKIE,
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

/// listen(2). Unlike nix's it takes any backlog: the kernel cuts it down to net.core.somaxconn.
///
/// # Errors
/// Those of listen(2).
pub fn listen(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the call takes two integers, and `fd` is open while it runs.
    if unsafe { libc::listen(fd, backlog) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How many connections may wait for accept(2) on a TCP listener (listen(2)).
///
/// # Errors
/// As for [`tcp_state`]; `InvalidInput` on what does not listen.
pub fn tcp_backlog(socket: impl AsFd) -> io::Result<u32> {
    /// tcpi_sacked, which of a listener is its backlog (`net/ipv4/tcp.c`, `tcp_get_info`).
    const MOST: usize = 28;
    const LISTEN: u8 = 10;
    let mut info = [0; MOST + 4];
    let length = get_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    match info[MOST..].first_chunk() {
        Some(most) if length == info.len() && info[0] == LISTEN => Ok(u32::from_ne_bytes(*most)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
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

/// Asks for time slices of two thirds of the present length, for the calling thread. When it is
/// woken beside a thread that computes, it then runs at once. Otherwise it would wait for the end of
/// that thread's slice, which is some milliseconds. Its share of the time stays the same (sched(7);
/// `kernel/sched/fair.c`, `PREEMPT_SHORT`). Without effect before Linux 6.12.
///
/// Call it once: each call shortens the slice again, and so does a child that calls it, because a
/// child inherits the slice. A slice below 0.7 ms is left as it is, and so is a thread with another
/// scheduling policy than the usual one.
///
/// # Errors
/// What sched_getattr(2) and sched_setattr(2) say. Nothing has changed then.
pub fn ask_for_shorter_slices() -> io::Result<()> {
    /// The least that is usual, on a machine with one processor.
    const USUAL: u64 = 700_000;
    let mut attributes = scheduling()?;
    if attributes.policy != libc::SCHED_OTHER.cast_unsigned() || attributes.runtime < USUAL {
        return Ok(());
    }
    attributes.runtime -= attributes.runtime / 3;
    // SAFETY: the kernel reads as many bytes as the structure says it has, and keeps no pointer
    // to it; 0 is the calling thread.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct sched_attr` in its first form, `SCHED_ATTR_SIZE_VER0` (sched_setattr(2)).
#[repr(C)]
#[derive(Debug, Default)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// How the calling thread is scheduled.
fn scheduling() -> io::Result<Scheduling> {
    let mut attributes = Scheduling::default();
    let size = mem::size_of::<Scheduling>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, which is how long the structure is, and
    // keeps no pointer to it; 0 is the calling thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attributes)
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
    any_socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
}

/// A socket of a family that nix has no name for, for tests.
#[cfg(test)]
pub(crate) fn any_socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes three integers and touches no memory of ours.
    new_fd(unsafe { libc::socket(family, kind, protocol) })
}

/// A userfaultfd(2), for tests of what cannot be handed over.
#[cfg(test)]
pub(crate) fn userfaultfd() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the call takes an integer and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    new_fd(i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?)
}

/// A virtual machine, for the same tests (`Documentation/virt/kvm/api.rst`).
#[cfg(test)]
pub(crate) fn virtual_machine(kvm: &File) -> io::Result<OwnedFd> {
    const KVM_CREATE_VM: libc::Ioctl = 0xae01;
    // SAFETY: the request takes an integer, the kind of machine, and no pointer.
    new_fd(unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) })
}

#[cfg(test)]
fn new_fd(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: whoever calls has just got this descriptor from the kernel, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
