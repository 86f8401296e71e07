//! The taker's side: performs what [`Taker`] asks for and tells it what happens.
//!
//! It owns a reactor that is held: items are added and validated on arrival, and polled
//! from the claim on. What has to be done after the claim is split by urgency: peers are
//! polled in the very next turn; PATH, pid file and logs come behind it.
//!
//! | file | |
//! |---|---|
//! | `taker/hear.rs` | what the donor says |
//! | `taker/tell.rs` | what the donor is told |
//! | `taker/outcome.rs` | the claim and what follows, or the way out |

mod hear;
mod outcome;
mod tell;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::donor::listen;
use super::intake::{Intake, Problem};
use super::post::Post;
use super::{Deadlines, Role, hear_out};
use crate::event::{Class, Cx, Handle, Spec, Time, TimerId};
use crate::proto::records::{End, RefuseCode};
use crate::takeover::application::Application;
use crate::takeover::core::taker::{Action, Event, State, Step, Taker};
use crate::takeover::failpoint::{Failpoint, Side};
use crate::takeover::os::channel::Channel;
use crate::takeover::os::identity::Identity;
use crate::takeover::os::lease::Lease;
use crate::takeover::os::offer::Offer;
use crate::takeover::report::{Report, Times};
use hear::channel_event;
pub use outcome::Ending;
use tell::hello;

/// How long the taker may keep its CPU busy waiting for the final array: a sleeping one is
/// woken some 30 µs later, which would be most of the freeze.
const AWAKE: Duration = Duration::from_micros(200);

/// See the file's own description.
#[derive(Debug)]
pub(super) struct TakerSide {
    machine: Taker,
    post: Post,
    watch: Handle<OwnedFd>,
    donor: Identity,
    /// For the next takeover. It is listened to from the beginning, as that can fail.
    offer: Handle<Offer>,
    lease: Option<Lease>,
    timer: Option<TimerId>,
    /// Our own, for the takeover in which we are the donor.
    own: Deadlines,
    /// The present donor's, as WELCOME tells them.
    donors: Deadlines,
    intake: Intake,
    end: Option<End>,
    refused: Option<RefuseCode>,
    problem: Option<Problem>,
    /// How long to stay awake for the final array, and until when; asked of the system
    /// beforehand, which takes some twenty system calls.
    awake: Duration,
    awake_until: Time,
    report: Report,
    /// SIGTERM came when it was too late to leave the service to the donor.
    told_to_stop: bool,
    failpoint: Failpoint,
}

/// Runs `work` on the taker's side, if this is a taker.
pub(super) fn with<S: Application>(
    app: &mut S,
    cx: &mut Cx<S>,
    work: impl FnOnce(&mut TakerSide, &mut S, &mut Cx<S>),
) {
    match std::mem::replace(&mut app.takeover().role, Role::AtWork) {
        Role::Taker(mut side) => {
            work(&mut side, app, cx);
            // One that has left hangs up: the donor kills a taker that does not.
            let is_gone = side.machine.state() == State::Gone;
            app.takeover().role = if is_gone {
                Role::None
            } else {
                Role::Taker(side)
            };
        }
        other => app.takeover().role = other,
    }
}

/// HELLO is out: waits for the answer.
pub(super) fn begin<S: Application>(app: &mut S, cx: &mut Cx<S>) {
    with(app, cx, |side, app, cx| {
        let (machine, actions) = Taker::start();
        side.machine = machine;
        side.perform_all(app, cx, actions);
    });
}

/// Sends HELLO and listens to what comes back.
fn call<S: Application>(
    cx: &mut Cx<S>,
    post: &mut Post,
    network: Option<u64>,
) -> io::Result<Handle<OwnedFd>> {
    hello(post, S::NEWEST_STATE, network)?;
    let spec = Spec::handover("takeover channel");
    cx.add(spec, post.watch()?, channel_event)
        .map_err(|refused| refused.error)
}

impl TakerSide {
    /// Sends HELLO.
    pub(super) fn new<S: Application>(
        cx: &mut Cx<S>,
        channel: Channel,
        donor: Identity,
        offer: Offer,
        deadlines: Deadlines,
        network: Option<u64>,
    ) -> io::Result<TakerSide> {
        let mut post = Post::new(channel);
        let offer = listen(cx, offer)?;
        let called = call(cx, &mut post, network);
        let watch = called.inspect_err(|_| drop(cx.take(offer)))?;
        let alone = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
        let report = Report {
            other: donor.pid(),
            times: Times {
                begun: Some(Time::now()),
                ..Default::default()
            },
            ..Default::default()
        };
        Ok(TakerSide {
            machine: Taker::start().0,
            post,
            watch,
            donor,
            offer,
            lease: None,
            timer: None,
            own: deadlines,
            donors: deadlines,
            intake: Intake::default(),
            end: None,
            refused: None,
            problem: None,
            awake: if alone { Duration::ZERO } else { AWAKE },
            awake_until: Time::ZERO,
            report,
            told_to_stop: false,
            failpoint: Failpoint::of(Side::Taker),
        })
    }

    /// See [`Takeover::may_leave`](super::Takeover::may_leave).
    pub(super) fn may_leave(&self) -> bool {
        !matches!(
            self.machine.state(),
            State::Validate | State::Claim | State::Active
        )
    }

    pub(super) fn term<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let (machine, actions) = self.machine.clone().term();
        self.machine = machine;
        self.told_to_stop = self.machine.state() != State::Gone;
        self.perform_all(app, cx, actions);
    }

    fn feed<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, event: Event) {
        let (machine, actions) = self.machine.clone().step(event);
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
            self.feed(app, cx, outcome);
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
            Action::Ack { sequence, .. } => return self.acknowledge(cx, sequence),
            Action::Settle => return self.settle(app, cx),
            Action::Validate => return Some(self.validate()),
            Action::Claim => return Some(self.claim()),
            Action::Activate => self.activate(cx),
            Action::Fail => self.fail(),
            Action::Leave(why) => self.leave(app, cx, why),
        }
        None
    }

    fn arm<S: Application>(&mut self, cx: &mut Cx<S>, step: Step) {
        let after = match step {
            Step::Hello => self.own.hello,
            Step::Preload => self.donors.preload,
            Step::Freeze => self.donors.freeze + self.donors.claim,
        };
        let at = Time::now() + after * 2 + Duration::from_secs(1);
        // Moved, if there is one: a new one would be made within the freeze.
        if self.timer.is_none_or(|timer| !cx.rearm(timer, at)) {
            self.timer = Some(
                cx.timer(Class::Handover, "takeover deadline", at, |app, cx| {
                    with(app, cx, TakerSide::time_is_up);
                    None
                }),
            );
        }
    }

    /// Timers run before I/O, and a process that was stopped may find both: what the donor
    /// has said comes first, END above all.
    fn time_is_up<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        self.timer = None;
        hear_out(|| self.receive(app, cx));
        if self.timer.is_none() && !matches!(self.machine.state(), State::Active | State::Gone) {
            self.feed(app, cx, Event::Deadline);
        }
    }

    fn disarm<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(timer) = self.timer.take() {
            cx.cancel(timer);
        }
    }

    fn unusable(&mut self, problem: Problem) -> Event {
        self.problem = Some(problem);
        Event::Unusable
    }
}
