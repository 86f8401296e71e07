//! What the donor does about its name: offers at PATH, looks after it, takes it away at the end.
//!
//! ```text
//!              published          somebody took it away, nobody listens there
//!   unnamed ─────────────▶ named ─────────────────────────────────────────────▶ lost
//!      │ ▲ tried again        ▲                                                  │
//!      └─┘                    └────────── a new socket, published ───────────────┘
//! ```
//!
//! A name can vanish while the service runs, see [`Standing`]. Then no successor would ever find it,
//! and a restart would cost every connection. So the owner looks at its name once a second. Nothing
//! is looked at while the donor is in an attempt, held, draining or leaving: then PATH may be a
//! successor's.
//!
//! Invariants:
//! - a new socket is made and published before the old one goes, and the old one answers for one
//!   more look, for those who have called it already;
//! - what is not ours and lives, or is no socket, stays as it is;
//! - each trouble is said once, and not more often than [`TROUBLES`] has it; an outcome that was
//!   said to be bad is said when it is good again.

use std::time::Duration;

use super::{DonorSide, listen};
use crate::event::{Class, Cx, Handle, Time, TimerId};
use crate::takeover::application::Application;
use crate::takeover::core::donor::State;
use crate::takeover::os::folder::Inode as FileId;
use crate::takeover::os::offer::{Offer, PublishError, Replace};
use crate::takeover::os::path::Probe;
use crate::takeover::os::standing::Standing;
use crate::takeover::rate_limit::RateLimit;
use crate::takeover::session::with;

/// How often the owner looks at its name.
const LOOK: Duration = Duration::from_secs(1);
/// When to try again to publish while another process has the lock, which it needs for
/// microseconds, and how long that is not worth a line.
const LOCKED: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often somebody else's socket in our place is called, to hear whether it still lives.
const CALL: Duration = Duration::from_secs(10);
/// Lines about different troubles that may come at once, and how often they may in the long run.
const TROUBLES: (u32, Duration) = (8, Duration::from_secs(60));

/// What the donor knows of its name.
#[derive(Debug)]
pub(super) struct Name {
    timer: Option<TimerId>,
    /// What the offer may be put in the place of: of what its donor or its dead successor had
    /// there, as long as it was not published.
    replace: Replace,
    /// The socket before the present one, which still answers.
    old: Option<Handle<Offer>>,
    /// Somebody else's socket at PATH, and when it was called.
    rival: Option<(FileId, Time)>,
    /// Since when the lock is another's.
    locked: Option<Time>,
    voice: Voice,
}

/// Why nobody can call us at PATH.
type Trouble = String;

impl Default for Name {
    fn default() -> Name {
        Name {
            timer: None,
            replace: Replace::Stale,
            old: None,
            rival: None,
            locked: None,
            voice: Voice::default(),
        }
    }
}

