//! Why the original was not taken over.

use std::error::Error;
use std::fmt;
use std::io;

use super::MAX_PEERS;

/// Why the original was not taken over.
#[derive(Debug)]
#[non_exhaustive]
pub enum Obstacle {
    /// Among the processes that we may look into, none listens there.
    NoProcess,
    /// It runs in another network namespace, and its clients are there: take over from it there.
    Apart {
        /// Its process id.
        pid: u32,
    },
    /// The kernel does not tell which Unix sockets there are; why.
    Untold(io::Error),
    /// So many processes have the socket.
    Shared(usize),
    /// It belongs to a user who is neither root nor we.
    Foreign {
        /// Its process id.
        pid: u32,
        /// That user.
        uid: u32,
    },
    /// We may not signal it.
    NotPermitted {
        /// Its process id.
        pid: u32,
        /// The system's reason.
        why: io::Error,
    },
    /// It is another program.
    Unlike {
        /// Its process id.
        pid: u32,
        /// How that can be told.
        why: String,
    },
    /// It has more peers than [`MAX_PEERS`], and we may not trace it.
    TooManyPeers(usize),
    /// Its descriptors are more than we may open.
    NoRoom {
        /// How many are wanted, reserve included.
        wanted: usize,
        /// How many there may be.
        free: usize,
    },
    /// It does not answer its clients.
    Silent(io::Error),
    /// We were told to stop before it was called.
    Stopping,
    /// It was called, and what it has cannot be had: it lets its peers go one by one from now on.
    Called(String),
    /// The system's own reason; nothing has happened.
    Os(io::Error),
}

impl Obstacle {
    /// Whether the original serves on as if nothing had happened.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        !matches!(self, Obstacle::Called(_))
    }

    /// Whether the same may succeed in a moment.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Obstacle::NoProcess
            | Obstacle::Apart { .. }
            | Obstacle::Untold(_)
            | Obstacle::Shared(_)
            | Obstacle::TooManyPeers(_)
            | Obstacle::NoRoom { .. }
            | Obstacle::Silent(_)
            | Obstacle::Stopping => true,
            Obstacle::Foreign { .. }
            | Obstacle::NotPermitted { .. }
            | Obstacle::Unlike { .. }
            | Obstacle::Called(_)
            | Obstacle::Os(_) => false,
        }
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Obstacle::Os(error)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoProcess => f.write_str(
                "no process is found that listens there with SOCK_STREAM, among those in this \
                 network namespace that we may look into",
            ),
            Obstacle::Apart { pid } => write!(
                f,
                "pid {pid} runs in another network namespace; take over from there: \
                 nsenter -t {pid} -n socket-takeover -T …"
            ),
            Obstacle::Untold(why) => write!(
                f,
                "the kernel does not tell who listens there (sock_diag, CONFIG_UNIX_DIAG): {why}"
            ),
            Obstacle::Shared(count) => write!(f, "{count} processes have its socket"),
            Obstacle::Foreign { pid, uid } => write!(
                f,
                "pid {pid} runs as uid {uid}, trusted are only root and our own user"
            ),
            Obstacle::NotPermitted { pid, why } => {
                write!(f, "pid {pid} cannot be stopped by us: {why}")
            }
            Obstacle::Unlike { pid, why } => {
                write!(f, "pid {pid} is not the original program: {why}")
            }
            Obstacle::TooManyPeers(count) => write!(
                f,
                "it has {count} Peers and can hand over {MAX_PEERS}, it would lose them all"
            ),
            Obstacle::NoRoom { wanted, free } => write!(
                f,
                "{wanted} descriptors are needed for it and {free} are free"
            ),
            Obstacle::Silent(why) => write!(f, "it does not answer on its port: {why}"),
            Obstacle::Stopping => f.write_str("told to stop"),
            Obstacle::Called(why) => write!(
                f,
                "the original was called and is not taken over, it lets its Peers go: {why}"
            ),
            Obstacle::Os(why) => why.fmt(f),
        }
    }
}

impl Error for Obstacle {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Obstacle::NotPermitted { why, .. }
            | Obstacle::Untold(why)
            | Obstacle::Silent(why)
            | Obstacle::Os(why) => Some(why),
            _ => None,
        }
    }
}
