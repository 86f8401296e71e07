//! When one connection sends how many bytes: a pure state machine, time is an argument.
//!
//! ```text
//!   Silent ──start──▶ Between ──due──▶ Within ──last byte──▶ Between
//!     │                │   ▲            bytes left, the next ones at a given time
//!     │     Unread:    │   └───────all answered──────┐
//!     │     its turn   └──▶ Filling ──no room──▶ Emptying
//!     └──────────────────────────┬─ stop ────────────┘
//!                                ▼
//!                              Ending   finishes a begun message, begins no other
//! ```
//!
//! An open loop keeps its times: a message that could not be sent because the depth was
//! reached is sent as soon as there is room, with the time at which it was due. How late
//! this program itself was ([`Piece::late`]) is told only for messages that nothing but
//! this program held back. Connections that pause within messages cannot keep up with a
//! fast schedule; they go on from when their last message was whole.
//!
//! An idle connection stays silent until [`Pace::stop`], then sends one message: an answer
//! is the only proof that somebody still serves it.

use std::ops::Range;

use crate::message::WORD;

const MILLISECOND: u64 = 1_000_000;
/// How long a [`Role::Half`] connection stops within a message, in nanoseconds.
const HALF_PAUSE: Range<u64> = 200 * MILLISECOND..800 * MILLISECOND;
/// How long a byte of a split message may wait, in nanoseconds.
const SPLIT_PAUSE: Range<u64> = 0..3 * MILLISECOND;
/// One of so many bytes of a split message waits at all; the others follow at once, each in
/// a write of its own.
const SPLIT_PAUSE_ONE_IN: u8 = 4;
/// How long an [`Role::Unread`] connection reads normally between two fillings.
const READING_TURN: Range<u64> = 200 * MILLISECOND..2_000 * MILLISECOND;
/// All buffers on the way are full when no byte could be written for so long.
const FULL_AFTER: u64 = 200 * MILLISECOND;

/// How a connection behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends whole messages and reads each answer.
    Steady,
    /// Sends nothing until the end.
    Idle,
    /// Pauses within each message.
    Half,
    /// Stops reading now and then.
    Unread,
}

/// What all connections of a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Nanoseconds from one message to the next; `None` in a closed loop.
    pub interval: Option<u64>,
    /// Unanswered messages allowed.
    pub depth: u64,
    /// Every message byte by byte.
    pub split: bool,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this, then ask again.
    Write(Piece),
    /// Write all that fits, and say so by [`Pace::wrote`]. Ask again when there is room, or
    /// at the given time.
    Fill(u64),
    /// Nothing before this time. `None`: nothing before an answer.
    Wait(Option<u64>),
}

/// A piece of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes, 1 to 4.
    pub bytes: u64,
    /// Whether a message is whole with it.
    pub completes: bool,
    /// When it was due, if times are to be measured from it.
    pub due: Option<u64>,
    /// By how many nanoseconds this program alone is late with it.
    pub late: Option<u64>,
}

/// The sending side of one connection.
#[derive(Debug)]
pub struct Pace {
    role: Role,
    rhythm: Rhythm,
    stage: Stage,
    /// Until [`Pace::start`] the offset from the start; then when the next message is due.
    due: u64,
    /// Unread: when the next filling begins.
    turn: u64,
    /// Half: after how many bytes of the message the pause comes. 0: never.
    cut: u64,
    /// Whether messages became due while the depth was reached and are not sent yet.
    held: bool,
    random: fastrand::Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Between,
    Within { left: u64, at: u64 },
    Filling { full_at: u64 },
    Emptying,
    Ending { left: u64 },
}

impl Pace {
    /// A connection whose first message is due `offset` nanoseconds after its start.
    #[must_use]
    pub fn new(role: Role, rhythm: Rhythm, offset: u64, random: fastrand::Rng) -> Self {
        Self {
            role,
            rhythm,
            stage: Stage::Silent,
            due: offset,
            turn: 0,
            cut: 0,
            held: false,
            random,
        }
    }

    /// Sending begins at `now`.
    pub fn start(&mut self, now: u64) {
        if self.stage == Stage::Silent && self.role != Role::Idle {
            self.stage = Stage::Between;
            self.due += now;
            self.turn = now + self.random.u64(READING_TURN);
        }
    }

