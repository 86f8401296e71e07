//! The listener: accepts peers up to the descriptor limit, and comes back from there.
//!
//! [`RESERVE`] descriptors stay free for a takeover, logs and files. At the limit the listener is
//! left alone, one line says so, and connections wait in its backlog. With edge triggering nothing
//! would ever wake it again, so the end of a peer does. If the limit is the system's (`ENFILE`, no
//! memory, no epoll watch), or if accept(2) fails for an unforeseen reason, the listener's own
//! deadline makes it try again. A service whose peers come and go at the limit pauses all the time;
//! it says so once a minute.
//!
//! ```text
//!                 accept fails                       does not listen any more
//!   Open ──────────────────────▶ AtLimit, BackOff ──────────────────────────▶ Broken
//!    ▲ ▲      a peer has gone, the pause is over │                               │
//!    │ └─────────────────────────────────────────┘      listens again, or anew   │
//!    └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Any holder of a copy of the listener can shut it down for all (shutdown(2)). The same socket is
//! then made to listen again, so the copy of a taker is whole again too. If that fails, a new
//! socket with the same address takes its place. Until either succeeds the broken socket stays, so
//! that no takeover goes through without a listener: `Accepting::obstacle`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, sockopt,
};
use socket_takeover::event::{AcceptFailure, Backoff, Cx, Event, Handle, Next, Spec};
use socket_takeover::sys;
use socket_takeover::takeover::internal::limits::RESERVE;

use super::accepting::State;
use super::peer::Peer;
use super::{Server, Shown};
use crate::cli::DEFAULT_BACKLOG;

