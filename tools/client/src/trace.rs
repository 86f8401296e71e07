//! What a run sees, written while it goes on: one line of JSON for each bucket of time.
//!
//! | line | keys |
//! |---|---|
//! | the first | `type` "run", `bucket_ms`, `connections`, `loop`, `rate`, `seed` |
//! | a bucket | `type` "bucket", `at_ns`, `answers`, `p50_ns`, `p99_ns`, `max_ns`, `faults` |
//! | the last | `type` "verdict", and those of the verdict in JSON |
//!
//! `at_ns` is when the bucket began, on CLOCK_MONOTONIC, which is also the clock of the
//! service's reports: the two can be laid over each other. A latency is in the bucket in which
//! its answer came, so that a line can be written as soon as its time is over; buckets in which
//! nothing came, right or wrong, have none.

use std::io;
use std::path::Path;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::cli::{Load, Options};
use crate::ink::Ink;
use crate::tally::{Tally, histogram};

/// Length of a bucket, in nanoseconds.
const BUCKET: u64 = 10_000_000;

/// See the file's own description.
#[derive(Debug)]
pub struct Trace {
    out: Ink,
    /// What the run's clock has to be added to.
    epoch: u64,
    /// When the bucket began, on the run's clock.
    began: u64,
    latencies: Histogram<u64>,
    /// Faults up to the bucket's start.
    faults: u64,
}

impl Trace {
    /// A file that begins with what is run. `epoch` is what CLOCK_MONOTONIC showed when the
    /// run's clock began.
    ///
    /// # Errors
    /// Those of [`Ink::open`].
    pub fn create(path: &Path, options: &Options, seed: u64, epoch: u64) -> io::Result<Trace> {
        let (kind, rate) = match options.load {
            Load::Open { rate } => ("open", rate),
            Load::Closed => ("closed", None),
        };
        let first = json!({
            "type": "run",
            "bucket_ms": BUCKET / 1_000_000,
            "connections": options.connections,
            "loop": kind,
            "rate": rate,
            "seed": seed,
        });
        Ok(Trace {
            out: Ink::open(path, format!("{first}\n"))?,
            epoch,
            began: 0,
            latencies: histogram(),
            faults: 0,
        })
    }

    /// Answers came that took so long.
    pub fn answered(&mut self, latency: u64, count: u64) {
        self.latencies.saturating_record_n(latency, count);
    }

    /// It is `now`: writes the bucket that is over, if one is.
    pub fn turn(&mut self, now: u64, tally: &Tally) {
        let began = now - now % BUCKET;
        if began == self.began {
            return;
        }
        let faults = tally.fault_count();
        if !self.latencies.is_empty() || faults != self.faults {
            let line = json!({
                "type": "bucket",
                "at_ns": self.epoch + self.began,
                "answers": self.latencies.len(),
                "p50_ns": self.latencies.value_at_quantile(0.5),
                "p99_ns": self.latencies.value_at_quantile(0.99),
                "max_ns": self.latencies.max(),
                "faults": faults - self.faults,
            });
            self.out.line(format!("{line}\n"));
            self.latencies.reset();
            self.faults = faults;
        }
        self.began = began;
    }

    /// The run is over at `now`, and this came of it.
    ///
    /// # Errors
    /// What went wrong first with the file, which does not end the run.
    pub fn finish(mut self, now: u64, tally: &Tally, verdict: &str) -> io::Result<()> {
        self.turn(now + BUCKET, tally);
        // Its keys, behind one more.
        let keys = verdict.trim_start_matches('{');
        let last = format!("{{\"type\":\"verdict\",{keys}\n");
        self.out.line(last);
        self.out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn options() -> Options {
        let words = ["-a", "127.0.0.1", "-p", "1", "-R", "100"];
        match crate::cli::parse(words.map(Into::into)) {
            Ok(crate::cli::Request::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn buckets_with_answers_or_faults_are_written_and_empty_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut trace = Trace::create(&path, &options(), 7, 1_000).unwrap();
        let mut tally = Tally::new(None);
        trace.answered(5_000, 3);
        trace.turn(BUCKET / 2, &tally);
        trace.turn(BUCKET * 3, &tally);
        trace.turn(BUCKET * 4, &tally);
        tally.resets = 2;
        trace
            .finish(BUCKET * 5, &tally, "{\"verdict\":\"fail\"}")
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0]["rate"], 100.0);
        assert_eq!(
            (&lines[1]["at_ns"], &lines[1]["answers"]),
            (&1_000.into(), &3.into())
        );
        assert_eq!(lines[1]["faults"], 0);
        assert_eq!(
            (&lines[2]["answers"], &lines[2]["faults"]),
            (&0.into(), &2.into())
        );
        assert_eq!(lines[3]["type"], "verdict");
        assert_eq!(lines[3]["verdict"], "fail");
    }
}
