//! What the taker tells the donor: HELLO, ACK, DRAINED, FAIL.

use std::hint::black_box;
use std::io;

use super::TakerSide;
use crate::event::{Cx, Interest, Time};
use crate::proto::records::{self, AckBuilder, End, Fail, FailCode, Fit, Hello, Record};
use crate::proto::wire::{FEATURES, Versions};
use crate::takeover::application::Application;
use crate::takeover::core::taker::Event;
use crate::takeover::os::channel::Sent;
use crate::takeover::os::limits;
use crate::takeover::session::import::Problem;
use crate::takeover::session::record_channel::{RecordChannel, is_hung_up};

/// Descriptors that a taker opens for itself between HELLO and the claim.
const OWN: usize = 24;

pub(super) fn hello(
    channel: &mut RecordChannel,
    newest_state: Option<u16>,
    network: Option<u64>,
) -> io::Result<()> {
    let free = limits::free_slots()?.saturating_sub(OWN);
    let Versions { min, max } = Versions::OURS;
    let hello = Record::Hello(Hello {
        min,
        max,
        features: FEATURES,
        free_slots: free as u64,
        now_ns: Time::now().as_ns(),
        pid: std::process::id(),
        newest_state,
        network,
    });
    match channel.send_record(&hello) {
        Ok(Sent::Done) => Ok(()),
        // The first record of a fresh channel always has room: it is the kernel that has not.
        Ok(Sent::Blocked | Sent::NoBuffers) => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
        // It hung up on us at once; what it said is still to be read.
        Err(error) if is_hung_up(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

impl TakerSide {
    pub(super) fn acknowledge<S: Application>(
        &mut self,
        cx: &mut Cx<S>,
        sequence: u32,
    ) -> Option<Event> {
        let mut declines = std::mem::take(&mut self.import.declines);
        let mut record = Vec::new();
        let mut builder = AckBuilder::new(sequence, &mut record);
        for decline in declines.drain(..) {
            if builder.push(decline) == Fit::Full {
                let what = "more declines than a record holds".to_owned();
                return Some(self.unusable(Problem::new(FailCode::Internal, what)));
            }
        }
        builder.finish();
        let acknowledged = self.channel.send_or_queue(record, |_| ());
        self.said(cx, acknowledged)
    }

    pub(super) fn settle<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Option<Event> {
        self.import.suspect(app, cx, self.donors.freeze / 2);
        // Now, as the donor serves on: it may take its time, and refusing costs nobody anything.
        if let Err(what) = app.arrived(cx) {
            return Some(self.unusable(Problem::new(FailCode::Invalid, what)));
        }
        if let Err(problem) = self.reserve_path(cx) {
            return Some(self.unusable(problem));
        }
        if let Err(error) = cx.settle() {
            let what = format!("epoll: {error}");
            return Some(self.unusable(Problem::new(FailCode::Resources, what)));
        }
        let drained = self.channel.send_record(&Record::Drained);
        let failed = self.said(cx, drained);
        self.report.times.held = Some(Time::now());
        self.rehearse();
        self.awake_until = Time::now() + self.awake;
        failed
    }

    /// After the claim nothing may fail: what could keep our socket from PATH is found now.
    fn reserve_path<S: Application>(&self, cx: &mut Cx<S>) -> Result<(), Problem> {
        let Some(offer) = cx.get_mut(self.offer) else {
            return Ok(());
        };
        let path = offer.path().clone();
        offer.reserve().map_err(|error| {
            let what = format!("takeover path {path}: {error}");
            Problem::new(FailCode::Resources, what)
        })
    }

    /// Does what comes behind END, as far as that has no effect: see the donor's, which serves
    /// its last turn meanwhile.
    fn rehearse(&self) {
        let end = End {
            items: self.import.len() as u64,
            closed: 0,
            new: 0,
            changed: 0,
            held_ns: 0,
            digest: self.import.digest.value(),
            rounds: None,
        };
        let mut record = Vec::new();
        let _ = records::encode(&Record::End(end), false, &mut record);
        let _ = black_box(records::decode(&record, 0));
        let _ = black_box(self.import.agrees_with(&end));
        black_box(self.import.runs().count());
    }

    /// What follows from an attempt to say something.
    fn said<S: Application>(&mut self, cx: &mut Cx<S>, said: io::Result<Sent>) -> Option<Event> {
        match said {
            Ok(Sent::Done) => None,
            Ok(Sent::Blocked | Sent::NoBuffers) => {
                // A donor reads what it asked for; should it not, its deadline is ours too.
                let _ = cx.set_interest(self.watch.id(), Interest::Both);
                None
            }
            // Its end of the channel is closed; what it said before is still to be read.
            Err(error) if is_hung_up(&error) => None,
            Err(error) => {
                let what = format!("send: {error}");
                Some(self.unusable(Problem::new(FailCode::Resources, what)))
            }
        }
    }

    pub(super) fn fail(&mut self) {
        // Without a problem of our own it was a good record at the wrong time.
        let problem = self.problem.get_or_insert_with(|| {
            Problem::new(FailCode::Malformed, "a record came out of its turn".into())
        });
        log::error!("cannot take over: {problem}");
        self.report.failure = problem.to_string();
        let fail = Record::Fail(Fail {
            code: problem.code,
            reason: &problem.what,
            item: problem.item,
        });
        if let Err(error) = self.channel.send_record(&fail) {
            log::debug!("the donor was not told: {error}");
        }
    }
}
