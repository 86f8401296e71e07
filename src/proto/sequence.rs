//! The echo protocol between the service and its peers, one [`Session`] a connection.
//!
//! A peer sends messages of four bytes, each a big-endian counter, and gets every one back
//! unchanged. TCP cuts the stream anywhere, so a session keeps what is between messages:
//!
//! ```text
//!   peer ──▶ read ──▶ [unfinished 0..3 ┊ whole messages ┊ tail 0..3] ──▶ write ──▶ peer
//!                       begin()          take_in()        kept             │ not taken
//!                                                                          ▼
//!                             may_read() is false while there is  ◀──── output
//! ```
//!
//! The buffer in the middle belongs to the service. All sessions share it, so an idle session owns
//! no heap at all.
//!
//! Invariants:
//! - Bytes echoed + output + unfinished = bytes read, in order. Nothing else is stored, so nothing
//!   can be lost when a session moves to another process.
//! - Output never exceeds [`MAX_OUTPUT`], because the service does not read from a peer that does
//!   not read.
//! - Unfinished bytes at the end of the stream can never become a message, and are dropped.

use std::fmt;

use super::cursor::{Put, Reader, Truncated};

/// Bytes in a message.
pub const MESSAGE: usize = 4;
/// The most bytes of output that a session holds: what one read can bring.
pub const MAX_OUTPUT: usize = 64 * 1024;
/// Version of what [`Session::save`] writes.
pub const STATE_VERSION: u16 = 1;

/// The saved state's flag for [`Session::set_read_closed`].
const READ_CLOSED: u8 = 1;

/// One connection's part of the echo protocol: what is between two messages, and what is owed to
/// the peer. The [module](self) shows where the bytes go.
#[derive(Debug, Clone, Default)]
pub struct Session {
    messages: u64,
    last: u32,
    unfinished: [u8; MESSAGE - 1],
    unfinished_length: u8,
    read_closed: bool,
    /// Boxed, so that a session without output is small.
    output: Option<Box<Output>>,
}

/// Bytes that are owed to the peer. Never empty.
#[derive(Debug, Clone)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Session {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Session::default()
    }

    /// A connection on which another process has answered this many messages, and owes nothing. The
    /// content of the last message is not known, and counts as 0.
    #[must_use]
    pub fn after(messages: u64) -> Self {
        Session {
            messages,
            ..Session::default()
        }
    }

    /// Puts the unfinished bytes at the front of `room`, and returns how many they are. The caller
    /// reads into the room after them.
    ///
    /// # Panics
    /// If `room` has less than [`MESSAGE`] bytes.
    #[must_use]
    pub fn begin(&self, room: &mut [u8]) -> usize {
        let unfinished = self.unfinished();
        room[..MESSAGE][..unfinished.len()].copy_from_slice(unfinished);
        unfinished.len()
    }

    /// Takes the unfinished bytes of [`Session::begin`] and what was read after them. Returns the
    /// length of the leading part that consists of whole messages. The caller is to echo that part.
    #[must_use = "the whole messages are to be echoed"]
    pub fn take_in(&mut self, bytes: &[u8]) -> usize {
        debug_assert!(
            bytes.starts_with(self.unfinished()),
            "not preceded by begin()"
        );
        let (messages, tail) = bytes.as_chunks::<MESSAGE>();
        if let Some(last) = messages.last() {
            self.last = u32::from_be_bytes(*last);
        }
        self.messages = self.messages.saturating_add(messages.len() as u64);
        self.unfinished = [0; MESSAGE - 1];
        self.unfinished[..tail.len()].copy_from_slice(tail);
        self.unfinished_length = tail.len() as u8;
        bytes.len() - tail.len()
    }

    /// Keeps what a write did not take, after the output that is already there.
    ///
    /// # Panics
    /// If the output grows beyond [`MAX_OUTPUT`]: the caller read although [`Session::may_read`]
    /// forbade it, or with too large a buffer.
    pub fn queue(&mut self, unsent: &[u8]) {
        if unsent.is_empty() {
            return;
        }
        assert!(
            self.output().len() + unsent.len() <= MAX_OUTPUT,
            "output of a session is at most {MAX_OUTPUT} bytes"
        );
        match &mut self.output {
            Some(output) => output.bytes.extend_from_slice(unsent),
            None => {
                let bytes = unsent.to_vec();
                self.output = Some(Box::new(Output { bytes, sent: 0 }));
            }
        }
    }

    /// What is owed to the peer.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        match &self.output {
            Some(output) => &output.bytes[output.sent..],
            None => &[],
        }
    }

    /// A write took the first `length` bytes of [`Session::output`]. When the last of them is
    /// taken, the heap is given back.
    ///
    /// # Panics
    /// If there were fewer.
    pub fn sent(&mut self, length: usize) {
        let pending = self.output().len();
        assert!(length <= pending, "{length} bytes sent of {pending}");
        match &mut self.output {
            Some(output) if length < pending => output.sent += length,
            Some(_) | None => self.output = None,
        }
    }

    /// Whether the peer may be read from: everything that is owed to it was sent.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.output.is_none()
    }

    /// The peer has ended its stream.
    pub fn set_read_closed(&mut self) {
        self.read_closed = true;
        self.unfinished = [0; MESSAGE - 1];
        self.unfinished_length = 0;
    }

    /// Whether the peer has ended its stream.
    #[must_use]
    pub fn read_closed(&self) -> bool {
        self.read_closed
    }

    /// Whether nothing can come any more and nothing is owed: the connection is to be ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.read_closed && self.output.is_none()
    }

    /// How many whole messages the peer has sent since it connected, to whichever process.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The counter of the last whole message; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        (self.messages > 0).then_some(self.last)
    }

    /// How many bytes of the peer's stream have been read, over all processes. `None` once the
    /// stream has ended, because what was unfinished then is forgotten.
    #[must_use]
    pub fn consumed(&self) -> Option<u64> {
        let whole = self.messages.saturating_mul(MESSAGE as u64);
        (!self.read_closed).then(|| whole.saturating_add(self.unfinished_length.into()))
    }

    /// How many bytes have been written to the peer, over all processes: every whole message except
    /// what is owed.
    #[must_use]
    pub fn written(&self) -> u64 {
        let whole = self.messages.saturating_mul(MESSAGE as u64);
        whole.saturating_sub(self.output().len() as u64)
    }

    /// Whether part of a message has come and the rest has not.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished_length > 0
    }

    fn unfinished(&self) -> &[u8] {
        &self.unfinished[..usize::from(self.unfinished_length)]
    }
}

