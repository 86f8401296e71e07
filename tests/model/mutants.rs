//! Wrong protocols and wrong drivers: each wraps the real machines and lies to them, or
//! about them, in one way. The exploration must find where each one hurts.

use socket_takeover::takeover::internal::donor::{Action, Cause, Donor, State};
use socket_takeover::takeover::internal::taker::{self, Event};

use crate::kernel::Saved;
use crate::taker::Op;

/// How a world deviates from the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// Not at all.
    None,
    /// The donor takes itself for the winner without reading the lease.
    ResumeWithoutRevoke,
    /// The taker serves whatever its read of the lease said.
    ClaimWithoutOne,
    /// The taker claims when the lease turns 1 instead of when END has arrived.
    ClaimWithoutEnd,
    /// The donor sends END first and writes the lease then.
    GrantAfterEnd,
    /// The donor's driver tells what changed after what happened.
    ChangedToldLate,
    /// A dispatched item does not count as changed.
    UntrackedDirty,
    /// The taker serves once the channel has ended.
    TakerTakesEofForDeath,
    /// The donor serves on once the channel has ended, without asking the lease.
    DonorTakesEofForDeath,
    /// The donor lets go of its peers when END is sent.
    ReleasedBeforeClaim,
    /// ACTIVE alone releases, and silence alone resumes.
    CommitByMessage,
    /// The donor holds at once, without one more turn.
    NoFinalSweep,
    /// The taker does not empty its set before DRAINED.
    SettleSkipped,
    /// The taker empties its set after it has said DRAINED.
    SettleAfterDrained,
    /// Unfinished work is not told with an item's state.
    NoRunBit,
    /// A closed item is not told.
    ClosedNotTold,
    /// A taker that leaves closes the channel before its copies.
    CopiesKeptOnLeave,
    /// The taker judges its deadline before it reads what has arrived.
    DeadlineBeforeReadiness,
    /// A new owner that is silent is taken for one that serves.
    SilenceIsLife,
    /// A new owner that is told to stop leaves before it has said ACTIVE.
    LeavesUntold,
    /// A donor that is told twice to stop leaves the lease as it is.
    SecondTermUnrevoked,
    /// ECONNRESET is taken for the channel's end.
    ResetIsTheEnd,
    /// A second caller begins an attempt, whatever the donor is at.
    BusyNotChecked,
    /// What the taker is known to decline is offered again.
    UnwantedOffered,
    /// A peer that was reset makes the taker give up.
    DeadPeerRefused,
    /// A lease serves for one attempt after the other.
    LeaseUsedAgain,
    /// The taker does not compare END with what it has received.
    EndNotCompared,
    /// ACTIVE that cannot be sent at once is not sent at all.
    ActiveGivenUp,
    /// The donor hears of a death before what was said before it.
    DeathBeforeLastWords,
    /// The machine is told an outcome before the rest of the list is performed.
    OutcomeToldAtOnce,
    /// A new owner is taken over from before its donor has been told ACTIVE.
    TakenOverUntold,
    /// ACTIVE is believed.
    ActiveBelieved,
}

impl Mutant {
    /// What the driver tells the donor of its read of the lease, if it makes that up.
    pub(crate) fn verdict(self, state: &State) -> Option<bool> {
        let State::ReadLease(_, cause) = state else {
            return None;
        };
        match (self, cause) {
            (Mutant::ResumeWithoutRevoke, _)
            | (Mutant::DonorTakesEofForDeath, Cause::Eof)
            | (Mutant::CommitByMessage, Cause::Deadline) => Some(true),
            (Mutant::CommitByMessage | Mutant::ActiveBelieved, Cause::FalseActive) => Some(false),
            _ => None,
        }
    }

    pub(crate) fn donor_actions(self, mut actions: Vec<Action>, after: &Donor) -> Vec<Action> {
        match (self, after.state()) {
            (Mutant::GrantAfterEnd, State::Grant(_)) if actions.contains(&Action::End) => {
                actions.push(Action::Grant);
            }
            (Mutant::ReleasedBeforeClaim, State::AwaitClaim(_)) => {
                actions.push(Action::Release(Vec::new()));
            }
            _ => {}
        }
        actions
    }

    pub(crate) fn term_actions(self, actions: Vec<Action>) -> Vec<Action> {
        match (self, &actions[..]) {
            (Mutant::SecondTermUnrevoked, [Action::Revoke]) => vec![Action::Stop],
            _ => actions,
        }
    }

    pub(crate) fn taker_events(self, state: taker::State, event: Event) -> Vec<Event> {
        match (self, state, &event) {
            (Mutant::TakerTakesEofForDeath, taker::State::Settle, Event::Eof) => {
                vec![Event::End, Event::Valid, Event::Won]
            }
            _ => vec![event],
        }
    }

    pub(crate) fn settling(self) -> Vec<Op> {
        match self {
            Mutant::SettleSkipped => vec![Op::SayDrained],
            Mutant::SettleAfterDrained => vec![Op::SayDrained, Op::DiscardEdges],
            _ => vec![Op::DiscardEdges, Op::SayDrained],
        }
    }

    pub(crate) fn leaving(self) -> [Op; 2] {
        match self {
            Mutant::CopiesKeptOnLeave => [Op::CloseChannel, Op::CloseCopies],
            _ => [Op::CloseCopies, Op::CloseChannel],
        }
    }

    pub(crate) fn restored(self, saved: Saved) -> Saved {
        let run = saved.run && self != Mutant::NoRunBit;
        Saved { run, ..saved }
    }
}
