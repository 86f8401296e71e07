//! The taker's side: performs what [`Taker`] asks for and tells it what happens.
//!
//! It owns a reactor that is held: items are added and validated on arrival, and polled
//! from the claim on. What has to be done after the claim is split by urgency: peers are
//! polled in the very next turn; PATH, pid file and logs come behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::intake::{Intake, Problem};
use super::post::{Incoming, Post};
use super::{Deadlines, Role, Takeover, donor, hear_out};
use crate::event::{Class, Cx, Event as Ready, Handle, Interest, Next, Spec, Time, TimerId};
use crate::proto::records::{
    self, AckBuilder, End, Fail, FailCode, Fit, Hello, Record, RefuseCode, Welcome,
};
use crate::proto::wire::{Header, MAX_VERSION, MIN_VERSION, WIRE_VERSION};
use crate::takeover::application::Application;
use crate::takeover::channel::{Channel, Sent};
use crate::takeover::identity::Identity;
use crate::takeover::lease::{Lease, Verdict};
use crate::takeover::limits;
use crate::takeover::moment::Moment;
use crate::takeover::rendezvous::Offer;
use crate::takeover::report::{Report, Times};
use crate::takeover::taker::{Action, Event, Leaving, State, Step, Taker};

/// How long the taker may keep its CPU busy waiting for END: a sleeping one is woken some
/// 30 µs later, which would be a third of the freeze.
const SPIN: Duration = Duration::from_micros(200);
/// Records taken in one turn: some batches, and in the freeze nearly always all there are.
const RECORDS: usize = 64;
/// Descriptors that a taker opens for itself between HELLO and the claim.
const OWN: usize = 24;

/// How an attempt ended for a taker that owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The donor refused.
    Refused(RefuseCode),
    /// The donor serves on: it ended the attempt, was too slow for us or took back the
    /// grant; or we could not use what it sent.
    DonorServes,
    /// The donor died or stopped before it had handed over. Nobody serves.
    DonorDied,
    /// The donor left before it had answered: it has handed over to somebody else, or died.
    /// A retry tells.
    Unanswered,
    /// We were told to stop.
    Stopped,
}

/// See the file's own description.
#[derive(Debug)]
pub(super) struct TakerSide {
    machine: Taker,
    post: Post,
    watch: Handle<OwnedFd>,
    donor: Identity,
    offer: Option<Offer>,
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
    /// How long to stay awake for END; asked of the system beforehand, which takes some
    /// twenty system calls.
    spin: Duration,
    report: Report,
    /// SIGTERM came when it was too late to leave the service to the donor.
    told_to_stop: bool,
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

fn hello(post: &mut Post) -> io::Result<()> {
    let free = limits::free_slots()?.saturating_sub(OWN);
    let mut record = Vec::new();
    let hello = Record::Hello(Hello {
        min: MIN_VERSION,
        max: MAX_VERSION,
        features: 0,
        free_slots: free as u64,
        now_ns: Time::now().as_ns(),
        pid: std::process::id(),
    });
    records::encode(&hello, false, &mut record).map_err(io::Error::other)?;
    match post.post(record, |_| ()) {
        Ok(_) => Ok(()),
        // It hung up on us at once; what it said is still to be read.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl TakerSide {
    /// Sends HELLO.
    pub(super) fn new<S: Application>(
        cx: &mut Cx<S>,
        channel: Channel,
        donor: Identity,
        offer: Offer,
        deadlines: Deadlines,
    ) -> io::Result<TakerSide> {
        let mut post = Post::new(channel);
        hello(&mut post)?;
        let watch = cx
            .add(
                Spec::handover("takeover channel"),
                post.watch()?,
                channel_event,
            )
            .map_err(|refused| refused.error)?;
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
            offer: Some(offer),
            lease: None,
            timer: None,
            own: deadlines,
            donors: deadlines,
            intake: Intake::default(),
            end: None,
            refused: None,
            problem: None,
            spin: if alone { Duration::ZERO } else { SPIN },
            report,
            told_to_stop: false,
        })
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
        let outcomes: Vec<Event> = actions
            .into_iter()
            .filter_map(|action| self.perform(app, cx, action))
            .collect();
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
            Action::Settle => return self.settle(cx),
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
        self.disarm(cx);
        let at = Time::now() + after * 2 + Duration::from_secs(1);
        self.timer = Some(
            cx.timer(Class::Handover, "takeover deadline", at, |app, cx| {
                with(app, cx, TakerSide::time_is_up);
                None
            }),
        );
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

    /// What has arrived, as far as the budget goes: deadlines and signals are to be seen too.
    fn receive<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Next {
        for _ in 0..RECORDS {
            if matches!(self.machine.state(), State::Active | State::Gone) {
                return Next::Keep;
            }
            let event = match self.post.receive() {
                Incoming::Record(length) => match self.understand(app, cx, length) {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(problem) => self.unusable_unless_aborted(problem),
                },
                Incoming::Empty => return Next::Keep,
                Incoming::End => Event::Eof,
                Incoming::Broken(what) | Incoming::Unreadable(what) => {
                    self.unusable(Problem::new(FailCode::Fds, what))
                }
            };
            self.feed(app, cx, event);
        }
        Next::Again
    }

    /// What a donor sent before it stopped may be unusable by now, its listener above all.
    /// Then it has said so since, and that is the truth of the matter.
    fn unusable_unless_aborted(&mut self, problem: Problem) -> Event {
        for _ in 0..RECORDS {
            match self.post.receive() {
                Incoming::Record(length) => {
                    let buffer = self.post.take_buffer();
                    let decoded = records::decode(&buffer[..length], self.post.fds.len());
                    let aborted = match decoded {
                        Ok((_, Record::Abort(abort))) => Some(self.aborted(abort.reason)),
                        _ => None,
                    };
                    self.post.fds.clear();
                    self.post.put_buffer(buffer);
                    if let Some(event) = aborted {
                        return event;
                    }
                }
                Incoming::Broken(_) => {}
                Incoming::Empty | Incoming::End | Incoming::Unreadable(_) => break,
            }
        }
        self.unusable(problem)
    }

    fn aborted(&mut self, reason: &str) -> Event {
        self.report.failure = format!("the donor ended the takeover: {reason}");
        Event::Abort
    }

    fn understand<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        length: usize,
    ) -> Result<Option<Event>, Problem> {
        let buffer = self.post.take_buffer();
        let bytes = &buffer[..length];
        let fds = std::mem::take(&mut self.post.fds);
        let event = match records::decode(bytes, fds.len()) {
            Ok((header, record)) => self.event_of(app, cx, bytes, &header, record, fds),
            Err(error) => Err(Problem::new(FailCode::Malformed, error.to_string())),
        };
        self.post.put_buffer(buffer);
        event
    }

