//! The scenarios that are explored. Each widens what may happen in one direction, since all
//! directions at once would be more than a test has time for.

use crate::scenario::{Budget, SMALL, Scenario};

/// Nothing happens.
pub(crate) const QUIET: Scenario = Scenario::quiet("quiet");

/// Everything that can go wrong at once, with one connection that talks.
pub(crate) const FAULTS: Scenario = Scenario {
    budget: Budget {
        bytes: 2,
        declines: 1,
        glitches: 1,
        deadlines: 3,
        donor_kills: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("faults")
};

pub(crate) const TRAFFIC: Scenario = Scenario {
    budget: Budget {
        bytes: 3,
        opens: 1,
        closes: 1,
        cuts: 2,
        declines: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("traffic")
};

/// Clients that give up, before the freeze and in it.
pub(crate) const RESETS: Scenario = Scenario {
    connections: 2,
    budget: Budget {
        bytes: 1,
        resets: 2,
        deadlines: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("resets")
};

/// Several batches, a full window and more than one round.
pub(crate) const ROUNDS: Scenario = Scenario {
    connections: 2,
    limits: SMALL,
    budget: Budget {
        bytes: 2,
        closes: 1,
        declines: 1,
        deadlines: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("rounds")
};

/// The same with new connections, and a channel for one record.
pub(crate) const NARROW: Scenario = Scenario {
    capacity: 1,
    limits: SMALL,
    budget: Budget {
        bytes: 2,
        opens: 1,
        closes: 1,
        declines: 1,
        glitches: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("narrow")
};

pub(crate) const TWO: Scenario = Scenario {
    connections: 2,
    budget: Budget {
        bytes: 2,
        closes: 1,
        cuts: 1,
        declines: 1,
        deadlines: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("two connections")
};

pub(crate) const STOPS: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        glitches: 1,
        deadlines: 1,
        donor_stops: 1,
        taker_stops: 1,
        conts: 2,
        donor_kills: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("stops")
};

pub(crate) const TERMS: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        declines: 1,
        deadlines: 2,
        donor_kills: 1,
        taker_kills: 1,
        donor_terms: 1,
        taker_terms: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("terms")
};

/// The new owner is silent for longer than every deadline and dies or goes on later; the donor
/// is told to stop, once or twice, before and after it knows who owns.
pub(crate) const SILENT: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        declines: 1,
        deadlines: 3,
        glitches: 1,
        taker_kills: 1,
        taker_stops: 1,
        conts: 1,
        donor_terms: 2,
        ..Budget::NONE
    },
    ..Scenario::quiet("silent")
};

pub(crate) const ONE_SLOT: Scenario = Scenario {
    slots: 1,
    budget: Budget {
        bytes: 1,
        opens: 1,
        closes: 1,
        deadlines: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("one slot")
};

/// One more taker calls at any moment: it is told BUSY, or is the next.
pub(crate) const CALLERS: Scenario = Scenario {
    budget: Budget {
        deadlines: 1,
        glitches: 1,
        taker_kills: 1,
        takers: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("callers")
};

/// The taker of an attempt before lives on, stopped or not, killed or not.
pub(crate) const LATE: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        glitches: 1,
        taker_stops: 1,
        conts: 1,
        takers: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("late taker")
};

pub(crate) const REFUSALS: Scenario = Scenario {
    budget: Budget {
        opens: 1,
        refusals: 1,
        donor_kills: 1,
        takers: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("refusals")
};

/// The new owner dies before the donor has left, and somebody takes over what is left.
pub(crate) const ORPHAN: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        opens: 1,
        declines: 1,
        taker_kills: 1,
        takers: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("orphan")
};

/// Records that come when they must not.
pub(crate) const LIES: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        lies: 1,
        deadlines: 1,
        donor_kills: 1,
        taker_kills: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("lies")
};

/// The new owner is taken over from in its turn, while the first donor may not have left.
pub(crate) const CHAIN: Scenario = Scenario {
    budget: Budget {
        glitches: 1,
        bytes: 1,
        donor_stops: 1,
        conts: 1,
        taker_kills: 1,
        chains: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("chain")
};

/// What was declined stays with the first donor; who is told to stop, when and by whom.
pub(crate) const BRANCHES: Scenario = Scenario {
    budget: Budget {
        bytes: 1,
        declines: 1,
        donor_terms: 1,
        donor_kills: 1,
        chains: 1,
        ..Budget::NONE
    },
    ..Scenario::quiet("chain and drain")
};

pub(crate) const COUNT: usize = 18;

pub(crate) const ALL: [&Scenario; COUNT] = [
    &QUIET, &FAULTS, &TRAFFIC, &RESETS, &ROUNDS, &NARROW, &TWO, &STOPS, &TERMS, &SILENT, &ONE_SLOT,
    &CALLERS, &LATE, &REFUSALS, &ORPHAN, &LIES, &CHAIN, &BRANCHES,
];
