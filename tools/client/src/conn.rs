//! One connection: joins the pure parts to a socket.
//!
//! ```text
//!   Connecting ──up──▶ Open ──stop──▶ Ending ──all answered──▶ Drained
//!       │                │               │                        │
//!       └── Unreachable  └── Closed,     └── Closed, Reset,       └── Closed, Reset
//!                            Reset           Stalled
//! ```
//!
//! There is no output buffer: two positions in the stream say it all. `written` ≤ `allowed`,
//! and what lies between is written as soon as the socket takes it.
//!
//! Readiness is only a hint, since events may be those of an earlier connection in the same
//! slot; every call is correct at any time. Edges are used up: reading stops only when the
//! socket is empty, or [`Conn::wants_turn`] asks for another turn. A read shorter than its
//! room has emptied it, unless the end of the stream may lie behind (epoll(7)).

use std::fmt::{self, Display};
use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::answers::Answers;
use crate::cause::{Cause, is_want_of_memory};
use crate::message::{WORD, stream_bytes};
use crate::pace::{Pace, Step};
use crate::shared::{BUFFER, Shared};

const MILLISECOND: u64 = 1_000_000;
/// How long a connection may take to come up: SYNs that were lost or refused for want of
/// room are repeated after 1, 3 and 7 seconds (tcp(7), `tcp_syn_retries`).
const CONNECT_TIMEOUT: u64 = 15_000 * MILLISECOND;
/// When a call is repeated for which this machine had no memory.
const RETRY_AFTER: u64 = 10 * MILLISECOND;
/// Bytes that a connection may read in a turn before the others have theirs.
const READ_BUDGET: usize = 4 * BUFFER;
/// Messages that an unreading connection adds in a turn.
const FILL: u64 = 4 * 1024;
/// Unanswered messages of an unreading connection, in case no buffer ever gets full: 16 MiB.
const FILL_MAX: u64 = 4 * 1024 * 1024;

