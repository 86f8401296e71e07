//! What all connections of a run share.

use std::fmt::{Arguments, Display};

use crate::alarms::Clock;
use crate::check::Finding;
use crate::console::Console;
use crate::tally::Tally;
use crate::trace::Trace;

/// Room for one read or write, in bytes.
pub const BUFFER: usize = 64 * 1024;

/// Clock, sums, voice, and what would be a waste to have for each connection.
#[derive(Debug)]
pub struct Desk {
    /// The time.
    pub clock: Clock,
    /// The sums.
    pub tally: Tally,
    /// What is written down while the run goes on.
    pub trace: Option<Trace>,
    /// For complaints.
    pub console: Console,
    /// For one read or write, [`BUFFER`] long.
    pub buffer: Box<[u8]>,
    /// Empty except while answers are judged.
    pub findings: Vec<Finding>,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(clock: Clock, tally: Tally, console: Console) -> Self {
        Self {
            clock,
            tally,
            trace: None,
            console,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            findings: Vec::new(),
        }
    }

    /// Complains about one connection.
    pub fn complain(&mut self, who: &impl Display, what: Arguments<'_>) {
        self.console.complain(format_args!("{who}: {what}"));
    }
}
