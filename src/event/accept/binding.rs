//! How a listener is made, and how one that was shut down listens again.
//!
//! Whoever has a copy of the listener can shut it down for all (shutdown(2)). The same socket is
//! then made to listen again, so a taker that has it already has it whole, options included. Where
//! that fails a new one takes its place, from the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, sockopt,
};

use super::Acceptor;
use crate::sys;

/// Sets options of a listener's socket.
pub(super) type Prepare = fn(BorrowedFd<'_>) -> io::Result<()>;

/// How to make a listener: what [`Acceptor::at`] begins and [`Binding::listen`] completes.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// One that was shut down may have lost its port, and getsockname(2) does not tell it any more
    /// once bind(2) has failed.
    pub(super) address: SocketAddr,
    backlog: i32,
    pub(super) prepare: Prepare,
}

impl Binding {
    pub(super) fn at(address: SocketAddr) -> Binding {
        Binding {
            address,
            backlog: Acceptor::BACKLOG,
            prepare: |_| Ok(()),
        }
    }

    /// Of a socket that was handed over, which is only looked at.
    pub(super) fn of(socket: &TcpListener) -> Binding {
        let nowhere = SocketAddr::from(([0; 4], 0));
        let made = Binding::at(socket.local_addr().unwrap_or(nowhere));
        let backlog = sys::tcp_backlog(socket).ok();
        let backlog = backlog.and_then(|most| i32::try_from(most).ok());
        // One that was shut down has none any more.
        made.backlog(backlog.filter(|most| *most > 0).unwrap_or(made.backlog))
    }

    /// The same, with room for so many connections that wait to be accepted (listen(2)). The kernel
    /// cuts it down to net.core.somaxconn, without a word.
    #[must_use]
    pub fn backlog(self, backlog: i32) -> Binding {
        Binding { backlog, ..self }
    }

    /// The same, with options that are set before the socket is bound. What a connection inherits
    /// from its listener is then set for the first one as well (tcp(7), "Socket options").
    #[must_use]
    pub fn prepare(self, prepare: fn(BorrowedFd<'_>) -> io::Result<()>) -> Binding {
        Binding { prepare, ..self }
    }

    /// Binds and listens. `SO_REUSEADDR` is set; nothing is that would let a second process share
    /// the port.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2), and what [`Binding::prepare`] returns.
    pub fn listen(self) -> io::Result<Acceptor> {
        let socket = self.socket()?;
        let address = socket.local_addr()?;
        Ok(Acceptor::new(socket, Binding { address, ..self }))
    }

    fn socket(&self) -> io::Result<TcpListener> {
        let family = match self.address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        let socket = TcpListener::from(fd);
        (self.prepare)(socket.as_fd())?;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(self.address))?;
        sys::listen(&socket, self.backlog)?;
        Ok(socket)
    }

    /// Makes a socket that was shut down listen again. A port that the kernel had picked is free
    /// since, though getsockname(2) goes on to tell it; one that was asked for is not
    /// (`net/ipv4/tcp.c`, `tcp_set_state`: `SOCK_BINDPORT_LOCK`).
    pub(super) fn listen_again(&self, socket: &TcpListener) -> io::Result<()> {
        // A socket of TCP that is bound has a port: this is none, and may be had anywhere.
        if self.address.port() == 0 {
            return Err(io::Error::other("it has no address"));
        }
        match socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(self.address)) {
            // Bound already (bind(2)).
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
        sys::listen(socket, self.backlog)?;
        match socket.local_addr()? {
            address if address == self.address => Ok(()),
            other => Err(io::Error::other(format!("it listens on {other}"))),
        }
    }

    /// A new listener in the place of one that cannot listen again.
    pub(super) fn anew(self) -> io::Result<Acceptor> {
        if self.address.port() == 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        self.listen()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn backlog_beyond_the_kernels_limit_is_cut_down_by_the_kernel() {
        let at = Acceptor::at("127.0.0.1:0".parse().unwrap());
        for backlog in [0, 1, 4096, 4097, i32::MAX] {
            let acceptor = at.backlog(backlog).listen().unwrap();
            TcpStream::connect(acceptor.local_addr().unwrap()).unwrap();
        }
    }

    #[test]
    fn options_are_set_before_the_first_connection_and_backlog_is_as_asked_for() {
        let at = Acceptor::at("127.0.0.1:0".parse().unwrap());
        let inline = |fd: BorrowedFd<'_>| Ok(socket::setsockopt(&fd, sockopt::OobInline, &true)?);
        let acceptor = at.backlog(77).prepare(inline).listen().unwrap();
        assert_eq!(sys::tcp_backlog(&acceptor).unwrap(), 77);
        let _client = TcpStream::connect(acceptor.local_addr().unwrap()).unwrap();
        let copy = acceptor.as_fd().try_clone_to_owned().unwrap();
        let listener = TcpListener::from(copy);
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(socket::getsockopt(&accepted, sockopt::OobInline), Ok(true));
        // The socket tells a successor of both.
        let adopted = Acceptor::from(listener);
        assert_eq!(adopted.binding.address, acceptor.binding.address);
        assert_eq!(adopted.binding.backlog, 77);
    }

    #[test]
    fn socket_without_an_address_is_not_bound_to_any_other() {
        let nowhere = Binding::at("0.0.0.0:0".parse().unwrap());
        let socket = nowhere.socket().unwrap();
        assert!(nowhere.listen_again(&socket).is_err());
        assert!(nowhere.anew().is_err());
    }
}
