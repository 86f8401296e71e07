//! The donor: the running process that hands everything over. A pure state machine.
//!
//! ```text
//!            Caller              Fits                  little left, or bounds reached
//!   Idle ──────────▶ AcceptChannel ─────▶ Preload ─────────────────────▶ HoldPeers
//!    ▲  ▲                 │ failure          │                               │ Drained
//!    │  └─────────────────┘                  │                               ▼
//!    │                                       │ failure                     Sweep   last turn
//!    │        taker is gone                  ▼                               │ Held
//!    ├───────────────────────────────── Rollback ◀───────────────────────────┤
//!    │                                       ▲                               ▼
//!    │                                       │ Won                      SendFdArray
//!    │ items ended                           │            failure            │ all sent
//!    └──────── (orphaned)                  Judge ◀───── AwaitClaim ◀──── Grant, END
//!                  ▲                         │ Lost    or ACTIVE
//!                  │ channel closed          ├────────────────────┐
//!                  │ and process dead        │ silent             │ it was ACTIVE
//!                  └──────────────────── AwaitActive              │
//!                                            │ ACTIVE             ▼            none left
//!                                            └───────────────▶ Release ──▶ Drain ──────▶ Done
//! ```
//!
//! [`Donor::step`] is total: every event has an answer in every state and there is no
//! wildcard arm, so that a new event has to be thought about at each place. It touches no
//! socket, clock or descriptor: the driver performs the actions in order and reports their
//! outcomes as events, after the whole list was performed.
//!
//! Invariants (explored exhaustively by `tests/model`):
//! - peers are served in Idle, AcceptChannel, Preload, HoldPeers, Sweep and Rollback, and by
//!   nobody here from [`Outcome::Held`] until [`Action::Resume`];
//! - from [`Outcome::Granted`] on, only the outcome of [`Action::Revoke`] leads on:
//!   no message, silence or death of the taker decides who owns;
//! - END is sent at most once a lease, and only after the grant;
//! - once the lease is lost no deadline leads on: the taker's ACTIVE releases the items, or its
//!   channel's end *and* its death make them ours again;
//! - once the taker has said ACTIVE the donor takes nothing back, even if the taker dies.

mod freeze;
mod preload;
mod state;

use super::ledger::{Batch, ItemId, Presence};
pub use preload::{BATCH, FEW, Pace, Preload, ROUNDS, WINDOW};
pub use state::{State, Wait};

/// Which deadline to arm; the driver knows how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// From the caller's connect to its HELLO.
    Hello,
    /// The whole preload.
    Preload,
    /// From PREPARE to DRAINED.
    Freeze,
    /// From the hold to END.
    End,
    /// From END to the taker's claim.
    Claim,
    /// Until the lease, the channel and the taker's process are looked at once more.
    Look,
    /// For a refused or revoked taker to go away.
    Gone,
    /// For declined items to end.
    Drain,
}

/// Why a takeover does not come about. Unless the taker owns already, the donor serves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The taker said that it cannot.
    Failed,
    /// The taker closed the channel.
    Eof,
    /// The taker's process has died.
    Died,
    /// The deadline armed last has passed.
    Deadline,
    /// It broke the protocol, or the channel itself failed.
    Strange,
    /// Its descriptor slots do not suffice.
    Slots,
    /// It said ACTIVE without having claimed.
    Liar,
    /// Our own kernel refused an eventfd or a message, or the application cannot save.
    Resources,
    /// We were told to stop.
    Stopping,
}

/// What happens to the donor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody connected and passed the identity check.
    Caller,
    /// Its HELLO fits; it has this many free descriptor slots for items.
    Fits {
        /// Free slots beyond what the taker needs for itself.
        slots: usize,
    },
    /// Items were opened, changed or closed. Comes before any event that may lead to a batch.
    Changed(Vec<(ItemId, Presence)>),
    /// The channel has room again.
    Writable,
    /// The taker has taken the oldest unacknowledged batch, but for these.
    Ack {
        /// Items that it does not take.
        declined: Vec<ItemId>,
    },
    /// The taker's set is empty of stale readiness.
    Drained,
    /// The taker says that it serves.
    Active,
    /// Something that ends the attempt wherever ownership is still ours.
    Failure(Cause),
    /// What has come of an action.
    Did(Outcome),
}

