//! What an echoed message costs each server, and how many it echoes in a second.
//!
//! The first figure is the server's CPU time a message, not the clock's: a machine that is busy
//! with other things makes a run longer and hardly changes what it costs. What is left of
//! its mood (caches, clock rate) changes within seconds, so that the servers take turns,
//! each as often first, and are compared round by round.

use std::error::Error;
use std::io;

use takeover_say::say;

use crate::cli::Options;
use crate::figures::{ratios, spread};
use crate::load::{self, Measured};
use crate::servers::Server;
use crate::subject::Subject;

/// Connections, and messages in flight on each.
pub(crate) type Load = (usize, usize);
/// Those of the brief comparison.
pub(crate) const BRIEF: [Load; 2] = [(64, 1), (64, 16)];
/// Those of the full one.
pub(crate) const FULL: [Load; 4] = [(1, 1), (64, 1), (1000, 1), (64, 16)];

/// All measurements of one load: of each server, in the order they are given in, one a round.
type Rounds = Vec<Vec<Measured>>;

/// CPU time of the service against the floor's.
pub(crate) fn brief(options: &Options) -> Result<(), Box<dyn Error>> {
    compare(options, &[Server::Floor, Server::Service], &BRIEF).map(drop)
}

/// CPU time and round trips of all servers.
pub(crate) fn full(options: &Options) -> Result<(), Box<dyn Error>> {
    let measured = compare(options, &Server::ALL, &FULL)?;
    say!("\nRound trips a second in thousands, and their ratio likewise.\n")?;
    head(&Server::ALL)?;
    for (load, rounds) in FULL.into_iter().zip(&measured) {
        row(load, rounds, 1, |measured| measured.rate / 1000.0)?;
    }
    Ok(())
}

/// Measures, and prints what it cost as it comes.
fn compare(
    options: &Options,
    servers: &[Server],
    loads: &[Load],
) -> Result<Vec<Rounds>, Box<dyn Error>> {
    let pairs = options.pairs;
    say!("Server CPU time a message in ns, and its ratio in {pairs} pairs; median (min–max).\n")?;
    head(servers)?;
    let mut all = Vec::with_capacity(loads.len());
    let mut is_apart = true;
    for &load in loads {
        let mut rounds: Rounds = vec![Vec::with_capacity(pairs); servers.len()];
        for round in 0..pairs {
            for which in order(servers.len(), round) {
                let subject = Subject::start(servers[which], options)?;
                is_apart &= subject.is_apart;
                let (connections, depth) = load;
                let measured = load::measure(&subject, connections, depth, options.length)?;
                rounds[which].push(measured);
            }
        }
        row(load, &rounds, 0, |measured| measured.cost)?;
        all.push(rounds);
    }
    if !is_apart {
        say!("\nServer and load could not be pinned apart: take the figures with care.")?;
    }
    Ok(all)
}

/// Who goes when in a round: each begins as often, and runs as often forwards as backwards,
/// so that nobody always follows the same one.
pub(crate) fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    let begins = round.div_ceil(2) % count;
    (0..count).map(move |step| match round % 2 {
        0 => (begins + step) % count,
        _ => (begins + count - step) % count,
    })
}

fn head(servers: &[Server]) -> io::Result<()> {
    let (mut names, mut rule) = (String::new(), String::new());
    for server in servers {
        let ratio = match server {
            Server::Floor => "",
            _ => " ratio |",
        };
        names += &format!(" {} |{ratio}", server.name());
        rule += "---|";
        rule += if ratio.is_empty() { "" } else { "---|" };
    }
    say!("| connections × depth |{names}\n|---|{rule}")
}

/// The first server is what the others are divided by.
fn row(
    (connections, depth): Load,
    rounds: &Rounds,
    decimals: usize,
    figure: impl Fn(&Measured) -> f64,
) -> io::Result<()> {
    let mut columns = rounds
        .iter()
        .map(|of_one| of_one.iter().map(&figure).collect::<Vec<f64>>());
    let floor = columns.next().unwrap_or_default();
    let mut line = format!("| {connections} × {depth} | {} |", spread(&floor, decimals));
    for column in columns {
        let ratio = spread(&ratios(&column, &floor), 2);
        line += &format!(" {} | {ratio} |", spread(&column, decimals));
    }
    say!("{line}")
}

#[test]
fn order_of_a_round_has_everybody_once() {
    for round in 0..8 {
        let mut who: Vec<usize> = order(4, round).collect();
        who.sort_unstable();
        assert_eq!(who, [0, 1, 2, 3], "round {round}");
    }
    let first: Vec<usize> = (0..4).filter_map(|round| order(2, round).next()).collect();
    assert_eq!(first, [0, 1, 1, 0]);
}
