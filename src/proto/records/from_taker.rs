//! What a taker says. The fields of each record are in the order of its layout. A text has its
//! length in front of it, in one byte.
//!
//! The layout of HELLO never changes: see [`wire`](crate::proto::wire).

use super::codes::{DeclineCode, FailCode};
use super::list::{Entry, Fit, List, ListWriter};
use super::reason::{put_reason, read_reason};
use super::{Body, Kind};
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{DecodeError, EncodeError, put_extension, read_bool};

/// A taker calls. The donor answers WELCOME or REFUSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Oldest wire version that it speaks.
    pub min: u16,
    /// Newest wire version that it speaks.
    pub max: u16,
    /// Features that it knows, one a bit; see [`FEATURES`](crate::proto::wire::FEATURES).
    pub features: u64,
    /// Descriptor slots that it has free for items.
    pub free_slots: u64,
    /// Its CLOCK_MONOTONIC, in nanoseconds, when this was written. If it is the donor's clock, this
    /// is later than what the donor read a moment before.
    pub now_ns: u64,
    /// Its process id, for the log. The kernel says who it really is (SO_PEERCRED, unix(7)).
    pub pid: u32,
    /// The newest state version that its application reads, so that the donor's application can
    /// write an older one. This is an extension. A release that does not know the extension skips
    /// it. A taker that does not send it is sent the newest state version.
    pub newest_state: Option<u16>,
    /// The kernel's number for its network namespace (SO_NETNS_COOKIE), if it wants to be refused
    /// by a donor in another one. This is an extension, like the one before.
    pub network: Option<u64>,
}

/// Extension of a HELLO: the newest state version, u16.
const NEWEST_STATE: u16 = 1;
/// Extension of a HELLO: the network namespace, u64.
const NETWORK: u16 = 2;

impl Body<'_> for Hello {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Hello {
            min: reader.u16()?,
            max: reader.u16()?,
            features: reader.u64()?,
            free_slots: reader.u64()?,
            now_ns: reader.u64()?,
            pid: reader.u32()?,
            newest_state: None,
            network: None,
        })
    }

    fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
        match kind {
            NEWEST_STATE => match (self.newest_state, <[u8; 2]>::try_from(value)) {
                (None, Ok(version)) => self.newest_state = Some(u16::from_le_bytes(version)),
                _ => return Err(DecodeError::Value("newest state version")),
            },
            NETWORK => match (self.network, <[u8; 8]>::try_from(value)) {
                (None, Ok(cookie)) => self.network = Some(u64::from_le_bytes(cookie)),
                _ => return Err(DecodeError::Value("network namespace")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u16(self.min);
        out.put_u16(self.max);
        out.put_u64(self.features);
        out.put_u64(self.free_slots);
        out.put_u64(self.now_ns);
        out.put_u32(self.pid);
        if let Some(version) = self.newest_state {
            put_extension(NEWEST_STATE, &version.to_le_bytes(), out);
        }
        if let Some(cookie) = self.network {
            put_extension(NETWORK, &cookie.to_le_bytes(), out);
        }
        Ok(())
    }
}

/// The taker holds what was sent, except these items. [`AckBuilder`](super::AckBuilder) writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ack<'a> {
    /// Sequence number of the record that asked for it.
    pub sequence: u32,
    /// Items of that batch that it does not take.
    pub declined: Declined<'a>,
}

impl<'a> Body<'a> for Ack<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let sequence = reader.u32()?;
        let declined = Declined::read(reader)?;
        Ok(Ack { sequence, declined })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u32(self.sequence);
        self.declined.put(out)
    }
}

/// Items that the taker does not take.
pub type Declined<'a> = List<'a, Decline>;

/// One item that the taker does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// The item.
    pub id: u64,
    /// Why.
    pub code: DeclineCode,
}

impl Entry<'_> for Decline {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.u64()?;
        let code = DeclineCode::from_code(reader.u16()?);
        Ok(Decline { id, code })
    }
}

/// Writes an ACK.
#[derive(Debug)]
pub struct AckBuilder<'v>(ListWriter<'v>);

impl<'v> AckBuilder<'v> {
    /// Begins the record in `out`, in place of whatever was there. `sequence` is that of
    /// the record that asked for it.
    pub fn new(sequence: u32, out: &'v mut Vec<u8>) -> Self {
        AckBuilder(ListWriter::new(Kind::Ack, out, |out| out.put_u32(sequence)))
    }

    /// Adds an item that is not taken.
    pub fn push(&mut self, decline: Decline) -> Fit {
        self.0.add(|out| {
            out.put_u64(decline.id);
            out.put_u16(decline.code.code());
        })
    }

    /// Completes the record.
    pub fn finish(self) {
        self.0.finish(false);
    }
}

/// The taker has claimed the lease and serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Active {
    /// The outcome on the taker's side. This is an extension, as in a HELLO.
    pub outcome: Option<Served>,
}

/// What only the taker knows, for the donor's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// CLOCK_MONOTONIC, in nanoseconds, when the freeze was over.
    pub since_ns: u64,
    /// Connections that had been reset before they came to the taker.
    pub dead: u64,
}

/// Extension of an ACTIVE: since when it serves and how many were dead, two u64.
const SERVED: u16 = 1;

impl Body<'_> for Active {
    fn read(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Active::default())
    }

    fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
        if kind != SERVED {
            return Ok(false);
        }
        match (self.outcome, value.as_chunks::<8>()) {
            (None, ([since_ns, dead], [])) => {
                let (since_ns, dead) = (u64::from_le_bytes(*since_ns), u64::from_le_bytes(*dead));
                self.outcome = Some(Served { since_ns, dead });
                Ok(true)
            }
            _ => Err(DecodeError::Value("what was served")),
        }
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(Served { since_ns, dead }) = self.outcome {
            let value = [since_ns.to_le_bytes(), dead.to_le_bytes()].concat();
            put_extension(SERVED, &value, out);
        }
        Ok(())
    }
}

/// The taker gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fail<'a> {
    /// Why.
    pub code: FailCode,
    /// The item that it is about, if there is one.
    pub item: Option<u64>,
    /// Why, in words; at most [`MAX_REASON`](crate::proto::wire::MAX_REASON) bytes.
    pub reason: &'a str,
}

impl<'a> Body<'a> for Fail<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = FailCode::from_code(reader.u16()?);
        let has_item = read_bool(reader, "item flag")?;
        let item = if has_item { Some(reader.u64()?) } else { None };
        Ok(Fail {
            code,
            item,
            reason: read_reason(reader)?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u16(self.code.code());
        out.put_u8(self.item.is_some().into());
        if let Some(item) = self.item {
            out.put_u64(item);
        }
        put_reason(self.reason, out);
        Ok(())
    }
}
