//! Timers to the microsecond, for the few that cannot bear to be a millisecond late: BFD (RFC 5880)
//! sends, and gives up, within 3 ms; VRRP (RFC 9568) advertises every 10 ms.
//!
//! epoll_wait(2) takes whole milliseconds. These timers have a timerfd (timerfd_create(2)) in the
//! epoll set of the items, which ends the wait in time. The timerfd is set only if it would go off
//! too late. If the earliest timer is pushed later, as happens with every packet heard, that costs
//! no system call but one wake-up too early.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::id::TimerSet;
use super::lane::Timer;
use super::poller::Poller;
use super::timers::Timers;
use super::{Class, Clock, Cx, Time, TimerId};

/// The timers and what wakes them.
pub(super) struct Liveness<S> {
    pub(super) timers: Timers<Timer<S>>,
    /// Made with the first timer.
    alarm: Option<TimerFd>,
    /// When it goes off.
    set: Time,
}

impl<S> Liveness<S> {
    pub(super) fn new(now: Time) -> Liveness<S> {
        Liveness {
            timers: Timers::new(now),
            alarm: None,
            set: Time::ZERO,
        }
    }

    /// An alarm of our own in place of the parent's, watched by a new set: in a child both are
    /// the same timerfd. `None` if there was none.
    pub(super) fn fresh_alarm(&self, poller: &Poller) -> io::Result<Option<TimerFd>> {
        if self.alarm.is_none() {
            return Ok(None);
        }
        let alarm = new_alarm()?;
        poller.add_alarm(alarm.as_fd())?;
        Ok(Some(alarm))
    }

    /// Takes an alarm that is not set yet.
    pub(super) fn replace_alarm(&mut self, alarm: Option<TimerFd>) {
        (self.alarm, self.set) = (alarm, Time::ZERO);
    }

    /// Has the alarm watched by another set.
    pub(super) fn watch_in(&self, poller: &Poller) -> io::Result<()> {
        let alarm = self.alarm.as_ref();
        alarm.map_or(Ok(()), |alarm| poller.add_alarm(alarm.as_fd()))
    }

    /// Sees to it that the alarm goes off by the time of the next timer; whether it had to be
    /// set for that.
    fn set(&mut self, now: Time) -> bool {
        let Some(alarm) = &self.alarm else {
            return false;
        };
        let Some(due) = self.timers.next_due() else {
            return false;
        };
        let goes_off = now < self.set && self.set <= due;
        if due <= now || goes_off {
            return false;
        }
        let time = Expiration::OneShot(Duration::from_nanos(due.as_ns()).into());
        // It fails for no time on the clock; should it, the wait ends a millisecond late.
        let done = alarm.set(time, TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        self.set = if done.is_ok() { due } else { Time::ZERO };
        true
    }
}

fn new_alarm() -> io::Result<TimerFd> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    Ok(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?)
}

impl<S> Cx<S> {
    /// As [`Cx::timer`] for an item, but it runs as soon as the kernel can wake a thread, and
    /// before other timers. It is meant for a few timers. For a steady rhythm let
    /// [`Drift::tick`](super::Drift::tick) tell the next time.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM` or `ENOSPC` for the first one.
    pub fn liveness_timer<F>(
        &mut self,
        name: &'static str,
        at: Time,
        mut callback: F,
    ) -> io::Result<TimerId>
    where
        F: FnMut(&mut S, &mut Cx<S>) -> Option<Time> + 'static,
    {
        if self.liveness.alarm.is_none() {
            let alarm = new_alarm()?;
            self.stats.controls += 1;
            self.lanes.item.poller.add_alarm(alarm.as_fd())?;
            self.liveness.alarm = Some(alarm);
        }
        let timer = Timer {
            name: self.names.id(name),
            class: Class::Item,
            callback: Some(Box::new(move |state, cx, _due| callback(state, cx))),
        };
        let key = self.liveness.timers.add(at, timer);
        Ok(TimerId {
            set: TimerSet::Liveness,
            key,
        })
    }

    /// Before a wait for the items.
    pub(super) fn set_alarm(&mut self) {
        if self.config.clock == Clock::Real {
            let now = self.now;
            self.stats.alarms += u64::from(self.liveness.set(now));
        }
    }
}
