//! Names of states without what they carry, for the census.

use socket_takeover::takeover::donor::State;
use socket_takeover::takeover::taker::{self, Leaving};

use crate::donor::DonorProcess;
use crate::taker::TakerProcess;
use crate::world::Life;

/// Everything that [`donor_name`] can answer.
pub(crate) const DONOR_NAMES: [&str; 15] = [
    "Idle",
    "AcceptChannel",
    "Preload",
    "HoldPeers",
    "Sweep",
    "SendFdArray",
    "Grant",
    "AwaitClaim",
    "Judge",
    "Bereaved",
    "Rollback",
    "Drain",
    "Done",
    KILLED,
    LEFT,
];

/// Everything that [`taker_name`] can answer.
pub(crate) const TAKER_NAMES: [&str; 9] = [
    "Hello", "Receive", "Settle", "Validate", "Claim", "Active", "Gone", KILLED, LEFT,
];

const KILLED: &str = "(killed)";
const LEFT: &str = "(left)";

pub(crate) fn donor_name(donor: &Life<DonorProcess, ()>) -> &'static str {
    match donor {
        Life::Alive(donor) => match donor.state() {
            State::Idle => "Idle",
            State::AcceptChannel => "AcceptChannel",
            State::Preload(_) => "Preload",
            State::HoldPeers(_) => "HoldPeers",
            State::Sweep(_) => "Sweep",
            State::SendFdArray(_) => "SendFdArray",
            State::Grant(_) => "Grant",
            State::AwaitClaim(_) => "AwaitClaim",
            State::Judge(..) => "Judge",
            State::Bereaved(_) => "Bereaved",
            State::Rollback { .. } => "Rollback",
            State::Drain => "Drain",
            State::Done => "Done",
        },
        Life::Killed => KILLED,
        Life::Left(()) => LEFT,
    }
}

pub(crate) fn taker_name(taker: &Life<TakerProcess, Leaving>) -> &'static str {
    match taker {
        Life::Alive(taker) => match taker.state() {
            taker::State::Hello => "Hello",
            taker::State::Receive => "Receive",
            taker::State::Settle => "Settle",
            taker::State::Validate => "Validate",
            taker::State::Claim => "Claim",
            taker::State::Active => "Active",
            taker::State::Gone => "Gone",
        },
        Life::Killed => KILLED,
        Life::Left(_) => LEFT,
    }
}
