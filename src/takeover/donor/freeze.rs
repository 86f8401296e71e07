//! The freeze: from PREPARE over the one commit point to release or rollback.
//!
//! Up to the grant a failure is simply answered by serving on. From the grant on every
//! failure, and ACTIVE just as well, is answered by reading the lease: the kernel lets one
//! read win, the taker's or ours, and only that says who owns. Once the taker does, its silence
//! means nothing: we wait, held and complete, until it says ACTIVE or is known to be dead.

use super::state::Wait;
use super::{Action, Cause, Event, Outcome, State, Step, give_up};
use crate::takeover::ledger::{Due, ItemId, Ledger};

pub(super) fn hold_peers(mut ledger: Ledger, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Changed(items) => {
            ledger.note_all(items);
            State::HoldPeers(ledger)
        }
        Event::Drained => {
            actions.push(Action::Hold);
            State::Sweep(ledger)
        }
        Event::Failure(cause) => give_up(cause, actions),
        Event::Ack { .. } | Event::Active => give_up(Cause::Strange, actions),
        Event::Caller | Event::Fits { .. } | Event::Writable | Event::Did(_) => {
            State::HoldPeers(ledger)
        }
    }
}

pub(super) fn sweep(
    mut ledger: Ledger,
    most: usize,
    event: Event,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Changed(items) => {
            ledger.note_all(items);
            State::Sweep(ledger)
        }
        Event::Did(Outcome::Held) => {
            actions.push(Action::Arm(Step::End));
            next_of_final_array(ledger, most, actions)
        }
        Event::Failure(cause) => give_up(cause, actions),
        Event::Ack { .. } | Event::Drained | Event::Active => give_up(Cause::Strange, actions),
        Event::Caller
        | Event::Fits { .. }
        | Event::Writable
        | Event::Did(
            Outcome::Sent(_)
            | Outcome::Blocked
            | Outcome::Granted
            | Outcome::EndSent
            | Outcome::Won
            | Outcome::Lost { .. }
            | Outcome::Unread
            | Outcome::Emptied,
        ) => State::Sweep(ledger),
    }
}

fn next_of_final_array(ledger: Ledger, most: usize, actions: &mut Vec<Action>) -> State {
    match ledger.next_batch(most) {
        Due::Batch(batch) => {
            actions.push(Action::Send(batch));
            State::SendFdArray(ledger)
        }
        Due::Nothing => {
            actions.push(Action::Grant);
            State::SendFdArray(ledger)
        }
        Due::NoSlots => give_up(Cause::Slots, actions),
    }
}

pub(super) fn send_fd_array(
    mut ledger: Ledger,
    most: usize,
    event: Event,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Did(Outcome::Sent(batch)) => {
            ledger.sent(&batch);
            next_of_final_array(ledger, most, actions)
        }
        Event::Writable => next_of_final_array(ledger, most, actions),
        Event::Did(Outcome::Granted) => {
            actions.push(Action::End);
            State::Grant(ledger)
        }
        // A grant that failed is here too: the lease never held 1, so there is nothing to
        // revoke, and to find it empty would not mean that the taker owns.
        Event::Failure(cause) => give_up(cause, actions),
        Event::Ack { .. } | Event::Drained | Event::Active => give_up(Cause::Strange, actions),
        // Nothing changes while nobody serves: the sweep's changes come before Held.
        Event::Changed(_)
        | Event::Caller
        | Event::Fits { .. }
        | Event::Did(
            Outcome::Blocked
            | Outcome::Held
            | Outcome::EndSent
            | Outcome::Won
            | Outcome::Lost { .. }
            | Outcome::Unread
            | Outcome::Emptied,
        ) => State::SendFdArray(ledger),
    }
}

pub(super) fn grant(ledger: Ledger, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Writable => {
            actions.push(Action::End);
            State::Grant(ledger)
        }
        Event::Did(Outcome::EndSent) => {
            actions.push(Action::Arm(Step::Claim));
            State::AwaitClaim(ledger)
        }
        Event::Failure(cause) => ask_lease(ledger, cause, actions),
        Event::Ack { .. } | Event::Drained | Event::Active => {
            ask_lease(ledger, Cause::Strange, actions)
        }
        Event::Changed(_)
        | Event::Caller
        | Event::Fits { .. }
        | Event::Did(
            Outcome::Sent(_)
            | Outcome::Blocked
            | Outcome::Held
            | Outcome::Granted
            | Outcome::Won
            | Outcome::Lost { .. }
            | Outcome::Unread
            | Outcome::Emptied,
        ) => State::Grant(ledger),
    }
}

