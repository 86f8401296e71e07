//! Ending in order: no new work, and a time limit for the old work.
//!
//! ```text
//!              drain             the last item has gone
//!   serving ─────────▶ draining ───────────────────────▶ then(0)
//!                          │            the deadline
//!                          └───────────────────────────▶ then(items left)
//! ```

use super::{Class, Cx, SourceId, Time, TimerId};

/// What is called when the drain is over. It is told how many items are left.
type Then<S> = Box<dyn FnOnce(&mut S, &mut Cx<S>, usize)>;

/// A drain that has begun.
pub(super) struct Drain<S> {
    deadline: TimerId,
    then: Then<S>,
}

impl<S> Cx<S> {
    /// Ends all sources that only bring in new work ([`Spec::intake`](super::Spec::intake)), and
    /// calls `then` once: at the end of the first turn after which no item is left, or at
    /// `deadline`. `then` is told how many items are left. The application decides what to do with
    /// them; most often it calls [`Cx::stop`]. If it is called again, the later deadline and the
    /// later `then` count.
    pub fn drain(
        &mut self,
        deadline: Time,
        then: impl FnOnce(&mut S, &mut Cx<S>, usize) + 'static,
    ) {
        let intake: Vec<SourceId> = self
            .sources
            .iter()
            .filter(|(_, slot)| slot.intake)
            .map(|(key, _)| SourceId(key))
            .collect();
        for id in intake {
            self.remove(id);
        }
        if let Some(drain) = self.drain.take() {
            self.cancel(drain.deadline);
        }
        // Of the handover class, as a deadline holds also while the items are held.
        let class = Class::Handover;
        let deadline = self.timer(class, "drain deadline", deadline, |state, cx| {
            cx.end_drain(state);
            None
        });
        self.drain = Some(Drain {
            deadline,
            then: Box::new(then),
        });
    }

    /// Whether a drain has begun and not ended.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The drain is over, for one of the two reasons.
    pub(super) fn end_drain(&mut self, state: &mut S) {
        if let Some(drain) = self.drain.take() {
            self.cancel(drain.deadline);
            let left = self.items_len();
            (drain.then)(state, self, left);
        }
    }
}
