//! What may happen in one exploration, and how often.

use crate::kernel::Luck;
use crate::mutants::Mutant;

/// The bounds of one exploration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Connections that the donor has at the start.
    pub(crate) connections: usize,
    /// Records that the channel takes before it blocks the donor.
    pub(crate) capacity: usize,
    /// Descriptor slots that the taker has for items.
    pub(crate) slots: usize,
    pub(crate) budget: Budget,
    pub(crate) mutant: Mutant,
}

/// How often something may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Bytes that clients send.
    pub(crate) bytes: u8,
    /// Connections accepted by the donor.
    pub(crate) opens: u8,
    /// Connections ended by the donor.
    pub(crate) closes: u8,
    /// Dispatches cut short with work left.
    pub(crate) cuts: u8,
    /// Items that the taker does not take.
    pub(crate) declines: u8,
    /// Actions refused by the kernel or the application.
    pub(crate) glitches: u8,
    /// Deadlines that pass although something else was still possible.
    pub(crate) deadlines: u8,
    pub(crate) donor_kills: u8,
    pub(crate) taker_kills: u8,
    /// SIGSTOP with no SIGCONT to follow: the process is there and does nothing.
    pub(crate) donor_stops: u8,
    pub(crate) taker_stops: u8,
    pub(crate) donor_terms: u8,
    pub(crate) taker_terms: u8,
    /// Takers that try after the first.
    pub(crate) takers: u8,
}

impl Budget {
    /// Nothing goes wrong, and no client says a word.
    pub(crate) const NONE: Budget = Budget {
        bytes: 0,
        opens: 0,
        closes: 0,
        cuts: 0,
        declines: 0,
        glitches: 0,
        deadlines: 0,
        donor_kills: 0,
        taker_kills: 0,
        donor_stops: 0,
        taker_stops: 0,
        donor_terms: 0,
        taker_terms: 0,
        takers: 0,
    };

    /// What there is left of this, if it is bounded at all.
    pub(crate) fn of(&mut self, luck: Luck) -> Option<&mut u8> {
        match luck {
            Luck::Good => None,
            Luck::Glitch => Some(&mut self.glitches),
            Luck::CutShort => Some(&mut self.cuts),
            Luck::Deadline => Some(&mut self.deadlines),
            Luck::Decline => Some(&mut self.declines),
        }
    }
}

impl Scenario {
    /// One connection, a channel that is soon full, and nothing happens.
    pub(crate) fn quiet(name: &'static str) -> Scenario {
        Scenario {
            name,
            connections: 1,
            capacity: 2,
            slots: 4,
            budget: Budget::NONE,
            mutant: Mutant::None,
        }
    }
}
