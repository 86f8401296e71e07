//! The donor: the running process that hands everything over. A pure state machine.
//!
//! ```text
//!            Caller              Fits                  little left, or bounds reached
//!   Idle ──────────▶ AcceptChannel ─────▶ Preload ─────────────────────▶ HoldPeers
//!    ▲  ▲                 │ refused          │                               │ Drained
//!    │  └─────────────────┘                  │ fail, eof,                    ▼
//!    │                                       │ deadline,                   Sweep   last turn
//!    │           gone                        ▼ death                         │ Held
//!    ├───────────────────────────────── Rollback ◀───────────────────────────┤
//!    │                                       ▲                               ▼
//!    │                                       │ Won                      SendFdArray
//!    │ peers ended                           │                               │ all sent
//!    └──────── (orphaned) ◀────────────── Judge ◀───── AwaitClaim ◀──── Grant, END
//!                       Lost, taker dead     │ Lost
//!                                            ▼            none left
//!                                         Release ──▶ Drain ──────▶ Done
//! ```
//!
//! [`Donor::step`] is total: every event has an answer in every state and there is no
//! wildcard arm, so that a new event has to be thought about at each place. It touches no
//! socket, clock or descriptor: the driver performs the actions in order and reports their
//! outcome as events, after the whole list was performed.
//!
//! Invariants (explored exhaustively by `tests/model.rs`):
//! - peers are served in Idle, AcceptChannel, Preload, HoldPeers, Sweep and Rollback, and by
//!   nobody here from [`Event::Held`] until [`Action::Resume`];
//! - once [`Action::Grant`] was asked for, only the outcome of [`Action::Revoke`] leads on:
//!   no message, silence or death of the taker decides who owns;
//! - END is sent at most once a lease, and only after the grant.

use super::ledger::{Batch, ItemId, Ledger, Presence};

/// Items in one batch. Passing 64 at a time costs as little per fd as 250 do, and keeps the
/// turn of a serving donor short.
pub const BATCH: usize = 64;
/// Batches that may be unacknowledged, so that an unprivileged donor stays far below its
/// limit of fds in flight (unix(7), `ETOOMANYREFS`) even at the usual soft limit of 1024.
pub const WINDOW: u32 = 4;
/// Rounds of a preload. Each resends what changed during the one before; a donor busier than
/// the channel is fast would otherwise go on for ever.
pub const ROUNDS: u32 = 8;
/// So few owed items that one more round would not make the freeze shorter.
pub const FEW: usize = BATCH;

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
    /// For a refused or revoked taker to go away.
    Gone,
    /// For declined items to end.
    Drain,
}

/// Why a takeover did not come about. The donor serves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The taker said that it cannot.
    Failed,
    /// The taker closed the channel.
    Eof,
    /// The taker's process has died.
    Died,
    /// It did not answer in time.
    Deadline,
    /// It broke the protocol, or the channel itself failed.
    Strange,
    /// Its descriptor slots do not suffice.
    Slots,
    /// We were told to stop.
    Stopping,
    /// It said ACTIVE without having claimed.
    Liar,
    /// Our own kernel refused an eventfd or a message.
    Resources,
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
    /// Its HELLO does not fit; the driver has answered REFUSE.
    Unfit,
    /// Items were opened, changed or closed. Comes before any event that may lead to a batch.
    Changed(Vec<(ItemId, Presence)>),
    /// The batch asked for is in the kernel.
    Sent(Batch),
    /// The batch asked for did not fit into the channel; nothing of it was sent.
    Blocked,
    /// The channel has room again.
    Writable,
    /// The taker has taken the oldest unacknowledged batch, but for these.
    Ack {
        /// Items that it does not take.
        declined: Vec<ItemId>,
    },
    /// The taker's set is empty of stale readiness.
    Drained,
    /// The taker gives up.
    Fail,
    /// The taker says that it serves.
    Active,
    /// A record that is damaged or not allowed here, or a channel that cannot send.
    Strange,
    /// The channel is at its end.
    Eof,
    /// The taker's process has died.
    Died,
    /// The last turn is over; no peer is polled any more.
    Held,
    /// The lease holds 1.
    Granted,
    /// The lease could not be written.
    NotGranted,
    /// END is in the kernel.
    EndSent,
    /// Our read of the lease got the 1: the taker can never claim.
    Won,
    /// Our read found the lease empty: the taker owns.
    Lost {
        /// Its process is dead already.
        dead: bool,
    },
    /// The deadline armed last has passed.
    Deadline,
    /// No declined item is left.
    Emptied,
    /// The operator wants us to stop.
    Term,
}

