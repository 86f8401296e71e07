//! The verbs of a reactor: sources.
//!
//! [`Cx`] is all of a reactor except the right to turn it. So a callback can be given it, and the
//! loop cannot run inside the loop. Its other verbs are in the files beside this one: timers and
//! deferred calls (`timing.rs`), changes (`track.rs`), hold and release (`freeze.rs`).

use std::any::TypeId;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::accept::{AcceptingHook, Pausing};
use super::drain::Drain;
use super::entry::{Pair, Slot};
use super::freeze::{Phase, Then};
use super::lane::{Lane, Lanes};
use super::liveness::Liveness;
use super::names::{Measure, Names};
use super::slots::{Key, Slots};
use super::source::Flags;
use super::track::Changes;
use super::{AddError, Class, Config, Event, Fault, Handle, Interest, Next, SourceId, Spec};
use super::{Stats, Time};

/// Events of the handover that one wait may return. It has few sources: channel, signals, the
/// pidfd of the other side.
pub(super) const HANDOVER_ROOM: usize = 64;

/// What to do with faults; see [`Cx::on_error`].
pub(super) type ErrorHook<S> = Box<dyn FnMut(&mut S, &mut Cx<S>, Fault)>;
/// What to do at the end of a turn; see [`Cx::on_turn_end`].
pub(super) type TurnHook<S> = Box<dyn FnMut(&mut S, &mut Cx<S>)>;

/// The reactor's verbs, as a callback gets them.
///
/// A verb that is given the id or handle of something that has gone does nothing. It says so by
/// `false` or `None`.
pub struct Cx<S> {
    // Fields are dropped in this order: the epoll sets close before their sources do.
    pub(super) lanes: Lanes<S>,
    pub(super) liveness: Liveness<S>,
    pub(super) sources: Slots<Slot<S>>,
    pub(super) names: Names,
    pub(super) changes: Changes,
    pub(super) phase: Phase<S>,
    /// To be called when the last item has gone.
    pub(super) empty: Option<Then<S>>,
    pub(super) drain: Option<Drain<S>>,
    pub(super) config: Config,
    pub(super) now: Time,
    /// Number of the present turn.
    pub(super) turn: u32,
    /// The budget of the source whose callback runs; otherwise that of the configuration.
    pub(super) budget: u32,
    /// The handover's set has, or may have, something to report.
    pub(super) handover_ready: bool,
    /// After a hold: nothing has proved yet which items were silent during it.
    pub(super) settling: bool,
    pub(super) stopped: bool,
    pub(super) hook: Option<ErrorHook<S>>,
    pub(super) turn_hook: Option<TurnHook<S>>,
    pub(super) accepting_hook: Option<AcceptingHook<S>>,
    /// Listeners that wait for room, or for a deadline.
    pub(super) pausing: Pausing,
    pub(super) measure: Measure<S>,
    pub(super) stats: Stats,
}

impl<S> Cx<S> {
    pub(super) fn new(config: Config, phase: Phase<S>) -> io::Result<Cx<S>> {
        let config = Config {
            batch: config.batch.max(1),
            budget: config.budget.max(1),
            ..config
        };
        let now = config.clock.read(Time::ZERO);
        let lanes = Lanes {
            item: Lane::new(config.batch, now)?,
            handover: Lane::new(HANDOVER_ROOM, now)?,
        };
        lanes.item.poller.nest(&lanes.handover.poller)?;
        Ok(Cx {
            lanes,
            liveness: Liveness::new(now),
            sources: Slots::new(),
            names: Names::new(),
            changes: Changes::default(),
            phase,
            empty: None,
            drain: None,
            now,
            budget: config.budget,
            config,
            turn: 0,
            handover_ready: false,
            settling: false,
            stopped: false,
            hook: None,
            turn_hook: None,
            accepting_hook: None,
            pausing: Pausing::default(),
            measure: Measure::default(),
            stats: Stats::default(),
        })
    }

    /// The time of this turn. It is read once, after the turn's wait, and never goes back.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How often the running callback may go on before it should return [`Next::Again`]: its
    /// source's own [budget](Spec::budget), or that of the [`Config`].
    pub fn budget(&self) -> u32 {
        self.budget
    }

    /// Adds a source with its callback. What is ready already is reported like any edge.
    ///
    /// The descriptor has to be non-blocking, and has to stay the same for as long as the source is
    /// here. A callback may use it, and end it by [`Next::End`], but may not put another one in its
    /// place.
    ///
    /// An error that the callback returns ends the source: it is dropped, which closes it, and
    /// [`Cx::on_error`] hears of it. So deal inside the callback with every error that should not
    /// end the source: see [Errors](super#errors).
    ///
    /// # Errors
    /// What epoll_ctl(2) says, together with the source; see [`AddError`].
    pub fn add<T, F>(
        &mut self,
        spec: Spec,
        source: T,
        callback: F,
    ) -> Result<Handle<T>, AddError<T>>
    where
        T: AsFd + 'static,
        F: FnMut(&mut T, &mut S, &mut Cx<S>, Event) -> io::Result<Next> + 'static,
    {
        match self.register(&spec, source.as_fd().as_raw_fd(), TypeId::of::<T>) {
            Ok(id) => {
                self.fill(id, &spec, source, callback);
                Ok(Handle::new(id))
            }
            Err(error) => Err(AddError { source, error }),
        }
    }

