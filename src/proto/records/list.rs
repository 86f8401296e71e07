//! Records that are a list: read in place, written until full.
//!
//! ```text
//!   count u32 ┊ entry ┊ entry ┊ …
//! ```
//!
//! A [`List`] borrows the received bytes. All its entries were read once when the record was
//! decoded, so walking it again cannot fail. A [`ListWriter`] is what the builders have in common.
//! An entry that does not fit leaves no trace, and becomes the first entry of the next record.

use std::fmt;
use std::marker::PhantomData;

use super::{Body, Kind};
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{DecodeError, EncodeError, MAX_RECORD, begin_record, end_record};

/// What a list can consist of. Sealed: nobody else can name it.
pub trait Entry<'a>: Sized {
    /// Takes one entry from the front of a list.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// How many fds come with a list.
    fn fds(_: &List<'a, Self>) -> usize {
        0
    }
}

/// A list of entries, borrowed from a received record.
#[derive(Clone)]
pub struct List<'a, E> {
    count: u32,
    bytes: &'a [u8],
    entry: PhantomData<E>,
}

impl<'a, E: Entry<'a>> List<'a, E> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries, in the order in which they were put.
    #[must_use]
    pub fn iter(&self) -> Entries<'a, E> {
        let reader = Reader::new(self.bytes);
        Entries {
            left: self.len(),
            reader,
            entry: PhantomData,
        }
    }
}

impl<'a, E: Entry<'a>> Body<'a> for List<'a, E> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u32()?;
        let bytes = reader.rest();
        // Ends at the first entry that is missing, whatever the count claims.
        for _ in 0..count {
            E::read(reader)?;
        }
        let bytes = &bytes[..bytes.len() - reader.rest().len()];
        Ok(List {
            count,
            bytes,
            entry: PhantomData,
        })
    }

    /// Copies the list as it was received.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u32(self.count);
        out.put(self.bytes);
        Ok(())
    }

    fn fds(&self) -> usize {
        E::fds(self)
    }
}

impl<E> PartialEq for List<'_, E> {
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.bytes) == (other.count, other.bytes)
    }
}

impl<'a, E: Entry<'a> + fmt::Debug> fmt::Debug for List<'a, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a, E: Entry<'a>> IntoIterator for &List<'a, E> {
    type Item = E;
    type IntoIter = Entries<'a, E>;

    fn into_iter(self) -> Entries<'a, E> {
        self.iter()
    }
}

/// The entries of a [`List`].
#[derive(Debug, Clone)]
pub struct Entries<'a, E> {
    left: usize,
    reader: Reader<'a>,
    entry: PhantomData<E>,
}

impl<'a, E: Entry<'a>> Iterator for Entries<'a, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        self.left = self.left.checked_sub(1)?;
        // Cannot fail: the same bytes were read when the record was decoded.
        E::read(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a, E: Entry<'a>> ExactSizeIterator for Entries<'a, E> {}

impl Entry<'_> for u64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(reader.u64()?)
    }
}

/// Whether a builder has taken what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what did not fit goes into the next record"]
pub enum Fit {
    /// It is in the record.
    Taken,
    /// The record is full: send it, begin another one and push the same again.
    Full,
}

/// A record with a list, while it is written.
#[derive(Debug)]
pub(super) struct ListWriter<'v> {
    out: &'v mut Vec<u8>,
    /// Where the count is to be.
    count_at: usize,
    count: u32,
}

impl<'v> ListWriter<'v> {
    /// `fixed` writes what is in front of the list.
    pub(super) fn new(kind: Kind, out: &'v mut Vec<u8>, fixed: impl FnOnce(&mut Vec<u8>)) -> Self {
        begin_record(kind.code(), out);
        fixed(out);
        let count_at = out.len();
        out.put_u32(0);
        ListWriter {
            out,
            count_at,
            count: 0,
        }
    }

    /// How many bytes are left for entries.
    pub(super) fn room(&self) -> usize {
        MAX_RECORD - self.out.len()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.count as usize
    }

    pub(super) fn add(&mut self, entry: impl FnOnce(&mut Vec<u8>)) -> Fit {
        let before = self.out.len();
        entry(self.out);
        if self.out.len() > MAX_RECORD {
            self.out.truncate(before);
            return Fit::Full;
        }
        self.count += 1;
        Fit::Taken
    }

    pub(super) fn finish(self, last: bool) {
        self.out[self.count_at..][..4].copy_from_slice(&self.count.to_le_bytes());
        end_record(last, self.out);
    }
}