/// What the driver is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Arm this deadline in place of the one before.
    Arm(Step),
    /// No deadline.
    Disarm,
    /// Make a lease, start tracking changes, send WELCOME with the lease. Reports all items
    /// as [`Event::Changed`], or [`Event::Strange`].
    Welcome,
    /// Send PREPARE.
    Prepare,
    /// Send this batch; reports [`Event::Sent`], [`Event::Blocked`] or [`Event::Strange`].
    Send(Batch),
    /// One more complete turn, then stop polling items; reports [`Event::Held`].
    Hold,
    /// Write 1 to the lease; reports [`Event::Granted`] or [`Event::NotGranted`].
    Grant,
    /// Send END; reports [`Event::EndSent`], [`Event::Blocked`] or [`Event::Strange`].
    End,
    /// Read the lease; reports [`Event::Won`] or [`Event::Lost`].
    Revoke,
    /// Serve as if nothing had happened: forget a hold asked for, poll items, stop tracking.
    Resume(Cause),
    /// Tell the taker ABORT, as far as that is possible.
    Abort(Cause),
    /// Kill the taker by its pidfd. Only ever asked for when it cannot own.
    Kill,
    /// Close the channel and all that belongs to the attempt.
    HangUp,
    /// The taker owned and died: end the peers, keep the listener, offer PATH again, serve.
    Orphan,
    /// Close the items' epoll set as a whole, then every item but these; never `shutdown`.
    Release(Vec<ItemId>),
    /// Send the taker the SIGTERM that we got.
    PassTerm,
    /// Stop the service: we own and were told to.
    Stop,
    /// Leave at once, successfully.
    Exit,
}

/// Where the donor is. See the file's diagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Serves; nobody has called.
    Idle,
    /// Serves; waits for a HELLO.
    AcceptChannel,
    /// Serves; sends copies.
    Preload(Preload),
    /// Serves; PREPARE is out.
    HoldPeers(Ledger),
    /// Serves its last turn.
    Sweep(Ledger),
    /// Frozen; sends the final array.
    SendFdArray(Ledger),
    /// Frozen; the lease is or may be granted, END is not in the kernel yet.
    Grant(Ledger),
    /// Frozen; END is in the kernel.
    AwaitClaim(Ledger),
    /// Frozen; our read of the lease is under way.
    Judge(Ledger, Cause),
    /// Serves; waits for the unsuccessful taker to go away.
    Rollback {
        /// It was killed, since it would not.
        killed: bool,
    },
    /// Serves only the items that were declined.
    Drain,
    /// Nothing is left to do.
    Done,
}

/// Progress of a preload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preload {
    ledger: Ledger,
    slots: usize,
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
}

/// See the file's own description.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Donor {
    state: State,
    /// SIGTERM came at a moment when the outcome had to be awaited first.
    stopping: bool,
}

impl Default for Donor {
    fn default() -> Self {
        Donor { state: State::Idle, stopping: false }
    }
}