    /// The first half of [`Cx::add`], which is all of it that can fail: a slot, watched, without
    /// its source, which has this descriptor and is of this type.
    pub(super) fn register(
        &mut self,
        spec: &Spec,
        fd: RawFd,
        kind: fn() -> TypeId,
    ) -> io::Result<SourceId> {
        let id = SourceId(self.sources.insert(Slot {
            entry: None,
            name: self.names.id(spec.name),
            kind,
            deadline: Key::DANGLING,
            fd,
            turn: self.turn,
            budget: spec.budget.unwrap_or(self.config.budget).max(1),
            class: spec.class,
            interest: spec.interest,
            left: Flags::NONE,
            listed: false,
            noted: false,
            intake: spec.intake,
        }));
        let lane = self.lanes.of(spec.class);
        self.stats.controls += 1;
        if let Err(error) = lane.poller.add(fd, id, spec.interest) {
            self.sources.remove(id.0);
            return Err(error);
        }
        lane.sources += 1;
        lane.locals += usize::from(spec.class == Class::Local);
        Ok(id)
    }

    /// The second half.
    pub(super) fn fill<T, F>(&mut self, id: SourceId, spec: &Spec, source: T, callback: F)
    where
        T: AsFd + 'static,
        F: FnMut(&mut T, &mut S, &mut Cx<S>, Event) -> io::Result<Next> + 'static,
    {
        if let Some(slot) = self.sources.get_mut(id.0) {
            slot.entry = Some(Box::new(Pair { source, callback }));
        }
        self.touch(id);
        self.set_deadline(id, spec.deadline);
    }

