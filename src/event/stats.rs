//! What a reactor has done so far, as plain numbers.

/// Counters since the reactor was made. None ever goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Turns begun.
    pub turns: u64,
    /// Calls of epoll_wait(2), of both classes.
    pub waits: u64,
    /// Waits that had no room for another event.
    pub full_waits: u64,
    /// Calls of epoll_ctl(2): sources added, changed and taken out.
    pub controls: u64,
    /// Events that the kernel reported.
    pub events: u64,
    /// Events for a source that had gone since the events were fetched. They reach nobody.
    pub stale_events: u64,
    /// Callbacks of sources called, for whatever reason.
    pub dispatches: u64,
    /// Callbacks that went on with what an earlier turn left over.
    pub resumed: u64,
    /// Callbacks that returned [`Next::Again`](super::Next::Again).
    pub budget_hits: u64,
    /// Timers run.
    pub timers_fired: u64,
    /// Calls of timerfd_settime(2), for liveness timers.
    pub alarms: u64,
    /// I/O deadlines that passed in silence.
    pub deadlines_fired: u64,
    /// Deferred calls run.
    pub deferred: u64,
    /// Callbacks that returned an error.
    pub faults: u64,
    /// Pauses of an [`Acceptor`](super::Acceptor): each back-off, and each time that it came to its
    /// limit.
    pub accept_pauses: u64,
    /// Accepts of an [`Acceptor`](super::Acceptor) that failed for a reason that accept(2) does not
    /// list.
    pub accepts_unforeseen: u64,
}
