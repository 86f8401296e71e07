//! What is asked of a TCP socket, beyond what is asked of every descriptor.
//!
//! | call | settles |
//! |---|---|
//! | SO_PROTOCOL, first of all | a socket at all; TCP, not MPTCP, UDP or Unix; not O_PATH |
//! | F_GETFD | close-on-exec |
//! | TCP_ULP, TCP_REPAIR | no TLS inside the kernel, no socket under repair |
//! | getsockname, getpeername | the addresses; the domain |
//! | TCP_INFO | a stream socket; listening, connected or dead |
//!
//! The state is read last because it only ever moves towards CLOSE, where a socket loses its
//! addresses (`net/ipv4/tcp.c`, `tcp_set_state`): alive at the end means that what was read
//! before is meant, and CLOSE makes it void.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};

use super::travel::Nature;
use super::{Invalid, PeerState};
use crate::proto::records::Descriptor;
use crate::sys;

/// That it is a TCP socket.
pub(super) fn nature(fd: BorrowedFd<'_>) -> Result<Nature, Invalid> {
    match sys::socket_protocol(fd).map_err(kind_error)? {
        libc::IPPROTO_TCP => Ok(Nature::Tcp),
        _ => Err(Invalid::NotTcp),
    }
}

/// Checks a connection that was accepted from a client.
pub(super) fn peer(fd: BorrowedFd<'_>, about: &Descriptor<'_>) -> Result<PeerState, Invalid> {
    let (Some(local), Some(peer)) = (about.local, about.peer) else {
        return Err(Invalid::NoAddress("tcp peer"));
    };
    check_options(fd)?;
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
pub(super) fn listener(fd: BorrowedFd<'_>, about: &Descriptor<'_>) -> Result<PeerState, Invalid> {
    let local = about.local.ok_or(Invalid::NoAddress("listener"))?;
    check_options(fd)?;
    let found = local_address(fd)?;
    match sys::tcp_state(fd).map_err(kind_error)? {
        LISTEN => check_local(local, found).map(|()| PeerState::Alive),
        other => Err(Invalid::State(other)),
    }
}

/// The addresses of a TCP socket, for its record: its own, and its peer's unless it is a
/// listener or dead.
///
/// # Errors
/// `ENOTSOCK` on what is no socket, `InvalidInput` if it is not an internet socket.
pub fn addresses(fd: BorrowedFd<'_>) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    let both = || Ok((local_address(fd)?, peer_address(fd)?));
    both().map_err(|error: Invalid| match error {
        Invalid::Os(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    })
}

/// What holds for peers and listeners alike.
fn check_options(fd: BorrowedFd<'_>) -> Result<(), Invalid> {
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

pub(super) fn check_local(recorded: SocketAddr, found: SocketAddr) -> Result<(), Invalid> {
    if is_same(recorded, found) {
        return Ok(());
    }
    Err(Invalid::Local { recorded, found })
}

/// Flow label and scope are left out: that it is the same socket is settled by the cookie,
/// the addresses only guard against a record that mixes up two of them.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

pub(super) fn local_address(fd: BorrowedFd<'_>) -> Result<SocketAddr, Invalid> {
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
/// Connected.
pub const ESTABLISHED: u8 = 1;
/// Being connected from here.
pub const SYN_SENT: u8 = 2;
/// Being connected to here.
pub const SYN_RECV: u8 = 3;
/// Our end was sent.
pub const FIN_WAIT1: u8 = 4;
/// Our end was acknowledged.
pub const FIN_WAIT2: u8 = 5;
/// Not connected, or not any more.
pub const CLOSE: u8 = 7;
/// The peer's end has come.
pub const CLOSE_WAIT: u8 = 8;
/// The peer's end has come, and then ours was sent.
pub const LAST_ACK: u8 = 9;
/// Listening.
pub const LISTEN: u8 = 10;
/// Both ends were sent, and crossed.
pub const CLOSING: u8 = 11;

#[cfg(test)]
mod tests;
