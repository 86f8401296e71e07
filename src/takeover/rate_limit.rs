//! How often the log is told the same thing.
//!
//! Anybody who may call can call without end, and each call is worth a line to the operator who
//! has made it. So some lines come at once, and from then on one now and then. Each says how many
//! like it were suppressed before.

use std::fmt;
use std::time::Duration;

use crate::event::Time;

/// How often the log is told the same thing: some lines at once, then one now and then. Each says
/// how many like it were suppressed before.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// The time between two lines in the long run.
    every: Duration,
    /// How far `due` may be ahead: the lines that may come at once.
    ahead: Duration,
    /// When the next line would be due if they came one by one.
    due: Time,
    suppressed: u64,
}

/// How many like it were suppressed, as the end of a line: nothing if none was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppressed(pub u64);

impl RateLimit {
    /// So many lines at once, then one `every` so often.
    #[must_use]
    pub fn new(at_once: u32, every: Duration) -> RateLimit {
        RateLimit {
            every,
            ahead: every * at_once.saturating_sub(1),
            due: Time::ZERO,
            suppressed: 0,
        }
    }

    /// Whether this line may be logged, and how many were suppressed before it. `None`: it may
    /// not, and counts as suppressed.
    pub fn allow(&mut self, now: Time) -> Option<Suppressed> {
        let due = self.due.max(now);
        if due.since(now) > self.ahead {
            self.suppress();
            return None;
        }
        self.due = due + self.every;
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
    }

    /// Counts a line that is not logged, whatever the limit allows.
    pub fn suppress(&mut self) {
        self.suppressed += 1;
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " ({more} more like it before)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What is said of one a millisecond.
    fn said(limit: &mut RateLimit, milliseconds: u64) -> Vec<u64> {
        let start = Time::now();
        (0..milliseconds)
            .filter_map(|ms| limit.allow(start + Duration::from_millis(ms)))
            .map(|Suppressed(more)| more)
            .collect()
    }

    #[test]
    fn one_a_second_is_said_and_counts_the_rest() {
        assert_eq!(said(&mut RateLimit::new(1, SECOND), 2500), [0, 999, 999]);
    }

    #[test]
    fn some_at_once_are_said_before_one_a_second() {
        assert_eq!(
            said(&mut RateLimit::new(4, SECOND), 1500),
            [0, 0, 0, 0, 996]
        );
    }

    #[test]
    fn hushed_is_counted_and_said_later() {
        let mut limit = RateLimit::new(1, SECOND);
        limit.suppress();
        limit.suppress();
        let suppressed = limit.allow(Time::now()).unwrap();
        assert_eq!(suppressed.to_string(), " (2 more like it before)");
        assert_eq!(Suppressed(0).to_string(), "");
    }
}
