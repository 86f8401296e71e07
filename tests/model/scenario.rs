//! What may happen in one exploration, and how often.

use socket_takeover::takeover::internal::preload::Limits;

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
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    pub(crate) mutant: Mutant,
}

/// How often something may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Bytes that clients send.
    pub(crate) bytes: u8,
    /// Connections accepted by the donor.
    pub(crate) opens: u8,
    /// Connections ended by the donor.
    pub(crate) closes: u8,
    /// Connections reset by their clients.
    pub(crate) resets: u8,
    /// Dispatches cut short with work left.
    pub(crate) cuts: u8,
    /// Batches of which the taker does not take something.
    pub(crate) declines: u8,
    /// HELLOs that do not fit: version, clock or slots.
    pub(crate) refusals: u8,
    /// Actions refused by the kernel or the application.
    pub(crate) glitches: u8,
    /// Deadlines that pass although something else was still possible.
    pub(crate) deadlines: u8,
    /// Records that come when they must not, from either side.
    pub(crate) lies: u8,
    pub(crate) donor_kills: u8,
    pub(crate) taker_kills: u8,
    /// SIGSTOP: the process is there and does nothing.
    pub(crate) donor_stops: u8,
    pub(crate) taker_stops: u8,
    /// SIGCONT to a stopped process.
    pub(crate) conts: u8,
    pub(crate) donor_terms: u8,
    pub(crate) taker_terms: u8,
    /// Takers that call after the first, at any moment.
    pub(crate) takers: u8,
    /// Takeovers from a taker that has become the owner.
    pub(crate) chains: u8,
}

impl Budget {
    /// Nothing goes wrong, and no client says a word.
    pub(crate) const NONE: Budget = Budget {
        bytes: 0,
        opens: 0,
        closes: 0,
        resets: 0,
        cuts: 0,
        declines: 0,
        refusals: 0,
        glitches: 0,
        deadlines: 0,
        lies: 0,
        donor_kills: 0,
        taker_kills: 0,
        donor_stops: 0,
        taker_stops: 0,
        conts: 0,
        donor_terms: 0,
        taker_terms: 0,
        takers: 0,
        chains: 0,
    };

    /// What there is left of this, if it is bounded at all.
    pub(crate) fn of(&mut self, luck: Luck) -> Option<&mut u8> {
        match luck {
            Luck::Good => None,
            Luck::Glitch => Some(&mut self.glitches),
            Luck::CutShort => Some(&mut self.cuts),
            Luck::Deadline => Some(&mut self.deadlines),
            Luck::Decline => Some(&mut self.declines),
            Luck::Refusal => Some(&mut self.refusals),
            Luck::Lie => Some(&mut self.lies),
        }
    }
}

/// So small that few items take several batches and more than one round, and meet a full
/// window.
pub(crate) const SMALL: Limits = Limits {
    batch: 1,
    window: 2,
    rounds: 3,
    few: 0,
};

/// What the product has: here the first round is the last.
pub(crate) const USUAL: Limits = Limits {
    batch: socket_takeover::takeover::internal::preload::BATCH,
    window: socket_takeover::takeover::internal::preload::WINDOW,
    rounds: socket_takeover::takeover::internal::preload::ROUNDS,
    few: socket_takeover::takeover::internal::preload::FEW,
};

impl Scenario {
    /// One connection, a channel that is soon full, and nothing happens.
    pub(crate) const fn quiet(name: &'static str) -> Scenario {
        Scenario {
            name,
            connections: 1,
            capacity: 2,
            slots: 4,
            limits: USUAL,
            budget: Budget::NONE,
            mutant: Mutant::None,
        }
    }
}
