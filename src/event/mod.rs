//! The reactor: one thread, one loop, every source of wake-ups in one place.
//!
//! An application is a state `S` and callbacks. A callback gets `&mut` its own source, `&mut
//! S` and `&mut` [`Cx`], the reactor's verbs; nothing is shared, locked or counted. The
//! reactor owns each source together with its callback and gives out [`Handle`]s, which name a
//! slot and a generation of it: a handle of something that has gone fits nothing, also after
//! its slot or its descriptor number was used again.
//!
//! ```
//! use socket_takeover::event::{Config, Next, Reactor, Spec};
//! use std::io::{ErrorKind, Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! let (mut near, far) = UnixStream::pair()?;
//! far.set_nonblocking(true)?;
//! let mut reactor = Reactor::new(Config::default())?;
//! reactor.cx().add(Spec::item("far"), far, |far, bytes: &mut Vec<u8>, cx, _event| {
//!     let mut buffer = [0; 512];
//!     for _ in 0..cx.budget() {
//!         match far.read(&mut buffer) {
//!             Ok(0) => {
//!                 cx.stop();
//!                 return Ok(Next::End);
//!             }
//!             Ok(count) => bytes.extend_from_slice(&buffer[..count]),
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
//!             Err(error) => return Err(error),
//!         }
//!     }
//!     Ok(Next::Again)
//! })?;
//! near.write_all(b"hello")?;
//! drop(near);
//! let mut bytes = Vec::new();
//! reactor.run(&mut bytes)?;
//! assert_eq!(bytes, b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # A turn
//! ```text
//!   wait ─▶ handover ─▶ due ────▶ I/O ───▶ I/O deadlines ─▶ resume ─▶ deferred ─▶ end
//!    ▲      signals,    timers    batch    of the silent    queue     calls       (hold?)
//!    │      channel                                                                 │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The wait lasts until the next deadline, or not at all if something is queued. What is
//! queued during a turn runs in the next one, and the kernel is asked in between: neither a
//! timer that re-arms itself at once nor a deferred call that defers itself can starve a
//! socket, and no socket can starve another, because a callback that has used up its
//! [`Cx::budget`] returns [`Next::Again`] and goes on in the next turn.
//!
//! # Edges
//! Readiness is edge-triggered (epoll(7), `EPOLLET`): an event tells that something *became*
//! ready. A callback goes on until the kernel says `WouldBlock`, or returns [`Next::Again`].
//! After a short read there is nothing more to read, unless the event said
//! [`Event::is_read_closed`], [`Event::is_hangup`] or [`Event::is_error`]: data and the end of
//! the stream can be one edge. `Again` carries these flags into the event of its resumption.
//!
//! # Two classes
//! Every source, timer and deferred call is an item or belongs to the handover ([`Class`]).
//! Items are what a takeover moves. [`Cx::hold`] makes them sleep while the handover class goes
//! on; [`Cx::resume`] wakes them with no edge lost, [`Cx::release`] gives them up.
//!
//! # What holds
//! - Removal and cancellation are exact at once, for oneself, for a neighbour in the same batch
//!   and for a timer that is due but was not run yet.
//! - A source is taken out of its epoll set before it is closed, dropped or given back.
//! - Readiness beats an I/O deadline: a deadline is judged when silence is proved.
//! - An error or a panic ends one source; what else was ready is still served.
//! - Once everything is set up, a turn is one wait: no `epoll_ctl`, no allocation.

mod accept;
mod child;
mod clock;
mod cx;
mod dispatch;
mod drain;
mod dump;
mod entry;
mod error;
mod freeze;
mod id;
mod lane;
mod liveness;
mod names;
mod periodic;
mod poller;
mod reactor;
mod signals;
mod slots;
mod source;
mod stats;
mod time;
mod timers;
mod timing;
mod track;
mod turn;
mod waker;

pub use accept::{AcceptFailure, Backoff};
pub use child::{Child, Exit};
pub use clock::Clock;
pub use cx::Cx;
pub use dump::{ArmedSource, ArmedTimer, Dump};
pub use error::{AddError, Fault};
pub use id::{Handle, SourceId, TimerId};
pub use names::{NameStats, Slow};
pub use periodic::{Drift, Tick};
pub use reactor::Reactor;
pub use signals::{SignalInfo, Signals};
pub use source::{Event, Interest, Next, Spec};
pub use stats::Stats;
pub use time::Time;
pub use waker::{WakeSource, Waker};

/// How much a turn may do, and what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Events of items that one wait may return, at least 1. A larger batch costs fewer
    /// system calls under load, a smaller one lets timers and the handover run sooner.
    pub batch: usize,
    /// How often a source may go on (reads, writes, accepts) before it lets the others run;
    /// what [`Cx::budget`] returns.
    pub budget: u32,
    /// What tells the time.
    pub clock: Clock,
}

impl Default for Config {
    /// 1024 events a wait, 16 goes a source, the kernel's clock.
    fn default() -> Config {
        Config {
            batch: 1024,
            budget: 16,
            clock: Clock::Real,
        }
    }
}

/// What a source, timer or deferred call is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Can be handed over, and sleeps during a hold.
    Item,
    /// Carries out the handover (channel, its deadlines, signals), and goes on during a hold.
    Handover,
    /// Stays with this process (wakers, children), and is nothing that a takeover moves or asks
    /// for; else as an item: it sleeps during a hold.
    Local,
}
