//! The claim and what follows: the first turn, the next donor; or the way out.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::TakerSide;
use crate::event::{Cx, Time};
use crate::proto::records::{self, Active, FailCode, Record, RefuseCode, Served};
use crate::takeover::application::Application;
use crate::takeover::core::taker::{Event, Leaving};
use crate::takeover::moment::Moment;
use crate::takeover::os::identity::Condition;
use crate::takeover::os::lease::{Lease, Verdict};
use crate::takeover::session::donor::Predecessor;
use crate::takeover::session::import::{Import, Problem};
use crate::takeover::session::{Role, Takeover, audit, donor};
use crate::takeover::session::{Session, with};

/// How long to look for signs of the donor's end. A donor that lives waits ten times as long for
/// ours, and then kills us.
const SIGNS: Duration = Duration::from_millis(100);
/// How long one may take to die that has hung up.
const DEATH: Duration = Duration::from_secs(2);

/// How an attempt ended for a taker that owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The donor refused.
    Refused(RefuseCode),
    /// The donor serves on: it ended the attempt or took back the grant; or we could not use
    /// what it sent.
    DonorServes,
    /// The donor speaks what we do not understand and serves on.
    Incompatible,
    /// The donor has not answered in time and is not dead: whether it serves is not known. Nothing
    /// was taken, so a retry is safe.
    DonorSilent,
    /// The donor died or stopped before it had handed over. Nobody serves.
    DonorDied,
    /// The donor left before it had answered: it has handed over to somebody else, or died.
    /// A retry tells.
    Unanswered,
    /// We were told to stop.
    Stopped,
}

impl TakerSide {
    pub(super) fn validate(&mut self) -> Event {
        match self.end {
            Some(end) => match self.import.agrees_with(&end) {
                Ok(()) => Event::Valid,
                Err(problem) => self.unusable(problem),
            },
            None => self.unusable(Problem::new(FailCode::Internal, "no END".into())),
        }
    }

    pub(super) fn claim(&mut self) -> Event {
        match self.lease.as_ref().map(Lease::claim) {
            Some(Ok(Verdict::Won)) => Event::Won,
            // A lease that cannot be read has not been read by us: we do not own.
            Some(Ok(Verdict::Lost) | Err(_)) | None => Event::Lost,
        }
    }

    /// The peers have waited long enough: the next thing is their turn, and everything else
    /// comes at the end of that.
    pub(super) fn activate<S: Application>(&mut self, cx: &mut Cx<S>) {
        cx.resume();
        for id in self.import.runs() {
            cx.resume_later(id);
        }
        cx.defer(succeed);
        self.report.times.decided = Some(Time::now());
    }

