//! What every takeover record has, whatever its kind and version: limits, header, errors.
//!
//! ```text
//!  0        4         6      7       8         12          16
//!  ┌────────┬─────────┬──────┬───────┬─────────┬───────────┬─────────────┬────────────┐
//!  │ "SKTO" │ version │ kind │ flags │ length  │ sequence  │ body        │ extensions │
//!  └────────┴─────────┴──────┴───────┴─────────┴───────────┴─────────────┴────────────┘
//!      u32      u16      u8     u8    u32, whole    u32                    type u16, length u16,
//!                                     record                               value; repeated
//! ```
//!
//! All integers are little-endian. One record is one message of a SOCK_SEQPACKET socket.
//!
//! Frozen for ever, so that any two versions can at least refuse each other: this header, the
//! bodies of HELLO and REFUSE, and the form of the extensions. Everything else may change with
//! [`WIRE_VERSION`].
//!
//! By extensions a later release says more without a new version. If an extension's type has
//! [`MUST_UNDERSTAND`] set and is not known, the takeover ends. Any other unknown extension is
//! skipped.

use std::fmt;

use super::cursor::{Put, Reader, Truncated};

/// First bytes of every record.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SKTO");
/// The newest version that is spoken here, and the only one so far.
pub const WIRE_VERSION: u16 = 1;
/// Oldest version that is still understood.
pub const MIN_VERSION: u16 = WIRE_VERSION;
/// Newest version that is understood.
pub const MAX_VERSION: u16 = WIRE_VERSION;
/// Features that are known here, one a bit: none so far.
pub const FEATURES: u64 = 0;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// The most bytes of a record, header included. Several records fit into the smallest send buffer
/// that a stock kernel gives a socket (net.core.wmem_default, 212,992 bytes, which also pays for
/// the kernel's own bookkeeping). So a send waits for its turn, but never for ever.
pub const MAX_RECORD: usize = 64 * 1024;
/// The most items with an fd in a record. The kernel takes 253 fds in one message (SCM_MAX_FD,
/// include/net/scm.h). The rest is room for a lease or the like.
pub const MAX_FDS: usize = 250;
/// The most bytes of an item's or application's name. Its length is one byte on the wire, and it is
/// enough for a file name (NAME_MAX).
pub const MAX_NAME: usize = 255;
/// The most bytes of a reason: one line of a log.
pub const MAX_REASON: usize = 200;
/// The most bytes of one item's state. For a larger one the taker would hold memory on a stranger's
/// word, and the donor would copy it during the freeze. Put such a state into a memfd that is an
/// item of its own.
pub const MAX_STATE: usize = 1024 * 1024;
/// The most items that one item can name as linked with it.
pub const MAX_LINKS: usize = 16;

/// The bit of an extension's type that forbids to skip it.
pub const MUST_UNDERSTAND: u16 = 1 << 15;

/// The bit of the flags that asks for an acknowledgement of everything up to this record.
const LAST: u8 = 1;
/// Where the header has its version, its length and its sequence number.
const VERSION: std::ops::Range<usize> = 4..6;
const LENGTH: std::ops::Range<usize> = 8..12;
const SEQUENCE: std::ops::Range<usize> = 12..16;
const FLAGS: usize = 7;

/// The versions that one side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// Those that are spoken here.
    pub const OURS: Versions = Versions {
        min: MIN_VERSION,
        max: MAX_VERSION,
    };

    /// The highest version that both speak, if there is one. With it a donor answers a HELLO, so
    /// the older of two releases decides, whichever side it is on. A range whose ends are swapped
    /// has none.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min.max(other.min)).then_some(version)
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contain(self, version: u16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// A record's header. It can be read without the body and in any version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the record's body.
    pub version: u16,
    /// What the record is; see [`Kind`](super::records::Kind).
    pub kind: u8,
    /// Bit field, see [`Header::is_last`].
    pub flags: u8,
    /// Bytes of the whole record.
    pub length: u32,
    /// Position in the sender's stream of records.
    pub sequence: u32,
}

impl Header {
    /// The header at the front of a record.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] and [`DecodeError::BadMagic`]. Nothing else is checked.
    pub fn read(record: &[u8]) -> Result<Header, DecodeError> {
        let mut reader = Reader::new(record);
        if reader.u32()? != MAGIC {
            return Err(DecodeError::BadMagic);
        }
        Ok(Header {
            version: reader.u16()?,
            kind: reader.u8()?,
            flags: reader.u8()?,
            length: reader.u32()?,
            sequence: reader.u32()?,
        })
    }

    /// Whether the sender waits for an ACK of everything up to this record.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.flags & LAST != 0
    }

    /// Whether flags are set that mean nothing yet.
    pub(super) fn has_unknown_flags(&self) -> bool {
        self.flags & !LAST != 0
    }
}

