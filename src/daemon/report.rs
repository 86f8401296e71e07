//! What each takeover did, appended to a file as one line of JSON each.
//!
//! Generations may share a file: each line is one write(2) to a file opened with `O_APPEND`,
//! which puts it behind all others, and names the process that wrote it. The file is opened
//! before the fork, when a mistake can still be told to whoever made it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use socket_takeover::takeover::Report;

/// See the file's own description.
#[derive(Debug)]
pub struct ReportFile {
    file: File,
    path: PathBuf,
}

/// Why there is no file to report to: one line for the operator.
#[derive(Debug)]
pub struct ReportError {
    path: PathBuf,
    why: io::Error,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReportError { path, why } = self;
        write!(
            f,
            "report file {path:?}: {why}; choose a file that we may write"
        )
    }
}

impl ReportFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> Result<ReportFile, ReportError> {
        let path = path.to_owned();
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => Ok(ReportFile { file, path }),
            Err(why) => Err(ReportError { path, why }),
        }
    }

    /// Appends a line. A file that cannot be written costs its line and a warning, nothing
    /// else.
    pub fn add(&mut self, outcome: &str, report: &Report) {
        let mut line = report.json(outcome);
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            log::warn!("report file {:?}: {error}", self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_share_a_file_a_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let mut donor = ReportFile::open(&path).unwrap();
        let mut taker = ReportFile::open(&path).unwrap();
        taker.add("active", &Report::default());
        donor.add("released", &Report::default());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("\"active\"") && lines[1].contains("\"released\""));
    }

    #[test]
    fn file_that_cannot_be_is_named_with_a_remedy() {
        let error = ReportFile::open(Path::new("/no/such/folder/report")).unwrap_err();
        let line = error.to_string();
        assert!(line.contains("/no/such/folder/report") && line.contains("choose"));
    }
}
