//! The taker: the successor that takes everything over. A pure state machine.
//!
//! ```text
//!   Hello ──WELCOME──▶ Receive ──PREPARE──▶ Settle ──END──▶ Validate ──▶ Claim ──▶ Active
//!     │                   │ ▲│                │ final array     │           │
//!     │ REFUSE            │ └┘ ACK each batch │                 │ FAIL      │ lost
//!     └────────┬──────────┴───────────────────┴─────────────────┴───────────┘
//!              ▼  ABORT, the channel's end, a deadline, TERM
//!             Gone: every copy closed, then the channel; the donor serves on
//! ```
//!
//! Two tables decide all that can go wrong: `State::expects`, the messages that may come now, and
//! `State::may_leave`, where a failure ends the attempt. What goes right is `State::advance`.
//! [`Taker::step`] is total and touches no socket, clock or descriptor: the session performs the
//! actions in order and reports their outcomes as events, after the whole list was performed.
//!
//! Invariants (explored exhaustively by `tests/model`):
//! - no I/O on any item before [`Event::Won`]; nothing that can fail after it;
//! - the lease is read once, after END was received and everything up to it validated;
//! - a donor that is silent, stopped or dead after its END is simply claimed from; before
//!   END nothing makes a taker own, least of all the donor's death.

use super::ledger::ItemId;
use crate::proto::records::Kind;

/// Which deadline to arm. The taker's are longer than the donor's, so that the donor, who
/// owns, is the first to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// From HELLO to WELCOME.
    Hello,
    /// From WELCOME to PREPARE.
    Preload,
    /// From DRAINED to END.
    Freeze,
}

/// Why a taker leaves without owning anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leaving {
    /// The donor answered REFUSE.
    Refused,
    /// The donor ended the attempt.
    Aborted,
    /// The channel ended before END.
    Eof,
    /// The donor was silent for too long.
    Deadline,
    /// What the donor sent cannot be used; it has been told so.
    Failed,
    /// The lease was empty: the donor has revoked the grant and serves on.
    Revoked,
    /// We were told to stop.
    Stopping,
}

/// What happens to the taker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The donor agrees; the lease came with it.
    Welcome,
    /// The donor refuses.
    Refused,
    /// A batch is complete and every item in it was taken or declined.
    Batch {
        /// What its ACK names: the sequence number of its last record.
        sequence: u32,
        /// Items not taken; their copies are closed.
        declined: Vec<ItemId>,
    },
    /// A part of the final array was taken.
    FinalPart,
    /// The donor is about to hold.
    Prepare,
    /// The final array is complete and the lease is granted.
    End,
    /// The donor ends the attempt.
    Abort,
    /// Something received, or something of our own, makes it impossible to go on.
    Unusable,
    /// The channel is at its end.
    Eof,
    /// The deadline armed last has passed.
    Deadline,
    /// Counts, digest and the final array's items are as END says.
    Valid,
    /// Our read of the lease got the 1: we own.
    Won,
    /// Our read found the lease empty.
    Lost,
}

impl Event {
    /// The kind of the donor's message that this event is, if it is one.
    fn message(&self) -> Option<Kind> {
        match self {
            Event::Welcome => Some(Kind::Welcome),
            Event::Refused => Some(Kind::Refuse),
            Event::Batch { .. } | Event::FinalPart => Some(Kind::Items),
            Event::Prepare => Some(Kind::Prepare),
            Event::End => Some(Kind::End),
            Event::Abort => Some(Kind::Abort),
            Event::Unusable
            | Event::Eof
            | Event::Deadline
            | Event::Valid
            | Event::Won
            | Event::Lost => None,
        }
    }
}

/// What the session is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Arm this deadline in place of the one before.
    Arm(Step),
    /// Tell the donor that a batch was taken.
    Ack {
        /// The sequence number of its last record.
        sequence: u32,
        /// Items not taken.
        declined: Vec<ItemId>,
    },
    /// Empty the items' epoll set of stale readiness, without serving it, then send DRAINED
    /// and be quick to see END. Reports only [`Event::Unusable`].
    Settle,
    /// Compare what was received with END; reports [`Event::Valid`] or [`Event::Unusable`].
    Validate,
    /// Read the lease; reports [`Event::Won`] or [`Event::Lost`].
    Claim,
    /// Serve. After the first turn publish PATH, write the pid file and, last, tell the donor
    /// ACTIVE, upon which it leaves. Until that is out nobody else is handed anything.
    Activate,
    /// Tell the donor FAIL, best effort.
    Fail,
    /// Close every copy, then the channel.
    Leave(Leaving),
}

/// Where the taker is; the [module](self) has the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// HELLO is out.
    Hello,
    /// Takes the preload's batches.
    Receive,
    /// Takes the final array.
    Settle,
    /// END is here.
    Validate,
    /// Our read of the lease is under way.
    Claim,
    /// Owns and serves.
    Active,
    /// Owns nothing.
    Gone,
}