/// What has come of an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The batch asked for is in the kernel.
    Sent(Batch),
    /// The batch, or END, did not fit into the channel; nothing of it was sent.
    Blocked,
    /// The last turn is over; no peer is polled any more.
    Held,
    /// The lease holds 1.
    Granted,
    /// END is in the kernel.
    EndSent,
    /// Our read of the lease got the 1: the taker can never claim.
    Won,
    /// Our read found the lease empty: the taker owns.
    Lost {
        /// Its process is dead already.
        dead: bool,
    },
    /// Our read of the lease failed: who owns is not known yet.
    Unread,
    /// No declined item is left.
    Emptied,
}

/// What the driver is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Arm this deadline in place of the one before.
    Arm(Step),
    /// No deadline.
    Disarm,
    /// Make a lease, start tracking changes, send WELCOME with the lease. Reports all items
    /// as [`Event::Changed`], or a failure.
    Welcome,
    /// Send PREPARE; only a failure is reported.
    Prepare,
    /// Send this batch; reports [`Outcome::Sent`], [`Outcome::Blocked`] or a failure.
    Send(Batch),
    /// One more complete turn, then stop polling items; reports [`Outcome::Held`].
    Hold,
    /// Write 1 to the lease; reports [`Outcome::Granted`] or a failure.
    Grant,
    /// Send END; reports [`Outcome::EndSent`], [`Outcome::Blocked`] or a failure.
    End,
    /// Read the lease; reports [`Outcome::Won`], [`Outcome::Lost`] or [`Outcome::Unread`].
    Revoke,
    /// Tell the application and the log that the taker owns and has not said so, and that we
    /// wait for it.
    Wait,
    /// Serve as if nothing had happened: forget a hold asked for, poll items, stop tracking.
    Resume(Cause),
    /// Tell the taker ABORT, as far as that is possible.
    Abort(Cause),
    /// Kill the taker by its pidfd. Only ever asked for when it cannot own.
    Kill,
    /// Close the channel and all that belongs to the attempt.
    HangUp,
    /// The taker owned and died: end our copies of all that it had, which is all but these; then
    /// close what belongs to the attempt, keep the listener, offer PATH again and serve.
    Orphan(Vec<ItemId>),
    /// Close the items' epoll set as a whole, then every item but these; never `shutdown`.
    Release(Vec<ItemId>),
    /// Send the taker the SIGTERM that we got, if there is one.
    PassTerm,
    /// Stop the service: we own and were told to.
    Stop,
    /// Leave at once, successfully.
    Exit,
}

/// The donor's side of a takeover, as a pure state machine. The [module](self) has its diagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Donor {
    state: State,
    term: Term,
    pace: Pace,
}

/// A SIGTERM that came when the outcome had to be awaited first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Term {
    /// There was none.
    None,
    /// It is for whoever turns out to own.
    Waits,
    /// A second one came: as soon as it is known who owns, we leave.
    Urgent,
    /// The new owner has been sent it. If that one dies untold, it is ours again.
    Passed,
}

impl Default for Donor {
    fn default() -> Self {
        Donor::paced(Pace::default())
    }
}

impl Donor {
    /// One that preloads within other bounds than usual.
    #[must_use]
    pub fn paced(pace: Pace) -> Donor {
        Donor {
            state: State::Idle,
            term: Term::None,
            pace,
        }
    }

    /// Where the donor is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a takeover is under way or has taken place, so that a new caller is refused.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether the lease is granted and what came of it is not known.
    #[must_use]
    pub fn has_granted(&self) -> bool {
        match self.state {
            State::Grant(_) | State::AwaitClaim(_) | State::Judge(..) => true,
            State::Idle
            | State::AcceptChannel
            | State::Preload(_)
            | State::HoldPeers(_)
            | State::Sweep(_)
            | State::SendFdArray(_)
            | State::AwaitActive(_)
            | State::Rollback { .. }
            | State::Drain
            | State::Done => false,
        }
    }

