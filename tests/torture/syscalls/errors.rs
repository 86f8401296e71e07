//! What can go wrong with each system call of a takeover, and why that.
//!
//! Errors are those that the man page of the call or the kernel gives for a call that is right
//! in itself: short of descriptors (`EMFILE` the process, `ENFILE` the system), of memory
//! (`ENOMEM`, `ENOBUFS`), forbidden by a security module (`EACCES`, `EPERM`), interrupted
//! (`EINTR`), the disk (`EIO`, `ENOSPC`, `EROFS`), or the other side's doing (`EPIPE`,
//! `ECONNRESET`). Left out is what only a wrong call gets: `EBADF`, `EFAULT`, `ENOTSOCK`, most
//! of `EINVAL`; and what the kernel never says: `EAGAIN` to whoever was told that there is
//! something. Injected, those would be lies about edges and leases, against which no process
//! can defend itself.
//!
//! `=N` is a result in place of an error: `=0` is the end of a channel or a stream. A short
//! write can be had for the log alone, where nobody misses the rest: strace does not make the
//! call that it answers, so a peer's bytes would be lost. An unread client makes the kernel
//! itself write short, in every run.

/// What is put in the place of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// This errno.
    Error(&'static str),
    /// This result, and nothing is done.
    Result(&'static str),
    /// The process dies before it.
    Kill,
}

impl What {
    /// As strace takes it.
    pub(crate) fn rule(self) -> String {
        match self {
            What::Error(errno) => format!("error={errno}"),
            What::Result(result) => format!("retval={}", &result[1..]),
            What::Kill => "signal=SIGKILL".to_owned(),
        }
    }

    /// In tables and names of cases.
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Error(name) | What::Result(name) => name,
            What::Kill => "KILL",
        }
    }
}

/// For each call what can come of it. A call that is not here cannot fail: it has no errors
/// (getpid(2), geteuid(2)), none but for wrong arguments (F_GETFD, FIONBIO, rt_sigprocmask(2),
/// sigaltstack(2), getrlimit(2)), or no return (exit_group(2)). All of them are killed at.
const ERRORS: &[(&str, &[&str])] = &[
    // ECONNABORTED: the caller has gone already. EPERM: a firewall rule.
    (
        "accept4",
        &[
            "EINTR",
            "ECONNABORTED",
            "EPERM",
            "EMFILE",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
        ],
    ),
    // EADDRINUSE: the temporary name is taken, another one is tried.
    (
        "bind",
        &["EADDRINUSE", "EACCES", "ENOMEM", "ENOSPC", "EROFS"],
    ),
    // Allocation: brk has mmap to fall back on, mmap of large blocks has nothing. The system
    // call brk has no errors, only a break that is not the one asked for (brk(2), notes).
    ("brk", &["=0"]),
    ("mmap", &["ENOMEM"]),
    ("mremap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    // Linux closes in any case (close(2)); strace does not, so the descriptor stays. EIO is for
    // what was written to a disk, and nothing is.
    ("close", &["EINTR"]),
    // EAGAIN: the donor's backlog is full. ECONNREFUSED: a successor came in between.
    (
        "connect",
        &["EINTR", "EAGAIN", "ECONNREFUSED", "EACCES", "ENOMEM"],
    ),
    ("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    // ENOSPC: fs.epoll.max_user_watches.
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("fchmod", &["EIO", "EPERM", "EROFS"]),
    // Only F_DUPFD can fail; the others are here for want of a way to tell them apart.
    ("fcntl", &["EMFILE"]),
    // EAGAIN: another process publishes. ENOLCK, EINTR and EIO: a network file system.
    ("flock", &["EAGAIN", "EINTR", "ENOLCK"]),
    ("getdents64", &["ENOENT", "ENOMEM", "EIO"]),
    // ENOTCONN: the peer has reset the connection.
    ("getpeername", &["ENOTCONN", "ENOBUFS"]),
    // ENOSYS is for kernels that are older than all that this needs.
    ("getrandom", &["EINTR"]),
    ("getsockname", &["ENOBUFS"]),
    // ENOPROTOOPT: an older kernel. EMFILE: SO_PEERPIDFD makes a descriptor, the other options
    // show with it what becomes of any error.
    ("getsockopt", &["ENOPROTOOPT", "EMFILE"]),
    ("listen", &["EACCES", "ENOMEM"]),
    ("newfstatat", &["ENOENT", "EACCES", "ENOMEM", "EIO"]),
    (
        "openat",
        &[
            "EINTR", "EMFILE", "ENFILE", "ENOENT", "EACCES", "ENOMEM", "EIO",
        ],
    ),
    ("pidfd_open", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("poll", &["EINTR", "ENOMEM"]),
    // EAGAIN: the lease is empty, the other one was faster.
    ("read", &["EINTR", "EAGAIN", "EIO", "ENOMEM"]),
    ("readlink", &["EACCES", "ENOMEM"]),
    // ETIMEDOUT: the peer's host has gone.
    ("recvfrom", &["EINTR", "ECONNRESET", "ETIMEDOUT", "=0"]),
    // ECONNRESET: the other side has left something unread; read on (hazards K2).
    (
        "recvmsg",
        &["EINTR", "ECONNRESET", "ENOBUFS", "ENOMEM", "=0"],
    ),
    (
        "renameat",
        &[
            "ENOENT", "EACCES", "EPERM", "EBUSY", "EIO", "ENOMEM", "ENOSPC", "EROFS",
        ],
    ),
    ("sched_getaffinity", &["EPERM"]),
    // ETOOMANYREFS: this user's descriptors in flight. EPERM: the other side takes none.
    // EMSGSIZE: a tiny send buffer. EINVAL: a kernel that allows fewer descriptors a record.
    (
        "sendmsg",
        &[
            "EINTR",
            "EAGAIN",
            "ENOBUFS",
            "ENOMEM",
            "ETOOMANYREFS",
            "EPIPE",
            "ECONNRESET",
            "EMSGSIZE",
            "EPERM",
            "EINVAL",
        ],
    ),
    ("sendto", &["EINTR", "EAGAIN", "EPIPE", "ECONNRESET"]),
    ("setsockopt", &["ENOPROTOOPT", "EPERM", "ENOMEM"]),
    ("signalfd4", &["EMFILE", "ENFILE", "ENOMEM"]),
    (
        "socket",
        &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"],
    ),
    ("statx", &["ENOENT", "EACCES", "ENOMEM", "EIO"]),
    // The lease, and the log: a pipe that nobody reads, a full disk.
    (
        "write",
        &["EINTR", "EAGAIN", "EPIPE", "EIO", "ENOSPC", "=1"],
    ),
];

/// All that is to be tried with a call.
pub(crate) fn of(call: &str) -> Vec<What> {
    let errors = ERRORS.iter().find(|(name, _)| *name == call);
    let errors = errors.map_or(&[][..], |(_, errors)| errors);
    let error = |name: &&'static str| match name.starts_with('=') {
        true => What::Result(name),
        false => What::Error(name),
    };
    let mut all: Vec<What> = errors.iter().map(error).collect();
    all.push(What::Kill);
    all
}

/// Whether the process may die of it by itself: no allocation is left.
pub(crate) fn may_abort(call: &str) -> bool {
    matches!(call, "brk" | "mmap" | "mremap" | "mprotect")
}
