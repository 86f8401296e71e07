//! How often the log is told the same thing.
//!
//! Whoever may call can call without end, and each call is worth a line to an operator who has
//! made it. So there are some lines at once, then one now and then, which says how many like it
//! went unmentioned.

use std::fmt;
use std::time::Duration;

use crate::event::Time;

/// How often the log is told the same thing: some lines at once, then one now and then, which
/// says how many like it went unmentioned.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The time between two lines in the long run.
    every: Duration,
    /// How far `due` may be ahead: the lines that may come at once.
    ahead: Duration,
    /// When the next line would be due if they came one by one.
    due: Time,
    unsaid: u64,
}

/// How many like it went unmentioned, as the end of a line: nothing if none did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsaid(pub u64);

impl Pace {
    /// So many lines at once, then one `every` so often.
    #[must_use]
    pub fn new(at_once: u32, every: Duration) -> Pace {
        Pace {
            every,
            ahead: every * at_once.saturating_sub(1),
            due: Time::ZERO,
            unsaid: 0,
        }
    }

    /// How many were not mentioned, if this one may be; none if it may not.
    pub fn may_say(&mut self, now: Time) -> Option<Unsaid> {
        let due = self.due.max(now);
        if due.since(now) > self.ahead {
            self.hush();
            return None;
        }
        self.due = due + self.every;
        Some(Unsaid(std::mem::take(&mut self.unsaid)))
    }

    /// Counts one that is not mentioned, whatever the pace.
    pub fn hush(&mut self) {
        self.unsaid += 1;
    }
}

impl fmt::Display for Unsaid {
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
    fn said(pace: &mut Pace, milliseconds: u64) -> Vec<u64> {
        let start = Time::now();
        (0..milliseconds)
            .filter_map(|ms| pace.may_say(start + Duration::from_millis(ms)))
            .map(|Unsaid(more)| more)
            .collect()
    }

    #[test]
    fn one_a_second_is_said_and_counts_the_rest() {
        assert_eq!(said(&mut Pace::new(1, SECOND), 2500), [0, 999, 999]);
    }

    #[test]
    fn some_at_once_are_said_before_one_a_second() {
        assert_eq!(said(&mut Pace::new(4, SECOND), 1500), [0, 0, 0, 0, 996]);
    }

    #[test]
    fn hushed_is_counted_and_said_later() {
        let mut pace = Pace::new(1, SECOND);
        pace.hush();
        pace.hush();
        let unsaid = pace.may_say(Time::now()).unwrap();
        assert_eq!(unsaid.to_string(), " (2 more like it before)");
        assert_eq!(Unsaid(0).to_string(), "");
    }
}
