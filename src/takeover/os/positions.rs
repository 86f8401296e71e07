//! Where the owner of a TCP connection is in its two streams, by the socket's own account.
//!
//! ```text
//!   peer ═══ acknowledged by the kernel ═══▶│ unread │▶ consumed by the owner
//!   peer ◀══ acknowledged by the peer ══════│ unsent │◀ written by the owner
//!
//!   consumed = TCP_INFO's bytes received − SIOCINQ        less 1 once the peer's FIN is there
//!   written  = TCP_INFO's bytes acknowledged + SIOCOUTQ   less 1 once our own FIN is
//! ```
//!
//! The network moves neither count: what arrives adds as much to one term as to the other, and so
//! does what is acknowledged. Only the owner's reads and writes move them. So a state that says how
//! far its owner has come can be compared with the socket at any time and by any holder. A
//! difference of one byte means that a byte was lost, doubled, or used by a process that had no
//! right to it. The calls only read (tcp(7)).
//!
//! | | |
//! |---|---|
//! | data or an ACK between the calls | asked again until TCP_INFO is the same before and after |
//! | CLOSE: reset, or ended on both sides | the queues are gone: cannot be told |
//! | SYN_RECV, SYN_SENT | SIOCINQ is not meant yet: cannot be told |
//! | an urgent byte, without SO_OOBINLINE | SIOCINQ ends there while it waits, and afterwards it was consumed and never read: a socket that is ahead cannot be judged |
//! | the side that has connected | its SYN counts as the first byte that it has written |

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt};

use super::descriptor::tcp::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};
use crate::sys::{self, TcpProgress};

/// How often the socket is asked before it counts as too busy: one round takes 2 µs, in which
/// a segment rarely arrives.
const ROUNDS: usize = 16;

/// How far the owner of a connection has come in its two streams. The [module](self) tells how
/// the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Positions {
    /// Bytes of the peer's stream that the owner has read.
    pub consumed: u64,
    /// Bytes that the owner has written, sent by now or not.
    pub written: u64,
}

impl Positions {
    /// What a socket says; `None` if it cannot tell.
    ///
    /// # Errors
    /// `EINVAL` on a listener, `EOPNOTSUPP` or `ENOTSOCK` on what is no TCP socket.
    pub fn of(socket: impl AsFd) -> io::Result<Option<Positions>> {
        let socket = socket.as_fd();
        let mut before = sys::tcp_progress(socket)?;
        for _ in 0..ROUNDS {
            let queues = Queues {
                unread: sys::unread_bytes(socket)?,
                unsent: sys::unsent_bytes(socket)?,
            };
            let after = sys::tcp_progress(socket)?;
            if before == after {
                return Ok(positions(after, queues));
            }
            before = after;
        }
        Ok(None)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} read, {} written", self.consumed, self.written)
    }
}

/// The result of comparing a state with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// They agree.
    Agree,
    /// The socket cannot tell.
    Unknown,
    /// The state is not the socket's.
    Differ {
        /// What the socket says.
        found: Positions,
    },
}

/// Compares what a state says with its socket. Reads only.
///
/// # Errors
/// As [`Positions::of`].
pub fn check(socket: BorrowedFd<'_>, told: Positions) -> io::Result<Check> {
    let found = Positions::of(socket)?;
    if found == Some(told) {
        return Ok(Check::Agree);
    }
    // Asked for only now: nearly always there is no need to.
    let inline = getsockopt(&socket, sockopt::OobInline)?;
    Ok(judge(told, found, inline))
}

/// Bytes that wait in the socket.
#[derive(Debug, Clone, Copy)]
struct Queues {
    unread: u32,
    unsent: u32,
}

fn positions(progress: TcpProgress, queues: Queues) -> Option<Positions> {
    let (own_fin, peers_fin) = match progress.state {
        ESTABLISHED => (0, 0),
        FIN_WAIT1 | FIN_WAIT2 => (1, 0),
        CLOSE_WAIT => (0, 1),
        LAST_ACK | CLOSING => (1, 1),
        _ => return None,
    };
    let read = progress.received.checked_sub(queues.unread.into())?;
    let written = progress.acknowledged.checked_add(queues.unsent.into())?;
    Some(Positions {
        consumed: read.checked_sub(peers_fin)?,
        written: written.checked_sub(own_fin)?,
    })
}

fn judge(told: Positions, found: Option<Positions>, inline: bool) -> Check {
    let Some(found) = found else {
        return Check::Unknown;
    };
    if found == told {
        Check::Agree
    } else if !inline && found.written == told.written && found.consumed > told.consumed {
        Check::Unknown
    } else {
        Check::Differ { found }
    }
}

#[cfg(test)]
mod tests;
