//! The donor's side: performs what [`Donor`] asks for and tells it what happens.
//!
//! | source | callback |
//! |---|---|
//! | the offer's socket | [`callers`]: identity, then one attempt at a time; others are BUSY |
//! | the channel | [`channel_event`]: records and room for more |
//! | the taker's pidfd | its death |
//! | one timer | the deadline armed last |
//!
//! Changes of items are reported to the machine before any other event while the taker is
//! told about them, so that a batch never misses one. From the hold to the outcome nothing
//! is logged.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::batch::Records;
use super::post::{Incoming, Post};
use super::{Deadlines, GONE, Role};
use crate::event::{Class, Cx, Event as Ready, Handle, Interest, Next, Spec, Time, TimerId};
use crate::proto::digest::Digest;
use crate::proto::records::{
    self, Abort, End, Hello, ItemKind, Record, Refuse, RefuseCode, Welcome,
};
use crate::proto::wire::{MAX_VERSION, MIN_VERSION, WIRE_VERSION, common_version};
use crate::takeover::application::{Application, Item, Moment};
use crate::takeover::channel::{Channel, Sent};
use crate::takeover::donor::{Action, Cause, Donor, Event, Outcome, State, Step};
use crate::takeover::identity::Identity;
use crate::takeover::lease::{Lease, Verdict};
use crate::takeover::ledger::{Batch, ItemId, Presence};
use crate::takeover::rendezvous::{Offer, Replace};
use crate::takeover::report::{Report, Tally};

/// How long to wait before a send is tried again for which the kernel lacked something.
const CROWDED: Duration = Duration::from_millis(1);
/// A taker whose clock is ahead or behind by more has another clock (time_namespaces(7)).
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Uninvited callers are complained about no more often.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// See the file's own description.
#[derive(Debug)]
pub(super) struct DonorSide {
    machine: Donor,
    offer: Handle<Offer>,
    deadlines: Deadlines,
    generation: u64,
    timer: Option<TimerId>,
    attempt: Option<Attempt>,
    /// The attempt that ended last.
    last: Report,
    complained: Option<Time>,
}

/// One caller, from its connect to the outcome.
#[derive(Debug)]
struct Attempt {
    post: Post,
    watch: Handle<OwnedFd>,
    taker: Identity,
    death: Option<Handle<OwnedFd>>,
    lease: Option<Lease>,
    /// Numbers of the batches that are not acknowledged.
    unacknowledged: VecDeque<u32>,
    /// What the taker has declined: nothing alike is sent again.
    unwanted: HashSet<(ItemKind, u16)>,
    /// From the hold on.
    final_array: bool,
    digest: Digest,
    report: Report,
    /// What exactly went wrong, for the log.
    note: String,
}

/// Runs `work` on the donor's side, if this is a donor.
pub(super) fn with<S: Application>(
    app: &mut S,
    cx: &mut Cx<S>,
    work: impl FnOnce(&mut DonorSide, &mut S, &mut Cx<S>),
) {
    match std::mem::take(&mut app.takeover().role) {
        Role::Donor(mut side) => {
            work(&mut side, app, cx);
            app.takeover().role = Role::Donor(side);
        }
        other => app.takeover().role = other,
    }
}

impl DonorSide {
    pub(super) fn new<S: Application>(
        cx: &mut Cx<S>,
        offer: Offer,
        generation: u64,
        deadlines: Deadlines,
    ) -> io::Result<DonorSide> {
        let offer = cx
            .add(Spec::handover("takeover offer"), offer, callers)
            .map_err(|refused| refused.error)?;
        Ok(DonorSide {
            machine: Donor::default(),
            offer,
            deadlines,
            generation,
            timer: None,
            attempt: None,
            last: Report::default(),
            complained: None,
        })
    }

