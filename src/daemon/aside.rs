//! Work that may stall, on a thread beside the loop.
//!
//! A disk can stop any process that writes to it: it is full of somebody else's writes, frozen for
//! a snapshot (fsfreeze(8)), or at the other end of a network. O_NONBLOCK means nothing to a
//! regular file (open(2)). The loop must not be stopped, so it hands such work to a thread. It
//! waits for the thread as long as it can afford to, or not at all.
//!
//! The thread takes no signal, wherever it is started from: the service's signals are for its loop.
//!
//! A thread may hang when the process ends. Then it hangs on until its disk goes on. Everything
//! else that the process had is closed, or was ended by the loop; but its parent hears of its end
//! only then (signal(7) does not reach uninterruptible sleep). No such thread may exist before a
//! fork.

use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

/// Runs `work` on a thread of its own.
///
/// # Errors
/// `EAGAIN` if no thread can be had (pthread_create(3)). `work` was not run then.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A new thread inherits the mask (pthread_create(3)): no signal comes before it is set.
    let ours = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    ours.thread_set_mask()?;
    spawned.map(drop)
}

/// Does `work` beside the loop, and waits up to `longest` for its result. `None` if it takes
/// longer: then the work goes on, and its result is dropped. If no thread can be had, the work is
/// done here.
pub fn within<T: Send + 'static>(
    longest: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::channel();
    // The side that takes it out does it.
    let work = Arc::new(Mutex::new(Some(work)));
    let taken = move || work.lock().ok().and_then(|mut work| work.take());
    let aside = taken.clone();
    let spawned = spawn("aside", move || {
        if let Some(work) = aside() {
            // Nobody waits any more if it took too long.
            let _ = tell.send(work());
        }
    });
    match spawned {
        Ok(()) => told.recv_timeout(longest).ok(),
        Err(_) => taken().map(|work| work()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_done_is_returned_and_work_that_hangs_is_not_waited_for() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(within(Duration::ZERO, move || held.recv()), None);
        drop(release);
    }

    #[test]
    fn thread_takes_no_signal_and_the_caller_those_that_it_took() {
        let before = SigSet::thread_get_mask().unwrap();
        let masked = within(Duration::from_secs(60), SigSet::thread_get_mask);
        let masked = masked.unwrap().unwrap();
        assert!(masked.contains(nix::sys::signal::Signal::SIGTERM));
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
