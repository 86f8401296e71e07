//! What to do when accept(2) fails.
//!
//! With edge triggering, a failed accept may stall a listener: connections that are queued already
//! make no further edge. While no descriptor is free there is no point in trying again at once, and
//! an unforeseen answer may be another one in a moment. So the listener has to come back by itself.
//! [`Acceptor`] does that, and leaves [`RESERVE`] descriptors free for a takeover. Without the
//! reserve, these are its parts:
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
//!
//! | part | its file |
//! |---|---|
//! | what a failed accept(2) asks for, and how long to pause | `accept/failure.rs` |
//! | the limit and the reserve, and who waits for room | `accept/room.rs` |
//! | it pauses, goes on, is mended | `accept/pause.rs` |
//! | what is told of that, and how often | `accept/news.rs` |
//! | a listener is made, and listens again after it was shut down | `accept/binding.rs` |

mod binding;
mod failure;
mod news;
mod pause;
mod room;

use std::any::TypeId;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::{AddError, Cx, Event, Handle, Next, SourceId, Spec};
pub use binding::Binding;
pub use failure::{AcceptFailure, Backoff};
pub(super) use news::AcceptingHook;
pub use news::{AcceptChange, Accepting};
use news::{Standing, State};
pub(super) use room::Pausing;
pub use room::RESERVE;
use room::Room;

/// A TCP listener as a source, with all that a service needs: it accepts up to a limit, comes back
/// from there when a source has ended, pauses where accept(2) fails, and listens again after
/// somebody has shut it down.
///
/// The limit is that of open files (RLIMIT_NOFILE, as it is when the listener is added) less
/// [`RESERVE`], or a lower one of its own. What counts are the sources of the reactor, whether they
/// were accepted, connected or handed over, so nothing has to be reported. One that holds several
/// descriptors counts once; see [`Acceptor::limit`].
///
/// [`Cx::on_accepting`] hears of each pause and of its end; without a hook they are logged, a
/// pause at most once a minute. [`Stats`](super::Stats) counts pauses, and failures that nobody has
/// foreseen. While it pauses, it is [resuming](Cx::is_resuming): a successor's is told to
/// accept at once, since those who wait have made their edge already.
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
    /// Seldom of use, and large.
    binding: Box<Binding>,
    room: Room,
    backoff: Backoff,
    standing: Standing,
    /// Why it could not listen again.
    broken: Option<io::Error>,
}

impl Acceptor {
    /// How many connections may wait to be accepted, unless [`Binding::backlog`] says otherwise.
    pub const BACKLOG: i32 = 4096;

