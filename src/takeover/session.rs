//! The sessions: each joins a machine of the core to a reactor, a channel and an application.
//!
//! ```text
//!                events                      actions
//!   channel ──┐            ┌──────────────┐           ┌─▶ channel, lease, pidfd
//!   deadline ─┼─▶ step ───▶│ Donor::step  │─▶ perform ┼─▶ reactor: hold, resume, release
//!   pidfd ────┤     ▲      │ Taker::step  │           ├─▶ application: save, restore
//!   signal ───┘     │      └──────────────┘           │
//!                   └─────────── outcomes ◀───────────┘
//! ```
//!
//! What both sides do alike is the trait [`Session`], and is written once. The reactor watches a
//! duplicate of the channel's descriptor, since a source is out of its slot while its callback
//! runs and the session needs the channel at any time.
//!
//! The proof of the machines (`tests/model`) relies on these rules. Each stands beside the code that
//! keeps it, by its number, and the model has a mutant that breaks it.
//!
//! | rule | | mutant |
//! |---|---|---|
//! | 1 | the donor hears what has changed before it hears of anything else | `ChangedToldLate` |
//! | 2 | what the taker is known not to want is noted again when that is heard | `UnwantedOffered` |
//! | 3 | a channel is read to its end, and only the end is reported as one | `ResetIsTheEnd` |
//! | 4 | the taker reads what has arrived before it judges its deadline | `DeadlineBeforeReadiness` |
//! | 5 | a taker that leaves closes its copies before the channel | `CopiesKeptOnLeave` |
//! | 6 | a new owner says ACTIVE before it leaves for any reason | `LeavesUntold` |
//! | 7 | ACTIVE that cannot be sent is sent again | `ActiveGivenUp` |
//! | 8 | an owner is taken over from only when the donor before it has been told | `TakenOverUntold` |
//!
//! | file | |
//! |---|---|
//! | `session.rs` | [`Takeover`], and what both sides do alike |
//! | `deadline.rs` | the one deadline of a session |
//! | `record_channel.rs` | records over the channel: numbering, what waits for room |
//! | `donor.rs`, `donor/` | the donor's side |
//! | `export.rs` | its batches: items and states into records |
//! | `taker.rs`, `taker/` | the taker's side |
//! | `import.rs`, `import/` | its items: records into items and states |
//! | `audit.rs` | states compared with their sockets, if that is wanted |

mod audit;
mod deadline;
mod donor;
mod export;
mod import;
mod record_channel;
mod taker;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

pub use deadline::Deadlines;
pub use taker::Ending;

use super::application::Application;
use super::failpoint::Failpoint;
use super::moment::Moment;
use super::os::channel::Channel;
use super::os::identity::Identity;
use super::os::offer::Offer;
use crate::event::{Cx, Next, Time};
use crate::sys;

/// How long a refused or revoked taker has to go away.
const GONE: Duration = Duration::from_secs(1);
/// How often a new owner is looked at that has not said ACTIVE.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a moment that the other side has just named is of our clock. One that is ahead, or behind
/// by more than a minute, is of another (time_namespaces(7)).
fn is_our_clock(theirs_ns: u64) -> bool {
    const SKEW: Duration = Duration::from_secs(60);
    let (theirs, now) = (Time::from_ns(theirs_ns), Time::now());
    theirs <= now && now.since(theirs) <= SKEW
}

/// One side of a takeover: a machine of the core, and what performs its actions.
///
/// The rule of both: one event, all its actions in order, then their outcomes as further events.
/// Nothing is decided here.
trait Session: Sized {
    type Event;
    type Action;

