//! Random SIGKILL of the donor, of the taker, or of both, while clients check every byte.
//!
//! ```text
//!   spawn of the taker                                      exit of the donor
//!   ├─ connect ─┬─ preload ────────────┬ freeze ┬─ ACTIVE ──┤           measured first
//!   └───────────┴──────────── a moment, uniform over 1.2 of it ──────────────┘  SIGKILL
//! ```
//!
//! Each run is a service of its own; `kills/one.rs` plays and judges it, `kills/outcome.rs` says
//! where it hit. What must come of it, whenever that is:
//!
//! | killed | who serves then | its clients |
//! |---|---|---|
//! | taker, before its claim | the donor | all fine |
//! | taker, after its claim | nobody, or the donor with none but new clients | all lost |
//! | donor, before the taker could claim | nobody; the taker leaves | all lost |
//! | donor, later | the taker | all fine |
//! | both | nobody, until a cold start at the same port and PATH | all lost |
//!
//! Never some of them, and never a wrong byte. A seed repeats the moments, as shares of a
//! whole takeover; what a process does at a moment is the kernel's.

mod one;
mod outcome;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::support::Random;
use outcome::{Outcome, Owner, Phase};

/// Services that are tried at the same time: most of the time each waits for something.
const STAGES: usize = 3;
/// Whole takeovers that each of them measures first.
const MEASURED: usize = 8;
/// Moments are drawn from this share of a whole takeover, in millionths.
const MOMENTS: u64 = 1_200_000;
/// Each so-manieth run ends with one more takeover, or a cold start where nobody is left.
const FURTHER: usize = 5;
/// A line of progress after so many runs.
const PROGRESS: usize = 500;
/// Most failed runs that are told in full.
const SHOWN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Donor,
    Taker,
    Both,
}

impl Victim {
    const ALL: [Victim; 3] = [Victim::Donor, Victim::Taker, Victim::Both];

    fn name(self) -> &'static str {
        match self {
            Victim::Donor => "donor",
            Victim::Taker => "taker",
            Victim::Both => "both",
        }
    }
}

/// One run, as its seed decides it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    number: usize,
    seed: u64,
    victim: Victim,
    /// When each is killed, as a share of a whole takeover; only a victim's counts.
    donor: f64,
    taker: f64,
    /// Whether one more takeover follows.
    further: bool,
}

impl Plan {
    fn draw(options: &Options, number: usize) -> Plan {
        let mut random = Random::new(options.seed ^ Random::new(number as u64).bits());
        let mut share = || random.within(0..MOMENTS) as f64 / 1e6;
        Plan {
            number,
            victim: Victim::ALL[number % Victim::ALL.len()],
            donor: share(),
            taker: share(),
            seed: random.bits(),
            further: options.short || number.is_multiple_of(FURTHER),
        }
    }
}

/// What came of runs that are alike.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    runs: u64,
    fine: u64,
    lost: u64,
}

/// What has come of all runs so far.
#[derive(Debug, Default)]
struct Tally {
    rows: BTreeMap<(Victim, Phase, Owner), Row>,
    done: usize,
    failed: usize,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let runs = Victim::ALL.len() * options.times(20, 1000);
    let plans: Vec<Plan> = (0..runs)
        .map(|number| Plan::draw(options, number))
        .filter(|plan| options.wants(plan.victim.name()))
        .collect();
    let whole = measure(options.seed);
    show!(
        "a whole takeover takes {:.2} ms; {} runs, each kill at a moment within {:.2} ms",
        millis(whole),
        plans.len(),
        millis(whole) * MOMENTS as f64 / 1e6,
    );

    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    on_each_stage(|_| {
        while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = one::play(plan, whole);
            let mut tally = tally.lock().expect("nobody panics with it");
            tally.add(plan, outcome);
            if tally.done.is_multiple_of(PROGRESS) {
                show!("{} runs, {:.0?}", tally.done, begun.elapsed());
            }
        }
    });
    let tally = tally.into_inner().expect("nobody panics with it");
    tally.show();
    show!(
        "{} runs in {:.0?}; in {} no client noticed, and the owner's counters name each \
         connection and message once",
        tally.done,
        begun.elapsed(),
        tally.survivors(),
    );
    match tally.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} runs", tally.done)),
    }
}

impl Tally {
    fn add(&mut self, plan: &Plan, outcome: Result<Outcome, String>) {
        self.done += 1;
        match outcome {
            Ok(outcome) => {
                let key = (plan.victim, outcome.phase, outcome.owner);
                let row = self.rows.entry(key).or_default();
                row.runs += 1;
                row.fine += outcome.fine;
                row.lost += outcome.lost;
            }
            Err(why) => {
                self.failed += 1;
                if self.failed <= SHOWN {
                    show!("run {}, {:?} killed: {why}", plan.number, plan.victim);
                }
            }
        }
    }

    /// Runs that the owner of the clients survived.
    fn survivors(&self) -> u64 {
        let lives = |owner: &Owner| matches!(owner, Owner::Donor | Owner::Taker);
        let rows = self.rows.iter().filter(|((_, _, owner), _)| lives(owner));
        rows.map(|(_, row)| row.runs).sum()
    }

    fn show(&self) {
        show!(
            "{:<7} {:<16} {:<15} {:>6} {:>13} {:>13}",
            "killed",
            "where",
            "serves then",
            "runs",
            "clients fine",
            "clients lost"
        );
        for ((victim, phase, owner), row) in &self.rows {
            show!(
                "{:<7} {:<16} {:<15} {:>6} {:>13} {:>13}",
                victim.name(),
                phase.name(),
                owner.name(),
                row.runs,
                row.fine,
                row.lost
            );
        }
    }
}

/// How long a whole takeover takes: the median, under the load that the runs have.
fn measure(seed: u64) -> Duration {
    let all = Mutex::new(Vec::new());
    on_each_stage(|stage| {
        for _ in 0..MEASURED {
            let took = one::measure(stage, seed ^ stage as u64);
            all.lock().expect("nobody panics with it").push(took);
        }
    });
    let mut all = all.into_inner().expect("nobody panics with it");
    all.sort_unstable();
    all[all.len() / 2]
}

/// Does the same on each of [`STAGES`] threads.
fn on_each_stage(work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for stage in 0..STAGES {
            let work = &work;
            scope.spawn(move || work(stage));
        }
    });
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
