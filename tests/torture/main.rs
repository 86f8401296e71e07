//! The proofs that kill, stop, starve and lie to real processes, with clients that check every
//! byte.
//!
//! `tools/torture` runs them in full, one by one; `cargo test --test torture` runs a short form
//! of each. Every proof prints its seed, what it did how often, and what came of it, and ends
//! with an error if one client, one byte or one descriptor was other than it should be.
//!
//! | proof | file |
//! |---|---|
//! | `matrix` | `matrix.rs`: a fault in each state of both sides, against the fault table |
//! | `syscalls` | `syscalls.rs`: each system call fails once, or is the last one |
//! | `kills` | `kills.rs`: a random SIGKILL of donor, taker or both |
//! | `wire` | `wire.rs`: each record spoilt in every way |
//! | `rejects` | `rejects.rs`: thousands of attempts that come to nothing |
//! | `original` | `original.rs`: the C program that this grew from is taken over |
//! | `soak` | `soak.rs`: takeovers every second for as long as asked |

/// Says what a proof has seen. A proof does not end because its reader has: the exit code tells
/// what came of it.
macro_rules! show {
    ($($part:tt)*) => {{
        let _ = takeover_say::say!($($part)*);
    }};
}

#[path = "../support/mod.rs"]
mod support;

mod kills;
mod matrix;
mod options;
mod original;
mod rejects;
mod soak;
mod syscalls;
mod wire;

use std::process::ExitCode;

use takeover_say::tell;

use options::Options;
use support::harness::Harness;

/// One of the things that can be run.
struct Proof {
    name: &'static str,
    /// One line of the help.
    about: &'static str,
    /// Says what went wrong, or panics.
    run: fn(&Options) -> Result<(), String>,
}

const PROOFS: &[Proof] = &[
    Proof {
        name: "matrix",
        about: "a fault in every state of both sides, compared with the fault table",
        run: matrix::run,
    },
    Proof {
        name: "syscalls",
        about: "every system call of a takeover fails once, or is never made",
        run: syscalls::run,
    },
    Proof {
        name: "kills",
        about: "SIGKILL of donor, taker or both at a random moment (--times, --only donor)",
        run: kills::run,
    },
    Proof {
        name: "wire",
        about: "each record of a takeover spoilt in every way, said to real processes",
        run: wire::run,
    },
    Proof {
        name: "rejects",
        about: "10,000 attempts that come to nothing leave nothing (--times)",
        run: rejects::run,
    },
    Proof {
        name: "original",
        about: "the original C program, taken over (--times: runs a row; --only ROW, such as half)",
        run: original::run,
    },
    Proof {
        name: "soak",
        about: "takeovers every second under load; nothing is lost, nothing grows (--for)",
        run: soak::run,
    },
];

fn main() -> ExitCode {
    support::original::play_if_asked();
    let mut args = std::env::args().skip(1).peekable();
    let is_tool = args.next_if(|word| word == options::RUN).is_some();
    let args: Vec<String> = args.collect();
    if !is_tool && !args.iter().any(|word| options::is_own(word)) {
        return as_test_binary(&Harness::of(args.into_iter()));
    }
    let (name, options) = match options::parse(args.into_iter()) {
        Ok(parsed) => parsed,
        Err(options::Stop::Help) => {
            show!("{}", help().trim_end());
            return ExitCode::SUCCESS;
        }
        Err(options::Stop::Usage(why)) => {
            tell!("torture: {why}; see --help");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Proof> = PROOFS
        .iter()
        .filter(|proof| name.as_deref().is_none_or(|name| name == proof.name))
        .collect();
    if let (Some(name), true) = (&name, chosen.is_empty()) {
        tell!("torture: there is no proof '{name}'; see --help");
        return ExitCode::from(2);
    }
    run(&chosen, &options)
}

/// The short form, for `cargo test`.
fn as_test_binary(harness: &Harness) -> ExitCode {
    let proofs = PROOFS.iter().filter(|proof| harness.wants(proof.name));
    if harness.list {
        proofs.for_each(|proof| show!("{}: test", proof.name));
        return ExitCode::SUCCESS;
    }
    let options = Options::short(support::seed());
    run(&proofs.collect::<Vec<_>>(), &options)
}

fn run(chosen: &[&Proof], options: &Options) -> ExitCode {
    let mut failed = 0;
    for proof in chosen {
        show!("== {}: {}", proof.name, proof.about);
        let outcome = std::panic::catch_unwind(|| (proof.run)(options))
            .unwrap_or_else(|_| Err("it panicked".into()))
            .and_then(|()| match options.unmatched() {
                Some(word) => Err(format!("no case is called like {word:?}")),
                None => Ok(()),
            });
        match outcome {
            Ok(()) => show!("== {}: holds", proof.name),
            Err(why) => {
                show!("== {}: FAILED: {why}", proof.name);
                failed += 1;
            }
        }
    }
    show!("{} passed, {failed} failed", chosen.len() - failed);
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
