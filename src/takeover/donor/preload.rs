//! Preload: copies go out in rounds while the donor serves on.
//!
//! A round sends what was owed at its beginning, closed ids first; what changes meanwhile is
//! owed to the next one. The first batch goes alone until its ACK, so that a taker which does
//! not take is found out at the price of one batch; then at most [`WINDOW`] batches are
//! unacknowledged. Rounds end when little is left ([`FEW`]), when they do not converge, or
//! at [`ROUNDS`]; the preload's deadline ends them too. Then the taker is told to PREPARE,
//! and what is left goes in the freeze.

use super::{Action, Cause, Event, Outcome, State, Step, give_up};
use crate::takeover::ledger::{Due, Ledger};

/// Items in one batch. Passing 64 at a time costs as little per fd as 250 do, and keeps the
/// turn of a serving donor short.
pub const BATCH: usize = 64;
/// Batches that may be unacknowledged, so that an unprivileged donor stays far below its
/// limit of fds in flight (unix(7), `ETOOMANYREFS`) even at the usual soft limit of 1024.
pub const WINDOW: u32 = 4;
/// Rounds of a preload. A donor busier than the channel is fast would go on for ever.
pub const ROUNDS: u32 = 8;
/// So few owed items that one more round would not make the freeze shorter.
pub const FEW: usize = BATCH;

/// Progress of a preload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preload {
    ledger: Ledger,
    /// The items that there were at the start have been reported.
    begun: bool,
    /// Rounds that are complete.
    rounds: u32,
    /// Batches that the round may still send before it counts as complete.
    left: usize,
    /// Items owed when the round began.
    size: usize,
    unacknowledged: u32,
    /// The first batch has been acknowledged, so the taker does take.
    flowing: bool,
    /// A batch did not fit; wait for room.
    blocked: bool,
    /// A batch was asked for and its outcome is awaited.
    sending: bool,
}

impl Preload {
    pub(super) fn new(slots: usize) -> Preload {
        Preload {
            ledger: Ledger::new(slots),
            begun: false,
            rounds: 0,
            left: 0,
            size: 0,
            unacknowledged: 0,
            flowing: false,
            blocked: false,
            sending: false,
        }
    }

    /// Rounds that are complete.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn step(mut self, event: Event, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Changed(items) => {
                for (id, presence) in items {
                    self.ledger.note(id, presence);
                }
                if self.begun {
                    return State::Preload(self);
                }
                self.begun = true;
                self.begin_round();
                self.go_on(actions)
            }
            Event::Did(Outcome::Sent(batch)) => {
                self.ledger.sent(&batch);
                self.sending = false;
                self.unacknowledged += 1;
                self.left = self.left.saturating_sub(1);
                self.go_on(actions)
            }
            Event::Did(Outcome::Blocked) => {
                self.sending = false;
                self.blocked = true;
                State::Preload(self)
            }
            Event::Writable => {
                self.blocked = false;
                self.go_on(actions)
            }
            Event::Ack { declined } => {
                let Some(unacknowledged) = self.unacknowledged.checked_sub(1) else {
                    return give_up(Cause::Strange, actions);
                };
                self.unacknowledged = unacknowledged;
                self.flowing = true;
                self.ledger.decline(&declined);
                self.go_on(actions)
            }
            // Time is up. A taker that has everything once and owes no answer can go on with
            // what is left in the freeze; a silent one cannot.
            Event::Failure(Cause::Deadline) if self.rounds > 0 && self.unacknowledged == 0 => {
                self.prepare(actions)
            }
            Event::Failure(cause) => give_up(cause, actions),
            Event::Drained | Event::Active => give_up(Cause::Strange, actions),
            Event::Caller
            | Event::Fits { .. }
            | Event::Did(
                Outcome::Held
                | Outcome::Granted
                | Outcome::EndSent
                | Outcome::Won
                | Outcome::Lost { .. }
                | Outcome::Emptied,
            ) => State::Preload(self),
        }
    }

    fn begin_round(&mut self) {
        self.size = self.ledger.owed();
        self.left = self.size.div_ceil(BATCH);
    }

    /// Sends what the window allows, or ends the round, or asks the taker to settle.
    fn go_on(mut self, actions: &mut Vec<Action>) -> State {
        if self.sending || self.blocked || !self.begun {
            return State::Preload(self);
        }
        if self.left == 0 || self.ledger.owed() == 0 {
            if self.unacknowledged > 0 {
                return State::Preload(self);
            }
            self.rounds += 1;
            let owed = self.ledger.owed();
            // More than three quarters left: changes come as fast as they are sent.
            let hopeless = self.rounds > 1 && owed > self.size / 4 * 3;
            if owed <= FEW || hopeless || self.rounds >= ROUNDS {
                return self.prepare(actions);
            }
            self.begin_round();
        }
        let window = if self.flowing { WINDOW } else { 1 };
        if self.unacknowledged >= window {
            return State::Preload(self);
        }
        match self.ledger.next_batch(BATCH) {
            Due::Batch(batch) => {
                self.sending = true;
                actions.push(Action::Send(batch));
                State::Preload(self)
            }
            Due::Nothing => State::Preload(self),
            Due::NoSlots => give_up(Cause::Slots, actions),
        }
    }

    fn prepare(self, actions: &mut Vec<Action>) -> State {
        actions.extend([Action::Arm(Step::Freeze), Action::Prepare]);
        State::HoldPeers(self.ledger)
    }
}
