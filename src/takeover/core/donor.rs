//! The donor: the running process that hands everything over. A pure state machine.
//!
//! ```text
//!            Caller              Fits                  little left, or bounds reached
//!   Idle ──────────▶ AcceptChannel ─────▶ Preload ─────────────────────▶ HoldPeers
//!    ▲  ▲                 │ failure          │                               │ Drained
//!    │  └─────────────────┘                  │                               ▼
//!    │                                       │ failure                    LastTurn
//!    │        taker is gone                  ▼                               │ Held
//!    ├───────────────────────────────── Rollback ◀───────────────────────────┤
//!    │                                       ▲                               ▼
//!    │                                       │ Won                      SendFdArray
//!    │ items ended                           │            failure            │ all sent
//!    └──────── (orphaned)                ReadLease ◀───── AwaitClaim ◀──── Grant, END
//!                  ▲                         │ Lost    or ACTIVE
//!                  │ channel closed          ├────────────────────┐
//!                  │ and process dead        │ silent             │ it was ACTIVE
//!                  └──────────────────── AwaitActive              │
//!                                            │ ACTIVE             ▼            none left
//!                                            └───────────────▶ Release ──▶ Drain ──────▶ Done
//! ```
//!
//! Two rules decide all that can go wrong, and each is one table below:
//! - `State::authority`: who decides when something fails. Up to the grant we own and serve on.
//!   From the grant on only a read of the lease can tell.
//! - `State::expects`: the one message that may come now. Any other breaks the protocol, which is
//!   a failure like any other.
//!
//! What goes right is `State::advance`: one line for each arrow of the diagram.
//!
//! [`Donor::step`] is total and touches no socket, clock or descriptor. The session performs the
//! actions in order and reports their outcomes as events, after the whole list was performed.
//!
//! Invariants (explored exhaustively by `tests/model`):
//! - peers are served in Idle, AcceptChannel, Preload, HoldPeers, LastTurn and Rollback, and by
//!   nobody here from [`Outcome::Held`] until [`Action::Resume`];
//! - from [`Outcome::Granted`] on, only the outcome of [`Action::Revoke`] leads on:
//!   no message, silence or death of the taker decides who owns;
//! - END is sent at most once a lease, and only after the grant;
//! - once the lease is lost no deadline leads on: the taker's ACTIVE releases the items, or its
//!   channel's end *and* its death make them ours again;
//! - once the taker has said ACTIVE the donor takes nothing back, even if the taker dies.

mod alphabet;
mod state;
mod term;

use super::ledger::{Due, Ledger};
use super::preload::{Limits, Preload};
use crate::proto::records::Kind;
pub use alphabet::{Action, Cause, Event, Outcome, Step};
pub use state::{State, Wait};
use term::Term;

/// The donor's side of a takeover, as a pure state machine. The [module](self) has its diagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Donor {
    state: State,
    term: Term,
    limits: Limits,
}

/// Who decides what becomes of the items if something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// Nobody has to: there is no attempt.
    Nobody,
    /// The caller holds nothing of ours: it is hung up on.
    Caller,
    /// We own: we serve on.
    Donor,
    /// The lease is granted: only a read of it can tell.
    Lease,
    /// It is decided, or being read. A death, a close or a deadline may still mean something.
    Settled,
}

impl State {
    /// Rule one.
    fn authority(&self) -> Authority {
        match self {
            State::Idle | State::Done => Authority::Nobody,
            State::AcceptChannel => Authority::Caller,
            State::Preload(_)
            | State::HoldPeers(_)
            | State::LastTurn(_)
            | State::SendFdArray(_) => Authority::Donor,
            State::Grant(_) | State::AwaitClaim(_) => Authority::Lease,
            State::ReadLease(..)
            | State::AwaitActive(_)
            | State::Rollback { .. }
            | State::Drain => Authority::Settled,
        }
    }