    fn event_of<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        bytes: &[u8],
        header: &Header,
        record: Record<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Event>, Problem> {
        let state = self.machine.state();
        Ok(Some(match record {
            Record::Welcome(welcome) if state == State::Hello => {
                self.welcome::<S>(&welcome, fds)?;
                Event::Welcome
            }
            Record::Refuse(refuse) => {
                self.refused = Some(refuse.code);
                self.report.failure = format!("refused: {} ({})", refuse.code, refuse.reason);
                Event::Refused
            }
            Record::Items(_) | Record::State(_) | Record::Closed(_)
                if matches!(state, State::Receive | State::Settle) =>
            {
                let last_words = state == State::Settle;
                if last_words {
                    self.intake.digest.update(bytes);
                }
                self.intake.take(app, cx, &record, fds, last_words)?;
                match (header.is_last(), last_words) {
                    (true, _) => Event::Batch {
                        sequence: header.sequence,
                        declined: self.intake.batch_complete()?,
                    },
                    (false, true) => Event::FinalPart,
                    (false, false) => return Ok(None),
                }
            }
            Record::Prepare => {
                self.report.times.prepare = Some(Time::now());
                Event::Prepare
            }
            Record::End(end) => {
                self.report.times.end = Some(Time::now());
                self.end = Some(end);
                Event::End
            }
            Record::Abort(abort) => self.aborted(abort.reason),
            Record::Welcome(_)
            | Record::Items(_)
            | Record::State(_)
            | Record::Closed(_)
            | Record::Hello(_)
            | Record::Ack(_)
            | Record::Drained
            | Record::Fail(_)
            | Record::Active => {
                let what = format!("{:?} is not for now", record.kind());
                return Err(Problem::new(FailCode::Malformed, what));
            }
        }))
    }

