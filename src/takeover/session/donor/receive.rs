//! What the donor hears: callers at PATH, and the records of the one it talks to.
//!
//! A caller whose identity is not trusted is hung up on without a word; one that comes while
//! another is served is told BUSY; one is a taker once its HELLO fits. What the log says of each
//! is limited by `caller_log.rs`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::DonorSide;
use super::attempt::Attempt;
use super::caller_log::CallerFault;
use crate::event::{AcceptFailure, Cx, Event as Ready, Handle, Next, Spec, Time};
use crate::proto::digest::Digest;
use crate::proto::records::{self, Ack, DeclineCode, Hello, ItemKind, Record, Refuse, RefuseCode};
use crate::proto::wire::{DecodeError, Versions};
use crate::sys;
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Cause, Event, State};
use crate::takeover::core::ledger::ItemId;
use crate::takeover::os::channel::Channel;
use crate::takeover::os::identity::{Identity, IdentityError};
use crate::takeover::os::offer::Offer;
use crate::takeover::report::{Report, Times};
use crate::takeover::session::drain_channel;
use crate::takeover::session::record_channel::{Incoming, RecordChannel};
use crate::takeover::session::{Session, is_our_clock, with};

/// When to try again to accept a caller for whom there was no descriptor or no memory.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The process whose end is the end of its pid namespace (pid_namespaces(7)).
pub(in crate::takeover::session) const INIT: u32 = 1;
const INIT_REASON: &str = "the donor is process 1 of its pid namespace, whose end would kill its \
     successor; start it below an init (docker run --init, tini, dumb-init)";
const NETWORK_REASON: &str = "the taker is in another network namespace, where what it connects or \
     binds later would be; start it in the donor's (nsenter --net)";

