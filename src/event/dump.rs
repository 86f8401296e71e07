//! What is armed in a reactor, as plain data, for an operator who asks what it waits for.

use super::id::TimerSet;
use super::lane::Timer;
use super::timers::Timers;
use super::{Class, Cx, Interest, SourceId, Time, TimerId};

/// Everything that can wake a reactor; see [`Cx::dump`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dump {
    /// The time of the present turn. Compare the times below with it.
    pub now: Time,
    /// The items are held.
    pub held: bool,
    /// A drain has begun.
    pub draining: bool,
    /// Deferred calls that wait for the end of a turn.
    pub deferred: usize,
    /// All sources, in the order of their slots.
    pub sources: Vec<ArmedSource>,
    /// All timers, the next one first. Those whose callback is running come last.
    pub timers: Vec<ArmedTimer>,
}

/// A source in a [`Dump`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArmedSource {
    /// Its id.
    pub id: SourceId,
    /// The name it was added with.
    pub name: &'static str,
    /// What it is part of.
    pub class: Class,
    /// What it is watched for.
    pub interest: Interest,
    /// Its I/O deadline.
    pub deadline: Option<Time>,
    /// It waits in the resume queue.
    pub resuming: bool,
}

/// A timer in a [`Dump`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArmedTimer {
    /// Its id.
    pub id: TimerId,
    /// The name it was made with.
    pub name: &'static str,
    /// What it is part of.
    pub class: Class,
    /// When it runs; `None` while it does.
    pub due: Option<Time>,
}

impl<S> Cx<S> {
    /// What is armed now, and when it is due. It walks all sources and timers.
    pub fn dump(&self) -> Dump {
        let sources = self.sources.iter().map(|(key, slot)| ArmedSource {
            id: SourceId(key),
            name: self.names.name(slot.name),
            class: slot.class,
            interest: slot.interest,
            deadline: self.deadline(SourceId(key)),
            resuming: self.is_resuming(SourceId(key)),
        });
        let (item, handover) = (&self.lanes.item, &self.lanes.handover);
        let timers = self
            .armed(TimerSet::Liveness, &self.liveness.timers)
            .chain(self.armed(TimerSet::Handover, &handover.timers))
            .chain(self.armed(TimerSet::Item, &item.timers));
        let mut timers: Vec<ArmedTimer> = timers.collect();
        timers.sort_by_key(|timer| (timer.due.is_none(), timer.due));
        Dump {
            now: self.now,
            held: self.is_held(),
            draining: self.is_draining(),
            deferred: item.deferred.len() + handover.deferred.len(),
            sources: sources.collect(),
            timers,
        }
    }

    fn armed<'a>(
        &'a self,
        set: TimerSet,
        timers: &'a Timers<Timer<S>>,
    ) -> impl Iterator<Item = ArmedTimer> + 'a {
        timers.iter().map(move |(key, due, timer)| ArmedTimer {
            id: TimerId { set, key },
            name: self.names.name(timer.name),
            class: timer.class,
            due,
        })
    }
}
