//! How a process begins to be taken over: by a cold start, or as a successor.
//!
//! ```text
//!                  reactor        set up by the application        begin             run
//!   offer          serving        binds, adds its items            offers PATH       serves
//!   take_over      held           adds nothing: items arrive       calls the donor   serves once it owns
//! ```
//!
//! [`Start::run`] does all of it, for a process that has no other loop. A process with a loop,
//! signals or start-up steps of its own does the same in three steps: [`Start::reactor`],
//! [`Start::begin`], and turning the reactor.
//!
//! Invariants:
//! - Signals are watched before PATH is made or the donor is called, because from then on the
//!   process has to end in a way that tidies up.
//! - A second start by mistake disturbs nobody. It ends when PATH is looked at, before the
//!   application has opened anything; or it ends at its ports, which are bound before PATH is made.

use std::io;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::application::Application;
use super::error::Error;
use super::failpoint;
use super::moment::Moment;
use super::os::channel::Channel;
use super::os::identity::{self, Identity};
use super::os::limits::raise_nofile;
use super::os::offer::{Offer, PublishError, Replace};
use super::os::path::{self, ConnectError, Probe, TakeoverPath};
use super::session::{Deadlines, Ending, Takeover};
use crate::event::{Config, Cx, Event, Next, Reactor, Signals, Spec, Time};

/// How a process starts; see the [module](super) for an example.
#[derive(Debug, Clone)]
pub struct Start {
    mode: Mode,
    deadlines: Deadlines,
    config: Config,
    check_positions: bool,
    any_network: bool,
}

#[derive(Debug, Clone)]
enum Mode {
    Alone,
    Donor(TakeoverPath),
    Taker(TakeoverPath),
}

impl Start {
    /// Reads the words of the command line. A cold start that offers a takeover is `-t PATH`,
    /// followed by one word for each of `words`. A takeover is `-T PATH` alone: a successor is
    /// given everything by its donor, so its words are empty.
    ///
    /// Find out what the words mean before [`Start::run`]: an error of its `cold` ends the process
    /// with 1, and a wrong word should end it with 2.
    ///
    /// ```no_run
    /// # use socket_takeover::takeover::{Error, Start};
    /// # use std::net::SocketAddr;
    /// let (start, [address]) = Start::from_args(["ADDRESS"])?;
    /// let address: Option<SocketAddr> = if start.is_successor() {
    ///     None
    /// } else {
    ///     let wrong = |error| Error::usage(format!("{address:?}: {error}"));
    ///     Some(address.parse().map_err(wrong)?)
    /// };
    /// # let _ = address;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// A usage error that says what is wanted, or that PATH cannot be one.
    pub fn from_args<const N: usize>(words: [&str; N]) -> Result<(Start, [String; N]), Error> {
        let given: Vec<String> = std::env::args().skip(1).collect();
        Start::from_words(&given, words)
    }

    fn from_words<const N: usize>(
        given: &[String],
        words: [&str; N],
    ) -> Result<(Start, [String; N]), Error> {
        let wrong = || Error::usage(format!("say -t PATH {}, or -T PATH", words.join(" ")));
        let (start, rest) = match given {
            [flag, path] if flag == "-T" => {
                let start = Start::take_over(TakeoverPath::new(path)?);
                (start, vec![String::new(); N])
            }
            [flag, path, rest @ ..] if flag == "-t" => {
                (Start::offer(TakeoverPath::new(path)?), rest.to_vec())
            }
            _ => return Err(wrong()),
        };
        Ok((start, rest.try_into().map_err(|_| wrong())?))
    }

    /// A cold start that cannot be taken over.
    #[must_use]
    pub fn alone() -> Start {
        Start::with(Mode::Alone)
    }

    /// A cold start that offers a takeover at `path`.
    ///
    /// The directory has to exist, and we must be allowed to make files in it. Two files are made
    /// there: PATH, a socket of mode 0600, and PATH.lock, which stays. Callers have to be root or
    /// our own user. A socket that a crash has left behind is replaced. A socket on which somebody
    /// listens, and anything that is no socket, is left alone: [`Error::Taken`].
    ///
    /// Once a second the owner looks whether PATH is still its own. If PATH is gone it is made
    /// anew, unless other users than root and our own could interfere there.
    /// [`Takeover::unreachable`] says why it was not.
    #[must_use]
    pub fn offer(path: TakeoverPath) -> Start {
        Start::with(Mode::Donor(path))
    }