    fn welcome<S: Application>(
        &mut self,
        welcome: &Welcome<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Problem> {
        if welcome.version != WIRE_VERSION {
            let what = format!("version {} was never offered", welcome.version);
            return Err(Problem::new(FailCode::Malformed, what));
        }
        if welcome.application != S::NAME {
            let what = format!(
                "the donor is {:?}, we are {:?}",
                welcome.application,
                S::NAME
            );
            return Err(Problem::new(FailCode::Invalid, what));
        }
        let now = Time::now();
        let theirs = Time::from_ns(welcome.now_ns);
        if theirs > now || now.since(theirs) > Duration::from_secs(60) {
            let what = "the donor's monotonic clock is not ours".to_owned();
            return Err(Problem::new(FailCode::Invalid, what));
        }
        let lease = fds
            .into_iter()
            .next()
            .ok_or_else(|| Problem::new(FailCode::Fds, "WELCOME has no lease".into()))?;
        let lease = Lease::from_fd(lease)
            .map_err(|error| Problem::new(FailCode::Invalid, format!("lease: {error}")))?;
        self.lease = Some(lease);
        self.donors = Deadlines {
            preload: Duration::from_millis(welcome.preload_ms.into()),
            freeze: Duration::from_millis(welcome.freeze_ms.into()),
            claim: Duration::from_millis(welcome.claim_ms.into()),
            ..self.own
        };
        // Grown once and while we are alone: with a second thread each doubling waits for
        // a grace period of the kernel.
        let slots = usize::try_from(welcome.items).unwrap_or(usize::MAX);
        limits::size_table(slots.saturating_add(limits::RESERVE))
            .map_err(|error| Problem::new(FailCode::Resources, format!("slots: {error}")))?;
        // No more than there are slots for; what comes beyond that is refused elsewhere.
        self.intake
            .expect(slots.min(limits::free_slots().unwrap_or(0)));
        self.report.id = welcome.id;
        self.report.generation = welcome.generation;
        self.report.times.welcome = Some(now);
        Ok(())
    }

    fn acknowledge<S: Application>(&mut self, cx: &mut Cx<S>, sequence: u32) -> Option<Event> {
        let mut declines = std::mem::take(&mut self.intake.declines);
        let mut record = Vec::new();
        let mut builder = AckBuilder::new(sequence, &mut record);
        for decline in declines.drain(..) {
            if builder.push(decline) == Fit::Full {
                let what = "more declines than a record holds".to_owned();
                return Some(self.unusable(Problem::new(FailCode::Internal, what)));
            }
        }
        builder.finish();
        self.post_now(cx, record)
    }

    fn settle<S: Application>(&mut self, cx: &mut Cx<S>) -> Option<Event> {
        if let Err(error) = cx.settle() {
            let what = format!("epoll: {error}");
            return Some(self.unusable(Problem::new(FailCode::Resources, what)));
        }
        let mut record = Vec::new();
        let encoded = records::encode(&Record::Drained, false, &mut record);
        debug_assert!(encoded.is_ok());
        let failed = self.post_now(cx, record);
        self.report.times.held = Some(Time::now());
        cx.spin_for(self.spin);
        failed
    }

    fn post_now<S: Application>(&mut self, cx: &mut Cx<S>, record: Vec<u8>) -> Option<Event> {
        match self.post.post(record, |_| ()) {
            Ok(Sent::Done) => None,
            Ok(Sent::Blocked | Sent::Crowded) => {
                // A donor reads what it asked for; should it not, its deadline is ours too.
                let _ = cx.set_interest(self.watch.id(), Interest::Both);
                None
            }
            // Its end of the channel is closed; what it said before is still to be read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                None
            }
            Err(error) => {
                let what = format!("send: {error}");
                Some(self.unusable(Problem::new(FailCode::Resources, what)))
            }
        }
    }

    fn validate(&mut self) -> Event {
        match self.end {
            Some(end) => match self.intake.agrees_with(&end) {
                Ok(()) => Event::Valid,
                Err(problem) => self.unusable(problem),
            },
            None => self.unusable(Problem::new(FailCode::Internal, "no END".into())),
        }
    }

    fn claim(&mut self) -> Event {
        match self.lease.as_ref().map(Lease::claim) {
            Some(Ok(Verdict::Won)) => Event::Won,
            // A lease that cannot be read has not been read by us: we do not own.
            Some(Ok(Verdict::Lost) | Err(_)) | None => Event::Lost,
        }
    }

    /// The peers have waited long enough: the next thing is their turn, and everything else
    /// comes at the end of that.
    fn activate<S: Application>(&mut self, cx: &mut Cx<S>) {
        cx.resume();
        for id in self.intake.runs() {
            cx.resume_later(id);
        }
        self.disarm(cx);
        cx.defer(succeed);
        self.report.times.decided = Some(Time::now());
    }

