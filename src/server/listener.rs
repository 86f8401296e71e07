//! The listener: accepts peers up to the descriptor limit, and comes back from there.
//!
//! [`RESERVE`] descriptors stay free for a takeover, logs and files. At the limit the
//! listener is left alone, one line says so, and connections wait in its backlog: with edge
//! triggering nothing would ever wake it again, so the end of a peer does. Where the limit
//! is the system's (`ENFILE`, no memory, no epoll watch), its own deadline tries again. A service whose
//! peers come and go at the limit pauses all the time, and says so once in [`QUIET`].

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::sockopt;
use socket_takeover::event::{AcceptFailure, Backoff, Cx, Event, Handle, Next, Spec, Time};
use socket_takeover::takeover::limits::RESERVE;

use super::peer::Peer;
use super::{Server, Shown};

/// The shortest time between two lines that say that no peers are accepted.
const QUIET: Duration = Duration::from_secs(60);

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

/// Whether connections are accepted, and what the log says about it.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    /// None while they are accepted as they come.
    pause: Option<Pause>,
    /// When the log was last told of a pause.
    told: Option<Time>,
    /// It was told of this one.
    telling: bool,
}

/// Until when no connection is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// A peer has gone.
    AtLimit,
    /// The back-off is over.
    BackOff,
}

impl Accepting {
    /// Connections may be waiting that no event will tell of.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// The end of a peer makes room for one that waits.
    pub(crate) fn wants_room(&self) -> bool {
        self.pause == Some(Pause::AtLimit)
    }

    fn pause(&mut self, pause: Pause, now: Time, why: impl fmt::Display) {
        let lately = self.told.is_some_and(|told| now.since(told) < QUIET);
        if self.pause.replace(pause).is_none() && !lately {
            self.told = Some(now);
            self.telling = true;
            log::warn!("no more peers are accepted: {why}");
        }
    }

    /// Nobody waits any more.
    fn resume(&mut self) {
        self.pause = None;
        if std::mem::take(&mut self.telling) {
            log::info!("peers are accepted again");
        }
    }
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
        // Every peer inherits it. An urgent byte is then a byte like any other (RFC 6093,
        // section 6); else the kernel takes it out of the stream, and nobody can tell how many
        // bytes a peer has sent.
        nix::sys::socket::setsockopt(&fd, sockopt::OobInline, &true)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        nix::sys::socket::listen(&fd, Backlog::new(backlog)?)?;
        Ok(Listener::from(TcpListener::from(fd)))
    }

    /// Stops listening, for every holder of the socket: only at the end of the service.
    pub(crate) fn end(self) {
        use nix::sys::socket::{Shutdown, shutdown};
        if let Err(error) = shutdown(self.number(), Shutdown::Both) {
            log::warn!("the listener: {error}");
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
            let why = format_args!(
                "{} are connected and {RESERVE} descriptors are kept in reserve; raise the \
                 limit of open files (ulimit -n)",
                server.peers,
            );
            server.accepting.pause(Pause::AtLimit, cx.now(), why);
            return Ok(Next::Keep);
        }
        let error = match listener.socket.accept() {
            Ok((stream, address)) => {
                let Err(error) = welcome(stream, address, server, cx) else {
                    listener.backoff.reset();
                    continue;
                };
                // This one is lost; those behind it wait until they can be served.
                server.accepting.pause(Pause::BackOff, cx.now(), error);
                cx.set_deadline(event.id(), Some(listener.backoff.next(cx.now())));
                return Ok(Next::Keep);
            }
            Err(error) => error,
        };
        match AcceptFailure::of(&error) {
            AcceptFailure::Drained => {
                server.accepting.resume();
                return Ok(Next::Keep);
            }
            AcceptFailure::PeerGone => {}
            AcceptFailure::Exhausted => {
                server.accepting.pause(Pause::BackOff, cx.now(), error);
                cx.set_deadline(event.id(), Some(listener.backoff.next(cx.now())));
                return Ok(Next::Keep);
            }
            AcceptFailure::Broken => return Err(error),
        }
    }
    Ok(Next::Again)
}

/// Takes one that was accepted.
///
/// # Errors
/// If the reactor cannot: the next one would fare no better.
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

/// The kernel cuts each backlog down to this, without a word (listen(2)).
pub(crate) fn longest_backlog() -> Option<i32> {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    limit.trim().parse().ok()
}
