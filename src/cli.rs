//! The command line: what the operator may ask for, and one line of refusal for anything else.
//!
//! [`parse`] has no effects. It looks at the arguments, at whether a PATH names a directory, and at
//! the number of an interface that an address names. No socket, file or signal is touched before
//! all arguments are found right. A refusal is one line: what is wrong, why, and what to do.
//!
//! | file | open it for |
//! |---|---|
//! | `cli.rs` | which options go together |
//! | `cli/grammar.rs` | the options, `--help` and `--version` |
//! | `cli/value.rs` | reading one value: an address, a path, a number, a facility, deadlines |
//!
//! Invariants
//! - An [`Options`] can only hold what the service can act on: no half address, no facility for a
//!   syslog that is switched off, no listener settings for a listener that comes from the donor.
//! - No option is silently ignored: an option that would have no effect is refused.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use getopts::Matches;
use log::LevelFilter;
use socket_takeover::event::Acceptor;
use socket_takeover::takeover::Deadlines;
use socket_takeover::takeover::TakeoverPath;
use syslog::Facility;

pub use grammar::{help, version};

mod grammar;
#[cfg(test)]
mod tests;
mod value;

/// How many connections may wait to be accepted if `-b` says nothing. The kernel cuts the figure to
/// net.core.somaxconn, whose default is the same (listen(2)).
pub const DEFAULT_BACKLOG: i32 = Acceptor::BACKLOG;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Serve, with a listener of its own or one that is taken over.
    Run(Box<Options>),
    /// Print [`help`] and leave.
    Help,
    /// Print [`version`] and leave.
    Version,
}

/// Everything that the service lets its operator choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where listener and peers come from.
    pub role: Role,
    /// Leave the terminal once serving has begun.
    pub daemon: bool,
    /// Where to keep the process id.
    pub pid_file: Option<PathBuf>,
    /// The facility to log under, `None` to leave syslog alone.
    pub syslog: Option<Facility>,
    /// Log to stderr as a daemon too; in the foreground that is always so.
    pub console: bool,
    /// The most detailed level that is logged.
    pub level: LevelFilter,
    /// Where to append what each takeover did.
    pub report: Option<PathBuf>,
    /// How long each step of a takeover may last.
    pub deadlines: Deadlines,
    /// Compare each connection's state with its socket when it is handed over.
    pub check_positions: bool,
    /// Take over from a donor in another network namespace too.
    pub any_network: bool,
}

/// Where listener and peers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A cold start: bind a listener, peers will come.
    Serve {
        /// Where to listen; with port 0 the kernel picks one.
        listen: SocketAddr,
        /// Pending connections the kernel may keep, at least 1.
        backlog: i32,
        /// How long a peer may be silent before it is closed, `None` for as long as it likes.
        idle_timeout: Option<Duration>,
        /// Where to offer a takeover, `None` if it shall not be possible.
        path: Option<TakeoverPath>,
    },
    /// A takeover: everything comes from the donor that offers it at `path`, and the next
    /// takeover is offered there.
    TakeOver {
        /// The donor's PATH.
        path: TakeoverPath,
    },
}

/// Why a command line is refused: one printable line that also says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(String);

