//! What is said on stderr while the run goes on.
//!
//! A pipe that nobody reads must not stop the load, so complaints have an end: they fit into
//! a pipe's buffer, and every fault is counted anyway. Nothing here fails: without a stderr
//! the verdict on stdout still tells all.

use std::fmt::Arguments;
use std::io::{IsTerminal, Write, stderr};

/// Complaints written out; the others are only counted. 200 of at most 150 bytes are half of
/// the 64 KiB that a pipe takes (pipe(7)).
const MAX_COMPLAINTS: u32 = 200;
/// Back to the first column, and erase what is there (ECMA-48, EL).
const ERASE_LINE: &str = "\r\x1b[K";

/// The voice of the program.
#[derive(Debug)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    terminal: bool,
    complaints: u32,
    /// Whether the cursor stands behind a progress line.
    progress: bool,
}

impl Console {
    /// A console that says as much as the user wants to hear.
    #[must_use]
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self {
            quiet,
            verbose,
            terminal: stderr().is_terminal(),
            complaints: 0,
            progress: false,
        }
    }

    /// Whether somebody watches the progress.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// Something is wrong with the server.
    pub fn complain(&mut self, complaint: Arguments<'_>) {
        if self.quiet || self.complaints > MAX_COMPLAINTS {
            return;
        }
        self.complaints += 1;
        if self.complaints > MAX_COMPLAINTS {
            self.line(format_args!("further complaints are only counted"));
        } else {
            self.line(complaint);
        }
    }

    /// Something worth knowing, once.
    pub fn tell(&mut self, what: Arguments<'_>) {
        if !self.quiet {
            self.line(what);
        }
    }

    /// Something for those who want to see every connection.
    pub fn note(&mut self, what: Arguments<'_>) {
        if self.verbose {
            self.line(what);
        }
    }

    /// Replaces the progress line.
    pub fn progress(&mut self, line: Arguments<'_>) {
        if self.shows_progress() {
            let _ = write!(stderr(), "{ERASE_LINE}{line}");
            self.progress = true;
        }
    }

    /// Removes the progress line.
    pub fn clear_progress(&mut self) {
        if std::mem::take(&mut self.progress) {
            let _ = write!(stderr(), "{ERASE_LINE}");
        }
    }

    fn line(&mut self, line: Arguments<'_>) {
        self.clear_progress();
        let _ = writeln!(stderr(), "{line}");
    }
}
