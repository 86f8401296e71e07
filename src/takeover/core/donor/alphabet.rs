//! What a donor hears and what it asks for: events in, actions out.

use crate::proto::records::{ItemKind, Kind};
use crate::takeover::core::ledger::{Batch, ItemId, Presence};

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
    Protocol,
    /// It has too few descriptors left for what it is sent.
    FdLimit,
    /// It said ACTIVE. If the lease is still full, that was not true.
    FalseActive,
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
    /// The taker does not take something of the batch whose ACK follows. What is like it, or
    /// linked to it, has to be noted anew before that.
    Declined {
        /// Items that it does not take.
        items: Vec<ItemId>,
        /// Kinds, with the version of their state, that it does not know.
        kinds: Vec<(ItemKind, u16)>,
    },
    /// The taker has taken a batch.
    Ack {
        /// The number of the batch's last record.
        number: u32,
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
    Sent {
        /// That batch.
        batch: Batch,
        /// The number of its last record.
        number: u32,
    },
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

impl Event {
    /// The kind of the taker's message that this event is, if it is one.
    pub(super) fn message(&self) -> Option<Kind> {
        match self {
            Event::Fits { .. } => Some(Kind::Hello),
            Event::Ack { .. } => Some(Kind::Ack),
            Event::Drained => Some(Kind::Drained),
            Event::Active => Some(Kind::Active),
            Event::Caller
            | Event::Changed(_)
            | Event::Declined { .. }
            | Event::Writable
            | Event::Failure(_)
            | Event::Did(_) => None,
        }
    }
}