impl Usage {
    fn new(what: impl fmt::Display, why: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self(format!("{what}: {why}; {remedy}"))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments, without the program's own name.
///
/// # Errors
/// The first thing that is found wrong.
pub fn parse(args: &[OsString]) -> Result<Command, Usage> {
    if let Some(bad) = args.iter().find(|arg| arg.to_str().is_none()) {
        return refuse(
            format!("argument {bad:?}"),
            "is not valid UTF-8",
            "rename the file, or reach it by another path",
        );
    }
    let given = grammar::grammar().parse(args).map_err(grammar::misspelt)?;
    if given.opt_present("help") {
        return Ok(Command::Help);
    }
    if given.opt_present("version") {
        return Ok(Command::Version);
    }
    if let Some(operand) = given.free.first() {
        return refuse(
            format!("operand {operand:?}"),
            "everything is said by options",
            "remove it, or put the option it belongs to in front of it",
        );
    }
    let options = Options {
        role: role(&given)?,
        daemon: given.opt_present("daemon"),
        pid_file: value_of(&given, "pid-file", |text| value::file_path("-P", text))?,
        report: value_of(&given, "report", |text| value::file_path("--report", text))?,
        syslog: syslog(&given)?,
        console: given.opt_present("log-console"),
        level: match given.opt_count("verbose") {
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        },
        deadlines: value::deadlines("--deadline", &given.opt_strs("deadline"))?,
        check_positions: given.opt_present("check-positions"),
        any_network: given.opt_present("any-netns"),
    };
    if options.any_network && !matches!(options.role, Role::TakeOver { .. }) {
        return refuse(
            "--any-netns without -T",
            "only a taker can be in another network namespace than its donor",
            "remove it",
        );
    }
    if options.check_positions && matches!(options.role, Role::Serve { path: None, .. }) {
        return refuse(
            "--check-positions without -t",
            "nothing will be handed over",
            "add -t PATH, or remove it",
        );
    }
    if options.daemon && options.syslog.is_none() && !options.console {
        return refuse(
            "-d with -G",
            "the daemon would log nowhere",
            "remove -G, or add -l and redirect stderr",
        );
    }
    Ok(Command::Run(Box::new(options)))
}

fn role(given: &Matches) -> Result<Role, Usage> {
    if let Some(path) = value_of(given, "takeover", |text| value::takeover_path("-T", text))? {
        refuse_inherited(given)?;
        return Ok(Role::TakeOver { path });
    }
    let address = value_of(given, "listen-address", |text| value::address("-a", text))?;
    let port = value_of(given, "listen-port", |text| {
        value::number("-p", text, 0..=u16::MAX)
    })?;
    let listen = match (address, port) {
        (Some(mut address), Some(port)) => {
            address.set_port(port);
            address
        }
        (Some(_), None) => return refuse("-a without -p", "a listener needs both", "add -p PORT"),
        (None, Some(_)) => {
            return refuse("-p without -a", "a listener needs both", "add -a ADDRESS");
        }
        (None, None) => {
            return refuse(
                "nothing to serve",
                "there is neither a listener nor a donor",
                "give -a ADDRESS and -p PORT to start, or -T PATH to take over",
            );
        }
    };
    let backlog = |text: &str| value::number("-b", text, 1..=i32::MAX);
    Ok(Role::Serve {
        listen,
        backlog: value_of(given, "listen-backlog", backlog)?.unwrap_or(DEFAULT_BACKLOG),
        idle_timeout: value_of(given, "idle-timeout", |text| {
            value::idle_timeout("-i", text)
        })?,
        path: value_of(given, "takeover-path", |text| {
            value::takeover_path("-t", text)
        })?,
    })
}

/// What a taker cannot choose because it comes from the donor.
fn refuse_inherited(given: &Matches) -> Result<(), Usage> {
    for (name, option, why) in [
        ("listen-address", "-a", "the listener comes from the donor"),
        ("listen-port", "-p", "the listener comes from the donor"),
        ("listen-backlog", "-b", "the listener keeps its backlog"),
        ("idle-timeout", "-i", "the donor's idle timeout goes on"),
        (
            "takeover-path",
            "-t",
            "the next takeover is offered at the same PATH",
        ),
    ] {
        if given.opt_present(name) {
            return refuse(format!("{option} with -T"), why, format!("remove {option}"));
        }
    }
    Ok(())
}

fn syslog(given: &Matches) -> Result<Option<Facility>, Usage> {
    let facility = value_of(given, "log-facility", |text| value::facility("-S", text))?;
    match (given.opt_present("no-syslog"), facility) {
        (false, facility) => Ok(Some(facility.unwrap_or(Facility::LOG_DAEMON))),
        (true, None) => Ok(None),
        (true, Some(_)) => refuse(
            "-S with -G",
            "a facility means nothing without syslog",
            "remove one of them",
        ),
    }
}

/// The value of an option that was given, read by `read`.
fn value_of<T>(
    given: &Matches,
    name: &str,
    read: impl FnOnce(&str) -> Result<T, Usage>,
) -> Result<Option<T>, Usage> {
    given.opt_str(name).map(|text| read(&text)).transpose()
}

fn refuse<T>(
    what: impl fmt::Display,
    why: impl fmt::Display,
    remedy: impl fmt::Display,
) -> Result<T, Usage> {
    Err(Usage::new(what, why, remedy))
}
