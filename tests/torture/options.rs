//! What a proof can be told. Each proof says in its help which of it means something to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Shown before the list of proofs.
pub(crate) const HELP: &str = "\
Usage: tools/torture [PROOF] [OPTIONS]

Runs a proof in full: real processes that are killed, stopped, starved and lied to in the
middle of a takeover, with clients that check every byte. Without PROOF, all of them. Exit
code: 0 if all of it held, 1 if not, 2 for a wrong call.

  --short       the form that every test run has: minutes become seconds
  --full        the whole of it, which is also what no argument means here
  --times N     how often (a proof has its own default)
  --for TIME    how long, as 90s, 10m or 2h
  --only WORD   only the cases whose name contains WORD
  --seed N      repeats a run with the seed that it printed
  -h, --help    this
";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The form for every test run.
    pub(crate) short: bool,
    /// How often.
    pub(crate) times: Option<usize>,
    /// How long.
    pub(crate) long: Option<Duration>,
    /// Only cases whose name contains this.
    pub(crate) only: Option<String>,
    /// What random choices start from.
    pub(crate) seed: u64,
    /// One case at least was wanted.
    matched: AtomicBool,
}

impl Options {
    /// The form for every test run.
    pub(crate) fn short(seed: u64) -> Options {
        Options {
            short: true,
            seed,
            ..Options::default()
        }
    }

    /// How often: as asked for, or this.
    pub(crate) fn times(&self, short: usize, full: usize) -> usize {
        self.times.unwrap_or(if self.short { short } else { full })
    }

    /// Whether a case of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let wanted = self.only.as_ref().is_none_or(|part| name.contains(part));
        self.matched.fetch_or(wanted, Ordering::Relaxed);
        wanted
    }

    /// The word for which no case was found: such a proof has proved nothing.
    pub(crate) fn unmatched(&self) -> Option<&str> {
        let only = self.only.as_deref()?;
        (!self.matched.load(Ordering::Relaxed)).then_some(only)
    }
}

/// Why nothing is run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Help,
    Usage(String),
}

/// What `tools/torture` says first. Without it `cargo test` has started us.
pub(crate) const RUN: &str = "--run";

/// Whether no test runner passes this on.
pub(crate) fn is_own(word: &str) -> bool {
    ["--short", "--full", "--times", "--seed", "--for", "--only"].contains(&word)
}

/// The proof's name, if one was given, and its options.
pub(crate) fn parse(
    mut args: impl Iterator<Item = String>,
) -> Result<(Option<String>, Options), Stop> {
    let mut options = Options::default();
    let mut name = None;
    let mut seed = None;
    while let Some(arg) = args.next() {
        let mut value = |what: &str| {
            args.next()
                .ok_or_else(|| Stop::Usage(format!("{arg} wants {what}")))
        };
        match arg.as_str() {
            "-h" | "--help" => return Err(Stop::Help),
            "--short" => options.short = true,
            "--full" => options.short = false,
            "--times" => options.times = Some(number(&value("a number")?)? as usize),
            "--seed" => seed = Some(number(&value("a number")?)?),
            "--for" => options.long = Some(duration(&value("a time such as 10m")?)?),
            "--only" => options.only = Some(value("a word")?),
            other if other.starts_with('-') => {
                return Err(Stop::Usage(format!("unknown option '{other}'")));
            }
            other if name.is_none() => name = Some(other.to_owned()),
            other => return Err(Stop::Usage(format!("'{other}' is one proof too many"))),
        }
    }
    options.seed = match seed {
        Some(seed) => {
            show!("SEED={seed}");
            seed
        }
        None => crate::support::seed(),
    };
    Ok((name, options))
}

fn number(text: &str) -> Result<u64, Stop> {
    text.parse()
        .map_err(|_| Stop::Usage(format!("'{text}' is not a number")))
}

fn duration(text: &str) -> Result<Duration, Stop> {
    let wrong = || Stop::Usage(format!("'{text}' is not a time such as 90s, 10m or 2h"));
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => count,
        "m" => count.saturating_mul(60),
        "h" => count.saturating_mul(3600),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(seconds))
}
