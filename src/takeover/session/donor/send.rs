//! What the donor tells the taker: WELCOME, batches, PREPARE, END.
//!
//! Where the channel has no room the machine waits for [`Event::Writable`]; where the kernel
//! lacks something that no readiness announces, a timer asks again.

use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::DonorSide;
use crate::event::{Class, Cx, Interest, Time};
use crate::proto::records::{self, Record, Welcome};
use crate::proto::wire::FEATURES;
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Cause, Event, Outcome, State};
use crate::takeover::core::ledger::{Batch, Presence};
use crate::takeover::core::preload::BATCH;
use crate::takeover::moment::Moment;
use crate::takeover::os::channel::Sent;
use crate::takeover::os::lease::Lease;
use crate::takeover::session::export::Records;
use crate::takeover::session::record_channel::{RecordChannel, is_hung_up};
use crate::takeover::session::{Session, with};

/// How long to wait before a send is tried again for which the kernel lacked something.
const NO_BUFFERS: Duration = Duration::from_millis(1);

/// How long to wait before the donor before us is told again that we own.
const UNTOLD: Duration = Duration::from_millis(10);

/// The donor that we took over from.
#[derive(Debug)]
pub(in crate::takeover::session) struct Predecessor {
    pub(in crate::takeover::session) channel: RecordChannel,
    /// What it is to be told.
    pub(in crate::takeover::session) active: Vec<u8>,
    /// The log knows that it cannot be told.
    pub(in crate::takeover::session) is_logged: bool,
}

impl DonorSide {
    pub(super) fn welcome<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Event {
        let generation = self.generation + 1;
        let Some(attempt) = self.attempt.as_mut() else {
            return Event::Failure(Cause::Protocol);
        };
        let Some(version) = attempt.channel.agreed() else {
            return Event::Failure(Cause::Protocol);
        };
        if let Some(suppressed) = self.caller_log.taker() {
            log::info!(
                "Accepting connection from Takeover channel (pid {}){suppressed}",
                attempt.taker.pid()
            );
        }
        let lease = match Lease::new() {
            Ok(lease) => lease,
            Err(error) => return self.trouble(Cause::Resources, format!("lease: {error}")),
        };
        // What the tally still holds is an earlier attempt's.
        let _ = app.takeover().audited();
        let mut numbers = Vec::new();
        app.carried(&mut numbers);
        let mut sources = Vec::with_capacity(cx.items_len());
        cx.track(true);
        cx.items(&mut sources);
        let now = Time::now();
        attempt.report.times.welcome = Some(now);
        attempt.report.id = now.as_ns().rotate_left(24) ^ u64::from(std::process::id());
        let mut record = Vec::new();
        let encoded = records::encode(
            &Record::Welcome(Welcome {
                version,
                features: attempt.features & FEATURES,
                id: attempt.report.id,
                generation,
                items: (sources.len() + numbers.len()) as u64,
                preload_ms: millis(self.deadlines.preload),
                freeze_ms: millis(self.deadlines.freeze.max(self.deadlines.end)),
                claim_ms: millis(self.deadlines.claim),
                pid: std::process::id(),
                now_ns: now.as_ns(),
                application: S::NAME,
            }),
            false,
            &mut record,
        );
        let sent = match encoded {
            Ok(()) => attempt.channel.try_send(&mut record, &[lease.as_fd()]),
            Err(error) => return self.trouble(Cause::Resources, error.to_string()),
        };
        attempt.lease = Some(lease);
        match sent {
            Ok(Sent::Done) => {
                self.notify(app, cx, Moment::Preload);
                let sources = sources.into_iter().map(Item::Source);
                let carried = numbers.into_iter().map(Item::Carried);
                Event::Changed(
                    sources
                        .chain(carried)
                        .map(|item| (item.into(), Presence::Held))
                        .collect(),
                )
            }
            // The first record of a fresh channel always has room.
            Ok(Sent::Blocked) => self.trouble(Cause::Resources, "WELCOME found no room".into()),
            Ok(Sent::NoBuffers) => {
                let what = "no memory, or this user has more descriptors in flight than its \
                            limit of open files (ulimit -n)";
                self.trouble(Cause::Resources, what.into())
            }
            // It has nothing of ours, and has said nothing that is worth a hearing.
            Err(error) if is_hung_up(&error) => Event::Failure(Cause::Eof),
            Err(error) => self.trouble(Cause::Protocol, format!("WELCOME: {error}")),
        }
    }

