//! Why an offer is not published.

use std::error::Error;
use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::takeover::os::lock::Holder;
use crate::takeover::os::path::Probe;

/// Why an offer is not published. It still can be.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// PATH is taken, by what.
    Taken(Probe),
    /// The lock on PATH.lock is taken: another process publishes at the same PATH just now, which
    /// takes microseconds, or is about to take over, or uses the file for something of its own.
    Locked {
        /// Who took it. None if that cannot be seen from here: it is in another PID namespace, or
        /// has ended there and left the lock to a process that it started.
        holder: Option<Holder>,
    },
    /// The system's own reason.
    Os(io::Error),
}

impl From<Errno> for PublishError {
    fn from(error: Errno) -> Self {
        PublishError::Os(error.into())
    }
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        PublishError::Os(error)
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Taken(by) => by.fmt(out),
            PublishError::Locked {
                holder: Some(holder),
            } => write!(out, "PATH.lock is locked by {holder}"),
            PublishError::Locked { holder: None } => out.write_str(
                "PATH.lock is locked by a process that cannot be seen from here (another PID \
                 namespace): wait until that is done, or find it with fuser(1) on the host",
            ),
            PublishError::Os(error) => write!(out, "cannot be published: {error}"),
        }
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PublishError::Os(error) => Some(error),
            PublishError::Taken(_) | PublishError::Locked { .. } => None,
        }
    }
}
