//! Why the service did not start, or did not take over: in words, as an exit code, and what to do.
//!
//! | | words and exit code | what to do |
//! |---|---|---|
//! | the library's failures | the library's own | in terms of our options, here |
//! | the original program was not taken over | here | here |

use std::error;
use std::fmt;
use std::io;

use socket_takeover::takeover::{ConnectError, Ending, Error, Probe, RefuseCode, TakeoverPath};

use super::neighbour;
use super::original::Obstacle;
use crate::cli::Options;
use crate::{FAILURE, RETRY};

/// Why the service did not start, or did not take over.
#[derive(Debug)]
pub(crate) enum StartError {
    /// What the library says.
    Takeover(Error),
    /// The original program runs at PATH and was not taken over.
    Original {
        /// Where it was found.
        path: TakeoverPath,
        /// What is in the way.
        why: Obstacle,
    },
}

impl StartError {
    /// What to end the process with: as [`Error::exit_code`]; 75 also if the original program
    /// serves on and a retry is safe.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            StartError::Takeover(error) => error.exit_code(),
            StartError::Original { why, .. } if why.is_retryable() => RETRY,
            StartError::Original { .. } => FAILURE,
        }
    }

    /// What to do, in terms of our options: the end of the line that says what failed.
    pub(crate) fn remedy(&self, options: &Options) -> String {
        match self {
            StartError::Takeover(Error::Connect {
                path,
                why: ConnectError::NoDonor(Probe::Free | Probe::Stale),
            }) => start_cold(path, options),
            StartError::Takeover(error) => advice(error).to_owned(),
            StartError::Original { why, .. } => advice_on_original(why).to_owned(),
        }
    }
}

/// It has been looked for long enough for a service to have made its name anew.
fn start_cold(path: &TakeoverPath, options: &Options) -> String {
    match neighbour::service_of(path.as_path(), options.pid_file.as_deref()) {
        None => "; start the service without -T".to_owned(),
        Some(service) => format!(
            "; yet it may run: {service}; its log says why it does not offer a takeover; do \
             not start another one without -T before it has ended"
        ),
    }
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Taken { by, .. } => match by {
            Probe::Alive => "; take over from it with -T, or choose another path",
            Probe::OtherProtocol => "; choose another path",
            _ => "; it is left alone, choose another path",
        },
        Error::Connect {
            why: ConnectError::Busy,
            ..
        } => "; try again later",
        Error::NotTakenOver { ending, .. } => match ending {
            Ending::DonorDied => "; start the service without -T",
            Ending::Unanswered => "; try again",
            Ending::Refused(RefuseCode::Network) => ", or say --any-netns",
            Ending::Refused(_)
            | Ending::Incompatible
            | Ending::DonorServes
            | Ending::DonorSilent
            | Ending::Stopped => "",
        },
        _ => "",
    }
}

fn advice_on_original(why: &Obstacle) -> &'static str {
    match why {
        Obstacle::TooManyPeers(_) => "; try again when it has fewer",
        Obstacle::NoRoom { .. } => "; raise the limit of open files (ulimit -n)",
        Obstacle::NotPermitted { .. } => "; run as the user that it runs as, or as root",
        _ => "",
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Takeover(error) => error.fmt(f),
            StartError::Original { path, why } => {
                write!(f, "takeover path {path}: {why}")?;
                if why.is_harmless() {
                    f.write_str("; it serves on")?;
                }
                Ok(())
            }
        }
    }
}

impl error::Error for StartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            StartError::Takeover(error) => Some(error),
            StartError::Original { why, .. } => Some(why),
        }
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> StartError {
        StartError::Takeover(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Takeover(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(why: Obstacle) -> StartError {
        let path = TakeoverPath::new("/run/x").unwrap();
        StartError::Original { path, why }
    }

    #[test]
    fn original_that_is_not_taken_over_says_whether_a_retry_is_safe() {
        for (error, code) in [
            (original(Obstacle::TooManyPeers(252)), 75),
            (original(Obstacle::NoProcess), 75),
            (original(Obstacle::Called("it has died".into())), 1),
            (original(Obstacle::Foreign { pid: 2, uid: 3 }), 1),
            (Error::usage("say -t PATH").into(), 2),
            (io::Error::other("disk").into(), 1),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn original_that_was_called_is_not_said_to_serve_on() {
        let said = original(Obstacle::NoProcess).to_string();
        assert!(
            said.starts_with("takeover path /run/x: no process "),
            "{said}"
        );
        assert!(said.ends_with("; it serves on"), "{said}");
        let said = original(Obstacle::Called("it has died".into())).to_string();
        assert!(!said.contains("serves on"), "{said}");
    }
}
