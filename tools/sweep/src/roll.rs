//! The sweep: every shard once, so many at once, and no further one after a refusal.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;

use crate::shard::{Moved, Refused, Shard};

/// What has become of a shard in a sweep.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The successor serves.
    Moved(Moved),
    /// It was not replaced.
    Refused(Refused),
    /// The sweep ended before its turn: it serves on as it did.
    NotTried,
}

/// What is left to do, and what has become of the rest.
struct Progress {
    next: usize,
    stopped: bool,
    outcomes: Vec<Outcome>,
}

/// Replaces the shards in their order, at most `at_once` at a time. `told` hears of each as it
/// happens. Returns what has become of each, in their order.
pub fn roll(
    shards: &[Shard],
    service: &OsStr,
    at_once: NonZeroUsize,
    told: impl Fn(&Shard, &Outcome) + Sync,
) -> Vec<Outcome> {
    let progress = Mutex::new(Progress {
        next: 0,
        stopped: false,
        outcomes: vec![Outcome::NotTried; shards.len()],
    });
    let lock = || progress.lock().expect("nobody panics while it is held");
    let work = || loop {
        let turn = {
            let mut progress = lock();
            let turn = progress.next;
            if progress.stopped || turn == shards.len() {
                return;
            }
            progress.next += 1;
            turn
        };
        let outcome = match shards[turn].replace(service) {
            Ok(moved) => Outcome::Moved(moved),
            Err(refused) => Outcome::Refused(refused),
        };
        told(&shards[turn], &outcome);
        let mut progress = lock();
        progress.stopped |= matches!(outcome, Outcome::Refused(_));
        progress.outcomes[turn] = outcome;
    };
    thread::scope(|scope| {
        for _ in 0..at_once.get().min(shards.len()) {
            scope.spawn(work);
        }
    });
    progress.into_inner().expect("nobody has panicked").outcomes
}
