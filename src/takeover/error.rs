//! Why a process could not start or take over, and what it tells whoever started it.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | stopped, or handed over |
//! | 1 | something failed |
//! | 2 | the command line is wrong |
//! | 69 | nobody offers a takeover |
//! | 75 | the donor serves on, a retry is safe |
//! | 76 | the donor serves on, the versions do not fit |

use std::env;
use std::error;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

use super::os::path::{ConnectError, PathError, Probe, TakeoverPath};
use super::session::Ending;
use crate::proto::records::RefuseCode;

/// Why a process could not start, or could not take over.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The command line cannot be used. The application reports this itself.
    Usage(String),
    /// PATH is unusable.
    Path(PathError),
    /// Something at PATH is not ours to replace, most often a process that lives.
    Taken {
        /// Where the takeover was to be offered.
        path: TakeoverPath,
        /// What is there.
        by: Probe,
    },
    /// A takeover cannot be offered at PATH.
    Offer {
        /// Where it was to be offered.
        path: TakeoverPath,
        /// The system's reason.
        why: io::Error,
    },
    /// There is no connection to a donor at PATH.
    Connect {
        /// Where a donor was expected.
        path: TakeoverPath,
        /// What is in the way.
        why: ConnectError,
    },
    /// The donor was reached, and nothing was taken over.
    NotTakenOver {
        /// Who serves now.
        ending: Ending,
        /// What happened, in words.
        why: String,
    },
    /// The application's own start failed, or the reactor did.
    Io(io::Error),
}

impl Ending {
    /// The exit code of a process that owns nothing. 75: its donor serves on, and a retry is safe.
    /// 76: its donor serves on, and a retry with this version cannot succeed. 1: nobody serves.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Refused(RefuseCode::Version | RefuseCode::Features) | Ending::Incompatible => {
                VERSION
            }
            Ending::Refused(_)
            | Ending::DonorServes
            | Ending::DonorSilent
            | Ending::Unanswered
            | Ending::Stopped => RETRY,
            Ending::DonorDied => FAILURE,
        }
    }
}

/// What `main` returns. An error is printed on stderr in one line, and becomes the exit code.
///
/// ```no_run
/// use socket_takeover::takeover::{Error, Exit};
///
/// fn main() -> Exit {
///     run().into()
/// }
///
/// fn run() -> Result<(), Error> {
///     Err(Error::usage("say -t PATH or -T PATH"))
/// }
/// ```
#[derive(Debug)]
#[must_use = "it is the end of `main`"]
pub struct Exit(Result<(), Error>);

impl From<Result<(), Error>> for Exit {
    fn from(ended: Result<(), Error>) -> Exit {
        Exit(ended)
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        let Err(error) = self.0 else {
            return ExitCode::SUCCESS;
        };
        let program = env::args_os().next().map(PathBuf::from);
        let name = program
            .as_deref()
            .and_then(Path::file_name)
            .unwrap_or_default();
        // If stderr cannot take it there is still the exit code.
        let _ = writeln!(io::stderr(), "{}: {error}", name.display());
        ExitCode::from(error.exit_code())
    }
}

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
/// EX_UNAVAILABLE of sysexits(3).
const NOBODY: u8 = 69;
/// EX_TEMPFAIL.
const RETRY: u8 = 75;
/// EX_PROTOCOL.
const VERSION: u8 = 76;

impl Error {
    /// An error for a command line that cannot be used. `what` says what is wrong and what to do.
    #[must_use]
    pub fn usage(what: impl Into<String>) -> Error {
        Error::Usage(what.into())
    }

