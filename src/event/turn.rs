//! One pass of the loop, stage by stage.

use std::io;
use std::time::Duration;

use super::id::TimerSet;
use super::poller::Waited;
use super::source::Flags;
use super::{Class, Clock, Cx, Event, Time, TimerId};

impl<S> Cx<S> {
    /// The whole pass. A hold or a resume that is asked for on the way begins with the next turn.
    pub(super) fn run_turn(&mut self, state: &mut S, longest: Option<Duration>) -> io::Result<()> {
        self.renew_if_forked()?;
        let held = self.is_held();
        let awake: &[Class] = if held {
            &[Class::Handover]
        } else {
            &[Class::Handover, Class::Item]
        };
        self.budget = self.config.budget;
        self.turn = self.turn.wrapping_add(1);
        self.stats.turns += 1;
        // What is put there from here on waits for the next turn.
        let left = [
            self.lanes.handover.resume.len(),
            self.lanes.item.resume.len(),
        ];

        self.wait_for_work(held, longest)?;
        self.run_handover(state, held)?;
        self.run_timers(state, TimerSet::Handover);
        if !held && !self.settling {
            self.run_timers(state, TimerSet::Liveness);
            self.run_timers(state, TimerSet::Item);
        }
        if !held {
            self.run_batch(state, Class::Item);
            self.settling &= !self.lanes.item.silence.is_proved(self.turn);
        }
        for &class in awake {
            self.run_deadlines(state, class);
        }
        for (&class, left) in awake.iter().zip(left) {
            self.run_left(state, class, left);
        }
        for &class in awake {
            self.run_deferred(state, class);
        }
        self.end_turn(state)
    }

    /// Asks one set what is ready, now or by a point in time.
    pub(super) fn wait(&mut self, class: Class, until: Option<Time>) -> io::Result<Waited> {
        let lane = self.lanes.of(class);
        let waited = lane.poller.wait(until)?;
        let waits_for_all = lane.waits_for_all();
        lane.silence
            .waited(self.turn, self.now, waited.full, waits_for_all);
        self.stats.waits += 1;
        self.stats.full_waits += u64::from(waited.full);
        self.stats.events += waited.events as u64;
        self.handover_ready |= waited.nested;
        Ok(waited)
    }

    /// Calls back every source that the waits so far have reported.
    pub(super) fn run_batch(&mut self, state: &mut S, class: Class) {
        for _ in 0..self.lanes.get(class).poller.reported.len() {
            if let Some(event) = self.lanes.of(class).poller.reported.pop_front() {
                self.dispatch(state, event);
            }
        }
    }

    /// Reads the clock for this turn.
    pub(super) fn tick(&mut self) {
        self.now = self.config.clock.read(self.now);
    }

    /// Until when to wait: not at all if something is queued, and never beyond a deadline.
    pub(super) fn wake_time(&mut self, held: bool, longest: Option<Duration>) -> Option<Time> {
        let (item, handover) = (&mut self.lanes.item, &mut self.lanes.handover);
        let queued = handover.has_work()
            || !held && (item.has_work() || self.handover_ready || self.settling);
        if queued || longest == Some(Duration::ZERO) {
            return Some(Time::ZERO);
        }
        let (item, liveness) = if held {
            (None, None)
        } else {
            (item.next_due(), self.liveness.timers.next_due())
        };
        let clock = self.config.clock;
        let longest = longest.map(|longest| clock.read(self.now) + longest);
        let ends = [liveness, item, handover.next_due(), longest];
        let first = ends.into_iter().flatten().min();
        // A deadline of the past needs no clock to know that.
        first.map(|at| if at <= self.now { Time::ZERO } else { at })
    }

    fn wait_for_work(&mut self, held: bool, longest: Option<Duration>) -> io::Result<()> {
        let until = match self.config.clock {
            Clock::Real => self.wake_time(held, longest),
            Clock::Manual => Some(Time::ZERO),
        };
        if held {
            self.wait(Class::Handover, until)?;
        } else {
            self.set_alarm();
            self.wait(Class::Item, until)?;
        }
        self.tick();
        Ok(())
    }

    /// Serves signals and the channel. While serving, the small set is asked only when the big one
    /// reports it, and when one of its I/O deadlines is to be judged.
    fn run_handover(&mut self, state: &mut S, held: bool) -> io::Result<()> {
        self.run_batch(state, Class::Handover);
        let lane = &mut self.lanes.handover;
        let due = lane.deadlines.next_due().is_some_and(|at| at <= self.now);
        if held || !(self.handover_ready || due) {
            return Ok(());
        }
        for _ in 0..self.lanes.handover.waits_for_all() {
            self.handover_ready = self.wait(Class::Handover, Some(Time::ZERO))?.full;
            self.run_batch(state, Class::Handover);
            if !self.handover_ready {
                break;
            }
        }
        Ok(())
    }

    fn run_timers(&mut self, state: &mut S, set: TimerSet) {
        let now = self.now;
        for _ in 0..self.timers_mut(set).expire(now) {
            if let Some(expired) = self.timers_mut(set).pop_expired() {
                let key = expired.key;
                self.run_timer(state, TimerId { set, key });
            }
        }
    }

    fn run_deadlines(&mut self, state: &mut S, class: Class) {
        let lane = self.lanes.of(class);
        let silence = lane.silence;
        let Some(judged) = silence.proved_until(self.turn, self.now) else {
            return;
        };
        for _ in 0..lane.deadlines.expire(judged) {
            let deadlines = &mut self.lanes.of(class).deadlines;
            let Some(expired) = deadlines.pop_expired() else {
                continue;
            };
            let Some(&id) = deadlines.value(expired.key) else {
                continue;
            };
            let busy = self.sources.get(id.0).is_some_and(|slot| {
                slot.left != Flags::NONE || silence.covers(self.turn, slot.turn)
            });
            if busy {
                deadlines.put_back(expired);
            } else {
                let due = deadlines.due(expired.key).unwrap_or(judged);
                deadlines.disarm(expired.key);
                self.dispatch_timeout(state, id, due);
            }
        }
    }

    /// Goes on with the first `count` sources whose budget was used up. A source that had an event
    /// in this turn has gone on with that already.
    fn run_left(&mut self, state: &mut S, class: Class, count: usize) {
        for _ in 0..count {
            let resume = &mut self.lanes.of(class).resume;
            let Some(id) = resume.pop_front() else {
                return;
            };
            let Some(slot) = self.sources.get_mut(id.0) else {
                continue;
            };
            slot.listed = slot.turn == self.turn && slot.left != Flags::NONE;
            if slot.listed {
                resume.push_back(id);
            } else if slot.left != Flags::NONE {
                let flags = Flags::NONE;
                self.dispatch(state, Event { id, flags });
            }
        }
    }
}