/// Save and restore: a pair. What one writes the other reads, and nothing else.
///
/// ```text
/// messages u64 ┊ last u32 ┊ flags u8 ┊ unfinished: length u8, 3 bytes ┊ output: to the end
/// ```
impl Session {
    /// Appends the session's state, in the format of [`STATE_VERSION`].
    pub fn save(&self, out: &mut Vec<u8>) {
        out.put_u64(self.messages);
        out.put_u32(self.last);
        out.put_u8(if self.read_closed { READ_CLOSED } else { 0 });
        out.put_u8(self.unfinished_length);
        out.put(&self.unfinished);
        out.put(self.output());
    }

    /// The session whose state was saved, as if it had never moved.
    ///
    /// # Errors
    /// If [`Session::save`] cannot have written this.
    pub fn restore(version: u16, bytes: &[u8]) -> Result<Session, RestoreError> {
        if version != STATE_VERSION {
            return Err(RestoreError::Version(version));
        }
        let mut reader = Reader::new(bytes);
        let messages = reader.u64()?;
        let last = reader.u32()?;
        let flags = reader.u8()?;
        let unfinished_length = reader.u8()?;
        let unfinished = reader.array()?;
        let output = reader.rest();

        let read_closed = flags & READ_CLOSED != 0;
        refuse_if(flags & !READ_CLOSED != 0, "flags")?;
        refuse_if(
            messages == 0 && last != 0,
            "a last message without a message",
        )?;
        refuse_if(
            usize::from(unfinished_length) >= MESSAGE,
            "unfinished length",
        )?;
        let unused = &unfinished[usize::from(unfinished_length)..];
        refuse_if(unused.iter().any(|byte| *byte != 0), "padding")?;
        refuse_if(
            read_closed && unfinished_length > 0,
            "an unfinished message after the end of the stream",
        )?;
        refuse_if(output.len() > MAX_OUTPUT, "output length")?;
        let echo = messages.saturating_mul(MESSAGE as u64);
        refuse_if(output.len() as u64 > echo, "more output than messages")?;

        let mut session = Session {
            messages,
            last,
            unfinished,
            unfinished_length,
            read_closed,
            output: None,
        };
        session.queue(output);
        Ok(session)
    }
}

fn refuse_if(wrong: bool, what: &'static str) -> Result<(), RestoreError> {
    if wrong {
        Err(RestoreError::Value(what))
    } else {
        Ok(())
    }
}

/// Why these bytes are not a saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreError {
    /// It was saved in a version that is not known here.
    Version(u16),
    /// It is too short.
    Truncated,
    /// It says what no session can have saved.
    Value(&'static str),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Version(version) => {
                write!(
                    f,
                    "session state version {version}, known is {STATE_VERSION}"
                )
            }
            RestoreError::Truncated => write!(f, "session state is too short"),
            RestoreError::Value(what) => write!(f, "session state is invalid: {what}"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<Truncated> for RestoreError {
    fn from(_: Truncated) -> Self {
        RestoreError::Truncated
    }
}

#[cfg(test)]
mod tests;
