//! Whether a received TCP socket is what its descriptor record says. Reads only.
//!
//! Until the taker has claimed, the donor owns every socket, and a change made through a copy
//! changes the original. So nothing is set here and nothing is repaired. SO_ERROR is never read,
//! because reading clears it: the donor would then take a reset for a clean end of stream
//! (socket(7)).
//!
//! There are as few calls as possible, since each of maybe a million sockets is checked:
//!
//! | call | settles |
//! |---|---|
//! | SO_PROTOCOL | a socket at all; TCP, not MPTCP, UDP or Unix; not O_PATH |
//! | SO_COOKIE | the socket meant by the record, so two items cannot be swapped or doubled |
//! | F_GETFL, F_GETFD | does not block, no SIGIO to the donor; close-on-exec |
//! | TCP_ULP, TCP_REPAIR | no TLS inside the kernel, no socket under repair |
//! | getsockname, getpeername | the addresses; the domain |
//! | TCP_INFO | a stream socket; listening, connected or dead |
//!
//! The state is read last, because it only ever moves towards CLOSE, where a socket loses its
//! addresses (`net/ipv4/tcp.c`, `tcp_set_state`). If the socket is alive at the end, everything
//! read before is valid. If it is in CLOSE, what was read before means nothing.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};

use crate::sys;

/// What a valid peer socket is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Connected; one direction may be closed already.
    Alive,
    /// Reset, or closed from both sides. The network did this, not the record: the takeover goes on
    /// without it.
    Dead,
}

/// Why a socket is not what its record says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Invalid {
    /// Not a TCP socket.
    NotTcp,
    /// Another socket than the one recorded.
    Cookie {
        /// The recorded cookie.
        recorded: u64,
        /// The socket's cookie.
        found: u64,
    },
    /// Its own address is not the recorded one.
    Local {
        /// The recorded address.
        recorded: SocketAddr,
        /// The socket's address.
        found: SocketAddr,
    },
    /// Its peer's address is not the recorded one.
    Peer {
        /// The recorded address.
        recorded: SocketAddr,
        /// The socket's peer.
        found: SocketAddr,
    },
    /// Reading or writing it would block (no O_NONBLOCK).
    Blocks,
    /// It raises signals in its first owner (O_ASYNC).
    Async,
    /// A child process would inherit it (no FD_CLOEXEC).
    Inheritable,
    /// An upper layer such as TLS runs in the kernel; its other half does not travel.
    UpperLayer,
    /// It is under repair (TCP_REPAIR).
    Repair,
    /// It is not what was recorded: neither a connection nor a listener. The number is from
    /// `linux/tcp_states.h`.
    State(u8),
    /// The kernel did not tell.
    Os(io::Error),
}

/// Checks a connection that was accepted from a client.
///
/// # Errors
/// The first thing that is not as recorded.
pub fn tcp_peer(
    fd: BorrowedFd<'_>,
    local: SocketAddr,
    peer: SocketAddr,
    cookie: u64,
) -> Result<PeerState, Invalid> {
    check_common(fd, cookie)?;
    let local_found = local_address(fd)?;
    let peer_found = peer_address(fd)?;
    match sys::tcp_state(fd).map_err(kind_error)? {
        // SYN_RECV is a connection accepted by TCP Fast Open before its handshake ended.
        ESTABLISHED | SYN_RECV | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | CLOSING | LAST_ACK => {}
        // TIME_WAIT is never seen: the socket itself is in CLOSE by then.
        CLOSE => return Ok(PeerState::Dead),
        other => return Err(Invalid::State(other)),
    }
    check_local(local, local_found)?;
    match peer_found {
        Some(found) if !is_same(peer, found) => Err(Invalid::Peer {
            recorded: peer,
            found,
        }),
        Some(_) => Ok(PeerState::Alive),
        // No peer and yet not in CLOSE cannot be a connection.
        None => Err(Invalid::Os(Errno::ENOTCONN.into())),
    }
}

/// Checks a listener.
///
/// # Errors
/// The first thing that is not as recorded.
pub fn tcp_listener(fd: BorrowedFd<'_>, local: SocketAddr, cookie: u64) -> Result<(), Invalid> {
    check_common(fd, cookie)?;
    let found = local_address(fd)?;
    match sys::tcp_state(fd).map_err(kind_error)? {
        LISTEN => check_local(local, found),
        other => Err(Invalid::State(other)),
    }
}

/// The kernel's own number for a socket; see [`sys::socket_cookie`].
///
/// # Errors
/// `ENOTSOCK` on what is no socket.
pub fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    sys::socket_cookie(fd)
}