    /// Removes PATH, if it still is ours.
    fn withdraw<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(offer) = cx.take(self.offer)
            && let Err(error) = offer.withdraw()
        {
            log::warn!("PATH was not removed: {error}");
        }
    }

    /// The operator wants us to stop.
    pub(super) fn term<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let (machine, actions) = std::mem::take(&mut self.machine).term();
        self.machine = machine;
        self.perform_all(app, cx, actions);
    }

    fn call<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        channel: Channel,
        taker: Identity,
    ) -> io::Result<()> {
        let post = Post::new(channel);
        if self.machine.is_busy() {
            refuse(
                post,
                RefuseCode::Busy,
                "another takeover is under way; try again later",
            );
            return Ok(());
        }
        let watch = cx
            .add(
                Spec::handover("takeover channel"),
                post.watch()?,
                channel_event,
            )
            .map_err(|refused| refused.error)?;
        let death = match taker
            .pidfd()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()?
        {
            Some(pidfd) => cx
                .add(Spec::handover("taker's process"), pidfd, |_, app, cx, _| {
                    with(app, cx, |side, app, cx| {
                        side.feed(app, cx, Event::Failure(Cause::Died));
                    });
                    Ok(Next::End)
                })
                .ok(),
            None => None,
        };
        let report = Report {
            generation: self.generation + 1,
            other: taker.pid(),
            times: crate::takeover::report::Times {
                begun: Some(Time::now()),
                ..Default::default()
            },
            ..Default::default()
        };
        log::info!(
            "Accepting connection from Takeover channel (pid {})",
            taker.pid()
        );
        self.attempt = Some(Attempt {
            post,
            watch,
            taker,
            death,
            lease: None,
            unacknowledged: VecDeque::new(),
            unwanted: HashSet::new(),
            final_array: false,
            digest: Digest::default(),
            report,
            note: String::new(),
        });
        self.feed(app, cx, Event::Caller);
        Ok(())
    }

    /// Gives the machine an event, performs what it asks for, and goes on with the outcomes.
    fn feed<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, event: Event) {
        if let (State::Preload(preload), Some(attempt)) = (self.machine.state(), &mut self.attempt)
        {
            attempt.report.rounds = preload.rounds() + 1;
        }
        if self.is_telling() {
            let changed = self.changes(app, cx);
            if !changed.is_empty() {
                self.step(app, cx, Event::Changed(changed));
            }
        }
        self.step(app, cx, event);
    }

    fn step<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, event: Event) {
        let (machine, actions) = std::mem::take(&mut self.machine).step(event);
        self.machine = machine;
        self.perform_all(app, cx, actions);
    }

    fn perform_all<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, actions: Vec<Action>) {
        let outcomes: Vec<Event> = actions
            .into_iter()
            .filter_map(|action| self.perform(app, cx, action))
            .collect();
        for outcome in outcomes {
            self.step(app, cx, outcome);
        }
    }

    /// Whether the taker is told what changes.
    fn is_telling(&self) -> bool {
        matches!(
            self.machine.state(),
            State::Preload(_) | State::HoldPeers(_) | State::Sweep(_)
        )
    }

    fn changes<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) -> Vec<(ItemId, Presence)> {
        let mut ids = Vec::with_capacity(cx.changed_len());
        cx.changed(&mut ids);
        ids.into_iter()
            .map(|id| {
                let item = Item::Source(id);
                let presence = if !cx.contains(id) {
                    Presence::Gone
                } else if self.is_unwanted(app, cx, item) {
                    Presence::Unwanted
                } else {
                    Presence::Held
                };
                (item.into(), presence)
            })
            .collect()
    }

    fn is_unwanted<S: Application>(&self, app: &mut S, cx: &mut Cx<S>, item: Item) -> bool {
        let Some(attempt) = self.attempt.as_ref().filter(|one| !one.unwanted.is_empty()) else {
            return false;
        };
        app.describe(cx, item).is_ok_and(|about| {
            attempt
                .unwanted
                .contains(&(about.kind, about.state_version))
        })
    }

    fn perform<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        action: Action,
    ) -> Option<Event> {
        match action {
            Action::Arm(step) => self.arm(cx, step),
            Action::Disarm => self.disarm(cx),
            Action::Welcome => return Some(self.welcome(app, cx)),
            Action::Prepare => return self.prepare(cx),
            Action::Send(batch) => return Some(self.send(app, cx, batch)),
            Action::Hold => cx.hold(|app, cx| with(app, cx, DonorSide::held)),
            Action::Grant => {
                let granted = self.attempt.as_ref()?.lease.as_ref()?.grant();
                return Some(match granted {
                    Ok(()) => Event::Did(Outcome::Granted),
                    Err(error) => self.trouble(Cause::Resources, format!("lease: {error}")),
                });
            }
            Action::End => return Some(self.end(cx)),
            Action::Revoke => return self.revoke(),
            Action::Resume(cause) => self.resume(app, cx, cause),
            Action::Abort(cause) => self.abort(cause),
            Action::Kill => {
                let taker = &self.attempt.as_ref()?.taker;
                log::warn!(
                    "the taker (pid {}) does not go away and is killed",
                    taker.pid()
                );
                if let Err(error) = taker.kill() {
                    log::warn!("it cannot be killed: {error}");
                }
            }
            Action::HangUp => self.hang_up(cx),
            Action::Orphan => self.orphan(app, cx),
            Action::Release(keep) => self.release(app, cx, &keep),
            Action::PassTerm => {
                if let Err(error) = self.attempt.as_ref()?.taker.terminate(libc::SIGTERM) {
                    log::warn!("the new owner cannot be told to stop: {error}");
                }
            }
            Action::Stop => {
                self.withdraw(cx);
                app.moment(cx, Moment::Stop);
            }
            Action::Exit => app.moment(cx, Moment::Exit),
        }
        None
    }

    fn arm<S: Application>(&mut self, cx: &mut Cx<S>, step: Step) {
        let after = match step {
            Step::Hello => self.deadlines.hello,
            Step::Preload => self.deadlines.preload,
            Step::Freeze => self.deadlines.freeze,
            Step::Claim => self.deadlines.claim,
            Step::Gone => GONE,
            Step::Drain => self.deadlines.drain,
        };
        self.disarm(cx);
        let at = Time::now() + after;
        self.timer = Some(
            cx.timer(Class::Handover, "takeover deadline", at, |app, cx| {
                with(app, cx, |side, app, cx| {
                    side.timer = None;
                    side.feed(app, cx, Event::Failure(Cause::Deadline));
                });
                None
            }),
        );
    }

    fn disarm<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(timer) = self.timer.take() {
            cx.cancel(timer);
        }
    }

    /// HELLO is here: refuse it, or report how many slots the taker has.
    fn judge_hello<S: Application>(&mut self, cx: &mut Cx<S>, hello: &Hello) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        let items = cx.items_len() as u64;
        let theirs = Time::from_ns(hello.now_ns);
        let now = Time::now();
        let refusal = if common_version(hello.min, hello.max).is_none() {
            Some((
                RefuseCode::Version,
                format!(
                    "the donor speaks versions {MIN_VERSION} to {MAX_VERSION}, the taker {} to {}",
                    hello.min, hello.max
                ),
            ))
        } else if theirs > now || now.since(theirs) > CLOCK_SKEW {
            Some((
                RefuseCode::Clock,
                "its monotonic clock is not ours: another time namespace?".to_owned(),
            ))
        } else if hello.free_slots < items {
            Some((
                RefuseCode::Slots,
                format!(
                    "{items} items need a descriptor each and the taker has {} free; raise its \
                     limit of open files (ulimit -n)",
                    hello.free_slots
                ),
            ))
        } else {
            None
        };
        let Some((code, reason)) = refusal else {
            let slots = usize::try_from(hello.free_slots).unwrap_or(usize::MAX);
            return Some(Event::Fits { slots });
        };
        attempt.post_record(&Record::Refuse(Refuse {
            code,
            reason: &reason,
            min: MIN_VERSION,
            max: MAX_VERSION,
        }));
        log::warn!("takeover by pid {} refused: {reason}", attempt.taker.pid());
        let cause = match code {
            RefuseCode::Slots => Cause::Slots,
            _ => Cause::Strange,
        };
        Some(Event::Failure(cause))
    }

    fn welcome<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Event {
        let generation = self.generation + 1;
        let Some(attempt) = self.attempt.as_mut() else {
            return Event::Failure(Cause::Strange);
        };
        let lease = match Lease::new() {
            Ok(lease) => lease,
            Err(error) => return self.trouble(Cause::Resources, format!("lease: {error}")),
        };
        let mut numbers = Vec::new();
        app.carried(&mut numbers);
        let mut sources = Vec::new();
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
            Ok(()) => {
                use std::os::fd::AsFd;
                attempt.post.send(&mut record, &[lease.as_fd()])
            }
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
            Ok(Sent::Blocked | Sent::Crowded) => {
                self.trouble(Cause::Resources, "WELCOME found no room".into())
            }
            Err(error) => self.trouble(Cause::Strange, format!("WELCOME: {error}")),
        }
    }

    fn prepare<S: Application>(&mut self, cx: &mut Cx<S>) -> Option<Event> {
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
            Err(error) => Some(self.trouble(Cause::Strange, format!("PREPARE: {error}"))),
        }
    }

    fn send<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, batch: Batch) -> Event {
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
            Err(error) => return self.trouble(Cause::Strange, format!("batch: {error}")),
        }
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
                Err(error) => return self.trouble(Cause::Strange, format!("batch: {error}")),
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

    /// The last turn is over.
    fn held<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.report.times.held = Some(Time::now());
            attempt.final_array = true;
        }
        let mut numbers = Vec::new();
        app.carried(&mut numbers);
        let carried = numbers
            .into_iter()
            .map(|number| (Item::Carried(number).into(), Presence::Held))
            .collect();
        // What is carried has no events that would tell of a change; it is little.
        self.feed(app, cx, Event::Changed(carried));
        self.feed(app, cx, Event::Did(Outcome::Held));
    }

    fn end<S: Application>(&mut self, cx: &mut Cx<S>) -> Event {
        let State::Grant(ledger) = self.machine.state() else {
            return Event::Failure(Cause::Strange);
        };
        let items = ledger.copies() as u64;
        let declined = ledger.declined().count() as u64;
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
            Err(error) => self.trouble(Cause::Strange, format!("END: {error}")),
        }
    }

    fn revoke(&mut self) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        let verdict = attempt.lease.as_ref()?.revoke();
        attempt.report.times.decided = Some(Time::now());
        let dead = attempt.taker.is_dead();
        Some(Event::Did(match verdict {
            Ok(Verdict::Won) => Outcome::Won,
            // A lease that cannot be read has not been read by us: we do not own.
            Ok(Verdict::Lost) | Err(_) => Outcome::Lost { dead },
        }))
    }

    fn resume<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, cause: Cause) {
        cx.cancel_hold();
        if cx.is_held() {
            cx.resume();
        }
        cx.track(false);
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        attempt.report.times.decided.get_or_insert_with(Time::now);
        let mut report = attempt.final_report();
        report.failure = match attempt.note.as_str() {
            "" => describe(cause).to_owned(),
            note => format!("{} ({note})", describe(cause)),
        };
        app.moment(cx, Moment::RolledBack(report));
    }

    fn abort(&mut self, cause: Cause) {
        if let Some(attempt) = &mut self.attempt {
            attempt.post_record(&Record::Abort(Abort {
                reason: describe(cause),
            }));
        }
    }

    fn hang_up<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(mut attempt) = self.attempt.take() {
            self.last = attempt.final_report();
            cx.remove(attempt.watch.id());
            if let Some(death) = attempt.death {
                cx.remove(death.id());
            }
        }
        self.disarm(cx);
    }

    fn orphan<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        // The taker may have put its own socket at PATH; nobody listens on that any more.
        if let Some(old) = cx.take(self.offer) {
            let again = Offer::bind(old.path()).and_then(|mut offer| {
                offer.publish(Replace::Stale).map_err(io::Error::other)?;
                Ok(offer)
            });
            drop(old);
            let added = again.and_then(|offer| {
                cx.add(Spec::handover("takeover offer"), offer, callers)
                    .map_err(|refused| refused.error)
            });
            match added {
                Ok(handle) => self.offer = handle,
                Err(error) => log::error!("no further takeover is possible: {error}"),
            }
        }
        cx.resume();
        cx.track(false);
        app.moment(cx, Moment::Orphaned(self.last.clone()));
    }

    fn release<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, keep: &[ItemId]) {
        let keep: Vec<_> = keep
            .iter()
            .filter_map(|id| match Item::from(*id) {
                Item::Source(source) => Some(source),
                Item::Carried(_) => None,
            })
            .collect();
        if let Err(error) = cx.release(&keep) {
            log::error!("declined items cannot be served any more: {error}");
        }
        let report = self.attempt.as_mut().map(Attempt::final_report);
        app.moment(cx, Moment::Released(report.unwrap_or_default()));
        if !keep.is_empty() {
            cx.when_empty(|app, cx| {
                with(app, cx, |side, app, cx| {
                    side.feed(app, cx, Event::Did(Outcome::Emptied));
                });
            });
        }
    }

    /// Has the machine called when the channel has room.
    fn wait_for_room<S: Application>(&mut self, cx: &mut Cx<S>, full: Sent) {
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

    fn room<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        match attempt.post.flush() {
            Ok(Sent::Done) => self.feed(app, cx, Event::Writable),
            Ok(full) => self.wait_for_room(cx, full),
            Err(error) => {
                let trouble = self.trouble(Cause::Strange, format!("send: {error}"));
                self.feed(app, cx, trouble);
            }
        }
    }

    /// Everything that has arrived.
    fn receive<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        while let Some(attempt) = self.attempt.as_mut() {
            let event = match attempt.post.receive() {
                Incoming::Record(length) => match self.understand(app, cx, length) {
                    Some(event) => event,
                    None => continue,
                },
                Incoming::Empty => return,
                Incoming::End => Event::Failure(Cause::Eof),
                Incoming::Broken(what) => self.trouble(Cause::Strange, what),
            };
            let ended = event == Event::Failure(Cause::Eof);
            self.feed(app, cx, event);
            if ended {
                return;
            }
        }
    }

    fn understand<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        length: usize,
    ) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        let buffer = attempt.post.take_buffer();
        let event = match records::decode(&buffer[..length], attempt.post.fds.len()) {
            Ok((_, record)) => self.event_of(app, cx, &record),
            Err(error) => Some(self.trouble(Cause::Strange, error.to_string())),
        };
        if let Some(attempt) = &mut self.attempt {
            attempt.post.fds.clear();
            attempt.post.put_buffer(buffer);
        }
        event
    }

    fn event_of<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        record: &Record<'_>,
    ) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        Some(match record {
            Record::Hello(hello) if matches!(self.machine.state(), State::AcceptChannel) => {
                return self.judge_hello(cx, hello);
            }
            Record::Ack(ack) => {
                if attempt.unacknowledged.pop_front() != Some(ack.sequence) {
                    let what = format!("ACK of {} was not its turn", ack.sequence);
                    return Some(self.trouble(Cause::Strange, what));
                }
                let mut declined = Vec::with_capacity(ack.declined.len());
                for decline in ack.declined.iter() {
                    let id = ItemId(decline.id);
                    if let Ok(about) = app.describe(cx, Item::from(id)) {
                        log::info!("the taker declines {}: {}", about.name, decline.code);
                        attempt.unwanted.insert((about.kind, about.state_version));
                    }
                    declined.push(id);
                }
                Event::Ack { declined }
            }
            Record::Drained => Event::Drained,
            Record::Active => Event::Active,
            Record::Fail(fail) => {
                self.trouble(Cause::Failed, format!("{}: {}", fail.code, fail.reason))
            }
            Record::Hello(_)
            | Record::Welcome(_)
            | Record::Refuse(_)
            | Record::Items(_)
            | Record::State(_)
            | Record::Closed(_)
            | Record::Prepare
            | Record::End(_)
            | Record::Abort(_) => self.trouble(
                Cause::Strange,
                format!("{:?} is not for now", record.kind()),
            ),
        })
    }

    fn trouble(&mut self, cause: Cause, what: String) -> Event {
        if let Some(attempt) = &mut self.attempt {
            attempt.note = what;
        }
        Event::Failure(cause)
    }

    fn complain(&mut self, what: &str) {
        let now = Time::now();
        if self
            .complained
            .is_none_or(|then| now.since(then) >= COMPLAINTS)
        {
            self.complained = Some(now);
            log::warn!("{what}");
        }
    }
}

