//! Waiting for what nothing announces: a process's descriptors; and how often it says a thing.

use std::thread;
use std::time::Instant;

use super::{BOUND, Server};

impl Server {
    /// Waits until its descriptors are as `wanted` says.
    ///
    /// # Panics
    /// If they are not within [`BOUND`].
    #[track_caller]
    pub fn wait_fds(&self, wanted: impl Fn(&[(i32, String)]) -> bool) {
        let end = Instant::now() + BOUND;
        loop {
            let fds = self.fds();
            if wanted(&fds) {
                return;
            }
            assert!(Instant::now() < end, "pid {} has {fds:#?}", self.pid());
            // Whoever it waits for may need this CPU.
            thread::yield_now();
        }
    }

    /// At least one line with `what`, and at most one a second since.
    #[track_caller]
    pub fn says_now_and_then(&self, what: &str, since: Instant) {
        self.wait_line(what);
        let lines = self.log().count(what);
        let seconds = since.elapsed().as_secs() as usize;
        if super::is_heard() {
            println!("{lines} lines with {what:?} in {seconds} s");
        }
        assert!(lines <= seconds + 2, "{:#?}", self.log().lines());
    }
}
