//! What donor and taker say to each other over the channel.
//!
//! | donor → taker | | taker → donor | |
//! |---|---|---|---|
//! | [`Welcome`] | what comes, and the lease | [`Hello`] | who calls, and what it can |
//! | [`Refuse`] | no takeover, and why | [`Ack`] | batch taken, except these |
//! | [`Items`] | descriptors and fds | Drained | stale readiness was discarded |
//! | [`Parts`] | items' state | [`Fail`] | the taker gives up |
//! | [`Closed`] | items that are gone | Active | the taker serves |
//! | Prepare | discard stale readiness | | |
//! | [`End`] | everything was sent; claim the lease | | |
//! | [`Abort`] | the donor gives up | | |
//!
//! [`encode`] writes records without a list. A record with a list is written by the builder of the
//! same name, which says when the record is full. Both leave exactly one record in the vector they
//! are given, ready for [`patch_sequence`](super::wire::patch_sequence). [`decode`] is their
//! counterpart. It borrows from the received bytes, and what it returns is valid throughout, to the
//! last entry of a list.
//!
//! The records only say what the bytes mean. The states of donor and taker decide which record may
//! come when.

mod codes;
mod from_donor;
mod from_taker;
mod items;
mod list;
mod reason;
mod state;

pub use codes::{DeclineCode, FailCode, ItemKind, RefuseCode};
pub use from_donor::{Abort, Closed, ClosedBuilder, End, Refuse, Welcome};
pub use from_taker::{Ack, AckBuilder, Active, Decline, Declined, Fail, Hello, Served};
pub use items::{Descriptor, Items, ItemsBuilder};
pub use list::{Entries, Fit, List};
pub use state::{Part, Parts, StateBuilder, Unsent};

use super::cursor::Reader;
use super::wire::{
    DecodeError, EncodeError, HEADER, Header, MAX_FDS, MAX_RECORD, Versions, begin_record,
    end_record, read_extensions,
};

/// The bit of the kind that tells which side sends it.
const FROM_TAKER: u8 = 0x80;

/// The layout of a record's body.
trait Body<'a>: Sized {
    /// Takes it from the bytes behind the header.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Appends it.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Takes an extension. Returns false if it is not known.
    fn extend(&mut self, _kind: u16, _value: &[u8]) -> Result<bool, DecodeError> {
        Ok(false)
    }

    /// How many fds come with it.
    fn fds(&self) -> usize {
        0
    }
}

/// Makes [`Kind`] and [`Record`] from the table of all records: the code in the header, the name,
/// and the body if there is one.
macro_rules! records {
    ($($(#[$doc:meta])* $code:literal $kind:ident $(($body:ty))?;)*) => {
        /// What a record is; the number is its code in the header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("[`Record::", stringify!($kind), "`]")] $kind = $code,)*
        }

        impl Kind {
            /// All kinds, in the order of their codes.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];
        }

        /// One record. The [module](self) has a table of which side sends which.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Record<'a> {
            $($(#[$doc])* $kind $(($body))?,)*
        }

        impl<'a> Record<'a> {
            /// What it is.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $(Record::$kind { .. } => Kind::$kind,)*
                }
            }

            /// How many fds come with it.
            #[must_use]
            pub fn fds(&self) -> usize {
                $($(if let Record::$kind(body) = self {
                    return <$body>::fds(body);
                })?)*
                0
            }

            fn read(kind: Kind, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(match kind {
                    $(Kind::$kind => Record::$kind $((<$body>::read(reader)?))?,)*
                })
            }

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                $($(if let Record::$kind(body) = self {
                    return <$body>::put(body, out);
                })?)*
                Ok(())
            }

            fn extend(&mut self, kind: u16, value: &[u8]) -> Result<bool, DecodeError> {
                $($(if let Record::$kind(body) = self {
                    return <$body>::extend(body, kind, value);
                })?)*
                Ok(false)
            }
        }
    };
}

