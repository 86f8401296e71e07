//! The log of the service: one line to each sink, and never a wait.
//!
//! The service has one thread, so a sink that waits stops every peer. A sink that cannot take a
//! line at once loses it. The lost lines are counted, and the count is the first thing that the
//! sink says when it takes lines again.
//!
//! ```text
//!   log::info!(…) → one escaped line → console (stderr)   ┐ each behind a `Counted`,
//!                                    → syslog (/dev/log)  ┘ which never waits
//! ```
//! A console that is a file has a thread that waits for its disk. That thread counts the lines that
//! the disk does not take.
//!
//! Invariants
//! - One record is one line: control characters are escaped, so no peer, path or reason
//!   that is logged can forge a line or steer a terminal.
//! - A sink that fails never ends the service. When syslog comes or goes, the console says
//!   so once.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::Facility;

use super::sink::{Change, Counted, Line};
use super::sink_console::ConsoleSink;
use super::sink_syslog::SyslogSink;

#[cfg(test)]
mod tests;

/// Where a local syslog daemon listens (syslog(3), systemd-journald(8)).
const SYSLOG_SOCKET: &str = "/dev/log";

/// The longest text of a line, in bytes; longer texts are cut. Together with what the sinks put in
/// front, a line stays below PIPE_BUF (4,096), up to which a pipe takes a line whole or not at all
/// (pipe(7)). It also stays below the 8 KiB that syslog daemons take.
const TEXT_BYTES: usize = 2_048;

/// Whether, and how, stderr is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// In the foreground, or as a daemon with `-l`: everything, for ever.
    Always,
    /// As a daemon without `-l`: warnings and errors for the process that started us, until the
    /// start is reported and stderr leads to /dev/null.
    WhileStarting,
}

/// The installed log.
#[derive(Debug)]
pub struct Logging {
    sinks: Mutex<Sinks>,
}

#[derive(Debug)]
struct Sinks {
    console: Counted<ConsoleSink>,
    console_level: LevelFilter,
    /// The console is for the start alone.
    while_starting: bool,
    syslog: Option<Counted<SyslogSink>>,
}

/// Lines that were lost since the start, for each sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Lines that stderr did not take.
    pub console: u64,
    /// Lines that syslog did not take.
    pub syslog: u64,
}

impl Logging {
    /// Opens the log and makes it the one behind the `log` macros, for the rest of the process.
    /// `syslog` is the facility, or `None` to leave syslog alone. Call this after the last fork:
    /// lines carry the process id.
    ///
    /// A syslog that is not there is a warning on the console, and is tried again.
    pub fn install(
        level: LevelFilter,
        console: Console,
        syslog: Option<Facility>,
    ) -> &'static Self {
        let (sink, console_level) = match console {
            Console::Always => (ConsoleSink::stderr(), level),
            Console::WhileStarting => (ConsoleSink::until_detached(), level.min(LevelFilter::Warn)),
        };
        let syslog = syslog.map(|facility| SyslogSink::at(Path::new(SYSLOG_SOCKET), facility));
        let logging = Box::leak(Box::new(Self::new(sink, console_level, syslog)));
        logging.sinks().while_starting = console == Console::WhileStarting;
        // It fails if the process has a logger already. Then that one serves the macros, and
        // what this one is asked to do is still right.
        if log::set_logger(logging).is_ok() {
            log::set_max_level(level);
        }
        logging
    }

    fn new(console: ConsoleSink, console_level: LevelFilter, syslog: Option<SyslogSink>) -> Self {
        Self {
            sinks: Mutex::new(Sinks {
                console: Counted::new(console),
                console_level,
                while_starting: false,
                syslog: syslog.map(Counted::new),
            }),
        }
    }

    /// Connects to syslog anew, as SIGHUP asks for: a syslog daemon may have made its socket
    /// again while the old one is still open somewhere.
    pub fn reopen(&self) {
        if let Some(syslog) = &mut self.sinks().syslog {
            syslog.sink.reopen(Instant::now());
        }
    }

    /// Whether no line waits to be written: a console that is a file has a thread for it.
    pub fn is_idle(&self) -> bool {
        self.sinks().console.sink.is_idle()
    }

    /// Waits until no line waits, or until `end`.
    pub fn flush_until(&self, end: Instant) {
        self.sinks().console.sink.flush(end);
    }

    /// The start is over, it has been reported, and stderr leads elsewhere. A console for [the
    /// start alone](Console::WhileStarting) takes no more lines, and lets go of its file.
    pub fn start_is_over(&self) {
        let mut sinks = self.sinks();
        if sinks.while_starting {
            sinks.console_level = LevelFilter::Off;
            sinks.console.lost += sinks.console.sink.lost_behind();
            sinks.console.sink = ConsoleSink::until_detached();
        }
    }

    /// How many lines were lost since the start.
    pub fn lost(&self) -> Lost {
        let sinks = self.sinks();
        Lost {
            console: sinks.console.lost + sinks.console.sink.lost_behind(),
            syslog: sinks.syslog.as_ref().map_or(0, |syslog| syslog.lost),
        }
    }

    /// A panic while the lock was held leaves at worst half a line behind: go on.
    fn sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // The arguments are somebody else's code and may log themselves: no lock yet.
        let text = escaped(&record.args().to_string());
        let line = Line {
            at: Instant::now(),
            level: record.level(),
            text: &text,
        };
        self.sinks().write(&line);
    }

    fn flush(&self) {}
}

impl Sinks {
    fn write(&mut self, line: &Line<'_>) {
        let change = self.syslog.as_mut().and_then(|syslog| syslog.write(line));
        self.write_console(line);
        if let Some(change) = change {
            let (level, text) = match change {
                Change::Back => (Level::Info, "syslog takes lines again".to_owned()),
                Change::Gone(error) => (
                    Level::Warn,
                    format!(
                        "syslog takes no lines ({error}): they are counted, and it is tried again"
                    ),
                ),
            };
            self.write_console(&Line {
                at: line.at,
                level,
                text: &text,
            });
        }
    }

    fn write_console(&mut self, line: &Line<'_>) {
        if line.level <= self.console_level {
            // There is nobody to tell that the console is gone.
            let _ = self.console.write(line);
        }
    }
}

/// The text as one printable line of at most [`TEXT_BYTES`] bytes.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        let whole = line.len();
        if char.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", char.escape_default());
        } else {
            line.push(char);
        }
        if line.len() > TEXT_BYTES {
            line.truncate(whole);
            line.push('…');
            break;
        }
    }
    line
}