impl DonorSide {
    pub(super) fn call<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        channel: Channel,
        taker: Identity,
    ) -> io::Result<()> {
        let channel = RecordChannel::new(channel);
        // Rule 8.
        if self.machine.is_busy() || self.predecessor.is_some() {
            refuse(
                channel,
                RefuseCode::Busy,
                "another takeover is under way; try again later",
            );
            let pid = taker.pid();
            let what = format_args!("a call for a takeover by pid {pid}: another is under way");
            self.caller_log
                .about(CallerFault::Another, cx.is_held(), &what);
            return Ok(());
        }
        // All that can fail comes before the first source is added: one that is left behind
        // would keep the channel open for ever.
        let pidfd = taker.pidfd().map(|fd| fd.try_clone_to_owned());
        let pidfd = pidfd.transpose()?;
        let watch = watch(&channel, cx)?;
        let death = match pidfd {
            Some(pidfd) => cx
                .add(Spec::handover("taker's process"), pidfd, |_, app, cx, _| {
                    with(app, cx, |side: &mut DonorSide, app, cx| {
                        // Its last words come first: ACTIVE makes a difference.
                        drain_channel(|| side.receive(app, cx));
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
            times: Times {
                begun: Some(Time::now()),
                ..Default::default()
            },
            ..Default::default()
        };
        self.attempt = Some(Attempt {
            channel,
            watch,
            taker,
            death,
            lease: None,
            told: HashMap::new(),
            served: None,
            digest: Digest::default(),
            report,
            features: 0,
            note: String::new(),
        });
        self.feed(app, cx, Event::Caller);
        Ok(())
    }

    /// What has arrived. As long as we serve that is one record a turn: between any two of them
    /// peers are served, and a SIGTERM is heard while it can still end the attempt. Once all is
    /// held there is nobody else to serve, and the budget is the bound.
    pub(super) fn receive<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Next {
        for _ in 0..cx.budget() {
            let Some(attempt) = self.attempt.as_mut() else {
                return Next::Keep;
            };
            let (event, more) = match attempt.channel.receive() {
                Incoming::Record(length) => match self.understand(app, cx, length) {
                    Some(event) => (event, true),
                    None => continue,
                },
                Incoming::Empty => return Next::Keep,
                Incoming::End => {
                    // Without a pidfd there is no other sign of its death.
                    let mute = attempt.taker.pidfd().is_none();
                    self.feed(app, cx, Event::Failure(Cause::Eof));
                    if !mute {
                        return Next::Keep;
                    }
                    (Event::Failure(Cause::Died), false)
                }
                Incoming::Broken(_, what) => (self.trouble(Cause::Protocol, what), true),
                Incoming::Unreadable(what) => (self.trouble(Cause::Protocol, what), false),
            };
            self.feed(app, cx, event);
            if !more {
                return Next::Keep;
            }
            if !cx.is_held() {
                break;
            }
        }
        Next::Again
    }

    pub(super) fn understand<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        length: usize,
    ) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        let buffer = attempt.channel.take_buffer();
        let event = match records::decode(&buffer[..length], attempt.channel.fds.len()) {
            Ok((_, record)) => self.event_of(app, cx, &record),
            // It is from a later release and does not do without: that is for it to know.
            Err(error @ DecodeError::MustUnderstand(_))
                if matches!(self.machine.state(), State::AcceptChannel) =>
            {
                self.refuse(RefuseCode::Features, error.to_string())
            }
            Err(error) => Some(self.trouble(Cause::Protocol, error.to_string())),
        };
        if let Some(attempt) = &mut self.attempt {
            attempt.channel.fds.clear();
            attempt.channel.put_buffer(buffer);
        }
        event
    }

    pub(super) fn event_of<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        record: &Record<'_>,
    ) -> Option<Event> {
        let kind = record.kind();
        if !self.machine.expects(kind) {
            return Some(self.trouble(Cause::Protocol, format!("{kind:?} is not for now")));
        }
        Some(match record {
            Record::Hello(hello) => return self.judge_hello(app, cx, hello),
            Record::Ack(ack) => self.judge_ack(app, cx, ack),
            Record::Drained => Event::Drained,
            Record::Active(active) => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.served = active.outcome;
                }
                Event::Active
            }
            Record::Fail(fail) => {
                self.trouble(Cause::Failed, format!("{}: {}", fail.code, fail.reason))
            }
            // What a donor says itself is never expected.
            _ => return None,
        })
    }

    /// What the taker has taken, and what it has not.
    fn judge_ack<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, ack: &Ack<'_>) -> Event {
        let number = ack.sequence;
        let mut items = Vec::with_capacity(ack.declined.len());
        let mut kinds = Vec::new();
        for decline in ack.declined.iter() {
            let id = ItemId(decline.id);
            items.push(id);
            // One that has been closed meanwhile is nobody's any more.
            let Ok(about) = app.describe(cx, Item::from(id)) else {
                continue;
            };
            if about.kind == ItemKind::Listener {
                let what = "a listener cannot be declined: nobody would accept".to_owned();
                return self.trouble(Cause::Protocol, what);
            }
            let kind = (about.kind, about.state_version);
            let is_kind_matter =
                matches!(decline.code, DeclineCode::Kind | DeclineCode::StateVersion);
            let ledger = self.machine.ledger();
            let is_known = ledger.is_some_and(|one| one.knows_refused(kind.0, kind.1));
            if is_kind_matter && !is_known && !kinds.contains(&kind) {
                log::info!("the taker declines {}: {}", about.name, decline.code);
                kinds.push(kind);
            }
        }
        if !items.is_empty() {
            let is_news = !kinds.is_empty();
            self.step(app, cx, Event::Declined { items, kinds });
            if is_news {
                self.withhold_unwanted(app, cx);
            }
        }
        Event::Ack { number }
    }

    /// Rule 2. Those that are still to be sent were noted when they were wanted, as far as was known:
    /// have them noted again. In the final array one of them would end the takeover.
    fn withhold_unwanted<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) {
        let mut ids = Vec::with_capacity(cx.items_len());
        cx.items(&mut ids);
        for id in ids {
            if self.is_unwanted(app, cx, Item::Source(id)) {
                cx.touch(id);
            }
        }
    }

    /// HELLO is here: refuse it, or report how many slots the taker has.
    pub(super) fn judge_hello<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        hello: &Hello,
    ) -> Option<Event> {
        let mut carried = Vec::new();
        app.carried(&mut carried);
        // As the ledger will count them: one slot too few would fail the preload.
        let items = (cx.items_len() + carried.len()) as u64;
        let (ours, offered) = (
            Versions::OURS,
            Versions {
                min: hello.min,
                max: hello.max,
            },
        );
        let common = ours.common(offered);
        let network = cx
            .get(self.offer)
            .and_then(|offer| sys::network_cookie(offer).ok());
        let refusal = if std::process::id() == INIT {
            Some((RefuseCode::Init, INIT_REASON.to_owned()))
        } else if common.is_none() {
            Some((
                RefuseCode::Version,
                format!("the donor speaks versions {ours}, the taker {offered}"),
            ))
        } else if !is_our_clock(hello.now_ns) {
            Some((
                RefuseCode::Clock,
                "its monotonic clock is not ours: another time namespace?".to_owned(),
            ))
        } else if let (Some(here), Some(there)) = (network, hello.network)
            && here != there
        {
            Some((RefuseCode::Network, NETWORK_REASON.to_owned()))
        } else if hello.free_slots < items {
            Some((
                RefuseCode::Slots,
                format!(
                    "{items} items need a descriptor each and the taker has {} free; raise its \
                     limit of open files (ulimit -n) by {} or more",
                    hello.free_slots,
                    items - hello.free_slots
                ),
            ))
        } else {
            None
        };
        if let Some((code, reason)) = refusal {
            return self.refuse(code, reason);
        }
        let attempt = self.attempt.as_mut()?;
        attempt.channel.agree(common?);
        attempt.features = hello.features;
        app.takeover().newest_state = hello.newest_state;
        let slots = usize::try_from(hello.free_slots).unwrap_or(usize::MAX);
        Some(Event::Fits { slots })
    }

    /// Tells the caller why it does not become a taker.
    fn refuse(&mut self, code: RefuseCode, reason: String) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        // The first record of a fresh channel always has room.
        let _ = attempt.send_or_log(&refusal(code, &reason));
        attempt.note = format!("refused: {reason}");
        let cause = match code {
            RefuseCode::Slots => Cause::FdLimit,
            _ => Cause::Protocol,
        };
        Some(Event::Failure(cause))
    }

    /// The caller has gone, or was hung up on, before it became a taker.
    pub(super) fn dismiss<S>(&mut self, cx: &Cx<S>, attempt: &Attempt) {
        let why = match attempt.note.as_str() {
            "" => "it said nothing",
            note => note,
        };
        let pid = attempt.taker.pid();
        let what = format_args!("a call for a takeover by pid {pid}: {why}");
        self.caller_log
            .about(CallerFault::Nothing, cx.is_held(), &what);
    }
}

