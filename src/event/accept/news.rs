//! Whether a listener accepts, and who is told of it.
//!
//! ```text
//!                 accept fails, no room              does not listen any more
//!   Open ──────────────────────▶ AtLimit, BackOff ──────────────────────────▶ Broken
//!    ▲ ▲      a source has ended, the pause is over │                            │
//!    │ └────────── and nobody waits any more ───────┘  listens again, or anew    │
//!    └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A service whose connections come and go at its limit pauses all the time, and its log is to say
//! so once a minute.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::{Cx, Handle, Time};
use super::{Acceptor, RESERVE};

/// The shortest time between two lines that say that no connections are accepted.
const QUIET: Duration = Duration::from_secs(60);

/// What is done with news of listeners; see [`Cx::on_accepting`].
pub(in crate::event) type AcceptingHook<S> = Box<dyn FnMut(&mut S, &mut Cx<S>, &Accepting<'_>)>;

/// An [`Acceptor`] has begun to pause, pauses for another reason, or accepts again. As text, the
/// line for a log.
#[derive(Debug)]
pub struct Accepting<'a> {
    /// Which one, and what it was added as.
    pub listener: Handle<Acceptor>,
    /// Its name.
    pub name: &'static str,
    /// What is new.
    pub change: AcceptChange<'a>,
    /// Something like it was told less than a minute ago, or it is the end of such a pause: not
    /// worth another line.
    pub is_quiet: bool,
}

/// What is new with a listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptChange<'a> {
    /// Nobody is accepted before a source has ended.
    AtLimit {
        /// How many sources there are beside it.
        sources: usize,
    },
    /// Nobody is accepted before the pause is over, 640 ms at most.
    BackOff {
        /// What accept(2) said, or what took in the connection: that one is lost then.
        error: &'a io::Error,
        /// For a failure that accept(2) is not known for: how many such there were.
        unforeseen: Option<u64>,
    },
    /// Somebody has shut the listener down, and it cannot listen again. That is tried again as
    /// after `BackOff`.
    Broken {
        /// Where it is to listen.
        address: SocketAddr,
        /// Why it cannot.
        error: &'a io::Error,
    },
    /// Somebody has shut the listener down, and it listens again: those who were waiting to be
    /// accepted are lost. The handle may be another one than before.
    Mended {
        /// Where it listens.
        address: SocketAddr,
    },
    /// Connections are accepted again, and none is waiting.
    Open,
}

impl Accepting<'_> {
    /// How grave it is.
    #[must_use]
    pub fn level(&self) -> log::Level {
        match self.change {
            AcceptChange::Broken { .. } => log::Level::Error,
            AcceptChange::Open => log::Level::Info,
            AcceptChange::AtLimit { .. }
            | AcceptChange::BackOff { .. }
            | AcceptChange::Mended { .. } => log::Level::Warn,
        }
    }
}

impl fmt::Display for Accepting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.change {
            AcceptChange::AtLimit { sources } => write!(
                f,
                "no connections are accepted for now: {sources} sources are the most, and \
                 {RESERVE} descriptors are kept in reserve; raise the limit of the listener, or \
                 of open files (ulimit -n)"
            ),
            AcceptChange::BackOff { error, unforeseen } => {
                write!(f, "no connections are accepted for now: {error}")?;
                match unforeseen {
                    Some(nth) => write!(f, ", which is tried again (unforeseen, {nth} so far)"),
                    None => Ok(()),
                }
            }
            AcceptChange::Broken { address, error } => write!(
                f,
                "no connections are accepted: it was shut down, and cannot listen on {address} \
                 again: {error}; free the port"
            ),
            AcceptChange::Mended { address } => write!(
                f,
                "it was shut down, and listens on {address} again; clients that were waiting to \
                 be accepted are lost"
            ),
            AcceptChange::Open => write!(f, "connections are accepted again"),
        }
    }
}

/// Whether a listener accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    /// As they come.
    #[default]
    Open,
    /// When a source has ended.
    AtLimit,
    /// When the back-off is over.
    BackOff,
    /// When it was possible to listen again.
    Broken,
}

/// Whether a listener accepts, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) state: State,
    /// When a pause was last told of.
    told: Option<Time>,
    /// The present one was.
    telling: bool,
}

impl Standing {
    /// Enters a pause; returns whether that is worth a line. It is when it begins, and a listener
    /// that stays broken is each time.
    pub(super) fn pause(&mut self, state: State, now: Time) -> bool {
        let is_news = self.state == State::Open || state == State::Broken;
        // What was told of lately may have been something else.
        let was_other = state == State::Broken && self.state != State::Broken;
        let lately = self.told.is_some_and(|told| now.since(told) < QUIET);
        self.state = state;
        let is_loud = is_news && (was_other || !lately);
        if is_loud {
            self.told = Some(now);
            self.telling = true;
        }
        is_loud
    }

    /// The pause is over; returns whether that is worth a line.
    pub(super) fn open(&mut self) -> bool {
        self.state = State::Open;
        std::mem::take(&mut self.telling)
    }
}

impl<S> Cx<S> {
    /// Sets what is done when an [`Acceptor`] pauses, or accepts again. Without it, and after a
    /// panic in it, the lines that are not [quiet](Accepting::is_quiet) are logged. The later hook
    /// counts.
    pub fn on_accepting(&mut self, hook: impl FnMut(&mut S, &mut Cx<S>, &Accepting<'_>) + 'static) {
        self.accepting_hook = Some(Box::new(hook));
    }

    pub(super) fn tell(&mut self, state: &mut S, news: &Accepting<'_>) {
        let Some(mut hook) = self.accepting_hook.take() else {
            if !news.is_quiet {
                log::log!(news.level(), "{news}");
            }
            return;
        };
        hook(state, self, news);
        // Unless the hook has set another one.
        self.accepting_hook.get_or_insert(hook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_are_told_of_once_a_minute_and_broken_is_told_of_at_once() {
        let mut standing = Standing::default();
        assert!(standing.pause(State::BackOff, at(100)));
        assert!(!standing.pause(State::BackOff, at(101)));
        assert!(standing.open());
        assert!(!standing.pause(State::AtLimit, at(102)));
        assert!(standing.pause(State::Broken, at(103)));
        assert!(!standing.pause(State::Broken, at(104)));
        assert!(standing.pause(State::Broken, at(163)));
        assert!(!standing.pause(State::Broken, at(164)));
        assert!(standing.open());
        assert_eq!(standing.state, State::Open);
        assert!(standing.pause(State::BackOff, at(223)));
        assert!(standing.open());
        assert!(!standing.pause(State::AtLimit, at(224)));
        assert!(!standing.open(), "nobody was told of the pause");
    }
}
