//! One caller, from its connect to the outcome.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use crate::event::{Handle, Time};
use crate::proto::digest::Digest;
use crate::proto::records::{self, End, Record, Served};
use crate::proto::wire::EncodeError;
use crate::takeover::core::ledger::Batch;
use crate::takeover::os::channel::Sent;
use crate::takeover::os::identity::Identity;
use crate::takeover::os::lease::Lease;
use crate::takeover::report::{Report, Tally};
use crate::takeover::session::export::LastSent;
use crate::takeover::session::record_channel::RecordChannel;

/// One caller, from its connect to the outcome.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) channel: RecordChannel,
    pub(super) watch: Handle<OwnedFd>,
    pub(super) taker: Identity,
    pub(super) death: Option<Handle<OwnedFd>>,
    pub(super) lease: Option<Lease>,
    /// What the taker says that it knows.
    pub(super) features: u64,
    /// What it was told last of each item that is carried.
    pub(super) told: HashMap<u32, LastSent>,
    pub(super) digest: Digest,
    /// What it said of how it went.
    pub(super) served: Option<Served>,
    pub(super) report: Report,
    /// What exactly went wrong, for the log.
    pub(super) note: String,
}

impl Attempt {
    /// Sends a last word, as far as that is possible; says what it has to wait for.
    pub(super) fn send_or_log(&mut self, record: &Record<'_>) -> Sent {
        self.channel.send_record(record).unwrap_or_else(|error| {
            log::debug!("the taker was not told: {error}");
            Sent::Done
        })
    }

    /// END, as it would be now.
    pub(super) fn end_record(&self) -> Result<Vec<u8>, EncodeError> {
        let report = &self.report;
        let end = Record::End(End {
            items: report.items,
            closed: report.last.closed,
            new: report.last.new,
            changed: report.last.changed,
            held_ns: report.times.held.map_or(0, Time::as_ns),
            digest: self.digest.value(),
            rounds: Some(report.rounds),
        });
        let mut record = Vec::new();
        records::encode(&end, false, &mut record)?;
        Ok(record)
    }

    /// Counts a batch of the final array.
    pub(super) fn count(&mut self, batch: &Batch) {
        let Tally {
            closed,
            new,
            changed,
        } = &mut self.report.last;
        match batch {
            Batch::Closed(ids) => *closed += ids.len() as u64,
            Batch::Items {
                new: opened,
                changed: dirty,
            } => {
                *new += opened.len() as u64;
                *changed += dirty.len() as u64;
            }
        }
    }

    pub(super) fn final_report(&mut self) -> Report {
        self.report.bytes = self.channel.bytes;
        self.report.fds = self.channel.passed;
        if let Some(Served { since_ns, dead }) = self.served {
            // Since it serves, rather than since we know.
            self.report.times.decided = Some(Time::from_ns(since_ns));
            self.report.dead = dead;
        }
        self.report.clone()
    }
}
