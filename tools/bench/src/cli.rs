//! The command line: parsed once into what can only be valid, before anything is touched.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::servers::Server;

/// What `--help` prints.
pub(crate) const HELP: &str = include_str!("help.txt");

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// The service against the floor.
    Brief,
    All,
    Echo,
    Instructions,
    Dispatch,
    Timers,
    Memory,
    Fairness,
    Freeze,
    Sweep,
    /// Be the first of the floor's pair, with so many connections.
    Cold(PathBuf, usize),
    /// Be a successor in the floor's pair.
    Successor(PathBuf),
    /// Be so many connections to a port, that talk or do not.
    Hold(u16, usize, bool),
    /// Be a server on this port.
    Subject(Server, u16),
    /// Be a process with so many timers of this loop: what memory measures.
    Armed(Server, usize),
    Help,
}

/// How it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The product's binary; none means beside this program.
    pub(crate) service: Option<PathBuf>,
    /// Measurements of each, at least 1.
    pub(crate) pairs: usize,
    /// Length of one measurement, at least a millisecond.
    pub(crate) length: Duration,
    pub(crate) server_cpu: usize,
    pub(crate) load_cpu: usize,
    /// Idle connections, at least 1; of a sweep, those of each shard.
    pub(crate) connections: usize,
    /// Shards of a sweep, at least 1.
    pub(crate) shards: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            service: None,
            pairs: 9,
            length: Duration::from_millis(600),
            server_cpu: 0,
            load_cpu: 1,
            connections: 10_000,
            shards: 8,
        }
    }
}

/// What the arguments, without the program's name, ask for.
///
/// # Errors
/// One line: what is wrong.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Command, Options), lexopt::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = None;
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("service") => options.service = Some(parser.value()?.into()),
            Long("pairs") => options.pairs = at_least_one(&mut parser, "--pairs")?,
            Long("millis") => {
                let millis = at_least_one(&mut parser, "--millis")?;
                options.length = Duration::from_millis(millis as u64);
            }
            Long("connections") => {
                options.connections = at_least_one(&mut parser, "--connections")?;
            }
            Long("shards") => {
                let shards = at_least_one(&mut parser, "--shards")?;
                options.shards = u16::try_from(shards).map_err(|_| "--shards is too large")?;
            }
            Long("cpus") => {
                let value = parser.value()?.string()?;
                let both = value.split_once(',').ok_or("--cpus needs two, as 0,1")?;
                options.server_cpu = number(both.0, "--cpus")?;
                options.load_cpu = number(both.1, "--cpus")?;
            }
            Short('h') | Long("help") => return Ok((Command::Help, options)),
            Value(name) if command.is_none() => {
                command = Some(named(&name.string()?, &mut parser)?);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok((command.unwrap_or(Command::Brief), options))
}

fn named(name: &str, parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    Ok(match name {
        "all" => Command::All,
        "echo" => Command::Echo,
        "instructions" => Command::Instructions,
        "dispatch" => Command::Dispatch,
        "timers" => Command::Timers,
        "memory" => Command::Memory,
        "fairness" => Command::Fairness,
        "freeze" => Command::Freeze,
        "sweep" => Command::Sweep,
        "pair" => {
            let path = parser.value()?.into();
            if parser.raw_args()?.peek().is_none() {
                Command::Successor(path)
            } else {
                Command::Cold(path, at_least_one(parser, "the number of connections")?)
            }
        }
        "hold" => {
            let port = number(&parser.value()?.string()?, "the port")?;
            let count = at_least_one(parser, "the number of connections")?;
            match parser.value()?.string()?.as_str() {
                "talking" => Command::Hold(port, count, true),
                "silent" => Command::Hold(port, count, false),
                other => return Err(format!("{other:?} is neither talking nor silent").into()),
            }
        }
        "subject" => {
            let server = one_of(parser, |server| server != Server::Service)?;
            Command::Subject(server, number(&parser.value()?.string()?, "the port")?)
        }
        "armed" => {
            let server = one_of(parser, Server::has_timers)?;
            Command::Armed(server, at_least_one(parser, "the number of timers")?)
        }
        _ => return Err(format!("there is no command {name:?}, see --help").into()),
    })
}

fn one_of(
    parser: &mut lexopt::Parser,
    fits: impl Fn(Server) -> bool,
) -> Result<Server, lexopt::Error> {
    let name = parser.value()?.string()?;
    let mut able = Server::ALL.into_iter().filter(|&server| fits(server));
    able.find(|server| server.name() == name)
        .ok_or_else(|| format!("{name:?} is none of those that can do this, see --help").into())
}

fn at_least_one(parser: &mut lexopt::Parser, what: &str) -> Result<usize, lexopt::Error> {
    match number(&parser.value()?.string()?, what)? {
        0 => Err(format!("{what} must be at least 1").into()),
        number => Ok(number),
    }
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, lexopt::Error> {
    let wrong = |_| format!("{what}: {text:?} is not a number that it can be");
    Ok(text.parse().map_err(wrong)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<(Command, Options), lexopt::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn no_command_is_the_brief_comparison() {
        let (command, options) = of("--pairs 3 --cpus 2,5").expect("valid");
        assert_eq!(command, Command::Brief);
        assert_eq!(
            (options.pairs, options.server_cpu, options.load_cpu),
            (3, 2, 5)
        );
    }

    #[test]
    fn subject_takes_a_name_and_a_port() {
        let (command, _) = of("subject calloop 4000").expect("valid");
        assert_eq!(command, Command::Subject(Server::Calloop, 4000));
    }

    #[test]
    fn every_command_of_the_help_is_known() {
        for name in [
            "all",
            "echo",
            "dispatch",
            "timers",
            "memory",
            "fairness",
            "freeze",
            "sweep",
            "instructions",
        ] {
            assert!(HELP.contains(&format!("\n  {name}")), "{name}");
            assert!(of(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        for line in [
            "--pairs 0",
            "--millis 0",
            "--millis x",
            "--cpus 1",
            "--cpus 1,x",
            "--connections",
            "nothing",
            "all echo",
            "subject service 0",
            "subject floor",
            "subject floor 65536",
            "armed calloop 10",
            "armed tokio 0",
            "--what",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
