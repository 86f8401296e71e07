//! One side of a takeover played by the test, record by record, so that it can stay in any
//! state as long as it likes, and say what the product never would.
//!
//! | file | |
//! |---|---|
//! | `side/taker.rs` | [`FakeTaker`], against the service as donor |
//! | `side/donor.rs` | [`FakeDonor`], against the service as taker |
//!
//! Both own a [`Side`]: the channel, and the number of the next record. Their methods are the
//! steps of a correct attempt, each returns when it is done. What is wrong on purpose is said
//! through the [`Side`] itself.
//!
//! A donor kills a taker that has heard ABORT and does not go away within a second: that would
//! be the test itself. So a [`FakeTaker`] is dropped as soon as ABORT was heard.

mod donor;
mod taker;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket_takeover::proto::records::{self, Kind, Record};
use socket_takeover::proto::wire::{Header, MAX_RECORD, patch_sequence};
use socket_takeover::takeover::internal::channel::{Channel, Got, Sent};

pub use donor::{FakeDonor, Stuffing};
pub use taker::{At, Batch, Copy, FakeTaker};

use super::{BOUND, wait_readable};

/// One end of the channel.
#[derive(Debug)]
pub struct Side {
    channel: Channel,
    /// The number of the next record.
    next: u32,
    /// An extension that every record has from now on, by its type.
    pub extension: Option<u16>,
}

/// A record, and what came with it.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Received {
    pub fn record(&self) -> Record<'_> {
        let decoded = records::decode(&self.bytes, self.fds.len());
        decoded.expect("the product sends valid records").1
    }

    pub fn header(&self) -> Header {
        Header::read(&self.bytes).expect("the product sends valid records")
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Side {
    pub fn new(channel: Channel) -> Side {
        Side {
            channel,
            next: 0,
            extension: None,
        }
    }

    /// Says a record in its turn.
    pub fn say(&mut self, record: &Record<'_>) {
        self.say_encoded(encoded(record), &[]);
    }

    /// The same for one that is encoded but for its number, with descriptors. Returns its
    /// number.
    pub fn say_encoded(&mut self, bytes: Vec<u8>, fds: &[BorrowedFd<'_>]) -> u32 {
        let (number, sent) = self.try_say(bytes, fds);
        assert_eq!(
            sent.expect("the channel is open"),
            Sent::Done,
            "it has room"
        );
        number
    }

    /// The same, to another side that may have hung up.
    pub fn try_say(&mut self, bytes: Vec<u8>, fds: &[BorrowedFd<'_>]) -> (u32, io::Result<Sent>) {
        let number = self.next;
        let bytes = self.finished(bytes);
        self.next += 1;
        (number, self.throw(&bytes, fds))
    }

    /// An encoded record as it is said next: with its number, and its extension.
    pub fn finished(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(kind) = self.extension {
            extend(&mut bytes, kind, b"more");
        }
        patch_sequence(&mut bytes, self.next);
        bytes
    }

    /// Sends any bytes as they are.
    pub fn throw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Sent> {
        self.channel.send(bytes, fds)
    }

    /// The next record; `None` at the channel's end.
    ///
    /// # Panics
    /// If neither comes within [`BOUND`].
    pub fn hear(&mut self) -> Option<Received> {
        let mut buffer = vec![0; MAX_RECORD];
        let mut fds = Vec::new();
        loop {
            match self.channel.recv(&mut buffer, &mut fds) {
                Got::Record(length) => {
                    buffer.truncate(length);
                    return Some(Received { bytes: buffer, fds });
                }
                Got::Empty => {
                    let ready = wait_readable(&self.channel, BOUND);
                    assert!(ready.expect("it can be polled"), "the other side is silent");
                }
                Got::End => return None,
                Got::Broken(fault) => panic!("{fault}"),
            }
        }
    }

    /// The next record, which must be of this kind.
    pub fn expect(&mut self, kind: Kind) -> Received {
        let Some(received) = self.hear() else {
            panic!("the channel has ended before {kind:?}");
        };
        let record = received.record();
        assert_eq!(record.kind(), kind, "{record:?}");
        received
    }

    /// Hears the other side out: the kind of its last record before the channel's end.
    pub fn last_word(&mut self) -> Option<Received> {
        let mut last = None;
        while let Some(received) = self.hear() {
            last = Some(received);
        }
        last
    }

    /// Hears everything up to ABORT; false if the channel ends without it.
    pub fn await_abort(&mut self) -> bool {
        while let Some(received) = self.hear() {
            if received.record().kind() == Kind::Abort {
                return true;
            }
        }
        false
    }

    /// The number of the record that is to be said next.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// Whether something has arrived that was not heard yet, or the channel's end.
    pub fn has_news(&self) -> bool {
        wait_readable(&self.channel, std::time::Duration::ZERO).expect("it can be polled")
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Adds an extension of this type.
pub fn extend(record: &mut Vec<u8>, kind: u16, value: &[u8]) {
    record.extend_from_slice(&kind.to_le_bytes());
    record.extend_from_slice(&(value.len() as u16).to_le_bytes());
    record.extend_from_slice(value);
    let length = (record.len() as u32).to_le_bytes();
    record[8..12].copy_from_slice(&length);
}

/// A record without its number.
pub fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    records::encode(record, false, &mut bytes).expect("tests' names are short");
    bytes
}
