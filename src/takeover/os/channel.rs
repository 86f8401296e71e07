//! The channel: a connected AF_UNIX SOCK_SEQPACKET socket between donor and taker.
//!
//! The kernel keeps the boundaries of records, sends each one wholly or not at all, and delivers
//! what is queued even after its sender has died. To the channel a record is opaque: bytes, and the
//! descriptors that go with them.
//!
//! ```text
//!            ECONNRESET: read on                     0
//!   Open ───────────────────────▶ Reset ───────────────────────▶ End
//!     │                                                           ▲
//!     └──────────────────────────── 0 ────────────────────────────┘
//! ```
//!
//! Invariants:
//! - *Reset is not the end.* If the other side closes, or dies, before it has read all our records,
//!   the next receive says ECONNRESET, although the other side's own last records are still queued
//!   (`net/unix/af_unix.c`, `unix_release_sock`). So the error is remembered, and reading goes on
//!   until 0. A failed send decides nothing either, until everything was read.
//! - *A damaged record has no descriptors*: they were closed before the caller hears of it.
//! - *No call blocks.* The channel neither peeks nor calls read(2). A peek installs a copy of the
//!   descriptors each time, and read(2) closes them without a sign.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt,
};

use super::scm::{self, SCM_MAX_FD};
use crate::proto::wire::MAX_FDS;
use crate::takeover::core::preload::BATCH;

// A record carries all descriptors of a batch, and one message carries a record.
const _: () = assert!(BATCH <= MAX_FDS && MAX_FDS <= SCM_MAX_FD);

/// Bytes of send buffer: twice a record of full length. A record that is longer than the buffer is
/// never sent (unix(7), EMSGSIZE), and `net.core.wmem_default` can be anything from 4,608 on.
const ROOM: usize = 128 * 1024;

/// One end of a connection between donor and taker.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// ECONNRESET was seen.
    reset: bool,
}

/// What became of a record that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It is in the kernel, whole. The other side gets it even if this process dies now.
    Done,
    /// The queue is full; retry when the channel is writable.
    Blocked,
    /// The kernel is short of something: this user has too many descriptors in flight (unix(7),
    /// ETOOMANYREFS), or memory is short. No readiness tells when to retry; use a timer.
    NoBuffers,
}

/// What came out of the channel.
#[derive(Debug)]
#[must_use]
pub enum Got {
    /// A record of this many bytes.
    Record(usize),
    /// Nothing for now; wait until the channel is readable.
    Empty,
    /// The other side has closed its end, and everything that it sent was read. It is not
    /// necessarily dead.
    End,
    /// A record that cannot be used, or a channel that cannot be read. All descriptors of
    /// the record are closed.
    Broken(Fault),
}

/// Why a record was thrown away.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It was longer than the buffer.
    TooLong,
    /// Some of its descriptors did not arrive: RLIMIT_NOFILE, or a security module.
    FdsLost,
    /// It had descriptors but no bytes.
    NoBytes,
    /// It had a control message that nobody asked for.
    ForeignControl,
    /// It is not the record that was to come, and why. Found by those who number the records.
    Unexpected(String),
    /// recvmsg(2) failed. To try on at once would go on for ever.
    Os(io::Error),
}

impl Channel {
    /// Takes over a connected SOCK_SEQPACKET socket.
    pub(super) fn new(socket: OwnedFd) -> Self {
        make_room(&socket);
        Channel {
            socket,
            reset: false,
        }
    }

    /// Two channels that are each other's other side.
    ///
    /// # Errors
    /// Those of socketpair(2), most often `EMFILE`.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        Ok((Channel::new(one), Channel::new(other)))
    }

    /// Sends one record, whole or not at all. The descriptors stay open here as well.
    ///
    /// `InvalidInput` for an empty record, which would look like the end of the channel, and for
    /// more than [`MAX_FDS`] descriptors. `EPIPE` or `ECONNRESET` if the other side has closed;
    /// what it sent before can still be received. `EMSGSIZE` for a record that is longer than the
    /// send buffer. `EPERM` if the other side takes no descriptors.
    pub fn send(&self, record: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Sent> {
        if record.is_empty() || fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            let Err(error) = scm::send(self.as_fd(), record, fds) else {
                return Ok(Sent::Done);
            };
            return match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => Ok(Sent::Blocked),
                Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM) => Ok(Sent::NoBuffers),
                _ => Err(error),
            };
        }
    }

    /// Receives one record into `buffer`. Afterwards `fds` holds the descriptors of this record and
    /// nothing else. What `fds` held before is closed.
    pub fn recv(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Got {
        fds.clear();
        let received = loop {
            match scm::recv(self.as_fd(), buffer, fds) {
                Ok(received) => break received,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => return Got::Empty,
                    // The kernel reports it once; a second one is not this socket's.
                    Some(libc::ECONNRESET) if !self.reset => self.reset = true,
                    _ => return Got::Broken(Fault::Os(error)),
                },
            }
        };
        let fault = match received.len {
            _ if received.fds_lost => Fault::FdsLost,
            _ if received.foreign_cmsg => Fault::ForeignControl,
            _ if received.truncated => Fault::TooLong,
            0 if !fds.is_empty() => Fault::NoBytes,
            0 => return Got::End,
            len => return Got::Record(len),
        };
        fds.clear();
        Got::Broken(fault)
    }

    /// Whether the other side has gone away without reading all that was sent to it.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.reset
    }
}

/// Makes the send buffer large enough, as far as the system allows. A record that still does not
/// fit fails when it is sent.
fn make_room(socket: &OwnedFd) {
    if getsockopt(socket, sockopt::SndBuf).is_ok_and(|bytes| bytes < ROOM) {
        // The first takes CAP_NET_ADMIN, the second no more than net.core.wmem_max (socket(7)).
        let _ = setsockopt(socket, sockopt::SndBufForce, &ROOM)
            .or_else(|_| setsockopt(socket, sockopt::SndBuf, &ROOM));
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => out.write_str("record longer than the protocol allows"),
            Fault::FdsLost => out.write_str(
                "descriptors lost on receipt: RLIMIT_NOFILE reached or a security module objects",
            ),
            Fault::NoBytes => out.write_str("descriptors without a record"),
            Fault::ForeignControl => out.write_str("control message that is not SCM_RIGHTS"),
            Fault::Unexpected(what) => out.write_str(what),
            Fault::Os(error) => write!(out, "receive failed: {error}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Os(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
