//! `takeover-sweep`: see `help.txt`.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;
use std::{io, thread};

use lexopt::prelude::*;
use takeover_say::{print, say, tell};
use takeover_sweep::{Outcome, Refused, Shard, Summary, find, roll, start, stop};

const USAGE: u8 = 2;
const REFUSED: u8 = 75;

/// What was asked for.
enum Command {
    Start { count: u16, first: SocketAddr },
    Roll { at_once: NonZeroUsize },
    Status,
    Stop,
}

struct Options {
    folder: PathBuf,
    service: OsString,
}

fn main() -> ExitCode {
    let (command, options) = match parse() {
        Ok(Some(asked)) => asked,
        Ok(None) => return ended(print(include_str!("help.txt")).map_err(unread)),
        Err(error) => {
            tell!("takeover-sweep: {error}; see --help");
            return ExitCode::from(USAGE);
        }
    };
    match run(&command, &options) {
        Ok(code) => code,
        Err(what) => ended(Err(what)),
    }
}

fn ended(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            tell!("takeover-sweep: {what}");
            ExitCode::FAILURE
        }
    }
}

/// An answer that nobody got is none.
fn unread(error: io::Error) -> String {
    format!("stdout: {error}")
}

/// What was done is done, whether or not anybody reads it: the exit code tells.
fn done(heard: io::Result<()>) {
    if let Err(error) = heard {
        tell!("takeover-sweep: stdout: {error}");
    }
}

fn parse() -> Result<Option<(Command, Options)>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let (mut name, mut folder, mut service) = (None, None, None);
    let (mut shards, mut port, mut at_once) = (None, None, None);
    let mut address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("shards") => shards = Some(parser.value()?.parse::<u16>()?),
            Long("port") => port = Some(parser.value()?.parse::<u16>()?),
            Long("address") => address = parser.value()?.parse()?,
            Long("at-once") => at_once = Some(parser.value()?.parse()?),
            Long("service") => service = Some(parser.value()?),
            Value(word) if name.is_none() => name = Some(word.string()?),
            Value(word) if folder.is_none() => folder = Some(PathBuf::from(word)),
            other => return Err(other.unexpected()),
        }
    }
    let name = name.ok_or("say what to do: start, roll, status or stop")?;
    let folder = folder.ok_or("say which FOLDER the instances are in")?;
    let command = match name.as_str() {
        "start" => {
            let count = shards.filter(|count| *count > 0);
            let count = count.ok_or("start needs --shards N, at least 1")?;
            let port = port.unwrap_or(0);
            if port.checked_add(count - 1).is_none() {
                return Err("the last port would be above 65535".into());
            }
            let first = SocketAddr::new(address, port);
            Command::Start { count, first }
        }
        "roll" => {
            let few = const { NonZeroUsize::new(2).expect("it is 2") };
            let at_once = at_once.unwrap_or(few);
            Command::Roll { at_once }
        }
        "status" => Command::Status,
        "stop" => Command::Stop,
        other => return Err(format!("there is nothing called {other:?}").into()),
    };
    let service = match service {
        Some(service) => service,
        None => std::env::current_exe()
            .map_err(|error| error.to_string())?
            .with_file_name("socket-takeover")
            .into(),
    };
    Ok(Some((command, Options { folder, service })))
}

fn run(command: &Command, options: &Options) -> Result<ExitCode, String> {
    let Options { folder, service } = options;
    if let Command::Start { count, first } = command {
        let started = start(folder, service, *count, *first);
        let shards = started.map_err(|(name, Refused { why, .. })| format!("{name}: {why}"))?;
        done(say!("{} instances serve:", shards.len()).and_then(|()| status(&shards)));
        return Ok(ExitCode::SUCCESS);
    }
    let shards = find(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if shards.is_empty() {
        return Err(format!(
            "no instance is in {}; `start` makes them",
            folder.display()
        ));
    }
    match command {
        Command::Roll { at_once } => {
            let began = Instant::now();
            let (outcomes, heard) = roll_and_tell(&shards, service, *at_once);
            let took = began.elapsed().as_secs_f64();
            let summary = Summary::of(&outcomes);
            // That nobody listens any more was told when it happened.
            let _ = heard.and_then(|()| say!("{summary}; all in {took:.3} s"));
            return Ok(code(&outcomes));
        }
        Command::Status => status(&shards).map_err(unread)?,
        Command::Stop => {
            let unserved = stop(&shards).map_err(|error| error.to_string())?;
            let lines = unserved
                .iter()
                .try_for_each(|(shard, why)| say!("{}  {why}", shard.name()));
            let stopped = shards.len() - unserved.len();
            done(lines.and_then(|()| say!("{stopped} instances have stopped")));
        }
        Command::Start { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Who serves where.
fn status(shards: &[Shard]) -> io::Result<()> {
    shards.iter().try_for_each(|shard| {
        let name = shard.name();
        match (shard.owner(), shard.address()) {
            (Ok(owner), Ok(address)) => say!("{name}  pid {}  {address}", owner.pid()),
            (Ok(owner), Err(error)) => {
                let (pid, log) = (owner.pid(), shard.file("log"));
                say!("{name}  pid {pid}  (not where: {}: {error})", log.display())
            }
            (Err(why), _) => say!("{name}  {why}"),
        }
    })
}

/// Replaces them all, whatever becomes of the lines that tell of it: a thread of their own
/// writes them, so that neither a reader who has left nor one who pauses holds up the roll in
/// the middle.
fn roll_and_tell(
    shards: &[Shard],
    service: &OsStr,
    at_once: NonZeroUsize,
) -> (Vec<Outcome>, io::Result<()>) {
    thread::scope(|scope| {
        let (lines, told) = channel();
        let speaker = scope.spawn(move || speak(&told));
        let outcomes = roll(shards, service, at_once, move |shard, outcome| {
            // Nobody takes it once the reader has left.
            let _ = lines.send(line(shard, outcome));
        });
        (outcomes, speaker.join().expect("it does not panic"))
    })
}

fn speak(lines: &Receiver<String>) -> io::Result<()> {
    lines.iter().try_for_each(|line| {
        say!("{line}").inspect_err(|error| {
            tell!("takeover-sweep: stdout: {error}; the roll goes on, its exit code tells all");
        })
    })
}

fn line(shard: &Shard, outcome: &Outcome) -> String {
    let name = shard.name();
    match outcome {
        Outcome::Moved(moved) => format!(
            "{name}  generation {}  {} items  freeze {:.3} ms  all in {:.1} ms",
            moved.generation,
            moved.items,
            moved.freeze.as_secs_f64() * 1e3,
            moved.whole.as_secs_f64() * 1e3,
        ),
        Outcome::Refused(Refused { why, .. }) => format!("{name}  not replaced: {why}"),
        Outcome::NotTried => format!("{name}  not tried"),
    }
}

fn code(outcomes: &[Outcome]) -> ExitCode {
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Refused(refused) => Some(refused),
            _ => None,
        })
        .collect();
    match refused.as_slice() {
        [] => ExitCode::SUCCESS,
        all if all.iter().all(|one| one.is_safe()) => ExitCode::from(REFUSED),
        _ => ExitCode::FAILURE,
    }
}