    /// Rule two. FAIL may come at any time, and is a failure.
    fn expects(&self) -> Option<Kind> {
        match self {
            State::AcceptChannel => Some(Kind::Hello),
            State::Preload(_) => Some(Kind::Ack),
            State::HoldPeers(_) => Some(Kind::Drained),
            State::AwaitClaim(_) | State::ReadLease(..) | State::AwaitActive(_) => {
                Some(Kind::Active)
            }
            State::Idle
            | State::LastTurn(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::Rollback { .. }
            | State::Drain
            | State::Done => None,
        }
    }

    fn fail(self, cause: Cause, actions: &mut Vec<Action>) -> State {
        match (self.authority(), self) {
            (Authority::Caller, _) => {
                actions.extend([Action::Disarm, Action::HangUp]);
                State::Idle
            }
            // Time is up. A taker that has everything once and owes no answer can go on with
            // what is left in the freeze; a silent one cannot.
            (_, State::Preload(preload)) if cause == Cause::Deadline && preload.may_end() => {
                preload.end(actions)
            }
            (Authority::Donor, _) => give_up(cause, actions),
            (_, State::Grant(ledger) | State::AwaitClaim(ledger)) => {
                read_lease(ledger, cause, actions)
            }
            (Authority::Settled, state) => state.settle(cause, actions),
            (Authority::Nobody | Authority::Lease, state) => state,
        }
    }

    /// What a failure still means when it is decided who owns.
    fn settle(self, cause: Cause, actions: &mut Vec<Action>) -> State {
        match (self, cause) {
            // Comes only after an unread lease, and it is asked again.
            (State::ReadLease(mut wait, was), news) => {
                wait.hear(news);
                actions.push(Action::Revoke);
                State::ReadLease(wait, was)
            }
            // At a deadline it is looked at once more, and that is all.
            (State::AwaitActive(mut wait), Cause::Eof | Cause::Died | Cause::Deadline) => {
                wait.hear(cause);
                wait_on(wait, actions)
            }
            // A taker closes its copies before the channel, so its end is theirs. Where not even
            // SIGKILL helps it sleeps in the kernel, and its copies can do no I/O.
            (State::Rollback { .. }, Cause::Eof | Cause::Died)
            | (State::Rollback { killed: true }, Cause::Deadline) => {
                actions.extend([Action::Disarm, Action::HangUp]);
                State::Idle
            }
            (State::Rollback { killed: false }, Cause::Deadline) => {
                actions.extend([Action::Kill, Action::Arm(Step::Gone)]);
                State::Rollback { killed: true }
            }
            (State::Drain, Cause::Deadline) => {
                actions.push(Action::Exit);
                State::Done
            }
            // It was on its way before the taker heard of the outcome.
            (state, _) => state,
        }
    }

    /// The arrows of the diagram.
    fn advance(self, event: Event, limits: Limits, actions: &mut Vec<Action>) -> State {
        match (self, event) {
            (State::Idle, Event::Caller) => {
                actions.push(Action::Arm(Step::Hello));
                State::AcceptChannel
            }
            (State::AcceptChannel, Event::Fits { slots }) => {
                actions.extend([Action::Arm(Step::Preload), Action::Welcome]);
                State::Preload(Preload::new(slots, limits))
            }
            (State::Preload(preload), event) => preload.advance(event, actions),
            (State::HoldPeers(mut ledger), Event::Changed(items)) => {
                ledger.note_all(items);
                State::HoldPeers(ledger)
            }
            (State::HoldPeers(ledger), Event::Drained) => {
                actions.push(Action::Hold);
                State::LastTurn(ledger)
            }
            (State::LastTurn(mut ledger), Event::Changed(items)) => {
                ledger.note_all(items);
                State::LastTurn(ledger)
            }
            (State::LastTurn(ledger), Event::Did(Outcome::Held)) => {
                actions.push(Action::Arm(Step::End));
                next_of_final_array(ledger, limits, actions)
            }
            (State::SendFdArray(mut ledger), Event::Did(Outcome::Sent { batch, .. })) => {
                ledger.sent(&batch);
                next_of_final_array(ledger, limits, actions)
            }
            (State::SendFdArray(ledger), Event::Writable) => {
                next_of_final_array(ledger, limits, actions)
            }
            // A grant that fails is a failure in SendFdArray: the lease never held 1, so there is
            // nothing to revoke, and to find it empty would not mean that the taker owns.
            (State::SendFdArray(ledger), Event::Did(Outcome::Granted))
            | (State::Grant(ledger), Event::Writable) => {
                actions.push(Action::End);
                State::Grant(ledger)
            }
            (State::Grant(ledger), Event::Did(Outcome::EndSent)) => {
                actions.push(Action::Arm(Step::Claim));
                State::AwaitClaim(ledger)
            }
            // Whatever the taker says, the lease decides.
            (State::AwaitClaim(ledger), Event::Active) => {
                read_lease(ledger, Cause::FalseActive, actions)
            }
            (State::ReadLease(wait, _), Event::Active) => {
                actions.push(Action::Revoke);
                State::ReadLease(wait, Cause::FalseActive)
            }
            (State::ReadLease(_, cause), Event::Did(Outcome::Won)) => give_up(cause, actions),
            // It has said ACTIVE, so it owned PATH and may have been taken over from in its turn
            // while we slept; the peers can be somebody else's by now. They were never ours again.
            (State::ReadLease(wait, Cause::FalseActive), Event::Did(Outcome::Lost { .. })) => {
                release(&wait.ledger, actions)
            }
            (State::ReadLease(mut wait, _), Event::Did(Outcome::Lost { dead })) => {
                wait.is_dead |= dead;
                if !wait.is_over() {
                    actions.push(Action::Wait);
                }
                wait_on(wait, actions)
            }
            (State::ReadLease(wait, cause), Event::Did(Outcome::Unread)) => {
                actions.push(Action::Arm(Step::Look));
                State::ReadLease(wait, cause)
            }
            (State::AwaitActive(wait), Event::Active) => release(&wait.ledger, actions),
            (State::Drain, Event::Did(Outcome::Emptied)) => {
                actions.push(Action::Exit);
                State::Done
            }
            // A late echo of what is over: an outcome, room in the channel, a second caller.
            (state, _) => state,
        }
    }
}

impl Default for Donor {
    fn default() -> Self {
        Donor::limited(Limits::default())
    }
}

impl Donor {
    /// One that preloads within other bounds than usual.
    #[must_use]
    pub fn limited(limits: Limits) -> Donor {
        Donor {
            state: State::Idle,
            term: Term::None,
            limits,
        }
    }

