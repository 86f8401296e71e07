//! Lines to stderr, without ever waiting for its reader.
//!
//! stderr is shared with the shell and with other processes that were started there. So its
//! O_NONBLOCK is not ours to set: the flag belongs to the open file description, and would affect
//! them all (fcntl(2), F_SETFL). What can be done instead depends on what stderr is:
//!
//! | stderr                     | a line is written by                                     |
//! |----------------------------|----------------------------------------------------------|
//! | pipe or terminal           | a description of our own, O_NONBLOCK, by /proc/self/fd   |
//! | socket (systemd's journal) | send with MSG_DONTWAIT, which concerns one call only     |
//! | file                       | a thread: it is always "ready", and its disk may stall.  |
//! |                            | The shared position keeps our lines and those of others  |
//! |                            | apart                                                    |
//! | what cannot be opened anew | a thread                                                 |
//! | until a daemon has left it | poll first, then write; a file as above                  |
//!
//! A line is its text and no more. Terminals, pipe readers and journald all know when it came and
//! from whom, and a transcript stays readable. Warnings and errors say what they are. The journal
//! is told the level in its own way (sd-daemon(3)).

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::time::Instant;

use log::Level;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::sink::{Line, Sink};
use super::writer::Writer;

#[cfg(test)]
mod tests;

/// A stream of lines that has a reader, or has none.
#[derive(Debug)]
pub(super) struct ConsoleSink {
    way: Way,
    /// The journal reads it and understands `<level>` in front of a line.
    journal: bool,
    /// The end of a line of which only the beginning was taken, to go out before the next.
    rest: Vec<u8>,
}

#[derive(Debug)]
enum Way {
    /// A description of our own that does not wait.
    Own(File),
    /// A socket: each call says that it does not wait.
    Socket(OwnedFd),
    /// What cannot be written to without waiting: somebody else waits.
    Aside(Writer),
    /// stderr itself, by its number, asked before each write. No copy of it is left when it is
    /// pointed elsewhere. If another process writes to the same place between the two calls, the
    /// write can still wait; nothing better exists here.
    Stderr,
}

impl ConsoleSink {
    /// stderr as it is now, for the rest of the process.
    pub(super) fn stderr() -> Self {
        match io::stderr().as_fd().try_clone_to_owned() {
            Ok(copy) => Self::on(copy),
            // No descriptor is free: number 2 is there nevertheless.
            Err(_) => Self::until_detached(),
        }
    }

    /// stderr for as long as descriptor 2 leads there. The reader of its other end sees its end
    /// when 2 is pointed elsewhere.
    pub(super) fn until_detached() -> Self {
        let stderr = io::stderr();
        let about = stderr.as_fd().try_clone_to_owned().map(File::from);
        let about = about.and_then(|stderr| stderr.metadata());
        let way = match about.map(|about| about.file_type()) {
            Ok(kind) if kind.is_file() || kind.is_block_device() => {
                Way::Aside(Writer::to(stderr.as_raw_fd(), Some(lost_here)))
            }
            _ => Way::Stderr,
        };
        Self {
            way,
            journal: false,
            rest: Vec::new(),
        }
    }

    /// Any stream, treated as what it is.
    pub(super) fn on(stream: OwnedFd) -> Self {
        let stream = File::from(stream);
        let about = stream.metadata();
        let journal = about.as_ref().is_ok_and(|about| {
            let here = format!("{}:{}", about.dev(), about.ino());
            env::var_os("JOURNAL_STREAM").is_some_and(|journal| journal == here.as_str())
        });
        let kind = about.map(|about| about.file_type());
        let way = match kind {
            Ok(kind) if kind.is_socket() => Way::Socket(stream.into()),
            Ok(kind) if kind.is_fifo() || kind.is_char_device() => match reopened(stream.as_fd()) {
                Ok(own) => Way::Own(own),
                Err(_) => Way::Aside(Writer::new(stream, Some(lost_here))),
            },
            _ => Way::Aside(Writer::new(stream, Some(lost_here))),
        };
        Self {
            way,
            journal,
            rest: Vec::new(),
        }
    }

    /// Lines that were taken, and then lost.
    pub(super) fn lost_behind(&self) -> u64 {
        match &self.way {
            Way::Aside(writer) => writer.lost(),
            Way::Own(_) | Way::Socket(_) | Way::Stderr => 0,
        }
    }

    /// Whether nothing waits in a thread to be written.
    pub(super) fn is_idle(&self) -> bool {
        match &self.way {
            Way::Aside(writer) => writer.is_idle(),
            Way::Own(_) | Way::Socket(_) | Way::Stderr => true,
        }
    }

    /// Waits for that, until `end`.
    pub(super) fn flush(&self, end: Instant) {
        if let Way::Aside(writer) = &self.way {
            writer.flush(end);
        }
    }

    /// Writes what is left of the last line.
    fn finish(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            let taken = self.way.write(&self.rest)?;
            self.rest.drain(..taken);
        }
        Ok(())
    }

    fn rendered(&self, line: &Line<'_>) -> Vec<u8> {
        let mark = match (self.journal, line.level) {
            (true, Level::Error) => "<3>",
            (true, Level::Warn) => "<4>",
            (true, Level::Info) => "<6>",
            (true, Level::Debug | Level::Trace) => "<7>",
            (false, Level::Error) => "error: ",
            (false, Level::Warn) => "warning: ",
            (false, Level::Info | Level::Debug | Level::Trace) => "",
        };
        format!("{mark}{}\n", line.text).into_bytes()
    }
}

impl Sink for ConsoleSink {
    fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.finish()?;
        let bytes = self.rendered(line);
        let taken = self.way.write(&bytes)?;
        // The line is on its way now; what is missing goes ahead of the next one.
        self.rest.extend_from_slice(&bytes[taken..]);
        Ok(())
    }
}

impl Way {
    /// Writes some of `bytes`, at least one, or fails with `WouldBlock` instead of waiting.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match self {
            Self::Own(file) => file.write(bytes)?,
            Self::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(socket.as_raw_fd(), bytes, flags)?
            }
            Self::Aside(writer) => {
                writer.push(bytes.to_vec());
                bytes.len()
            }
            Self::Stderr => write_if_ready(io::stderr().as_fd(), bytes)?,
        };
        match taken {
            0 => Err(io::ErrorKind::WriteZero.into()),
            some => Ok(some),
        }
    }
}

fn lost_here(lines: u64) -> String {
    format!("warning: log lines lost here: {lines}\n")
}

/// The same pipe or terminal once more, with flags of our own (proc_pid_fd(5)).
fn reopened(stream: BorrowedFd<'_>) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", stream.as_raw_fd()))
}

fn write_if_ready(stream: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut wanted = [PollFd::new(stream, PollFlags::POLLOUT)];
    // A stream without a reader is "ready" too: write then says what is the matter.
    if poll(&mut wanted, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(nix::unistd::write(stream, bytes)?)
}
