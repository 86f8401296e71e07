//! The binary: parse, run, print, exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use takeover_client::cli::{self, Request};
use takeover_client::report::Summary;
use takeover_client::{Failure, join, plot, report, run};
use takeover_say::tell;

fn main() -> ExitCode {
    // Collected, because the parser may outlive what std lends.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    execute(arguments).unwrap_or_else(|failure| {
        tell!("takeover-client: {failure}");
        ExitCode::from(failure.exit_code())
    })
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
    let summary = run::run(&options)?;
    if let Some(path) = &options.save {
        leave("--save", path, join::saved(&summary))?;
    }
    if let Some(path) = &options.hgrm {
        leave("--hgrm", path, summary.hgrm())?;
    }
    judge(&summary, options.json)
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

fn leave(flag: &str, path: &Path, text: String) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::Failed(format!("{flag} {}: {error}", path.display())))
}
