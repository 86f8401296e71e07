//! Calling back: one source, one timer, one fault.
//!
//! A callback gets the whole reactor, its own slot included. So whatever is called is taken out of
//! its slot first, and put back afterwards if the slot is still its own. If the callback panics, a
//! guard removes the source or timer from the reactor for good while the panic goes on: no slot
//! stays empty, and no descriptor stays watched.

use super::names::NameId;
use super::source::{Event, Flags};
use super::{Class, Cx, Fault, Next, SourceId, Time, TimerId};

impl<S> Cx<S> {
    /// Calls a source back. The event includes the reasons for its resumption.
    pub(super) fn dispatch(&mut self, state: &mut S, event: Event) {
        let id = event.id;
        let Some(slot) = self.sources.get_mut(id.0) else {
            self.stats.stale_events += 1;
            self.names.stale(id);
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
        self.budget = slot.budget;
        self.changes.note(id, slot);
        self.stats.dispatches += 1;
        self.stats.resumed += u64::from(event.is_resumed());
        let began = self.begin(name);

        let outcome = {
            let mut guard = Guard::new(self, |cx| drop(cx.evict(id)));
            let outcome = entry.call(state, guard.cx, event);
            guard.armed = false;
            outcome
        };

        let took = began.map(|began| Time::now().since(began));
        self.budget = self.config.budget;
        match outcome {
            Ok(Next::End) => {
                self.remove(id);
            }
            Ok(next) => {
                // Unless it has removed itself.
                if let Some(slot) = self.sources.get_mut(id.0) {
                    slot.entry = Some(entry);
                    if next == Next::Again {
                        self.stats.budget_hits += 1;
                        self.names.stats(name).budget_hits += 1;
                        self.leave(id, event.flags.without(Flags::TIMEOUT));
                    }
                }
            }
            Err(error) => {
                self.remove(id);
                drop(entry);
                self.names.stats(name).faults += 1;
                let name = self.names.name(name);
                self.fault(state, Fault { id, name, error });
            }
        }
        if let Some(took) = took {
            self.took(state, name, took);
        }
    }

    /// Tells a source that its I/O deadline has passed.
    pub(super) fn dispatch_timeout(&mut self, state: &mut S, id: SourceId, due: Time) {
        self.stats.deadlines_fired += 1;
        if let Some(slot) = self.sources.get(id.0) {
            self.names.ran_after(slot.name, self.now.since(due));
        }
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
        let timers = self.timers_mut(id.set);
        let Some(due) = timers.due(id.key) else {
            return;
        };
        timers.disarm(id.key);
        let Some(timer) = timers.value_mut(id.key) else {
            return;
        };
        let name = timer.name;
        let Some(mut callback) = timer.callback.take() else {
            return;
        };
        self.stats.timers_fired += 1;
        self.names.ran_after(name, self.now.since(due));
        let began = self.begin(name);
        let next = {
            let mut guard = Guard::new(self, |cx| {
                cx.cancel(id);
            });
            let next = callback(state, guard.cx, due);
            guard.armed = false;
            next
        };
        let took = began.map(|began| Time::now().since(began));
        let timers = self.timers_mut(id.set);
        // Unless it has cancelled itself.
        if let Some(timer) = timers.value_mut(id.key) {
            timer.callback = Some(callback);
            match next {
                Some(at) => timers.arm(id.key, at),
                None => timers.remove(id.key).is_some(),
            };
        }
        if let Some(took) = took {
            self.took(state, name, took);
        }
    }

    /// Runs the deferred calls that were there when this began.
    pub(super) fn run_deferred(&mut self, state: &mut S, class: Class) {
        for _ in 0..self.lanes.get(class).deferred.len() {
            if let Some(call) = self.lanes.of(class).deferred.pop_front() {
                self.stats.deferred += 1;
                let began = self.begin(NameId::DEFERRED);
                call(state, self);
                if let Some(began) = began {
                    self.took(state, NameId::DEFERRED, Time::now().since(began));
                }
            }
        }
    }

    /// Calls what the application wants called at the end of a turn.
    pub(super) fn run_turn_hook(&mut self, state: &mut S) {
        if let Some(mut hook) = self.turn_hook.take() {
            hook(state, self);
            // Unless the hook has set another one.
            self.turn_hook.get_or_insert(hook);
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
