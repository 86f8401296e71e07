//! What to do when accept(2) fails.
//!
//! With edge triggering, a failed accept is a stall in waiting: the connections that are
//! queued already make no further edge. Without descriptors there is no point in trying on, so
//! the listener has to come back by itself. [`Acceptor`] does that; this is what it is made of:
//!
//! ```no_run
//! # use socket_takeover::event::*;
//! # use std::net::TcpListener;
//! # fn add(cx: &mut Cx<()>, listener: TcpListener) -> std::io::Result<()> {
//! let mut backoff = Backoff::default();
//! cx.add(Spec::item("listener"), listener, move |listener, _state, cx, event| {
//!     for _ in 0..cx.budget() {
//!         match listener.accept() {
//!             Ok((_peer, _address)) => backoff.reset(),
//!             Err(error) => match AcceptFailure::of(&error) {
//!                 AcceptFailure::Drained => return Ok(Next::Keep),
//!                 AcceptFailure::PeerGone => {}
//!                 AcceptFailure::Exhausted => {
//!                     let again = backoff.next(cx.now());
//!                     cx.set_deadline(event.id(), Some(again));
//!                     return Ok(Next::Keep);
//!                 }
//!                 AcceptFailure::Broken => return Err(error),
//!             },
//!         }
//!     }
//!     Ok(Next::Again)
//! })?;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{AddError, Cx, Event, Handle, Next, Spec, Time};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// The longest pause: what a client waits for at most after descriptors are free again.
const LONGEST: Duration = Duration::from_millis(640);

/// A TCP listener as a source, with the back-off that it needs.
///
/// ```no_run
/// # use socket_takeover::event::*;
/// # fn add(cx: &mut Cx<Vec<std::net::TcpStream>>) -> std::io::Result<()> {
/// let listener = Acceptor::bind("127.0.0.1:3868".parse().unwrap())?;
/// listener.add(cx, "listener", |streams: &mut Vec<_>, _cx, stream, _address| {
///     streams.push(stream);
///     Ok(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Acceptor {
    socket: TcpListener,
    backoff: Backoff,
}

impl Acceptor {
    /// Binds and listens.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn bind(address: SocketAddr) -> io::Result<Acceptor> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Acceptor::from(socket))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of getsockname(2), which for a bound socket are none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Gives it to the reactor as an item, bound or handed over. `welcome` gets each client;
    /// one that it could not take is logged and closed.
    ///
    /// # Errors
    /// As [`Cx::add`].
    pub fn add<S: 'static>(
        self,
        cx: &mut Cx<S>,
        name: &'static str,
        mut welcome: impl FnMut(&mut S, &mut Cx<S>, TcpStream, SocketAddr) -> io::Result<()> + 'static,
    ) -> Result<Handle<Acceptor>, AddError<Acceptor>> {
        cx.add(
            Spec::item(name),
            self,
            move |acceptor, state: &mut S, cx, event| {
                acceptor.accept(cx, event, |cx, stream, address| {
                    if let Err(error) = welcome(state, cx, stream, address) {
                        log::warn!("{name}: {address} was not taken: {error}");
                    }
                })
            },
        )
    }

    /// The whole of its callback: accepts until nobody waits, the budget is used up, or
    /// descriptors are. Each stream is non-blocking when `welcome` gets it.
    ///
    /// # Errors
    /// If the listener itself has become unusable.
    pub fn accept<S>(
        &mut self,
        cx: &mut Cx<S>,
        event: Event,
        mut welcome: impl FnMut(&mut Cx<S>, TcpStream, SocketAddr),
    ) -> io::Result<Next> {
        for _ in 0..cx.budget() {
            let accepted = self.socket.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                Ok((stream, address))
            });
            let error = match accepted {
                Ok((stream, address)) => {
                    self.backoff.reset();
                    welcome(cx, stream, address);
                    continue;
                }
                Err(error) => error,
            };
            match AcceptFailure::of(&error) {
                AcceptFailure::Drained => {
                    // The kernel looks for a free descriptor first, so there is one.
                    self.backoff.reset();
                    return Ok(Next::Keep);
                }
                AcceptFailure::PeerGone => {}
                AcceptFailure::Exhausted => {
                    let again = self.backoff.next(cx.now());
                    cx.set_deadline(event.id(), Some(again));
                    return Ok(Next::Keep);
                }
                AcceptFailure::Broken => return Err(error),
            }
        }
        Ok(Next::Again)
    }

    /// Whether connections may be waiting that no event will tell of: it is to be handed over
    /// as one that has work.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        !self.backoff.last.is_zero()
    }
}

