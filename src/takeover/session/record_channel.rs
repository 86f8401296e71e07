//! Records over the channel: numbered, and kept in order when the channel has no room.
//!
//! ```text
//!   try_send        ──▶ the channel, or Blocked and nothing has happened
//!   send_or_queue   ──▶ the channel, or the queue ──flush──▶ the channel
//! ```
//!
//! Once donor and taker have agreed on a wire version, each record is of it, in both directions.
//!
//! Invariant: while the queue holds a record, nothing else goes out; so records arrive in
//! the order in which they were given, and their numbers have no gap. Only records without
//! descriptors wait here: a descriptor could be closed meanwhile.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::drain_channel;
use crate::event::Next;
use crate::proto::records::{self, Record};
use crate::proto::wire::{self, Header, MAX_RECORD, MAX_VERSION};
use crate::takeover::os::channel::{Channel, Fault, Got, Sent};

/// See the file's own description.
#[derive(Debug)]
pub(super) struct RecordChannel {
    channel: Channel,
    /// The version that both sides speak; not known before WELCOME.
    agreed: Option<u16>,
    next_out: u32,
    next_in: u32,
    queue: VecDeque<Vec<u8>>,
    buffer: Box<[u8]>,
    /// Descriptors of the record received last.
    pub(super) fds: Vec<OwnedFd>,
    /// Bytes sent or received so far.
    pub(super) bytes: u64,
    /// Descriptors sent or received so far.
    pub(super) passed: u64,
}

impl RecordChannel {
    pub(super) fn new(channel: Channel) -> RecordChannel {
        RecordChannel {
            channel,
            agreed: None,
            next_out: 0,
            next_in: 0,
            queue: VecDeque::new(),
            buffer: vec![0; MAX_RECORD].into_boxed_slice(),
            fds: Vec::new(),
            bytes: 0,
            passed: 0,
        }
    }

    /// From here on everything is said in this version, and nothing else is heard.
    pub(super) fn agree(&mut self, version: u16) {
        self.agreed = Some(version);
    }

    /// The version that was agreed on.
    pub(super) fn agreed(&self) -> Option<u16> {
        self.agreed
    }

