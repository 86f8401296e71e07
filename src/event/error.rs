//! Errors by what the caller does next: it gets the source back, or it hears that a source has
//! ended.

use std::error::Error;
use std::fmt;
use std::io;

use super::SourceId;

/// A callback returned an error: its source has ended, everything else goes on.
#[derive(Debug)]
pub struct Fault {
    /// The source that has ended. The id names nothing any more.
    pub id: SourceId,
    /// Its name.
    pub name: &'static str,
    /// What the callback returned.
    pub error: io::Error,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.error)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// A source could not be added. It comes back untouched, and `?` turns the rest into an
/// `io::Error`.
pub struct AddError<T> {
    /// What was to be added.
    pub source: T,
    /// What epoll_ctl(2) said: `EPERM` for what cannot be polled (a file, a memfd), `EEXIST` for
    /// what is in the reactor already, `ENOSPC` at the limit of watches, `ENOMEM`.
    pub error: io::Error,
}

impl<T> fmt::Debug for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot watch the descriptor: {}", self.error)
    }
}

impl<T> Error for AddError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> From<AddError<T>> for io::Error {
    fn from(failed: AddError<T>) -> io::Error {
        failed.error
    }
}