    /// A start as successor of the process that offers a takeover at `path`. Once this process
    /// owns, it offers the next takeover there.
    #[must_use]
    pub fn take_over(path: TakeoverPath) -> Start {
        Start::with(Mode::Taker(path))
    }

    fn with(mode: Mode) -> Start {
        Start {
            mode,
            deadlines: Deadlines::default(),
            config: Config::default(),
            check_positions: false,
            any_network: false,
        }
    }

    /// Sets the deadlines for the takeovers to come.
    #[must_use]
    pub fn deadlines(self, deadlines: Deadlines) -> Start {
        Start { deadlines, ..self }
    }

    /// Compares each connection's state with its socket, on both sides of the takeovers to come:
    /// see [`Application::positions`]. It costs some 3 µs a connection. Each connection is compared
    /// three times while it is served, and each changed one once more in the freeze. The comparison
    /// right before the freeze ends after half of [`Deadlines::freeze`]: with the default,
    /// connections beyond some 150,000 are compared only before it and after the takeover.
    #[must_use]
    pub fn check_positions(self, check_positions: bool) -> Start {
        Start {
            check_positions,
            ..self
        }
    }

    /// Takes over from a donor in another network namespace too. Sockets that are handed over stay
    /// in their namespace, while those that a successor makes later are in its own. So this is
    /// refused by default (since Linux 5.14, which tells the namespace).
    #[must_use]
    pub fn any_network(self, any_network: bool) -> Start {
        Start {
            any_network,
            ..self
        }
    }

    /// Sets the configuration of the reactor.
    #[must_use]
    pub fn config(self, config: Config) -> Start {
        Start { config, ..self }
    }

    /// Whether everything comes from a donor, so that this process has nothing to open.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        matches!(self.mode, Mode::Taker(_))
    }

    /// Starts, serves and ends. `cold` opens what a successor would be given, and is called on a
    /// cold start only. SIGTERM and SIGINT end the process in an orderly way, and a takeover under
    /// way with it. No other signal is touched. The soft limit of open files is raised to the hard
    /// one, because a successor needs a descriptor for each of ours.
    ///
    /// A cold start goes in this order:
    ///
    /// | | fails if |
    /// |---|---|
    /// | PATH is looked at | a process lives there: [`Error::Taken`], and `cold` is not called |
    /// | `cold` | it returns an error; PATH does not exist yet |
    /// | PATH is made | another process has made it meanwhile: [`Error::Taken`] |
    /// | [`Moment::Open`] | |
    /// | the reactor is turned: the first callback | |
    ///
    /// Do what cannot be taken back, such as counting up a number of restarts in a file, last in
    /// `cold`, after the ports. If two processes start at the same time, one of them loses. Do what
    /// the loser must not do at `Open`: then PATH is ours, and nothing was served yet.
    ///
    /// # Errors
    /// Why the process did not come to serve, or what failed later. [`Error::exit_code`] tells it
    /// to whoever started the process.
    pub fn run<S: Application>(
        self,
        app: &mut S,
        cold: impl FnOnce(&mut S, &mut Cx<S>) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.is_supported()?;
        if let Mode::Donor(path) = &self.mode {
            // Looked at once more when it is made, since another may be as far as we are.
            look_at(path)?;
        }
        let _ = raise_nofile();
        let mut reactor = self.reactor()?;
        watch_signals(reactor.cx())?;
        if !self.is_successor() {
            cold(app, reactor.cx())?;
        }
        self.go(app, reactor.cx())?;
        reactor.run(app)?;
        app.takeover().outcome()
    }

    /// Before anything is opened: whether this kernel can do it.
    fn is_supported(&self) -> io::Result<()> {
        match self.mode {
            Mode::Alone => Ok(()),
            Mode::Donor(_) | Mode::Taker(_) => identity::supported(),
        }
    }

    /// Makes the reactor for this start. A successor's reactor is held until it owns.
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

    /// Offers the takeover, or calls the donor. [`Application::moment`] tells what comes of it; for
    /// a call [`Takeover::outcome`] does so too. To know whether PATH is free before anything is
    /// opened, as [`Start::run`] does, ask [`probe`](super::probe).
    ///
    /// If nobody is at PATH, this tries for two seconds before it says so, and does nothing else
    /// meanwhile: a donor whose name was removed offers it anew within one second.
    ///
    /// # Errors
    /// Why not. The donor has not been disturbed then.
    pub fn begin<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) -> Result<(), Error> {
        self.is_supported()?;
        self.go(app, cx)
    }

    fn go<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) -> Result<(), Error> {
        failpoint::check()?;
        app.takeover().check_positions(self.check_positions);
        app.takeover().any_network(self.any_network);
        match &self.mode {
            Mode::Alone => {}
            Mode::Donor(path) => {
                let offer = offer_at(path)?;
                log::info!("Starting Takeover channel on [{path}]");
                Takeover::offer(app, cx, offer, 0, self.deadlines)?;
            }
            Mode::Taker(path) => {
                warn_if_exposed(path);
                let (channel, donor) = call(path).map_err(|why| Error::Connect {
                    path: path.clone(),
                    why,
                })?;
                log::info!("Taking over from {donor} at [{path}]");
                let offer = Offer::bind(path).map_err(|why| Error::Offer {
                    path: path.clone(),
                    why,
                })?;
                return Takeover::take_over(app, cx, channel, donor, offer, self.deadlines)
                    .map_err(|error| Error::NotTakenOver {
                        ending: Ending::DonorServes,
                        why: format!("the call to the donor: {error}"),
                    });
            }
        }
        app.moment(cx, Moment::Open);
        Ok(())
    }
}

