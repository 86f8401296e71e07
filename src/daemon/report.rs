//! What each takeover did, appended to a file as one line of JSON each.
//!
//! Generations may share a file. Each line is one write(2) to a file opened with `O_APPEND`, which
//! appends it to all others, and it names the process that wrote it. The file is opened before the
//! fork, when the operator can still be told of a mistake.
//!
//! | FILE is | |
//! |---|---|
//! | a regular file | opened if it is there, otherwise made; it may stall or be full |
//! | a FIFO | opened for reading as well, so that nothing waits for its reader, and its reader may come and go: what it has not read waits in the pipe (fifo(7)) |
//! | a terminal or another device | opened without waiting for a carrier |
//! | a socket, a folder | refused at the start |
//!
//! A line is queued, and a thread writes it; see [`writer`](super::writer). A file that hangs or
//! fails costs lines, which are counted, and a warning.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use socket_takeover::takeover::Report;

use super::writer::{News, Writer};

/// See the file's own description.
#[derive(Debug)]
pub struct ReportFile {
    writer: Writer,
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
    /// Opens the file, or makes it. It stays open for the rest of the process.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> Result<ReportFile, ReportError> {
        let path = path.to_owned();
        match open(&path) {
            Ok(file) => Ok(ReportFile {
                writer: Writer::new(file, None),
                path,
            }),
            Err(why) => Err(ReportError { path, why }),
        }
    }

    /// Appends a line, soon.
    pub fn add(&mut self, outcome: &str, report: &Report) {
        let mut line = report.json(outcome);
        line.push('\n');
        self.writer.push(line.into_bytes());
    }

    /// Whether every line that was added is written, or lost.
    pub fn is_idle(&self) -> bool {
        self.writer.is_idle()
    }

    /// Waits for that, until `end`.
    pub fn flush(&self, end: Instant) {
        self.writer.flush(end);
    }

    /// Lines that were lost since the start.
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }

    /// Logs that the file has begun or ceased to lose lines, if that was not said before.
    pub fn say_news(&mut self) {
        let path = &self.path;
        match self.writer.news() {
            Some(News::Losing(error)) => log::warn!(
                "report file {path:?}: {error}; its lines are lost and counted until it takes \
                 them again"
            ),
            Some(News::Back(lost)) => {
                log::warn!("report file {path:?} takes lines again, {lost} were lost");
            }
            None => {}
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let is_fifo = fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options
        .append(true)
        .read(is_fifo)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    // With O_CREAT an open waits for a frozen file system even if there is nothing to make.
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => options.create(true).open(path),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use nix::sys::stat::Mode;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn two_writers_share_a_file_a_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let mut donor = ReportFile::open(&path).unwrap();
        let mut taker = ReportFile::open(&path).unwrap();
        taker.add("active", &Report::default());
        taker.flush(soon());
        donor.add("released", &Report::default());
        donor.flush(soon());
        let text = fs::read_to_string(&path).unwrap();
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

    #[test]
    fn fifo_without_a_reader_keeps_lines_for_the_one_who_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut report = ReportFile::open(&path).unwrap();
        report.add("active", &Report::default());
        report.flush(soon());
        let mut reader = File::open(&path).unwrap();
        let mut room = [0; 4_096];
        let length = reader.read(&mut room).unwrap();
        assert!(room[..length].ends_with(b"\n"));
        drop(reader);
        report.add("released", &Report::default());
        report.flush(soon());
        assert_eq!(report.lost(), 0, "its reader may go");
    }
}
