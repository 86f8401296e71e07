//! Whether a descriptor is what its record says, and whether it can travel at all. Every check only
//! reads, for the reasons that [`validate`] gives.
//!
//! | kind | must be | besides |
//! |---|---|---|
//! | listener, tcp peer | see [`validate`] | |
//! | udp | an internet datagram socket | cookie, addresses, O_NONBLOCK |
//! | packet, raw, netlink | a socket of that family or type | cookie, O_NONBLOCK |
//! | tun | /dev/net/tun | O_NONBLOCK |
//! | timerfd, eventfd | an anonymous inode of that name | O_NONBLOCK |
//! | memfd, bpf map, bpf link | such a file | |
//! | opaque | anything that can travel | |
//!
//! Some descriptors cannot travel: epoll sets, signalfds, io_uring, userfaultfds, KVM machines,
//! vhost, VFIO, RDMA, SGX and binder devices, AF_XDP sockets. They are bound to the process that
//! made them, or to its memory. In another process they fail or do harm, most of them only when
//! they are used. Both sides refuse them. A descriptor that only *makes* such things can travel
//! (/dev/kvm, /dev/userfaultfd). So can a descriptor that several processes may use: pidfd,
//! inotify, fanotify, perf events, /dev/fuse. A Unix socket that travels can have sockets in its
//! own queue; to find out, the kernel searches all such sockets at each close (unix(7),
//! `net/unix/garbage.c`).
//!
//! A descriptor with O_ASYNC cannot travel either. Its signals would still go to the process that
//! asked for them, or to the next process with that number (fcntl(2), F_SETOWN).
//!
//! A lock by fcntl(2), F_SETLK, belongs to a process: it stays behind, unnoticed, while the
//! descriptor travels. A lock by flock(2) or F_OFD_SETLK belongs to the open file and travels.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::validate::{self, PeerState};
use crate::proto::records::ItemKind;
use crate::sys;

/// What a record says of a descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Claimed {
    /// Its kind.
    pub kind: ItemKind,
    /// The address it is bound to.
    pub local: Option<SocketAddr>,
    /// The address it is connected to.
    pub peer: Option<SocketAddr>,
    /// The socket's cookie; 0 for what is no socket.
    pub cookie: u64,
}

/// What a descriptor is, as far as one call tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Nature {
    Socket(i32),
    /// What `/proc/self/fd` shows.
    File(String),
}

/// Checks a descriptor against its record. Returns whether it is alive: a connection that has been
/// reset is not, and that is no fault of the record.
///
/// # Errors
/// What differs from the record, in words.
pub fn check(fd: BorrowedFd<'_>, claimed: &Claimed) -> Result<PeerState, String> {
    let Claimed {
        kind,
        local,
        peer,
        cookie,
    } = *claimed;
    match (kind, local, peer) {
        (ItemKind::Listener, Some(local), _) => validate::tcp_listener(fd, local, cookie)
            .map(|()| PeerState::Alive)
            .map_err(|error| error.to_string()),
        (ItemKind::TcpPeer, Some(local), Some(peer)) => {
            validate::tcp_peer(fd, local, peer, cookie).map_err(|error| error.to_string())
        }
        (ItemKind::Listener | ItemKind::TcpPeer, ..) => Err(format!("a {kind} without address")),
        _ => check_other(fd, claimed).map(|()| PeerState::Alive),
    }
}

/// Whether a descriptor can be handed over.
///
/// # Errors
/// Why it cannot, in words.
pub fn can_travel(fd: BorrowedFd<'_>) -> Result<(), String> {
    refuse(&nature(fd)?, flags(fd)?)
}

const MEMORY: &str = "is bound to the memory of the process that made it";
const PROCESS: &str = "is bound to the process that made it";

/// What cannot travel: how its name in `/proc/self/fd` begins, and why. Each of these drivers
/// checks which process or memory uses it (`kvm->mm`, vhost `dev->mm`, `binder_proc`), or keeps
/// what it was given of them.
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

/// The kind of a descriptor as the kernel knows it; [`check`] accepts the descriptor as that kind.
/// Opaque is anything without a kind, and a TCP socket while it is being connected.
#[must_use]
pub fn of(fd: BorrowedFd<'_>) -> ItemKind {
    match sys::tcp_state(fd) {
        Ok(validate::LISTEN) => return ItemKind::Listener,
        Ok(validate::SYN_SENT) => return ItemKind::Opaque,
        Ok(_) => return ItemKind::TcpPeer,
        Err(_) => {} // no TCP socket
    }
    let kinds = [
        ItemKind::Udp,
        ItemKind::Raw,
        ItemKind::Packet,
        ItemKind::Netlink,
        ItemKind::Tun,
        ItemKind::Timerfd,
        ItemKind::Eventfd,
        ItemKind::Memfd,
        ItemKind::BpfMap,
        ItemKind::BpfLink,
    ];
    let Ok(nature) = nature(fd) else {
        return ItemKind::Opaque;
    };
    let found = kinds.into_iter().find(|kind| is_kind(fd, *kind, &nature));
    found.unwrap_or(ItemKind::Opaque)
}