/// A listener that is non-blocking already, such as one that was handed over.
impl From<TcpListener> for Acceptor {
    fn from(socket: TcpListener) -> Acceptor {
        Acceptor {
            socket,
            backoff: Backoff::default(),
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A failure of accept(2) by what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFailure {
    /// Nobody is waiting: keep the listener, the next one makes an edge.
    Drained,
    /// This one has gone, or its network has failed before it was accepted: try the next.
    PeerGone,
    /// No descriptor or no memory is left: try again later, by a deadline.
    Exhausted,
    /// The listener itself is unusable.
    Broken,
}

impl AcceptFailure {
    /// Sorts an error as accept(2) describes it, with the network errors that Linux passes on
    /// from the new socket.
    pub fn of(error: &io::Error) -> AcceptFailure {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => AcceptFailure::Drained,
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => AcceptFailure::PeerGone,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                AcceptFailure::Exhausted
            }
            _ => AcceptFailure::Broken,
        }
    }
}

/// How long a listener pauses, and how often it had to.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    last: Duration,
    pauses: u64,
}

impl Backoff {
    /// When to try again: in 10 ms, then twice as long each time, up to 640 ms.
    pub fn next(&mut self, now: Time) -> Time {
        self.last = (self.last * 2).clamp(FIRST, LONGEST);
        self.pauses += 1;
        now + self.last
    }

    /// Somebody was accepted: the next pause is short again.
    pub fn reset(&mut self) {
        self.last = Duration::ZERO;
    }

    /// How many pauses there were.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Config, Reactor};

    #[test]
    fn pauses_in_a_row_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let mut pauses: Vec<u128> = Vec::new();
        for _ in 0..8 {
            pauses.push(backoff.next(Time::ZERO).since(Time::ZERO).as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 640]);
        backoff.reset();
        assert_eq!(backoff.next(Time::ZERO), Time::ZERO + FIRST);
        assert_eq!(backoff.pauses(), 9);
    }

    #[test]
    fn acceptor_with_more_clients_than_budget_accepts_all() {
        let config = Config {
            budget: 2,
            ..Config::default()
        };
        let mut reactor = Reactor::new(config).unwrap();
        let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let accept = |listener: &mut Acceptor, streams: &mut Vec<_>, cx: &mut Cx<_>, event| {
            listener.accept(cx, event, |_, stream, from| streams.push((stream, from)))
        };
        let handle = reactor.cx().add(Spec::item("listener"), listener, accept);
        let handle = handle.unwrap();
        let clients: Vec<TcpStream> = (0..5)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut streams = Vec::new();
        while streams.len() < clients.len() {
            let before = streams.len();
            reactor
                .turn(&mut streams, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(streams.len() > before, "a turn in vain");
        }
        for (client, (_, from)) in clients.iter().zip(&streams) {
            assert_eq!(client.local_addr().unwrap(), *from);
        }
        assert!(!reactor.cx().get(handle).unwrap().is_pausing());
    }

    #[test]
    fn failures_are_sorted_by_what_to_do() {
        let of = |number| AcceptFailure::of(&io::Error::from_raw_os_error(number));
        assert_eq!(of(libc::EWOULDBLOCK), AcceptFailure::Drained);
        assert_eq!(of(libc::ECONNABORTED), AcceptFailure::PeerGone);
        assert_eq!(of(libc::EMFILE), AcceptFailure::Exhausted);
        assert_eq!(of(libc::EINVAL), AcceptFailure::Broken);
    }
}
