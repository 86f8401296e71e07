//! The states of a donor, and their names.

use super::Cause;
use crate::takeover::core::ledger::Ledger;
use crate::takeover::core::preload::Preload;

/// What is known of a taker that may own and is silent. One that dies slowly, because the kernel
/// writes its core first, closes nothing for as long as that takes; a closed channel is not a
/// death either (pidfd_open(2)). Only both together are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wait {
    /// What it was told.
    pub(super) ledger: Ledger,
    /// Its end of the channel is closed.
    pub(super) is_closed: bool,
    /// Its process is dead.
    pub(super) is_dead: bool,
}

impl Wait {
    pub(super) fn after(ledger: Ledger, cause: Cause) -> Wait {
        let mut wait = Wait {
            ledger,
            is_closed: false,
            is_dead: false,
        };
        wait.hear(cause);
        wait
    }

    pub(super) fn hear(&mut self, cause: Cause) {
        self.is_closed |= cause == Cause::Eof;
        self.is_dead |= cause == Cause::Died;
    }

    /// Nobody is left who could say ACTIVE, or serve.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed && self.is_dead
    }
}

/// Where the donor is; [its module](super) has the diagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Serves; nobody has called.
    Idle,
    /// Serves; waits for a HELLO.
    AcceptChannel,
    /// Serves; sends copies.
    Preload(Preload),
    /// Serves; PREPARE is out.
    HoldPeers(Ledger),
    /// Serves its last turn.
    LastTurn(Ledger),
    /// Frozen; sends the final array, then grants.
    SendFdArray(Ledger),
    /// Frozen; the lease is granted, END is not in the kernel yet.
    Grant(Ledger),
    /// Frozen; END is in the kernel.
    AwaitClaim(Ledger),
    /// Frozen; our read of the lease is under way.
    ReadLease(Wait, Cause),
    /// Held; the taker owns and has not said that it serves.
    AwaitActive(Wait),
    /// Serves; waits for the unsuccessful taker to go away.
    Rollback {
        /// It was killed, since it would not.
        killed: bool,
    },
    /// Serves only the items that were declined.
    Drain,
    /// Nothing is left to do.
    Done,
}

impl State {
    /// The names of all states.
    pub const NAMES: [&str; 13] = [
        "idle",
        "accept-channel",
        "preload",
        "hold-peers",
        "last-turn",
        "send-fd-array",
        "grant",
        "await-claim",
        "read-lease",
        "await-active",
        "rollback",
        "drain",
        "done",
    ];

    /// What the taker knows of each item.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        match self {
            State::Preload(preload) => Some(preload.ledger()),
            State::HoldPeers(ledger)
            | State::LastTurn(ledger)
            | State::SendFdArray(ledger)
            | State::Grant(ledger)
            | State::AwaitClaim(ledger) => Some(ledger),
            State::ReadLease(wait, _) | State::AwaitActive(wait) => Some(&wait.ledger),
            State::Idle
            | State::AcceptChannel
            | State::Rollback { .. }
            | State::Drain
            | State::Done => None,
        }
    }

    /// Its name, as in `docs/takeover.md` in the repository.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::AcceptChannel => "accept-channel",
            State::Preload(_) => "preload",
            State::HoldPeers(_) => "hold-peers",
            State::LastTurn(_) => "last-turn",
            State::SendFdArray(_) => "send-fd-array",
            State::Grant(_) => "grant",
            State::AwaitClaim(_) => "await-claim",
            State::ReadLease(..) => "read-lease",
            State::AwaitActive(_) => "await-active",
            State::Rollback { .. } => "rollback",
            State::Drain => "drain",
            State::Done => "done",
        }
    }
}
