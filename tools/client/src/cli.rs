//! The command line: parsed once into what can only be valid.
//!
//! Nothing outside the process is touched here. A mistake is one line: what, why, and what
//! to do about it.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser};

pub use commands::{Panel, Picture};

mod commands;

/// The text that `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// Connections that one run may have: what the descriptor limit of Linux (`fs.nr_open`)
/// could allow at its default.
const MAX_CONNECTIONS: usize = 1 << 20;
/// Outstanding messages that `--depth` may allow on one connection.
const MAX_DEPTH: u64 = 1 << 20;
/// Outstanding messages on one connection of an open loop unless `--depth` says otherwise.
/// More than that wait in the client, and their latency counts the waiting.
const OPEN_DEPTH: u64 = 64;
/// Source addresses that `--sources` can make: 127.0.0.1 to 127.0.0.254.
const MAX_SOURCES: u8 = 254;
/// The longest time that a flag may give: a year.
const MAX_SECONDS: f64 = 365.0 * 86_400.0;
/// The largest rate that a flag may give: several times what one process can send and check.
const MAX_RATE: f64 = 1e7;

/// What the user asks for.
#[derive(Debug)]
pub enum Request {
    /// Put load on a server.
    Run(Box<Options>),
    /// Print [`HELP`].
    Help,
    /// Print name and version.
    Version,
    /// Put together what several runs have saved.
    Join {
        /// What `--save` made.
        files: Vec<PathBuf>,
        /// The verdict as one JSON object.
        json: bool,
    },
    /// Draw what runs have traced.
    Plot(Picture),
}

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// At fixed times, whatever the server does: messages a second over all connections
    /// that send, or 10 for each of them.
    Open {
        /// Messages a second over all connections.
        rate: Option<f64>,
    },
    /// The next one as soon as there is room for it in the depth.
    Closed,
}

/// Percentages of the connections that behave specially. The rest is steady.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Silent until the end.
    pub idle: f64,
    /// Pausing inside of messages.
    pub half: f64,
    /// Not reading for a while, again and again.
    pub unread: f64,
}

