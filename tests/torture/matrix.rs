//! The kill matrix: every state of both sides, before and behind what it does, and a process
//! that dies, panics, leaves, sleeps or is told to stop there. Real processes, clients that
//! check every byte; what comes of each cell is compared with a table that was written first.
//!
//! | file | |
//! |---|---|
//! | `matrix/table.rs` | the fault table: who owns, both exit codes, what clients notice |
//! | `matrix/cell.rs` | one cell of it |
//! | `matrix/run.rs` | one cell with real processes |
//! | `matrix/words.rs` | the table for `docs/reliability.md` |
//!
//! Cells run side by side, each on a stage of its own: most of their time is waiting for a
//! deadline.

mod cell;
mod run;
mod table;
mod words;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::options::Options;
use crate::support::Random;
use cell::Cell;
use table::Outcome;

/// Cells that run at the same time.
const SIDE_BY_SIDE: usize = 10;
/// A line of progress after so many.
const PROGRESS: usize = 100;

/// What came of all runs so far.
#[derive(Debug, Default)]
struct Figures {
    /// By what came and was expected.
    outcomes: BTreeMap<String, usize>,
    /// By cell and what was not as expected.
    faults: BTreeMap<String, usize>,
    /// Runs that did not meet their state and were repeated.
    missed: usize,
}

/// See the file's own description.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    table::is_complete()?;
    words::are_in_the_docs()?;
    let times = options.times(1, 20);
    let mut cells = Cell::all();
    let of = cells.len();
    cells.retain(|cell| options.wants(&cell.name()));
    let jobs: Vec<&Cell> = (0..times).flat_map(|_| &cells).collect();
    show!(
        "{} of {of} cells, {times} times each; seed {}",
        cells.len(),
        options.seed
    );
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let figures = Mutex::new(Figures::default());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = jobs.get(number) else { break };
                    let seed = Random::new(options.seed.wrapping_add(number as u64)).bits();
                    let came = attempt(cell, seed);
                    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
                    figures.add(cell, came);
                    drop(figures);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(PROGRESS) {
                        show!("{done} of {} in {:.0?}", jobs.len(), began.elapsed());
                    }
                }
            });
        }
    });
    let figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures.tell(jobs.len(), began);
    match figures.faults.len() {
        0 => Ok(()),
        some => Err(format!("{some} cells are not as the table says")),
    }
}

/// A wait that runs out panics.
fn attempt(cell: &Cell, seed: u64) -> Result<(Outcome, usize), String> {
    catch_unwind(|| run::run(cell, seed)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(text.unwrap_or_default())
    })
}

impl Figures {
    fn add(&mut self, cell: &Cell, came: Result<(Outcome, usize), String>) {
        match came {
            Ok((outcome, tries)) => {
                *self.outcomes.entry(words::outcome(outcome)).or_default() += 1;
                self.missed += tries - 1;
            }
            Err(why) => {
                show!("{}: {why}", cell.name());
                *self
                    .faults
                    .entry(format!("{}: {why}", cell.name()))
                    .or_default() += 1;
            }
        }
    }

    fn tell(&self, runs: usize, began: Instant) {
        show!("{runs} runs in {:.0?}:", began.elapsed());
        for (outcome, count) in &self.outcomes {
            show!("{count:>6}  {outcome}");
        }
        if self.missed > 0 {
            show!("{:>6}  runs repeated: the state was not met", self.missed);
        }
        for (fault, count) in &self.faults {
            show!("{count:>6}  NOT AS THE TABLE SAYS: {fault}");
        }
    }
}