impl DonorSide {
    /// Puts our offer at PATH in place of the old owner's, which leads nowhere any more. Without
    /// PATH the next takeover would cost every connection, so it is tried until it works.
    pub(in crate::takeover::session) fn publish<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
    ) {
        self.name.replace = Replace::Live;
        self.look_after_name(app, cx);
    }

    /// Looks at the name from now on.
    pub(in crate::takeover::session) fn watch_name<S: Application>(
        &mut self,
        _: &mut S,
        cx: &mut Cx<S>,
    ) {
        self.look_in(cx, LOOK);
    }

    fn look_in<S: Application>(&mut self, cx: &mut Cx<S>, pause: Duration) {
        let at = Time::now() + pause;
        if self.name.timer.is_none_or(|timer| !cx.rearm(timer, at)) {
            let look = |app: &mut S, cx: &mut Cx<S>| {
                with(app, cx, |side: &mut DonorSide, app, cx| {
                    side.name.timer = None;
                    side.look_after_name(app, cx);
                });
                None
            };
            self.name.timer = Some(cx.timer(Class::Handover, "takeover path", at, look));
        }
    }

    /// Whatever becomes of an attempt, the name is looked at after it.
    fn look_after_name<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        let is_ours = matches!(self.machine.state(), State::Idle) && self.attempt.is_none();
        if !is_ours || cx.is_held() {
            return self.look_in(cx, LOOK);
        }
        let Some(path) = cx.get(self.offer).map(|offer| offer.path().clone()) else {
            return self.look_in(cx, LOOK);
        };
        let (pause, outcome) = match self.see_to_name(cx) {
            Ok(outcome) => (LOOK, Some(outcome)),
            Err(PublishError::Locked { holder }) => {
                let now = Time::now();
                let since = *self.name.locked.get_or_insert(now);
                let is_short = now.since(since) < PATIENCE;
                let error = PublishError::Locked { holder };
                let pause = if is_short { LOCKED } else { LOOK };
                (pause, (!is_short).then(|| Err(error.to_string())))
            }
            Err(error) => (LOOK, Some(Err(error.to_string()))),
        };
        if let Some(outcome) = outcome {
            if outcome.is_ok() {
                self.name.locked = None;
            }
            match &outcome {
                Ok(Found::AsBefore) => {}
                known => app.takeover().unreachable = known.as_ref().err().cloned(),
            }
            self.name.voice.say(&path, outcome, Time::now());
        }
        self.look_in(cx, pause);
    }

    /// What is at PATH, once all was done about it that can be.
    fn see_to_name<S: Application>(
        &mut self,
        cx: &mut Cx<S>,
    ) -> Result<Result<Found, Trouble>, PublishError> {
        let replace = self.name.replace;
        let Some(offer) = cx.get_mut(self.offer) else {
            return Ok(Ok(Found::Named));
        };
        if !offer.is_published() {
            match offer.publish(replace) {
                Ok(()) => return Ok(Ok(self.named(Found::Named))),
                // Its folder may be another one by now, or its temporary name be gone.
                Err(PublishError::Os(_)) => return self.offer_anew(cx).map(Ok),
                Err(error) => return Err(error),
            }
        }
        let now = Time::now();
        let spared = self
            .name
            .rival
            .filter(|(_, called)| now.since(*called) < CALL);
        let trouble = match offer.standing(spared.map(|(file, _)| file))? {
            Standing::Ours | Standing::Unknown => {
                if let Some(old) = self.name.old.take().and_then(|old| cx.take(old)) {
                    old.retire();
                }
                return Ok(Ok(self.named(Found::Named)));
            }
            Standing::Gone => return self.offer_anew(cx).map(Ok),
            Standing::Taken(..) | Standing::Spared if replace == Replace::Live => {
                return self.offer_anew(cx).map(Ok);
            }
            Standing::Taken(probe, file) => {
                self.name.rival = Some((file, now));
                in_the_way(probe)
            }
            Standing::Spared => return Ok(Ok(Found::AsBefore)),
            Standing::Exposed => "it is gone, and its folder belongs to another user or can be \
                                  written by everybody, so it is not made anew there"
                .to_owned(),
            Standing::NoFolder => "its folder is gone".to_owned(),
        };
        Ok(Err(trouble))
    }

    fn named(&mut self, found: Found) -> Found {
        self.name.replace = Replace::Stale;
        self.name.rival = None;
        found
    }

    /// A new socket, published; or all is as before.
    fn offer_anew<S: Application>(&mut self, cx: &mut Cx<S>) -> Result<Found, PublishError> {
        let Some(offer) = cx.get(self.offer) else {
            return Ok(Found::AsBefore);
        };
        let was_published = offer.is_published();
        let new = listen(cx, offer.renew()?)?;
        let replace = self.name.replace;
        let published = cx.get_mut(new).map(|offer| offer.publish(replace));
        match published {
            Some(Ok(())) => {}
            // A new owner's first socket may be one that can never be published.
            Some(Err(error)) if !was_published => {
                cx.remove(std::mem::replace(&mut self.offer, new).id());
                return Err(error);
            }
            Some(Err(error)) => {
                cx.remove(new.id());
                return Err(error);
            }
            None => return Ok(Found::AsBefore),
        }
        let old = std::mem::replace(&mut self.offer, new);
        if let Some(older) = self.name.old.replace(old) {
            cx.remove(older.id());
        }
        Ok(self.named(match was_published {
            true => Found::Lost,
            false => Found::Named,
        }))
    }

    /// The new owner has died, and the service is ours again. Whose socket is at PATH, ours or
    /// that of the dead one, is not known; if it is not ours, a new one is put there. Until then
    /// ours answers, wherever its name is.
    pub(super) fn offer_again<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) {
        self.name.replace = Replace::Live;
        // It has its own line: an orphan's loss is not the name's.
        if let Ok(Ok(Found::Named | Found::Lost)) = self.see_to_name(cx) {
            app.takeover().unreachable = None;
        }
        self.look_in(cx, LOCKED);
    }

    /// Removes PATH, if it still is ours.
    pub(super) fn withdraw<S>(&mut self, cx: &mut Cx<S>) {
        for offer in [Some(self.offer), self.name.old.take()]
            .into_iter()
            .flatten()
        {
            if let Some(offer) = cx.take(offer)
                && let Err(error) = offer.withdraw()
            {
                log::warn!("PATH was not removed: {error}");
            }
        }
    }
}

/// What a look at the name has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is ours.
    Named,
    /// It was not ours any more and is again.
    Lost,
    /// Nothing has changed since what was said last.
    AsBefore,
}

fn in_the_way(probe: Probe) -> Trouble {
    format!("it {probe}, in the place of ours, and is left alone")
}

/// What the log is told of all this.
#[derive(Debug)]
struct Voice {
    /// What is wrong, as it was said last.
    said: Option<Trouble>,
    limit: RateLimit,
}

impl Default for Voice {
    fn default() -> Voice {
        let limit = RateLimit::new(TROUBLES.0, TROUBLES.1);
        Voice { said: None, limit }
    }
}

impl Voice {
    fn say(&mut self, path: &impl std::fmt::Display, found: Result<Found, Trouble>, now: Time) {
        match found {
            Ok(Found::AsBefore) => {}
            Ok(Found::Named) => {
                if self.said.take().is_some() {
                    log::info!("takeover path {path}: takeovers are possible again");
                }
            }
            Ok(Found::Lost) => {
                self.said = None;
                if let Some(suppressed) = self.limit.allow(now) {
                    log::warn!("takeover path {path} was gone and is offered again{suppressed}");
                }
            }
            Err(trouble) if self.said.as_ref() == Some(&trouble) => {}
            Err(trouble) => {
                if let Some(suppressed) = self.limit.allow(now) {
                    log::error!(
                        "takeover path {path}: no further takeover is possible for now: \
                         {trouble}; it is looked at again each second{suppressed}"
                    );
                    self.said = Some(trouble);
                }
            }
        }
    }
}
