//! Preload: copies go out in rounds while the donor serves on.
//!
//! A round tells the closed ids, then passes once over what was owed when it began; what
//! changes behind it is owed to the next. Otherwise a few items that change all the time
//! would be sent again and again and leave the others for the freeze, and so would closed
//! ids if they led every batch. The first batch goes alone until its ACK, so that a taker which does
//! not take is found out at the price of one batch; then at most [`WINDOW`] batches are
//! unacknowledged. Rounds end when little is left ([`FEW`]), when they do not converge, or
//! at [`ROUNDS`]; the preload's deadline ends them too. Then the taker is told to PREPARE,
//! and what is left goes in the freeze.

use super::{Action, Cause, Event, Outcome, State, Step, give_up};
use crate::takeover::ledger::{Ahead, Due, Ledger};

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

/// The bounds of a preload: [`BATCH`], [`WINDOW`], [`ROUNDS`] and [`FEW`], but in an
/// exploration, whose few items must meet each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pace {
    /// See [`BATCH`].
    pub batch: usize,
    /// See [`WINDOW`].
    pub window: u32,
    /// See [`ROUNDS`].
    pub rounds: u32,
    /// See [`FEW`].
    pub few: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            batch: BATCH,
            window: WINDOW,
            rounds: ROUNDS,
            few: FEW,
        }
    }
}

/// Progress of a preload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preload {
    pace: Pace,
    ledger: Ledger,
    /// The items that there were at the start have been reported.
    begun: bool,
    /// Rounds that are complete.
    rounds: u32,
    /// The round has closed ids to tell before it sends items.
    leading: bool,
    /// The items that the round has still to pass.
    ahead: Ahead,
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
    pub(super) fn new(slots: usize, pace: Pace) -> Preload {
        Preload {
            pace,
            ledger: Ledger::new(slots),
            begun: false,
            rounds: 0,
            leading: false,
            ahead: Ahead::EVERYTHING,
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
                self.ledger.note_all(items);
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
                self.ahead.pass(&batch);
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
                | Outcome::Unread
                | Outcome::Emptied,
            ) => State::Preload(self),
        }
    }

    fn begin_round(&mut self) {
        self.size = self.ledger.owed();
        self.leading = true;
        self.ahead = self.ledger.ahead();
    }

    /// What the round sends next.
    fn next_of_round(&mut self) -> Due {
        let closed = self.ledger.next_closed(self.pace.batch);
        if let (true, Some(batch)) = (self.leading, &closed) {
            return Due::Batch(batch.clone());
        }
        self.leading = false;
        match (self.ledger.next_items(&self.ahead, self.pace.batch), closed) {
            // The closed ones may be those that take the slots up.
            (Due::NoSlots, Some(batch)) => Due::Batch(batch),
            (due, _) => due,
        }
    }

    /// Sends what the window allows, or ends the round, or asks the taker to settle.
    fn go_on(mut self, actions: &mut Vec<Action>) -> State {
        if self.sending || self.blocked || !self.begun {
            return State::Preload(self);
        }
        let mut due = self.next_of_round();
        if due == Due::Nothing {
            if self.unacknowledged > 0 {
                return State::Preload(self);
            }
            self.rounds += 1;
            let owed = self.ledger.owed();
            // More than three quarters left: changes come as fast as they are sent.
            let hopeless = self.rounds > 1 && owed > self.size / 4 * 3;
            if owed <= self.pace.few || hopeless || self.rounds >= self.pace.rounds {
                return self.prepare(actions);
            }
            self.begin_round();
            due = self.next_of_round();
        }
        let window = if self.flowing { self.pace.window } else { 1 };
        match due {
            Due::Batch(batch) if self.unacknowledged < window => {
                self.sending = true;
                actions.push(Action::Send(batch));
                State::Preload(self)
            }
            Due::Batch(_) | Due::Nothing => State::Preload(self),
            Due::NoSlots => give_up(Cause::Slots, actions),
        }
    }

    fn prepare(self, actions: &mut Vec<Action>) -> State {
        actions.extend([Action::Arm(Step::Freeze), Action::Prepare]);
        State::HoldPeers(self.ledger)
    }
}
