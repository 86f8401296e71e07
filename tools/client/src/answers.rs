//! The receiving side of one connection: judges what comes, and counts it.
//!
//! Invariant: messages are noted ([`Answers::expect`]) in the order of their numbers, before
//! their last byte is written, so no answer can be older than its due time here.

use std::fmt::Display;

use crate::check::{Checker, Finding};
use crate::due_times::DueTimes;
use crate::message::whole_in;
use crate::shared::Shared;
use crate::tally::Gap;

const MILLISECOND: u64 = 1_000_000;
/// How long a suspicious answer may wait for the bytes after it.
const SETTLE_AFTER: u64 = 100 * MILLISECOND;

/// What a connection is owed, and what it got.
#[derive(Debug)]
pub struct Answers {
    slot: usize,
    check: Checker,
    due_times: DueTimes,
    /// Whether the times of new messages count.
    timed: bool,
    /// When an answer came last.
    progress_at: u64,
    /// When a suspicious answer is judged by itself.
    settle_at: Option<u64>,
}

impl Answers {
    /// The answers of the connection in a slot. Unless it is `timed`, times count only from
    /// the first answer on.
    #[must_use]
    pub fn new(slot: usize, timed: bool, now: u64) -> Self {
        Self {
            slot,
            check: Checker::default(),
            due_times: DueTimes::default(),
            timed,
            progress_at: now,
            settle_at: None,
        }
    }

    /// Waiting begins now.
    pub fn start(&mut self, now: u64) {
        self.progress_at = now;
    }

    /// `count` more messages are owed, due at `due` if their times count.
    pub fn expect(&mut self, due: Option<u64>, count: u64) {
        self.due_times.push(due.filter(|_| self.timed), count);
    }

    /// The answers owed so far are not read on purpose: their times do not count.
    pub fn discount(&mut self) {
        self.due_times.discount();
    }

    /// Messages after the last one that was answered.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.due_times.end().saturating_sub(self.check.next())
    }

    /// Whether nothing can come any more: no message is unanswered, none was skipped.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.outstanding() == 0 && self.check.missing() == 0 && !self.check.is_undecided()
    }

    /// When [`Answers::settle`] has to be called.
    #[must_use]
    pub fn settle_at(&self) -> Option<u64> {
        self.settle_at
    }

    /// Takes the first `count` bytes of the shared buffer as the next answers. `written` is
    /// how many bytes were sent.
    pub fn take(&mut self, count: usize, written: u64, who: &impl Display, shared: &mut Shared) {
        let now = shared.clock.now();
        self.check
            .push(&shared.buffer[..count], written, &mut shared.findings);
        self.apply_findings(now, who, shared);
    }

    /// Judges a suspicious answer that has waited long enough for company.
    pub fn settle(&mut self, now: u64, written: u64, who: &impl Display, shared: &mut Shared) {
        if self.settle_at.is_some_and(|at| at <= now) {
            self.check.settle(written, &mut shared.findings);
            self.apply_findings(now, who, shared);
            self.settle_at = None;
        }
    }

    /// Nothing will follow: counts what is lost.
    pub fn close(mut self, written: u64, who: &impl Display, shared: &mut Shared) {
        let now = shared.clock.now();
        let lost = self.check.finish(written, &mut shared.findings);
        self.apply_findings(now, who, shared);
        shared.tally.sent += whole_in(written);
        shared.tally.lost += lost;
        if lost > 0 {
            self.count_gap(now, who, shared);
            shared.complain(who, format_args!("{lost} messages were never answered"));
        }
    }

    fn apply_findings(&mut self, now: u64, who: &impl Display, shared: &mut Shared) {
        let mut findings = std::mem::take(&mut shared.findings);
        for finding in findings.drain(..) {
            self.apply(finding, now, who, shared);
        }
        shared.findings = findings;
        self.settle_at = self.check.is_undecided().then_some(now + SETTLE_AFTER);
    }

    fn apply(&mut self, finding: Finding, now: u64, who: &impl Display, shared: &mut Shared) {
        let tally = &mut shared.tally;
        match finding {
            Finding::InOrder { first, count } => {
                self.timed = true;
                tally.received += count;
                self.count_gap(now, who, shared);
                let (latency, trace) = (&mut shared.tally.latency, &mut shared.trace);
                self.due_times.take(first, count, |due, count| {
                    let took = now.saturating_sub(due);
                    latency.saturating_record_n(took, count);
                    if let Some(trace) = trace {
                        trace.answered(took, count);
                    }
                });
            }
            Finding::Skipped { first, count } => {
                let got = first + count;
                let what = format_args!("expected {first}, got {got}: {count} missing so far");
                shared.complain(who, what);
            }
            Finding::Late { number } => {
                tally.received += 1;
                tally.reordered += 1;
                shared.complain(
                    who,
                    format_args!("{number} came late, after larger numbers"),
                );
            }
            Finding::Doubled { number } => {
                tally.doubled += 1;
                let expected = self.check.next();
                shared.complain(
                    who,
                    format_args!("{number} came again, expected {expected}"),
                );
            }
            Finding::Corrupted {
                expected,
                bytes,
                damaged,
            } => {
                tally.corrupted += 1;
                tally.corrupted_bytes += bytes;
                tally.damaged += damaged;
                self.count_gap(now, who, shared);
                self.due_times.take(expected + damaged, 0, |_, _| {});
                let what = format_args!("expected {expected}, got {bytes} bytes of no meaning");
                shared.complain(who, what);
            }
        }
    }

    /// Counts how long the oldest message whose time counts has waited, since it was due or
    /// since the last answer, whichever is later.
    fn count_gap(&mut self, now: u64, who: &impl Display, shared: &mut Shared) {
        if let Some(due) = self.due_times.oldest() {
            let length = now.saturating_sub(due.max(self.progress_at));
            let gap = Gap {
                length,
                slot: self.slot,
                at: now,
            };
            if shared.tally.add_gap(gap) {
                let waited = length as f64 / MILLISECOND as f64;
                shared.complain(who, format_args!("waited {waited:.1} ms for an answer"));
            }
        }
        self.progress_at = now;
    }
}
