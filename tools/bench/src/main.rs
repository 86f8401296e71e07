//! What one message costs the service, against the least that an echo server can do.
//!
//! The figure is the server's CPU time a message, not the clock's: a machine that is busy
//! with other things makes a run longer and hardly changes what it costs. What is left of
//! its mood (caches, clock rate) changes within seconds, so that the two servers take turns,
//! either as often first, and are compared pair by pair.

mod floor;
mod load;
mod subject;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use lexopt::prelude::*;
use subject::Subject;

const HELP: &str = "\
What a message costs the service, against a minimal epoll echo server; prints Markdown.

  cargo build --release && cargo run --release -p takeover-bench

  --service FILE   the service's binary (default: socket-takeover beside this program)
  --pairs N        measurements of each server and load (default 9)
  --millis N       length of one measurement (default 600)
  --cpus S,L       CPUs that server and load are pinned to (default 0,1)
  -h, --help       this text

Where the two cannot be pinned apart the figures say less, and a line says so.
";

/// Connections, and messages in flight on each.
const LOADS: [(usize, usize); 2] = [(64, 1), (64, 16)];

/// What is measured, and how.
struct Options {
    service: PathBuf,
    pairs: usize,
    length: Duration,
    server_cpu: usize,
    load_cpu: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut options = Options {
        service: std::env::current_exe()?.with_file_name("socket-takeover"),
        pairs: 9,
        length: Duration::from_millis(600),
        server_cpu: 0,
        load_cpu: 1,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("service") => options.service = parser.value()?.into(),
            Long("pairs") => options.pairs = parser.value()?.parse()?,
            Long("millis") => options.length = Duration::from_millis(parser.value()?.parse()?),
            Long("cpus") => {
                let value = parser.value()?.string()?;
                let (server, load) = value.split_once(',').ok_or("--cpus needs two, as 0,1")?;
                (options.server_cpu, options.load_cpu) = (server.parse()?, load.parse()?);
            }
            Long("be-the-floor") => return Ok(floor::serve()?),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if options.pairs == 0 {
        return Err("--pairs must be at least 1".into());
    }
    measure(&options)
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let pairs = options.pairs;
    println!(
        "Server CPU time a message in ns, and its ratio in {pairs} pairs; median (min–max).\n"
    );
    println!("| connections × depth | floor | service | ratio |\n|---|---|---|---|");
    let mut floor = Command::new(std::env::current_exe()?);
    floor.arg("--be-the-floor");
    let mut service = Command::new(&options.service);
    service.args(["-a", "127.0.0.1", "-p", "0", "--no-syslog"]);
    let mut servers = [floor, service];

    let mut apart = options.server_cpu != options.load_cpu;
    for (connections, depth) in LOADS {
        let mut costs = [Vec::new(), Vec::new()];
        for turn in 0..2 * pairs {
            // floor, service, service, floor, floor, …: either is as often the first.
            let server = (turn + turn / 2) % 2;
            apart &= subject::pin(options.server_cpu);
            let subject = Subject::start(&mut servers[server])?;
            apart &= subject::pin(options.load_cpu);
            costs[server].push(load::cost(&subject, connections, depth, options.length)?);
        }
        let [floor, service] = costs;
        let ratios: Vec<f64> = service.iter().zip(&floor).map(|(s, f)| s / f).collect();
        let (floor, service, ratio) = (spread(floor, 0), spread(service, 0), spread(ratios, 2));
        println!("| {connections} × {depth} | {floor} | {service} | {ratio} |");
    }
    if !apart {
        println!("\nServer and load could not be pinned apart: take the figures with care.");
    }
    Ok(())
}

/// Median, least and most, with so many decimals.
fn spread(mut values: Vec<f64>, decimals: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    format!("{middle:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

#[test]
fn spread_of_odd_and_even_counts() {
    assert_eq!(spread(vec![3.0, 1.0, 2.0], 0), "2 (1–3)");
    assert_eq!(spread(vec![1.0, 2.0], 1), "1.5 (1.0–2.0)");
}
