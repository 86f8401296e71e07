//! The verbs of a reactor: I/O deadlines, timers and deferred calls.

use super::id::TimerSet;
use super::lane::Timer;
use super::slots::Key;
use super::timers::Timers;
use super::{Class, Cx, SourceId, Time, TimerId};

impl<S> Cx<S> {
    /// Sets, moves or takes away the I/O deadline of a source. Returns false if the source has
    /// gone.
    ///
    /// It fires once, as an event with [`Event::is_timeout`](super::Event::is_timeout), when its
    /// time has passed and the source was silent until then. Readiness that came in time is
    /// reported first, and the callback then has the chance to set the deadline anew. Pushing it
    /// later is one store.
    pub fn set_deadline(&mut self, id: impl Into<SourceId>, at: Option<Time>) -> bool {
        let id = id.into();
        let Some(slot) = self.sources.get_mut(id.0) else {
            return false;
        };
        let deadlines = &mut self.lanes.of(slot.class).deadlines;
        if deadlines.due(slot.deadline) == at {
            return true;
        }
        self.changes.note(id, slot);
        match at {
            None => {
                deadlines.disarm(slot.deadline);
            }
            Some(at) if slot.deadline == Key::DANGLING => slot.deadline = deadlines.add(at, id),
            Some(at) => {
                deadlines.arm(slot.deadline, at);
            }
        }
        true
    }

    /// The I/O deadline of a source, if it has one that has not fired yet.
    pub fn deadline(&self, id: impl Into<SourceId>) -> Option<Time> {
        let slot = self.sources.get(id.into().0)?;
        self.lanes.get(slot.class).deadlines.due(slot.deadline)
    }

    /// Runs `callback` at a time, or in the next turn if that time is past. The callback returns
    /// when to run again, or `None` to end its timer. Timers of the same time run in the order in
    /// which they were armed. They run up to a millisecond late, and never early.
    pub fn timer<F>(
        &mut self,
        class: Class,
        name: &'static str,
        at: Time,
        mut callback: F,
    ) -> TimerId
    where
        F: FnMut(&mut S, &mut Cx<S>) -> Option<Time> + 'static,
    {
        self.timer_at(class, name, at, move |state, cx, _due| callback(state, cx))
    }

    /// Moves a timer. If it is due and has not run yet, that firing is replaced. Returns false if
    /// the timer has ended. Within its own callback the returned value counts.
    pub fn rearm(&mut self, timer: TimerId, at: Time) -> bool {
        self.timers_mut(timer.set).arm(timer.key, at)
    }

    /// Ends a timer at once, even within its own callback. Returns false if it has ended already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.timers_mut(timer.set).remove(timer.key).is_some()
    }

    /// When a timer runs; `None` if it has ended or is running.
    pub fn due(&self, timer: TimerId) -> Option<Time> {
        self.timers(timer.set).due(timer.key)
    }

    /// The name that a timer was made with.
    pub fn timer_name(&self, timer: TimerId) -> Option<&'static str> {
        let timer = self.timers(timer.set).value(timer.key)?;
        Some(self.names.name(timer.name))
    }

    /// Runs `call` at the end of this turn, or of the next one if this turn is running its deferred
    /// calls already. It waits during a hold.
    pub fn defer(&mut self, call: impl FnOnce(&mut S, &mut Cx<S>) + 'static) {
        self.lanes.item.deferred.push_back(Box::new(call));
    }

    /// As [`Cx::defer`], but it runs during a hold too.
    pub fn defer_handover(&mut self, call: impl FnOnce(&mut S, &mut Cx<S>) + 'static) {
        self.lanes.handover.deferred.push_back(Box::new(call));
    }

    /// A timer that is told when it was due.
    pub(super) fn timer_at<F>(
        &mut self,
        class: Class,
        name: &'static str,
        at: Time,
        callback: F,
    ) -> TimerId
    where
        F: FnMut(&mut S, &mut Cx<S>, Time) -> Option<Time> + 'static,
    {
        let timer = Timer {
            name: self.names.id(name),
            class,
            callback: Some(Box::new(callback)),
        };
        let set = match class {
            Class::Item | Class::Local => TimerSet::Item,
            Class::Handover => TimerSet::Handover,
        };
        let key = self.timers_mut(set).add(at, timer);
        TimerId { set, key }
    }

    pub(super) fn timers(&self, set: TimerSet) -> &Timers<Timer<S>> {
        match set {
            TimerSet::Item => &self.lanes.item.timers,
            TimerSet::Handover => &self.lanes.handover.timers,
            TimerSet::Liveness => &self.liveness.timers,
        }
    }

    pub(super) fn timers_mut(&mut self, set: TimerSet) -> &mut Timers<Timer<S>> {
        match set {
            TimerSet::Item => &mut self.lanes.item.timers,
            TimerSet::Handover => &mut self.lanes.handover.timers,
            TimerSet::Liveness => &mut self.liveness.timers,
        }
    }
}