/// Numbers a record that is ready to be sent.
///
/// # Panics
/// If `record` is shorter than a header.
pub fn patch_sequence(record: &mut [u8], sequence: u32) {
    record[SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
}

/// Marks a record with the version that both sides agreed on.
///
/// # Panics
/// If `record` is shorter than a header.
pub fn patch_version(record: &mut [u8], version: u16) {
    record[VERSION].copy_from_slice(&version.to_le_bytes());
}

/// Starts a record in `out`, in place of whatever was there.
pub(super) fn begin_record(kind: u8, out: &mut Vec<u8>) {
    out.clear();
    out.put_u32(MAGIC);
    out.put_u16(WIRE_VERSION);
    out.put_u8(kind);
    out.put(&[0; 9]); // flags, length, sequence: known later
}

/// Ends the record that fills `out`.
pub(super) fn end_record(last: bool, out: &mut [u8]) {
    debug_assert!(out.len() <= MAX_RECORD);
    let length = out.len() as u32;
    out[LENGTH].copy_from_slice(&length.to_le_bytes());
    out[FLAGS] = if last { LAST } else { 0 };
}

/// Reads the extensions to the end of the record. `known` is given each one, and says whether it is
/// known here.
pub(super) fn read_extensions(
    reader: &mut Reader<'_>,
    mut known: impl FnMut(u16, &[u8]) -> Result<bool, DecodeError>,
) -> Result<(), DecodeError> {
    while !reader.rest().is_empty() {
        let kind = reader.u16()?;
        let length = reader.u16()?;
        let value = reader.bytes(usize::from(length))?;
        if !known(kind, value)? && kind & MUST_UNDERSTAND != 0 {
            return Err(DecodeError::MustUnderstand(kind));
        }
    }
    Ok(())
}

/// Appends an extension.
pub(super) fn put_extension(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(value.len() <= usize::from(u16::MAX));
    out.put_u16(kind);
    out.put_u16(value.len() as u16);
    out.put(value);
}

/// Reads a text whose length is in front of it, in one byte.
pub(super) fn read_text<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
) -> Result<&'a str, DecodeError> {
    let length = reader.u8()?;
    let bytes = reader.bytes(usize::from(length))?;
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Value(what))
}

/// Reads a truth value.
pub(super) fn read_bool(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Value(what)),
    }
}

/// Refuses a text that is too long for its length.
pub(super) fn check_text(text: &str, what: &'static str) -> Result<(), EncodeError> {
    let length = text.len();
    if length > MAX_NAME {
        return Err(EncodeError::TooLong {
            what,
            length,
            most: MAX_NAME,
        });
    }
    Ok(())
}

/// Appends a text that has been checked, as [`read_text`] reads it.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    debug_assert!(check_text(text, "").is_ok());
    out.put_u8(text.len() as u8);
    out.put(text.as_bytes());
}

/// Why a received message is not a record. Each of these ends the takeover; they differ in what the
/// other side can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends before what it announces.
    Truncated,
    /// It does not begin with [`MAGIC`]: the sender speaks something else.
    BadMagic,
    /// Its version is not spoken here.
    Version {
        /// The header's kind, meant by the rules of that version.
        kind: u8,
        /// The header's version.
        version: u16,
    },
    /// Its kind is not known.
    Kind(u8),
    /// Its length is not that of the message it came in, or beyond [`MAX_RECORD`].
    Length {
        /// Length in the header.
        announced: u32,
        /// Bytes received.
        received: usize,
    },
    /// It came with another number of fds than it speaks of.
    Fds {
        /// As the record says.
        announced: usize,
        /// As they arrived.
        received: usize,
    },
    /// It has an extension of this type, which must be understood and is not.
    MustUnderstand(u16),
    /// It says something impossible.
    Value(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => write!(f, "record is cut short"),
            DecodeError::BadMagic => write!(f, "not a takeover record (wrong magic)"),
            DecodeError::Version { kind, version } => write!(
                f,
                "record of kind {kind:#04x} has wire version {version}, spoken here are {}",
                Versions::OURS
            ),
            DecodeError::Kind(kind) => write!(f, "unknown record kind {kind:#04x}"),
            DecodeError::Length {
                announced,
                received,
            } => write!(
                f,
                "record announces {announced} bytes and has {received} (at most {MAX_RECORD})"
            ),
            DecodeError::Fds {
                announced,
                received,
            } => write!(
                f,
                "record announces {announced} fds and came with {received} (at most {MAX_FDS})"
            ),
            DecodeError::MustUnderstand(kind) => {
                write!(
                    f,
                    "record has extension {kind:#06x}, which must be understood and is not known here"
                )
            }
            DecodeError::Value(what) => write!(f, "record has an invalid {what}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<Truncated> for DecodeError {
    fn from(_: Truncated) -> Self {
        DecodeError::Truncated
    }
}

/// Why something cannot be put into a record. The record is then empty, or as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A name, list or state is beyond its limit.
    TooLong {
        /// Which one.
        what: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        most: usize,
    },
    /// It contradicts itself, and the other side would refuse it.
    Value(&'static str),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TooLong { what, length, most } => {
                write!(
                    f,
                    "{what} has length {length}, at most {most} can be handed over"
                )
            }
            EncodeError::Value(what) => write!(f, "cannot be handed over: {what}"),
        }
    }
}

impl std::error::Error for EncodeError {}