    /// The answer to one event. Perform the actions in order, then report their outcomes.
    #[must_use]
    pub fn step(self, event: Event) -> (Donor, Vec<Action>) {
        let mut actions = Vec::new();
        let state = match self.state {
            State::Idle => idle(event, &mut actions),
            State::AcceptChannel => accept_channel(event, self.pace, &mut actions),
            State::Preload(preload) => preload.step(event, &mut actions),
            State::HoldPeers(ledger) => freeze::hold_peers(ledger, event, &mut actions),
            State::Sweep(ledger) => freeze::sweep(ledger, self.pace.batch, event, &mut actions),
            State::SendFdArray(ledger) => {
                freeze::send_fd_array(ledger, self.pace.batch, event, &mut actions)
            }
            State::Grant(ledger) => freeze::grant(ledger, event, &mut actions),
            State::AwaitClaim(ledger) => freeze::await_claim(ledger, event, &mut actions),
            State::Judge(wait, cause) => freeze::judge(wait, cause, event, &mut actions),
            State::AwaitActive(wait) => freeze::await_active(wait, event, &mut actions),
            State::Rollback { killed } => rollback(killed, event, &mut actions),
            State::Drain => drain(event, &mut actions),
            State::Done => State::Done,
        };
        let donor = Donor { state, ..self };
        if donor.term == Term::None {
            (donor, actions)
        } else {
            donor.settle_term(actions)
        }
    }

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
            State::HoldPeers(_) | State::Sweep(_) | State::SendFdArray(_) if !is_first => {
                actions.push(Action::Resume(Cause::Stopping));
                let (donor, mut stop) = self.stop();
                actions.append(&mut stop);
                return (donor, actions);
            }
            State::Grant(ledger) | State::AwaitClaim(ledger) if !is_first => {
                self.term = Term::Urgent;
                actions.push(Action::Revoke);
                State::Judge(Wait::after(ledger, Cause::Stopping), Cause::Stopping)
            }
            State::AwaitActive(wait) => {
                self.term = Term::Passed;
                actions.push(Action::PassTerm);
                if is_first {
                    State::AwaitActive(wait)
                } else {
                    freeze::leave(&wait.ledger, &mut actions)
                }
            }
            state @ (State::HoldPeers(_)
            | State::Sweep(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::Judge(..)) => {
                self.term = if is_first { Term::Waits } else { Term::Urgent };
                state
            }
            State::Drain => {
                actions.push(Action::Exit);
                State::Done
            }
            // Released a moment ago, in the turn in which we leave. Whoever has stopped has
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
    fn settle_term(mut self, mut actions: Vec<Action>) -> (Donor, Vec<Action>) {
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
                    freeze::leave(&wait.ledger, &mut actions)
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
            | State::Sweep(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::Judge(..) => {}
        }
        (self, actions)
    }
}

fn idle(event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Caller => {
            actions.push(Action::Arm(Step::Hello));
            State::AcceptChannel
        }
        // Late echoes of an attempt that is over.
        Event::Fits { .. }
        | Event::Changed(_)
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Active
        | Event::Failure(_)
        | Event::Did(_) => State::Idle,
    }
}

fn accept_channel(event: Event, pace: Pace, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Fits { slots } => {
            actions.extend([Action::Arm(Step::Preload), Action::Welcome]);
            State::Preload(Preload::new(slots, pace))
        }
        // It holds nothing of ours, so there is nothing to wait for.
        Event::Failure(_) | Event::Ack { .. } | Event::Drained | Event::Active => {
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Caller | Event::Changed(_) | Event::Writable | Event::Did(_) => State::AcceptChannel,
    }
}

/// Before the grant, or after a revoke that won: the taker cannot own, so it is enough to go
/// on. It may still hold copies.
fn give_up(cause: Cause, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Resume(cause));
    match cause {
        // Its copies are gone, or go with its process.
        Cause::Eof | Cause::Died => {
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Cause::Failed
        | Cause::Deadline
        | Cause::Strange
        | Cause::Slots
        | Cause::Stopping
        | Cause::Liar
        | Cause::Resources => {
            actions.extend([Action::Abort(cause), Action::Arm(Step::Gone)]);
            State::Rollback { killed: false }
        }
    }
}

fn rollback(killed: bool, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        // A taker closes its copies before the channel, so its end is theirs.
        Event::Failure(Cause::Eof | Cause::Died) => {
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Failure(Cause::Deadline) if killed => {
            // Not even SIGKILL: it sleeps in the kernel. Its copies can do no I/O.
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Failure(Cause::Deadline) => {
            actions.extend([Action::Kill, Action::Arm(Step::Gone)]);
            State::Rollback { killed: true }
        }
        // It was on its way before it heard of the ABORT.
        Event::Failure(
            Cause::Failed
            | Cause::Strange
            | Cause::Slots
            | Cause::Stopping
            | Cause::Liar
            | Cause::Resources,
        )
        | Event::Caller
        | Event::Fits { .. }
        | Event::Changed(_)
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Active
        | Event::Did(_) => State::Rollback { killed },
    }
}

fn drain(event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Did(Outcome::Emptied) | Event::Failure(Cause::Deadline) => {
            actions.push(Action::Exit);
            State::Done
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Changed(_)
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Active
        | Event::Failure(_)
        | Event::Did(_) => State::Drain,
    }
}

#[cfg(test)]
mod tests;
