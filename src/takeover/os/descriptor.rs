//! Whether a received descriptor is what its record says. Reads only.
//!
//! Until the taker has claimed, the donor owns every socket, and a change made through a copy
//! is a change to the original. So nothing is set here, nothing repaired, and SO_ERROR is
//! never read: reading clears it, after which the donor would take a reset for a clean end of
//! stream (socket(7)).
//!
//! Each kind is one row of the table `KINDS`, and one check goes along it:
//!
//! | step | settles |
//! |---|---|
//! | the form: SO_PROTOCOL, or SO_DOMAIN and the name in `/proc/self/fd` | it is of that kind at all |
//! | F_GETFL | it can travel (`descriptor/travel.rs`); a kind that is polled does not block |
//! | SO_COOKIE | the socket meant by the record, so two items cannot be swapped or doubled |
//! | what the kind asks for besides | addresses; of TCP also its state (`descriptor/tcp.rs`) |
//!
//! As few calls as will do, since this is done for each of maybe a million sockets.
//!
//! | file | |
//! |---|---|
//! | `descriptor/travel.rs` | what a descriptor is by its name, and whether it can travel at all |
//! | `descriptor/tcp.rs` | what is asked of a TCP socket |
//! | `descriptor/invalid.rs` | why a descriptor is not what its record says |

mod invalid;
pub mod tcp;
mod travel;

use std::os::fd::BorrowedFd;

use nix::fcntl::OFlag;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::proto::records::{Descriptor, ItemKind};
use crate::sys;
use travel::{Nature, flags, refuse};

pub use invalid::Invalid;
pub use tcp::addresses;
pub use travel::can_travel;

/// What a valid descriptor is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It can be served. Of a connection one direction may be closed already.
    Alive,
    /// A connection that was reset, or closed from both sides. That is the network's doing and
    /// no fault of the record: the takeover goes on without it.
    Dead,
}

/// Checks a descriptor against its record. Whether it is alive: a connection that has been
/// reset is not, and that is no fault of the record.
///
/// # Errors
/// The first thing that is not as recorded.
pub fn check(fd: BorrowedFd<'_>, about: &Descriptor<'_>) -> Result<PeerState, Invalid> {
    let row = KINDS.iter().find(|row| row.kind == about.kind);
    let row = row.unwrap_or(&OPAQUE);
    let nature = match row.form {
        Form::Tcp => tcp::nature(fd)?,
        _ => Nature::of(fd)?,
    };
    let flags = flags(fd)?;
    refuse(&nature, flags)?;
    if !row.form.fits(fd, &nature) {
        return Err(Invalid::Kind {
            recorded: about.kind,
            found: nature.name().to_owned(),
        });
    }
    let recorded = about.cookie;
    let found = match nature {
        Nature::File(_) => 0,
        Nature::Tcp | Nature::Socket(_) => sys::socket_cookie(fd).map_err(Invalid::Os)?,
    };
    if found != recorded {
        return Err(Invalid::Cookie { recorded, found });
    }
    if row.is_polled && !flags.contains(OFlag::O_NONBLOCK) {
        return Err(Invalid::Blocks);
    }
    (row.rest)(fd, about)
}

/// The kind of a descriptor as the kernel knows it, which a taker then finds to be so; opaque
/// is whatever has no kind, and a TCP socket while it is being connected.
#[must_use]
pub fn kind_of(fd: BorrowedFd<'_>) -> ItemKind {
    // Multipath TCP answers for TCP's state too, but is none (`net/mptcp/sockopt.c`).
    if tcp::nature(fd).is_ok() {
        match sys::tcp_state(fd) {
            Ok(tcp::LISTEN) => return ItemKind::Listener,
            Ok(tcp::SYN_SENT) => return ItemKind::Opaque,
            Ok(_) => return ItemKind::TcpPeer,
            Err(_) => {}
        }
    }
    let Ok(nature) = Nature::of(fd) else {
        return ItemKind::Opaque;
    };
    let row = KINDS.iter().find(|row| row.form.fits(fd, &nature));
    row.unwrap_or(&OPAQUE).kind
}

