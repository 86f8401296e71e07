//! Everything that exists once for each lane: its epoll set, its timers and its queues.

use std::collections::VecDeque;
use std::io;

use super::id::SourceId;
use super::names::NameId;
use super::poller::Poller;
use super::time::Time;
use super::timers::Timers;
use super::{Class, Cx};

/// A timer's callback: gets when it was due, returns when to run next.
pub(super) type TimerCallback<S> = Box<dyn FnMut(&mut S, &mut Cx<S>, Time) -> Option<Time>>;
/// A call that runs once, at the end of a turn.
pub(super) type Deferred<S> = Box<dyn FnOnce(&mut S, &mut Cx<S>)>;

/// A timer of the application.
pub(super) struct Timer<S> {
    pub(super) name: NameId,
    pub(super) class: Class,
    /// `None` while it runs.
    pub(super) callback: Option<TimerCallback<S>>,
}

/// One epoll set with its timers and queues. [Local](Class::Local) sources are in the set of the items.
pub(super) struct Lane<S> {
    pub(super) poller: Poller,
    pub(super) timers: Timers<Timer<S>>,
    pub(super) deadlines: Timers<SourceId>,
    pub(super) resume: VecDeque<SourceId>,
    pub(super) deferred: VecDeque<Deferred<S>>,
    /// How many sources are in the set, and how many of them are local.
    pub(super) sources: usize,
    pub(super) locals: usize,
    pub(super) silence: Silence,
}

impl<S> Lane<S> {
    pub(super) fn new(room: usize, now: Time) -> io::Result<Lane<S>> {
        Ok(Lane {
            poller: Poller::new(room)?,
            timers: Timers::new(now),
            deadlines: Timers::new(now),
            resume: VecDeque::new(),
            deferred: VecDeque::new(),
            sources: 0,
            locals: 0,
            silence: Silence::default(),
        })
    }

    /// Something can be done without asking the kernel.
    pub(super) fn has_work(&self) -> bool {
        !(self.resume.is_empty() && self.deferred.is_empty() && self.poller.reported.is_empty())
    }

    /// When the next timer or I/O deadline is due.
    pub(super) fn next_due(&mut self) -> Option<Time> {
        let timer = self.timers.next_due();
        timer.into_iter().chain(self.deadlines.next_due()).min()
    }

    /// This many waits report every source that was ready before the first of them. epoll hands out
    /// its ready list in order, and an edge-triggered entry leaves the list when it is reported.
    pub(super) fn waits_for_all(&self) -> usize {
        self.sources / self.poller.room() + 1
    }
}

/// The two lanes. They are apart from the rest of the reactor, so that both can be borrowed.
pub(super) struct Lanes<S> {
    pub(super) item: Lane<S>,
    pub(super) handover: Lane<S>,
}

impl<S> Lanes<S> {
    pub(super) fn of(&mut self, class: Class) -> &mut Lane<S> {
        match class {
            Class::Item | Class::Local => &mut self.item,
            Class::Handover => &mut self.handover,
        }
    }

    pub(super) fn get(&self, class: Class) -> &Lane<S> {
        match class {
            Class::Item | Class::Local => &self.item,
            Class::Handover => &self.handover,
        }
    }
}

/// When a source that reported nothing may be called silent.
///
/// After a wait that was not full: at once. If the load fills every wait: after as many waits as
/// report everything, because what was ready when the first of them began has then been seen.
/// Without this second rule an overload would put off all I/O deadlines for ever.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Silence {
    /// Turn and time of the first wait of the present run.
    since: u32,
    began: Time,
    full_waits: usize,
    /// What was proved last.
    proof: Option<Proof>,
}

#[derive(Debug, Clone, Copy)]
struct Proof {
    turn: u32,
    /// Not later than this; `None`: all the time until then.
    until: Option<Time>,
}

impl Silence {
    /// A wait has returned that began at `began` or later.
    pub(super) fn waited(&mut self, turn: u32, began: Time, full: bool, waits_for_all: usize) {
        if self.full_waits == 0 {
            (self.since, self.began) = (turn, began);
        }
        self.full_waits += 1;
        self.proof = None;
        if !full || self.full_waits >= waits_for_all {
            self.full_waits = 0;
            let until = full.then_some(self.began);
            self.proof = Some(Proof { turn, until });
        }
    }

    /// The waits of this turn have proved who is silent.
    pub(super) fn is_proved(&self, turn: u32) -> bool {
        self.proof.is_some_and(|proof| proof.turn == turn)
    }

    /// Until when the sources that reported nothing were silent, as far as this turn has proved:
    /// a deadline after that cannot be judged, as readiness may have come before it.
    pub(super) fn proved_until(&self, turn: u32, now: Time) -> Option<Time> {
        let proof = self.proof.filter(|proof| proof.turn == turn)?;
        Some(proof.until.unwrap_or(now))
    }

    /// A source last seen in turn `seen` was so within the proof, and is not silent. (Turns wrap;
    /// one that is idle for exactly 2³² of them is judged a turn later.)
    pub(super) fn covers(&self, turn: u32, seen: u32) -> bool {
        turn.wrapping_sub(seen) <= turn.wrapping_sub(self.since)
    }
}
