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
//!    │ peers ended                           │            failure            │ all sent
//!    ├──────── (orphaned) ◀────────────── Judge ◀───── AwaitClaim ◀──── Grant, END
//!    │             ▲     Lost, taker dead    │ Lost    or ACTIVE
//!    │        Died │      Lost, silent       │
//!    └────────  Bereaved ◀───────────────────┤
//!                  │ Deadline                ▼            none left
//!                  └───────────────────▶ Release ──▶ Drain ──────▶ Done
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
//! - a taker that has said ACTIVE is never survived: nobody is orphaned by it.

mod freeze;
mod preload;
mod state;

use super::ledger::{Batch, ItemId, Presence};
pub use preload::{BATCH, FEW, Pace, Preload, ROUNDS, WINDOW};
pub use state::State;

/// Which deadline to arm; the driver knows how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// From the caller's connect to its HELLO.
    Hello,
    /// The whole preload.
    Preload,
    /// From PREPARE to DRAINED, and again from the hold to END.
    Freeze,
    /// From END to the taker's claim.
    Claim,
    /// For a refused or revoked taker to go away, or for a death to be seen.
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
    /// Read the lease; reports [`Outcome::Won`] or [`Outcome::Lost`].
    Revoke,
    /// Serve as if nothing had happened: forget a hold asked for, poll items, stop tracking.
    Resume(Cause),
    /// Tell the taker ABORT, as far as that is possible.
    Abort(Cause),
    /// Kill the taker by its pidfd. Only ever asked for when it cannot own.
    Kill,
    /// Close the channel and all that belongs to the attempt.
    HangUp,
    /// The taker owned and died: end the peers but these, which it never had; keep the
    /// listener, offer PATH again, serve.
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
    /// SIGTERM came at a moment when the outcome had to be awaited first.
    stopping: bool,
    pace: Pace,
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
            stopping: false,
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
            State::Judge(ledger, cause) => freeze::judge(ledger, cause, event, &mut actions),
            State::Bereaved(ledger) => freeze::bereaved(ledger, event, &mut actions),
            State::Rollback { killed } => rollback(killed, event, &mut actions),
            State::Drain => drain(event, &mut actions),
            State::Done => State::Done,
        };
        let donor = Donor { state, ..self };
        if donor.stopping {
            donor.settle_term(actions)
        } else {
            (donor, actions)
        }
    }

    /// The operator wants us to stop. Before HoldPeers that ends the attempt; from there on
    /// the outcome comes first, and whoever owns then is the one that stops.
    #[must_use]
    pub fn term(mut self) -> (Donor, Vec<Action>) {
        let actions = match &self.state {
            State::Idle => vec![Action::Stop],
            State::AcceptChannel | State::Preload(_) => {
                vec![Action::Abort(Cause::Stopping), Action::HangUp, Action::Stop]
            }
            State::Rollback { .. } => vec![Action::HangUp, Action::Stop],
            State::HoldPeers(_)
            | State::Sweep(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::Judge(..)
            | State::Bereaved(_) => {
                self.stopping = true;
                return (self, Vec::new());
            }
            State::Drain => vec![Action::Exit],
            // Released a moment ago, in the turn in which we leave. Whoever has stopped has
            // nobody to pass it on to.
            State::Done => vec![Action::PassTerm],
        };
        self.state = State::Done;
        (self, actions)
    }

    /// A TERM that waited for the outcome is answered by whoever owns now.
    fn settle_term(mut self, mut actions: Vec<Action>) -> (Donor, Vec<Action>) {
        match self.state {
            State::Idle | State::Rollback { .. } => {
                let (donor, mut stop) = self.term();
                actions.append(&mut stop);
                return (donor, actions);
            }
            // The taker owns, so it is the one to stop; and so are we with what is left here.
            State::Drain | State::Done => {
                self.stopping = false;
                actions.insert(0, Action::PassTerm);
                if self.state == State::Drain {
                    let (donor, mut leave) = self.term();
                    actions.append(&mut leave);
                    return (donor, actions);
                }
            }
            State::AcceptChannel
            | State::Preload(_)
            | State::HoldPeers(_)
            | State::Sweep(_)
            | State::SendFdArray(_)
            | State::Grant(_)
            | State::AwaitClaim(_)
            | State::Judge(..)
            | State::Bereaved(_) => {}
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
