//! How long nobody serves during a takeover, and how long the whole of it takes, beside the
//! least that does the same (`freeze/pair.rs`).
//!
//! Two chains of takeovers with as many connections each take turns: one of the floor, one of
//! the service. The first takeover of each is not counted. Every figure is the median with the
//! least and the most, and a ratio is that of one turn.

mod chain;
mod pair;

use std::error::Error;
use std::time::Duration;

use socket_takeover::event::Time;

use crate::cli::Options;
use crate::figures::{median, quantile, ratios, spread};
use chain::{Chain, Stir, Took};
pub(crate) use pair::{cold, successor};

use takeover_say::say;

/// How many connections.
const SIZES: [usize; 4] = [1_000, 5_000, 10_000, 19_000];
/// What stays for everything but connections, in every process.
const RESERVE: usize = 200;
/// What happens to the connections while they are handed over, with most of them.
const STIRRED: [(&str, Stir); 5] = [
    ("silent", Stir::Nothing),
    ("1 % send a message", Stir::Touch(100)),
    ("all send a message", Stir::Touch(1)),
    ("all states change", Stir::Split),
    ("5,000 messages a second", Stir::Rate(5_000)),
];
/// How long answers are looked at without a takeover.
const CALM: Duration = Duration::from_secs(2);

/// Measures and prints.
pub(crate) fn table(options: &Options, open_files: usize) -> Result<(), Box<dyn Error>> {
    let most = open_files.saturating_sub(RESERVE);
    let sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size <= most).collect();
    let largest = *sizes.last().ok_or("the limit of open files is too low")?;
    if largest < SIZES[SIZES.len() - 1] {
        say!("The limit of open files allows {most} connections.\n")?;
    }
    say!(
        "Milliseconds of {} takeovers in turns, silent connections; median (min–max).\n",
        options.pairs
    )?;
    say!(
        "| connections | freeze: floor | service | ratio | floor: pass, validate, register | \
         floor: start to exit | service | ratio | to pass, validate, register |"
    )?;
    say!("|---|---|---|---|---|---|---|---|---|")?;
    let mut freezes = Vec::new();
    for &size in &sizes {
        let mut floor = Chain::floor(size)?;
        let mut service = Chain::service(size, options)?;
        let mut pairs: Vec<(Took, Took)> = Vec::new();
        for _ in 0..=options.pairs {
            pairs.push((
                floor.takeover(Stir::Nothing)?,
                service.takeover(Stir::Nothing)?,
            ));
        }
        freezes.push(row(size, &pairs[1..])?);
    }
    if let [first, .., last] = freezes.as_slice() {
        say!(
            "\nThe service's freeze with {largest} connections is {:.2} of that with {}.",
            last / first,
            sizes[0]
        )?;
    }
    stirred(options, largest)?;
    served(options, largest)
}

/// One size; returns the service's median freeze.
fn row(size: usize, pairs: &[(Took, Took)]) -> Result<f64, Box<dyn Error>> {
    let of = |figure: &dyn Fn(&(Took, Took)) -> Duration| -> Vec<f64> {
        pairs
            .iter()
            .map(|pair| milliseconds(figure(pair)))
            .collect()
    };
    let (floor, service) = (of(&|pair| pair.0.freeze), of(&|pair| pair.1.freeze));
    let passed = of(&|pair| pair.0.passed);
    let (floors_whole, whole) = (of(&|pair| pair.0.whole), of(&|pair| pair.1.whole));
    say!(
        "| {size} | {} | {} | {} | {} | {} | {} | {} | {} |",
        spread(&floor, 3),
        spread(&service, 3),
        spread(&ratios(&service, &floor), 2),
        spread(&passed, 1),
        spread(&floors_whole, 1),
        spread(&whole, 1),
        spread(&ratios(&whole, &floors_whole), 2),
        spread(&ratios(&whole, &passed), 2),
    )?;
    Ok(median(&service))
}

/// What happens to the connections meanwhile, and what that does to the freeze.
fn stirred(options: &Options, size: usize) -> Result<(), Box<dyn Error>> {
    say!(
        "\nThe service with {size} connections, of which these do something once their first \
         copies are out, beside the floor whose connections are silent.\n"
    )?;
    say!(
        "| meanwhile | left for the freeze | freeze | ratio to the silent floor | start to exit |"
    )?;
    say!("|---|---|---|---|---|")?;
    let mut floor = Chain::floor(size)?;
    let mut service = Chain::service(size, options)?;
    for (name, stir) in STIRRED {
        if let Stir::Rate(messages) = stir {
            service.rate(messages)?;
        }
        let (mut floors, mut takeovers) = (Vec::new(), Vec::new());
        for _ in 0..options.pairs {
            floors.push(milliseconds(floor.takeover(Stir::Nothing)?.freeze));
            takeovers.push(service.takeover(stir)?);
        }
        if matches!(stir, Stir::Rate(_)) {
            service.rate(0)?;
        }
        let of =
            |figure: &dyn Fn(&Took) -> f64| -> Vec<f64> { takeovers.iter().map(figure).collect() };
        let freeze = of(&|took| milliseconds(took.freeze));
        say!(
            "| {name} | {} | {} | {} | {} |",
            spread(&of(&|took| took.last as f64), 0),
            spread(&freeze, 3),
            spread(&ratios(&freeze, &floors), 2),
            spread(&of(&|took| milliseconds(took.whole)), 1),
        )?;
    }
    Ok(())
}

/// What the preload costs those who are served meanwhile.
fn served(options: &Options, size: usize) -> Result<(), Box<dyn Error>> {
    let Some((_, Stir::Rate(messages))) = STIRRED.last() else {
        return Ok(());
    };
    let mut service = Chain::service(size, options)?;
    service.rate(*messages)?;
    let (mut calm, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        let from = Time::now();
        std::thread::sleep(CALM);
        calm.extend(service.times((from.as_ns(), Time::now().as_ns()))?);
        let took = service.takeover(Stir::Rate(*messages))?;
        busy.extend(service.times(took.preload)?);
    }
    say!(
        "\nAnswers to {messages} messages a second over {size} connections, in µs from when each \
         was due: without a takeover, and while the successor is told everything.\n"
    )?;
    say!("| | answers | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|")?;
    for (name, times) in [("calm", &calm), ("preload", &busy)] {
        if times.is_empty() {
            return Err("no message was answered".into());
        }
        let at = |of_a_thousand| quantile(times, of_a_thousand) / 1e3;
        say!(
            "| {name} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            times.len(),
            at(500),
            at(990),
            at(999),
            at(1000)
        )?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