    pub(super) fn prepare<S: Application>(&mut self, cx: &mut Cx<S>) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        attempt.report.times.prepare = Some(Time::now());
        match attempt.channel.send_record(&Record::Prepare) {
            Ok(Sent::Done) => None,
            Ok(full) => {
                self.wait_for_room(cx, full);
                None
            }
            Err(error) => self.not_sent("PREPARE", &error),
        }
    }

    pub(super) fn send<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        batch: Batch,
    ) -> Option<Event> {
        let is_final = self.machine.is_final();
        let attempt = self.attempt.as_mut()?;
        let last = !is_final;
        let mut written = match Records::of(&batch, last, app, cx) {
            Ok(written) => written,
            Err(reason) => return Some(self.trouble(Cause::Resources, reason)),
        };
        let mut rest = std::mem::take(&mut written.records).into_iter();
        let Some(mut first) = rest.next() else {
            let number = attempt.channel.last_number();
            return Some(Event::Did(Outcome::Sent { batch, number }));
        };
        let sent = match written.fds(app, cx) {
            Some(fds) => attempt.channel.try_send(&mut first, &fds),
            None => {
                let what = "an item has no descriptor".to_owned();
                return Some(self.trouble(Cause::Resources, what));
            }
        };
        match sent {
            Ok(Sent::Done) => {}
            Ok(full) => {
                self.wait_for_room(cx, full);
                return Some(Event::Did(Outcome::Blocked));
            }
            Err(error) => return self.not_sent("batch", &error),
        }
        attempt.told.extend(written.carried);
        let mut full = Sent::Done;
        if is_final {
            attempt.digest.update(&first);
            attempt.count(&batch);
        }
        for record in rest {
            let digest = is_final.then_some(&mut attempt.digest);
            let posted = attempt.channel.send_or_queue(record, |bytes| {
                if let Some(digest) = digest {
                    digest.update(bytes);
                }
            });
            match posted {
                Ok(now) => full = now,
                Err(error) => return self.not_sent("batch", &error),
            }
        }
        let number = attempt.channel.last_number();
        if full != Sent::Done {
            self.wait_for_room(cx, full);
        }
        Some(Event::Did(Outcome::Sent { batch, number }))
    }

    pub(super) fn end<S: Application>(&mut self, cx: &mut Cx<S>) -> Option<Event> {
        let ledger = self.machine.ledger()?;
        let attempt = self.attempt.as_mut()?;
        attempt.report.items = ledger.copies() as u64;
        attempt.report.declined = ledger.declined().len() as u64;
        let sent = attempt
            .end_record()
            .map_err(io::Error::other)
            .and_then(|mut record| attempt.channel.try_send(&mut record, &[]));
        match sent {
            Ok(Sent::Done) => {
                attempt.report.times.end = Some(Time::now());
                Some(Event::Did(Outcome::EndSent))
            }
            Ok(full) => {
                self.wait_for_room(cx, full);
                Some(Event::Did(Outcome::Blocked))
            }
            Err(error) => self.not_sent("END", &error),
        }
    }

    /// Does what the freeze will do, as far as that has no effect: after a large preload and a
    /// sleep the caches hold none of it, and to fetch it costs microseconds. We still serve.
    pub(super) fn rehearse<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        black_box(self.changes_of_carried(app, cx));
        self.deadline.rehearse(cx);
        if let (State::LastTurn(ledger), Some(attempt)) = (self.machine.state(), &self.attempt) {
            black_box(ledger.next_batch(BATCH));
            let _ = black_box(attempt.end_record());
        }
    }

    /// Rule 7: says ACTIVE to the donor that we took over from, again and again until it has it or
    /// is dead. It waits for that, held. If it never hears it, the end of our process looks to it
    /// like the death of the owner, and it would end the peers, which may have been handed over
    /// once more by then. So while it has not been told, every caller is told BUSY and a TERM waits.
    pub(in crate::takeover::session) fn tell_predecessor<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        mut before: Predecessor,
    ) {
        // The bytes are kept here: a channel that fails throws away what waits in it.
        let mut record = before.active.clone();
        match before.channel.try_send(&mut record, &[]) {
            Ok(Sent::Done) => return self.told_predecessor(app, cx),
            Ok(Sent::Blocked | Sent::NoBuffers) => {}
            // It is dead, or was told to leave: it waits for nothing any more. A failed send alone
            // does not prove it.
            Err(_) if before.channel.has_ended() => return self.told_predecessor(app, cx),
            Err(error) => {
                if !before.is_logged {
                    log::warn!("the donor before us cannot be told that we serve: {error}");
                }
                before.is_logged = true;
            }
        }
        self.predecessor = Some(before);
        let at = Time::now() + UNTOLD;
        cx.timer(Class::Handover, "donor before", at, |app, cx| {
            with(app, cx, |side: &mut DonorSide, app, cx| {
                if let Some(before) = side.predecessor.take() {
                    side.tell_predecessor(app, cx, before);
                }
            });
            None
        });
    }

    fn told_predecessor<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        for _ in 0..std::mem::take(&mut self.terms) {
            self.term(app, cx);
        }
    }

    /// Rule 3. A taker that has hung up has often said why. That is still to be read, and the channel's
    /// end behind it, which is what is judged.
    fn not_sent(&mut self, what: &str, error: &io::Error) -> Option<Event> {
        let broken = !is_hung_up(error);
        broken.then(|| self.trouble(Cause::Protocol, unsent(what, error)))
    }

    /// Has the machine called when the channel has room.
    pub(super) fn wait_for_room<S: Application>(&mut self, cx: &mut Cx<S>, full: Sent) {
        let Some(attempt) = &self.attempt else { return };
        match full {
            Sent::Done => {}
            Sent::Blocked => {
                if let Err(error) = cx.set_interest(attempt.watch.id(), Interest::Both) {
                    log::warn!("takeover channel: {error}");
                }
            }
            Sent::NoBuffers => {
                let at = Time::now() + NO_BUFFERS;
                cx.timer(Class::Handover, "crowded channel", at, |app, cx| {
                    with(app, cx, DonorSide::room);
                    None
                });
            }
        }
    }

    pub(super) fn room<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        match attempt.channel.flush() {
            Ok(Sent::Done) => self.feed(app, cx, Event::Writable),
            Ok(full) => self.wait_for_room(cx, full),
            Err(error) => {
                if let Some(trouble) = self.not_sent("send", &error) {
                    self.feed(app, cx, trouble);
                }
            }
        }
    }
}

/// Why a record was not sent, and what to do about it.
fn unsent(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => {
            format!("{what}: {error}: the send buffer is too small; raise net.core.wmem_max")
        }
        _ => format!("{what}: {error}"),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