impl Attempt {
    /// Sends a last word, as far as that is possible.
    fn post_record(&mut self, record: &Record<'_>) {
        let mut bytes = Vec::new();
        let posted = records::encode(record, false, &mut bytes)
            .map_err(io::Error::other)
            .and_then(|()| self.post.post(bytes, |_| ()));
        if let Err(error) = posted {
            log::debug!("the taker was not told: {error}");
        }
    }

    /// Counts a batch of the final array.
    fn count(&mut self, batch: &Batch) {
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

    fn final_report(&mut self) -> Report {
        self.report.bytes = self.post.bytes;
        self.report.fds = self.post.passed;
        self.report.clone()
    }
}

fn callers<S: Application>(
    offer: &mut Offer,
    app: &mut S,
    cx: &mut Cx<S>,
    _: Ready,
) -> io::Result<Next> {
    for _ in 0..cx.budget() {
        let channel = match offer.accept() {
            Ok(Some(channel)) => channel,
            Ok(None) => return Ok(Next::Keep),
            Err(error) => {
                with(app, cx, |side, _, _| {
                    side.complain(&format!("a takeover call: {error}"))
                });
                return Ok(Next::Keep);
            }
        };
        with(app, cx, |side, app, cx| {
            let called = Identity::of(&channel)
                .map_err(io::Error::other)
                .and_then(|taker| side.call(app, cx, channel, taker));
            if let Err(error) = called {
                side.complain(&format!("a takeover call was not answered: {error}"));
            }
        });
    }
    Ok(Next::Again)
}

fn channel_event<S: Application>(
    _: &mut OwnedFd,
    app: &mut S,
    cx: &mut Cx<S>,
    ready: Ready,
) -> io::Result<Next> {
    with(app, cx, |side, app, cx| {
        side.receive(app, cx);
        if ready.is_writable() {
            side.room(app, cx);
        }
    });
    Ok(Next::Keep)
}

/// Answers a caller that cannot be served, and hangs up.
fn refuse(mut post: Post, code: RefuseCode, reason: &str) {
    let mut record = Vec::new();
    let refusal = Record::Refuse(Refuse {
        code,
        reason,
        min: MIN_VERSION,
        max: MAX_VERSION,
    });
    if records::encode(&refusal, false, &mut record).is_ok()
        && let Err(error) = post.send(&mut record, &[])
    {
        log::debug!("a caller did not hear its refusal: {error}");
    }
}

fn describe(cause: Cause) -> &'static str {
    match cause {
        Cause::Failed => "the taker gave up",
        Cause::Eof => "the taker closed the channel",
        Cause::Died => "the taker died",
        Cause::Deadline => "the taker did not answer in time",
        Cause::Strange => "the channel or the protocol broke",
        Cause::Slots => "the taker has too few descriptor slots",
        Cause::Liar => "the taker said ACTIVE and had not claimed",
        Cause::Resources => "the donor could not go on",
        Cause::Stopping => "the donor stops",
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