pub(super) fn await_claim(ledger: Ledger, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        // Whatever the taker says, or does not say: the lease decides.
        Event::Active => ask_lease(ledger, Cause::Liar, actions),
        Event::Failure(cause) => ask_lease(ledger, cause, actions),
        Event::Ack { .. } | Event::Drained => ask_lease(ledger, Cause::Strange, actions),
        Event::Changed(_)
        | Event::Caller
        | Event::Fits { .. }
        | Event::Writable
        | Event::Did(_) => State::AwaitClaim(ledger),
    }
}

fn ask_lease(ledger: Ledger, cause: Cause, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Revoke);
    State::Judge(Wait::after(ledger, cause), cause)
}

pub(super) fn judge(
    mut wait: Wait,
    cause: Cause,
    event: Event,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Did(Outcome::Won) => give_up(cause, actions),
        // It has said ACTIVE, so it owned PATH and may have been taken over from in its turn
        // while we slept; the peers can be somebody else's by now. They were never ours again.
        Event::Did(Outcome::Lost { .. }) if cause == Cause::Liar => release(&wait.ledger, actions),
        Event::Did(Outcome::Lost { dead }) => {
            wait.is_dead |= dead;
            if !wait.is_over() {
                actions.push(Action::Wait);
            }
            wait_on(wait, actions)
        }
        Event::Did(Outcome::Unread) => {
            actions.push(Action::Arm(Step::Look));
            State::Judge(wait, cause)
        }
        // These come only after an unread lease, and it is asked again.
        Event::Active => {
            actions.push(Action::Revoke);
            State::Judge(wait, Cause::Liar)
        }
        Event::Failure(news) => {
            wait.hear(news);
            actions.push(Action::Revoke);
            State::Judge(wait, cause)
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Changed(_)
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Did(
            Outcome::Sent(_)
            | Outcome::Blocked
            | Outcome::Held
            | Outcome::Granted
            | Outcome::EndSent
            | Outcome::Emptied,
        ) => State::Judge(wait, cause),
    }
}

pub(super) fn await_active(mut wait: Wait, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Active => release(&wait.ledger, actions),
        // Nobody is waited for without being looked at now and then, and that is all.
        Event::Failure(news @ (Cause::Eof | Cause::Died | Cause::Deadline)) => {
            wait.hear(news);
            wait_on(wait, actions)
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Changed(_)
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Failure(
            Cause::Failed
            | Cause::Strange
            | Cause::Slots
            | Cause::Liar
            | Cause::Resources
            | Cause::Stopping,
        )
        | Event::Did(_) => State::AwaitActive(wait),
    }
}

fn wait_on(wait: Wait, actions: &mut Vec<Action>) -> State {
    if wait.is_over() {
        return orphaned(&wait.ledger, actions);
    }
    actions.push(Action::Arm(Step::Look));
    State::AwaitActive(wait)
}

/// The taker owns, and we were told twice to stop: it is sent the same, and we leave.
pub(super) fn leave(ledger: &Ledger, actions: &mut Vec<Action>) -> State {
    if let State::Drain = release(ledger, actions) {
        actions.push(Action::Exit);
    }
    State::Done
}

fn orphaned(ledger: &Ledger, actions: &mut Vec<Action>) -> State {
    // What the taker declined it never had: those clients need not share its end.
    let declined = ledger.declined().collect();
    actions.extend([Action::Disarm, Action::Orphan(declined)]);
    State::Idle
}

fn release(ledger: &Ledger, actions: &mut Vec<Action>) -> State {
    let declined: Vec<ItemId> = ledger.declined().collect();
    let none = declined.is_empty();
    actions.extend([Action::Disarm, Action::Release(declined)]);
    if none {
        actions.push(Action::Exit);
        return State::Done;
    }
    actions.extend([Action::HangUp, Action::Arm(Step::Drain)]);
    State::Drain
}
