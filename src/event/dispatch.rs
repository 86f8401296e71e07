//! Calling back: one source, one timer, one fault.
//!
//! A callback gets the whole reactor, its own slot included, so what is called is taken out of
//! its slot before and put back afterwards, if the slot still is its own. Should the callback
//! panic, a guard takes the source or timer out of the reactor for good while the panic goes
//! on: no slot stays empty and no descriptor stays watched.

use super::source::{Event, Flags};
use super::{Class, Cx, Fault, Next, SourceId, TimerId};

impl<S> Cx<S> {
    /// Calls a source back, with what it was left with as well.
    pub(super) fn dispatch(&mut self, state: &mut S, event: Event) {
        let id = event.id;
        let Some(slot) = self.sources.get_mut(id.0) else {
            self.stats.stale_events += 1;
            return;
        };
        // A slot is empty only while its callback runs, and callbacks do not nest.
        let Some(mut entry) = slot.entry.take() else {
            return;
        };
        let name = slot.name;
        let event = Event {
            id,
            flags: event.flags.with(std::mem::take(&mut slot.left)),
        };
        slot.turn = self.turn;
        self.changes.note(id, slot);
        self.stats.dispatches += 1;
        self.stats.resumed += u64::from(event.is_resumed());

        let outcome = {
            let mut guard = Guard::new(self, |cx| drop(cx.evict(id)));
            let outcome = entry.call(state, guard.cx, event);
            guard.armed = false;
            outcome
        };

        match outcome {
            Ok(Next::End) => {
                self.remove(id);
            }
            Ok(next) => {
                let Some(slot) = self.sources.get_mut(id.0) else {
                    return; // it has removed itself
                };
                slot.entry = Some(entry);
                if next == Next::Again {
                    self.stats.budget_hits += 1;
                    self.leave(id, event.flags.without(Flags::TIMEOUT));
                }
            }
            Err(error) => {
                self.remove(id);
                drop(entry);
                self.fault(state, Fault { id, name, error });
            }
        }
    }

    /// Tells a source that its I/O deadline has passed.
    pub(super) fn dispatch_timeout(&mut self, state: &mut S, id: SourceId) {
        self.stats.deadlines_fired += 1;
        self.dispatch(
            state,
            Event {
                id,
                flags: Flags::TIMEOUT,
            },
        );
    }

    /// Runs a timer that is due.
    pub(super) fn run_timer(&mut self, state: &mut S, id: TimerId) {
        let timers = &mut self.lanes.of(id.class).timers;
        timers.disarm(id.key);
        let timer = timers.value_mut(id.key);
        let Some(mut callback) = timer.and_then(|timer| timer.callback.take()) else {
            return;
        };
        self.stats.timers_fired += 1;
        let next = {
            let mut guard = Guard::new(self, |cx| {
                cx.cancel(id);
            });
            let next = callback(state, guard.cx);
            guard.armed = false;
            next
        };
        let timers = &mut self.lanes.of(id.class).timers;
        let Some(timer) = timers.value_mut(id.key) else {
            return; // it has cancelled itself
        };
        timer.callback = Some(callback);
        match next {
            Some(at) => timers.arm(id.key, at),
            None => timers.remove(id.key).is_some(),
        };
    }

    /// Runs the deferred calls that were there when this began.
    pub(super) fn run_deferred(&mut self, state: &mut S, class: Class) {
        for _ in 0..self.lanes.get(class).deferred.len() {
            if let Some(call) = self.lanes.of(class).deferred.pop_front() {
                self.stats.deferred += 1;
                call(state, self);
            }
        }
    }

    fn fault(&mut self, state: &mut S, fault: Fault) {
        self.stats.faults += 1;
        let Some(mut hook) = self.hook.take() else {
            log::warn!("{fault}");
            return;
        };
        hook(state, self, fault);
        // Unless the hook has set another one.
        self.hook.get_or_insert(hook);
    }
}

/// Does something to the reactor if a callback unwinds.
struct Guard<'a, S, F: FnMut(&mut Cx<S>)> {
    cx: &'a mut Cx<S>,
    armed: bool,
    on_unwind: F,
}

impl<'a, S, F: FnMut(&mut Cx<S>)> Guard<'a, S, F> {
    fn new(cx: &'a mut Cx<S>, on_unwind: F) -> Guard<'a, S, F> {
        Guard {
            cx,
            armed: true,
            on_unwind,
        }
    }
}

impl<S, F: FnMut(&mut Cx<S>)> Drop for Guard<'_, S, F> {
    fn drop(&mut self) {
        if self.armed {
            (self.on_unwind)(self.cx);
        }
    }
}