/// The addresses of a TCP socket for its record: its own, and its peer's unless it is a listener or
/// dead.
///
/// # Errors
/// `ENOTSOCK` on what is no socket, `InvalidInput` if it is not an internet socket.
pub fn describe_tcp(fd: BorrowedFd<'_>) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    let addresses = || Ok((local_address(fd)?, peer_address(fd)?));
    addresses().map_err(|error: Invalid| match error {
        Invalid::Os(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    })
}

/// What holds for peers and listeners alike.
fn check_common(fd: BorrowedFd<'_>, recorded: u64) -> Result<(), Invalid> {
    if sys::socket_protocol(fd).map_err(kind_error)? != libc::IPPROTO_TCP {
        return Err(Invalid::NotTcp);
    }
    let found = sys::socket_cookie(fd).map_err(Invalid::Os)?;
    if found != recorded {
        return Err(Invalid::Cookie { recorded, found });
    }
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return Err(Invalid::Blocks);
    }
    if flags.contains(OFlag::O_ASYNC) {
        return Err(Invalid::Async);
    }
    let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD)?);
    if !flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(Invalid::Inheritable);
    }
    if sys::has_tcp_ulp(fd).map_err(kind_error)? {
        return Err(Invalid::UpperLayer);
    }
    if getsockopt(&fd, sockopt::TcpRepair)? != 0 {
        return Err(Invalid::Repair);
    }
    Ok(())
}

fn check_local(recorded: SocketAddr, found: SocketAddr) -> Result<(), Invalid> {
    if is_same(recorded, found) {
        return Ok(());
    }
    Err(Invalid::Local { recorded, found })
}

/// Flow label and scope are left out. The cookie proves that it is the same socket; the addresses
/// only guard against a record that mixes up two sockets.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

fn local_address(fd: BorrowedFd<'_>) -> Result<SocketAddr, Invalid> {
    internet_address(getsockname(fd.as_raw_fd())?)
}

/// None for a socket that is not, or no longer, connected.
fn peer_address(fd: BorrowedFd<'_>) -> Result<Option<SocketAddr>, Invalid> {
    match getpeername(fd.as_raw_fd()) {
        Ok(address) => internet_address(address).map(Some),
        Err(Errno::ENOTCONN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn internet_address(address: SockaddrStorage) -> Result<SocketAddr, Invalid> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Ok(SocketAddrV4::from(*v4).into());
    }
    let v6 = address.as_sockaddr_in6().ok_or(Invalid::NotTcp)?;
    Ok(SocketAddrV6::from(*v6).into())
}

/// What a socket option says about a descriptor that is something else.
fn kind_error(error: io::Error) -> Invalid {
    match error.raw_os_error() {
        Some(libc::ENOTSOCK | libc::EBADF | libc::ENOPROTOOPT | libc::EOPNOTSUPP) => {
            Invalid::NotTcp
        }
        _ => Invalid::Os(error),
    }
}

// linux/tcp_states.h, the part that a descriptor can be in.
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
pub(super) const FIN_WAIT1: u8 = 4;
pub(super) const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
pub(super) const CLOSE_WAIT: u8 = 8;
pub(super) const LAST_ACK: u8 = 9;
pub(super) const LISTEN: u8 = 10;
pub(super) const CLOSING: u8 = 11;

impl From<Errno> for Invalid {
    fn from(error: Errno) -> Self {
        Invalid::Os(error.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::NotTcp => out.write_str("not a TCP socket"),
            Invalid::Cookie { recorded, found } => {
                write!(out, "socket cookie {found}, recorded {recorded}")
            }
            Invalid::Local { recorded, found } => {
                write!(out, "bound to {found}, recorded {recorded}")
            }
            Invalid::Peer { recorded, found } => {
                write!(out, "connected to {found}, recorded {recorded}")
            }
            Invalid::Blocks => out.write_str("O_NONBLOCK is not set"),
            Invalid::Async => out.write_str(
                "O_ASYNC is set, and its signals would go on going to its first owner; clear it \
                 (fcntl(2), F_SETFL) before a takeover",
            ),
            Invalid::Inheritable => out.write_str("FD_CLOEXEC is not set"),
            Invalid::UpperLayer => out.write_str("an upper layer (TLS) runs in the kernel"),
            Invalid::Repair => out.write_str("TCP_REPAIR is set"),
            Invalid::State(state) => write!(out, "TCP state {state} does not fit"),
            Invalid::Os(error) => write!(out, "cannot be examined: {error}"),
        }
    }
}

impl Error for Invalid {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Invalid::Os(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
