//! What a descriptor is by the name that the kernel gives it, and whether it can travel at all.
//!
//! Some descriptors cannot travel: epoll sets, signalfds, io_uring, userfaultfds, KVM machines,
//! vhost, VFIO, RDMA, SGX and binder devices, AF_XDP sockets. They are bound to the process that
//! made them, or to its memory, and fail or do harm at another one, most of them only when they
//! are used. Both sides refuse them. What only *makes* such things can travel (/dev/kvm,
//! /dev/userfaultfd), and so can what many may use: pidfd, inotify, fanotify, perf events,
//! /dev/fuse. A Unix socket in flight can be in flight itself, which the kernel finds out by
//! searching all of them, at each close (unix(7), `net/unix/garbage.c`).
//!
//! Neither can what has O_ASYNC set: its signals go on going to the process that asked for them,
//! or to whichever has its number next (fcntl(2), F_SETOWN).
//!
//! A lock of fcntl(2), F_SETLK, belongs to a process and stays behind, unseen, while the
//! descriptor travels; one of flock(2) or F_OFD_SETLK belongs to the open file and travels.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Invalid;
use crate::sys;

/// What a descriptor is, as far as the kernel says so in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nature {
    /// A TCP socket, where it was asked for.
    Tcp,
    /// A socket of this family.
    Socket(i32),
    /// What `/proc/self/fd` shows.
    File(String),
}

/// Whether a descriptor can be handed over.
///
/// # Errors
/// Why it cannot.
pub fn can_travel(fd: BorrowedFd<'_>) -> Result<(), Invalid> {
    refuse(&Nature::of(fd)?, flags(fd)?)
}

const MEMORY: &str = "is bound to the memory of the process that made it";
const PROCESS: &str = "is bound to the process that made it";

/// What cannot travel: how its name in `/proc/self/fd` begins, and why. Each is refused where
/// the driver asks whose memory or process it is (`kvm->mm`, vhost `dev->mm`, `binder_proc`) or
/// keeps what it was given of them.
const BOUND: [(&str, &str); 16] = [
    (
        "anon_inode:[eventpoll]",
        "names the descriptors of the process that made it",
    ),
    (
        "anon_inode:[signalfd]",
        "reads the signals of whoever reads it",
    ),
    ("anon_inode:[io_uring]", MEMORY),
    ("anon_inode:[userfaultfd]", MEMORY),
    // A machine, its processors, their figures; memory of a guest.
    ("anon_inode:kvm-", MEMORY),
    ("anon_inode:[kvm", MEMORY),
    ("/dev/vhost-", MEMORY),
    // Devices that have pages of ours mapped.
    ("anon_inode:[vfio-device]", MEMORY),
    ("/dev/vfio/", MEMORY),
    ("/dev/iommu", MEMORY),
    ("/dev/infiniband/", MEMORY),
    ("/dev/sgx_", MEMORY),
    ("/dev/kfd", PROCESS),
    ("/dev/binder", PROCESS),
    ("/dev/hwbinder", PROCESS),
    ("/dev/vndbinder", PROCESS),
];

impl Nature {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Nature, Invalid> {
        // Not by its address: some have none, and say so with the error of a call that failed.
        match sys::socket_domain(fd) {
            Ok(family) => Ok(Nature::Socket(family)),
            // EBADF: opened with O_PATH, which may be a folder that files are opened from.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSOCK | libc::EBADF)) => {
                fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
                    .map(|name| Nature::File(name.to_string_lossy().into_owned()))
                    .map_err(Invalid::Os)
            }
            Err(error) => Err(Invalid::Os(error)),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Nature::Tcp => "a TCP socket",
            Nature::Socket(libc::AF_UNIX) => "a Unix socket",
            Nature::Socket(libc::AF_XDP) => "an AF_XDP socket",
            Nature::Socket(_) => "another socket",
            Nature::File(name) => name,
        }
    }
}

pub(super) fn flags(fd: BorrowedFd<'_>) -> Result<OFlag, Invalid> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?))
}

pub(super) fn refuse(nature: &Nature, flags: OFlag) -> Result<(), Invalid> {
    let bound = |name: &str| BOUND.iter().find(|(begin, _)| name.starts_with(begin));
    let why = match nature {
        Nature::Socket(libc::AF_UNIX) => Some("could be in flight inside of itself"),
        // Its UMEM is pages of ours.
        Nature::Socket(libc::AF_XDP) => Some(MEMORY),
        Nature::Tcp | Nature::Socket(_) => None,
        Nature::File(name) => bound(name).map(|(_, why)| *why),
    };
    let name = || nature.name().to_owned();
    if let Some(why) = why {
        return Err(Invalid::Bound { name: name(), why });
    }
    match flags.contains(OFlag::O_ASYNC) {
        true => Err(Invalid::Async((*nature != Nature::Tcp).then(name))),
        false => Ok(()),
    }
}
