//! Points in time that can travel to another process.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point on the kernel's monotonic clock, in nanoseconds (clock_gettime(2),
/// `CLOCK_MONOTONIC`).
///
/// std's `Instant` cannot leave its process. This can: all processes of a boot have the same clock,
/// except across time namespaces (time_namespaces(7)). So a deadline that was handed to a successor
/// is still the same moment. Arithmetic saturates at both ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The start of the clock: always past.
    pub const ZERO: Time = Time(0);
    /// The end of the clock, in 584 years: never reached.
    pub const MAX: Time = Time(u64::MAX);

    /// The present, read from the kernel.
    ///
    /// # Panics
    /// If the kernel has no monotonic clock, which Linux always has.
    pub fn now() -> Time {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has CLOCK_MONOTONIC");
        Time::ZERO + Duration::from(now)
    }

    /// The point `ns` nanoseconds after the start of the clock.
    pub const fn from_ns(ns: u64) -> Time {
        Time(ns)
    }

    /// Nanoseconds since the start of the clock.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(nanoseconds(later)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, later: Duration) {
        *self = *self + later;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, earlier: Duration) -> Time {
        Time(self.0.saturating_sub(nanoseconds(earlier)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Time({}.{:09})",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_at_both_ends_saturates() {
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(Time::ZERO + Duration::MAX, Time::MAX);
        assert_eq!(Time::from_ns(5) - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time::from_ns(5).since(Time::from_ns(7)), Duration::ZERO);
        assert_eq!(Time::from_ns(7).since(Time::from_ns(5)).as_nanos(), 2);
    }

    #[test]
    fn clock_read_twice_does_not_go_back() {
        let first = Time::now();
        assert!(first > Time::ZERO && Time::now() >= first);
    }
}