/// See the file's own description.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    backoff: Backoff,
    /// The address that it was bound to: a socket that was shut down may have lost its port.
    address: SocketAddr,
    backlog: i32,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Binds and listens. It sets neither `SO_REUSEPORT` nor anything else that would let a second
    /// server share the port.
    pub(crate) fn bind(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
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
        // Every peer inherits it. An urgent byte is then a byte like any other (RFC 6093,
        // section 6); else the kernel takes it out of the stream, and nobody can tell how many
        // bytes a peer has sent.
        nix::sys::socket::setsockopt(&fd, sockopt::OobInline, &true)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        nix::sys::socket::listen(&fd, Backlog::new(backlog)?)?;
        let socket = TcpListener::from(fd);
        Ok(Listener {
            address: socket.local_addr()?,
            socket,
            backoff: Backoff::default(),
            backlog,
        })
    }

    /// A listener that was handed over. It is only looked at.
    pub(crate) fn adopt(socket: TcpListener) -> io::Result<Listener> {
        let backlog = sys::tcp_backlog(&socket).ok();
        let backlog = backlog.and_then(|most| i32::try_from(most).ok());
        Ok(Listener {
            address: socket.local_addr()?,
            socket,
            backoff: Backoff::default(),
            // One that was shut down has none any more.
            backlog: backlog.filter(|most| *most > 0).unwrap_or(DEFAULT_BACKLOG),
        })
    }

    /// Stops listening, for every holder of the socket. Called only at the end of the service.
    pub(crate) fn end(self) {
        use nix::sys::socket::{Shutdown, shutdown};
        match shutdown(self.number(), Shutdown::Both) {
            // Somebody else has done it already.
            Ok(()) | Err(Errno::ENOTCONN) => {}
            Err(error) => log::warn!("the listener: {error}"),
        }
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

    fn listens(&self) -> bool {
        nix::sys::socket::getsockopt(&self.socket, sockopt::AcceptConn) == Ok(true)
    }

    /// Makes a socket that was shut down listen again. If the kernel had picked its port, that port
    /// is free since, although getsockname(2) goes on to tell it. A port that somebody chose is not
    /// free (`net/ipv4/tcp.c`, `tcp_set_state`: `SOCK_BINDPORT_LOCK`).
    fn listen_again(&self) -> io::Result<()> {
        match nix::sys::socket::bind(self.number(), &SockaddrStorage::from(self.address)) {
            // Bound already (bind(2)).
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
        nix::sys::socket::listen(&self.socket, Backlog::new(self.backlog)?)?;
        match self.socket.local_addr()? {
            address if address == self.address => Ok(()),
            other => Err(io::Error::other(format!("it listens on {other}"))),
        }
    }

    /// Goes on after the listener has turned out to accept nobody any more.
    fn mend(&mut self, server: &mut Server, cx: &mut Cx<Server>, event: Event) -> Next {
        let Err(first) = self.listen_again() else {
            return self.mended(server, Next::Again);
        };
        match Listener::bind(self.address, self.backlog).and_then(|anew| anew.add(cx)) {
            Ok(anew) => {
                server.listener = Some(anew);
                self.mended(server, Next::End)
            }
            Err(why) => {
                log::debug!("the listener: {first}, then {why}");
                let accepting = &mut server.accepting;
                accepting.broken(self.address, server.peers, cx.now(), &why);
                cx.set_deadline(event.id(), Some(self.backoff.next(cx.now())));
                Next::Keep
            }
        }
    }

    fn mended(&mut self, server: &mut Server, next: Next) -> Next {
        self.backoff.reset();
        log::warn!(
            "somebody has shut the listener down: it listens on {} again; clients that were \
             waiting to be accepted are lost",
            Shown(self.address),
        );
        if server.accepting.obstacle().is_some() {
            server.accepting.resume();
        }
        next
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
    let is_broken = server.accepting.obstacle().is_some();
    if is_broken || event.is_hangup() && !listener.listens() {
        return Ok(listener.mend(server, cx, event));
    }
    let mut gone = None;
    for _ in 0..cx.budget() {
        if server.peers >= server.most_peers {
            let why = format_args!(
                "{} are connected and {RESERVE} descriptors are kept in reserve; raise the \
                 limit of open files (ulimit -n)",
                server.peers,
            );
            server.accepting.pause(State::AtLimit, cx.now(), why);
            return Ok(Next::Keep);
        }
        let error = match listener.socket.accept() {
            Ok((stream, address)) => {
                let Err(error) = welcome(stream, address, server, cx) else {
                    listener.backoff.reset();
                    gone = None;
                    continue;
                };
                // This one is lost; those behind it wait until they can be served.
                return Ok(back_off(listener, server, cx, event, &error.to_string()));
            }
            Err(error) => error,
        };
        match AcceptFailure::judge(&listener.socket, &error) {
            AcceptFailure::Drained => {
                server.accepting.resume();
                return Ok(Next::Keep);
            }
            AcceptFailure::PeerGone => gone = Some(error),
            AcceptFailure::Exhausted => {
                let why = server.accepting.count(&error).to_string();
                return Ok(back_off(listener, server, cx, event, &why));
            }
            AcceptFailure::Broken => return Ok(listener.mend(server, cx, event)),
        }
    }
    match gone {
        // A firewall that forbids all of them, say: the answer may be the same for ever.
        Some(error) => Ok(back_off(listener, server, cx, event, &error.to_string())),
        None => Ok(Next::Again),
    }
}

/// No client can be accepted now: tries again in a while.
fn back_off(
    listener: &mut Listener,
    server: &mut Server,
    cx: &mut Cx<Server>,
    event: Event,
    why: &str,
) -> Next {
    server.accepting.pause(State::BackOff, cx.now(), why);
    cx.set_deadline(event.id(), Some(listener.backoff.next(cx.now())));
    Next::Keep
}

/// Adds a peer that was accepted.
///
/// # Errors
/// If the reactor cannot watch it: the next peer would fare no better.
fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    server: &mut Server,
    cx: &mut Cx<Server>,
) -> io::Result<()> {
    let prepared = stream
        .set_nonblocking(true)
        .and_then(|()| stream.set_nodelay(true));
    if let Err(error) = prepared {
        log::debug!("Peer {} was not taken: {error}", Shown(address));
        return Ok(());
    }
    let peer = Peer::new(stream, address);
    let name = log::log_enabled!(log::Level::Debug).then(|| peer.to_string());
    peer.add(server, cx)?;
    server.peers += 1;
    server.counters.accepted += 1;
    if let Some(name) = name {
        log::debug!("Accepting connection from {name}");
    }
    Ok(())
}

/// The kernel reduces each backlog to this, without a word (listen(2)).
pub(crate) fn longest_backlog() -> Option<i32> {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    limit.trim().parse().ok()
}
