//! The loop as its owner sees it: made, set up, turned.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::freeze::Phase;
use super::{Config, Cx, Time};

/// A single-threaded event loop over an application's state `S`; see the [module](super).
pub struct Reactor<S> {
    pub(super) cx: Cx<S>,
}

impl<S> Reactor<S> {
    /// An empty reactor. A `batch` or `budget` of 0 counts as 1.
    ///
    /// # Errors
    /// What epoll_create1(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new(config: Config) -> io::Result<Reactor<S>> {
        Cx::new(config, Phase::Serving).map(|cx| Reactor { cx })
    }

    /// A reactor that is held from the start: items can be added, and are not served before
    /// [`Cx::resume`]. A taker uses it to collect what it does not own yet.
    ///
    /// # Errors
    /// As [`Reactor::new`].
    pub fn new_held(config: Config) -> io::Result<Reactor<S>> {
        Cx::new(config, Phase::Held).map(|cx| Reactor { cx })
    }

    /// The verbs, for use between turns. The time is read anew.
    pub fn cx(&mut self) -> &mut Cx<S> {
        // Should that fail, the next turn tries again and says why.
        let _ = self.cx.renew_if_forked();
        self.cx.tick();
        &mut self.cx
    }

    /// Waits, for at most `max_wait` (`None`: without end), and does what there is to do. Another
    /// loop may call it; if nothing has happened it returns with nothing done.
    ///
    /// A panic of a callback ends its source and passes through. The reactor can be turned again
    /// afterwards.
    ///
    /// # Errors
    /// What epoll_wait(2) says, which for a sound set is nothing. In a child of fork(2) also the
    /// reason why the first turn cannot have [epoll sets of its own](super#after-a-fork): `EMFILE`,
    /// `ENFILE`, `ENOMEM`, `ENOSPC`. The next turn tries again. Errors of sources go to
    /// [`Cx::on_error`].
    pub fn turn(&mut self, state: &mut S, max_wait: Option<Duration>) -> io::Result<()> {
        self.cx.run_turn(state, max_wait)
    }

    /// Until when another loop may wait for this reactor's descriptor (`as_fd`) before it calls
    /// [`Reactor::turn`]. [`Time::ZERO`] if there is something to do already; `None` if only the
    /// descriptor tells.
    pub fn wake_time(&mut self) -> Option<Time> {
        if self.cx.renew_if_forked().is_err() {
            // The turn says why.
            return Some(Time::ZERO);
        }
        self.cx.tick();
        self.cx.set_alarm();
        self.cx.wake_time(self.cx.is_held(), None)
    }

    /// Turns until [`Cx::stop`] is called. Returns at once if it was called before.
    ///
    /// # Errors
    /// As [`Reactor::turn`].
    pub fn run(&mut self, state: &mut S) -> io::Result<()> {
        while !self.cx.is_stopped() {
            self.turn(state, None)?;
        }
        Ok(())
    }
}

/// The descriptor that becomes readable when a turn has something to do, for a loop that contains
/// this one. It is another descriptor while items are held, after a release, and after the first
/// [`Reactor::wake_time`] or turn in a child of a fork. So ask for it before each wait, after
/// asking for the time.
impl<S> AsFd for Reactor<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let lanes = &self.cx.lanes;
        let waited_for = if self.cx.is_held() {
            &lanes.handover
        } else {
            &lanes.item
        };
        waited_for.poller.as_fd()
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reactor").field(&self.cx).finish()
    }
}
