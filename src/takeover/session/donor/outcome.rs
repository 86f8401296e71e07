//! The freeze and what comes after it: held, the verdict, and what it means here.

use std::time::Duration;

use super::attempt::Attempt;
use super::{DonorSide, describe};
use crate::event::{Class, Cx, SourceId, Time};
use crate::proto::records::{Abort, Record};
use crate::takeover::application::{Application, Item};
use crate::takeover::core::donor::{Cause, Event, Outcome, State};
use crate::takeover::core::ledger::{ItemId, Presence};
use crate::takeover::moment::Moment;
use crate::takeover::os::lease::Verdict;
use crate::takeover::session::export::LastSent;
use crate::takeover::session::{Session, with};

/// How often the log is told that a new owner is silent.
const STILL: Duration = Duration::from_secs(60);

impl DonorSide {
    /// The last turn is over.
    pub(super) fn held<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.report.times.held = Some(Time::now());
        }
        let carried = self.changes_of_carried(app, cx);
        if !carried.is_empty() {
            self.step(app, cx, Event::Changed(carried));
        }
        self.feed(app, cx, Event::Did(Outcome::Held));
    }

    /// What is carried has no events that would tell of a change: it is compared with what the
    /// taker was told. It is little.
    pub(super) fn changes_of_carried<S: Application>(
        &self,
        app: &mut S,
        cx: &mut Cx<S>,
    ) -> Vec<(ItemId, Presence)> {
        let Some(attempt) = &self.attempt else {
            return Vec::new();
        };
        let mut numbers = Vec::new();
        app.carried(&mut numbers);
        let gone = attempt.told.keys().filter(|told| !numbers.contains(told));
        let gone = gone.map(|number| (Item::Carried(*number).into(), Presence::Gone));
        let mut changes: Vec<_> = gone.collect();
        for number in numbers {
            if attempt.told.get(&number) != Some(&LastSent::now(app, cx, number)) {
                changes.push((Item::Carried(number).into(), Presence::Held));
            }
        }
        changes
    }

    pub(super) fn revoke(&mut self) -> Option<Event> {
        let attempt = self.attempt.as_mut()?;
        let verdict = attempt.lease.as_ref()?.revoke();
        attempt.report.times.decided = Some(Time::now());
        let dead = attempt.taker.is_dead();
        Some(Event::Did(match verdict {
            Ok(Verdict::Won) => Outcome::Won,
            Ok(Verdict::Lost) => Outcome::Lost { dead },
            // Whether the taker has read it is not known, and neither is who owns.
            Err(_) => Outcome::Unread,
        }))
    }

    /// The taker owns, and we hold copies of all that it has. To log is no harm any more: our
    /// peers are its.
    pub(super) fn wait<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        let report = attempt.final_report();
        self.notify(app, cx, Moment::Held(report));
        self.say_held();
        let at = Time::now() + STILL;
        cx.timer(Class::Handover, "held", at, |app, cx| {
            let mut is_held = false;
            with(app, cx, |side: &mut DonorSide, _, _| {
                is_held = side.say_held()
            });
            is_held.then(|| Time::now() + STILL)
        });
    }

    /// Says that we wait for a new owner, and for how long, if that is so.
    fn say_held(&self) -> bool {
        let (State::AwaitActive(_), Some(attempt)) = (self.machine.state(), &self.attempt) else {
            return false;
        };
        let since = attempt
            .report
            .times
            .held
            .map(|held| Time::now().since(held));
        log::warn!(
            "held since {:.3} s: the new owner (pid {}) has claimed and has not said that it \
             serves; we wait until it does or is dead",
            since.unwrap_or_default().as_secs_f64(),
            attempt.taker.pid(),
        );
        true
    }

    pub(super) fn resume<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>, cause: Cause) {
        cx.cancel_hold();
        if cx.is_held() {
            cx.resume();
        }
        cx.track(false);
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        attempt.report.times.decided.get_or_insert_with(Time::now);
        let mut report = attempt.final_report();
        report.failure = match attempt.note.as_str() {
            "" => describe(cause).to_owned(),
            note => format!("{} ({note})", describe(cause)),
        };
        self.notify(app, cx, Moment::RolledBack(report));
        say_audited(app);
    }

    pub(super) fn abort<S: Application>(&mut self, cx: &mut Cx<S>, cause: Cause) {
        if let Some(attempt) = &mut self.attempt {
            let sent = attempt.send_or_log(&Record::Abort(Abort {
                reason: describe(cause),
            }));
            // A taker that reads what is before it shall still hear it.
            self.wait_for_room(cx, sent);
        }
    }

    pub(super) fn hang_up<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(attempt) = self.attempt.take() {
            if attempt.report.times.welcome.is_none() {
                self.dismiss(cx, &attempt);
            }
            cx.remove(attempt.watch.id());
            if let Some(death) = attempt.death {
                cx.remove(death.id());
            }
        }
        self.deadline.disarm(cx);
    }

    pub(super) fn orphan<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        declined: &[ItemId],
    ) {
        // What the dead owner had is ended before anything is served: it is not known how far
        // it had come with it.
        let report = self.attempt.as_mut().map(Attempt::final_report);
        let report = report.unwrap_or_default();
        self.notify(app, cx, Moment::Orphaned(report, sources(declined)));
        self.hang_up(cx);
        cx.track(false);
        cx.resume();
        self.offer_again(app, cx);
    }

    pub(super) fn release<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        keep: &[ItemId],
    ) -> Option<Event> {
        let keep = sources(keep);
        let report = self.attempt.as_mut().map(Attempt::final_report);
        self.notify(app, cx, Moment::Released(report.unwrap_or_default()));
        say_audited(app);
        if let Err(error) = cx.release(&keep) {
            if !keep.is_empty() {
                log::error!("declined items cannot be served any more: {error}");
            }
            // Nothing was closed and nothing is served: leaving is what closes them.
            return Some(Event::Did(Outcome::Emptied));
        }
        if !keep.is_empty() {
            cx.when_empty(|app, cx| {
                with(app, cx, |side: &mut DonorSide, app, cx| {
                    side.feed(app, cx, Event::Did(Outcome::Emptied));
                });
            });
        }
        None
    }
}

fn say_audited<S: Application>(app: &mut S) {
    if let Some(tally) = app.takeover().audited() {
        log::info!("positions of what was sent: {tally}");
    }
}

/// Those of the ids that the reactor has.
fn sources(ids: &[ItemId]) -> Vec<SourceId> {
    ids.iter()
        .filter_map(|id| match Item::from(*id) {
            Item::Source(source) => Some(source),
            Item::Carried(_) => None,
        })
        .collect()
}
