//! Why there is no pid file: one line each for the operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no pid file.
#[derive(Debug)]
pub enum PidFileError {
    /// Another process holds the lock.
    Held {
        /// The file.
        path: PathBuf,
        /// The pid in it, if it holds one.
        owner: Option<u32>,
    },
    /// It belongs to a user who is neither root nor our own.
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// There is something at this name that is no pid file, and it is left alone.
    Foreign {
        /// The name.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                path,
                owner: Some(pid),
            } => {
                write!(
                    f,
                    "pid file {path:?}: process {pid} holds it; stop that one, take over from it with -T, or name another file"
                )
            }
            Self::Held { path, owner: None } => {
                write!(
                    f,
                    "pid file {path:?}: another process holds it; name another file"
                )
            }
            Self::Owner { path, uid } => {
                write!(
                    f,
                    "pid file {path:?}: it belongs to uid {uid}, who can change and lock it at any time; remove it, or name a file in a folder of our own"
                )
            }
            Self::Foreign { path, what } => {
                write!(
                    f,
                    "pid file {path:?}: it is {what} and is left alone; name another file"
                )
            }
            Self::Io { path, error } => {
                write!(
                    f,
                    "pid file {path:?}: {error}; make it writable or name another file"
                )
            }
        }
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Held { .. } | Self::Owner { .. } | Self::Foreign { .. } => None,
        }
    }
}
