//! What all connections of a run share.

use std::fmt::{Arguments, Display};

use crate::check::Finding;
use crate::console::Console;
use crate::tally::Tally;
use crate::timers::Clock;
use crate::trace::Trace;

/// Room for one read or write, in bytes.
pub const BUFFER: usize = 64 * 1024;

/// The clock, the sums, the console, and buffers of which one is enough for all connections.
#[derive(Debug)]
pub struct Shared {
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

impl Shared {
    /// With all sums at zero.
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
