//! What the donor hears of its taker: records, each as an event.

use std::io;
use std::os::fd::OwnedFd;

use super::DonorSide;
use crate::event::{Cx, Event as Ready, Handle, Next, Spec};
use crate::proto::records::{self, Ack, DeclineCode, ItemKind, Record, RefuseCode};
use crate::proto::wire::DecodeError;
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Cause, Event, State};
use crate::takeover::core::ledger::ItemId;
use crate::takeover::os::channel::{Fault, Got};
use crate::takeover::session::record_channel::RecordChannel;
use crate::takeover::session::{Session, with};

impl DonorSide {
    /// What has arrived. As long as we serve that is one record a turn: between any two of them
    /// peers are served, and a SIGTERM is heard while it can still end the attempt. Once all is
    /// held there is nobody else to serve, and the budget is the bound. At a deadline or a death
    /// all that was said before is read at once.
    pub(super) fn receive<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Next {
        for _ in 0..cx.budget() {
            let Some(attempt) = self.attempt.as_mut() else {
                return Next::Keep;
            };
            let (event, more) = match attempt.channel.receive() {
                Got::Record(length) => match self.understand(app, cx, length) {
                    Some(event) => (event, true),
                    None => continue,
                },
                Got::Empty => return Next::Keep,
                Got::End => {
                    // Without a pidfd there is no other sign of its death.
                    let mute = attempt.taker.pidfd().is_none();
                    self.feed(app, cx, Event::Failure(Cause::Eof));
                    if !mute {
                        return Next::Keep;
                    }
                    (Event::Failure(Cause::Died), false)
                }
                Got::Broken(fault) => {
                    let more = !matches!(fault, Fault::Os(_));
                    (self.trouble(Cause::Protocol, fault.to_string()), more)
                }
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