/// The number that tells a socket from every other; 0 for what is no socket.
#[must_use]
pub fn cookie(fd: BorrowedFd<'_>) -> u64 {
    sys::socket_cookie(fd).unwrap_or(0)
}

fn check_other(fd: BorrowedFd<'_>, claimed: &Claimed) -> Result<(), String> {
    let (nature, flags) = (nature(fd)?, flags(fd)?);
    refuse(&nature, flags)?;
    let kind = claimed.kind;
    // The application knows an unknown kind, or declines it.
    if matches!(kind, ItemKind::Opaque | ItemKind::Other(_)) {
        return check_cookie(fd, claimed.cookie);
    }
    if !is_kind(fd, kind, &nature) {
        return Err(format!("not a {kind} but {}", nature.name()));
    }
    check_cookie(fd, claimed.cookie)?;
    if kind == ItemKind::Udp {
        check_address(fd, claimed.local)?;
    }
    let is_polled = !matches!(kind, ItemKind::Memfd | ItemKind::BpfMap | ItemKind::BpfLink);
    if is_polled && !flags.contains(OFlag::O_NONBLOCK) {
        return Err("O_NONBLOCK is not set".into());
    }
    Ok(())
}

fn is_kind(fd: BorrowedFd<'_>, kind: ItemKind, nature: &Nature) -> bool {
    match (kind, nature) {
        (ItemKind::Udp, Nature::Socket(libc::AF_INET | libc::AF_INET6)) => {
            is_type(fd, SockType::Datagram)
        }
        (ItemKind::Raw, Nature::Socket(libc::AF_INET | libc::AF_INET6)) => {
            is_type(fd, SockType::Raw)
        }
        (ItemKind::Packet, Nature::Socket(family)) => *family == libc::AF_PACKET,
        (ItemKind::Netlink, Nature::Socket(family)) => *family == libc::AF_NETLINK,
        (ItemKind::Tun, Nature::File(name)) => name == "/dev/net/tun",
        (ItemKind::Timerfd, Nature::File(name)) => name == "anon_inode:[timerfd]",
        (ItemKind::Eventfd, Nature::File(name)) => name == "anon_inode:[eventfd]",
        (ItemKind::Memfd, Nature::File(name)) => name.starts_with("/memfd:"),
        (ItemKind::BpfMap, Nature::File(name)) => name.starts_with("anon_inode:bpf-map"),
        (ItemKind::BpfLink, Nature::File(name)) => {
            name.starts_with("anon_inode:bpf_link") || name.starts_with("anon_inode:bpf-link")
        }
        _ => false,
    }
}

impl Nature {
    fn name(&self) -> &str {
        match self {
            Nature::Socket(libc::AF_UNIX) => "a Unix socket",
            Nature::Socket(libc::AF_XDP) => "an AF_XDP socket",
            Nature::Socket(_) => "another socket",
            Nature::File(name) => name,
        }
    }
}

fn nature(fd: BorrowedFd<'_>) -> Result<Nature, String> {
    // Not by its address: some have none, and say so with the error of a call that failed.
    match sys::socket_domain(fd) {
        Ok(family) => Ok(Nature::Socket(family)),
        // EBADF: opened with O_PATH, which may be a folder that files are opened from.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSOCK | libc::EBADF)) => {
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
                .map(|name| Nature::File(name.to_string_lossy().into_owned()))
                .map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn flags(fd: BorrowedFd<'_>) -> Result<OFlag, String> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|error| error.to_string())?;
    Ok(OFlag::from_bits_retain(flags))
}

fn refuse(nature: &Nature, flags: OFlag) -> Result<(), String> {
    let bound = |name: &str| BOUND.iter().find(|(begin, _)| name.starts_with(begin));
    let why = match nature {
        Nature::Socket(libc::AF_UNIX) => Some("could be in flight inside of itself"),
        // Its UMEM is pages of ours.
        Nature::Socket(libc::AF_XDP) => Some(MEMORY),
        Nature::Socket(_) => None,
        Nature::File(name) => bound(name).map(|(_, why)| *why),
    };
    if let Some(why) = why {
        let name = nature.name();
        return Err(format!("{name} cannot be handed over: it {why}"));
    }
    match flags.contains(OFlag::O_ASYNC) {
        true => Err(format!("{}: {}", nature.name(), validate::Invalid::Async)),
        false => Ok(()),
    }
}

fn check_cookie(fd: BorrowedFd<'_>, recorded: u64) -> Result<(), String> {
    match cookie(fd) {
        found if found == recorded => Ok(()),
        found => Err(format!("socket cookie {found}, recorded {recorded}")),
    }
}

fn check_address(fd: BorrowedFd<'_>, recorded: Option<SocketAddr>) -> Result<(), String> {
    let found = validate::describe_tcp(fd)
        .map_err(|error| error.to_string())?
        .0;
    match recorded {
        Some(recorded) if (recorded.ip(), recorded.port()) == (found.ip(), found.port()) => Ok(()),
        Some(recorded) => Err(format!("bound to {found}, recorded {recorded}")),
        None => Err("a udp socket without address".into()),
    }
}

fn is_type(fd: BorrowedFd<'_>, wanted: SockType) -> bool {
    getsockopt(&fd, sockopt::SockType) == Ok(wanted)
}

#[cfg(test)]
mod tests;
