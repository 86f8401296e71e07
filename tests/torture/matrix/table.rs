//! The fault table: what must come of each fault in each state, written from the design before
//! the first run.
//!
//! Its one principle: who has read the lease owns (`docs/takeover.md`). So a side that dies, or
//! sleeps past the other's deadline, decides nothing; only where it stood does:
//!
//! ```text
//!                 END is out           the lease is read           ACTIVE is heard
//!   donor owns ───────┊──── whoever reads ────┊───── taker owns ──────────┊──────▶
//!   donor dies: all lost ┊ nothing is lost    ┊ nothing is lost
//!   taker dies: nothing is lost               ┊ all lost, the listener lives on ┊ all lost
//! ```
//!
//! "Dies" stands for SIGKILL, a panic and an exit alike. "Sleeps" is SIGSTOP until the other
//! side has decided without it, then SIGCONT. "TERM" is SIGTERM to itself.

use socket_takeover::takeover::internal::{donor, taker};

/// A process of the takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Donor,
    Taker,
}

/// What brings the victim into its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// A takeover like any other.
    Plain,
    /// The taker is killed when it has WELCOME.
    TakerKilled,
    /// The taker sleeps when it has WELCOME, past the donor's deadline; it wakes afterwards.
    TakerSleeps,
    /// The taker sleeps right before it reads the lease, past the donor's deadline; it wakes
    /// afterwards.
    TakerSleepsLate,
    /// The taker panics when it owns and has not said so.
    OwnerPanics,
    /// The taker sleeps when it owns and has not said so, past the donor's deadline; it wakes
    /// afterwards.
    OwnerSleeps,
    /// The donor sleeps behind PREPARE, and the taker is told to stop; the donor wakes
    /// afterwards.
    DonorSleeps,
    /// A taker, played by the test, has declined every peer and owns the rest.
    Declined,
}

/// Who serves in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Donor,
    Taker,
    Nobody,
}

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Serves,
    /// Its exit code; 128 and the signal if one ended it.
    Exit(i32),
    /// As the fault has it: 137, 101 or 99.
    Fault,
    /// It is the test itself.
    Played,
}

/// What the connections that there were have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// Nothing: every byte is right and all go on.
    Flawless,
    /// All are gone with their owner, and none had a wrong byte before.
    Lost,
    /// The same, by a service that was told to stop.
    Ended,
}

/// One field of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) owner: Owner,
    pub(super) donor: End,
    pub(super) taker: End,
    pub(super) clients: Clients,
}

/// The three kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) dies: Outcome,
    pub(super) sleeps: Outcome,
    pub(super) term: Outcome,
    /// What TERM may come to as well, where it is a matter of who is first.
    pub(super) or: Option<Outcome>,
}

/// One state, in one scene.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) side: Side,
    pub(super) state: &'static str,
    pub(super) scene: Scene,
    /// The fault comes before the state's actions are performed …
    pub(super) before: Faults,
    /// … or behind them.
    pub(super) after: Faults,
}

use Clients::{Ended, Flawless, Lost};
use End::{Exit, Fault, Played, Serves};
use Owner::{Donor, Nobody, Taker};

const fn outcome(owner: Owner, donor: End, taker: End, clients: Clients) -> Outcome {
    Outcome {
        owner,
        donor,
        taker,
        clients,
    }
}

/// Both stop: TERM waits for the outcome and is passed on to the new owner, or comes to the new
/// owner itself.
const BOTH_STOP: Outcome = outcome(Nobody, Exit(0), Exit(0), Ended);

/// The donor is hit while it owns; a taker learns no more than `taker` from a dead one.
const fn owning(taker: End) -> Faults {
    Faults {
        dies: outcome(Nobody, Fault, taker, Lost),
        sleeps: outcome(Donor, Serves, Exit(75), Flawless),
        // ABORT, then it stops: nobody serves.
        term: outcome(Nobody, Exit(0), Exit(1), Ended),
        or: None,
    }
}

/// The same while records come and go: signals are looked at between turns, and a taker on a
/// faster CPU may have brought the donor to HoldPeers by then.
const fn preloading(taker: End) -> Faults {
    Faults {
        or: Some(BOTH_STOP),
        ..owning(taker)
    }
}

/// From HoldPeers on the outcome comes first.
const HOLDING: Faults = Faults {
    term: BOTH_STOP,
    ..owning(Exit(1))
};

/// END is out: dead or asleep, the donor is claimed from.
const GRANTED: Faults = Faults {
    dies: outcome(Taker, Fault, Serves, Flawless),
    sleeps: outcome(Taker, Exit(0), Serves, Flawless),
    term: BOTH_STOP,
    or: None,
};

/// The taker serves. A TERM that comes so late ends only the one that it was sent to.
const HANDED_OVER: Faults = Faults {
    term: outcome(Taker, Exit(0), Serves, Flawless),
    ..GRANTED
};

/// The taker is hit before it can own.
const LEAVING: Faults = Faults {
    dies: outcome(Donor, Serves, Fault, Flawless),
    sleeps: outcome(Donor, Serves, Exit(75), Flawless),
    term: outcome(Donor, Serves, Exit(75), Flawless),
    or: None,
};