impl Donor {
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
    pub fn step(mut self, event: Event) -> (Donor, Vec<Action>) {
        let mut actions = Vec::new();
        self.state = match self.state {
            State::Idle => idle(event, &mut actions),
            State::AcceptChannel => accept_channel(event, &mut actions),
            State::Preload(preload) => preload.step(event, &mut actions),
            State::HoldPeers(ledger) => hold_peers(ledger, event, &mut self.stopping, &mut actions),
            State::Sweep(ledger) => sweep(ledger, event, &mut self.stopping, &mut actions),
            State::SendFdArray(ledger) => {
                send_fd_array(ledger, event, &mut self.stopping, &mut actions)
            }
            State::Grant(ledger) => grant(ledger, event, &mut self.stopping, &mut actions),
            State::AwaitClaim(ledger) => {
                await_claim(ledger, event, &mut self.stopping, &mut actions)
            }
            State::Judge(ledger, cause) => {
                judge(ledger, cause, event, &mut self.stopping, &mut actions)
            }
            State::Rollback { killed } => rollback(killed, event, &mut actions),
            State::Drain => drain(event, &mut actions),
            State::Done => State::Done,
        };
        // A TERM that waited for the outcome is answered by whoever owns now.
        if self.stopping && matches!(self.state, State::Idle | State::Rollback { .. }) {
            self.stopping = false;
            actions.push(Action::HangUp);
            actions.push(Action::Stop);
            self.state = State::Done;
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
        Event::Term => {
            actions.push(Action::Stop);
            State::Done
        }
        // Late echoes of an attempt that is over.
        Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Fail
        | Event::Active
        | Event::Strange
        | Event::Eof
        | Event::Died
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Deadline
        | Event::Emptied => State::Idle,
    }
}

fn accept_channel(event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Fits { slots } => {
            actions.extend([Action::Arm(Step::Preload), Action::Welcome]);
            State::Preload(Preload::new(slots))
        }
        Event::Term => {
            actions.extend([Action::Abort(Cause::Stopping), Action::HangUp, Action::Stop]);
            State::Done
        }
        // It holds nothing of ours, so there is nothing to wait for.
        Event::Unfit
        | Event::Fail
        | Event::Strange
        | Event::Eof
        | Event::Died
        | Event::Deadline
        | Event::Ack { .. }
        | Event::Drained
        | Event::Active => {
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Caller
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::AcceptChannel,
    }
}

impl Preload {
    fn new(slots: usize) -> Preload {
        Preload {
            ledger: Ledger::default(),
            slots,
            rounds: 0,
            left: 0,
            size: 0,
            unacknowledged: 0,
            flowing: false,
            blocked: false,
        }
    }

    fn step(mut self, event: Event, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Changed(items) => {
                let first = self.size == 0;
                items.into_iter().for_each(|(id, presence)| self.ledger.note(id, presence));
                if first {
                    self.begin_round();
                    return self.go_on(actions);
                }
                State::Preload(self)
            }
            Event::Sent(batch) => {
                self.ledger.sent(&batch);
                self.unacknowledged += 1;
                self.left = self.left.saturating_sub(1);
                self.go_on(actions)
            }
            Event::Blocked => {
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
            Event::Deadline => {
                // Time is up. A taker that has everything once and owes no answer can go on
                // with what is left in the freeze; a silent one cannot.
                if self.rounds > 0 && self.unacknowledged == 0 {
                    return self.prepare(actions);
                }
                give_up(Cause::Deadline, actions)
            }
            Event::Fail => give_up(Cause::Failed, actions),
            Event::Eof => give_up(Cause::Eof, actions),
            Event::Died => give_up(Cause::Died, actions),
            Event::Strange | Event::Drained | Event::Active => give_up(Cause::Strange, actions),
            Event::Term => {
                actions.extend([Action::Abort(Cause::Stopping), Action::HangUp, Action::Stop]);
                State::Done
            }
            Event::Caller
            | Event::Fits { .. }
            | Event::Unfit
            | Event::Held
            | Event::Granted
            | Event::NotGranted
            | Event::EndSent
            | Event::Won
            | Event::Lost { .. }
            | Event::Emptied => State::Preload(self),
        }
    }

    fn begin_round(&mut self) {
        self.size = self.ledger.owed();
        self.left = self.size.div_ceil(BATCH);
    }

