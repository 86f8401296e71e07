//! Names of states and steps without what they carry, for the census.

use socket_takeover::takeover::internal::donor::{self as donor_machine, Action, State};
use socket_takeover::takeover::internal::taker::{self, Leaving};

use crate::donor::{self, DonorProcess};
use crate::kernel::{Declining, Side};
use crate::taker::{self as taker_process, Op, TakerProcess};
use crate::world::{Life, Step};

/// Everything that [`donor_name`] can answer.
pub(crate) const DONOR_NAMES: [&str; 15] = [
    "Idle",
    "AcceptChannel",
    "Preload",
    "HoldPeers",
    "LastTurn",
    "SendFdArray",
    "Grant",
    "AwaitClaim",
    "ReadLease",
    "AwaitActive",
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
            State::LastTurn(_) => "LastTurn",
            State::SendFdArray(_) => "SendFdArray",
            State::Grant(_) => "Grant",
            State::AwaitClaim(_) => "AwaitClaim",
            State::ReadLease(..) => "ReadLease",
            State::AwaitActive(_) => "AwaitActive",
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

/// Every [`Action`] that somebody else can see.
pub(crate) const ACTION_NAMES: [&str; 15] = [
    "Welcome", "Prepare", "Send", "Hold", "Grant", "End", "Revoke", "Wait", "Resume", "Abort",
    "Kill", "HangUp", "Orphan", "Release", "PassTerm",
];

/// How a donor ends itself.
pub(crate) const LAST_ACTION_NAMES: [&str; 2] = ["Stop", "Exit"];

pub(crate) fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Arm(_) | Action::Disarm => unreachable!("no step of their own"),
        Action::Welcome => "Welcome",
        Action::Prepare => "Prepare",
        Action::Send(_) => "Send",
        Action::Hold => "Hold",
        Action::Grant => "Grant",
        Action::End => "End",
        Action::Revoke => "Revoke",
        Action::Wait => "Wait",
        Action::Resume(_) => "Resume",
        Action::Abort(_) => "Abort",
        Action::Kill => "Kill",
        Action::HangUp => "HangUp",
        Action::Orphan(_) => "Orphan",
        Action::Release(_) => "Release",
        Action::PassTerm => "PassTerm",
        Action::Stop => "Stop",
        Action::Exit => "Exit",
    }
}

/// Everything that [`op_name`] can answer.
pub(crate) const OP_NAMES: [&str; 11] = [
    "Ack",
    "DiscardEdges",
    "SayDrained",
    "Validate",
    "Claim",
    "Serve",
    "SayActive",
    "SayFail",
    "CloseCopies",
    "CloseChannel",
    "Leave",
];

pub(crate) fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Ack(_) => "Ack",
        Op::DiscardEdges => "DiscardEdges",
        Op::SayDrained => "SayDrained",
        Op::Validate => "Validate",
        Op::Claim => "Claim",
        Op::Serve => "Serve",
        Op::SayActive => "SayActive",
        Op::SayFail => "SayFail",
        Op::CloseCopies => "CloseCopies",
        Op::CloseChannel => "CloseChannel",
        Op::Exit(_) => "Leave",
    }
}

/// Everything that [`deadline_name`] and [`deadline_of_taker`] can answer.
pub(crate) const DEADLINE_NAMES: [&str; 11] = [
    "donor's hello deadline",
    "donor's preload deadline",
    "donor's freeze deadline",
    "donor's end deadline",
    "donor's claim deadline",
    "donor's next look",
    "donor's gone deadline",
    "donor's drain deadline",
    "taker's hello deadline",
    "taker's preload deadline",
    "taker's freeze deadline",
];

pub(crate) fn deadline_name(step: donor_machine::Step) -> &'static str {
    match step {
        donor_machine::Step::Hello => "donor's hello deadline",
        donor_machine::Step::Preload => "donor's preload deadline",
        donor_machine::Step::Freeze => "donor's freeze deadline",
        donor_machine::Step::End => "donor's end deadline",
        donor_machine::Step::Claim => "donor's claim deadline",
        donor_machine::Step::Look => "donor's next look",
        donor_machine::Step::Gone => "donor's gone deadline",
        donor_machine::Step::Drain => "donor's drain deadline",
    }
}

