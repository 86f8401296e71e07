//! The service binary: parse, run, exit code.
//!
//! `main` maps [`run`]'s result and nothing else. Where we write to cannot hurt us: the three
//! signals that a write(2) may raise are ignored, SIGPIPE by std before `main`, the others by
//! [`ignore_signals_of_writes`]. What is wrong is then an error of one write. No program is
//! executed from here, so nobody inherits that.

// Nothing in a binary can be reached from outside; `pub` says what a room offers the others.
#![allow(unreachable_pub)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use cli::{Command, Options, Role};
use daemon::daemonize::daemonize;
use daemon::logging::{Console, Logging};
use daemon::pidfile::{PidFile, PidFileError};
use daemon::report::ReportFile;
use nix::sys::signal::Signal;
use socket_takeover::proto::wire::WIRE_VERSION;
use socket_takeover::sys::ignore_signal;

mod cli;
mod daemon;
mod server;

/// Exit code: something failed.
const FAILURE: u8 = 1;
/// Exit code: the command line is wrong.
const USAGE: u8 = 2;
/// Exit code: another process serves on, and a retry is safe (EX_TEMPFAIL of sysexits(3)).
const RETRY: u8 = 75;

fn main() -> ExitCode {
    ignore_signals_of_writes();
    ExitCode::from(run(&env::args_os().skip(1).collect::<Vec<_>>()))
}

/// Beyond a file's size limit (setrlimit(2), RLIMIT_FSIZE) a write raises SIGXFSZ, which ends a
/// process, and fails with EFBIG where that is ignored. To a terminal that we are in the
/// background of it may raise SIGTTOU, which stops a process with all its peers, and just takes
/// place where that is ignored (termios(3), TOSTOP).
fn ignore_signals_of_writes() {
    for signal in [Signal::SIGXFSZ, Signal::SIGTTOU] {
        // It fails for SIGKILL and SIGSTOP alone (signal(2)).
        let _ = ignore_signal(signal);
    }
}

fn run(args: &[OsString]) -> u8 {
    match cli::parse(args) {
        Ok(Command::Run(options)) => start(*options),
        Ok(Command::Help) => print(&cli::help()),
        Ok(Command::Version) => print(&cli::version(WIRE_VERSION, server::STATE_VERSION)),
        Err(usage) => {
            complain(usage);
            USAGE
        }
    }
}

/// Everything around the server, in the order that `daemon` explains.
fn start(options: Options) -> u8 {
    let pid_file = match open_pid_file(&options) {
        Ok(pid_file) => pid_file,
        Err(error) => {
            complain(error);
            return FAILURE;
        }
    };
    let report = match options.report.as_deref().map(ReportFile::open).transpose() {
        Ok(report) => report,
        Err(error) => {
            complain(error);
            let _ = pid_file.map(PidFile::remove);
            return FAILURE;
        }
    };
    let keep_stderr = options.console;
    let readiness = match options.daemon.then(|| daemonize(keep_stderr)).transpose() {
        Ok(readiness) => readiness,
        Err(error) => {
            complain(format_args!("cannot become a daemon: {error}"));
            // It names this process, which ends.
            let _ = pid_file.map(PidFile::remove);
            return FAILURE;
        }
    };
    let console = if options.daemon && !keep_stderr {
        Console::WhileStarting
    } else {
        Console::Always
    };
    let log = Logging::install(options.level, console, options.syslog);
    // Daemonizing has changed the pid.
    if let Some(pid_file) = &pid_file
        && let Err(error) = pid_file.write()
    {
        log::warn!("pid file {:?}: {error}", pid_file.path());
    }
    server::run(options, log, readiness, pid_file, report)
}

/// A taker need not have the lock: it is the donor's until the takeover, and comes with it.
fn open_pid_file(options: &Options) -> Result<Option<PidFile>, PidFileError> {
    let Some(path) = &options.pid_file else {
        return Ok(None);
    };
    match (PidFile::open(path), &options.role) {
        (Err(PidFileError::Held { .. }), Role::TakeOver { .. }) => Ok(None),
        (opened, _) => opened.map(Some),
    }
}

fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("stdout: {error}"));
            FAILURE
        }
    }
}

/// One line for whoever started us, before there is a log. If stderr cannot take it there is
/// still the exit code.
fn complain(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "socket-takeover: {what}");
}