records! {
    /// The donor agrees to a takeover. Comes with the lease as its one fd.
    0x01 Welcome(Welcome<'a>);
    /// The donor does not agree. The channel ends after it.
    0x02 Refuse(Refuse<'a>);
    /// Items that the taker is to hold copies of, with their fds.
    0x03 Items(Items<'a>);
    /// State of items, in parts.
    0x04 State(Parts<'a>);
    /// Items that the donor has closed since it sent them.
    0x05 Closed(Closed<'a>);
    /// The freeze is near: the taker is to discard stale readiness.
    0x06 Prepare;
    /// The lease is granted. This is what the taker must have seen before it claims.
    0x07 End(End);
    /// The donor gives up and serves on. The channel ends after it.
    0x08 Abort(Abort<'a>);
    /// The taker calls.
    0x81 Hello(Hello);
    /// The taker holds everything that was sent up to a record.
    0x82 Ack(Ack<'a>);
    /// The taker has discarded stale readiness.
    0x83 Drained;
    /// The taker gives up. The channel ends after it.
    0x84 Fail(Fail<'a>);
    /// The taker has claimed the lease and serves.
    0x85 Active(Active);
}

impl Kind {
    /// The kind with this code in the header.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// The code in the header.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether the taker sends this, and not the donor.
    #[must_use]
    pub fn is_from_taker(self) -> bool {
        self.code() & FROM_TAKER != 0
    }

    /// Whether records of this kind make up batches. The last record of a batch is acknowledged.
    #[must_use]
    pub fn is_batch(self) -> bool {
        matches!(self, Kind::Items | Kind::State | Kind::Closed)
    }

    /// Whether the body is the same in every version.
    fn is_frozen(self) -> bool {
        matches!(self, Kind::Hello | Kind::Refuse)
    }
}

/// Makes `out` this record, with sequence number 0. `last` asks for an ACK; kinds that make up no
/// batch ignore it.
///
/// # Errors
/// [`EncodeError`] if the record has a name beyond its limit; `out` is then empty. A reason that is
/// too long is cut instead: a refusal must not fail for its wording.
pub fn encode(record: &Record<'_>, last: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    begin_record(record.kind().code(), out);
    if let Err(error) = record.put(out) {
        out.clear();
        return Err(error);
    }
    end_record(last && record.kind().is_batch(), out);
    Ok(())
}

/// Decodes the record that came as one message of `bytes` with `fds` file descriptors.
///
/// # Errors
/// See [`DecodeError`]. Any bytes give either a record or an error.
pub fn decode(bytes: &[u8], fds: usize) -> Result<(Header, Record<'_>), DecodeError> {
    let header = Header::read(bytes)?;
    let kind = kind_of(&header)?;
    if header.length as usize != bytes.len() || bytes.len() > MAX_RECORD {
        let (announced, received) = (header.length, bytes.len());
        return Err(DecodeError::Length {
            announced,
            received,
        });
    }
    if header.has_unknown_flags() || header.is_last() && !kind.is_batch() {
        return Err(DecodeError::Value("flag"));
    }

    let mut reader = Reader::new(&bytes[HEADER..]);
    let mut record = Record::read(kind, &mut reader)?;
    read_extensions(&mut reader, |kind, value| record.extend(kind, value))?;

    let announced = record.fds();
    if announced != fds || fds > MAX_FDS {
        return Err(DecodeError::Fds {
            announced,
            received: fds,
        });
    }
    Ok((header, record))
}

/// The kind of a record that can be read here. The rules of the record's own version decide about
/// its kind, so an unknown kind is an error only in a version of ours.
fn kind_of(header: &Header) -> Result<Kind, DecodeError> {
    let kind = Kind::from_code(header.kind);
    if !Versions::OURS.contain(header.version) && !kind.is_some_and(Kind::is_frozen) {
        return Err(DecodeError::Version {
            kind: header.kind,
            version: header.version,
        });
    }
    kind.ok_or(DecodeError::Kind(header.kind))
}

#[cfg(test)]
mod tests;
