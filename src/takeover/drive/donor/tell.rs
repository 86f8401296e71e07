//! What the donor tells the taker: WELCOME, batches, PREPARE, END.
//!
//! Where the channel has no room the machine waits for [`Event::Writable`]; where the kernel
//! lacks something that no readiness announces, a timer asks again.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::{DonorSide, with};
use crate::event::{Class, Cx, Interest, Time};
use crate::proto::records::{self, End, Record, Welcome};
use crate::proto::wire::WIRE_VERSION;
use crate::takeover::application::{Application, Item};
use crate::takeover::channel::Sent;
use crate::takeover::donor::{Cause, Event, Outcome, State};
use crate::takeover::drive::batch::Records;
use crate::takeover::lease::Lease;
use crate::takeover::ledger::{Batch, Presence};
use crate::takeover::moment::Moment;

/// How long to wait before a send is tried again for which the kernel lacked something.
const CROWDED: Duration = Duration::from_millis(1);

impl DonorSide {
    pub(super) fn welcome<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Event {
        let generation = self.generation + 1;
        let Some(attempt) = self.attempt.as_mut() else {
            return Event::Failure(Cause::Strange);
        };
        if let Some(unsaid) = self.complaints.taker() {
            log::info!(
                "Accepting connection from Takeover channel (pid {}){unsaid}",
                attempt.taker.pid()
            );
        }
        let lease = match Lease::new() {
            Ok(lease) => lease,
            Err(error) => return self.trouble(Cause::Resources, format!("lease: {error}")),
        };
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
                version: WIRE_VERSION,
                features: 0,
                id: attempt.report.id,
                generation,
                items: (sources.len() + numbers.len()) as u64,
                preload_ms: millis(self.deadlines.preload),
                freeze_ms: millis(self.deadlines.freeze),
                claim_ms: millis(self.deadlines.claim),
                pid: std::process::id(),
                now_ns: now.as_ns(),
                application: S::NAME,
            }),
            false,
            &mut record,
        );
        let sent = match encoded {
            Ok(()) => attempt.post.send(&mut record, &[lease.as_fd()]),
            Err(error) => return self.trouble(Cause::Resources, error.to_string()),
        };
        attempt.lease = Some(lease);
        match sent {
            Ok(Sent::Done) => {
                app.moment(cx, Moment::Preload);
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
            Ok(Sent::Crowded) => {
                let what = "no memory, or this user has more descriptors in flight than its \
                            limit of open files (ulimit -n)";
                self.trouble(Cause::Resources, what.into())
            }
            Err(error) => self.trouble(Cause::Strange, format!("WELCOME: {error}")),
        }
    }

    pub(super) fn prepare<S: Application>(&mut self, cx: &mut Cx<S>) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        attempt.report.times.prepare = Some(Time::now());
        let mut record = Vec::new();
        let sent = records::encode(&Record::Prepare, false, &mut record)
            .map_err(io::Error::other)
            .and_then(|()| attempt.post.post(record, |_| ()));
        match sent {
            Ok(Sent::Done) => None,
            Ok(full) => {
                self.wait_for_room(cx, full);
                None
            }
            Err(error) => Some(self.trouble(Cause::Strange, unsent("PREPARE", &error))),
        }
    }

    pub(super) fn send<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        batch: Batch,
    ) -> Event {
        let Some(attempt) = self.attempt.as_mut() else {
            return Event::Failure(Cause::Strange);
        };
        let last = !attempt.final_array;
        let mut written = match Records::of(&batch, last, app, cx) {
            Ok(written) => written,
            Err(reason) => return self.trouble(Cause::Resources, reason),
        };
        let mut rest = std::mem::take(&mut written.records).into_iter();
        let Some(mut first) = rest.next() else {
            return Event::Did(Outcome::Sent(batch));
        };
        let sent = match written.fds(app, cx) {
            Some(fds) => attempt.post.send(&mut first, &fds),
            None => return self.trouble(Cause::Resources, "an item has no descriptor".into()),
        };
        match sent {
            Ok(Sent::Done) => {}
            Ok(full) => {
                self.wait_for_room(cx, full);
                return Event::Did(Outcome::Blocked);
            }
            Err(error) => return self.trouble(Cause::Strange, unsent("batch", &error)),
        }
        attempt.told.extend(written.carried);
        let mut full = Sent::Done;
        if attempt.final_array {
            attempt.digest.update(&first);
            attempt.count(&batch);
        }
        for record in rest {
            let digest = attempt.final_array.then_some(&mut attempt.digest);
            let posted = attempt.post.post(record, |bytes| {
                if let Some(digest) = digest {
                    digest.update(bytes);
                }
            });
            match posted {
                Ok(now) => full = now,
                Err(error) => return self.trouble(Cause::Strange, unsent("batch", &error)),
            }
        }
        if last {
            attempt.unacknowledged.push_back(attempt.post.last_number());
        }
        if full != Sent::Done {
            self.wait_for_room(cx, full);
        }
        Event::Did(Outcome::Sent(batch))
    }

    pub(super) fn end<S: Application>(&mut self, cx: &mut Cx<S>) -> Event {
        let State::Grant(ledger) = self.machine.state() else {
            return Event::Failure(Cause::Strange);
        };
        let items = ledger.copies() as u64;
        let declined = ledger.declined().len() as u64;
        let Some(attempt) = self.attempt.as_mut() else {
            return Event::Failure(Cause::Strange);
        };
        let report = &mut attempt.report;
        report.items = items;
        report.declined = declined;
        let mut record = Vec::new();
        let end = Record::End(End {
            items,
            closed: report.last.closed,
            new: report.last.new,
            changed: report.last.changed,
            held_ns: report.times.held.map_or(0, Time::as_ns),
            digest: attempt.digest.value(),
        });
        let sent = records::encode(&end, false, &mut record)
            .map_err(io::Error::other)
            .and_then(|()| attempt.post.send(&mut record, &[]));
        match sent {
            Ok(Sent::Done) => {
                attempt.report.times.end = Some(Time::now());
                Event::Did(Outcome::EndSent)
            }
            Ok(full) => {
                self.wait_for_room(cx, full);
                Event::Did(Outcome::Blocked)
            }
            Err(error) => self.trouble(Cause::Strange, unsent("END", &error)),
        }
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
            Sent::Crowded => {
                let at = Time::now() + CROWDED;
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
        match attempt.post.flush() {
            Ok(Sent::Done) => self.feed(app, cx, Event::Writable),
            Ok(full) => self.wait_for_room(cx, full),
            Err(error) => {
                let trouble = self.trouble(Cause::Strange, unsent("send", &error));
                self.feed(app, cx, trouble);
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