    /// Sends what the window allows, or ends the round, or asks the taker to settle.
    fn go_on(mut self, actions: &mut Vec<Action>) -> State {
        if self.left == 0 || self.ledger.owed() == 0 {
            if self.unacknowledged > 0 {
                return State::Preload(self);
            }
            self.rounds += 1;
            let owed = self.ledger.owed();
            // More than three quarters left: changes come as fast as they are sent.
            let hopeless = owed > self.size / 4 * 3 && self.rounds > 1;
            if owed <= FEW || hopeless || self.rounds >= ROUNDS {
                return self.prepare(actions);
            }
            self.begin_round();
        }
        let room = if self.flowing { WINDOW } else { 1 };
        if self.blocked || self.unacknowledged >= room {
            return State::Preload(self);
        }
        let Some(batch) = self.ledger.next_batch(BATCH) else {
            return State::Preload(self);
        };
        let more = match &batch {
            Batch::Closed(_) => 0,
            Batch::Items { new, .. } => new.len(),
        };
        if self.ledger.copies() + more > self.slots {
            return give_up(Cause::Slots, actions);
        }
        actions.push(Action::Send(batch));
        State::Preload(self)
    }

    fn prepare(self, actions: &mut Vec<Action>) -> State {
        actions.extend([Action::Arm(Step::Freeze), Action::Prepare]);
        State::HoldPeers(self.ledger)
    }
}

/// Before the grant: the taker cannot own, so it is enough to go on. It may hold copies.
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

fn hold_peers(
    mut ledger: Ledger,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Changed(items) => {
            items.into_iter().for_each(|(id, presence)| ledger.note(id, presence));
            State::HoldPeers(ledger)
        }
        Event::Drained => {
            actions.push(Action::Hold);
            State::Sweep(ledger)
        }
        Event::Term => {
            *stopping = true;
            State::HoldPeers(ledger)
        }
        Event::Fail => give_up(Cause::Failed, actions),
        Event::Eof => give_up(Cause::Eof, actions),
        Event::Died => give_up(Cause::Died, actions),
        Event::Deadline => give_up(Cause::Deadline, actions),
        Event::Strange | Event::Ack { .. } | Event::Active => give_up(Cause::Strange, actions),
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::HoldPeers(ledger),
    }
}

fn sweep(
    mut ledger: Ledger,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Changed(items) => {
            items.into_iter().for_each(|(id, presence)| ledger.note(id, presence));
            State::Sweep(ledger)
        }
        Event::Held => {
            actions.push(Action::Arm(Step::Freeze));
            next_of_final_array(ledger, actions)
        }
        Event::Term => {
            *stopping = true;
            State::Sweep(ledger)
        }
        Event::Fail => give_up(Cause::Failed, actions),
        Event::Eof => give_up(Cause::Eof, actions),
        Event::Died => give_up(Cause::Died, actions),
        Event::Deadline => give_up(Cause::Deadline, actions),
        Event::Strange | Event::Ack { .. } | Event::Drained | Event::Active => {
            give_up(Cause::Strange, actions)
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::Sweep(ledger),
    }
}

fn next_of_final_array(ledger: Ledger, actions: &mut Vec<Action>) -> State {
    match ledger.next_batch(BATCH) {
        Some(batch) => {
            actions.push(Action::Send(batch));
            State::SendFdArray(ledger)
        }
        None => {
            actions.push(Action::Grant);
            State::Grant(ledger)
        }
    }
}

fn send_fd_array(
    mut ledger: Ledger,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Sent(batch) => {
            ledger.sent(&batch);
            next_of_final_array(ledger, actions)
        }
        Event::Writable => next_of_final_array(ledger, actions),
        Event::Term => {
            *stopping = true;
            State::SendFdArray(ledger)
        }
        Event::Fail => give_up(Cause::Failed, actions),
        Event::Eof => give_up(Cause::Eof, actions),
        Event::Died => give_up(Cause::Died, actions),
        Event::Deadline => give_up(Cause::Deadline, actions),
        Event::Strange | Event::Ack { .. } | Event::Drained | Event::Active => {
            give_up(Cause::Strange, actions)
        }
        // Nothing changes while nobody serves; a Changed here would be late news of the
        // sweep, which the driver reports before Held.
        Event::Changed(_)
        | Event::Blocked
        | Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::SendFdArray(ledger),
    }
}

