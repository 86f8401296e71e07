//! The sums of a run: what the verdict is made of.

use hdrhistogram::Histogram;

/// Longest time that the histograms tell apart, in nanoseconds: an hour. Longer ones are
/// counted as this.
const LONGEST: u64 = 3_600_000_000_000;

/// The longest wait for an answer that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Nanoseconds.
    pub length: u64,
    /// Which connection.
    pub slot: usize,
    /// When it ended, in nanoseconds of the run's clock.
    pub at: u64,
}

/// All counts of a run. Times are in nanoseconds.
#[derive(Debug)]
pub struct Tally {
    /// Connections that came up, those opened by churn included.
    pub established: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// What this machine had no room for: connections that could not be opened from here, and
    /// reads and writes that had to be repeated. No fault of the server.
    pub client_failures: u64,
    /// Connections that ended with an error.
    pub resets: u64,
    /// Connections that the server ended.
    pub closed_by_server: u64,
    /// Connections that still owed answers when the wait for the last ones was over.
    pub stalled: u64,
    /// Connections ended and replaced by churn.
    pub churned: u64,
    /// Messages wholly written on connections that have ended.
    pub sent: u64,
    /// Messages answered right, in or out of turn.
    pub received: u64,
    /// Messages never answered.
    pub lost: u64,
    /// Answers that came again.
    pub doubled: u64,
    /// Messages answered after a larger number.
    pub reordered: u64,
    /// Runs of bytes that match nothing.
    pub corrupted: u64,
    /// Bytes in those runs.
    pub corrupted_bytes: u64,
    /// Messages whose answers those runs destroyed.
    pub damaged: u64,
    /// The longest wait, if any message was answered or waited for.
    pub longest_gap: Option<Gap>,
    /// Waits longer than the limit.
    pub gaps_over_max: u64,
    /// From when a message was due to its answer.
    pub latency: Histogram<u64>,
    /// How late this program was with sending.
    pub late: Histogram<u64>,
    max_gap: Option<u64>,
}

impl Tally {
    /// Nothing counted yet. A wait longer than `max_gap` nanoseconds is a failure.
    #[must_use]
    pub fn new(max_gap: Option<u64>) -> Self {
        Self {
            established: 0,
            connect_failures: 0,
            client_failures: 0,
            resets: 0,
            closed_by_server: 0,
            stalled: 0,
            churned: 0,
            sent: 0,
            received: 0,
            lost: 0,
            doubled: 0,
            reordered: 0,
            corrupted: 0,
            corrupted_bytes: 0,
            damaged: 0,
            longest_gap: None,
            gaps_over_max: 0,
            latency: histogram(),
            late: histogram(),
            max_gap,
        }
    }

    /// The limit for a wait, in nanoseconds.
    #[must_use]
    pub fn max_gap(&self) -> Option<u64> {
        self.max_gap
    }

    /// Counts a wait that has ended. Returns whether it was over the limit.
    pub fn add_gap(&mut self, gap: Gap) -> bool {
        if self
            .longest_gap
            .is_none_or(|longest| longest.length < gap.length)
        {
            self.longest_gap = Some(gap);
        }
        let over = self.max_gap.is_some_and(|limit| gap.length > limit);
        self.gaps_over_max += u64::from(over);
        over
    }

    /// Every count, by the name that the JSON verdict uses.
    pub fn counts_mut(&mut self) -> [(&'static str, &mut u64); 15] {
        [
            ("established", &mut self.established),
            ("connect_failures", &mut self.connect_failures),
            ("client_failures", &mut self.client_failures),
            ("resets", &mut self.resets),
            ("closed_by_server", &mut self.closed_by_server),
            ("stalled", &mut self.stalled),
            ("churned", &mut self.churned),
            ("sent", &mut self.sent),
            ("received", &mut self.received),
            ("lost", &mut self.lost),
            ("doubled", &mut self.doubled),
            ("reordered", &mut self.reordered),
            ("corrupted", &mut self.corrupted),
            ("corrupted_bytes", &mut self.corrupted_bytes),
            ("damaged", &mut self.damaged),
        ]
    }

    /// Adds what another process has counted.
    pub fn add(&mut self, mut other: Tally) {
        for ((_, ours), (_, theirs)) in self.counts_mut().into_iter().zip(other.counts_mut()) {
            *ours += *theirs;
        }
        self.gaps_over_max += other.gaps_over_max;
        let gaps = self.longest_gap.into_iter().chain(other.longest_gap);
        self.longest_gap = gaps.max_by_key(|gap| gap.length);
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.late.add(&other.late);
    }

    /// How many things have gone wrong with the server so far.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.faults().iter().map(|&(_, count)| count).sum()
    }

    /// The counts that must be 0, worst first, by the names that the JSON verdict uses.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, u64); 10] {
        [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("damaged", self.damaged),
            ("resets", self.resets),
            ("closed_by_server", self.closed_by_server),
            ("stalled", self.stalled),
            ("connect_failures", self.connect_failures),
            ("gaps_over_max", self.gaps_over_max),
        ]
    }

    /// Whether everything came back right, and all of the load that was asked for was there.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fault_count() == 0 && self.client_failures == 0
    }
}

/// An empty distribution of times.
pub(crate) fn histogram() -> Histogram<u64> {
    // Three significant digits: 0.1 % is finer than any clock here deserves.
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are constant and valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(length: u64) -> Gap {
        Gap {
            length,
            slot: 3,
            at: 9,
        }
    }

    #[test]
    fn new_tally_is_clean() {
        assert!(Tally::new(None).is_clean());
    }

    #[test]
    fn longest_gap_is_kept_and_only_those_over_the_limit_are_faults() {
        let mut tally = Tally::new(Some(100));
        assert!(!tally.add_gap(gap(100)));
        assert!(tally.is_clean());
        assert!(tally.add_gap(gap(101)));
        assert!(!tally.add_gap(gap(5)));
        assert_eq!(tally.longest_gap, Some(gap(101)));
        assert_eq!(tally.gaps_over_max, 1);
        assert!(!tally.is_clean());
    }

    #[test]
    fn failure_of_this_machine_is_no_fault_and_yet_not_clean() {
        let mut tally = Tally::new(None);
        tally.client_failures = 1;
        assert_eq!(tally.fault_count(), 0);
        assert!(!tally.is_clean());
    }

    #[test]
    fn any_gap_is_fine_without_a_limit() {
        let mut tally = Tally::new(None);
        assert!(!tally.add_gap(gap(u64::MAX)));
        assert!(tally.is_clean());
    }
}
