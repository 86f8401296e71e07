//! The taker's side: performs what [`Taker`] asks for and tells it what happens.
//!
//! It owns a reactor that is held: items are added and validated on arrival, and polled
//! from the claim on. What has to be done after the claim is split by urgency: peers are
//! polled in the very next turn; PATH, pid file and logs come behind it.
//!
//! | file | |
//! |---|---|
//! | `taker/receive.rs` | what the donor says |
//! | `taker/send.rs` | what the donor is told |
//! | `taker/outcome.rs` | the claim and what follows, or the way out |

mod outcome;
mod receive;
mod send;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::deadline::Deadline;
use super::donor::listen;
use super::import::{Import, Problem};
use super::record_channel::RecordChannel;
use super::{Deadlines, Panic, Role, Session, drain_channel, with};
use crate::event::{Cx, Handle, Spec, Time};
use crate::proto::records::{End, FailCode, RefuseCode};
use crate::takeover::application::Application;
use crate::takeover::core::taker::{Action, Event, State, Step, Taker};
use crate::takeover::failpoint::{Failpoint, Side};
use crate::takeover::os::channel::Channel;
use crate::takeover::os::identity::Identity;
use crate::takeover::os::lease::Lease;
use crate::takeover::os::offer::Offer;
use crate::takeover::report::{Report, Times};
pub use outcome::Ending;
use receive::channel_event;
use send::hello;

/// How long the taker may keep its CPU busy waiting for the final array: a sleeping one is
/// woken some 30 µs later, which would be most of the freeze.
const AWAKE: Duration = Duration::from_micros(200);

/// See the file's own description.
#[derive(Debug)]
pub(super) struct TakerSide {
    machine: Taker,
    channel: RecordChannel,
    watch: Handle<OwnedFd>,
    donor: Identity,
    /// For the next takeover. It is listened to from the beginning, as that can fail.
    offer: Handle<Offer>,
    lease: Option<Lease>,
    deadline: Deadline<Step>,
    /// Our own, for the takeover in which we are the donor.
    own: Deadlines,
    /// The present donor's, as WELCOME tells them.
    donors: Deadlines,
    import: Import,
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
    panic: Panic,
}

/// HELLO is out: waits for the answer.
pub(super) fn begin<S: Application>(app: &mut S, cx: &mut Cx<S>) {
    with(app, cx, |side: &mut TakerSide, app, cx| {
        let (machine, actions) = Taker::start();
        side.machine = machine;
        side.perform_all(app, cx, actions);
    });
}

/// Sends HELLO and listens to what comes back.
fn call<S: Application>(
    cx: &mut Cx<S>,
    channel: &mut RecordChannel,
    network: Option<u64>,
) -> io::Result<Handle<OwnedFd>> {
    hello(channel, S::NEWEST_STATE, network)?;
    watch(cx, channel)
}

fn watch<S: Application>(cx: &mut Cx<S>, channel: &RecordChannel) -> io::Result<Handle<OwnedFd>> {
    let spec = Spec::handover("takeover channel");
    cx.add(spec, channel.watch()?, channel_event)
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
        let mut channel = RecordChannel::new(channel);
        let offer = listen(cx, offer)?;
        let called = call(cx, &mut channel, network);
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
            channel,
            watch,
            donor,
            offer,
            lease: None,
            deadline: Deadline::default(),
            panic: Panic::default(),
            own: deadlines,
            donors: deadlines,
            import: Import::default(),
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

    fn arm<S: Application>(&mut self, cx: &mut Cx<S>, step: Step) {
        let after = match step {
            Step::Hello => self.own.hello,
            Step::Preload => self.donors.preload,
            Step::Freeze => self.donors.freeze + self.donors.claim,
        };
        let after = after * 2 + Duration::from_secs(1);
        self.deadline.arm(cx, step, after, |app, cx| {
            with(app, cx, TakerSide::time_is_up);
        });
    }

    /// Rule 4. Timers run before I/O, and a process that was stopped may find both: what the donor
    /// has said comes first, END above all.
    fn time_is_up<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let _ = self.deadline.pass();
        drain_channel(|| self.receive(app, cx));
        if !self.deadline.is_armed() && !matches!(self.machine.state(), State::Active | State::Gone)
        {
            self.step(app, cx, Event::Deadline);
        }
    }

    fn unusable(&mut self, problem: Problem) -> Event {
        self.problem = Some(problem);
        Event::Unusable
    }
}

impl Session for TakerSide {
    type Event = Event;
    type Action = Action;

    fn of(role: Role) -> Result<Box<TakerSide>, Role> {
        match role {
            Role::Taker(side) => Ok(side),
            other => Err(other),
        }
    }

    /// One that has left hangs up: the donor kills a taker that does not.
    fn into_role(self: Box<Self>) -> Role {
        match self.machine.state() {
            State::Gone => Role::None,
            _ => Role::Taker(self),
        }
    }

    fn advance(&mut self, event: Event) -> Vec<Action> {
        let (machine, actions) = self.machine.clone().step(event);
        self.machine = machine;
        actions
    }

    fn failpoint(&mut self) -> (&mut Failpoint, &'static str) {
        (&mut self.failpoint, self.machine.state().name())
    }

    fn panic(&mut self) -> &mut Panic {
        &mut self.panic
    }

    /// Nothing is ours yet, so nothing is lost: the donor is told, and every copy closed.
    fn recover<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let problem = Problem::new(FailCode::Internal, "a panic".to_owned());
        let event = self.unusable(problem);
        self.step(app, cx, event);
    }

    fn watch_again<S: Application>(&mut self, _: &mut S, cx: &mut Cx<S>) {
        if !cx.contains(self.watch.id())
            && let Ok(watch) = watch(cx, &self.channel)
        {
            self.watch = watch;
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
}
