//! Whether a descriptor is what its record says, and whether it can travel at all. Reads
//! only, for the reasons that [`validate`] gives.
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
//! Some descriptors cannot travel. A Unix socket in flight can be in flight itself, which
//! the kernel finds out by searching all of them, at each close (unix(7), `net/unix/garbage.c`);
//! an epoll set and an io_uring name the descriptors of the process that made them; a
//! signalfd reads the signals of whoever reads it.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

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

/// What a descriptor is, as far as the kernel says so in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Nature {
    Socket(Option<AddressFamily>),
    /// What `/proc/self/fd` shows.
    File(String),
}

/// Checks a descriptor against its record. Whether it is alive: a connection that has been
/// reset is not, and that is no fault of the record.
///
/// # Errors
/// What is not as recorded, in words.
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
    refuse(&nature(fd)?)
}

/// The kind of a descriptor as the kernel knows it, which [`check`] then finds to be so; opaque
/// is whatever has no kind, and a TCP socket while it is being connected.
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
    let nature = nature(fd)?;
    refuse(&nature)?;
    let kind = claimed.kind;
    // What an unknown kind is, the application says or declines.
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
    if is_polled && !is_nonblocking(fd) {
        return Err("O_NONBLOCK is not set".into());
    }
    Ok(())
}

fn is_kind(fd: BorrowedFd<'_>, kind: ItemKind, nature: &Nature) -> bool {
    match (kind, nature) {
        (ItemKind::Udp, Nature::Socket(Some(AddressFamily::Inet | AddressFamily::Inet6))) => {
            is_type(fd, SockType::Datagram)
        }
        (ItemKind::Raw, Nature::Socket(Some(AddressFamily::Inet | AddressFamily::Inet6))) => {
            is_type(fd, SockType::Raw)
        }
        (ItemKind::Packet, Nature::Socket(family)) => *family == Some(AddressFamily::Packet),
        (ItemKind::Netlink, Nature::Socket(family)) => *family == Some(AddressFamily::Netlink),
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
            Nature::Socket(Some(AddressFamily::Unix)) => "a Unix socket",
            Nature::Socket(_) => "another socket",
            Nature::File(name) => name,
        }
    }
}

fn nature(fd: BorrowedFd<'_>) -> Result<Nature, String> {
    match getsockname::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(address) => Ok(Nature::Socket(address.family())),
        Err(Errno::ENOTSOCK) => fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map(|name| Nature::File(name.to_string_lossy().into_owned()))
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn refuse(nature: &Nature) -> Result<(), String> {
    let why = match nature {
        Nature::Socket(Some(AddressFamily::Unix)) => "could be in flight inside of itself",
        Nature::File(name) => match name.as_str() {
            "anon_inode:[eventpoll]" => "names the descriptors of the process that made it",
            "anon_inode:[io_uring]" => "is bound to the memory of the process that made it",
            "anon_inode:[signalfd]" => "reads the signals of whoever reads it",
            _ => return Ok(()),
        },
        Nature::Socket(_) => return Ok(()),
    };
    Err(format!("{} cannot be handed over: it {why}", nature.name()))
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

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd.as_fd(), FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

#[cfg(test)]
mod tests;