/// A valid command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The server.
    pub target: SocketAddr,
    /// How many connections, at least 1.
    pub connections: usize,
    /// When messages are sent.
    pub load: Load,
    /// Unanswered messages that a connection may have, at least 1.
    pub depth: u64,
    /// How long to send, from when all connections are up. `None`: until INT or TERM.
    pub duration: Option<Duration>,
    /// Which connections behave specially.
    pub shares: Shares,
    /// Every message in single-byte writes.
    pub split: bool,
    /// Connections to close and open anew, a second.
    pub churn: Option<f64>,
    /// Local addresses to connect from, in turn. Empty: the kernel picks.
    pub sources: Vec<IpAddr>,
    /// Connections to open, a second, at the start.
    pub connect_rate: Option<f64>,
    /// Decides everything that is random. `None`: one is drawn.
    pub seed: Option<u64>,
    /// The longest wait that is no failure.
    pub max_gap: Option<Duration>,
    /// How long to wait for the last answers.
    pub drain_timeout: Duration,
    /// Written when all connections are up.
    pub ready_file: Option<PathBuf>,
    /// Where to write down what is seen, while the run goes on.
    pub trace: Option<PathBuf>,
    /// Where to leave the verdict with all times, for `join`.
    pub save: Option<PathBuf>,
    /// Where to leave the distribution of the latencies.
    pub hgrm: Option<PathBuf>,
    /// The verdict as one JSON object.
    pub json: bool,
    /// Neither complaints nor progress.
    pub quiet: bool,
    /// A line for each connection opened and closed.
    pub verbose: bool,
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// One line that says what is wrong, why, and what to do.
pub fn parse<I>(arguments: I) -> Result<Request, String>
where
    I: IntoIterator<Item = OsString>,
    I::IntoIter: 'static,
{
    let mut parser = Parser::from_args(arguments);
    let mut given = Given::default();
    let is_command = parser.try_raw_args().and_then(|args| {
        let word = args.peek()?.to_str()?;
        ["join", "plot"].into_iter().find(|name| *name == word)
    });
    if let Some(name) = is_command {
        // The word itself, which it was just found to be.
        let _ = parser.value();
        return match name {
            "join" => commands::join(parser),
            _ => commands::plot(parser),
        };
    }
    while let Some(argument) = parser.next().map_err(one_line)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Request::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Request::Version),
            Arg::Short('a') | Arg::Long("address") => {
                given.address = Some(value(&mut parser, "-a/--address", address)?);
            }
            Arg::Short('p') | Arg::Long("port") => {
                given.port = Some(value(&mut parser, "-p/--port", port)?);
            }
            Arg::Short('c') | Arg::Long("connections") => {
                let range = whole(1, MAX_CONNECTIONS as u64);
                given.connections = Some(value(&mut parser, "-c/--connections", range)?);
            }
            Arg::Short('R') | Arg::Long("rate") => {
                given.rate = Some(value(&mut parser, "-R/--rate", rate)?);
            }
            Arg::Short('d') | Arg::Long("duration") => {
                given.duration = Some(value(&mut parser, "-d/--duration", seconds(1.0))?);
            }
            Arg::Short('D') | Arg::Long("depth") => {
                given.depth = Some(value(&mut parser, "-D/--depth", whole(1, MAX_DEPTH))?);
            }
            Arg::Long("closed") => given.closed = true,
            Arg::Long("idle") => given.shares.idle = value(&mut parser, "--idle", percent)?,
            Arg::Long("half") => given.shares.half = value(&mut parser, "--half", percent)?,
            Arg::Long("unread") => given.shares.unread = value(&mut parser, "--unread", percent)?,
            Arg::Long("split") => given.split = true,
            Arg::Long("churn") => given.churn = Some(value(&mut parser, "--churn", rate)?),
            Arg::Long("source") => given.source = value(&mut parser, "--source", addresses)?,
            Arg::Long("sources") => {
                let range = whole(1, u64::from(MAX_SOURCES));
                given.sources = Some(value(&mut parser, "--sources", range)?);
            }
            Arg::Long("connect-rate") => {
                given.connect_rate = Some(value(&mut parser, "--connect-rate", rate)?);
            }
            Arg::Long("seed") => {
                given.seed = Some(value(&mut parser, "--seed", whole(0, u64::MAX))?);
            }
            Arg::Long("max-gap") => {
                given.max_gap = Some(value(&mut parser, "--max-gap", seconds(1e-3))?);
            }
            Arg::Long("drain-timeout") => {
                given.drain_timeout = Some(value(&mut parser, "--drain-timeout", seconds(1.0))?);
            }
            Arg::Long("ready-file") => {
                given.ready_file = Some(file(&mut parser)?);
            }
            Arg::Long("trace") => given.trace = Some(file(&mut parser)?),
            Arg::Long("save") => given.save = Some(file(&mut parser)?),
            Arg::Long("hgrm") => given.hgrm = Some(file(&mut parser)?),
            Arg::Long("json") => given.json = true,
            Arg::Short('q') | Arg::Long("quiet") => given.quiet = true,
            Arg::Short('v') | Arg::Long("verbose") => given.verbose = true,
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(one_line(argument.unexpected()));
            }
        }
    }
    given.check().map(Box::new).map(Request::Run)
}