impl State {
    /// Which messages may come now. ABORT may come at any time.
    fn expects(self, message: Kind) -> bool {
        let expected: &[Kind] = match self {
            State::Hello => &[Kind::Welcome, Kind::Refuse],
            State::Receive => &[Kind::Items, Kind::State, Kind::Closed, Kind::Prepare],
            State::Settle => &[Kind::Items, Kind::State, Kind::Closed, Kind::End],
            // From END on nothing that the donor says counts: the lease decides.
            State::Validate | State::Claim | State::Active | State::Gone => &[],
        };
        message == Kind::Abort || expected.contains(&message)
    }

    /// Whether everything that fails ends the attempt: not any more once END is here.
    fn may_leave(self) -> bool {
        match self {
            State::Hello | State::Receive | State::Settle => true,
            State::Validate | State::Claim | State::Active | State::Gone => false,
        }
    }

    /// The arrows of the diagram, the way out last.
    fn advance(self, event: Event, actions: &mut Vec<Action>) -> State {
        match (self, event) {
            (State::Hello, Event::Welcome) => {
                actions.push(Action::Arm(Step::Preload));
                State::Receive
            }
            (State::Hello, Event::Refused) => leave(Leaving::Refused, actions),
            (State::Receive, Event::Batch { sequence, declined }) => {
                actions.push(Action::Ack { sequence, declined });
                State::Receive
            }
            (State::Receive, Event::Prepare) => {
                actions.extend([Action::Arm(Step::Freeze), Action::Settle]);
                State::Settle
            }
            (State::Settle, Event::FinalPart) => State::Settle,
            (State::Settle, Event::End) => {
                actions.push(Action::Validate);
                State::Validate
            }
            (State::Validate, Event::Valid) => {
                actions.push(Action::Claim);
                State::Claim
            }
            (State::Claim, Event::Won) => {
                actions.push(Action::Activate);
                State::Active
            }
            (State::Claim, Event::Lost) => leave(Leaving::Revoked, actions),
            // What was received is not what END speaks of.
            (State::Validate, Event::Unusable) => fail(actions),
            // The final array asks for no ACK, and the preload for one with each batch.
            (State::Receive, Event::FinalPart) | (State::Settle, Event::Batch { .. }) => {
                fail(actions)
            }
            (state, Event::Unusable) if state.may_leave() => fail(actions),
            (state, Event::Abort) if state.may_leave() => leave(Leaving::Aborted, actions),
            (state, Event::Eof) if state.may_leave() => leave(Leaving::Eof, actions),
            (state, Event::Deadline) if state.may_leave() => leave(Leaving::Deadline, actions),
            // An echo of what is over.
            (state, _) => state,
        }
    }

    /// The names of all states.
    pub const NAMES: [&str; 7] = [
        "hello", "receive", "settle", "validate", "claim", "active", "gone",
    ];

    /// Its name, as in `docs/takeover.md` in the repository.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Hello => "hello",
            State::Receive => "receive",
            State::Settle => "settle",
            State::Validate => "validate",
            State::Claim => "claim",
            State::Active => "active",
            State::Gone => "gone",
        }
    }
}

/// The taker's side of a takeover, as a pure state machine. The [module](self) has its diagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Taker {
    state: State,
}

impl Taker {
    /// A taker that has just sent its HELLO.
    #[must_use]
    pub fn start() -> (Taker, Vec<Action>) {
        let taker = Taker {
            state: State::Hello,
        };
        (taker, vec![Action::Arm(Step::Hello)])
    }

    /// Where the taker is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether this message may come now. One that may not is [`Event::Unusable`], and nothing in
    /// it counts.
    #[must_use]
    pub fn expects(&self, message: Kind) -> bool {
        self.state.expects(message)
    }

    /// The answer to one event. Perform the actions in order, then report their outcomes.
    #[must_use]
    pub fn step(self, event: Event) -> (Taker, Vec<Action>) {
        let mut actions = Vec::new();
        let event = match event.message() {
            Some(message) if !self.expects(message) && self.state.may_leave() => Event::Unusable,
            _ => event,
        };
        let state = self.state.advance(event, &mut actions);
        (Taker { state }, actions)
    }

    /// The operator wants us to stop. Once active that is the service's own business.
    #[must_use]
    pub fn term(self) -> (Taker, Vec<Action>) {
        let mut actions = Vec::new();
        let state = match self.state {
            State::Hello | State::Receive | State::Settle => leave(Leaving::Stopping, &mut actions),
            // Both last only until the outcome of an action is known, then it is asked again.
            State::Validate | State::Claim => self.state,
            State::Active => State::Active,
            State::Gone => State::Gone,
        };
        (Taker { state }, actions)
    }
}

fn leave(why: Leaving, actions: &mut Vec<Action>) -> State {
    actions.push(Action::Leave(why));
    State::Gone
}

fn fail(actions: &mut Vec<Action>) -> State {
    actions.push(Action::Fail);
    leave(Leaving::Failed, actions)
}
