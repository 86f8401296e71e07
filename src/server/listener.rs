//! The listener: accepts peers up to the descriptor limit, and comes back from there.
//!
//! [`RESERVE`] descriptors stay free for a takeover, logs and files. At the limit the
//! listener is left alone, one line says so, and connections wait in its backlog: with edge
//! triggering nothing would ever wake it again, so the end of a peer does. Where the limit
//! is the system's (`ENFILE`, or no memory), its own deadline tries again.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::sockopt;
use socket_takeover::event::{AcceptFailure, Backoff, Cx, Event, Handle, Next, Spec};
use socket_takeover::takeover::limits::RESERVE;

use super::peer::Peer;
use super::{Server, Shown};

/// See the file's own description.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    backoff: Backoff,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Listener {
        Listener {
            socket,
            backoff: Backoff::default(),
        }
    }
}

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepting {
    /// As they come.
    Yes,
    /// Not before a peer has gone.
    AtLimit,
    /// Not before the back-off is over.
    BackOff,
}

impl Listener {
    /// Binds and listens. Neither `SO_REUSEPORT` nor anything else that would let a second
    /// server share the port.
    pub(crate) fn bind(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
        use nix::sys::socket::{
            AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage,
        };
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = nix::sys::socket::socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::Tcp,
        )?;
        nix::sys::socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        nix::sys::socket::listen(&fd, Backlog::new(backlog)?)?;
        Ok(Listener::from(TcpListener::from(fd)))
    }

    /// The descriptor's number, for log lines.
    pub(crate) fn number(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Gives the listener to the reactor.
    pub(crate) fn add(self, cx: &mut Cx<Server>) -> io::Result<Handle<Listener>> {
        cx.add(Spec::item("listener"), self, accept)
            .map_err(|refused| refused.error)
    }
}

/// How many peers there may be under a descriptor limit of `nofile`.
pub(crate) fn most_peers(nofile: usize) -> usize {
    nofile.saturating_sub(RESERVE)
}

fn accept(
    listener: &mut Listener,
    server: &mut Server,
    cx: &mut Cx<Server>,
    event: Event,
) -> io::Result<Next> {
    for _ in 0..cx.budget() {
        if server.peers >= server.most_peers {
            if server.accepting != Accepting::AtLimit {
                server.accepting = Accepting::AtLimit;
                log::warn!(
                    "no more peers are accepted: {} are connected and {RESERVE} descriptors \
                     are kept in reserve; raise the limit of open files (ulimit -n)",
                    server.peers,
                );
            }
            return Ok(Next::Keep);
        }
        let error = match listener.socket.accept() {
            Ok((stream, address)) => {
                listener.backoff.reset();
                if server.accepting != Accepting::Yes {
                    server.accepting = Accepting::Yes;
                    log::info!("peers are accepted again");
                }
                welcome(stream, address, server, cx);
                continue;
            }
            Err(error) => error,
        };
        match AcceptFailure::of(&error) {
            AcceptFailure::Drained => return Ok(Next::Keep),
            AcceptFailure::PeerGone => {}
            AcceptFailure::Exhausted => {
                if server.accepting == Accepting::Yes {
                    log::warn!("no more peers are accepted for now: {error}");
                }
                server.accepting = Accepting::BackOff;
                cx.set_deadline(event.id(), Some(listener.backoff.next(cx.now())));
                return Ok(Next::Keep);
            }
            AcceptFailure::Broken => return Err(error),
        }
    }
    Ok(Next::Again)
}

fn welcome(stream: TcpStream, address: SocketAddr, server: &mut Server, cx: &mut Cx<Server>) {
    let prepared = stream
        .set_nonblocking(true)
        .and_then(|()| stream.set_nodelay(true));
    let peer = Peer::new(stream, address);
    let name = log::log_enabled!(log::Level::Debug).then(|| peer.to_string());
    match prepared.and_then(|()| peer.add(server, cx)) {
        Ok(_) => {
            server.peers += 1;
            server.counters.accepted += 1;
            if let Some(name) = name {
                log::debug!("Accepting connection from {name}");
            }
        }
        Err(error) => log::warn!("Peer {} was not taken: {error}", Shown(address)),
    }
}