    /// Its role, if that is this side's.
    fn of(role: Role) -> Result<Box<Self>, Role>;
    fn into_role(self: Box<Self>) -> Role;
    /// The machine's answer.
    fn advance(&mut self, event: Self::Event) -> Vec<Self::Action>;
    /// And the name of the state that it is in.
    fn failpoint(&mut self) -> (&mut Failpoint, &'static str);
    fn panic(&mut self) -> &mut Panic;
    /// A panic has cut short what was to be done.
    fn recover<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>);
    /// A panic ends the source whose callback it came through. Without a new one only deadlines
    /// would tell what the other side does.
    fn watch_again<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>);
    fn perform<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        action: Self::Action,
    ) -> Option<Self::Event>;

    fn step<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, event: Self::Event) {
        let actions = self.advance(event);
        self.perform_all(app, cx, actions);
    }

    fn perform_all<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        actions: Vec<Self::Action>,
    ) {
        let (failpoint, state) = self.failpoint();
        failpoint.before(state);
        let outcomes: Vec<_> = actions
            .into_iter()
            .filter_map(|action| self.perform(app, cx, action))
            .collect();
        self.failpoint().0.after();
        for outcome in outcomes {
            self.step(app, cx, outcome);
        }
    }

    /// Tells the application. A panic of its is kept until what the machine has asked for is
    /// done: half of an outcome would hold everything for ever.
    fn notify<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, moment: Moment) {
        let told = catch_unwind(AssertUnwindSafe(|| app.moment(cx, moment)));
        if let Err(panic) = told {
            self.panic().0.get_or_insert(panic);
        }
    }
}

/// What a notification of the application panicked with, until all is done.
#[derive(Debug, Default)]
struct Panic(Option<Box<dyn Any + Send>>);

/// Runs `work` on one side, if that is the one that this process plays. A panic in it, which is
/// most likely the application's own, passes through; if the reactor is turned on, the attempt
/// ends. A panic in a notification passes through when all that the machine asked for is done.
fn with<P: Session, S: Application>(
    app: &mut S,
    cx: &mut Cx<S>,
    work: impl FnOnce(&mut P, &mut S, &mut Cx<S>),
) {
    let mut side = match P::of(std::mem::replace(&mut app.takeover().role, Role::AtWork)) {
        Ok(side) => side,
        Err(other) => return app.takeover().role = other,
    };
    let worked = catch_unwind(AssertUnwindSafe(|| work(&mut side, app, cx)));
    let notified = side.panic().0.take();
    app.takeover().role = side.into_role();
    if let Err(panic) = worked {
        // An application that goes on must not be left with peers that are held for ever.
        cx.defer_handover(|app, cx| with(app, cx, P::recover));
        resume_unwind(panic);
    }
    if let Some(panic) = notified {
        cx.defer_handover(|app, cx| with(app, cx, P::watch_again));
        resume_unwind(panic);
    }
}

/// More records than a channel usually holds: the kernel bounds them by the sender's buffer, which
/// has room for some hundred.
const MOST_RECORDS: usize = 1024;

/// Reads on until the channel is empty, before something final is judged. One who goes on
/// talking all the time is not listened to for ever.
fn drain_channel(mut receive: impl FnMut() -> Next) {
    for _ in 0..MOST_RECORDS {
        if receive() != Next::Again {
            return;
        }
    }
}

/// The takeover's own state, which an application keeps for it.
#[derive(Debug, Default)]
pub struct Takeover {
    role: Role,
    /// How it ended, for a taker that owns nothing, and why.
    left: Option<(Ending, String)>,
    /// What the taker that called last says it reads.
    newest_state: Option<u16>,
    /// A taker is not refused by a donor in another network namespace.
    any_network: bool,
    /// Why nobody can call at PATH.
    unreachable: Option<String>,
    /// States are compared with their sockets; what came of it in the takeover under way.
    audit: Option<audit::Compared>,
}

#[derive(Debug, Default)]
enum Role {
    /// Cannot be taken over.
    #[default]
    None,
    /// Is at work, further up the stack.
    AtWork,
    Donor(Box<donor::DonorSide>),
    Taker(Box<taker::TakerSide>),
}

impl Takeover {
    /// Offers the application to be taken over; [`Start`](super::Start) does this, and all
    /// that comes before. `generation` counts takeovers since a cold start, which is 0.
    ///
    /// # Errors
    /// If the reactor cannot take the offer's socket.
    pub fn offer<S: Application>(
        app: &mut S,
        cx: &mut Cx<S>,
        offer: Offer,
        generation: u64,
        deadlines: Deadlines,
    ) -> io::Result<()> {
        if std::process::id() == donor::INIT {
            log::warn!(
                "as process 1 of this pid namespace we refuse every takeover, since our end would \
                 kill the successor; start the service below an init"
            );
        }
        let side = donor::DonorSide::new(cx, offer, generation, deadlines)?;
        app.takeover().role = Role::Donor(Box::new(side));
        with(app, cx, donor::DonorSide::watch_name);
        Ok(())
    }

