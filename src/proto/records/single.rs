//! The records without a list, or with little besides it. The fields of each are in the order of
//! its layout. A text has its length in front of it, in one byte.
//!
//! The layouts of HELLO and REFUSE never change: see [`wire`](crate::proto::wire).

use super::codes::{FailCode, RefuseCode};
use super::list::Declined;
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{
    DecodeError, EncodeError, MAX_REASON, check_text, put_extension, put_text, read_bool, read_text,
};

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

impl Hello {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
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

    /// Takes an extension, if it is known.
    pub(super) fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
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

    pub(super) fn put(&self, out: &mut Vec<u8>) {
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
    }
}

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

impl<'a> Welcome<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
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

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
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
    /// Why, in words; at most [`MAX_REASON`] bytes.
    pub reason: &'a str,
}

impl<'a> Refuse<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Refuse {
            code: RefuseCode::from_code(reader.u16()?),
            min: reader.u16()?,
            max: reader.u16()?,
            reason: read_reason(reader)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u16(self.code.code());
        out.put_u16(self.min);
        out.put_u16(self.max);
        put_reason(self.reason, out);
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

impl End {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
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

    /// Takes an extension, if it is known.
    pub(super) fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
        if kind != ROUNDS {
            return Ok(false);
        }
        match (self.rounds, <[u8; 4]>::try_from(value)) {
            (None, Ok(rounds)) => self.rounds = Some(u32::from_le_bytes(rounds)),
            _ => return Err(DecodeError::Value("rounds")),
        }
        Ok(true)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.items);
        out.put_u64(self.closed);
        out.put_u64(self.new);
        out.put_u64(self.changed);
        out.put_u64(self.held_ns);
        out.put_u64(self.digest);
        if let Some(rounds) = self.rounds {
            put_extension(ROUNDS, &rounds.to_le_bytes(), out);
        }
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

impl Active {
    /// Takes an extension, if it is known.
    pub(super) fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
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

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if let Some(Served { since_ns, dead }) = self.outcome {
            let value = [since_ns.to_le_bytes(), dead.to_le_bytes()].concat();
            put_extension(SERVED, &value, out);
        }
    }
}

/// The donor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort<'a> {
    /// Why, in words; at most [`MAX_REASON`] bytes.
    pub reason: &'a str,
}

impl<'a> Abort<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Abort {
            reason: read_reason(reader)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_reason(self.reason, out);
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

impl<'a> Ack<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let sequence = reader.u32()?;
        let declined = Declined::read(reader)?;
        Ok(Ack { sequence, declined })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.sequence);
        self.declined.put(out);
    }
}

/// The taker gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fail<'a> {
    /// Why.
    pub code: FailCode,
    /// The item that it is about, if there is one.
    pub item: Option<u64>,
    /// Why, in words; at most [`MAX_REASON`] bytes.
    pub reason: &'a str,
}

impl<'a> Fail<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = FailCode::from_code(reader.u16()?);
        let has_item = read_bool(reader, "item flag")?;
        let item = if has_item { Some(reader.u64()?) } else { None };
        Ok(Fail {
            code,
            item,
            reason: read_reason(reader)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u16(self.code.code());
        out.put_u8(self.item.is_some().into());
        if let Some(item) = self.item {
            out.put_u64(item);
        }
        put_reason(self.reason, out);
    }
}

fn read_reason<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let reason = read_text(reader, "reason")?;
    if reason.len() > MAX_REASON {
        return Err(DecodeError::Value("length of a reason"));
    }
    Ok(reason)
}

/// Cuts a text that is too long: the code says enough, and giving up must not fail for its wording.
fn put_reason(reason: &str, out: &mut Vec<u8>) {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    put_text(&reason[..end], out);
}
