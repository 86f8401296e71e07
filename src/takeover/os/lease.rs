//! The lease: an eventfd that both sides hold and that decides who owns.
//!
//! ```text
//!                grant: the donor writes 1           claim or revoke: a read gets the 1
//!   ungranted (0) ─────────────────────▶ granted (1) ─────────────────────▶ decided (0)
//! ```
//!
//! A read of an eventfd takes the whole value and leaves 0, atomically (eventfd(2)). So of a
//! taker's claim and a donor's revoke exactly one gets the 1, whatever the order of messages,
//! delays and deaths. That read is the commit point of a takeover. It needs no memory, no reply and
//! no living other side.
//!
//! Invariants:
//! - There is one lease an attempt, and it is granted at most once.
//! - The descriptor does not block. It is not in semaphore mode, where a read would take 1 of a
//!   larger value and leave the rest for a second winner.
//! - A read that gets anything wins, whatever the value. Only the donor writes, and it writes 1;
//!   but a taker could write as well. A donor that gave up over a strange value would already have
//!   emptied the lease, and nobody would own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

use crate::procfs;

/// The right to own the items of one attempt.
#[derive(Debug)]
pub struct Lease(OwnedFd);

/// The outcome of a claim or a revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// This process owns. The other side can never own any more.
    Won,
    /// The lease is empty: it was not granted, or the other side has read it.
    Lost,
}

impl Lease {
    /// A new lease, ungranted.
    ///
    /// # Errors
    /// Those of eventfd(2), most often `EMFILE`.
    pub fn new() -> io::Result<Lease> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = EventFd::from_value_and_flags(0, flags)?;
        Ok(Lease(eventfd.into()))
    }

    /// The lease behind a received descriptor.
    ///
    /// # Errors
    /// `InvalidData`, with what is wrong, if it is not an eventfd, would block, is a semaphore, or
    /// is granted already. Otherwise an error of reading `/proc/self`.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Lease> {
        let number = fd.as_raw_fd();
        let kind = fs::read_link(format!("/proc/self/fd/{number}")).map_err(procfs::explain)?;
        if kind.as_os_str() != "anon_inode:[eventfd]" {
            return Err(invalid("lease is not an eventfd"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            return Err(invalid("lease is an eventfd that blocks"));
        }
        let info =
            fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(procfs::explain)?;
        // The semaphore line came with Linux 6.5; before it the mode cannot be asked for.
        if field(&info, "eventfd-semaphore:").is_some_and(|mode| mode != "0") {
            return Err(invalid("lease is an eventfd in semaphore mode"));
        }
        if field(&info, "eventfd-count:") != Some("0") {
            return Err(invalid("lease was granted before its time"));
        }
        Ok(Lease(fd))
    }

    /// The donor lets the taker own. From now on only a read decides.
    ///
    /// # Errors
    /// Those of write(2). The lease is then as it was.
    pub fn grant(&self) -> io::Result<()> {
        let grant = GRANTED.to_ne_bytes();
        loop {
            match unistd::write(&self.0, &grant) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(written) if written == grant.len() => return Ok(()),
                // An eventfd takes all of it or nothing. To take this for a grant would mean to
                // take a lease that was never filled for one that the taker has read.
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
    }

    /// The taker tries to become the owner. Call it after everything else has succeeded.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn claim(&self) -> io::Result<Verdict> {
        self.take()
    }

    /// The donor tries to stay the owner, after a grant.
    ///
    /// # Errors
    /// As for [`Lease::claim`].
    pub fn revoke(&self) -> io::Result<Verdict> {
        self.take()
    }

    fn take(&self) -> io::Result<Verdict> {
        let mut value = [0; 8];
        loop {
            return match unistd::read(&self.0, &mut value) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(Verdict::Lost),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(Verdict::Won),
            };
        }
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const GRANTED: u64 = 1;

/// The value after `name` in a fdinfo file (proc_pid_fdinfo(5)).
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