fn grant(
    ledger: Ledger,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Granted | Event::Writable => {
            actions.push(Action::End);
            State::Grant(ledger)
        }
        Event::NotGranted => give_up(Cause::Resources, actions),
        Event::EndSent => {
            actions.push(Action::Arm(Step::Claim));
            State::AwaitClaim(ledger)
        }
        Event::Term => {
            *stopping = true;
            State::Grant(ledger)
        }
        Event::Fail => ask_lease(ledger, Cause::Failed, actions),
        Event::Eof => ask_lease(ledger, Cause::Eof, actions),
        Event::Died => ask_lease(ledger, Cause::Died, actions),
        Event::Deadline => ask_lease(ledger, Cause::Deadline, actions),
        Event::Strange | Event::Ack { .. } | Event::Drained | Event::Active => {
            ask_lease(ledger, Cause::Strange, actions)
        }
        Event::Blocked
        | Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Held
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::Grant(ledger),
    }
}

fn await_claim(
    ledger: Ledger,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        // Whatever the taker says, or does not say: the lease decides.
        Event::Active => ask_lease(ledger, Cause::Liar, actions),
        Event::Fail => ask_lease(ledger, Cause::Failed, actions),
        Event::Eof => ask_lease(ledger, Cause::Eof, actions),
        Event::Died => ask_lease(ledger, Cause::Died, actions),
        Event::Deadline => ask_lease(ledger, Cause::Deadline, actions),
        Event::Strange | Event::Ack { .. } | Event::Drained => {
            ask_lease(ledger, Cause::Strange, actions)
        }
        Event::Term => {
            *stopping = true;
            State::AwaitClaim(ledger)
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::AwaitClaim(ledger),
    }
}

fn ask_lease(ledger: Ledger, cause: Cause, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Revoke);
    State::Judge(ledger, cause)
}

fn judge(
    ledger: Ledger,
    cause: Cause,
    event: Event,
    stopping: &mut bool,
    actions: &mut Vec<Action>,
) -> State {
    match event {
        Event::Won => give_up(cause, actions),
        Event::Lost { dead: true } => {
            actions.extend([Action::Disarm, Action::HangUp, Action::Orphan]);
            State::Idle
        }
        Event::Lost { dead: false } => {
            if std::mem::take(stopping) {
                actions.push(Action::PassTerm);
            }
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
        Event::Term => {
            *stopping = true;
            State::Judge(ledger, cause)
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Fail
        | Event::Active
        | Event::Strange
        | Event::Eof
        | Event::Died
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Deadline
        | Event::Emptied => State::Judge(ledger, cause),
    }
}

fn rollback(killed: bool, event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        // A taker closes its copies before the channel, so its end is theirs.
        Event::Eof | Event::Died => {
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Deadline if killed => {
            // Not even SIGKILL: it sleeps in the kernel. Its copies can do no I/O.
            actions.extend([Action::Disarm, Action::HangUp]);
            State::Idle
        }
        Event::Deadline => {
            actions.extend([Action::Kill, Action::Arm(Step::Gone)]);
            State::Rollback { killed: true }
        }
        Event::Term => {
            actions.extend([Action::HangUp, Action::Stop]);
            State::Done
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Fail
        | Event::Active
        | Event::Strange
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. }
        | Event::Emptied => State::Rollback { killed },
    }
}

fn drain(event: Event, actions: &mut Vec<Action>) -> State {
    match event {
        Event::Emptied | Event::Deadline | Event::Term => {
            actions.push(Action::Exit);
            State::Done
        }
        Event::Caller
        | Event::Fits { .. }
        | Event::Unfit
        | Event::Changed(_)
        | Event::Sent(_)
        | Event::Blocked
        | Event::Writable
        | Event::Ack { .. }
        | Event::Drained
        | Event::Fail
        | Event::Active
        | Event::Strange
        | Event::Eof
        | Event::Died
        | Event::Held
        | Event::Granted
        | Event::NotGranted
        | Event::EndSent
        | Event::Won
        | Event::Lost { .. } => State::Drain,
    }
}
