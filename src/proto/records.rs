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
mod items;
mod list;
mod single;
mod state;

pub use codes::{DeclineCode, FailCode, ItemKind, RefuseCode};
pub use items::{Descriptor, Items, ItemsBuilder};
pub use list::{AckBuilder, Closed, ClosedBuilder, Decline, Declined, Entries, Fit, List};
pub use single::{Abort, Ack, Active, End, Fail, Hello, Refuse, Served, Welcome};
pub use state::{Part, Parts, StateBuilder, Unsent};

use super::cursor::Reader;
use super::wire::{
    DecodeError, EncodeError, HEADER, Header, MAX_FDS, MAX_RECORD, Versions, begin_record,
    end_record, read_extensions,
};

/// The bit of the kind that tells which side sends it.
const FROM_TAKER: u8 = 0x80;

/// What a record is; the number is its code in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Record::Welcome`]
    Welcome = 0x01,
    /// [`Record::Refuse`]
    Refuse = 0x02,
    /// [`Record::Items`]
    Items = 0x03,
    /// [`Record::State`]
    State = 0x04,
    /// [`Record::Closed`]
    Closed = 0x05,
    /// [`Record::Prepare`]
    Prepare = 0x06,
    /// [`Record::End`]
    End = 0x07,
    /// [`Record::Abort`]
    Abort = 0x08,
    /// [`Record::Hello`]
    Hello = FROM_TAKER | 0x01,
    /// [`Record::Ack`]
    Ack = FROM_TAKER | 0x02,
    /// [`Record::Drained`]
    Drained = FROM_TAKER | 0x03,
    /// [`Record::Fail`]
    Fail = FROM_TAKER | 0x04,
    /// [`Record::Active`]
    Active = FROM_TAKER | 0x05,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Kind; 13] = [
        Kind::Welcome,
        Kind::Refuse,
        Kind::Items,
        Kind::State,
        Kind::Closed,
        Kind::Prepare,
        Kind::End,
        Kind::Abort,
        Kind::Hello,
        Kind::Ack,
        Kind::Drained,
        Kind::Fail,
        Kind::Active,
    ];

    /// The kind with this code in the header.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
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

/// One record. The [module](self) has a table of which side sends which.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    /// The donor agrees to a takeover. Comes with the lease as its one fd.
    Welcome(Welcome<'a>),
    /// The donor does not agree. The channel ends after it.
    Refuse(Refuse<'a>),
    /// Items that the taker is to hold copies of, with their fds.
    Items(Items<'a>),
    /// State of items, in parts.
    State(Parts<'a>),
    /// Items that the donor has closed since it sent them.
    Closed(Closed<'a>),
    /// The freeze is near: the taker is to discard stale readiness.
    Prepare,
    /// The lease is granted. This is what the taker must have seen before it claims.
    End(End),
    /// The donor gives up and serves on. The channel ends after it.
    Abort(Abort<'a>),
    /// The taker calls.
    Hello(Hello),
    /// The taker holds everything that was sent up to a record.
    Ack(Ack<'a>),
    /// The taker has discarded stale readiness.
    Drained,
    /// The taker gives up. The channel ends after it.
    Fail(Fail<'a>),
    /// The taker has claimed the lease and serves.
    Active(Active),
}

impl Record<'_> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Record::Welcome(_) => Kind::Welcome,
            Record::Refuse(_) => Kind::Refuse,
            Record::Items(_) => Kind::Items,
            Record::State(_) => Kind::State,
            Record::Closed(_) => Kind::Closed,
            Record::Prepare => Kind::Prepare,
            Record::End(_) => Kind::End,
            Record::Abort(_) => Kind::Abort,
            Record::Hello(_) => Kind::Hello,
            Record::Ack(_) => Kind::Ack,
            Record::Drained => Kind::Drained,
            Record::Fail(_) => Kind::Fail,
            Record::Active(_) => Kind::Active,
        }
    }

    /// How many fds come with it.
    #[must_use]
    pub fn fds(&self) -> usize {
        match self {
            Record::Welcome(_) => 1,
            Record::Items(items) => items.iter().filter(|item| item.has_fd).count(),
            Record::Refuse(_)
            | Record::State(_)
            | Record::Closed(_)
            | Record::Prepare
            | Record::End(_)
            | Record::Abort(_)
            | Record::Hello(_)
            | Record::Ack(_)
            | Record::Drained
            | Record::Fail(_)
            | Record::Active(_) => 0,
        }
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
    match record {
        Record::Welcome(welcome) => {
            if let Err(error) = welcome.put(out) {
                out.clear();
                return Err(error);
            }
        }
        Record::Refuse(refuse) => refuse.put(out),
        Record::Items(items) => items.put(out),
        Record::State(parts) => parts.put(out),
        Record::Closed(ids) => ids.put(out),
        Record::End(end) => end.put(out),
        Record::Abort(abort) => abort.put(out),
        Record::Hello(hello) => hello.put(out),
        Record::Ack(ack) => ack.put(out),
        Record::Fail(fail) => fail.put(out),
        Record::Active(active) => active.put(out),
        Record::Prepare | Record::Drained => {}
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
    let mut record = match kind {
        Kind::Welcome => Record::Welcome(Welcome::read(&mut reader)?),
        Kind::Refuse => Record::Refuse(Refuse::read(&mut reader)?),
        Kind::Items => Record::Items(Items::read(&mut reader)?),
        Kind::State => Record::State(Parts::read(&mut reader)?),
        Kind::Closed => Record::Closed(Closed::read(&mut reader)?),
        Kind::Prepare => Record::Prepare,
        Kind::End => Record::End(End::read(&mut reader)?),
        Kind::Abort => Record::Abort(Abort::read(&mut reader)?),
        Kind::Hello => Record::Hello(Hello::read(&mut reader)?),
        Kind::Ack => Record::Ack(Ack::read(&mut reader)?),
        Kind::Drained => Record::Drained,
        Kind::Fail => Record::Fail(Fail::read(&mut reader)?),
        Kind::Active => Record::Active(Active::default()),
    };
    read_extensions(&mut reader, |kind, value| match &mut record {
        Record::Hello(hello) => hello.extend(kind, value),
        Record::End(end) => end.extend(kind, value),
        Record::Active(active) => active.extend(kind, value),
        _ => Ok(false),
    })?;

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