/// What a call came to.
#[derive(Debug)]
pub enum Fate {
    /// The connection goes on.
    Alive,
    /// It has come up.
    Up,
    /// It was stopped, and no answer is waited for any more. Told once.
    Drained,
    /// It is over and has to be closed.
    Gone(Gone),
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Gone {
    /// It never came up.
    Unreachable(Cause),
    /// It broke.
    Reset(io::Error),
    /// The server ended it.
    Closed,
    /// It was stopped and did not answer everything in time.
    Stalled,
}

impl Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => write!(f, "did not come up: {cause}"),
            Self::Reset(error) => write!(f, "broke: {error}"),
            Self::Closed => f.write_str("was closed by the server"),
            Self::Stalled => f.write_str("still owes answers"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting { until: u64 },
    Open,
    Ending { until: u64 },
    Drained,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    link: Link,
    phase: Phase,
    pace: Pace,
    answers: Answers,
    /// Bytes in the kernel.
    written: u64,
    /// Bytes that may be written.
    allowed: u64,
    /// When the pace has something to do.
    pace_at: Option<u64>,
    /// When a call that this machine had no memory for is repeated.
    retry_at: Option<u64>,
    /// An event said that the stream ends or broke.
    hung_up: bool,
    /// It needs another turn.
    again: bool,
    /// The timer that is set for this connection; kept here for its owner. One that goes
    /// off at another time means nothing.
    pub armed: Option<u64>,
}

impl Conn {
    /// Takes a stream that has begun to connect.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn new(
        mut stream: TcpStream,
        slot: usize,
        pace: Pace,
        answers: Answers,
        registry: &Registry,
        now: u64,
    ) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(slot), interest)?;
        Ok(Self {
            link: Link { stream, slot },
            phase: Phase::Connecting {
                until: now + CONNECT_TIMEOUT,
            },
            pace,
            answers,
            written: 0,
            allowed: 0,
            pace_at: None,
            retry_at: None,
            hung_up: false,
            again: false,
            armed: None,
        })
    }

    /// Whether it neither connects nor ends.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it has not come up yet.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. })
    }

    /// Whether it was stopped and answers are due.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether it did not finish its turn and needs another, without an event.
    pub fn wants_turn(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// When [`Conn::tick`] has to be called at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let phase_at = match self.phase {
            Phase::Connecting { until } | Phase::Ending { until } => Some(until),
            Phase::Open | Phase::Drained => None,
        };
        let pace_at = self.pace_at;
        [phase_at, self.answers.settle_at(), pace_at, self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The messages begin.
    pub fn start(&mut self, shared: &mut Shared) -> Fate {
        let now = shared.clock.now();
        self.answers.start(now);
        self.pace.start(now);
        self.turn(false, shared)
    }

    /// No message is begun any more; what is unanswered at `until` is given up.
    pub fn stop(&mut self, until: u64, shared: &mut Shared) -> Fate {
        if self.phase != Phase::Open {
            return Fate::Alive;
        }
        self.phase = Phase::Ending { until };
        self.pace.stop();
        self.turn(true, shared)
    }

    /// Something happened to the socket.
    pub fn ready(&mut self, event: &Event, shared: &mut Shared) -> Fate {
        self.hung_up |= event.is_read_closed() || event.is_write_closed() || event.is_error();
        if self.is_connecting() {
            return self.connected();
        }
        self.turn(event.is_readable() || self.hung_up, shared)
    }

    /// Its time has come.
    pub fn tick(&mut self, shared: &mut Shared) -> Fate {
        let now = shared.clock.now();
        match self.phase {
            Phase::Connecting { until } if until <= now => {
                Fate::Gone(unreachable(io::ErrorKind::TimedOut.into()))
            }
            Phase::Connecting { .. } => Fate::Alive,
            // Unless a read failed, an event would have said if there were anything to read.
            Phase::Open | Phase::Ending { .. } | Phase::Drained => {
                let failed = self.retry_at.take_if(|at| *at <= now).is_some();
                self.turn(failed, shared)
            }
        }
    }

    /// The turn that it wanted.
    pub fn resume(&mut self, shared: &mut Shared) -> Fate {
        self.again = false;
        match self.phase {
            Phase::Connecting { .. } => Fate::Alive,
            Phase::Open | Phase::Ending { .. } | Phase::Drained => self.turn(true, shared),
        }
    }

    /// Takes it off the books: judges what is left, counts it and closes the socket.
    pub fn close(self, shared: &mut Shared) {
        if !self.is_connecting() {
            self.answers.close(self.written, &self.link, shared);
        }
    }

    fn connected(&mut self) -> Fate {
        match self.link.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Fate::Gone(unreachable(error)),
        }
        match self.link.stream.peer_addr() {
            Ok(_) => {
                self.phase = Phase::Open;
                // The timer for this is not to wake thousands of silent connections.
                self.armed = None;
                // The edge that told of this may have been that of an early end, too.
                self.again = true;
                Fate::Up
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected && !self.hung_up => {
                Fate::Alive
            }
            Err(error) => Fate::Gone(unreachable(error)),
        }
    }

    /// Does whatever can be done now.
    fn turn(&mut self, read: bool, shared: &mut Shared) -> Fate {
        let done = if read { self.read(shared) } else { Ok(()) };
        let done = done.and_then(|()| {
            let now = shared.clock.now();
            self.answers.settle(now, self.written, &self.link, shared);
            self.send(now, shared)
        });
        if let Err(gone) = done {
            return Fate::Gone(gone);
        }
        match self.phase {
            Phase::Ending { .. } if self.is_all_answered() => {
                self.phase = Phase::Drained;
                Fate::Drained
            }
            Phase::Ending { until } if until <= shared.clock.now() => self.give_up(),
            Phase::Connecting { .. } | Phase::Open | Phase::Ending { .. } | Phase::Drained => {
                Fate::Alive
            }
        }
    }

    /// The time for the last answers is over. A connection that answered its last message
    /// has lost some before it, but does not stall.
    fn give_up(&mut self) -> Fate {
        if self.written < self.allowed || self.answers.outstanding() > 0 {
            return Fate::Gone(Gone::Stalled);
        }
        self.phase = Phase::Drained;
        Fate::Drained
    }

    fn is_all_answered(&self) -> bool {
        self.written == self.allowed && self.answers.is_complete()
    }

    fn read(&mut self, shared: &mut Shared) -> Result<(), Gone> {
        let mut budget = READ_BUDGET;
        while self.pace.reads() {
            match self.link.stream.read(&mut shared.buffer) {
                Ok(0) => return Err(Gone::Closed),
                Ok(count) => {
                    self.answers.take(count, self.written, &self.link, shared);
                    if count < BUFFER && !self.hung_up {
                        return Ok(());
                    }
                    budget = budget.saturating_sub(count);
                    if budget == 0 {
                        self.again = true;
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_want_of_memory(&error) => {
                    self.starve(&error, shared);
                    return Ok(());
                }
                Err(error) => return Err(Gone::Reset(error)),
            }
        }
        Ok(())
    }

    /// Asks the pace and writes until it has to wait.
    fn send(&mut self, now: u64, shared: &mut Shared) -> Result<(), Gone> {
        let was_reading = self.pace.reads();
        self.pace_at = loop {
            let outstanding = self.answers.outstanding();
            match self.pace.step(now, outstanding) {
                Step::Write(piece) => {
                    self.allowed += piece.bytes;
                    if piece.completes {
                        self.answers.expect(piece.due, 1);
                    }
                    if let Some(late) = piece.late {
                        shared.tally.late.saturating_record(late);
                    }
                    if piece.bytes < WORD as u64 {
                        self.flush(shared)?;
                    }
                }
                Step::Fill(_) if outstanding >= FILL_MAX => self.pace.filled(),
                Step::Fill(full_at) => {
                    if self.written == self.allowed {
                        self.answers.discount();
                        self.answers.expect(None, FILL);
                        self.allowed += FILL * WORD as u64;
                    }
                    if self.flush(shared)? {
                        self.pace.wrote(now);
                    }
                    self.again |= self.written == self.allowed;
                    break Some(full_at);
                }
                Step::Wait(at) => break at,
            }
        };
        self.flush(shared)?;
        self.again |= !was_reading && self.pace.reads();
        Ok(())
    }

    /// Writes what is allowed, as far as it goes. Returns whether any byte went.
    fn flush(&mut self, shared: &mut Shared) -> Result<bool, Gone> {
        let before = self.written;
        while self.written < self.allowed {
            let bytes = stream_bytes(&mut shared.buffer, self.written, self.allowed);
            match self.link.stream.write(bytes) {
                Ok(count) => self.written += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_want_of_memory(&error) => {
                    self.starve(&error, shared);
                    break;
                }
                Err(error) => {
                    // What was answered before it broke still counts, and may say why.
                    self.hung_up = true;
                    self.pace.filled();
                    self.read(shared)?;
                    return Err(Gone::Reset(error));
                }
            }
        }
        Ok(self.written > before)
    }

    /// A read or a write failed for a reason of this machine's: it is repeated.
    fn starve(&mut self, error: &io::Error, shared: &mut Shared) {
        self.retry_at = Some(shared.clock.now() + RETRY_AFTER);
        shared.tally.client_failures += 1;
        shared.complain(&self.link, format_args!("held up by this machine: {error}"));
    }
}

fn unreachable(error: io::Error) -> Gone {
    Gone::Unreachable(Cause::of(error))
}

impl Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.link.fmt(f)
    }
}

/// The socket; shows itself by its slot and local address.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    slot: usize,
}

impl Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.slot)?;
        match self.stream.local_addr() {
            Ok(address) => write!(f, " [{}]:{}", address.ip(), address.port()),
            Err(_) => Ok(()),
        }
    }
}
