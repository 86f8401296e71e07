//! Beyond one process: many shards with as many connections as each may have, replaced in a
//! rolling sweep.
//!
//! Every connection has talked before, and talks once more after each sweep: an answer that is
//! missing or wrong ends the measurement.

use std::error::Error;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Instant;

use socket_takeover::event;
use takeover_say::{say, tell};
use takeover_sweep::{Outcome, Refused, Shard, Summary, roll, start, stop};

use crate::cli::Options;
use crate::clients::Clients;

/// Successors at a time.
const AT_ONCE: usize = 2;
/// What stays for everything but connections, in every process.
const RESERVE: usize = event::RESERVE + 60;
/// How often all are replaced.
const SWEEPS: usize = 3;

/// Measures and prints.
pub(crate) fn table(options: &Options, open_files: usize) -> Result<(), Box<dyn Error>> {
    let each = options.connections.min(open_files.saturating_sub(RESERVE));
    let folder = tempfile::tempdir()?;
    let service: OsString = match &options.service {
        Some(file) => file.into(),
        None => std::env::current_exe()?
            .with_file_name("socket-takeover")
            .into(),
    };
    let any = ([127, 0, 0, 1], 0).into();
    let shards = start(folder.path(), &service, options.shards, any)
        .map_err(|(name, Refused { why, .. })| format!("{name}: {why}"))?;
    let running = Running(shards);
    let shards = running.0.as_slice();
    let mut clients = Vec::new();
    for shard in shards {
        clients.push(Clients::connect(shard.address()?.port(), each, "talking")?);
    }
    let all = each * shards.len();
    tell!("{all} connections over {} shards are up", shards.len());
    say!(
        "{all} connections over {} shards, {AT_ONCE} successors at a time.\n",
        shards.len()
    )?;
    say!(
        "| sweep | replaced | connections lost | all in, s | freeze of a shard, ms: min | p50 | \
         p99 | max |"
    )?;
    say!("|---|---|---|---|---|---|---|---|")?;
    let at_once = NonZeroUsize::new(AT_ONCE).ok_or("nobody at a time")?;
    for sweep in 1..=SWEEPS {
        let began = Instant::now();
        let outcomes = roll(shards, &service, at_once, |shard, outcome| {
            if let Outcome::Refused(Refused { why, .. }) = outcome {
                tell!("{}: {why}", shard.name());
            }
        });
        let took = began.elapsed().as_secs_f64();
        for clients in &mut clients {
            clients.order("touch 1")?;
            clients.answer()?;
        }
        let summary = Summary::of(&outcomes);
        let replaced = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Moved(_)))
            .count();
        let freeze = |of_a_hundred| {
            summary
                .freeze(of_a_hundred)
                .map_or(0.0, |freeze| freeze.as_secs_f64() * 1e3)
        };
        say!(
            "| {sweep} | {replaced} of {} | 0 of {all} | {took:.2} | {:.3} | {:.3} | {:.3} | {:.3} |",
            shards.len(),
            freeze(0),
            freeze(50),
            freeze(99),
            freeze(100),
        )?;
        if replaced < shards.len() {
            return Err("a shard was not replaced".into());
        }
    }
    drop(clients);
    stop(shards)?;
    Ok(())
}

/// Daemons, which would outlive a measurement that fails.
struct Running(Vec<Shard>);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing else can be done for those that do not stop.
        let _ = stop(&self.0);
    }
}
