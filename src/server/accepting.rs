//! Whether new clients are accepted, and what the log says about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket_takeover::event::{AcceptFailure, Time};

use super::Shown;

/// The shortest time between two lines that say that no peers are accepted.
const QUIET: Duration = Duration::from_secs(60);

/// Whether connections are accepted, and what the log says about it.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    state: State,
    /// When the log was last told of a pause.
    told: Option<Time>,
    /// The log has been told of this pause.
    telling: bool,
    /// Accepts that failed for an unforeseen reason.
    unforeseen: u64,
}

/// Whether new clients are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// As they come.
    #[default]
    Open,
    /// New clients wait until a peer has gone.
    AtLimit,
    /// New clients wait until the back-off is over.
    BackOff,
    /// New clients wait until the socket listens again; this is why it does not.
    Broken(String),
}

impl Accepting {
    /// Connections may be waiting that no event will tell of.
    pub(crate) fn is_paused(&self) -> bool {
        self.state != State::Open
    }

    /// The end of a peer makes room for one that waits.
    pub(crate) fn wants_room(&self) -> bool {
        self.state == State::AtLimit
    }

    /// Why a successor could not use the listener.
    pub(crate) fn obstacle(&self) -> Option<&str> {
        match &self.state {
            State::Broken(why) => Some(why),
            State::Open | State::AtLimit | State::BackOff => None,
        }
    }

    pub(super) fn pause(&mut self, state: State, now: Time, why: impl fmt::Display) {
        if self.is_to_be_told(state, now) {
            log::warn!("no more peers are accepted: {why}");
        }
    }

    /// The listener cannot be used, and cannot be made to listen again.
    pub(super) fn broken(&mut self, address: SocketAddr, peers: usize, now: Time, why: &io::Error) {
        let state = State::Broken(format!("cannot listen on {}: {why}", Shown(address)));
        if self.is_to_be_told(state, now) {
            log::error!(
                "no more peers are accepted: somebody has shut the listener down, and it cannot \
                 listen on {} again: {why}; free the port. It is tried on, and {peers} Peers are \
                 served on",
                Shown(address),
            );
        }
    }

    /// Logs that a pause begins. A listener that stays broken is worth a line each time.
    fn is_to_be_told(&mut self, state: State, now: Time) -> bool {
        let is_news = !self.is_paused() || matches!(state, State::Broken(_));
        // The last line may have been about something else.
        let was_other = matches!(state, State::Broken(_)) && self.obstacle().is_none();
        let lately = self.told.is_some_and(|told| now.since(told) < QUIET);
        self.state = state;
        let is_to_be = is_news && (was_other || !lately);
        if is_to_be {
            self.told = Some(now);
            self.telling = true;
        }
        is_to_be
    }

    /// Nobody waits any more.
    pub(super) fn resume(&mut self) {
        self.state = State::Open;
        if std::mem::take(&mut self.telling) {
            log::info!("peers are accepted again");
        }
    }

    /// Counts a failure, if it is worth that, and says how to log it.
    pub(super) fn count<'a>(&mut self, error: &'a io::Error) -> Failure<'a> {
        let nth = AcceptFailure::is_unforeseen(error).then(|| {
            self.unforeseen += 1;
            self.unforeseen
        });
        Failure { error, nth }
    }
}

/// A failed accept for the log.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    error: &'a io::Error,
    /// How many such failures there were, if they are unforeseen ones.
    nth: Option<u64>,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.nth {
            Some(nth) => write!(f, ", which is tried again (unforeseen, {nth} so far)"),
            None => Ok(()),
        }
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
        let mut accepting = Accepting::default();
        assert!(accepting.is_to_be_told(State::BackOff, at(100)));
        assert!(!accepting.is_to_be_told(State::BackOff, at(101)));
        accepting.resume();
        assert!(!accepting.is_to_be_told(State::AtLimit, at(102)));
        assert!(accepting.wants_room());
        let broken = || State::Broken("why".into());
        assert!(accepting.is_to_be_told(broken(), at(103)));
        assert_eq!(accepting.obstacle(), Some("why"));
        assert!(!accepting.is_to_be_told(broken(), at(104)));
        assert!(accepting.is_to_be_told(broken(), at(163)));
        assert!(!accepting.is_to_be_told(broken(), at(164)));
        accepting.resume();
        assert!(!accepting.is_paused());
        assert!(accepting.is_to_be_told(State::BackOff, at(223)));
    }

    #[test]
    fn unforeseen_failures_are_counted_and_others_are_not() {
        let mut accepting = Accepting::default();
        let of = io::Error::from_raw_os_error;
        let (strange, full) = (of(libc::EACCES), of(libc::EMFILE));
        let said = accepting.count(&strange).to_string();
        assert!(said.ends_with("(unforeseen, 1 so far)"), "{said}");
        assert_eq!(accepting.count(&full).to_string(), full.to_string());
        assert_eq!(accepting.unforeseen, 1);
    }
}
