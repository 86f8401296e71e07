//! The binary: parse, run, print, exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use takeover_client::cli::{self, Request};
use takeover_client::report::Summary;
use takeover_client::{Failure, join, plot, report, run};
use takeover_say::tell;

fn main() -> ExitCode {
    bear_what_writes_raise();
    // Collected, because the parser may outlive what std lends.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    execute(arguments).unwrap_or_else(|failure| {
        let code = failure.exit_code();
        complain(failure);
        ExitCode::from(code)
    })
}

fn complain(failure: Failure) {
    tell!("takeover-client: {failure}");
}

fn execute(arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    let options = match cli::parse(arguments).map_err(Failure::Usage)? {
        Request::Help => return report::print(cli::HELP).map(|()| ExitCode::SUCCESS),
        Request::Version => {
            let line = concat!("takeover-client ", env!("CARGO_PKG_VERSION"), "\n");
            return report::print(line).map(|()| ExitCode::SUCCESS);
        }
        Request::Plot(picture) => return plot::draw(&picture).map(|()| ExitCode::SUCCESS),
        Request::Join { files, json } => return judge(&join::join(&files)?, json),
        Request::Run(options) => options,
    };
    let (summary, traced) = run::run(&options)?;
    // The verdict first: what it took an hour to measure shall not be lost to a full disk.
    let verdict = judge(&summary, options.json);
    let save = |path| leave("--save", path, join::saved(&summary));
    let hgrm = |path| leave("--hgrm", path, summary.hgrm());
    let failed = [
        traced.err(),
        options.save.as_deref().and_then(save),
        options.hgrm.as_deref().and_then(hgrm),
    ];
    let mut failed = failed.into_iter().flatten().peekable();
    if failed.peek().is_none() {
        return verdict;
    }
    failed.for_each(complain);
    verdict.and(Ok(ExitCode::FAILURE))
}

/// A write beyond the limit of a file's size raises SIGXFSZ, and one to a terminal that we are
/// in the background of SIGTTOU (setrlimit(2), termios(3)). Where they are blocked, the first
/// fails and the second takes place. Every thread inherits that.
fn bear_what_writes_raise() {
    let signals = SigSet::from_iter([Signal::SIGXFSZ, Signal::SIGTTOU]);
    // It fails for an invalid argument alone (pthread_sigmask(3)).
    let _ = signals.thread_block();
}

/// Prints the verdict; the exit code is part of it.
fn judge(summary: &Summary, json: bool) -> Result<ExitCode, Failure> {
    if json {
        report::print(&(summary.json() + "\n"))?;
    } else {
        report::print(&summary.text())?;
    }
    Ok(ExitCode::from(summary.exit_code()))
}

fn leave(flag: &str, path: &Path, text: String) -> Option<Failure> {
    let error = std::fs::write(path, text).err()?;
    let line = format!("{flag} {}: {error}", path.display());
    Some(Failure::Failed(line))
}
