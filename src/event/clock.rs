//! The clock of a reactor: the kernel's, or one that is moved by hand.
//!
//! With [`Clock::Manual`] a test of three hours of silence takes a microsecond, and is the same
//! every time. Only the time is made up: the descriptors are real, and are asked without waiting.

use std::io;
use std::time::Duration;

use super::{Cx, Reactor, Time};

/// How many turns there may be at one time before the clock goes on by a millisecond on its own.
/// Without this, a timer that is due again at once, or a source that never drains, would stop the
/// clock for ever.
const TURNS_AT_ONE_TIME: usize = 100;
const STEP: Duration = Duration::from_millis(1);

/// Where a manual clock begins: late enough for times before it.
const BEGIN: Time = Time::from_ns(3_600_000_000_000);

/// What tells a reactor the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The kernel's monotonic clock.
    #[default]
    Real,
    /// [`Reactor::advance`] and [`Reactor::advance_to_next`]. It begins one hour after
    /// [`Time::ZERO`]. A turn never waits.
    Manual,
}

impl Clock {
    /// The time, if the last one told was `last`.
    pub(super) fn read(self, last: Time) -> Time {
        match self {
            Clock::Real => last.max(Time::now()),
            Clock::Manual => last.max(BEGIN),
        }
    }
}

impl<S> Reactor<S> {
    /// Moves a manual clock on by `span`, from deadline to deadline. At each deadline it turns
    /// until nothing is left to do. It ends early after [`Cx::stop`].
    ///
    /// # Errors
    /// `InvalidInput` with [`Clock::Real`]. Otherwise as [`Reactor::turn`].
    pub fn advance(&mut self, state: &mut S, span: Duration) -> io::Result<()> {
        let end = self.manual_time()? + span;
        self.turn_while_busy(state)?;
        while !self.cx.stopped
            && let Some(next) = self.cx.next_step().filter(|&next| next <= end)
        {
            self.cx.now = next;
            self.turn_while_busy(state)?;
        }
        if !self.cx.stopped {
            self.cx.now = self.cx.now.max(end);
            self.turn_while_busy(state)?;
        }
        Ok(())
    }

    /// Moves a manual clock on to the next deadline at which something runs, and turns until
    /// nothing is left to do. Returns false if nothing is armed.
    ///
    /// # Errors
    /// As [`Reactor::advance`].
    pub fn advance_to_next(&mut self, state: &mut S) -> io::Result<bool> {
        self.manual_time()?;
        self.turn_while_busy(state)?;
        let before = self.cx.fired();
        while self.cx.fired() == before {
            let Some(next) = self.cx.next_step() else {
                return Ok(false);
            };
            self.cx.now = next;
            self.turn_while_busy(state)?;
        }
        Ok(true)
    }

    fn manual_time(&self) -> io::Result<Time> {
        match self.cx.config.clock {
            Clock::Manual => Ok(self.cx.now),
            Clock::Real => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the kernel's clock cannot be moved",
            )),
        }
    }

    fn turn_while_busy(&mut self, state: &mut S) -> io::Result<()> {
        for _ in 0..TURNS_AT_ONE_TIME {
            let before = self.cx.ran();
            self.turn(state, Some(Duration::ZERO))?;
            let queued = self.wake_time() == Some(Time::ZERO);
            if self.cx.stopped || self.cx.ran() == before && !queued {
                break;
            }
        }
        Ok(())
    }
}

impl<S> Cx<S> {
    /// How many deadlines have run.
    fn fired(&self) -> u64 {
        self.stats.timers_fired + self.stats.deadlines_fired
    }

    /// How many callbacks of all kinds have run.
    fn ran(&self) -> u64 {
        self.stats.dispatches + self.stats.timers_fired + self.stats.deferred
    }

    /// The next deadline, or a little later than now if it is not in the future.
    fn next_step(&mut self) -> Option<Time> {
        let next = self.wake_time(self.is_held(), None)?;
        Some(if next > self.now {
            next
        } else {
            self.now + STEP
        })
    }
}
