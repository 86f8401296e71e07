//! What a donor says besides its items and their states. The fields of each record are in the order
//! of its layout. A text has its length in front of it, in one byte.
//!
//! The layout of REFUSE never changes: see [`wire`](crate::proto::wire).

use super::codes::RefuseCode;
use super::list::{Fit, List, ListWriter};
use super::reason::{put_reason, read_reason};
use super::{Body, Kind};
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{
    DecodeError, EncodeError, check_text, put_extension, put_text, read_text,
};

/// The donor agrees. Comes with the lease as its one fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The wire version of everything that follows.
    pub version: u16,
    /// Features that are in use from here on.
    pub features: u64,
    /// Names this attempt in the logs of both sides.
    pub id: u64,
    /// Takeovers since the cold start, this one included.
    pub generation: u64,
    /// About how many items will come, so that the taker can size its tables at once.
    pub items: u64,
    /// How long the preload may take, in milliseconds.
    pub preload_ms: u32,
    /// How long the freeze may take before END, in milliseconds.
    pub freeze_ms: u32,
    /// How long the taker has from END to its claim, in milliseconds.
    pub claim_ms: u32,
    /// The donor's process id, for the log.
    pub pid: u32,
    /// The donor's CLOCK_MONOTONIC, in nanoseconds, when this was written.
    pub now_ns: u64,
    /// The application's name, so that no other application's state is restored; at most
    /// [`MAX_NAME`](crate::proto::wire::MAX_NAME) bytes.
    pub application: &'a str,
}

impl<'a> Body<'a> for Welcome<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Welcome {
            version: reader.u16()?,
            features: reader.u64()?,
            id: reader.u64()?,
            generation: reader.u64()?,
            items: reader.u64()?,
            preload_ms: reader.u32()?,
            freeze_ms: reader.u32()?,
            claim_ms: reader.u32()?,
            pid: reader.u32()?,
            now_ns: reader.u64()?,
            application: read_text(reader, "application name")?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        check_text(self.application, "name of the application")?;
        out.put_u16(self.version);
        out.put_u64(self.features);
        out.put_u64(self.id);
        out.put_u64(self.generation);
        out.put_u64(self.items);
        out.put_u32(self.preload_ms);
        out.put_u32(self.freeze_ms);
        out.put_u32(self.claim_ms);
        out.put_u32(self.pid);
        out.put_u64(self.now_ns);
        put_text(self.application, out);
        Ok(())
    }

    fn fds(&self) -> usize {
        1 // the lease
    }
}

/// The donor does not agree. Nothing was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse<'a> {
    /// Why.
    pub code: RefuseCode,
    /// Oldest wire version that the donor speaks.
    pub min: u16,
    /// Newest wire version that the donor speaks.
    pub max: u16,
    /// Why, in words; at most [`MAX_REASON`](crate::proto::wire::MAX_REASON) bytes.
    pub reason: &'a str,
}

impl<'a> Body<'a> for Refuse<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Refuse {
            code: RefuseCode::from_code(reader.u16()?),
            min: reader.u16()?,
            max: reader.u16()?,
            reason: read_reason(reader)?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u16(self.code.code());
        out.put_u16(self.min);
        out.put_u16(self.max);
        put_reason(self.reason, out);
        Ok(())
    }
}

/// Items that are gone, by id.
pub type Closed<'a> = List<'a, u64>;

/// Writes the records that name closed items.
#[derive(Debug)]
pub struct ClosedBuilder<'v>(ListWriter<'v>);

impl<'v> ClosedBuilder<'v> {
    /// Begins the record in `out`, in place of whatever was there.
    pub fn new(out: &'v mut Vec<u8>) -> Self {
        ClosedBuilder(ListWriter::new(Kind::Closed, out, |_| ()))
    }

    /// Adds an item.
    pub fn push(&mut self, id: u64) -> Fit {
        self.0.add(|out| out.put_u64(id))
    }

    /// Completes the record. `last` asks for an ACK.
    pub fn finish(self, last: bool) {
        self.0.finish(last);
    }
}

/// Everything was sent. This is what the taker must have seen before it claims the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many items the taker must hold.
    pub items: u64,
    /// Closed items that the final array named.
    pub closed: u64,
    /// Items that the final array brought with their description.
    pub new: u64,
    /// Items whose state the final array brought again.
    pub changed: u64,
    /// The donor's CLOCK_MONOTONIC, in nanoseconds, when it stopped serving. So both sides name the
    /// same beginning of the freeze.
    pub held_ns: u64,
    /// [`Digest`](crate::proto::digest::Digest) of the final array's records: everything
    /// since DRAINED, except this record.
    pub digest: u64,
    /// Rounds of the preload, so that both reports name as many. An extension, as those of a
    /// HELLO.
    pub rounds: Option<u32>,
}

/// Extension of an END: the rounds of the preload, u32.
const ROUNDS: u16 = 1;

impl Body<'_> for End {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(End {
            items: reader.u64()?,
            closed: reader.u64()?,
            new: reader.u64()?,
            changed: reader.u64()?,
            held_ns: reader.u64()?,
            digest: reader.u64()?,
            rounds: None,
        })
    }

    fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
        if kind != ROUNDS {
            return Ok(false);
        }
        match (self.rounds, <[u8; 4]>::try_from(value)) {
            (None, Ok(rounds)) => self.rounds = Some(u32::from_le_bytes(rounds)),
            _ => return Err(DecodeError::Value("rounds")),
        }
        Ok(true)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u64(self.items);
        out.put_u64(self.closed);
        out.put_u64(self.new);
        out.put_u64(self.changed);
        out.put_u64(self.held_ns);
        out.put_u64(self.digest);
        if let Some(rounds) = self.rounds {
            put_extension(ROUNDS, &rounds.to_le_bytes(), out);
        }
        Ok(())
    }
}

/// The donor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort<'a> {
    /// Why, in words; at most [`MAX_REASON`](crate::proto::wire::MAX_REASON) bytes.
    pub reason: &'a str,
}

impl<'a> Body<'a> for Abort<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Abort {
            reason: read_reason(reader)?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_reason(self.reason, out);
        Ok(())
    }
}