    pub(super) fn leave<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, why: Leaving) {
        self.deadline.disarm(cx);
        // Rule 5. Copies first, the channel last: its end tells the donor that they are gone.
        if let Err(error) = cx.release(&[]) {
            log::debug!("release: {error}");
        }
        self.import = Import::default();
        cx.remove(self.offer.id());
        let ending = match why {
            Leaving::Refused => Ending::Refused(self.refused.unwrap_or(RefuseCode::Other(0))),
            Leaving::Eof if self.lease.is_none() => Ending::Unanswered,
            Leaving::Eof | Leaving::Aborted | Leaving::Failed | Leaving::Revoked
                if self.donor_has_died() =>
            {
                Ending::DonorDied
            }
            Leaving::Failed if self.has_problem(FailCode::Features) => Ending::Incompatible,
            Leaving::Aborted | Leaving::Eof | Leaving::Failed | Leaving::Revoked => {
                Ending::DonorServes
            }
            Leaving::Deadline => self.silence(),
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
        self.notify(app, cx, Moment::Left(self.report.clone(), ending));
        cx.remove(self.watch.id());
    }

    /// What the donor's silence means, and says so in the report.
    fn silence(&mut self) -> Ending {
        let (ending, what) = match self.donor.condition() {
            Condition::Dead => (Ending::DonorDied, "it is dead"),
            Condition::Dumping => (Ending::DonorDied, "it has crashed and its core is written"),
            Condition::Stopped => (Ending::DonorSilent, "it is stopped, SIGCONT lets it go on"),
            Condition::Running | Condition::Waiting => (Ending::DonorSilent, "it is alive"),
            Condition::Unknown => (Ending::DonorSilent, "what it is at cannot be seen"),
        };
        let pid = self.donor.pid();
        self.report.failure = format!("the donor (pid {pid}) did not answer in time: {what}");
        ending
    }

    fn has_problem(&self, code: FailCode) -> bool {
        self.problem.as_ref().is_some_and(|one| one.code == code)
    }

    /// A donor that lives keeps the channel open until we have gone. One that was told to stop
    /// says ABORT and hangs up, and the listener that we may be looking at just then is none
    /// any more. A dead one just hangs up: its pidfd tells only when all its connections are
    /// closed, too.
    fn donor_has_died(&mut self) -> bool {
        self.donor.dies_within(SIGNS) || self.channel.has_ended() && self.donor.dies_within(DEATH)
    }

    pub(super) fn finish_report(&mut self) {
        self.report.bytes = self.channel.bytes;
        self.report.fds = self.channel.passed;
        self.report.items = self.import.len() as u64;
        self.report.last = self.import.tally;
        self.report.declined = self.import.declined_len() as u64;
        self.report.dead = self.import.dead_len() as u64;
        if let Some(end) = &self.end {
            // One clock a machine: the donor's own word for when the freeze began.
            self.report.times.held = Some(Time::from_ns(end.held_ns));
            self.report.rounds = end.rounds.unwrap_or_default();
        }
    }
}

/// We own, and the peers had their first turn: become the donor of the next takeover.
///
/// PATH and what has to be true before the donor leaves come first, then ACTIVE, then all that
/// can wait. The donor stays held until ACTIVE has come, so nothing here may keep it back: neither
/// a panic nor a report. Until it has been told, nobody else is handed anything.
pub(super) fn succeed<S: Application>(app: &mut S, cx: &mut Cx<S>) {
    let Role::Taker(mut side) = std::mem::take(&mut app.takeover().role) else {
        return;
    };
    side.deadline.disarm(cx);
    side.finish_report();
    side.report.adopted = side.donor.is_dead();
    cx.remove(side.watch.id());
    let TakerSide {
        offer,
        own,
        channel,
        import,
        told_to_stop,
        mut report,
        ..
    } = *side;
    let next = donor::DonorSide::at(offer, report.generation, own);
    app.takeover().role = Role::Donor(Box::new(next));
    with(app, cx, donor::DonorSide::publish);
    let owner = catch_unwind(AssertUnwindSafe(|| app.moment(cx, Moment::Owner)));
    let active = Record::Active(Active {
        outcome: report.times.decided.map(|since| Served {
            since_ns: since.as_ns(),
            dead: report.dead,
        }),
    });
    let mut record = Vec::new();
    let encoded = records::encode(&active, false, &mut record);
    debug_assert!(encoded.is_ok());
    // The donor's report counts it, too.
    report.bytes += record.len() as u64;
    let before = Predecessor {
        channel,
        active: record,
        is_logged: false,
    };
    with(app, cx, |next: &mut donor::DonorSide, app, cx| {
        next.tell_predecessor(app, cx, before);
    });
    if app.takeover().audited().is_some() {
        let items = import.items();
        cx.defer(|app, cx| audit::afterwards(app, cx, items));
    }
    let told = catch_unwind(AssertUnwindSafe(|| app.moment(cx, Moment::Active(report))));
    if told_to_stop {
        Takeover::term(app, cx);
    }
    if let Err(panic) = owner.and(told) {
        resume_unwind(panic);
    }
}