/// Has the reactor watch the channel.
pub(super) fn watch<S: Application>(
    channel: &RecordChannel,
    cx: &mut Cx<S>,
) -> io::Result<Handle<OwnedFd>> {
    cx.add(
        Spec::handover("takeover channel"),
        channel.watch()?,
        channel_event,
    )
    .map_err(|refused| refused.error)
}

pub(super) fn callers<S: Application>(
    offer: &mut Offer,
    app: &mut S,
    cx: &mut Cx<S>,
    ready: Ready,
) -> io::Result<Next> {
    for _ in 0..cx.budget() {
        let channel = match offer.accept() {
            Ok(Some(channel)) => channel,
            Ok(None) => return Ok(Next::Keep),
            Err(error) => {
                with(app, cx, |side: &mut DonorSide, _, cx| {
                    let what = format_args!("a call for a takeover cannot be taken: {error}");
                    side.caller_log
                        .about(CallerFault::Unserved, cx.is_held(), &what);
                });
                if AcceptFailure::of(&error) != AcceptFailure::PeerGone {
                    // Who is queued has made its edge: nothing but a deadline comes back.
                    cx.set_deadline(ready.id(), Some(cx.now() + EXHAUSTED));
                    return Ok(Next::Keep);
                }
                continue;
            }
        };
        with(app, cx, |side: &mut DonorSide, app, cx| {
            let (fault, why) = match Identity::of(&channel) {
                Ok(taker) => match side.call(app, cx, channel, taker) {
                    Ok(()) => return,
                    Err(error) => (CallerFault::Unserved, error.to_string()),
                },
                Err(error @ IdentityError::Untrusted { .. }) => {
                    (CallerFault::Stranger, error.to_string())
                }
                Err(error) => (CallerFault::Unserved, error.to_string()),
            };
            let what = format_args!("a call for a takeover was not answered: {why}");
            side.caller_log.about(fault, cx.is_held(), &what);
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
    let mut next = Next::Keep;
    with(app, cx, |side: &mut DonorSide, app, cx| {
        next = side.receive(app, cx);
        if ready.is_writable() {
            side.room(app, cx);
        }
    });
    Ok(next)
}

/// Answers a caller that cannot be served, and hangs up.
fn refuse(mut channel: RecordChannel, code: RefuseCode, reason: &str) {
    if let Err(error) = channel.send_record(&refusal(code, reason)) {
        log::debug!("a caller did not hear its refusal: {error}");
    }
}

fn refusal(code: RefuseCode, reason: &str) -> Record<'_> {
    let Versions { min, max } = Versions::OURS;
    Record::Refuse(Refuse {
        code,
        min,
        max,
        reason,
    })
}
