//! How a listener pauses, goes on, and is mended.
//!
//! | pause | ends |
//! |---|---|
//! | at the limit | when a source has ended; where others than sources may end, by a deadline as well |
//! | back-off | by its deadline |
//! | broken | as a back-off, when it was possible to listen again |
//!
//! Invariant: a listener that pauses is in the reactor's list ([`Cx::is_pausing`]) until nobody
//! waits any more, and something will resume it.

use std::io;

use super::super::{Cx, Event, Handle, Next, SourceId};
use super::news::State;
use super::{AcceptChange, Accepting, Acceptor};

impl Acceptor {
    /// Goes on after it has turned out that nobody can be accepted any more.
    pub(super) fn mend<S>(
        &mut self,
        state: &mut S,
        cx: &mut Cx<S>,
        event: Event,
        replace: impl FnOnce(&mut Cx<S>, Acceptor) -> io::Result<Handle<Acceptor>>,
    ) -> Next {
        let address = self.binding.address;
        let (id, next) = match self.binding.listen_again(&self.socket) {
            Ok(()) => (event.id(), Next::Again),
            Err(first) => match self.anew().and_then(|anew| replace(cx, anew)) {
                Ok(anew) => (anew.id(), Next::End),
                Err(error) => {
                    let name = cx.name(event.id()).unwrap_or_default();
                    log::debug!("{name}: {first}, then {error}");
                    self.stay_broken(state, cx, event.id(), error);
                    return Next::Keep;
                }
            },
        };
        self.backoff.reset();
        let mended = AcceptChange::Mended { address };
        tell(state, cx, id, mended, false);
        if self.broken.take().is_some() {
            self.open(state, cx, event.id());
        }
        next
    }

    /// Another one in its place.
    fn anew(&self) -> io::Result<Acceptor> {
        let anew = self.binding.anew()?;
        Ok(Acceptor {
            room: self.room,
            ..anew
        })
    }

    fn stay_broken<S>(&mut self, state: &mut S, cx: &mut Cx<S>, id: SourceId, error: io::Error) {
        let is_loud = self.standing.pause(State::Broken, cx.now());
        self.retry(cx, id, false);
        let broken = AcceptChange::Broken {
            address: self.binding.address,
            error: &error,
        };
        tell(state, cx, id, broken, !is_loud);
        self.broken = Some(error);
    }

    pub(super) fn wait_for_room<S>(
        &mut self,
        state: &mut S,
        cx: &mut Cx<S>,
        id: SourceId,
        sources: usize,
    ) {
        if self.room.is_tight() {
            self.retry(cx, id, true);
        } else {
            cx.begin_pause(id, true);
        }
        if self.standing.state != State::AtLimit {
            cx.stats.accept_pauses += 1;
            let is_loud = self.standing.pause(State::AtLimit, cx.now());
            let full = AcceptChange::AtLimit { sources };
            tell(state, cx, id, full, !is_loud);
        }
    }

    pub(super) fn back_off<S>(
        &mut self,
        state: &mut S,
        cx: &mut Cx<S>,
        id: SourceId,
        error: &io::Error,
        is_unforeseen: bool,
    ) {
        cx.stats.accept_pauses += 1;
        cx.stats.accepts_unforeseen += u64::from(is_unforeseen);
        let unforeseen = is_unforeseen.then_some(cx.stats.accepts_unforeseen);
        self.retry(cx, id, false);
        let is_change = self.standing.state != State::BackOff;
        let is_loud = self.standing.pause(State::BackOff, cx.now());
        if is_change {
            let failed = AcceptChange::BackOff { error, unforeseen };
            tell(state, cx, id, failed, !is_loud);
        }
    }

    /// Pauses until a deadline.
    fn retry<S>(&mut self, cx: &mut Cx<S>, id: SourceId, for_room: bool) {
        cx.begin_pause(id, for_room);
        let again = self.backoff.next(cx.now());
        cx.set_deadline(id, Some(again));
    }

    /// Nobody waits any more.
    pub(super) fn open<S>(&mut self, state: &mut S, cx: &mut Cx<S>, id: SourceId) {
        self.backoff.reset();
        if self.standing.state != State::Open {
            cx.end_pause(id);
            let is_loud = self.standing.open();
            tell(state, cx, id, AcceptChange::Open, !is_loud);
        }
    }
}

fn tell<S>(state: &mut S, cx: &mut Cx<S>, id: SourceId, change: AcceptChange<'_>, is_quiet: bool) {
    let news = Accepting {
        listener: Handle::new(id),
        name: cx.name(id).unwrap_or_default(),
        change,
        is_quiet,
    };
    cx.tell(state, &news);
}