/// Connects to the donor. If nobody is there it tries again for a while: a donor whose name was
/// removed makes it anew within a second.
fn call(path: &TakeoverPath) -> Result<(Channel, Identity), ConnectError> {
    let end = Time::now() + SOUGHT;
    loop {
        match path::connect(path) {
            Err(ConnectError::NoDonor(Probe::Free | Probe::Stale)) if Time::now() < end => {
                thread::sleep(AGAIN);
            }
            called => return called,
        }
    }
}

/// How long, and how often, it tries to find a donor.
const SOUGHT: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);

/// Whether a takeover can be offered at a path: nobody else may own it.
fn look_at(path: &TakeoverPath) -> Result<(), Error> {
    match path::probe(path).map_err(|why| cannot_offer(path, why))? {
        Probe::Free | Probe::Stale => Ok(()),
        by => Err(taken(path, by)),
    }
}

fn offer_at(path: &TakeoverPath) -> Result<Offer, Error> {
    look_at(path)?;
    warn_if_exposed(path);
    let mut offer = Offer::bind(path).map_err(|why| cannot_offer(path, why))?;
    offer.publish(Replace::Stale).map_err(|error| match error {
        PublishError::Taken(by) => taken(path, by),
        PublishError::Os(why) => cannot_offer(path, why),
        PublishError::Locked { .. } => cannot_offer(path, io::Error::other(error)),
    })?;
    Ok(offer)
}

fn taken(path: &TakeoverPath, by: Probe) -> Error {
    let path = path.clone();
    Error::Taken { path, by }
}

fn cannot_offer(path: &TakeoverPath, why: io::Error) -> Error {
    let path = path.clone();
    Error::Offer { path, why }
}

fn warn_if_exposed(path: &TakeoverPath) {
    if path.is_exposed() {
        log::warn!("the directory of takeover path {path} can be written by others");
    }
}

fn watch_signals<S: Application>(cx: &mut Cx<S>) -> io::Result<()> {
    // The source unblocks what it has blocked when it goes, and one that comes after that
    // would end us with its own exit code in place of ours. What is blocked here stays so.
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_block()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn start(line: &str) -> Result<(Start, [String; 2]), Error> {
        let given: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Start::from_words(&given, ["ADDRESS", "UPSTREAM"])
    }

    #[test]
    fn words_of_either_start_are_told_apart_from_all_others() {
        let (cold, words) = start("-t /run/x a b").unwrap();
        assert!(!cold.is_successor());
        assert_eq!(words, ["a", "b"]);
        let (successor, words) = start("-T /run/x").unwrap();
        assert!(successor.is_successor());
        assert_eq!(words, ["", ""]);
        for line in [
            "",
            "-t",
            "-T",
            "-t /run/x a",
            "-t /run/x a b c",
            "-T /run/x a b",
            "/run/x",
        ] {
            let error = start(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
        let nothing = Start::from_words(&["-T".to_owned(), "/run/x".to_owned()], []);
        assert!(nothing.unwrap().0.is_successor());
    }
}