    /// Where the donor is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the taker knows of each item; none if there is no taker, or no need to know it.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.state.ledger()
    }

    /// Whether a takeover is under way or has taken place, so that a new caller is refused.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether this message may come now. One that may not is [`Cause::Protocol`], and nothing in
    /// it counts.
    #[must_use]
    pub fn expects(&self, message: Kind) -> bool {
        self.state.expects() == Some(message) || message == Kind::Fail
    }

    /// Whether what is sent now is part of the final array: nobody serves, and nothing of it is
    /// acknowledged.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.state, State::SendFdArray(_))
    }

    /// Whether the lease is granted and what came of it is not known.
    #[must_use]
    pub fn has_granted(&self) -> bool {
        self.state.authority() == Authority::Lease || matches!(self.state, State::ReadLease(..))
    }

    /// The answer to one event. Perform the actions in order, then report their outcomes.
    #[must_use]
    pub fn step(self, event: Event) -> (Donor, Vec<Action>) {
        let mut actions = Vec::new();
        let event = match event.message() {
            Some(message) if !self.expects(message) => Event::Failure(Cause::Protocol),
            _ => event,
        };
        let state = match event {
            Event::Failure(cause) => self.state.fail(cause, &mut actions),
            event => self.state.advance(event, self.limits, &mut actions),
        };
        let donor = Donor { state, ..self };
        if donor.term == Term::None {
            (donor, actions)
        } else {
            donor.settle_term(actions)
        }
    }
}

/// Before the grant, or after a revoke that won: the taker cannot own, so it is enough to go
/// on. It may still hold copies.
pub(super) fn give_up(cause: Cause, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Resume(cause));
    if matches!(cause, Cause::Eof | Cause::Died) {
        // Its copies are gone, or go with its process.
        actions.extend([Action::Disarm, Action::HangUp]);
        return State::Idle;
    }
    actions.extend([Action::Abort(cause), Action::Arm(Step::Gone)]);
    State::Rollback { killed: false }
}

fn next_of_final_array(ledger: Ledger, limits: Limits, actions: &mut Vec<Action>) -> State {
    match ledger.next_batch(limits.batch) {
        Due::Batch(batch) => actions.push(Action::Send(batch)),
        Due::Nothing => actions.push(Action::Grant),
        Due::NoSlots => return give_up(Cause::FdLimit, actions),
    }
    State::SendFdArray(ledger)
}

fn read_lease(ledger: Ledger, cause: Cause, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Revoke);
    State::ReadLease(Wait::after(ledger, cause), cause)
}

fn wait_on(wait: Wait, actions: &mut Vec<Action>) -> State {
    if wait.is_over() {
        // What the taker declined it never had: those clients need not share its end.
        let declined = wait.ledger.declined().collect();
        actions.extend([Action::Disarm, Action::Orphan(declined)]);
        return State::Idle;
    }
    actions.push(Action::Arm(Step::Look));
    State::AwaitActive(wait)
}

fn release(ledger: &Ledger, actions: &mut Vec<Action>) -> State {
    let declined: Vec<_> = ledger.declined().collect();
    let none = declined.is_empty();
    actions.extend([Action::Disarm, Action::Release(declined)]);
    if none {
        actions.push(Action::Exit);
        return State::Done;
    }
    actions.extend([Action::HangUp, Action::Arm(Step::Drain)]);
    State::Drain
}

#[cfg(test)]
mod tests;
