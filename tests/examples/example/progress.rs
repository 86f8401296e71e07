//! What a load has done so far, shared with the test that waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::support::BOUND;

/// Most faults that are kept in words.
const SHOWN: usize = 10;

/// What a load has done so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    tally: Mutex<Tally>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    stopping: bool,
    faults: u64,
    shown: Vec<String>,
}

impl Progress {
    /// So many answers have come and were right.
    pub fn add(&self, answers: u64) {
        self.lock().answered += answers;
        self.0.more.notify_all();
    }

    /// Something went wrong.
    pub fn fault(&self, what: String) {
        let mut tally = self.lock();
        tally.faults += 1;
        if tally.shown.len() < SHOWN {
            tally.shown.push(what);
        }
        self.0.more.notify_all();
    }

    /// How many answers were right.
    pub fn answered(&self) -> u64 {
        self.lock().answered
    }

    /// Waits for so many right answers more than there are now.
    ///
    /// # Panics
    /// At a fault, or if they do not come within [`BOUND`].
    pub fn wait_for_more(&self, answers: u64) {
        let tally = self.lock();
        let goal = tally.answered + answers;
        let waiting = |tally: &mut Tally| tally.answered < goal && tally.faults == 0;
        let waited = self.0.more.wait_timeout_while(tally, BOUND, waiting);
        let (tally, timeout) = waited.expect("no thread panics with it");
        let (answered, shown) = (tally.answered, tally.shown.clone());
        // Not while the lock is held: the load would panic too.
        drop(tally);
        assert!(shown.is_empty(), "{shown:#?}");
        assert!(
            !timeout.timed_out(),
            "only {answered} answers, {goal} are awaited"
        );
    }

    /// Tells the load to come to its end.
    pub fn stop(&self) {
        self.lock().stopping = true;
    }

    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// # Panics
    /// If anything went wrong.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let (faults, shown) = {
            let tally = self.lock();
            (tally.faults, tally.shown.clone())
        };
        assert!(faults == 0, "{faults} faults: {shown:#?}");
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.tally.lock().expect("no thread panics with it")
    }
}
