//! Timers that come again and again, and what happens to the times that were missed.
//!
//! ```text
//!   period     |     |     |     |     |     |     |
//!   a turn takes:    ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
//!   Skip       1     2               3     4     5      keeps the rhythm, leaves out the missed
//!   Delay      1     2               3     ·4    ·5     counts the period from when it ran
//!   Burst      1     2               3 4 5 6     7      makes up for them, one a turn
//! ```

use std::ops::ControlFlow;
use std::time::Duration;

use super::{Class, Cx, Time, TimerId};

/// What a periodic timer does about times that have passed before it could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drift {
    /// Leave them out and keep the rhythm: for statistics, advertisements, keepalives.
    Skip,
    /// Count the period from the time when it ran: for work that needs a pause.
    Delay,
    /// Make up for them, one in each turn: for work that has to be done so many times.
    Burst,
}

/// One run of a periodic timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When it was due.
    pub due: Time,
    /// When it is due next.
    pub next: Time,
    /// How many times were left out between the two.
    pub missed: u64,
}

impl Drift {
    /// The tick that was due at `due` and runs at `now`. A period of zero counts as 1 ns.
    ///
    /// ```
    /// # use socket_takeover::event::{Drift, Time};
    /// # use std::time::Duration;
    /// let (due, late) = (Time::from_ns(100), Time::from_ns(135));
    /// let next = |drift: Drift| drift.tick(due, Duration::from_nanos(10), late).next.as_ns();
    /// assert_eq!(next(Drift::Skip), 140);
    /// assert_eq!(next(Drift::Delay), 145);
    /// assert_eq!(next(Drift::Burst), 110);
    /// ```
    pub fn tick(self, due: Time, period: Duration, now: Time) -> Tick {
        let period = period.max(Duration::from_nanos(1));
        let (next, missed) = match self {
            Drift::Burst => (due + period, 0),
            Drift::Delay => (now.max(due) + period, 0),
            Drift::Skip => {
                // Both are below 585 years, so that the quotient fits.
                let missed = (now.since(due).as_nanos() / period.as_nanos()) as u64;
                let passed = u128::from(missed) * period.as_nanos();
                let passed = Duration::from_nanos(passed as u64);
                (due + passed + period, missed)
            }
        };
        Tick { due, next, missed }
    }
}

impl<S> Cx<S> {
    /// Runs `callback` at `first` and then once every `period`, until the callback breaks or the
    /// timer is [cancelled](Cx::cancel). [`Cx::rearm`] moves its next run, and the rhythm with it.
    /// Otherwise as [`Cx::timer`].
    pub fn every<F>(
        &mut self,
        class: Class,
        name: &'static str,
        first: Time,
        period: Duration,
        drift: Drift,
        mut callback: F,
    ) -> TimerId
    where
        F: FnMut(&mut S, &mut Cx<S>, Tick) -> ControlFlow<()> + 'static,
    {
        self.timer_at(class, name, first, move |state, cx, due| {
            let tick = drift.tick(due, period, cx.now());
            match callback(state, cx, tick) {
                ControlFlow::Continue(()) => Some(tick.next),
                ControlFlow::Break(()) => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_nanos(10);

    fn tick(drift: Drift, due: u64, now: u64) -> (u64, u64) {
        let tick = drift.tick(Time::from_ns(due), PERIOD, Time::from_ns(now));
        (tick.next.as_ns(), tick.missed)
    }

    #[test]
    fn tick_in_time_is_the_same_for_all_but_delay() {
        assert_eq!(tick(Drift::Skip, 100, 103), (110, 0));
        assert_eq!(tick(Drift::Burst, 100, 103), (110, 0));
        assert_eq!(tick(Drift::Delay, 100, 103), (113, 0));
    }

    #[test]
    fn tick_missed_keeps_the_rhythm_or_not() {
        assert_eq!(tick(Drift::Skip, 100, 130), (140, 3));
        assert_eq!(tick(Drift::Burst, 100, 130), (110, 0));
        assert_eq!(tick(Drift::Delay, 100, 130), (140, 0));
    }

    #[test]
    fn tick_without_a_period_goes_on_in_time() {
        let zero = Drift::Skip.tick(Time::from_ns(5), Duration::ZERO, Time::from_ns(7));
        assert_eq!(zero.next, Time::from_ns(8));
        let end = Drift::Skip.tick(Time::ZERO, Duration::MAX, Time::MAX);
        assert_eq!(end.next, Time::MAX);
    }
}