    /// Why no successor can find us at PATH just now: its name is gone or another's and cannot be
    /// made anew, which is tried each second. None if one can, and where no takeover is offered.
    #[must_use]
    pub fn unreachable(&self) -> Option<&str> {
        self.unreachable.as_deref()
    }

    /// Whether each connection's state is compared with its socket, as
    /// [`Start::check_positions`](super::Start::check_positions) says.
    pub fn check_positions(&mut self, on: bool) {
        self.audit = on.then(audit::Compared::default);
    }

    /// Whether we, as a taker, take over from a donor in another network namespace too, as
    /// [`Start::any_network`](super::Start::any_network) says.
    pub fn any_network(&mut self, on: bool) {
        self.any_network = on;
    }

    /// As [`Takeover::offer`], in place of whoever was at PATH until now: `offer` is bound and
    /// not published, which is done here, again and again until it works.
    ///
    /// # Errors
    /// If the reactor cannot take the offer's socket.
    pub fn inherit<S: Application>(
        app: &mut S,
        cx: &mut Cx<S>,
        offer: Offer,
        generation: u64,
        deadlines: Deadlines,
    ) -> io::Result<()> {
        Takeover::offer(app, cx, offer, generation, deadlines)?;
        with(app, cx, donor::DonorSide::publish);
        Ok(())
    }

    /// Takes over from the donor at the other end of `channel`. The reactor must have been
    /// made held. What comes of it is told by [`Application::moment`].
    ///
    /// `offer` is bound and not published; that is done once we own.
    ///
    /// # Errors
    /// If the channel cannot be watched or HELLO cannot be sent: nothing has happened.
    pub fn take_over<S: Application>(
        app: &mut S,
        cx: &mut Cx<S>,
        channel: Channel,
        donor: Identity,
        offer: Offer,
        deadlines: Deadlines,
    ) -> io::Result<()> {
        let asks = !app.takeover().any_network;
        let network = asks.then(|| sys::network_cookie(&channel).ok()).flatten();
        let side = taker::TakerSide::new(cx, channel, donor, offer, deadlines, network)?;
        app.takeover().role = Role::Taker(Box::new(side));
        taker::begin(app, cx);
        Ok(())
    }

    /// The state version that a donor's `describe` is to name and its `save` to write: `ours`,
    /// or an older one if that is the newest that the taker reads
    /// ([`Application::NEWEST_STATE`]). The same from the first `describe` of a takeover to its
    /// last `save`. An application that cannot write that one says so as the error of
    /// `describe`, or writes its own and has the taker decline.
    #[must_use]
    pub fn state_version(&self, ours: u16) -> u16 {
        self.newest_state.map_or(ours, |newest| newest.min(ours))
    }

    /// What came of the call to a donor: an error if nothing was taken over. No error, too,
    /// while that is open, and for whom it does not concern.
    ///
    /// # Errors
    /// [`Error::NotTakenOver`](super::Error::NotTakenOver).
    pub fn outcome(&self) -> Result<(), super::Error> {
        match &self.left {
            Some((ending, why)) => Err(super::Error::NotTakenOver {
                ending: *ending,
                why: why.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether the process may end now without regard to what follows. It may not while it is
    /// open who owns, or while the donor before us has not been told that we do: it would take
    /// our end for a death, and serve on.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        match &self.role {
            Role::None => true,
            Role::AtWork => false,
            Role::Donor(side) => side.may_leave(),
            Role::Taker(side) => side.may_leave(),
        }
    }

    /// The operator wants the application to stop: [`Moment::Stop`](super::Moment::Stop)
    /// or another moment follows, at once or with the outcome of the takeover under way. Said a
    /// second time it ends that takeover: a grant that is out is revoked. If the taker has claimed
    /// already, it is told to stop instead, and we leave.
    pub fn term<S: Application>(app: &mut S, cx: &mut Cx<S>) {
        match app.takeover().role {
            Role::None => app.moment(cx, super::Moment::Stop),
            // Asked by the application from within one of its own methods: a little later.
            Role::AtWork => cx.defer_handover(|app: &mut S, cx| {
                // Nobody is at work between callbacks, unless a panic has cut it short.
                if matches!(app.takeover().role, Role::AtWork) {
                    app.takeover().role = Role::None;
                }
                Takeover::term(app, cx);
            }),
            Role::Donor(_) => with(app, cx, donor::DonorSide::term),
            Role::Taker(_) => with(app, cx, taker::TakerSide::term),
        }
    }
}