    fn fail(&mut self) {
        // Without a problem of our own it was a good record at the wrong time.
        let problem = self.problem.get_or_insert_with(|| {
            Problem::new(FailCode::Malformed, "a record came out of its turn".into())
        });
        log::error!("cannot take over: {problem}");
        self.report.failure = problem.to_string();
        let fail = Record::Fail(Fail {
            code: problem.code,
            reason: &problem.what,
            item: problem.item,
        });
        let mut record = Vec::new();
        if records::encode(&fail, false, &mut record).is_ok()
            && let Err(error) = self.post.post(record, |_| ())
        {
            log::debug!("the donor was not told: {error}");
        }
    }

    fn leave<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, why: Leaving) {
        self.disarm(cx);
        // Copies first, the channel last: its end tells the donor that they are gone.
        if let Err(error) = cx.release(&[]) {
            log::debug!("release: {error}");
        }
        self.intake = Intake::default();
        self.offer = None;
        let ending = match why {
            Leaving::Refused => Ending::Refused(self.refused.unwrap_or(RefuseCode::Other(0))),
            Leaving::Eof if self.lease.is_none() => Ending::Unanswered,
            // Its end is seen on the channel some milliseconds before its pidfd tells; one
            // that was told to stop says ABORT first, and the listener that we may be looking
            // at just then is none any more.
            Leaving::Eof | Leaving::Aborted | Leaving::Failed
                if self.donor.dies_within(Duration::from_millis(100)) =>
            {
                Ending::DonorDied
            }
            Leaving::Aborted
            | Leaving::Eof
            | Leaving::Deadline
            | Leaving::Failed
            | Leaving::Revoked => Ending::DonorServes,
            Leaving::Stopping => Ending::Stopped,
        };
        if self.report.failure.is_empty() {
            self.report.failure = match why {
                Leaving::Refused => "the donor refused",
                Leaving::Aborted => "the donor ended the takeover",
                Leaving::Eof => "the donor closed the channel",
                Leaving::Deadline => "the donor did not answer in time",
                Leaving::Failed => "what the donor sent cannot be used",
                Leaving::Revoked => "the donor took back its grant",
                Leaving::Stopping => "told to stop",
            }
            .to_owned();
        }
        self.finish_report();
        app.takeover().left = Some((ending, self.report.failure.clone()));
        app.moment(cx, Moment::Left(self.report.clone(), ending));
        cx.remove(self.watch.id());
    }

    fn unusable(&mut self, problem: Problem) -> Event {
        self.problem = Some(problem);
        Event::Unusable
    }

    fn finish_report(&mut self) {
        self.report.bytes = self.post.bytes;
        self.report.fds = self.post.passed;
        self.report.items = self.intake.len() as u64;
        self.report.last = self.intake.tally;
        if let Some(end) = &self.end {
            // One clock a machine: the donor's own word for when the freeze began.
            self.report.times.held = Some(Time::from_ns(end.held_ns));
        }
    }
}

/// We own, and the peers had their first turn: become the donor of the next takeover. Ours
/// hears of it last, since it leaves then: by that time PATH and pid file lead to us.
fn succeed<S: Application>(app: &mut S, cx: &mut Cx<S>) {
    let Role::Taker(mut side) = std::mem::take(&mut app.takeover().role) else {
        return;
    };
    side.finish_report();
    cx.remove(side.watch.id());
    if let Some(offer) = side.offer.take() {
        let generation = side.report.generation;
        match donor::DonorSide::new(cx, offer, generation, side.own) {
            Ok(next) => {
                app.takeover().role = Role::Donor(Box::new(next));
                donor::with(app, cx, donor::DonorSide::publish);
            }
            Err(error) => log::error!("no further takeover is possible: {error}"),
        }
    }
    app.moment(cx, Moment::Active(side.report.clone()));
    let mut record = Vec::new();
    if records::encode(&Record::Active, false, &mut record).is_ok() {
        // The donor learns it from the lease in any case.
        let _ = side.post.post(record, |_| ());
    }
    if side.told_to_stop {
        Takeover::term(app, cx);
    }
}

fn channel_event<S: Application>(
    _: &mut OwnedFd,
    app: &mut S,
    cx: &mut Cx<S>,
    ready: Ready,
) -> io::Result<Next> {
    let mut next = Next::Keep;
    with(app, cx, |side, app, cx| {
        if ready.is_writable() {
            // What does not go now goes with the next event, or its deadline passes.
            let _ = side.post.flush();
        }
        next = side.receive(app, cx);
    });
    Ok(next)
}