    /// Takes a source out and gives it back. Its callback is dropped. `None` if the source has
    /// gone, or if its callback is running: a running callback ends its source by [`Next::End`].
    pub fn take<T: 'static>(&mut self, handle: Handle<T>) -> Option<T> {
        let id = handle.id();
        self.sources.get(id.0)?.entry.as_ref()?;
        let mut source: Option<T> = None;
        self.evict(id)?.entry?.move_to(&mut source);
        source
    }

    /// Takes a source out and drops it. Returns false if it has gone already. A callback may remove
    /// its own source: then nothing more is reported to it, and it is dropped when the callback
    /// returns.
    pub fn remove(&mut self, id: impl Into<SourceId>) -> bool {
        self.evict(id.into()).is_some()
    }

    /// Borrows a source. `None` also if its callback is running, which has the source already.
    pub fn get<T: 'static>(&self, handle: Handle<T>) -> Option<&T> {
        let slot = self.sources.get(handle.id().0)?;
        slot.entry.as_ref()?.source().downcast_ref()
    }

    /// Borrows a source in order to change it. This counts as a change; see [`Cx::changed`].
    pub fn get_mut<T: 'static>(&mut self, handle: Handle<T>) -> Option<&mut T> {
        let slot = self.sources.get_mut(handle.id().0)?;
        self.changes.note(handle.id(), slot);
        slot.entry.as_mut()?.source_mut().downcast_mut()
    }

    /// Whether there still is such a source.
    pub fn contains(&self, id: impl Into<SourceId>) -> bool {
        self.sources.get(id.into().0).is_some()
    }

    /// The name that the source was added with.
    pub fn name(&self, id: impl Into<SourceId>) -> Option<&'static str> {
        let slot = self.sources.get(id.into().0)?;
        Some(self.names.name(slot.name))
    }

    /// What the source is part of: an item, the handover, or local.
    pub fn class(&self, id: impl Into<SourceId>) -> Option<Class> {
        self.sources.get(id.into().0).map(|slot| slot.class)
    }

    /// The typed handle of a source. `None` if the source is of another type.
    pub fn handle<T: 'static>(&self, id: SourceId) -> Option<Handle<T>> {
        let slot = self.sources.get(id.0)?;
        ((slot.kind)() == TypeId::of::<T>()).then(|| Handle::new(id))
    }

    /// Borrows a source by its id. `None` also if the source is of another type.
    pub fn source<T: 'static>(&self, id: SourceId) -> Option<&T> {
        self.get(self.handle(id)?)
    }

    /// As [`Cx::source`], in order to change it.
    pub fn source_mut<T: 'static>(&mut self, id: SourceId) -> Option<&mut T> {
        self.get_mut(self.handle(id)?)
    }

    /// The descriptor of a source. `None` also if its callback is running.
    pub fn fd(&self, id: impl Into<SourceId>) -> Option<BorrowedFd<'_>> {
        let slot = self.sources.get(id.into().0)?;
        slot.entry.as_ref().map(|entry| entry.fd())
    }

    /// What the source is watched for.
    pub fn interest(&self, id: impl Into<SourceId>) -> Option<Interest> {
        self.sources.get(id.into().0).map(|slot| slot.interest)
    }

    /// Watches a source for something else. A callback may do so for its own source, by
    /// [`Event::id`]. What is ready at that moment is reported again. If the interest is the same,
    /// nothing happens and there is no system call. A takeover does not move an interest: see
    /// [Output that waits](crate::takeover#output-that-waits).
    ///
    /// # Errors
    /// `NotFound` if the source has gone. Otherwise what epoll_ctl(2) says; then nothing has
    /// changed.
    pub fn set_interest(&mut self, id: impl Into<SourceId>, interest: Interest) -> io::Result<()> {
        let id = id.into();
        let slot = self.sources.get_mut(id.0).ok_or(io::ErrorKind::NotFound)?;
        if slot.interest == interest {
            return Ok(());
        }
        self.stats.controls += 1;
        let poller = &self.lanes.of(slot.class).poller;
        poller.change(slot.fd, id, interest)?;
        slot.interest = interest;
        slot.turn = self.turn;
        self.changes.note(id, slot);
        Ok(())
    }

    /// Calls the source back in the next turn with [`Event::is_resumed`], whether or not anything
    /// happens to it until then. Returns false if the source has gone.
    pub fn resume_later(&mut self, id: impl Into<SourceId>) -> bool {
        self.leave(id.into(), Flags::NONE)
    }

    /// Whether the source is in the resume queue: it has unfinished work that no edge will
    /// announce. So has a listener that pauses.
    pub fn is_resuming(&self, id: impl Into<SourceId>) -> bool {
        let id = id.into();
        let slot = self.sources.get(id.0);
        slot.is_some_and(|slot| slot.left != Flags::NONE) || self.is_pausing(id)
    }

    /// Sets what is done when a callback has returned an error and its source has ended. By default
    /// the fault is logged as a warning. It is also logged after this hook has panicked.
    pub fn on_error(&mut self, hook: impl FnMut(&mut S, &mut Cx<S>, Fault) + 'static) {
        self.hook = Some(Box::new(hook));
    }

    /// Sets what is done at the very end of each turn that serves the items: after the deferred
    /// calls, and before a hold begins. Use it for what gathers during a turn, such as output to be
    /// flushed at once. A later hook replaces an earlier one. A hook that panics is removed.
    pub fn on_turn_end(&mut self, hook: impl FnMut(&mut S, &mut Cx<S>) + 'static) {
        self.turn_hook = Some(Box::new(hook));
    }

    /// Ends [`Reactor::run`](super::Reactor::run) after this turn.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether [`Cx::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What the reactor has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Puts a source into the resume queue with what it was left with.
    pub(super) fn leave(&mut self, id: SourceId, flags: Flags) -> bool {
        let Some(slot) = self.sources.get_mut(id.0) else {
            return false;
        };
        if slot.left == Flags::NONE {
            self.changes.note(id, slot);
        }
        slot.left = slot.left.with(flags).with(Flags::RESUMED);
        if !slot.listed {
            slot.listed = true;
            self.lanes.of(slot.class).resume.push_back(id);
        }
        true
    }

    /// Takes a source out of its epoll set, then out of the table.
    pub(super) fn evict(&mut self, id: SourceId) -> Option<Slot<S>> {
        let slot = self.sources.get(id.0)?;
        self.stats.controls += 1;
        // It fails if the descriptor was closed by force, and then the kernel has forgotten it
        // on its own; and in a child, which leaves its parent's set alone.
        let _ = self.lanes.of(slot.class).poller.remove(slot.fd);
        self.forget(id)
    }

    /// Takes a source that is in no epoll set out of the table.
    pub(super) fn forget(&mut self, id: SourceId) -> Option<Slot<S>> {
        self.touch(id);
        let slot = self.sources.remove(id.0)?;
        let lane = self.lanes.of(slot.class);
        lane.deadlines.remove(slot.deadline);
        lane.sources -= 1;
        lane.locals -= usize::from(slot.class == Class::Local);
        self.names.left(id.0, slot.name);
        self.make_room(id);
        Some(slot)
    }
}

impl<S> fmt::Debug for Cx<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("items", &self.items_len())
            .field("handover", &self.lanes.handover.sources)
            .field("phase", &self.phase)
            .field("now", &self.now)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
