//! How a process begins to be taken over: by a cold start, or as a successor.
//!
//! ```text
//!                  reactor        set up by the application        begin             run
//!   at(path)       serving        binds, adds its items            offers PATH       serves
//!   from(path)     held           adds nothing: items arrive       calls the donor   serves once it owns
//! ```
//!
//! [`Start::run`] does all of it, for a process whose only loop this is. Who has a loop of
//! its own, or signals, or a daemon's ceremonies, does the same in three steps:
//! [`Start::reactor`], [`Start::begin`], and turning the reactor.
//!
//! Invariants: signals are watched before PATH is made or the donor called, because from then
//! on the process is to end in a way that tidies up; and ports are bound before PATH is made,
//! so that a second start by mistake ends there and has disturbed nobody.

use std::error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::application::Application;
use super::drive::{Deadlines, Ending, Takeover};
use super::rendezvous::{
    self, ConnectError, Offer, PathError, Probe, PublishError, Replace, TakeoverPath,
};
use crate::event::{Config, Cx, Event, Next, Reactor, Signals, Spec};
use crate::proto::records::RefuseCode;

/// How a process starts; see the [module](super) for an example.
#[derive(Debug, Clone)]
pub struct Start {
    role: Role,
    deadlines: Deadlines,
    config: Config,
}

#[derive(Debug, Clone)]
enum Role {
    Alone,
    Donor(TakeoverPath),
    Taker(TakeoverPath),
}

/// Why a process could not start, or could not take over.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The command line cannot be used; for the application to say so.
    Usage(String),
    /// PATH is unusable.
    Path {
        /// As it was given.
        path: PathBuf,
        /// What is wrong with it.
        why: PathError,
    },
    /// Something is at PATH that is not ours to replace.
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
    /// The donor was reached and nothing was taken over.
    NotTakenOver {
        /// Who serves now.
        ending: Ending,
        /// What happened, in words.
        why: String,
    },
    /// The application's own setting up failed, or the reactor.
    Io(io::Error),
}

impl Start {
    /// A cold start that cannot be taken over.
    #[must_use]
    pub fn alone() -> Start {
        Start::with(Role::Alone)
    }

    /// A cold start that offers a takeover at `path`.
    ///
    /// # Errors
    /// [`Error::Path`]; the file system is not changed yet.
    pub fn at(path: impl AsRef<Path>) -> Result<Start, Error> {
        Ok(Start::with(Role::Donor(checked(path.as_ref())?)))
    }

    /// A start as successor of the process that offers a takeover at `path`. The next one is
    /// offered there by us, once we own.
    ///
    /// # Errors
    /// [`Error::Path`]; nobody was called yet.
    pub fn from(path: impl AsRef<Path>) -> Result<Start, Error> {
        Ok(Start::with(Role::Taker(checked(path.as_ref())?)))
    }

    fn with(role: Role) -> Start {
        Start {
            role,
            deadlines: Deadlines::default(),
            config: Config::default(),
        }
    }

    /// The same, with these deadlines for the takeovers to come.
    #[must_use]
    pub fn deadlines(self, deadlines: Deadlines) -> Start {
        Start { deadlines, ..self }
    }

    /// The same, with a reactor of this configuration.
    #[must_use]
    pub fn config(self, config: Config) -> Start {
        Start { config, ..self }
    }

    /// Whether everything comes from a donor, so that nothing is to be opened here.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        matches!(self.role, Role::Taker(_))
    }

    /// Starts, serves and ends. `cold` opens what a successor would be given; it is called on
    /// a cold start alone, before PATH exists. SIGTERM and SIGINT end it in an orderly way, a
    /// takeover under way included; no other signal is touched.
    ///
    /// # Errors
    /// Why it did not come to serving, or what failed later; [`Error::exit_code`] says it to
    /// whoever started us.
    pub fn run<S: Application>(
        self,
        app: &mut S,
        cold: impl FnOnce(&mut S, &mut Cx<S>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut reactor = self.reactor()?;
        watch_signals(reactor.cx())?;
        if !self.is_successor() {
            cold(app, reactor.cx())?;
        }
        self.begin(app, reactor.cx())?;
        reactor.run(app)?;
        app.takeover().outcome()
    }

    /// The reactor for it: a successor's is held until it owns.
    ///
    /// # Errors
    /// As [`Reactor::new`].
    pub fn reactor<S>(&self) -> io::Result<Reactor<S>> {
        if self.is_successor() {
            Reactor::new_held(self.config)
        } else {
            Reactor::new(self.config)
        }
    }

    /// Offers the takeover, or calls the donor. What comes of a call is told by
    /// [`Application::moment`], and to be asked for with [`Takeover::outcome`].
    ///
    /// # Errors
    /// Why not. A donor has felt nothing then.
    pub fn begin<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) -> Result<(), Error> {
        match &self.role {
            Role::Alone => Ok(()),
            Role::Donor(path) => {
                let offer = offer_at(path)?;
                log::info!("Starting Takeover channel on [{path}]");
                Ok(Takeover::offer(app, cx, offer, self.deadlines)?)
            }
            Role::Taker(path) => {
                let (channel, donor) = rendezvous::connect(path).map_err(|why| Error::Connect {
                    path: path.clone(),
                    why,
                })?;
                log::info!("Taking over from {donor} at [{path}]");
                let offer = Offer::bind(path).map_err(|why| Error::Offer {
                    path: path.clone(),
                    why,
                })?;
                Ok(Takeover::take_over(
                    app,
                    cx,
                    channel,
                    donor,
                    offer,
                    self.deadlines,
                )?)
            }
        }
    }
}

