//! The donor's side: performs what [`Donor`] asks for and tells it what happens.
//!
//! | source | callback |
//! |---|---|
//! | the offer's socket | `callers`: identity, then one attempt at a time; others are BUSY |
//! | the channel | `channel_event`: records and room for more |
//! | the taker's pidfd | its death |
//! | one timer | the deadline armed last |
//!
//! | file | |
//! |---|---|
//! | `donor/attempt.rs` | what belongs to one caller |
//! | `donor/callers.rs` | callers, until one is a taker |
//! | `donor/receive.rs` | what the taker says |
//! | `donor/caller_log.rs` | what the log says of callers that are no takers |
//! | `donor/send.rs` | what the taker is told |
//! | `donor/outcome.rs` | the hold, the verdict and what follows |
//! | `donor/name.rs` | what it does about its name, PATH |
//!
//! Changes of items are reported to the machine before any other event while the taker is
//! told about them, so that a batch never misses one. From the hold to the outcome nothing
//! is logged.

mod attempt;
mod caller_log;
mod callers;
mod name;
mod outcome;
mod receive;
mod send;

use std::io;
use std::time::Duration;

use super::deadline::Deadline;
use super::{Deadlines, GONE, LOOK, Panic, Role, Session, drain_channel, with};
use crate::event::{Cx, Handle, Spec};
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Action, Cause, Donor, Event, Outcome, State, Step};
use crate::takeover::core::ledger::{ItemId, Presence};
use crate::takeover::failpoint::{Failpoint, Side};
use crate::takeover::moment::Moment;
use crate::takeover::os::identity::Identity;
use crate::takeover::os::offer::Offer;
use attempt::Attempt;
use caller_log::CallerLog;
pub(super) use callers::INIT;
use callers::callers;
use name::Name;
pub(super) use send::Predecessor;

/// See the file's own description.
#[derive(Debug)]
pub(super) struct DonorSide {
    machine: Donor,
    offer: Handle<Offer>,
    deadlines: Deadlines,
    generation: u64,
    deadline: Deadline<Step>,
    attempt: Option<Attempt>,
    /// The channel to the donor before us, and ACTIVE, while it is not out.
    predecessor: Option<Predecessor>,
    /// TERMs that came while ACTIVE was not out.
    terms: u32,
    panic: Panic,
    caller_log: CallerLog,
    name: Name,
    failpoint: Failpoint,
}

/// Listens to callers. A process that is not yet a donor, or no longer one, hangs up on them.
pub(super) fn listen<S: Application>(cx: &mut Cx<S>, offer: Offer) -> io::Result<Handle<Offer>> {
    cx.add(Spec::handover("takeover offer"), offer, callers)
        .map_err(|refused| refused.error)
}

impl DonorSide {
    pub(super) fn new<S: Application>(
        cx: &mut Cx<S>,
        offer: Offer,
        generation: u64,
        deadlines: Deadlines,
    ) -> io::Result<DonorSide> {
        Ok(DonorSide::at(listen(cx, offer)?, generation, deadlines))
    }

    /// At an offer that is listened to already.
    pub(super) fn at(offer: Handle<Offer>, generation: u64, deadlines: Deadlines) -> DonorSide {
        DonorSide {
            machine: Donor::default(),
            offer,
            deadlines,
            generation,
            deadline: Deadline::default(),
            attempt: None,
            predecessor: None,
            terms: 0,
            panic: Panic::default(),
            caller_log: CallerLog::default(),
            name: Name::default(),
            failpoint: Failpoint::of(Side::Donor),
        }
    }

    /// See [`Takeover::may_leave`](super::Takeover::may_leave).
    pub(super) fn may_leave(&self) -> bool {
        self.predecessor.is_none() && !self.machine.has_granted()
    }

    /// The operator wants us to stop. Rule 6: the donor before us hears ACTIVE first. To it the end of
    /// a silent owner is a death, upon which it would serve on.
    pub(super) fn term<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        if self.predecessor.is_some() {
            self.terms += 1;
            return;
        }
        let (machine, actions) = std::mem::take(&mut self.machine).term();
        self.machine = machine;
        self.perform_all(app, cx, actions);
    }

    /// Rule 1: gives the machine an event, after what has changed since.
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

    /// Whether the taker is told what changes.
    fn is_telling(&self) -> bool {
        matches!(
            self.machine.state(),
            State::Preload(_) | State::HoldPeers(_) | State::LastTurn(_)
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

    /// Whether the taker would decline it. It must not be asked in the final array, when its
    /// answer would come too late.
    fn is_unwanted<S: Application>(&self, app: &mut S, cx: &mut Cx<S>, item: Item) -> bool {
        let Some(ledger) = self.machine.ledger().filter(|one| one.has_declines()) else {
            return false;
        };
        app.describe(cx, item).is_ok_and(|about| {
            let links: Vec<_> = about.links.iter().copied().map(ItemId::from).collect();
            ledger.would_decline(about.kind, about.state_version, &links)
        })
    }

    fn arm<S: Application>(&mut self, cx: &mut Cx<S>, step: Step) {
        let after = self.length(step);
        self.deadline.arm(cx, step, after, time_is_up);
    }

    fn length(&self, step: Step) -> Duration {
        match step {
            Step::Hello => self.deadlines.hello,
            Step::Preload => self.deadlines.preload,
            Step::Freeze => self.deadlines.freeze,
            Step::End => self.deadlines.end,
            Step::Claim => self.deadlines.claim,
            Step::Look => LOOK,
            Step::Gone => GONE,
            Step::Drain => self.deadlines.drain,
        }
    }

    /// Timers run before I/O, and a process that was stopped may find both: what the taker
    /// has said, and its death, come first. A deadline that we have overslept is set once more,
    /// and so is a short one if the taker could run now and does not get to it.
    fn time_is_up<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let passed = self.deadline.pass();
        drain_channel(|| self.receive(app, cx));
        if self.deadline.is_armed() {
            return;
        }
        let taker = self.attempt.as_ref().map(|one| &one.taker);
        let is_dead = taker.is_some_and(Identity::is_dead);
        if !is_dead && let Some(passed) = passed {
            let after = self.length(passed.step);
            // A CPU quota stops each processor for itself, so the taker's while ours goes on.
            let has_starved = || {
                matches!(passed.step, Step::End | Step::Claim)
                    && taker.is_some_and(Identity::has_work)
            };
            let deadline = &mut self.deadline;
            if deadline.extend(cx, passed, after, has_starved, time_is_up) {
                return;
            }
        }
        let cause = if is_dead {
            Cause::Died
        } else {
            Cause::Deadline
        };
        self.feed(app, cx, Event::Failure(cause));
    }

    fn trouble(&mut self, cause: Cause, what: String) -> Event {
        if let Some(attempt) = &mut self.attempt {
            attempt.note = what;
        }
        Event::Failure(cause)
    }
}