/// The flags as they were given, each valid by itself.
#[derive(Debug, Default)]
struct Given {
    address: Option<IpAddr>,
    port: Option<u16>,
    connections: Option<u64>,
    rate: Option<f64>,
    duration: Option<Duration>,
    depth: Option<u64>,
    closed: bool,
    shares: Shares,
    split: bool,
    churn: Option<f64>,
    source: Vec<IpAddr>,
    sources: Option<u64>,
    connect_rate: Option<f64>,
    seed: Option<u64>,
    max_gap: Option<Duration>,
    drain_timeout: Option<Duration>,
    ready_file: Option<PathBuf>,
    trace: Option<PathBuf>,
    save: Option<PathBuf>,
    hgrm: Option<PathBuf>,
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Given {
    /// Whether they fit together.
    fn check(self) -> Result<Options, String> {
        let (Some(address), Some(port)) = (self.address, self.port) else {
            return Err("which server? give both -a ADDRESS and -p PORT (see --help)".into());
        };
        if self.closed && self.rate.is_some() {
            return Err(
                "--closed and -R contradict each other: a closed loop has the rate \
                        that the server allows; drop one of them"
                    .into(),
            );
        }
        let Shares { idle, half, unread } = self.shares;
        if idle + half + unread > 100.0 {
            return Err(format!(
                "--idle, --half and --unread are shares of the connections and add up to {}, \
                 more than 100: lower one of them",
                idle + half + unread
            ));
        }
        if self.quiet && self.verbose {
            return Err("-q and -v contradict each other: drop one of them".into());
        }
        Ok(Options {
            sources: self.source_addresses(address)?,
            target: SocketAddr::new(address, port),
            connections: self.connections.unwrap_or(1) as usize,
            load: match self.closed {
                true => Load::Closed,
                false => Load::Open { rate: self.rate },
            },
            depth: self
                .depth
                .unwrap_or(if self.closed { 1 } else { OPEN_DEPTH }),
            duration: self.duration,
            shares: self.shares,
            split: self.split,
            churn: self.churn,
            connect_rate: self.connect_rate,
            seed: self.seed,
            max_gap: self.max_gap,
            drain_timeout: self.drain_timeout.unwrap_or(Duration::from_secs(5)),
            ready_file: self.ready_file,
            trace: self.trace,
            save: self.save,
            hgrm: self.hgrm,
            json: self.json,
            quiet: self.quiet,
            verbose: self.verbose,
        })
    }

    fn source_addresses(&self, target: IpAddr) -> Result<Vec<IpAddr>, String> {
        if !self.source.is_empty() && self.sources.is_some() {
            return Err("--source and --sources both name source addresses: drop one".into());
        }
        if let Some(other) = self
            .source
            .iter()
            .find(|it| it.is_ipv4() != target.is_ipv4())
        {
            return Err(format!(
                "--source {other} cannot reach {target}: one is IPv4, the other IPv6; \
                 give a source of the same family"
            ));
        }
        let Some(count) = self.sources else {
            return Ok(self.source.clone());
        };
        if !(target.is_ipv4() && target.is_loopback()) {
            return Err(format!(
                "--sources spreads over 127.0.0.1, 127.0.0.2 …, from where {target} cannot be \
                 reached: name this machine's addresses with --source A,B"
            ));
        }
        let last = u8::try_from(count).unwrap_or(MAX_SOURCES);
        Ok((1..=last)
            .map(|host| Ipv4Addr::new(127, 0, 0, host).into())
            .collect())
    }
}

/// The file that a flag names.
fn file(parser: &mut Parser) -> Result<PathBuf, String> {
    parser.value().map(PathBuf::from).map_err(one_line)
}

/// Takes the value of `flag` and reads it with `read`, whose error says what it should be.
fn value<T>(
    parser: &mut Parser,
    flag: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, String> {
    let value = parser.value().map_err(one_line)?;
    let text = value.to_string_lossy();
    read(&text).map_err(|wanted| format!("{flag} {text:?} is not {wanted}"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "an IP address: give one like 127.0.0.1 or ::1".into())
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let list: Result<Vec<_>, _> = text.split(',').map(IpAddr::from_str).collect();
    list.map_err(|_| "a list of IP addresses: give them like 127.0.0.1,127.0.0.2".into())
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| "a port: give a number from 1 to 65535".into())
}

fn whole(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let number = text
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("a whole number from {least} to {most}: give one"))
    }
}

fn decimal(text: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|&number: &f64| number.is_finite() && fits(number))
}

fn rate(text: &str) -> Result<f64, String> {
    decimal(text, |rate| (1e-3..=MAX_RATE).contains(&rate))
        .ok_or_else(|| "a rate: give how many a second, from 0.001 to 10 million, or --closed for as many as go".into())
}

fn percent(text: &str) -> Result<f64, String> {
    decimal(text, |share| (0.0..=100.0).contains(&share))
        .ok_or_else(|| "a percentage: give a number from 0 to 100".into())
}

/// Reads a time in units of `unit` seconds.
fn seconds(unit: f64) -> impl Fn(&str) -> Result<Duration, String> {
    let name = if unit < 1.0 {
        "milliseconds"
    } else {
        "seconds"
    };
    move |text| {
        decimal(text, |number| {
            (0.0..=MAX_SECONDS).contains(&(number * unit))
        })
        .map(|number| Duration::from_secs_f64(number * unit))
        .ok_or_else(|| format!("a time: give {name} like 30 or 0.5, at most a year"))
    }
}

fn one_line(error: impl Display) -> String {
    format!("{error} (see --help)").replace('\n', " ")
}

#[cfg(test)]
mod tests;
