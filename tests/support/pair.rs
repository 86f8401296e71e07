//! Donor and taker on two reactors in one process, turned in turn.

use std::time::{Duration, Instant};

use socket_takeover::event::{Config, Reactor};
use socket_takeover::takeover::internal::offer::{Offer, Replace};
use socket_takeover::takeover::internal::path;
use socket_takeover::takeover::{Application, Deadlines, Takeover, TakeoverPath};
use tempfile::TempDir;

use super::BOUND;

/// An application on a reactor of its own.
pub struct Process<S> {
    pub reactor: Reactor<S>,
    pub app: S,
}

impl<S: Application> Process<S> {
    /// Serves, and offers a takeover at `path`.
    pub fn donor(path: &TakeoverPath, mut app: S) -> Process<S> {
        let mut reactor = Reactor::new(Config::default()).unwrap();
        let mut offer = Offer::bind(path).unwrap();
        offer.publish(Replace::Stale).unwrap();
        Takeover::offer(&mut app, reactor.cx(), offer, 0, Deadlines::default()).unwrap();
        Process { reactor, app }
    }

    /// Has called the donor at `path`.
    pub fn taker(path: &TakeoverPath, mut app: S) -> Process<S> {
        let mut reactor = Reactor::new_held(Config::default()).unwrap();
        let (channel, donor) = path::connect(path).unwrap();
        let offer = Offer::bind(path).unwrap();
        let deadlines = Deadlines::default();
        Takeover::take_over(&mut app, reactor.cx(), channel, donor, offer, deadlines).unwrap();
        Process { reactor, app }
    }

    pub fn turn(&mut self) {
        let wait = Some(Duration::from_millis(1));
        self.reactor.turn(&mut self.app, wait).unwrap();
    }
}

/// Turns both until `done`.
///
/// # Panics
/// If that takes longer than [`BOUND`].
#[track_caller]
pub fn turn_until<S: Application>(
    donor: &mut Process<S>,
    taker: &mut Process<S>,
    done: impl Fn(&S, &S) -> bool,
) {
    let end = Instant::now() + BOUND;
    while !done(&donor.app, &taker.app) {
        assert!(Instant::now() < end, "it does not come to that");
        donor.turn();
        taker.turn();
    }
}

/// A folder, and a PATH in it.
pub fn stage() -> (TempDir, TakeoverPath) {
    let folder = tempfile::tempdir().unwrap();
    let path = TakeoverPath::new(folder.path().join("offer")).unwrap();
    (folder, path)
}