    /// The exit code: 2 if the command line is wrong; 69 if nobody offers a takeover; 75 if the
    /// donor serves on and a retry is safe; 76 if the donor serves on and the versions do not fit;
    /// 1 in all other cases. [A table](super#in-production) says what to do then.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Connect { why, .. } => match why {
                ConnectError::NoDonor(Probe::Free | Probe::Stale) => NOBODY,
                ConnectError::Busy => RETRY,
                ConnectError::NoDonor(_) | ConnectError::Other(_) => FAILURE,
            },
            Error::NotTakenOver { ending, .. } => ending.exit_code(),
            Error::Usage(_) | Error::Path(_) => USAGE,
            Error::Taken { .. } | Error::Offer { .. } | Error::Io(_) => FAILURE,
        }
    }

    /// Whether the same call may succeed in a moment: the donor serves on, and its version fits.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.exit_code() == RETRY
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => f.write_str(what),
            Error::Path(why) => write!(f, "the takeover path {why}"),
            Error::Taken { path, by } => write!(f, "takeover path {path} {by}"),
            Error::Offer { path, why } => {
                write!(f, "takeover path {path} cannot be made: {why}")
            }
            Error::Connect { path, why } => match why {
                ConnectError::NoDonor(Probe::Free | Probe::Stale) | ConnectError::Busy => {
                    write!(f, "takeover path {path}: {why}")
                }
                // These are words about PATH and go on from there: "is a directory".
                _ => write!(f, "takeover path {path} {why}"),
            },
            Error::NotTakenOver { ending, why } => {
                let now = match ending {
                    Ending::DonorDied => "the donor has died or was stopped",
                    Ending::DonorSilent => "whether it serves is not known; a retry is safe",
                    Ending::Stopped => "nothing was taken from the donor",
                    Ending::Unanswered => "another taker was faster, or the donor has died",
                    Ending::Refused(_) | Ending::Incompatible | Ending::DonorServes => {
                        "the donor serves on"
                    }
                };
                write!(f, "not taken over: {why}; {now}")
            }
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Offer { why, .. } | Error::Io(why) => Some(why),
            Error::Connect { why, .. } => Some(why),
            Error::Path(why) => Some(why),
            Error::Usage(_) | Error::Taken { .. } | Error::NotTakenOver { .. } => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Error {
        Error::Path(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(ending: Ending) -> Error {
        let why = String::new();
        Error::NotTakenOver { ending, why }
    }

    fn not_connected(why: ConnectError) -> Error {
        let path = TakeoverPath::new("/run/x").unwrap();
        Error::Connect { path, why }
    }

    #[test]
    fn failure_to_connect_reads_as_a_sentence() {
        for (why, said) in [
            (
                ConnectError::NoDonor(Probe::Free),
                ": there is no such file",
            ),
            (ConnectError::Busy, ": its queue of callers is full"),
            (
                ConnectError::NoDonor(Probe::NotASocket("a directory")),
                " is a directory, not a takeover socket",
            ),
        ] {
            assert_eq!(
                not_connected(why).to_string(),
                format!("takeover path /run/x{said}")
            );
        }
    }

    #[test]
    fn each_failure_says_whether_a_retry_is_safe() {
        let refused = |code| left(Ending::Refused(code));
        let expected = [
            (Error::usage("say -t PATH"), 2),
            (TakeoverPath::new("").unwrap_err().into(), 2),
            (not_connected(ConnectError::NoDonor(Probe::Stale)), 69),
            (not_connected(ConnectError::Busy), 75),
            (
                not_connected(ConnectError::NoDonor(Probe::OtherProtocol)),
                1,
            ),
            (refused(RefuseCode::Version), 76),
            (refused(RefuseCode::Features), 76),
            (refused(RefuseCode::Slots), 75),
            (left(Ending::Incompatible), 76),
            (left(Ending::DonorServes), 75),
            (left(Ending::Unanswered), 75),
            (left(Ending::Stopped), 75),
            (left(Ending::DonorDied), 1),
            (io::Error::other("disk").into(), 1),
        ];
        for (error, code) in expected {
            assert_eq!(error.exit_code(), code, "{error}");
            assert_eq!(error.is_retryable(), code == 75, "{error}");
        }
    }
}
