//! What a SIGTERM means in each state of the donor.
//!
//! ```text
//!   before HoldPeers                    the attempt ends, and so do we
//!   HoldPeers … AwaitClaim, ReadLease   it waits for the outcome: who owns then is the one to stop
//!     a second one                      the attempt ends at once; a grant that is out is revoked
//!   AwaitActive                         it is passed on to the new owner
//!     a second one                      and we leave
//!   Drain                               we leave what is left
//! ```

use super::{Action, Cause, Donor, State, read_lease, release};
use crate::takeover::core::ledger::Ledger;

/// A SIGTERM that came when the outcome had to be awaited first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Term {
    /// There was none.
    None,
    /// It is for whoever turns out to own.
    Waits,
    /// A second one came: as soon as it is known who owns, we leave.
    Urgent,
    /// The new owner has been sent it. If that one dies untold, it is ours again.
    Passed,
}

impl Donor {
    /// The operator wants us to stop. Before HoldPeers that ends the attempt; from there on
    /// the outcome comes first, and whoever owns then is the one that stops. A second time the
    /// attempt ends at once, and a grant that is out is revoked.
    #[must_use]
    pub fn term(mut self) -> (Donor, Vec<Action>) {
        let is_first = self.term == Term::None;
        let mut actions = Vec::new();
        self.state = match self.state {
            State::Idle | State::AcceptChannel | State::Preload(_) | State::Rollback { .. } => {
                return self.stop();
            }
            State::HoldPeers(_) | State::LastTurn(_) | State::SendFdArray(_) if !is_first => {
                actions.push(Action::Resume(Cause::Stopping));
                let (donor, mut stop) = self.stop();
                actions.append(&mut stop);
                return (donor, actions);
            }
            State::Grant(ledger) | State::AwaitClaim(ledger) if !is_first => {
                self.term = Term::Urgent;
                read_lease(ledger, Cause::Stopping, &mut actions)
            }
            State::AwaitActive(wait) => {
                self.term = Term::Passed;
                actions.push(Action::PassTerm);
                if is_first {
                    State::AwaitActive(wait)
                } else {
                    leave(&wait.ledger, &mut actions)
                }
            }
            state @ (State::HoldPeers(_)
            | State::LastTurn(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::ReadLease(..)) => {
                self.term = if is_first { Term::Waits } else { Term::Urgent };
                state
            }
            State::Drain => {
                actions.push(Action::Exit);
                State::Done
            }
            // Released a moment ago, in the turn in which we leave. A service that has stopped has
            // nobody to pass it on to.
            State::Done => {
                actions.push(Action::PassTerm);
                State::Done
            }
        };
        (self, actions)
    }

    /// The items are ours: the attempt, if there is one, ends, and so does the service.
    fn stop(mut self) -> (Donor, Vec<Action>) {
        let mut actions = Vec::new();
        let before = std::mem::replace(&mut self.state, State::Done);
        if !matches!(before, State::Idle | State::Rollback { .. }) {
            actions.push(Action::Abort(Cause::Stopping));
        }
        if before != State::Idle {
            actions.push(Action::HangUp);
        }
        actions.push(Action::Stop);
        (self, actions)
    }

    /// A TERM that waited for the outcome is answered by whoever owns now.
    pub(super) fn settle_term(mut self, mut actions: Vec<Action>) -> (Donor, Vec<Action>) {
        match self.state {
            State::Idle | State::Rollback { .. } => {
                let (donor, mut stop) = self.stop();
                actions.append(&mut stop);
                return (donor, actions);
            }
            // The taker owns, so it is the one to stop.
            State::AwaitActive(wait) => {
                if self.term != Term::Passed {
                    actions.push(Action::PassTerm);
                }
                self.state = if self.term == Term::Urgent {
                    leave(&wait.ledger, &mut actions)
                } else {
                    State::AwaitActive(wait)
                };
                self.term = Term::Passed;
            }
            // And so are we, with what is left here.
            State::Drain | State::Done => {
                if self.term != Term::Passed {
                    actions.insert(0, Action::PassTerm);
                }
                self.term = Term::None;
                if self.state == State::Drain {
                    actions.push(Action::Exit);
                    self.state = State::Done;
                }
            }
            State::AcceptChannel
            | State::Preload(_)
            | State::HoldPeers(_)
            | State::LastTurn(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::ReadLease(..) => {}
        }
        (self, actions)
    }
}

/// The taker owns, and we were told twice to stop: it is sent the same, and we leave.
fn leave(ledger: &Ledger, actions: &mut Vec<Action>) -> State {
    if let State::Drain = release(ledger, actions) {
        actions.push(Action::Exit);
    }
    State::Done
}