fn checked(path: &Path) -> Result<TakeoverPath, Error> {
    TakeoverPath::new(path).map_err(|why| Error::Path {
        path: path.to_owned(),
        why,
    })
}

/// The offer at a path that nobody else may own.
fn offer_at(path: &TakeoverPath) -> Result<Offer, Error> {
    let taken = |by| Error::Taken {
        path: path.clone(),
        by,
    };
    let cannot = |why| Error::Offer {
        path: path.clone(),
        why,
    };
    match rendezvous::probe(path).map_err(cannot)? {
        Probe::Free | Probe::Stale => {}
        by => return Err(taken(by)),
    }
    if path.is_exposed() {
        log::warn!("the directory of takeover path {path} can be written by others");
    }
    let mut offer = Offer::bind(path).map_err(cannot)?;
    offer.publish(Replace::Stale).map_err(|error| match error {
        PublishError::Taken(by) => taken(by),
        PublishError::Os(why) => cannot(why),
        PublishError::Locked => cannot(io::Error::other(error)),
    })?;
    Ok(offer)
}

fn watch_signals<S: Application>(cx: &mut Cx<S>) -> io::Result<()> {
    let signals = Signals::new(&[libc::SIGTERM, libc::SIGINT])?;
    cx.add(Spec::handover("signals"), signals, on_signals)?;
    Ok(())
}

fn on_signals<S: Application>(
    signals: &mut Signals,
    app: &mut S,
    cx: &mut Cx<S>,
    _: Event,
) -> io::Result<Next> {
    while let Some(signal) = signals.read()? {
        log::info!("signal {} from pid {}", signal.signo, signal.pid);
        Takeover::term(app, cx);
    }
    Ok(Next::Keep)
}

impl Ending {
    /// What a process ends with that owns nothing: 75 if its donor serves on and a retry is
    /// safe, 76 if that is so and a retry of this version is in vain, 1 if nobody serves.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Refused(RefuseCode::Version | RefuseCode::Features) => VERSION,
            Ending::Refused(_)
            | Ending::DonorServes
            | Ending::Unanswered
            | Ending::Stopped => RETRY,
            Ending::DonorDied => FAILURE,
        }
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
    /// The command line cannot be used: what is wrong, and what to do.
    #[must_use]
    pub fn usage(what: impl Into<String>) -> Error {
        Error::Usage(what.into())
    }

    /// What to end the process with: 2 if the command line is wrong, 69 if nobody offers a
    /// takeover, 75 if the donor serves on and a retry is safe, 76 if that is so and the
    /// versions do not fit, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Connect { why, .. } => match why {
                ConnectError::Nobody(_) => NOBODY,
                ConnectError::Busy => RETRY,
                ConnectError::Original
                | ConnectError::NotASocket(_)
                | ConnectError::Foreign { .. }
                | ConnectError::Other(_) => FAILURE,
            },
            Error::NotTakenOver { ending, .. } => ending.exit_code(),
            Error::Usage(_) | Error::Path { .. } => USAGE,
            Error::Taken { .. } | Error::Offer { .. } | Error::Io(_) => FAILURE,
        }
    }

    /// Whether the same may succeed in a moment: the donor serves on, and its version fits.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.exit_code() == RETRY
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => f.write_str(what),
            Error::Path { path, why } => write!(f, "takeover path {path:?} {why}"),
            Error::Taken { path, by } => {
                let remedy = match by {
                    Probe::Alive => "take over from it, or choose another path",
                    Probe::Original => "choose another path",
                    _ => "it is left alone, choose another path",
                };
                write!(f, "takeover path {path} {by}; {remedy}")
            }
            Error::Offer { path, why } => {
                write!(f, "takeover path {path} cannot be made: {why}")
            }
            Error::Connect { path, why } => {
                write!(f, "takeover path {path} {why}")?;
                f.write_str(match why {
                    ConnectError::Nobody(_) => "; start without taking over",
                    ConnectError::Busy => "; try again later",
                    ConnectError::Original => "; such a process cannot be taken over",
                    _ => "",
                })
            }
            Error::NotTakenOver { ending, why } => {
                let remedy = match ending {
                    Ending::DonorDied => "the donor has died or was stopped, start without taking over",
                    Ending::Unanswered => "another taker was faster, or it has died; try again",
                    Ending::Refused(_) | Ending::DonorServes | Ending::Stopped => {
                        "the donor serves on"
                    }
                };
                write!(f, "not taken over: {why}; {remedy}")
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
            Error::Path { why, .. } => Some(why),
            Error::Usage(_) | Error::Taken { .. } | Error::NotTakenOver { .. } => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}