fn time_is_up<S: Application>(app: &mut S, cx: &mut Cx<S>) {
    with(app, cx, DonorSide::time_is_up);
}

impl Session for DonorSide {
    type Event = Event;
    type Action = Action;

    fn of(role: Role) -> Result<Box<DonorSide>, Role> {
        match role {
            Role::Donor(side) => Ok(side),
            other => Err(other),
        }
    }

    fn into_role(self: Box<Self>) -> Role {
        Role::Donor(self)
    }

    fn advance(&mut self, event: Event) -> Vec<Action> {
        let (machine, actions) = std::mem::take(&mut self.machine).step(event);
        self.machine = machine;
        actions
    }

    fn failpoint(&mut self) -> (&mut Failpoint, &'static str) {
        (&mut self.failpoint, self.machine.state().name())
    }

    fn panic(&mut self) -> &mut Panic {
        &mut self.panic
    }

    /// Whatever was done of what was asked for: before the grant the peers are ours, and from
    /// there on the lease knows.
    fn recover<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        if let (State::SendFdArray(_), Some(lease)) = (
            self.machine.state(),
            self.attempt.as_ref().and_then(|one| one.lease.as_ref()),
        ) {
            // It may be granted and the machine not know of it. END is not out, so nobody can
            // have claimed: this only takes the grant back.
            let _ = lease.revoke();
        }
        self.watch_again(app, cx);
        let trouble = self.trouble(Cause::Resources, "a panic".to_owned());
        self.step(app, cx, trouble);
    }

    fn watch_again<S: Application>(&mut self, _: &mut S, cx: &mut Cx<S>) {
        if let Some(attempt) = self.attempt.as_mut()
            && !cx.contains(attempt.watch.id())
            && let Ok(watch) = receive::watch(&attempt.channel, cx)
        {
            attempt.watch = watch;
        }
    }

    fn perform<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        action: Action,
    ) -> Option<Event> {
        match action {
            Action::Arm(step) => self.arm(cx, step),
            Action::Disarm => self.deadline.disarm(cx),
            Action::Welcome => return Some(self.welcome(app, cx)),
            Action::Prepare => return self.prepare(cx),
            Action::Send(batch) => return self.send(app, cx, batch),
            Action::Hold => {
                self.rehearse(app, cx);
                cx.hold(|app, cx| with(app, cx, DonorSide::held));
            }
            Action::Grant => {
                let granted = self.attempt.as_ref()?.lease.as_ref()?.grant();
                return Some(match granted {
                    Ok(()) => Event::Did(Outcome::Granted),
                    Err(error) => self.trouble(Cause::Resources, format!("lease: {error}")),
                });
            }
            Action::End => return self.end(cx),
            Action::Revoke => return self.revoke(),
            Action::Wait => self.wait(app, cx),
            Action::Resume(cause) => self.resume(app, cx, cause),
            Action::Abort(cause) => self.abort(cx, cause),
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
            Action::Orphan(declined) => self.orphan(app, cx, &declined),
            Action::Release(keep) => return self.release(app, cx, &keep),
            Action::PassTerm => {
                if let Err(error) = self.attempt.as_ref()?.taker.terminate(libc::SIGTERM) {
                    log::warn!("the new owner cannot be told to stop: {error}");
                }
            }
            Action::Stop => {
                self.withdraw(cx);
                self.notify(app, cx, Moment::Stop);
            }
            Action::Exit => self.notify(app, cx, Moment::Exit),
        }
        None
    }
}

fn describe(cause: Cause) -> &'static str {
    match cause {
        Cause::Failed => "the taker gave up",
        Cause::Eof => "the taker closed the channel",
        Cause::Died => "the taker died",
        Cause::Deadline => "the taker did not answer in time",
        Cause::Protocol => "the channel or the protocol broke",
        Cause::FdLimit => "the taker has too few descriptor slots",
        Cause::FalseActive => "the taker said ACTIVE and had not claimed",
        Cause::Resources => "the donor could not go on",
        Cause::Stopping => "the donor stops",
    }
}
