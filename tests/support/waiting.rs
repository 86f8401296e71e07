//! Waiting for what nothing announces: a process's descriptors, the text of a file; and how
//! often it says a thing.

use std::fs;
use std::path::Path;
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

    /// Waits until so many clients are accepted by a service that offers a takeover, beside its
    /// listener and its socket at PATH. One that is connected may still be queued.
    #[track_caller]
    pub fn wait_accepted(&self, clients: usize) {
        let sockets = |fds: &[(i32, String)]| {
            let sockets = fds.iter().filter(|fd| fd.1.starts_with("socket:"));
            sockets.count()
        };
        self.wait_fds(|fds| sockets(fds) >= clients + 2);
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

/// Waits until the file has a line like that, and returns it.
///
/// # Panics
/// If it has none within [`BOUND`].
#[track_caller]
pub fn wait_text(file: &Path, part: &str) -> String {
    let mut text = String::new();
    wait_until(|| {
        text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
        text.contains(part)
    });
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains(part));
    line.unwrap_or_default().to_owned()
}

/// Waits until it is so.
///
/// # Panics
/// If it is not within [`BOUND`].
#[track_caller]
pub fn wait_until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !so() {
        assert!(Instant::now() < end, "it does not come");
        // Whoever it waits for may need this CPU.
        thread::yield_now();
    }
}
