//! State of items, in parts: a state that is larger than a record is spread over several.
//!
//! ```text
//!   id u64 ┊ offset u32 ┊ total u32 ┊ run u8 ┊ length u16, bytes
//! ```
//!
//! The parts of one state follow each other, from offset 0 to its end, without another item's part
//! between them. [`Assembly`](crate::proto::assembly::Assembly) puts them together. A state without
//! bytes is one part without bytes.

use super::Kind;
use super::list::{Entry, Fit, List, ListWriter};
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{DecodeError, EncodeError, MAX_STATE, read_bool};

/// The parts of one record.
pub type Parts<'a> = List<'a, Part<'a>>;

/// Bytes of a part besides those of the state.
const OVERHEAD: usize = 8 + 4 + 4 + 1 + 2;

/// A piece of one item's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The item.
    pub id: u64,
    /// Where the piece begins, in bytes.
    pub offset: u32,
    /// Bytes of the whole state; at most [`MAX_STATE`].
    pub total: u32,
    /// Whether the new owner is to run the item without waiting for an event. It has unfinished
    /// input or pending output, or it waits in the resume queue.
    pub run: bool,
    /// The piece. Empty only if the whole state is.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> for Part<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id = reader.u64()?;
        let offset = reader.u32()?;
        let total = reader.u32()?;
        let run = read_bool(reader, "run flag")?;
        let length = reader.u16()?;
        let bytes = reader.bytes(usize::from(length))?;
        if total as usize > MAX_STATE {
            return Err(DecodeError::Value("size of a state"));
        }
        let end = u64::from(offset) + bytes.len() as u64;
        if end > u64::from(total) || bytes.is_empty() && total > 0 {
            return Err(DecodeError::Value("part of a state"));
        }
        Ok(Part {
            id,
            offset,
            total,
            run,
            bytes,
        })
    }
}

/// One item's state on its way into records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent<'a> {
    id: u64,
    run: bool,
    state: &'a [u8],
    offset: usize,
}

impl<'a> Unsent<'a> {
    /// The whole `state` of item `id`. For `run` see [`Part::run`].
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond [`MAX_STATE`].
    pub fn new(id: u64, run: bool, state: &'a [u8]) -> Result<Self, EncodeError> {
        let length = state.len();
        if length > MAX_STATE {
            return Err(EncodeError::TooLong {
                what: "state of an item",
                length,
                most: MAX_STATE,
            });
        }
        Ok(Unsent {
            id,
            run,
            state,
            offset: 0,
        })
    }
}

/// Writes the records that carry state.
///
/// ```
/// use socket_takeover::proto::records::{Fit, StateBuilder, Unsent};
/// use socket_takeover::proto::wire::EncodeError;
///
/// fn send_state(state: &[u8], mut send: impl FnMut(&[u8])) -> Result<(), EncodeError> {
///     let mut record = Vec::new();
///     let mut unsent = Unsent::new(7, false, state)?;
///     loop {
///         let mut builder = StateBuilder::new(&mut record);
///         let fit = builder.push(&mut unsent);
///         builder.finish(fit == Fit::Taken);
///         send(&record);
///         if fit == Fit::Taken {
///             return Ok(());
///         }
///     }
/// }
/// # let mut records = 0;
/// # send_state(&[1; 200_000], |_| records += 1).unwrap();
/// # assert_eq!(records, 4);
/// ```
#[derive(Debug)]
pub struct StateBuilder<'v>(ListWriter<'v>);

impl<'v> StateBuilder<'v> {
    /// Begins the record in `out`, in place of whatever was there.
    pub fn new(out: &'v mut Vec<u8>) -> Self {
        StateBuilder(ListWriter::new(Kind::State, out, |_| ()))
    }

    /// Adds as much of a state as fits: everything that is unsent ([`Fit::Taken`]), or only a part
    /// ([`Fit::Full`]). The rest goes first into the next record. An empty record takes something
    /// of any state.
    pub fn push(&mut self, unsent: &mut Unsent<'_>) -> Fit {
        let rest = &unsent.state[unsent.offset..];
        if rest.is_empty() && unsent.offset > 0 {
            return Fit::Taken; // all of it is out already
        }
        let room = self.0.room().saturating_sub(OVERHEAD);
        let piece = &rest[..rest.len().min(room)];
        if piece.is_empty() && !rest.is_empty() {
            return Fit::Full;
        }
        let fit = self.0.add(|out| {
            out.put_u64(unsent.id);
            out.put_u32(unsent.offset as u32);
            out.put_u32(unsent.state.len() as u32);
            out.put_u8(unsent.run.into());
            out.put_u16(piece.len() as u16);
            out.put(piece);
        });
        unsent.offset += piece.len();
        if unsent.offset < unsent.state.len() {
            Fit::Full
        } else {
            fit
        }
    }

    /// Whether the record has no part yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Completes the record. `last` asks for an ACK.
    pub fn finish(self, last: bool) {
        self.0.finish(last);
    }
}
