//! Lines about callers at PATH that are no takers, and about those that are.
//!
//! Each kind has a pace of its own, so that a thousand callers who only hang up cannot hide the
//! one who is a stranger.
//!
//! Invariant: nothing is logged while nobody serves. What comes then is counted.

use std::fmt;
use std::time::Duration;

use crate::event::Time;
use crate::takeover::pace::{Pace, Unsaid};

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
    nuisances: [Pace; 4],
    takers: Pace,
}

impl Default for CallerLog {
    fn default() -> CallerLog {
        CallerLog {
            nuisances: std::array::from_fn(|_| Pace::new(1, EVERY)),
            takers: Pace::new(TAKERS, EVERY),
        }
    }
}

impl CallerLog {
    /// Says it, unless it is too soon or `hushed`.
    pub(super) fn about(&mut self, nuisance: CallerFault, hushed: bool, what: &impl fmt::Display) {
        let pace = &mut self.nuisances[nuisance as usize];
        if hushed {
            pace.hush();
        } else if let Some(unsaid) = pace.may_say(Time::now()) {
            log::warn!("{what}{unsaid}");
        }
    }

    /// Whether a taker may be mentioned that is welcome.
    pub(super) fn taker(&mut self) -> Option<Unsaid> {
        self.takers.may_say(Time::now())
    }
}
