//! The freeze and what comes after it: held, the verdict, and what it means here.

use super::attempt::Attempt;
use super::{DonorSide, describe, with};
use crate::event::{Cx, SourceId, Time};
use crate::proto::records::{Abort, Record};
use crate::takeover::application::{Application, Item};
use crate::takeover::donor::{Cause, Event, Outcome};
use crate::takeover::drive::batch::Told;
use crate::takeover::lease::Verdict;
use crate::takeover::ledger::{ItemId, Presence};
use crate::takeover::moment::Moment;

impl DonorSide {
    /// The last turn is over.
    pub(super) fn held<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.report.times.held = Some(Time::now());
            attempt.final_array = true;
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
            if attempt.told.get(&number) != Some(&Told::now(app, cx, number)) {
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
            // A lease that cannot be read has not been read by us: we do not own.
            Ok(Verdict::Lost) | Err(_) => Outcome::Lost { dead },
        }))
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
        app.moment(cx, Moment::RolledBack(report));
        say_audited(app);
    }

    pub(super) fn abort<S: Application>(&mut self, cx: &mut Cx<S>, cause: Cause) {
        if let Some(attempt) = &mut self.attempt {
            let sent = attempt.post_record(&Record::Abort(Abort {
                reason: describe(cause),
            }));
            // A taker that reads what is before it shall still hear it.
            self.wait_for_room(cx, sent);
        }
    }

    pub(super) fn hang_up<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(mut attempt) = self.attempt.take() {
            self.last = attempt.final_report();
            if attempt.report.times.welcome.is_none() {
                self.dismiss(cx, &attempt);
            }
            cx.remove(attempt.watch.id());
            if let Some(death) = attempt.death {
                cx.remove(death.id());
            }
        }
        self.disarm(cx);
    }

    pub(super) fn orphan<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        declined: &[ItemId],
    ) {
        self.offer_again(app, cx);
        cx.resume();
        cx.track(false);
        app.moment(cx, Moment::Orphaned(self.last.clone(), sources(declined)));
    }

    pub(super) fn release<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        keep: &[ItemId],
    ) -> Option<Event> {
        let keep = sources(keep);
        let report = self.attempt.as_mut().map(Attempt::final_report);
        app.moment(cx, Moment::Released(report.unwrap_or_default()));
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
                with(app, cx, |side, app, cx| {
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