pub(crate) fn deadline_of_taker(step: taker::Step) -> &'static str {
    match step {
        taker::Step::Hello => "taker's hello deadline",
        taker::Step::Preload => "taker's preload deadline",
        taker::Step::Freeze => "taker's freeze deadline",
    }
}

/// Everything that happens to the donor beside its own actions and deadlines.
pub(crate) const DONOR_MOVES: [&str; 14] = [
    "donor glitch",
    "accept",
    "donor hears",
    "refuse",
    "donor at end",
    "death seen",
    "donor termed",
    "room",
    "donor serves",
    "donor serves in part",
    "sweep",
    "sweep in part",
    "emptied",
    "donor lies",
];

pub(crate) fn move_of_donor(choice: donor::Move) -> &'static str {
    use donor::Move;
    match choice {
        Move::Perform | Move::Deadline => unreachable!("they have names of their own"),
        Move::Glitch => "donor glitch",
        Move::Accept => "accept",
        Move::Busy => "busy",
        Move::Receive => "donor hears",
        Move::Refuse => "refuse",
        Move::Eof => "donor at end",
        Move::Died => "death seen",
        Move::Term => "donor termed",
        Move::Writable => "room",
        Move::Serve { cut_short, .. } if cut_short => "donor serves in part",
        Move::Serve { .. } => "donor serves",
        Move::Sweep { cut_short } if cut_short => "sweep in part",
        Move::Sweep { .. } => "sweep",
        Move::Emptied => "emptied",
        Move::Lie(_) => "donor lies",
    }
}

/// Everything that happens to the taker beside its own operations and deadlines.
pub(crate) const TAKER_MOVES: [&str; 11] = [
    "taker glitch",
    "taker hears",
    "decline",
    "decline kind",
    "decline linked",
    "unusable",
    "taker at end",
    "taker termed",
    "taker serves",
    "taker serves in part",
    "taker lies",
];

pub(crate) fn move_of_taker(choice: taker_process::Move) -> &'static str {
    use taker_process::Move;
    match choice {
        Move::Perform | Move::Deadline => unreachable!("they have names of their own"),
        Move::Glitch => "taker glitch",
        Move::Receive => "taker hears",
        Move::Decline(_, Declining::Alone) => "decline",
        Move::Decline(_, Declining::Kind) => "decline kind",
        Move::Decline(_, Declining::Linked) => "decline linked",
        Move::Unusable => "unusable",
        Move::Eof => "taker at end",
        Move::Term => "taker termed",
        Move::Serve { cut_short, .. } if cut_short => "taker serves in part",
        Move::Serve { .. } => "taker serves",
        Move::Lie(_) => "taker lies",
    }
}

/// Everything that [`outside`] can answer.
pub(crate) const OUTSIDE_NAMES: [&str; 20] = [
    "pidfd shows",
    "pidfd of the heir shows",
    "byte",
    "reset",
    "open",
    "close",
    "kill donor",
    "kill taker",
    "kill donor before",
    "stop donor",
    "stop taker",
    "cont donor",
    "cont taker",
    "cont donor before",
    "term donor",
    "term taker",
    "call",
    "answer",
    "chain",
    "donor before",
];

pub(crate) fn outside(step: Step) -> &'static str {
    match step {
        Step::Donor(_) | Step::Taker(_) | Step::Other(_) | Step::Past(_) => {
            unreachable!("they have names of their own")
        }
        Step::PidfdShows => "pidfd shows",
        Step::PastPidfdShows => "pidfd of the heir shows",
        Step::Client(_) => "byte",
        Step::Reset(_) => "reset",
        Step::Open(_) => "open",
        Step::Close(_) => "close",
        Step::Kill(Side::Donor) => "kill donor",
        Step::Kill(Side::Taker) => "kill taker",
        Step::KillPast => "kill donor before",
        Step::Stop(Side::Donor) => "stop donor",
        Step::Stop(Side::Taker) => "stop taker",
        Step::Cont(Side::Donor) => "cont donor",
        Step::Cont(Side::Taker) => "cont taker",
        Step::ContPast => "cont donor before",
        Step::Term(Side::Donor) => "term donor",
        Step::Term(Side::Taker) => "term taker",
        Step::Call => "call",
        Step::Answer => "answer",
        Step::Chain => "chain",
    }
}
