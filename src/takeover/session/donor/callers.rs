//! Callers at PATH, each until it is a taker.
//!
//! A caller whose identity is not trusted is hung up on without a word. One that comes while
//! another is served is told BUSY. One is a taker once its HELLO fits. What the log says of each is
//! limited by `caller_log.rs`.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::DonorSide;
use super::attempt::Attempt;
use super::caller_log::CallerFault;
use super::receive::watch;
use crate::event::{AcceptFailure, Cx, Event as Ready, Next, Spec, Time};
use crate::proto::digest::Digest;
use crate::proto::records::{Hello, Record, Refuse, RefuseCode};
use crate::proto::wire::Versions;
use crate::sys;
use crate::takeover::application::Application;
use crate::takeover::core::donor::{Cause, Event};
use crate::takeover::os::channel::Channel;
use crate::takeover::os::identity::{Identity, IdentityError};
use crate::takeover::os::offer::Offer;
use crate::takeover::report::{Report, Times};
use crate::takeover::session::record_channel::RecordChannel;
use crate::takeover::session::{drain_channel, is_our_clock, with};

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
    pub(super) fn refuse(&mut self, code: RefuseCode, reason: String) -> Option<Event> {
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
                    // Those in the queue raise no further edge: only a deadline comes back for them.
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
