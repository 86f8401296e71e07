//! Statistics by name: one line for each kind of source, timer and deferred call.
//!
//! A slot holds a number instead of its name, so that counting is an index into a small table that
//! stays in the cache. Counting is always on. Measuring is not: it reads the clock twice a
//! callback. A name that was used once stays for the life of the reactor.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::slots::Key;
use super::{Cx, SourceId, Time};

/// A timer that runs later than this after its time counts as late: twice what the wait is
/// rounded by.
const LATE: Duration = Duration::from_millis(2);

/// The name of deferred calls.
const DEFERRED: &str = "deferred";

/// What the sources, timers or calls of one name have done so far. No figure ever goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NameStats {
    /// Callbacks called.
    pub calls: u64,
    /// Time spent in them; counted only while [measured](Cx::measure).
    pub time: Duration,
    /// The longest callback.
    pub longest: Duration,
    /// Timers and I/O deadlines that ran more than 2 ms after their time.
    pub late: u64,
    /// The longest delay of one.
    pub latest: Duration,
    /// Callbacks that returned [`Next::Again`](super::Next::Again).
    pub budget_hits: u64,
    /// Events for a source of this name that had gone since the events were fetched.
    pub stale_events: u64,
    /// Callbacks that returned an error.
    pub faults: u64,
}

/// A callback that ran for longer than it should; see [`Cx::on_slow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// The name of its source or timer, `"deferred"` for a deferred call.
    pub name: &'static str,
    /// For how long it ran.
    pub took: Duration,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ran for {:?}", self.name, self.took)
    }
}

/// Names a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameId(u32);

impl NameId {
    /// Of all deferred calls.
    pub(super) const DEFERRED: NameId = NameId(0);
}

/// The table of names.
#[derive(Debug)]
pub(super) struct Names {
    lines: Vec<(&'static str, NameStats)>,
    by_name: HashMap<&'static str, NameId>,
    /// The one asked for last: most sources are added many in a row.
    last: NameId,
    /// Of each slot of the sources, the name of the last one that has left it.
    gone: Vec<NameId>,
}

impl Names {
    pub(super) fn new() -> Names {
        Names {
            lines: vec![(DEFERRED, NameStats::default())],
            by_name: HashMap::from([(DEFERRED, NameId::DEFERRED)]),
            last: NameId::DEFERRED,
            gone: Vec::new(),
        }
    }

    /// The number of a name.
    pub(super) fn id(&mut self, name: &'static str) -> NameId {
        if self.name(self.last) != name {
            self.last = *self.by_name.entry(name).or_insert_with(|| {
                self.lines.push((name, NameStats::default()));
                NameId(self.lines.len() as u32 - 1)
            });
        }
        self.last
    }

    pub(super) fn name(&self, id: NameId) -> &'static str {
        self.lines[id.0 as usize].0
    }

    pub(super) fn stats(&mut self, id: NameId) -> &mut NameStats {
        &mut self.lines[id.0 as usize].1
    }

    /// A deadline has run.
    pub(super) fn ran_after(&mut self, id: NameId, lateness: Duration) {
        let stats = self.stats(id);
        stats.late += u64::from(lateness > LATE);
        stats.latest = stats.latest.max(lateness);
    }

    /// A source has left its slot.
    pub(super) fn left(&mut self, key: Key, id: NameId) {
        let slot = key.slot() as usize;
        if slot >= self.gone.len() {
            self.gone.resize(slot + 1, id);
        }
        self.gone[slot] = id;
    }

    /// An event came for a source that has gone.
    pub(super) fn stale(&mut self, source: SourceId) {
        if let Some(&id) = self.gone.get(source.0.slot() as usize) {
            self.stats(id).stale_events += 1;
        }
    }
}

type SlowHook<S> = Box<dyn FnMut(&mut S, &mut Cx<S>, Slow)>;

/// Whether the time of callbacks is taken, and for whom.
pub(super) struct Measure<S> {
    by_name: bool,
    longest: Duration,
    slow: Option<SlowHook<S>>,
}

impl<S> Default for Measure<S> {
    fn default() -> Measure<S> {
        Measure {
            by_name: false,
            longest: Duration::MAX,
            slow: None,
        }
    }
}

impl<S> Cx<S> {
    /// What was done so far, by name: of sources, timers and deferred calls (`"deferred"`). The
    /// order is that in which the names were first used.
    pub fn stats_by_name(&self) -> impl Iterator<Item = (&'static str, &NameStats)> {
        self.names.lines.iter().map(|(name, stats)| (*name, stats))
    }

    /// Starts or stops measuring the time of callbacks. Measuring costs two readings of the clock a
    /// callback, about 50 ns.
    pub fn measure(&mut self, on: bool) {
        self.measure.by_name = on;
    }

    /// Calls `hook` after each callback that ran for longer than `longest`, once it has returned.
    /// It costs as much as [`Cx::measure`]. A later hook replaces an earlier one. A hook that
    /// panics is removed.
    pub fn on_slow(
        &mut self,
        longest: Duration,
        hook: impl FnMut(&mut S, &mut Cx<S>, Slow) + 'static,
    ) {
        self.measure.longest = longest;
        self.measure.slow = Some(Box::new(hook));
    }

    /// Before a callback: counts it, and reads the clock if somebody wants to know.
    pub(super) fn begin(&mut self, name: NameId) -> Option<Time> {
        self.names.stats(name).calls += 1;
        (self.measure.by_name || self.measure.slow.is_some()).then(Time::now)
    }

    /// After a callback, when the reactor is whole again: notes how long the callback took.
    pub(super) fn took(&mut self, state: &mut S, name: NameId, took: Duration) {
        if self.measure.by_name {
            let stats = self.names.stats(name);
            stats.time += took;
            stats.longest = stats.longest.max(took);
        }
        if took > self.measure.longest
            && let Some(mut hook) = self.measure.slow.take()
        {
            let name = self.names.name(name);
            hook(state, self, Slow { name, took });
            // Unless the hook has set another one.
            self.measure.slow.get_or_insert(hook);
        }
    }
}