    /// Binds and listens.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn bind(address: SocketAddr) -> io::Result<Acceptor> {
        Acceptor::at(address).listen()
    }

    /// Begins to make one with a backlog or options of its own.
    #[must_use]
    pub fn at(address: SocketAddr) -> Binding {
        Binding::at(address)
    }

    fn new(socket: TcpListener, binding: Binding) -> Acceptor {
        Acceptor {
            socket,
            binding: Box::new(binding),
            room: Room::ALL,
            backoff: Backoff::default(),
            standing: Standing::default(),
            broken: None,
        }
    }

    /// The same, which accepts only while the reactor has fewer than so many sources beside it,
    /// those of the [handover](super::Class::Handover) left out. The reserve is kept whatever
    /// the limit, so this only lowers it: for an application that holds many descriptors which are
    /// no sources, or several for each.
    #[must_use]
    pub fn limit(mut self, sources: usize) -> Acceptor {
        self.room.most = sources;
        self
    }

    /// The same, handed over, with what [`Binding::prepare`] was given: for the one that takes its
    /// place if it cannot listen again.
    #[must_use]
    pub fn prepare(mut self, prepare: fn(BorrowedFd<'_>) -> io::Result<()>) -> Acceptor {
        self.binding.prepare = prepare;
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of getsockname(2), which for a bound socket are none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Gives it to the reactor as an item, bound or handed over. `welcome` gets each client, of
    /// which the stream is non-blocking. One that it could not take is logged and closed; if that
    /// was for want of descriptors, memory or epoll watches, the listener pauses.
    ///
    /// # Errors
    /// As [`Cx::add`].
    pub fn add<S: 'static>(
        self,
        cx: &mut Cx<S>,
        name: &'static str,
        welcome: impl FnMut(&mut S, &mut Cx<S>, TcpStream, SocketAddr) -> io::Result<()> + 'static,
    ) -> Result<Handle<Acceptor>, AddError<Acceptor>> {
        self.add_as(cx, Spec::item(name), welcome)
    }

    /// As [`Acceptor::add`], as something other than a plain item: as one that ends when a
    /// [drain](Cx::drain) begins, or with a budget of its own.
    ///
    /// # Errors
    /// As [`Cx::add`].
    pub fn add_as<S: 'static>(
        mut self,
        cx: &mut Cx<S>,
        spec: Spec,
        welcome: impl FnMut(&mut S, &mut Cx<S>, TcpStream, SocketAddr) -> io::Result<()> + 'static,
    ) -> Result<Handle<Acceptor>, AddError<Acceptor>> {
        self.room.measure();
        match cx.register(&spec, self.socket.as_raw_fd(), TypeId::of::<Acceptor>) {
            Ok(id) => Ok(self.serve(cx, id, spec, welcome)),
            Err(error) => Err(AddError {
                source: self,
                error,
            }),
        }
    }

    /// Becomes the source that was registered for it.
    fn serve<S, F>(self, cx: &mut Cx<S>, id: SourceId, spec: Spec, welcome: F) -> Handle<Acceptor>
    where
        S: 'static,
        F: FnMut(&mut S, &mut Cx<S>, TcpStream, SocketAddr) -> io::Result<()> + 'static,
    {
        let mut welcome = Some(welcome);
        cx.fill(id, &spec, self, move |acceptor, state, cx, event| {
            let Some(take) = &mut welcome else {
                return Ok(Next::End);
            };
            if let Some(next) = acceptor.accept(state, cx, event, take) {
                return Ok(next);
            }
            let replace = |cx: &mut Cx<S>, anew: Acceptor| {
                let fd = anew.socket.as_raw_fd();
                let id = cx.register(&spec, fd, TypeId::of::<Acceptor>)?;
                // It is here still, and goes with the one that is here.
                let welcome = welcome.take().ok_or(io::ErrorKind::NotFound)?;
                Ok(anew.serve(
                    cx,
                    id,
                    Spec {
                        deadline: None,
                        ..spec
                    },
                    welcome,
                ))
            };
            Ok(acceptor.mend(state, cx, event, replace))
        });
        Handle::new(id)
    }

    /// Accepts until nobody waits, the budget is used up, or a pause is due. `None` if it does not
    /// listen any more.
    fn accept<S>(
        &mut self,
        state: &mut S,
        cx: &mut Cx<S>,
        event: Event,
        welcome: &mut impl FnMut(&mut S, &mut Cx<S>, TcpStream, SocketAddr) -> io::Result<()>,
    ) -> Option<Next> {
        // At the limit nothing is accepted, which would tell.
        if self.broken.is_some() || event.is_hangup() && !failure::listens(&self.socket) {
            return None;
        }
        let id = event.id();
        let mut gone = None;
        for _ in 0..cx.budget() {
            let sources = cx.others();
            if !self.room.is_left(sources, &self.socket) {
                self.wait_for_room(state, cx, id, sources);
                return Some(Next::Keep);
            }
            let accepted = self.socket.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                Ok((stream, address))
            });
            let error = match accepted {
                Ok((stream, address)) => {
                    self.room.learn(stream.as_raw_fd());
                    match welcome(state, cx, stream, address) {
                        // This one is lost; those behind it wait until they can be served.
                        Err(error) if failure::is_shortage(&error) => {
                            let name = cx.name(id).unwrap_or_default();
                            log::debug!("{name}: {address} was not taken: {error}");
                            self.back_off(state, cx, id, &error, false);
                            return Some(Next::Keep);
                        }
                        Err(error) => {
                            let name = cx.name(id).unwrap_or_default();
                            log::warn!("{name}: {address} was not taken: {error}");
                        }
                        Ok(()) => self.backoff.reset(),
                    }
                    gone = None;
                    continue;
                }
                Err(error) => error,
            };
            match AcceptFailure::judge(&self.socket, &error) {
                AcceptFailure::Drained => {
                    // The kernel looks for a free descriptor first, so there is one.
                    self.open(state, cx, id);
                    return Some(Next::Keep);
                }
                AcceptFailure::PeerGone => gone = Some(error),
                AcceptFailure::Exhausted => {
                    let is_unforeseen = AcceptFailure::is_unforeseen(&error);
                    self.back_off(state, cx, id, &error, is_unforeseen);
                    return Some(Next::Keep);
                }
                AcceptFailure::Broken => return None,
            }
        }
        match gone {
            // A firewall that forbids all of them, say: the answer may be the same for ever.
            Some(error) => {
                self.back_off(state, cx, id, &error, false);
                Some(Next::Keep)
            }
            None => Some(Next::Again),
        }
    }

    /// Whether connections may be waiting that no event will tell of. A takeover asks the reactor
    /// for that itself.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.standing.state != State::Open
    }

    /// Where it cannot listen, and why, after somebody has shut it down: it is nothing that a
    /// successor could use.
    #[must_use]
    pub fn broken(&self) -> Option<(SocketAddr, &io::Error)> {
        let error = self.broken.as_ref()?;
        Some((self.binding.address, error))
    }

    /// Stops listening, for every holder of the socket: only at the end of the service. To close
    /// it would keep the port as long as a successor that has failed still has a copy.
    ///
    /// # Errors
    /// Those of shutdown(2), which for a listener are none.
    pub fn end(self) -> io::Result<()> {
        match shutdown(self.socket.as_raw_fd(), Shutdown::Both) {
            // Somebody else has done it already.
            Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A listener that is non-blocking already, such as one that was handed over.
impl From<TcpListener> for Acceptor {
    fn from(socket: TcpListener) -> Acceptor {
        let binding = Binding::of(&socket);
        Acceptor::new(socket, binding)
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