    /// A duplicate of the channel's descriptor, for the reactor to watch.
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        self.channel.as_fd().try_clone_to_owned()
    }

    /// Sends the record now, or not at all. Its number is written into it.
    pub(super) fn try_send(
        &mut self,
        record: &mut [u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Sent> {
        match self.flush()? {
            Sent::Done => {}
            full => return Ok(full),
        }
        self.mark(record);
        let sent = self.channel.send(record, fds)?;
        if sent == Sent::Done {
            self.count(record.len(), fds.len());
        }
        Ok(sent)
    }

    /// Sends the record now or as soon as there is room; returns whether all is out. Its
    /// number is written into it first, for `seen`.
    pub(super) fn send_or_queue(
        &mut self,
        mut record: Vec<u8>,
        seen: impl FnOnce(&[u8]),
    ) -> io::Result<Sent> {
        self.mark(&mut record);
        seen(&record);
        self.count(record.len(), 0);
        self.queue.push_back(record);
        self.flush()
    }

    /// Says a record without descriptors now, or as soon as there is room; returns whether all is
    /// out.
    pub(super) fn send_record(&mut self, record: &Record<'_>) -> io::Result<Sent> {
        let mut bytes = Vec::new();
        records::encode(record, false, &mut bytes).map_err(io::Error::other)?;
        self.send_or_queue(bytes, |_| ())
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> io::Result<Sent> {
        while let Some(record) = self.queue.front() {
            match self.channel.send(record, &[]) {
                Ok(Sent::Done) => {}
                Ok(full) => return Ok(full),
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
            }
            self.queue.pop_front();
        }
        Ok(Sent::Done)
    }

    /// What waits cannot be sent, so the attempt is over: its last word comes in the place of
    /// all that, and is understood.
    fn give_up(&mut self) {
        self.next_out = self.next_out.wrapping_sub(self.queue.len() as u32);
        self.queue.clear();
    }

    /// The number of the record sent last.
    pub(super) fn last_number(&self) -> u32 {
        self.next_out.wrapping_sub(1)
    }

    /// The next record. One that is not the next, or of another version, is thrown away with its
    /// descriptors; more may follow.
    pub(super) fn receive(&mut self) -> Got {
        let got = self.channel.recv(&mut self.buffer, &mut self.fds);
        if let Got::Record(length) = got {
            if let Err(what) = self.check(length) {
                self.fds.clear();
                return Got::Broken(Fault::Unexpected(what));
            }
            self.next_in = self.next_in.wrapping_add(1);
            self.bytes += length as u64;
            self.passed += self.fds.len() as u64;
        }
        got
    }

    /// Whether the other side has closed its end. What it said before is read, and dropped.
    pub(super) fn has_ended(&mut self) -> bool {
        let mut has_ended = false;
        drain_channel(|| match self.receive() {
            Got::End => {
                has_ended = true;
                Next::Keep
            }
            Got::Empty | Got::Broken(Fault::Os(_)) => Next::Keep,
            Got::Record(_) | Got::Broken(_) => Next::Again,
        });
        has_ended
    }

    /// Moves the receive buffer out, so that a record can be looked at while this is used;
    /// give it back with [`RecordChannel::put_buffer`].
    pub(super) fn take_buffer(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn put_buffer(&mut self, buffer: Box<[u8]>) {
        self.buffer = buffer;
    }

    /// Whether what arrived is the next record, and of the version agreed on.
    fn check(&self, length: usize) -> Result<(), String> {
        let header = Header::read(&self.buffer[..length]).map_err(|error| error.to_string())?;
        if header.sequence != self.next_in {
            let (number, wanted) = (header.sequence, self.next_in);
            return Err(format!("record {number} came in place of {wanted}"));
        }
        match self.agreed {
            Some(agreed) if header.version != agreed => Err(format!(
                "record of wire version {}, agreed on was {agreed}",
                header.version
            )),
            _ => Ok(()),
        }
    }

    fn mark(&self, record: &mut [u8]) {
        wire::patch_version(record, self.agreed.unwrap_or(MAX_VERSION));
        wire::patch_sequence(record, self.next_out);
    }

    fn count(&mut self, bytes: usize, fds: usize) {
        self.next_out = self.next_out.wrapping_add(1);
        self.bytes += bytes as u64;
        self.passed += fds as u64;
    }
}

/// Whether the other side has closed its end (unix(7)): an end of its own, and no verdict. What it
/// said before is still to be read.
pub(super) fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::records::encode;

    fn record() -> Vec<u8> {
        let mut out = Vec::new();
        encode(&Record::Prepare, false, &mut out).unwrap();
        out
    }

    fn drain(channel: &mut RecordChannel) -> usize {
        let mut records = 0;
        loop {
            match channel.receive() {
                Got::Record(_) => records += 1,
                Got::Empty => return records,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn full_channel_keeps_order_and_numbers() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (RecordChannel::new(one), RecordChannel::new(other));
        while one.send_or_queue(record(), |_| ()).unwrap() == Sent::Done {}
        assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Blocked);
        assert_eq!(one.try_send(&mut record(), &[]).unwrap(), Sent::Blocked);
        let first = drain(&mut other);
        assert_eq!(one.flush().unwrap(), Sent::Done);
        assert_eq!(one.try_send(&mut record(), &[]).unwrap(), Sent::Done);
        assert_eq!(drain(&mut other), 3);
        assert_eq!(one.last_number() as usize + 1, first + 3);
    }

    #[test]
    fn record_that_cannot_be_sent_makes_way_for_the_last_word() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (RecordChannel::new(one), RecordChannel::new(other));
        assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Done);
        let longer_than_the_buffer = vec![0; 1 << 20];
        one.send_or_queue(longer_than_the_buffer, |_| ())
            .unwrap_err();
        assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Done);
        assert_eq!(drain(&mut other), 2);
    }

    #[test]
    fn channel_has_ended_only_once_the_other_side_has_closed_it() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (RecordChannel::new(one), RecordChannel::new(other));
        for _ in 0..3 {
            assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Done);
        }
        assert!(!other.has_ended());
        assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Done);
        drop(one);
        assert!(other.has_ended());
    }

    #[test]
    fn record_out_of_order_is_broken() {
        let (one, other) = Channel::pair().unwrap();
        let mut other = RecordChannel::new(other);
        let mut late = record();
        wire::patch_sequence(&mut late, 1);
        assert_eq!(one.send(&late, &[]).unwrap(), Sent::Done);
        assert!(matches!(other.receive(), Got::Broken(_)));
    }

    #[test]
    fn version_agreed_on_is_said_and_no_other_is_heard() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, mut other) = (RecordChannel::new(one), RecordChannel::new(other));
        // Two releases that could speak 3 as well have met at 2.
        one.agree(2);
        other.agree(2);
        assert_eq!(one.send_or_queue(record(), |_| ()).unwrap(), Sent::Done);
        assert!(matches!(other.receive(), Got::Record(_)));
        assert_eq!(Header::read(&other.buffer).unwrap().version, 2);
        one.agree(3);
        assert_eq!(one.try_send(&mut record(), &[]).unwrap(), Sent::Done);
        let Got::Broken(Fault::Unexpected(what)) = other.receive() else {
            panic!("heard");
        };
        assert_eq!(what, "record of wire version 3, agreed on was 2");
    }
}
