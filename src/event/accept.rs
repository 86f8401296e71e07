//! What to do when accept(2) fails.
//!
//! With edge triggering, a failed accept may stall a listener: connections that are queued already
//! make no further edge. While no descriptor is free there is no point in trying again at once, and
//! an unforeseen answer may be another one in a moment. So the listener has to come back by itself.
//! [`Acceptor`] does that. These are its parts:
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
//!             Err(error) => match AcceptFailure::judge(&*listener, &error) {
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

mod failure;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{AddError, Cx, Event, Handle, Next, Spec, Time};
pub use failure::{AcceptFailure, Backoff};

/// The shortest time between two lines that say that no connections are accepted.
const QUIET: Duration = Duration::from_secs(60);

/// A TCP listener as a source, with the back-off that it needs.
///
/// A pause is logged, at most once a minute, and so is its end. [`Stats`](super::Stats) counts
/// pauses and unforeseen failures. A listener ends only if it does not listen any more, by an error
/// that [`Cx::on_error`] hears of. Then bind another one there, or [stop](Cx::stop), so that
/// somebody notices.
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
    /// When a pause was last logged.
    told: Option<Time>,
    /// The present one was logged.
    telling: bool,
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

    /// Adds it to the reactor as an item, whether it was bound or handed over. `welcome` gets each
    /// client. If it returns an error, that is logged and the client is closed.
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

    /// Its whole callback: accepts until nobody waits, the budget is used up, or a pause is due.
    /// Each stream is non-blocking when `welcome` gets it.
    ///
    /// # Errors
    /// If the listener itself has become unusable for good.
    pub fn accept<S>(
        &mut self,
        cx: &mut Cx<S>,
        event: Event,
        mut welcome: impl FnMut(&mut Cx<S>, TcpStream, SocketAddr),
    ) -> io::Result<Next> {
        let mut gone = None;
        for _ in 0..cx.budget() {
            let accepted = self.socket.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                Ok((stream, address))
            });
            let error = match accepted {
                Ok((stream, address)) => {
                    gone = None;
                    self.go_on(cx, event);
                    welcome(cx, stream, address);
                    continue;
                }
                Err(error) => error,
            };
            match AcceptFailure::judge(&self.socket, &error) {
                AcceptFailure::Drained => {
                    // The kernel looks for a free descriptor first, so there is one.
                    self.go_on(cx, event);
                    return Ok(Next::Keep);
                }
                AcceptFailure::PeerGone => gone = Some(error),
                AcceptFailure::Exhausted => {
                    self.pause(cx, event, &error);
                    return Ok(Next::Keep);
                }
                AcceptFailure::Broken => {
                    cx.stats.accepts_unforeseen += 1;
                    return Err(io::Error::new(error.kind(), Unusable(error)));
                }
            }
        }
        match gone {
            // A firewall that forbids all of them, say: the answer may be the same for ever.
            Some(error) => {
                self.pause(cx, event, &error);
                Ok(Next::Keep)
            }
            None => Ok(Next::Again),
        }
    }

    fn pause<S>(&mut self, cx: &mut Cx<S>, event: Event, why: &io::Error) {
        let lately = |told| cx.now().since(told) < QUIET;
        if !self.is_pausing() && !self.told.is_some_and(lately) {
            self.told = Some(cx.now());
            self.telling = true;
            let name = cx.name(event.id()).unwrap_or_default();
            log::warn!("{name}: no connections are accepted for now: {why}");
        }
        cx.stats.accept_pauses += 1;
        cx.stats.accepts_unforeseen += u64::from(AcceptFailure::is_unforeseen(why));
        let again = self.backoff.next(cx.now());
        cx.set_deadline(event.id(), Some(again));
    }

    fn go_on<S>(&mut self, cx: &mut Cx<S>, event: Event) {
        self.backoff.reset();
        if std::mem::take(&mut self.telling) {
            let name = cx.name(event.id()).unwrap_or_default();
            log::info!("{name}: connections are accepted again");
        }
    }

    /// Whether connections may be waiting that no event will tell of. If so, hand it over as an
    /// item that has work.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.backoff.is_pausing()
    }
}

/// A listener that is non-blocking already, such as one that was handed over.
impl From<TcpListener> for Acceptor {
    fn from(socket: TcpListener) -> Acceptor {
        Acceptor {
            socket,
            backoff: Backoff::default(),
            told: None,
            telling: false,
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The listener does not listen, and nobody will be accepted any more.
#[derive(Debug)]
struct Unusable(io::Error);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.0;
        write!(
            f,
            "it does not listen any more, and nobody is accepted ({why}); bind another one"
        )
    }
}

impl Error for Unusable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;
    use crate::event::{Config, Reactor};

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
    fn listener_shut_down_by_another_holder_goes_to_the_hook() {
        let mut reactor = Reactor::new(Config::default()).unwrap();
        let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = listener.as_fd().try_clone_to_owned().unwrap();
        let cx = reactor.cx();
        let welcome = |_: &mut Vec<String>, _: &mut Cx<_>, _, _| Ok(());
        listener.add(cx, "listener", welcome).unwrap();
        cx.on_error(|heard, _, fault| heard.push(fault.to_string()));
        shutdown(other.as_raw_fd(), Shutdown::Both).unwrap();
        let mut heard = Vec::new();
        reactor
            .turn(&mut heard, Some(Duration::from_secs(10)))
            .unwrap();
        let expected = "listener: it does not listen any more, and nobody is accepted";
        assert!(
            heard.len() == 1 && heard[0].starts_with(expected),
            "{heard:?}"
        );
        assert_eq!(reactor.cx().stats().accepts_unforeseen, 1);
    }
}
