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

use super::donor::{Action, Cause, Event, Outcome, State, Step, give_up};
use super::ledger::{Ahead, Due, Ledger};

/// Items in one batch. Passing 64 at a time costs as little per fd as 250 do, and keeps the
/// turn of a serving donor short.
pub const BATCH: usize = 64;
/// Batches that may be unacknowledged, so that an unprivileged donor stays far below its
/// limit of fds in flight (unix(7), `ETOOMANYREFS`) even at the usual soft limit of 1024.
pub const WINDOW: usize = 4;
/// Rounds of a preload. A donor busier than the channel is fast would go on for ever.
pub const ROUNDS: u32 = 8;
/// So few owed items that one more round would hardly make the freeze shorter: each of them costs
/// it some 0.6 µs, and a round of few takes the time of one answer.
pub const FEW: usize = 8;

/// The bounds of a preload: [`BATCH`], [`WINDOW`], [`ROUNDS`] and [`FEW`], but in an
/// exploration, whose few items must meet each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// See [`BATCH`].
    pub batch: usize,
    /// See [`WINDOW`].
    pub window: usize,
    /// See [`ROUNDS`].
    pub rounds: u32,
    /// See [`FEW`].
    pub few: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
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
    limits: Limits,
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
    /// The first batch has been acknowledged, so the taker does take.
    flowing: bool,
    /// A batch did not fit; wait for room.
    blocked: bool,
    /// A batch was asked for and its outcome is awaited.
    sending: bool,
}

impl Preload {
    pub(super) fn new(slots: usize, limits: Limits) -> Preload {
        Preload {
            limits,
            ledger: Ledger::new(slots),
            begun: false,
            rounds: 0,
            leading: false,
            ahead: Ahead::EVERYTHING,
            size: 0,
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

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether it may end here: the taker has everything once and owes no answer.
    pub(super) fn may_end(&self) -> bool {
        self.rounds > 0 && self.ledger.is_acknowledged()
    }

    pub(super) fn advance(mut self, event: Event, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Changed(items) => {
                self.ledger.note_all(items);
                if self.begun {
                    return State::Preload(self);
                }
                self.begun = true;
                self.begin_round();
            }
            Event::Did(Outcome::Sent { batch, number }) => {
                self.sending = false;
                self.ledger.sent(&batch);
                self.ledger.await_ack(number);
                self.ahead.pass(&batch);
            }
            Event::Did(Outcome::Blocked) => {
                self.sending = false;
                self.blocked = true;
                return State::Preload(self);
            }
            Event::Writable => self.blocked = false,
            Event::Declined { items, kinds } => {
                self.ledger.decline(&items, &kinds);
                return State::Preload(self);
            }
            Event::Ack { number } => {
                if !self.ledger.acknowledge(number) {
                    return give_up(Cause::Protocol, actions);
                }
                self.flowing = true;
            }
            // An echo of what is over.
            _ => return State::Preload(self),
        }
        self.go_on(actions)
    }

    fn begin_round(&mut self) {
        self.size = self.ledger.owed();
        self.leading = true;
        self.ahead = self.ledger.ahead();
    }

    /// What the round sends next.
    fn next_of_round(&mut self) -> Due {
        let closed = self.ledger.next_closed(self.limits.batch);
        if let (true, Some(batch)) = (self.leading, &closed) {
            return Due::Batch(batch.clone());
        }
        self.leading = false;
        match (
            self.ledger.next_items(&self.ahead, self.limits.batch),
            closed,
        ) {
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
            if !self.ledger.is_acknowledged() {
                return State::Preload(self);
            }
            self.rounds += 1;
            let owed = self.ledger.owed();
            // More than three quarters left: changes come as fast as they are sent.
            let hopeless = self.rounds > 1 && owed > self.size / 4 * 3;
            if owed <= self.limits.few || hopeless || self.rounds >= self.limits.rounds {
                return self.end(actions);
            }
            self.begin_round();
            due = self.next_of_round();
        }
        let window = if self.flowing { self.limits.window } else { 1 };
        match due {
            Due::Batch(batch) if self.ledger.unacknowledged() < window => {
                self.sending = true;
                actions.push(Action::Send(batch));
                State::Preload(self)
            }
            Due::Batch(_) | Due::Nothing => State::Preload(self),
            Due::NoSlots => give_up(Cause::FdLimit, actions),
        }
    }

    /// What is left goes in the freeze.
    pub(super) fn end(self, actions: &mut Vec<Action>) -> State {
        actions.extend([Action::Arm(Step::Freeze), Action::Prepare]);
        State::HoldPeers(self.ledger)
    }
}
