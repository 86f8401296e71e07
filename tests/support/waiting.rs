//! Waiting for what nothing announces: a process's descriptors.

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
}
