//! How long each step may take, and the one deadline of a session, for the step that it is at.
//!
//! Invariant: it is moved rather than made anew where that is possible, as it is set within the
//! freeze.

use std::time::Duration;

use crate::event::{Class, Cx, Time, TimerId};

/// How long each step of a takeover may take. The taker's own are derived from what the
/// donor tells it, twice as long and a second more, so that the donor decides first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From a caller's connect to its HELLO.
    pub hello: Duration,
    /// The whole preload.
    pub preload: Duration,
    /// From PREPARE to DRAINED. For the original program: how long a peer may stay within a
    /// message.
    pub freeze: Duration,
    /// From the hold, where nobody is served any more, to END.
    pub end: Duration,
    /// From END to the claim. The taker has answered PREPARE a moment ago; one that hangs now
    /// costs the service `end` and `claim`, and datagrams what arrives beyond their sockets'
    /// buffers in that time.
    pub claim: Duration,
    /// For declined items to end by themselves.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            hello: Duration::from_secs(2),
            preload: Duration::from_secs(30),
            freeze: Duration::from_secs(1),
            end: Duration::from_millis(100),
            claim: Duration::from_millis(50),
            drain: Duration::from_secs(600),
        }
    }
}

/// A deadline that is seen so late has passed while we did not run, or hardly. The other side may
/// have fared alike (a CPU quota, a stopped machine), so its silence proves nothing yet.
const OVERSLEPT: Duration = Duration::from_millis(5);

/// See the file's own description.
#[derive(Debug)]
pub(super) struct Deadline<Step>(Option<Armed<Step>>);

/// A deadline that is set, or has passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Armed<Step> {
    timer: TimerId,
    /// What is waited for.
    pub(super) step: Step,
    at: Time,
    is_extended: bool,
}

impl<Step> Default for Deadline<Step> {
    fn default() -> Self {
        Deadline(None)
    }
}

impl<Step: Copy> Deadline<Step> {
    /// In place of the one before.
    pub(super) fn arm<S>(
        &mut self,
        cx: &mut Cx<S>,
        step: Step,
        after: Duration,
        passed: impl FnOnce(&mut S, &mut Cx<S>) + 'static,
    ) {
        let at = Time::now() + after;
        let timer = match self.0.take() {
            Some(armed) if cx.rearm(armed.timer, at) => armed.timer,
            _ => {
                let mut passed = Some(passed);
                cx.timer(Class::Handover, "takeover deadline", at, move |app, cx| {
                    if let Some(passed) = passed.take() {
                        passed(app, cx);
                    }
                    None
                })
            }
        };
        self.0 = Some(Armed {
            timer,
            step,
            at,
            is_extended: false,
        });
    }

    pub(super) fn disarm<S>(&mut self, cx: &mut Cx<S>) {
        if let Some(armed) = self.0.take() {
            cx.cancel(armed.timer);
        }
    }

    /// It has passed; which it was.
    pub(super) fn pass(&mut self) -> Option<Armed<Step>> {
        self.0.take()
    }

    pub(super) fn is_armed(&self) -> bool {
        self.0.is_some()
    }

    /// That one is set once more, if it was not already, and if we have overslept it or the other
    /// side has starved.
    pub(super) fn extend<S>(
        &mut self,
        cx: &mut Cx<S>,
        passed: Armed<Step>,
        after: Duration,
        has_starved: impl FnOnce() -> bool,
        again: impl FnOnce(&mut S, &mut Cx<S>) + 'static,
    ) -> bool {
        let is_overslept = Time::now().since(passed.at) > OVERSLEPT;
        if passed.is_extended || !(is_overslept || has_starved()) {
            return false;
        }
        self.arm(cx, passed.step, after, again);
        self.0 = self.0.map(|armed| Armed {
            is_extended: true,
            ..armed
        });
        true
    }

    /// Does what [`Deadline::arm`] will do in the freeze, without an effect.
    pub(super) fn rehearse<S>(&self, cx: &mut Cx<S>) {
        if let Some(armed) = &self.0 {
            cx.rearm(armed.timer, armed.at);
        }
    }
}
