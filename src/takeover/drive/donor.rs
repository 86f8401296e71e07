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
//! | `donor/hear.rs` | callers, and what the taker says |
//! | `donor/complaints.rs` | what the log says of callers that are no takers |
//! | `donor/tell.rs` | what the taker is told |
//! | `donor/outcome.rs` | the hold, the verdict and what follows |
//! | `donor/name.rs` | what it does about its name, PATH |
//!
//! Changes of items are reported to the machine before any other event while the taker is
//! told about them, so that a batch never misses one. From the hold to the outcome nothing
//! is logged.

mod attempt;
mod complaints;
mod hear;
mod name;
mod outcome;
mod tell;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::{Deadlines, GONE, LOOK, Role, hear_out};
use crate::event::{Class, Cx, Handle, Spec, Time, TimerId};
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Action, Cause, Donor, Event, Outcome, State, Step};
use crate::takeover::core::ledger::{ItemId, Presence};
use crate::takeover::failpoint::{Failpoint, Side};
use crate::takeover::moment::Moment;
use crate::takeover::os::offer::Offer;
use attempt::Attempt;
use complaints::Complaints;
pub(super) use hear::INIT;
use hear::callers;
use name::Name;
pub(super) use tell::Predecessor;

/// See the file's own description.
#[derive(Debug)]
pub(super) struct DonorSide {
    machine: Donor,
    offer: Handle<Offer>,
    deadlines: Deadlines,
    generation: u64,
    deadline: Option<Armed>,
    attempt: Option<Attempt>,
    /// The channel to the donor before us, and ACTIVE, while it is not out.
    predecessor: Option<Predecessor>,
    /// TERMs that came while ACTIVE was not out.
    terms: u32,
    /// What a notification of the application panicked with, until all is done.
    panic: Option<Box<dyn Any + Send>>,
    complaints: Complaints,
    name: Name,
    failpoint: Failpoint,
}

/// The deadline armed last.
#[derive(Debug, Clone, Copy)]
struct Armed {
    timer: TimerId,
    step: Step,
    at: Time,
    /// It has passed once, and we had not been running ourselves.
    is_extended: bool,
}

/// A deadline that is seen so late has passed while we did not run, or hardly. The other side may
/// have fared alike (a CPU quota, a stopped machine), so its silence proves nothing yet.
const OVERSLEPT: Duration = Duration::from_millis(5);

/// Runs `work` on the donor's side, if this is a donor. A panic in it, which is most likely the
/// application's own, passes through; if the reactor is turned on, the attempt ends. A panic in a
/// notification passes through when all that the machine asked for is done.
pub(super) fn with<S: Application>(
    app: &mut S,
    cx: &mut Cx<S>,
    work: impl FnOnce(&mut DonorSide, &mut S, &mut Cx<S>),
) {
    match std::mem::replace(&mut app.takeover().role, Role::AtWork) {
        Role::Donor(mut side) => {
            let worked = catch_unwind(AssertUnwindSafe(|| work(&mut side, app, cx)));
            let notified = side.panic.take();
            app.takeover().role = Role::Donor(side);
            if let Err(panic) = worked {
                // Whoever goes on after it must not be left with peers that are held for ever.
                cx.defer_handover(|app, cx| with(app, cx, DonorSide::recover));
                resume_unwind(panic);
            }
            if let Some(panic) = notified {
                cx.defer_handover(|app, cx| with(app, cx, DonorSide::watch_again));
                resume_unwind(panic);
            }
        }
        other => app.takeover().role = other,
    }
}

/// Listens to callers. Who is no donor yet, or no more, hangs up on them.
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
            deadline: None,
            attempt: None,
            predecessor: None,
            terms: 0,
            panic: None,
            complaints: Complaints::default(),
            name: Name::default(),
            failpoint: Failpoint::of(Side::Donor),
        }
    }

    /// See [`Takeover::may_leave`](super::Takeover::may_leave).
    pub(super) fn may_leave(&self) -> bool {
        self.predecessor.is_none() && !self.machine.has_granted()
    }

    /// The operator wants us to stop. The donor before us hears ACTIVE first: to it the end of
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
        self.failpoint.before(self.machine.state().name());
        let outcomes: Vec<Event> = actions
            .into_iter()
            .filter_map(|action| self.perform(app, cx, action))
            .collect();
        self.failpoint.after();
        for outcome in outcomes {
            self.step(app, cx, outcome);
        }
    }

    /// A panic has cut short what was to be done. Whatever was done of it: before the grant the
    /// peers are ours, and from there on the lease knows.
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

    /// A panic ends the source whose callback it came through. Without a new one only deadlines
    /// would tell what the taker does.
    fn watch_again<S: Application>(&mut self, _: &mut S, cx: &mut Cx<S>) {
        if let Some(attempt) = self.attempt.as_mut()
            && !cx.contains(attempt.watch.id())
            && let Ok(watch) = hear::watch(&attempt.post, cx)
        {
            attempt.watch = watch;
        }
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

    fn arm<S: Application>(&mut self, cx: &mut Cx<S>, step: Step) {
        let after = match step {
            Step::Hello => self.deadlines.hello,
            Step::Preload => self.deadlines.preload,
            Step::Freeze => self.deadlines.freeze,
            Step::End => self.deadlines.end,
            Step::Claim => self.deadlines.claim,
            Step::Look => LOOK,
            Step::Gone => GONE,
            Step::Drain => self.deadlines.drain,
        };
        let at = Time::now() + after;
        // Moved, if there is one: a new one would be made within the freeze.
        let timer = match self.deadline.take() {
            Some(armed) if cx.rearm(armed.timer, at) => armed.timer,
            _ => cx.timer(Class::Handover, "takeover deadline", at, |app, cx| {
                with(app, cx, DonorSide::time_is_up);
                None
            }),
        };
        self.deadline = Some(Armed {
            timer,
            step,
            at,
            is_extended: false,
        });
    }

    /// Timers run before I/O, and a process that was stopped may find both: what the taker
    /// has said, and its death, come first. A deadline that we have overslept is set once more.
    fn time_is_up<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let passed = self.deadline.take();
        hear_out(|| self.receive(app, cx));
        if self.deadline.is_some() {
            return;
        }
        let is_dead = self.attempt.as_ref().is_some_and(|one| one.taker.is_dead());
        if is_dead {
            return self.feed(app, cx, Event::Failure(Cause::Died));
        }
        if let Some(passed) = passed
            && !passed.is_extended
            && Time::now().since(passed.at) > OVERSLEPT
        {
            self.arm(cx, passed.step);
            self.deadline = self.deadline.map(|again| Armed {
                is_extended: true,
                ..again
            });
            return;
        }
        self.feed(app, cx, Event::Failure(Cause::Deadline));
    }

    fn disarm<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(armed) = self.deadline.take() {
            cx.cancel(armed.timer);
        }
    }

    /// Tells the application. A panic of its is kept until what the machine has asked for is
    /// done: half of a release would hold everything for ever.
    fn notify<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, moment: Moment) {
        let told = catch_unwind(AssertUnwindSafe(|| app.moment(cx, moment)));
        if let Err(panic) = told {
            self.panic.get_or_insert(panic);
        }
    }

    fn trouble(&mut self, cause: Cause, what: String) -> Event {
        if let Some(attempt) = &mut self.attempt {
            attempt.note = what;
        }
        Event::Failure(cause)
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
