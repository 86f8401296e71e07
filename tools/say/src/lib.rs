//! How the tools speak: to readers who may go away (`| head`, a terminal that is closed).
//!
//! `println!` panics then, in the middle of whatever the tool does. Here stdout returns an error
//! that the caller has to look at: what is worth nothing unread ends with it, what moves real
//! processes goes on. stderr returns none: without it the exit code has to do. std ignores
//! SIGPIPE, so that no write ends the process.
//!
//! | | to | an error |
//! |---|---|---|
//! | [`say!`], [`print()`] | stdout | is returned |
//! | [`tell!`] | stderr | is nobody's |
//!
//! Invariants: a line is one write(2), so those of several threads or processes do not mix
//! (up to PIPE_BUF, pipe(7)); nothing is kept back in a buffer; a descriptor that somebody else
//! has made non-blocking (the flag is the open file's, shared with whoever has it) is waited
//! for, as one that blocks.

use std::fmt::Arguments;
use std::io::{self, stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// Writes a line to stdout, as `println!` does; returns `io::Result<()>`.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::line(::std::format_args!($($part)*)) };
}

/// Writes a line to stderr, as `eprintln!` does; where nobody takes it, nothing happens.
#[macro_export]
macro_rules! tell {
    ($($part:tt)*) => { $crate::aside(::std::format_args!($($part)*)) };
}

/// Writes this to stdout, as it is.
///
/// # Errors
/// What write(2) says: `BrokenPipe` if the reader has gone away, `StorageFull` …
pub fn print(text: &str) -> io::Result<()> {
    write_all(stdout().lock().as_fd(), text.as_bytes())
}

/// What [`say!`] does.
///
/// # Errors
/// As for [`print()`].
pub fn line(line: Arguments<'_>) -> io::Result<()> {
    print(&format!("{line}\n"))
}

/// What [`tell!`] does.
pub fn aside(line: Arguments<'_>) {
    let line = format!("{line}\n");
    let _ = write_all(stderr().lock().as_fd(), line.as_bytes());
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // Whatever comes of it, the next write tells.
                let _ = poll(
                    &mut [PollFd::new(to, PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn reader_that_has_gone_away_is_an_error_and_no_panic() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let error = write_all(ours.as_fd(), b"nobody reads this\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn full_pipe_that_does_not_block_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let sent = vec![b'x'; 4 << 20];
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all)
        });
        write_all(ours.as_fd(), &sent).unwrap();
        drop(ours);
        assert!(reading.join().unwrap().unwrap() == sent);
    }
}
