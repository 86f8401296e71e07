//! The reactor: one thread, one loop, every source of wake-ups in one place.
//!
//! # Why
//! A network daemon that hands its connections to a successor has to know at any moment who may act
//! on a descriptor, what is unfinished, and what is armed. So one loop owns all of it: sources with
//! their callbacks, deadlines, timers, children, signals, deferred work. An application is a state
//! `S` and its callbacks. A callback gets `&mut` its own source, `&mut S`, and `&mut` [`Cx`], the
//! reactor's verbs. Nothing is shared, locked or counted by reference, and nothing is global: the
//! reactor touches no signal, logger or child that it was not asked for.
//!
//! # A first loop
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
//!             Err(error) => return Err(error), // ends this source, and no other
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
//! | to wake up | verb |
//! |---|---|
//! | when a descriptor is ready, or silent for too long | [`Cx::add`], [`Spec::deadline`], [`Cx::set_deadline`] |
//! | at a time, every so often, to the microsecond | [`Cx::timer`], [`Cx::every`], [`Cx::liveness_timer`] |
//! | when a child has ended, when a signal has come | [`Cx::child`], [`Signals`] |
//! | when another thread says so | [`Cx::waker`] |
//! | later in this turn, at its very end | [`Cx::defer`], [`Cx::on_turn_end`] |
//! | when the last item has gone | [`Cx::drain`], [`Cx::when_empty`] |
//!
//! # Ownership
//! The reactor owns each source together with its callback, and gives out [`Handle`]s. A handle
//! names a slot and a generation of that slot. The handle of a source that has gone fits nothing,
//! even after its slot or its descriptor number was used again. While a callback runs it has its
//! source to itself. It ends that source by [`Next::End`], and may do anything to all others. The
//! slot comes back by itself when the callback returns, fails or panics.
//!
//! # A turn
//! ```text
//!   wait ─▶ handover ─▶ due ────▶ I/O ───▶ I/O deadlines ─▶ resume ─▶ deferred ─▶ end
//!    ▲      signals,    timers    batch    of the silent    queue     calls       (hook, hold?)
//!    │      channel                                                                 │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The wait lasts until the next deadline, or not at all if something is queued. Timers run in the
//! order handover, liveness, items. What is queued during a turn runs in the next one, and the
//! kernel is asked in between. So neither a timer that re-arms itself at once nor a deferred call
//! that defers itself can starve a socket. No socket can starve another either: a callback that has
//! used up its [`Cx::budget`] returns [`Next::Again`], and goes on in the next turn.
//!
//! # Edges
//! Readiness is edge-triggered (epoll(7), `EPOLLET`): an event tells that something *became* ready.
//! A callback goes on until the kernel says `WouldBlock`, or returns [`Next::Again`]. After a short
//! read there is nothing more to read, unless the event said [`Event::is_read_closed`],
//! [`Event::is_hangup`], [`Event::is_error`] or [`Event::is_urgent`]. Data and the end of the
//! stream can be one edge, and so can the bytes before and after an urgent one. `Again` carries
//! these flags into the next event.
//!
//! Writing works in the same way. A callback that gets `WouldBlock` keeps what is left and returns
//! [`Next::Keep`]. It is called when there is room, if it is watched for [`Interest::Both`]. On TCP
//! that interest may stand from the beginning, since the kernel reports room only after it has
//! refused some; [`Stream`] does so. For UDP the kernel reports room after each datagram that has
//! left: ask for it by [`Cx::set_interest`] while something waits, and for [`Interest::Read`] again
//! afterwards. A callback may do that to its own source, by [`Event::id`]. There is an
//! [example](crate::takeover#output-that-waits).
//!
//! # Errors
//! A callback that returns an error has ended its source: the source is dropped, which closes it,
//! and [`Cx::on_error`] hears why. Everything else goes on. That is right for one connection of
//! many. It is wrong for the only socket of a daemon, which would run on and be deaf. There, skip
//! an error that is about one message: an earlier datagram's error is reported by the next call and
//! is over then (udp(7)). For any other error open a new socket, or call [`Cx::stop`]. An
//! unforeseen answer is not the end: an [`Acceptor`] pauses after it and tries again, and listens
//! again after somebody has shut it down.
//!
//! # The contract
//! Tests of these names (in `tests/reactor`) check each line. Each line is a bug that a
//! well-known loop has or had.
//!
//! | | promise | test |
//! |---|---|---|
//! | 1 | No event reaches a removed source, even if its slot was used again in the same batch; such events are counted. | `slot_reused_in_the_same_batch…`, `neighbour_removed_in_the_same_batch…` |
//! | 2 | Cancelling and removing take effect at once: for the caller itself, for a neighbour, for a timer that is due and has not run. | `source_removing_itself…`, `timer_expired_but_not_run_can_be_cancelled` |
//! | 3 | If a timer is due and has not run, arming it anew replaces that firing. | `timer_expired_but_not_run_is_replaced_by_rearming` |
//! | 4 | What is armed for now, or deferred, runs in the next turn and cannot starve I/O. | `zero_rearm_and_endless_defer…` |
//! | 5 | A source leaves its epoll set before it is closed, dropped or given back. | `source_that_has_ended_is_not_watched…`, `released_items_wake_nobody…` |
//! | 6 | An error ends one source and goes to one hook; the batch goes on. | `error_of_one_source…` |
//! | 7 | A hang-up and an error reach the callback whatever it is watched for, and cannot make the loop spin. | `hangup_without_read_interest…`, `error_on_a_pipe…` |
//! | 8 | Readiness beats an I/O deadline: silence has to be proved. | `readiness_beats_a_deadline…` |
//! | 9 | The reactor takes no signal and no child but those asked for. | `child_that_was_not_asked_for…`, `mask_is_given_back_as_it_was` |
//! | 10 | Without descriptors, and after an unforeseen answer, a listener backs off by a timer, counts, and comes back; an [`Acceptor`] leaves a reserve. | `listener_without_descriptors…`, `acceptor_after_an_unforeseen_answer…`, `acceptor_beside_descriptors…` |
//! | 11 | Once all is set up: one wait a batch, no `epoll_ctl`, no allocation. | `busy_reactor_only_waits`, `timers_that_come_again_allocate_nothing` |
//! | 12 | `EINTR` is invisible, time never goes back, deadlines saturate. | `wait_interrupted_by_a_stop_goes_on`, `time_of_turns_never_goes_back…` |
//! | 13 | A source that never drains starves nobody. | `firehose_beside_a_hundred_quiet_sources…` |
//! | 14 | After a short read no further read is needed, unless the event said so; [`Next::Again`] keeps what the event said. | `data_and_end_in_one_edge…` |
//! | 15 | A source ends itself by what it returns, not by [`Cx::take`]; a panic leaves no empty slot behind. | `source_in_its_own_callback_cannot_take_itself`, `panic_in_a_callback…` |
//! | 16 | In a child of fork(2) all sources are heard, signals included, and the parent's set is left alone. | `signal_to_a_daemon…`, `child_that_removes_and_adds…` |
//!
//! # Taking sources out
//! [`Cx::take`] takes a source out of its epoll set and gives it back. From then on none of its
//! events can come, whoever else holds the descriptor. To hand over many sources there are three
//! [classes](Class). Items are what a takeover moves. [`Cx::hold`] makes them sleep while the
//! handover class goes on; [`Cx::resume`] wakes them with no edge lost, and [`Cx::release`] gives
//! them up. Local sources sleep with the items and stay.
//!
//! # After a fork
//! fork(2) leaves parent and child with the same epoll set. A signalfd in that set tells only of
//! the signals of the process that has added it (signalfd(2), "epoll(7) semantics"). So a daemon
//! that is set up before it forks would be deaf to SIGTERM. A reactor notices that it is in a
//! child, and makes epoll sets and an alarm of its own before its first turn there. Sources,
//! deadlines, timers and deferred calls go on. The parent's set is left alone, whatever the child
//! adds, removes or drops.
//!
//! The sources themselves still belong to both. Only one of parent and child may turn the reactor,
//! or each byte goes to the process that reads first. The parent's child processes are not those of
//! the child: their end is told as [`Exit::Collected`]. A fork by a bare clone(2), past the C
//! library, is not noticed.
//!
//! # In another loop
//! A reactor is one of the other loop's descriptors. Before each wait ask for that descriptor, and
//! for the time by which to turn at the latest.
//!
//! ```
//! # use socket_takeover::event::{Class, Config, Reactor, Time};
//! # use std::os::fd::AsFd;
//! # use std::time::Duration;
//! use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
//!
//! # let mut reactor = Reactor::new(Config::default())?;
//! # let soon = reactor.cx().now() + Duration::from_millis(2);
//! # reactor.cx().timer(Class::Item, "soon", soon, |done: &mut bool, _| { *done = true; None });
//! # let mut done = false;
//! while !done {
//!     let timeout = match reactor.wake_time() {
//!         Some(at) => {
//!             let milliseconds = at.since(Time::now()).as_nanos().div_ceil(1_000_000);
//!             PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
//!         }
//!         None => PollTimeout::NONE,
//!     };
//!     poll(&mut [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)], timeout)?;
//!     reactor.turn(&mut done, Some(Duration::ZERO))?;
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # To look at it, to test with it
//! [`Cx::stats`] and [`Cx::stats_by_name`] are plain numbers. [`Cx::dump`] tells what is armed and
//! when it is due. [`Cx::on_slow`] hears of callbacks that hold up all others. With
//! [`Clock::Manual`] a test moves the time by hand, from deadline to deadline.
//!
//! # Files
//! *The loop*
//!
//! | file | open it for |
//! |---|---|
//! | `reactor.rs` | the loop as its owner sees it: made, held, turned, part of another loop |
//! | `turn.rs` | one turn, its stages in their order |
//! | `dispatch.rs` | calling back a source, a timer or a deferred call; what a panic leaves behind |
//! | `poller.rs` | one epoll set, and what it has reported |
//! | `lane.rs` | everything that exists once for items and once for the handover; when a source is silent |
//! | `freeze.rs` | hold, resume, release, settle; the end of a turn |
//! | `drain.rs` | ending in order |
//! | `forked.rs` | the child of a fork |
//! | `clock.rs`, `time.rs` | the clock, moved by hand in tests; a point in time that can travel |
//!
//! *The verbs, and what is watched*
//!
//! | file | open it for |
//! |---|---|
//! | `cx.rs` | the verbs of sources: add, take, borrow, interest, resume |
//! | `timing.rs` | the verbs of I/O deadlines, timers and deferred calls |
//! | `source.rs` | `Spec`, `Interest`, `Event`, `Next` |
//! | `id.rs`, `slots.rs` | handles that cannot go stale |
//! | `entry.rs` | a source and its callback in their slot |
//! | `track.rs` | which items have changed |
//! | `error.rs` | a source that could not be added, a source that has ended |
//!
//! *Timers*
//!
//! | file | open it for |
//! |---|---|
//! | `timers.rs`, `timers/wheel.rs` | deadlines in order, at the same cost for ten and for a million |
//! | `periodic.rs` | what happens to times that were missed |
//! | `liveness.rs` | timers to the microsecond |
//!
//! *Sources that are ready to use*
//!
//! | file | open it for |
//! |---|---|
//! | `accept.rs`, `accept/failure.rs` | a TCP listener; what a failed accept(2) asks for |
//! | `stream.rs` | a TCP connection with input and output that can be saved |
//! | `child.rs`, `signals.rs`, `waker.rs` | children, signals, other threads |
//!
//! *To look at it*
//!
//! | file | open it for |
//! |---|---|
//! | `stats.rs`, `names.rs` | counters, and the same by name; slow callbacks |
//! | `dump.rs` | what is armed now |

mod accept;
mod child;
mod clock;
mod cx;
mod dispatch;
mod drain;
mod dump;
mod entry;
mod error;
mod forked;
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
mod stream;
mod time;
mod timers;
mod timing;
mod track;
mod turn;
mod waker;

pub use accept::{AcceptChange, AcceptFailure, Accepting, Acceptor, Backoff, Binding, RESERVE};
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
pub use stream::Stream;
#[doc(hidden)]
pub use stream::refuse_itself;
pub use time::Time;
pub use waker::{WakeSource, Waker};

/// How much a turn may do, and what tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Events of items that one wait may return, at least 1. A larger batch costs fewer system
    /// calls under load; with a smaller one timers and the handover run sooner.
    pub batch: usize,
    /// How often a source may go on (reads, writes, accepts) before it lets the others run;
    /// what [`Cx::budget`] returns, unless its [`Spec::budget`] says otherwise.
    pub budget: u32,
    /// The clock.
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
    /// Stays with this process (wakers, children): a takeover neither moves it nor asks for it.
    /// Like an item it sleeps during a hold.
    Local,
}
