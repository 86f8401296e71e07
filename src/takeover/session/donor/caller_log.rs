//! Lines about callers at PATH that are no takers, and about those that are.
//!
//! Each kind has a rate limit of its own, so that a thousand callers who only hang up cannot hide the
//! one who is a stranger.
//!
//! Invariant: nothing is logged while nobody serves. What comes then is counted.

use std::fmt;
use std::time::Duration;

use crate::event::Time;
use crate::takeover::rate_limit::{RateLimit, Suppressed};

/// The time between two lines of a kind.
const EVERY: Duration = Duration::from_secs(1);
/// Takers whose lines may come at once.
const TAKERS: u32 = 32;

/// What a caller did to be complained about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerFault {
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
#[derive(Debug)]
pub(super) struct CallerLog {
    faults: [RateLimit; 4],
    takers: RateLimit,
}

impl Default for CallerLog {
    fn default() -> CallerLog {
        CallerLog {
            faults: std::array::from_fn(|_| RateLimit::new(1, EVERY)),
            takers: RateLimit::new(TAKERS, EVERY),
        }
    }
}

impl CallerLog {
    /// Logs it, unless it is too soon, or everybody is held.
    pub(super) fn about(&mut self, fault: CallerFault, is_frozen: bool, what: &impl fmt::Display) {
        let limit = &mut self.faults[fault as usize];
        if is_frozen {
            limit.suppress();
        } else if let Some(suppressed) = limit.allow(Time::now()) {
            log::warn!("{what}{suppressed}");
        }
    }

    /// Whether a taker may be mentioned that is welcome.
    pub(super) fn taker(&mut self) -> Option<Suppressed> {
        self.takers.allow(Time::now())
    }
}