/// For its record: the kernel's own number for a socket, which tells it from every other
/// ([`sys::socket_cookie`]); 0 for what is no socket.
#[must_use]
pub fn cookie(fd: BorrowedFd<'_>) -> u64 {
    sys::socket_cookie(fd).unwrap_or(0)
}

/// The kernel's side of a kind of item.
struct Row {
    kind: ItemKind,
    form: Form,
    /// Its events are waited for, so no call may block.
    is_polled: bool,
    /// What is asked of it besides.
    rest: fn(BorrowedFd<'_>, &Descriptor<'_>) -> Result<PeerState, Invalid>,
}

/// What a descriptor of a kind looks like.
enum Form {
    Tcp,
    /// An internet socket of this type.
    Internet(SockType),
    /// A socket of this family.
    Family(i32),
    /// A file with one of these names in `/proc/self/fd`; `*` stands for any end.
    File(&'static [&'static str]),
    Anything,
    /// The kind has no descriptor.
    Nothing,
}

/// All kinds. The first whose form fits is what a descriptor is.
const KINDS: &[Row] = &[
    polled(ItemKind::Listener, Form::Tcp, tcp::listener),
    polled(ItemKind::TcpPeer, Form::Tcp, tcp::peer),
    polled(ItemKind::Udp, Form::Internet(SockType::Datagram), is_bound),
    polled(ItemKind::Raw, Form::Internet(SockType::Raw), no_more),
    polled(ItemKind::Packet, Form::Family(libc::AF_PACKET), no_more),
    polled(ItemKind::Netlink, Form::Family(libc::AF_NETLINK), no_more),
    polled(ItemKind::Tun, Form::File(&["/dev/net/tun"]), no_more),
    polled(
        ItemKind::Timerfd,
        Form::File(&["anon_inode:[timerfd]"]),
        no_more,
    ),
    polled(
        ItemKind::Eventfd,
        Form::File(&["anon_inode:[eventfd]"]),
        no_more,
    ),
    unpolled(ItemKind::Memfd, Form::File(&["/memfd:*"])),
    unpolled(ItemKind::BpfMap, Form::File(&["anon_inode:bpf-map*"])),
    unpolled(
        ItemKind::BpfLink,
        Form::File(&["anon_inode:bpf_link*", "anon_inode:bpf-link*"]),
    ),
    unpolled(ItemKind::State, Form::Nothing),
    OPAQUE,
];

/// Also the row of a kind that is not known here: what it is, the application says or declines.
const OPAQUE: Row = unpolled(ItemKind::Opaque, Form::Anything);

const fn polled(
    kind: ItemKind,
    form: Form,
    rest: fn(BorrowedFd<'_>, &Descriptor<'_>) -> Result<PeerState, Invalid>,
) -> Row {
    Row {
        kind,
        form,
        is_polled: true,
        rest,
    }
}

const fn unpolled(kind: ItemKind, form: Form) -> Row {
    Row {
        kind,
        form,
        is_polled: false,
        rest: no_more,
    }
}

impl Form {
    fn fits(&self, fd: BorrowedFd<'_>, nature: &Nature) -> bool {
        match (self, nature) {
            (Form::Anything, _) | (Form::Tcp, Nature::Tcp) => true,
            (Form::Internet(kind), Nature::Socket(libc::AF_INET | libc::AF_INET6)) => {
                getsockopt(&fd, sockopt::SockType) == Ok(*kind)
            }
            (Form::Family(family), Nature::Socket(found)) => family == found,
            (Form::File(names), Nature::File(found)) => {
                names.iter().any(|name| match name.strip_suffix('*') {
                    Some(begin) => found.starts_with(begin),
                    None => found == name,
                })
            }
            _ => false,
        }
    }
}

fn no_more(_: BorrowedFd<'_>, _: &Descriptor<'_>) -> Result<PeerState, Invalid> {
    Ok(PeerState::Alive)
}

fn is_bound(fd: BorrowedFd<'_>, about: &Descriptor<'_>) -> Result<PeerState, Invalid> {
    let recorded = about.local.ok_or(Invalid::NoAddress("udp socket"))?;
    tcp::check_local(recorded, tcp::local_address(fd)?)?;
    Ok(PeerState::Alive)
}

#[cfg(test)]
mod tests;
