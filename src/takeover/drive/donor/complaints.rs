//! Lines about callers at PATH that are no takers.
//!
//! Anybody who may connect could fill the log otherwise. So there is a line a second at most
//! for each kind of nuisance, and it says how many like it went unmentioned. A kind of its own
//! means that a thousand callers who only hang up cannot hide the one who is a stranger.
//!
//! Invariant: nothing is logged while nobody serves. What comes then is counted.

use std::fmt;
use std::time::Duration;

use crate::event::Time;

/// The shortest time between two lines of a kind.
const PAUSE: Duration = Duration::from_secs(1);

/// What a caller did to be complained about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nuisance {
    /// It runs as a user who is neither root nor we.
    Stranger,
    /// It came while another one was served.
    Another,
    /// It went away, was silent, or said what is no fitting HELLO.
    Nothing,
    /// It could not be served, for want of descriptors above all.
    Unserved,
}

/// See the file's own description.
#[derive(Debug, Default)]
pub(super) struct Complaints([Kind; 4]);

#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    said: Option<Time>,
    unsaid: u64,
}

impl Complaints {
    /// Says it, unless it is too soon or `hushed`.
    pub(super) fn about(&mut self, nuisance: Nuisance, hushed: bool, what: &impl fmt::Display) {
        if let Some(unsaid) = self.0[nuisance as usize].may_say(Time::now(), hushed) {
            match unsaid {
                0 => log::warn!("{what}"),
                more => log::warn!("{what} ({more} more like it before)"),
            }
        }
    }
}

impl Kind {
    /// How many were not mentioned, if this one may be.
    fn may_say(&mut self, now: Time, hushed: bool) -> Option<u64> {
        if hushed || self.said.is_some_and(|then| now.since(then) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_said_and_counts_the_rest() {
        let mut kind = Kind::default();
        let start = Time::now();
        let said: Vec<Option<u64>> = (0..2500)
            .map(|ms| kind.may_say(start + Duration::from_millis(ms), false))
            .filter(Option::is_some)
            .collect();
        assert_eq!(said, [Some(0), Some(999), Some(999)]);
    }

    #[test]
    fn hushed_is_counted_and_said_later() {
        let mut kind = Kind::default();
        let now = Time::now();
        assert_eq!(kind.may_say(now, true), None);
        assert_eq!(kind.may_say(now, true), None);
        assert_eq!(kind.may_say(now, false), Some(2));
    }
}
