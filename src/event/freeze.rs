//! The verbs of a reactor: hold the items, resume them, give them up.
//!
//! ```text
//!              hold             end of the turn: one last pass
//!   Serving ───────────▶ Wanted ───────────────────────────▶ Held
//!     ▲ ▲                   │                                 │ │
//!     │ └── cancel_hold ────┘                                 │ │
//!     └───── resume (nothing lost), release (items given up) ─┘ │
//!                           a taker's reactor starts here ──────┘
//! ```
//!
//! A held reactor simply does not ask the epoll set of its items. Nothing is deregistered, so
//! resuming cannot fail and the kernel keeps each edge. The cost does not depend on how many items
//! there are.
//!
//! The last pass over the items gives "held" a meaning. Whatever became ready before it was called
//! back, and has either gone on until `WouldBlock` or is in the resume queue ([`Cx::is_resuming`]
//! tells). Whatever comes later makes a new edge in every set in which the descriptor is registered
//! already.

use std::fmt;
use std::io;

use super::poller::Poller;
use super::{Class, Cx, SourceId, Time};

/// Who is served.
pub(super) enum Phase<S> {
    /// Everybody.
    Serving,
    /// Everybody until the end of this turn; then this is called.
    Wanted(Then<S>),
    /// The handover class alone.
    Held,
}

/// What is called once the items are held.
pub(super) type Then<S> = Box<dyn FnOnce(&mut S, &mut Cx<S>)>;

impl<S> Cx<S> {
    /// Holds the items. At the end of this turn all items that are ready are called back once more;
    /// the resume queue stays as it is. From then on only the handover class runs, and `then` is
    /// called at once. If `hold` is called again before that, the later `then` counts. If it is
    /// called while the items are held, `then` is called at the end of the turn, if they still are.
    pub fn hold(&mut self, then: impl FnOnce(&mut S, &mut Cx<S>) + 'static) {
        match self.phase {
            Phase::Held => self.defer_handover(|state, cx| {
                if cx.is_held() {
                    then(state, cx);
                }
            }),
            Phase::Serving | Phase::Wanted(_) => self.phase = Phase::Wanted(Box::new(then)),
        }
    }

    /// Takes back a hold that has not begun. Its `then` is dropped.
    pub fn cancel_hold(&mut self) {
        if matches!(self.phase, Phase::Wanted(_)) {
            self.phase = Phase::Serving;
        }
    }

    /// Serves the items again from the next turn on. Before their timers and I/O deadlines are
    /// judged, everything that became ready meanwhile is reported.
    pub fn resume(&mut self) {
        self.cancel_hold();
        if self.is_held() {
            self.serve();
        }
    }

    /// Whether the items are held.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held)
    }

    /// Discards what has become ready so far, while held. Returns how many events it discarded. A
    /// taker needs this: its set collects readiness of items that the donor serves.
    ///
    /// # Errors
    /// `InvalidInput` if the items are not held: their edges would be lost. Otherwise what
    /// epoll_wait(2) says.
    pub fn settle(&mut self) -> io::Result<usize> {
        if !self.is_held() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut discarded = 0;
        for _ in 0..self.lanes.item.waits_for_all() {
            let waited = self.wait(Class::Item, Some(Time::ZERO))?;
            discarded += self.discard();
            if !waited.full {
                break;
            }
        }
        Ok(discarded)
    }

    /// Forgets what the last wait has found, and returns how many events that were. Events of local
    /// sources do not belong to the donor: they are kept in the resume queue.
    fn discard(&mut self) -> usize {
        let mut discarded = 0;
        while let Some(event) = self.lanes.item.poller.reported.pop_front() {
            if self.class(event.id) == Some(Class::Local) {
                self.leave(event.id, event.flags);
            } else {
                discarded += 1;
            }
        }
        discarded
    }

    /// Gives up all items except those in `keep`, and goes on serving these and the local sources.
    /// The epoll set closes first, as a whole. Afterwards a descriptor whose copy lives on in
    /// another process could not be taken out of the set any more, and would wake this process for
    /// ever (epoll(7), Q6). Then the sources are dropped, together with the timers and deferred
    /// calls of the items. Ids in `keep` that name no item are ignored.
    ///
    /// # Errors
    /// If no new epoll set can be made for what is kept (`EMFILE`, `ENOMEM`). Then nothing at all
    /// has changed.
    pub fn release(&mut self, keep: &[SourceId]) -> io::Result<()> {
        let fresh = Poller::new(self.config.batch)?;
        fresh.nest(&self.lanes.handover.poller)?;
        self.liveness.watch_in(&fresh)?;
        let mut kept = Vec::with_capacity(keep.len());
        let locals = self.sources.iter();
        let locals = locals.filter(|(_, slot)| slot.class == Class::Local);
        let locals: Vec<SourceId> = locals.map(|(key, _)| SourceId(key)).collect();
        for &id in keep.iter().chain(&locals) {
            let slot = self.sources.get(id.0);
            if let Some(slot) = slot.filter(|slot| slot.class != Class::Handover) {
                self.stats.controls += 1;
                match fresh.add(slot.fd, id, slot.interest) {
                    // Named twice.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other.map(|()| kept.push(id))?,
                }
            }
        }
        kept.sort_unstable();

        drop(std::mem::replace(&mut self.lanes.item.poller, fresh));

        let mut all = Vec::with_capacity(self.items_len());
        self.items(&mut all);
        all.retain(|id| kept.binary_search(id).is_err());
        for id in all {
            self.forget(id);
        }
        let timers = &mut self.lanes.item.timers;
        timers.retain(|timer| timer.class == Class::Local);
        self.liveness.timers.retain(|_| false);
        self.lanes.item.deferred.clear();
        self.serve();
        Ok(())
    }

    /// Calls `then` at the end of the first turn after which no item is left. A donor uses it to
    /// serve the declined items to their end. A later `then` replaces an earlier one.
    pub fn when_empty(&mut self, then: impl FnOnce(&mut S, &mut Cx<S>) + 'static) {
        self.empty = Some(Box::new(then));
    }

    /// The last stage of a turn: sees whether the items have gone, and begins a hold that was asked
    /// for.
    pub(super) fn end_turn(&mut self, state: &mut S) -> io::Result<()> {
        if !self.is_held() {
            self.run_turn_hook(state);
        }
        if self.items_len() == 0 {
            if let Some(then) = self.empty.take() {
                then(state, self);
            }
            self.end_drain(state);
        }
        if !matches!(self.phase, Phase::Wanted(_)) {
            return Ok(());
        }
        for _ in 0..self.lanes.item.waits_for_all() {
            let waited = self.wait(Class::Item, Some(Time::ZERO))?;
            self.run_batch(state, Class::Item);
            if !waited.full {
                break;
            }
        }
        self.run_turn_hook(state);
        self.tick();
        // An item called back in the last pass may have cancelled the hold, or asked anew.
        match std::mem::replace(&mut self.phase, Phase::Held) {
            Phase::Wanted(then) => then(state, self),
            other => self.phase = other,
        }
        Ok(())
    }

    fn serve(&mut self) {
        self.phase = Phase::Serving;
        // What the waits before the hold have proved says nothing about the time since.
        self.lanes.item.silence = Default::default();
        self.settling = true;
        // Whatever the two sets have told each other meanwhile: look.
        self.handover_ready = true;
    }
}

impl<S> fmt::Debug for Phase<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Serving => "Serving",
            Phase::Wanted(_) => "Wanted",
            Phase::Held => "Held",
        })
    }
}
