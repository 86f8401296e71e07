//! What the taker tells the donor: HELLO, ACK, DRAINED, FAIL.

use std::hint::black_box;
use std::io;

use super::TakerSide;
use crate::event::{Cx, Interest, Time};
use crate::proto::records::{self, AckBuilder, End, Fail, FailCode, Fit, Hello, Record};
use crate::proto::wire::{FEATURES, Versions};
use crate::takeover::application::Application;
use crate::takeover::core::taker::Event;
use crate::takeover::drive::intake::Problem;
use crate::takeover::drive::post::Post;
use crate::takeover::os::channel::Sent;
use crate::takeover::os::limits;

/// Descriptors that a taker opens for itself between HELLO and the claim.
const OWN: usize = 24;

pub(super) fn hello(
    post: &mut Post,
    newest_state: Option<u16>,
    network: Option<u64>,
) -> io::Result<()> {
    let free = limits::free_slots()?.saturating_sub(OWN);
    let mut record = Vec::new();
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
    records::encode(&hello, false, &mut record).map_err(io::Error::other)?;
    match post.post(record, |_| ()) {
        Ok(Sent::Done) => Ok(()),
        // The first record of a fresh channel always has room: it is the kernel that has not.
        Ok(Sent::Blocked | Sent::Crowded) => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
        // It hung up on us at once; what it said is still to be read.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl TakerSide {
    pub(super) fn acknowledge<S: Application>(
        &mut self,
        cx: &mut Cx<S>,
        sequence: u32,
    ) -> Option<Event> {
        let mut declines = std::mem::take(&mut self.intake.declines);
        let mut record = Vec::new();
        let mut builder = AckBuilder::new(sequence, &mut record);
        for decline in declines.drain(..) {
            if builder.push(decline) == Fit::Full {
                let what = "more declines than a record holds".to_owned();
                return Some(self.unusable(Problem::new(FailCode::Internal, what)));
            }
        }
        builder.finish();
        self.post_now(cx, record)
    }

    pub(super) fn settle<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Option<Event> {
        self.intake.suspect(app, cx);
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
        let mut record = Vec::new();
        let encoded = records::encode(&Record::Drained, false, &mut record);
        debug_assert!(encoded.is_ok());
        let failed = self.post_now(cx, record);
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
            items: self.intake.len() as u64,
            closed: 0,
            new: 0,
            changed: 0,
            held_ns: 0,
            digest: self.intake.digest.value(),
            rounds: None,
        };
        let mut record = Vec::new();
        let _ = records::encode(&Record::End(end), false, &mut record);
        let _ = black_box(records::decode(&record, 0));
        let _ = black_box(self.intake.agrees_with(&end));
        black_box(self.intake.runs().count());
    }

    pub(super) fn post_now<S: Application>(
        &mut self,
        cx: &mut Cx<S>,
        record: Vec<u8>,
    ) -> Option<Event> {
        match self.post.post(record, |_| ()) {
            Ok(Sent::Done) => None,
            Ok(Sent::Blocked | Sent::Crowded) => {
                // A donor reads what it asked for; should it not, its deadline is ours too.
                let _ = cx.set_interest(self.watch.id(), Interest::Both);
                None
            }
            // Its end of the channel is closed; what it said before is still to be read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                None
            }
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
        let mut record = Vec::new();
        if records::encode(&fail, false, &mut record).is_ok()
            && let Err(error) = self.post.post(record, |_| ())
        {
            log::debug!("the donor was not told: {error}");
        }
    }
}
