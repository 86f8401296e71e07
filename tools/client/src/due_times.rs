//! When each unanswered message of a connection was due.
//!
//! Latency is measured from the time a message *should* have been sent, not from when it
//! was: otherwise a server that stops for a second delays the sending too, and the pause
//! shows in one message instead of in all that should have been sent meanwhile (this is
//! known as coordinated omission). So the due time of every message has to be kept until
//! its answer comes. Neighbours with the same due time share an entry.

use std::collections::VecDeque;

/// Due times of consecutive messages, the oldest first. `None` is a message that counts for
/// correctness, but not for times.
#[derive(Debug, Default)]
pub struct DueTimes {
    /// Number of the oldest message in `runs`.
    base: u64,
    /// Number after the newest one.
    end: u64,
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    due: Option<u64>,
    count: u64,
}

impl DueTimes {
    /// Adds the next `count` messages, due at `due` nanoseconds of the run's clock.
    pub fn push(&mut self, due: Option<u64>, count: u64) {
        self.end += count;
        match self.runs.back_mut() {
            Some(run) if run.due == due => run.count += count,
            _ => self.runs.push_back(Run { due, count }),
        }
    }

    /// The number after the newest message.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// When the oldest message was due. `None` if there is none or its time does not count.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.runs.front().and_then(|run| run.due)
    }

    /// The times of all messages so far do not count: their answers are not read on purpose.
    pub fn discount(&mut self) {
        let count = self.end - self.base;
        self.runs.clear();
        if count > 0 {
            self.runs.push_back(Run { due: None, count });
        }
    }

    /// Forgets every message before `first`, then takes `count` more and calls `answered`
    /// with each due time among them and how many share it.
    pub fn take(&mut self, first: u64, count: u64, mut answered: impl FnMut(u64, u64)) {
        self.drop_front(first.saturating_sub(self.base), |_, _| {});
        self.drop_front(count, |due, count| {
            if let Some(due) = due {
                answered(due, count);
            }
        });
    }

    fn drop_front(&mut self, mut count: u64, mut dropped: impl FnMut(Option<u64>, u64)) {
        while count > 0
            && let Some(run) = self.runs.front_mut()
        {
            let taken = count.min(run.count);
            dropped(run.due, taken);
            run.count -= taken;
            self.base += taken;
            count -= taken;
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(due_times: &mut DueTimes, first: u64, count: u64) -> Vec<(u64, u64)> {
        let mut seen = Vec::new();
        due_times.take(first, count, |due, count| seen.push((due, count)));
        seen
    }

    #[test]
    fn empty_has_no_oldest() {
        let mut due_times = DueTimes::default();
        assert_eq!((due_times.oldest(), due_times.end()), (None, 0));
        assert!(taken(&mut due_times, 0, 5).is_empty());
    }

    #[test]
    fn equal_dues_share_a_run_and_come_out_in_order() {
        let mut due_times = DueTimes::default();
        due_times.push(Some(10), 1);
        due_times.push(Some(10), 2);
        due_times.push(Some(20), 1);
        assert_eq!(due_times.runs.len(), 2);
        assert_eq!(due_times.oldest(), Some(10));
        assert_eq!(taken(&mut due_times, 0, 2), [(10, 2)]);
        assert_eq!(taken(&mut due_times, 2, 2), [(10, 1), (20, 1)]);
        assert_eq!(due_times.end(), 4);
    }

    #[test]
    fn skipped_messages_are_forgotten() {
        let mut due_times = DueTimes::default();
        for due in 0..10 {
            due_times.push(Some(due), 1);
        }
        assert_eq!(taken(&mut due_times, 7, 1), [(7, 1)]);
        assert_eq!(due_times.oldest(), Some(8));
    }

    #[test]
    fn discounted_messages_stay_but_lose_their_times() {
        let mut due_times = DueTimes::default();
        due_times.discount();
        due_times.push(Some(1), 3);
        due_times.discount();
        due_times.push(Some(9), 1);
        assert_eq!(due_times.end(), 4);
        assert_eq!(taken(&mut due_times, 0, 4), [(9, 1)]);
    }

    #[test]
    fn unmeasured_messages_are_counted_but_not_reported() {
        let mut due_times = DueTimes::default();
        due_times.push(None, 1_000_000);
        due_times.push(Some(5), 1);
        assert_eq!(due_times.oldest(), None);
        assert_eq!(taken(&mut due_times, 0, 1_000_001), [(5, 1)]);
    }
}
