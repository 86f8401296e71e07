//! How lines are put into a file that may fail in the midst of one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Entry, Note};

/// What the thread knows of the file.
#[derive(Debug)]
pub(super) struct Pen {
    note: Option<Note>,
    /// Lost, and not noted in the file yet.
    unnoted: u64,
    /// The file ends within a line.
    torn: bool,
}

impl Pen {
    pub(super) fn new(note: Option<Note>) -> Pen {
        Pen {
            note,
            unnoted: 0,
            torn: false,
        }
    }

    /// Writes a line; what is missing before it is noted first.
    ///
    /// # Errors
    /// Those of write(2); the line is lost then, or what is left of it.
    pub(super) fn write(&mut self, to: &mut impl Write, entry: &Entry) -> io::Result<()> {
        self.unnoted += entry.gap;
        let written = self.catch_up(to).and_then(|()| self.whole(to, &entry.line));
        if written.is_err() {
            self.unnoted += 1;
        }
        written
    }

    fn catch_up(&mut self, to: &mut impl Write) -> io::Result<()> {
        if let Some(note) = self.note.filter(|_| self.unnoted > 0) {
            self.whole(to, note(self.unnoted).as_bytes())?;
            self.unnoted = 0;
        }
        Ok(())
    }

    /// One write(2) a line, unless less of it is taken: others append to the same file.
    fn whole(&mut self, to: &mut impl Write, line: &[u8]) -> io::Result<()> {
        let joined;
        let mut left = line;
        if self.torn {
            joined = [b"\n", line].concat();
            left = &joined;
        }
        while !left.is_empty() {
            match to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    left = &left[taken..];
                    self.torn = !left.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file that is waited for even if its description does not wait.
pub(super) struct Waiting<'a>(pub(super) &'a File);

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut wanted = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut wanted, PollTimeout::NONE)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
