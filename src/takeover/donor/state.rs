//! The states of a donor, and their names.

use super::{Cause, Preload};
use crate::takeover::ledger::Ledger;

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
    Sweep(Ledger),
    /// Frozen; sends the final array, then grants.
    SendFdArray(Ledger),
    /// Frozen; the lease is granted, END is not in the kernel yet.
    Grant(Ledger),
    /// Frozen; END is in the kernel.
    AwaitClaim(Ledger),
    /// Frozen; our read of the lease is under way.
    Judge(Ledger, Cause),
    /// Frozen; the taker owns, and its end of the channel was closed without a word. Its
    /// death is seen on the channel some milliseconds before its pidfd tells (pidfd_open(2)).
    Bereaved(Ledger),
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
        "sweep",
        "send-fd-array",
        "grant",
        "await-claim",
        "judge",
        "bereaved",
        "rollback",
        "drain",
        "done",
    ];

    /// Its name, as in `docs/takeover.md` in the repository.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::AcceptChannel => "accept-channel",
            State::Preload(_) => "preload",
            State::HoldPeers(_) => "hold-peers",
            State::Sweep(_) => "sweep",
            State::SendFdArray(_) => "send-fd-array",
            State::Grant(_) => "grant",
            State::AwaitClaim(_) => "await-claim",
            State::Judge(..) => "judge",
            State::Bereaved(_) => "bereaved",
            State::Rollback { .. } => "rollback",
            State::Drain => "drain",
            State::Done => "done",
        }
    }
}