    /// No new message from now on.
    pub fn stop(&mut self) {
        self.stage = match self.stage {
            Stage::Silent if self.role == Role::Idle => Stage::Ending { left: WORD as u64 },
            Stage::Silent | Stage::Between | Stage::Filling { .. } | Stage::Emptying => {
                Stage::Ending { left: 0 }
            }
            Stage::Within { left, .. } => Stage::Ending { left },
            Stage::Ending { left } => Stage::Ending { left },
        };
    }

    /// Whether answers are to be read.
    #[must_use]
    pub fn reads(&self) -> bool {
        !matches!(self.stage, Stage::Filling { .. })
    }

    /// What a connection with so many unanswered messages has to do at `now`.
    pub fn step(&mut self, now: u64, outstanding: u64) -> Step {
        match self.stage {
            Stage::Silent => Step::Wait(None),
            Stage::Between => self.begin(now, outstanding),
            Stage::Within { left, at } if at <= now => self.piece(now, left, at, None),
            Stage::Within { at, .. } => Step::Wait(Some(at)),
            Stage::Filling { full_at } if full_at <= now => {
                self.stage = Stage::Emptying;
                Step::Wait(None)
            }
            Stage::Filling { full_at } => Step::Fill(full_at),
            Stage::Emptying if outstanding > 0 => Step::Wait(None),
            Stage::Emptying => {
                self.stage = Stage::Between;
                self.due = self.due.max(now);
                self.turn = now + self.random.u64(READING_TURN);
                self.begin(now, outstanding)
            }
            Stage::Ending { left: 0 } => Step::Wait(None),
            Stage::Ending { left } => {
                self.stage = Stage::Ending { left: 0 };
                Step::Write(Piece {
                    bytes: left,
                    completes: true,
                    due: None,
                    late: None,
                })
            }
        }
    }

    /// Bytes went out at `now`: the buffers are not full yet.
    pub fn wrote(&mut self, now: u64) {
        if let Stage::Filling { full_at } = &mut self.stage {
            *full_at = now + FULL_AFTER;
        }
    }

    /// Enough was filled in, whether the buffers are full or not.
    pub fn filled(&mut self) {
        if let Stage::Filling { .. } = self.stage {
            self.stage = Stage::Emptying;
        }
    }

    fn begin(&mut self, now: u64, outstanding: u64) -> Step {
        let turn = (self.role == Role::Unread).then_some(self.turn);
        if turn.is_some_and(|turn| turn <= now) {
            let full_at = now + FULL_AFTER;
            self.stage = Stage::Filling { full_at };
            return Step::Fill(full_at);
        }
        if outstanding >= self.rhythm.depth {
            self.held = true;
            return Step::Wait(turn);
        }
        let Some(interval) = self.rhythm.interval else {
            self.draw_cut();
            return self.piece(now, WORD as u64, now, None);
        };
        let due = self.due;
        if due > now {
            self.held = false;
            return Step::Wait(Some(turn.map_or(due, |turn| turn.min(due))));
        }
        let late = (!self.held).then_some(now - due);
        self.due = due + interval;
        self.draw_cut();
        self.piece(now, WORD as u64, due, late)
    }

    /// The next bytes of a message of which `left` are not sent and were due at `due`.
    fn piece(&mut self, now: u64, left: u64, due: u64, late: Option<u64>) -> Step {
        let done = WORD as u64 - left;
        let bytes = match self.rhythm.split {
            true => 1,
            false if done < self.cut => self.cut - done,
            false => left,
        };
        let completes = bytes == left;
        if completes {
            self.stage = Stage::Between;
            if bytes < WORD as u64 {
                self.due = self.due.max(due);
            }
        } else {
            let at = now + self.pause(done + bytes);
            self.stage = Stage::Within {
                left: left - bytes,
                at,
            };
        }
        Step::Write(Piece {
            bytes,
            completes,
            due: completes.then_some(due),
            late,
        })
    }

    fn draw_cut(&mut self) {
        if self.role == Role::Half {
            self.cut = self.random.u64(1..WORD as u64);
        }
    }

    /// How long to wait after `done` bytes of a message.
    fn pause(&mut self, done: u64) -> u64 {
        if done == self.cut {
            self.random.u64(HALF_PAUSE)
        } else if self.random.u8(0..SPLIT_PAUSE_ONE_IN) == 0 {
            self.random.u64(SPLIT_PAUSE)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests;
