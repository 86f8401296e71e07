//! The proofs that kill, stop, starve and lie to real processes, with clients that check every
//! byte.
//!
//! `tools/torture` runs them in full, one by one; `cargo test --test torture` runs a short form
//! of each. Every proof prints its seed, what it did how often, and what came of it, and ends
//! with an error if one client, one byte or one descriptor was other than it should be.
//!
//! | proof | file |
//! |---|---|
//! | original: the C program that this grew from is taken over | `original.rs` |

#[path = "../support/mod.rs"]
mod support;

mod options;
mod original;

use std::process::ExitCode;

use options::Options;

/// One of the things that can be run.
struct Proof {
    name: &'static str,
    /// One line of the help.
    about: &'static str,
    /// Says what went wrong, or panics.
    run: fn(&Options) -> Result<(), String>,
}

const PROOFS: &[Proof] = &[Proof {
    name: "original",
    about: "the original C program, taken over (--times: runs a row; --only ROW, such as half)",
    run: original::run,
}];

fn main() -> ExitCode {
    support::original::play_if_asked();
    let (name, options) = match options::parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(options::Stop::Help) => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Err(options::Stop::Usage(why)) => {
            eprintln!("torture: {why}; see --help");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Proof> = PROOFS
        .iter()
        .filter(|proof| name.as_deref().is_none_or(|name| name == proof.name))
        .collect();
    if let (Some(name), true) = (&name, chosen.is_empty()) {
        eprintln!("torture: there is no proof '{name}'; see --help");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for proof in &chosen {
        println!("== {}: {}", proof.name, proof.about);
        let outcome = std::panic::catch_unwind(|| (proof.run)(&options))
            .unwrap_or_else(|_| Err("it panicked".into()));
        match outcome {
            Ok(()) => println!("== {}: holds", proof.name),
            Err(why) => {
                println!("== {}: FAILED: {why}", proof.name);
                failed += 1;
            }
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn help() -> String {
    let mut text = String::from(options::HELP);
    text.push_str("\nProofs:\n");
    for proof in PROOFS {
        text.push_str(&format!("  {:<10} {}\n", proof.name, proof.about));
    }
    text
}
