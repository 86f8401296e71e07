//! Deadlines: a heap, and a timerfd that makes the poll wake at the first of them.
//!
//! The poll's own timeout counts whole milliseconds, rounded up; a message would go out up
//! to 1 ms late, several times the latency that is to be measured. The timerfd is exact. It
//! is set only when the first deadline has changed, so that thousands of silent connections
//! cost nothing.
//!
//! A timer cannot be cancelled: whoever gets one checks whether it still means something.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the program began to run: the time of everything here.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    epoch: u64,
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    pub fn start() -> Self {
        // The system's own clock for everything that two processes both see.
        let epoch = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Into::into);
        Self {
            started: Instant::now(),
            epoch: u64::try_from(epoch.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// What CLOCK_MONOTONIC showed at the start, in nanoseconds.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Nanoseconds since the start. They do not go back, and last for 584 years.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Deadlines of any kind `T`; those of one time go off in the order of `T`.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(u64, T)>>,
    timer: TimerFd,
    /// What the timer is set to.
    set_to: Option<u64>,
}

impl<T: Ord> Timers<T> {
    /// No deadlines. `token` will be ready when one has come.
    ///
    /// # Errors
    /// What timerfd_create(2) and epoll_ctl(2) say.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(TimerClock::CLOCK_MONOTONIC, flags)?;
        // Never read: mio registers edges, an expiry is one, and setting the timer anew
        // clears its count.
        let fd = timer.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Self {
            heap: BinaryHeap::new(),
            timer,
            set_to: None,
        })
    }

    /// Adds a deadline.
    pub fn add(&mut self, at: u64, timer: T) {
        self.heap.push(Reverse((at, timer)));
    }

    /// Takes the first deadline, if it has come.
    pub fn next_due(&mut self, now: u64) -> Option<(u64, T)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Prepares the poll for the first deadline. Returns whether it has come already: then
    /// the poll is not to wait.
    ///
    /// # Errors
    /// What timerfd_settime(2) says.
    pub fn set(&mut self, now: u64) -> io::Result<bool> {
        let Some(Reverse((at, _))) = self.heap.peek() else {
            return Ok(false);
        };
        let at = *at;
        if at <= now {
            return Ok(true);
        }
        if self.set_to != Some(at) {
            let wait = TimeSpec::from_duration(Duration::from_nanos(at - now));
            self.timer
                .set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
            self.set_to = Some(at);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    #[test]
    fn alarms_go_off_in_order_and_not_before_their_time() {
        let poll = Poll::new().unwrap();
        let mut timers = Timers::new(poll.registry(), Token(0)).unwrap();
        for (at, name) in [(30, 'c'), (10, 'b'), (10, 'a')] {
            timers.add(at, name);
        }
        assert_eq!(timers.next_due(9), None);
        assert_eq!(timers.next_due(10), Some((10, 'a')));
        assert_eq!(timers.next_due(29), Some((10, 'b')));
        assert_eq!(timers.next_due(29), None);
        assert!(timers.set(30).unwrap());
    }

    #[test]
    fn poll_wakes_for_each_deadline_in_turn() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let clock = Clock::start();
        let mut timers = Timers::new(poll.registry(), Token(7)).unwrap();
        for round in 0..3 {
            let at = clock.now() + 300_000;
            timers.add(at, round);
            while timers.next_due(clock.now()).is_none() {
                if !timers.set(clock.now()).unwrap() {
                    poll.poll(&mut events, Some(Duration::from_secs(10)))
                        .unwrap();
                    assert!(events.iter().all(|event| event.token() == Token(7)));
                    assert!(!events.is_empty(), "round {round}: slept through");
                }
            }
            assert!(clock.now() >= at);
        }
    }
}