/// The same before it has read the lease: it looks at signals between turns, and a donor on a
/// faster CPU may have sent END by then.
const UNCLAIMED: Faults = Faults {
    or: Some(BOTH_STOP),
    ..LEAVING
};

/// From END to the claim it does nothing else: TERM comes when it owns.
const CLAIMING: Faults = Faults {
    term: BOTH_STOP,
    or: None,
    ..UNCLAIMED
};

/// The taker is hit when it owns and the donor has not heard of it. A sleeping owner is an
/// owner; a dead one takes its peers along, and the donor serves those who come from now on.
const CLAIMED: Faults = Faults {
    dies: outcome(Donor, Serves, Fault, Lost),
    sleeps: outcome(Taker, Exit(0), Serves, Flawless),
    term: BOTH_STOP,
    or: None,
};

const fn row(side: Side, state: &'static str, scene: Scene, before: Faults, after: Faults) -> Row {
    Row {
        side,
        state,
        scene,
        before,
        after,
    }
}

const fn both(side: Side, state: &'static str, scene: Scene, faults: Faults) -> Row {
    row(side, state, scene, faults, faults)
}

/// See the file's own description.
pub(super) const ROWS: &[Row] = &[
    both(Side::Donor, "idle", Scene::TakerKilled, {
        let killed = Exit(137);
        Faults {
            dies: outcome(Nobody, Fault, killed, Lost),
            sleeps: outcome(Donor, Serves, killed, Flawless),
            term: outcome(Nobody, Exit(0), killed, Ended),
            or: None,
        }
    }),
    // A caller that was not answered cannot know why: the next try tells.
    both(
        Side::Donor,
        "accept-channel",
        Scene::Plain,
        owning(Exit(75)),
    ),
    // WELCOME goes out behind the first moment.
    row(
        Side::Donor,
        "preload",
        Scene::Plain,
        preloading(Exit(75)),
        preloading(Exit(1)),
    ),
    both(Side::Donor, "hold-peers", Scene::Plain, HOLDING),
    both(Side::Donor, "last-turn", Scene::Plain, HOLDING),
    both(Side::Donor, "send-fd-array", Scene::Plain, HOLDING),
    // END goes out between the two moments: granted without it, nobody may claim.
    row(Side::Donor, "grant", Scene::Plain, HOLDING, GRANTED),
    both(Side::Donor, "await-claim", Scene::Plain, GRANTED),
    both(Side::Donor, "read-lease", Scene::Plain, HANDED_OVER),
    // The revoke is read between the two moments.
    row(
        Side::Donor,
        "read-lease",
        Scene::TakerSleepsLate,
        Faults {
            term: outcome(Nobody, Exit(0), Exit(1), Ended),
            ..GRANTED
        },
        owning(Exit(1)),
    ),
    // It is waited for, whatever it takes.
    both(Side::Donor, "await-active", Scene::OwnerSleeps, GRANTED),
    both(Side::Donor, "await-active", Scene::OwnerPanics, {
        let panicked = Exit(101);
        Faults {
            dies: outcome(Nobody, Fault, panicked, Lost),
            sleeps: outcome(Donor, Serves, panicked, Lost),
            term: outcome(Nobody, Exit(0), panicked, Ended),
            or: None,
        }
    }),
    both(Side::Donor, "rollback", Scene::TakerSleeps, owning(Exit(1))),
    both(Side::Donor, "drain", Scene::Declined, {
        Faults {
            dies: outcome(Nobody, Fault, Played, Lost),
            sleeps: outcome(Donor, Exit(0), Played, Flawless),
            term: outcome(Nobody, Exit(0), Played, Ended),
            or: None,
        }
    }),
    both(Side::Donor, "done", Scene::Plain, HANDED_OVER),
    both(Side::Taker, "hello", Scene::Plain, UNCLAIMED),
    both(Side::Taker, "receive", Scene::Plain, UNCLAIMED),
    both(Side::Taker, "settle", Scene::Plain, UNCLAIMED),
    both(Side::Taker, "validate", Scene::Plain, CLAIMING),
    // The lease is read between the two moments.
    row(Side::Taker, "claim", Scene::Plain, CLAIMING, CLAIMED),
    both(Side::Taker, "active", Scene::Plain, CLAIMED),
    both(Side::Taker, "gone", Scene::DonorSleeps, LEAVING),
];

/// Each state of both machines has its row, and each row a state.
pub(super) fn is_complete() -> Result<(), String> {
    for (side, states) in [
        (Side::Donor, donor::State::NAMES.as_slice()),
        (Side::Taker, taker::State::NAMES.as_slice()),
    ] {
        let rows = || ROWS.iter().filter(|row| row.side == side);
        if let Some(state) = states
            .iter()
            .find(|state| !rows().any(|row| row.state == **state))
        {
            return Err(format!("the table has no row for {side:?} {state}"));
        }
        if let Some(row) = rows().find(|row| !states.contains(&row.state)) {
            return Err(format!("{side:?} has no state {}", row.state));
        }
    }
    Ok(())
}
