//! Start, what a takeover's outcome means to the service, and the way out.
//!
//! Exit codes: 0 stopped or handed over, 1 failure, 69 no donor, 75 the donor serves on and
//! a retry is safe, 76 the versions do not fit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use socket_takeover::event::{Config, Cx, Event, Next, Reactor, Signals, SourceId, Spec};
use socket_takeover::proto::records::RefuseCode;
use socket_takeover::takeover::limits::raise_nofile;
use socket_takeover::takeover::rendezvous::{
    self, ConnectError, Offer, Probe, PublishError, Replace, TakeoverPath,
};
use socket_takeover::takeover::{Ending, Moment, Report, Takeover};

use super::handover::peers;
use super::listener::Listener;
use super::peer::Peer;
use super::{Server, Shown};
use crate::cli::{Options, Role};
use crate::daemon::daemonize::Readiness;
use crate::daemon::logging::Logging;
use crate::daemon::pidfile::PidFile;

const FAILURE: u8 = 1;
const NOBODY: u8 = 69;
const RETRY: u8 = 75;
const VERSION: u8 = 76;

/// How many entries of the fd_array one line shows.
const SHOWN: usize = 16;

/// Why the service cannot start; the reason has been put in words for the log.
struct Failed {
    code: u8,
    why: String,
}

impl Failed {
    fn with(code: u8, why: impl ToString) -> Failed {
        Failed {
            code,
            why: why.to_string(),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::with(FAILURE, error)
    }
}

/// Runs the service until it stops or has handed over, and returns its exit code.
pub(crate) fn run(
    options: Options,
    logging: &'static Logging,
    readiness: Option<Readiness>,
    pid_file: Option<PidFile>,
) -> u8 {
    let mut server = Server::new(logging, raise_nofile().soft);
    server.pid_file = pid_file;
    server.readiness = readiness;
    let served = match &options.role {
        Role::Serve {
            listen,
            backlog,
            idle_timeout,
            path,
        } => serve(
            &mut server,
            &options,
            *listen,
            *backlog,
            *idle_timeout,
            path.as_ref(),
        ),
        Role::TakeOver { path } => take_over(&mut server, &options, path),
    };
    if let Err(failed) = served {
        log::error!("{}", failed.why);
        server.exit = failed.code;
    }
    server.farewell()
}

/// A cold start.
fn serve(
    server: &mut Server,
    options: &Options,
    listen: SocketAddr,
    backlog: i32,
    idle_timeout: Option<Duration>,
    path: Option<&TakeoverPath>,
) -> Result<(), Failed> {
    // The port first: a second start by mistake ends here and has touched nothing else.
    let listener = Listener::bind(listen, backlog).map_err(|error| {
        Failed::with(
            FAILURE,
            format!("cannot listen on {}: {error}", Shown(listen)),
        )
    })?;
    let mut reactor = Reactor::new(Config::default())?;
    let cx = reactor.cx();
    // Before PATH is made: from then on we are to end in a way that removes it.
    watch_signals(cx)?;
    let offer = path.map(offer_at).transpose()?;
    server.idle_timeout = idle_timeout;
    let bound = listener.socket.local_addr()?;
    let number = listener.number();
    server.listener = Some(listener.add(cx)?);
    log::info!("Starting TCP server on {} (fd:{number})", Shown(bound));
    match offer {
        Some(offer) => {
            log::info!("Starting Takeover channel on [{}]", offer.path());
            Takeover::offer(server, cx, offer, 0, options.deadlines)?;
        }
        None => log::warn!("without a takeover path (-t) this service cannot be taken over"),
    }
    server.start_statistics(cx);
    server.is_ready();
    Ok(reactor.run(server)?)
}

/// The offer at a path that nobody else may own.
fn offer_at(path: &TakeoverPath) -> Result<Offer, Failed> {
    let refuse = |probe: &Probe| {
        let remedy = match probe {
            Probe::Alive => "; take over from it with -T, or choose another path",
            Probe::Original => "; choose another path",
            _ => "; it is left alone, choose another path",
        };
        Failed::with(FAILURE, format!("takeover path {path} {probe}{remedy}"))
    };
    let cannot = |error: io::Error| {
        Failed::with(
            FAILURE,
            format!("takeover path {path} cannot be made: {error}"),
        )
    };
    match rendezvous::probe(path).map_err(cannot)? {
        Probe::Free | Probe::Stale => {}
        taken => return Err(refuse(&taken)),
    }
    if path.is_exposed() {
        log::warn!("the directory of takeover path {path} can be written by others");
    }
    let mut offer = Offer::bind(path).map_err(cannot)?;
    offer.publish(Replace::Stale).map_err(|error| match error {
        PublishError::Taken(probe) => refuse(&probe),
        other => Failed::with(FAILURE, format!("takeover path {path}: {other}")),
    })?;
    Ok(offer)
}

/// A start as successor.
fn take_over(server: &mut Server, options: &Options, path: &TakeoverPath) -> Result<(), Failed> {
    let mut reactor = Reactor::new_held(Config::default())?;
    let cx = reactor.cx();
    // Before the donor hears of us: it may pass on a SIGTERM.
    watch_signals(cx)?;
    let (channel, donor) = rendezvous::connect(path).map_err(|error| {
        let (code, remedy) = match &error {
            ConnectError::Nobody(_) => (NOBODY, "; start the service without -T"),
            ConnectError::Busy => (RETRY, "; try again later"),
            ConnectError::Original => (FAILURE, "; such a server cannot be taken over"),
            ConnectError::NotASocket(_) | ConnectError::Foreign { .. } | ConnectError::Other(_) => {
                (FAILURE, "")
            }
            _ => (FAILURE, ""),
        };
        Failed::with(code, format!("takeover path {path} {error}{remedy}"))
    })?;
    log::info!("Taking over from {donor} at [{path}]");
    let offer = Offer::bind(path).map_err(|error| {
        Failed::with(
            FAILURE,
            format!("the next takeover cannot be offered at {path}: {error}"),
        )
    })?;
    Takeover::take_over(server, cx, channel, donor, offer, options.deadlines)?;
    Ok(reactor.run(server)?)
}

fn watch_signals(cx: &mut Cx<Server>) -> io::Result<()> {
    // The source unblocks what it has blocked when it goes, and one that comes after that
    // would end us with its own exit code in place of ours. What is blocked here stays so.
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block()?;
    let signals = Signals::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    cx.add(Spec::handover("signals"), signals, on_signals)
        .map_err(|refused| refused.error)?;
    Ok(())
}

fn on_signals(
    signals: &mut Signals,
    server: &mut Server,
    cx: &mut Cx<Server>,
    _: Event,
) -> io::Result<Next> {
    while let Some(signal) = signals.read()? {
        match signal.signo {
            libc::SIGHUP => server.logging.reopen(),
            number if server.stopping => {
                log::warn!("signal {number} again: leaving at once");
                if cx.is_held() {
                    // Whoever claims the lease that is out has our locked pid file too.
                    server.pid_file = None;
                }
                std::process::exit(server.farewell().into());
            }
            number => {
                server.stopping = true;
                log::info!("signal {number} from pid {}: stopping", signal.pid);
                Takeover::term(server, cx);
            }
        }
    }
    Ok(Next::Keep)
}

impl Server {
    /// See [`Moment`].
    pub(super) fn on_moment(&mut self, cx: &mut Cx<Server>, moment: Moment) {
        match moment {
            Moment::Preload => {
                let shown = fd_array(cx);
                log::info!("Current fd_array:={shown}");
            }
            Moment::RolledBack(report) => {
                log::warn!("takeover failed, we serve on: {}; {report}", report.failure);
            }
            Moment::Released(report) => self.released(cx, &report),
            Moment::Exit => cx.stop(),
            Moment::Orphaned(report, declined) => self.orphaned(cx, &report, &declined),
            Moment::Stop => self.stop(cx),
            Moment::Active(report) => self.active(cx, &report),
            Moment::Left(report, ending) => {
                self.listener = None;
                self.peers = 0;
                self.exit = match ending {
                    Ending::Refused(RefuseCode::Version | RefuseCode::Features) => VERSION,
                    Ending::Refused(_)
                    | Ending::DonorServes
                    | Ending::Unanswered
                    | Ending::Stopped => RETRY,
                    Ending::DonorDied => FAILURE,
                };
                let remedy = match ending {
                    Ending::DonorDied => {
                        "the donor has died or was stopped; start the service without -T"
                    }
                    Ending::Unanswered => "another taker was faster, or it has died; try again",
                    Ending::Refused(_) | Ending::DonorServes | Ending::Stopped => {
                        "the donor serves on"
                    }
                };
                log::error!("not taken over: {}; {remedy}; {report}", report.failure);
                cx.stop();
            }
        }
    }

    fn released(&mut self, cx: &mut Cx<Server>, report: &Report) {
        log::info!("Holding connections with {} Peers", self.peers);
        for_each_peer(cx, |peer| log::debug!("Holding connection with {peer}"));
        log::info!(
            "Releasing {} items to pid {}: {report}",
            report.items,
            report.other
        );
        for_each_peer(cx, |peer| log::debug!("Releasing {peer}"));
        self.listener = None;
        self.statistics = None;
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.forget();
        }
        match report.declined {
            0 => log::info!("released"),
            declined => log::info!("released; draining {declined} declined Peers"),
        }
    }

    fn orphaned(&mut self, cx: &mut Cx<Server>, report: &Report, declined: &[SourceId]) {
        let mut ended = peers(cx);
        ended.retain(|id| !declined.contains(id));
        log::error!(
            "the new owner (pid {}) died right after it took over: {} Peers are lost, new ones \
             are served; {report}",
            report.other,
            ended.len(),
        );
        for id in ended {
            if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.take(handle)) {
                self.peer_ended(&peer, cx, "lost with its owner");
            }
        }
        if let Some(pid_file) = &self.pid_file
            && let Err(error) = pid_file.write()
        {
            log::warn!("pid file: {error}");
        }
    }

    fn active(&mut self, cx: &mut Cx<Server>, report: &Report) {
        // First, so that it is true when the log says that we serve.
        self.move_into_pid_file();
        if let Some(listener) = self.listener.and_then(|handle| cx.get(handle)) {
            match listener.socket.local_addr() {
                Ok(address) => log::info!(
                    "Serving on {} (fd:{}) with {} Peers",
                    Shown(address),
                    listener.number(),
                    self.peers
                ),
                Err(error) => log::warn!("the listener has no address: {error}"),
            }
        }
        log::info!("taken over from pid {}: {report}", report.other);
        for_each_peer(cx, |peer| log::debug!("Starting connection with {peer}"));
        self.start_statistics(cx);
        self.is_ready();
    }

    /// The donor's pid file becomes ours, unless we were given one: then the donor's, which
    /// would go on naming a process that is gone, is removed.
    fn move_into_pid_file(&mut self) {
        let moved = match (&self.pid_file, self.donors_pid_file.take()) {
            (None, Some(donors)) => self.pid_file.insert(donors).write(),
            (Some(_), Some(donors)) => donors.remove(),
            (_, None) => Ok(()),
        };
        if let Err(error) = moved {
            log::warn!("pid file: {error}");
        }
    }

    /// Everything that has arrived is answered in one last turn, then the peers are ended.
    fn stop(&mut self, cx: &mut Cx<Server>) {
        cx.hold(|server, cx| {
            for id in peers(cx) {
                if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.take(handle)) {
                    peer.end();
                }
            }
            server.log_statistics();
            // A taker that hangs may hold a copy; the port would stay taken, by nobody.
            if let Some(listener) = server.listener.take().and_then(|handle| cx.take(handle)) {
                listener.end();
            }
            cx.stop();
        });
    }

    /// The start is over and went well.
    fn is_ready(&mut self) {
        if let Some(readiness) = self.readiness.take() {
            readiness.report(0);
        }
    }

    /// What is left to do on the way out; returns the exit code.
    fn farewell(&mut self) -> u8 {
        if let Some(pid_file) = self.pid_file.take()
            && let Err(error) = pid_file.remove()
        {
            log::warn!("pid file: {error}");
        }
        if let Some(readiness) = self.readiness.take() {
            readiness.report(self.exit);
        }
        self.exit
    }
}

/// For lines that name each peer: only walks them if such lines are wanted.
fn for_each_peer(cx: &mut Cx<Server>, line: impl Fn(&Peer)) {
    if log::log_enabled!(log::Level::Debug) {
        for id in peers(cx) {
            if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.get(handle)) {
                line(peer);
            }
        }
    }
}

/// The descriptors that are about to travel, as the log shows them: listener first.
fn fd_array(cx: &mut Cx<Server>) -> String {
    use std::fmt::Write;
    use std::os::fd::AsRawFd;
    let mut ids = Vec::with_capacity(cx.items_len());
    cx.items(&mut ids);
    let mut out = String::from("{");
    for fd in ids.iter().take(SHOWN).filter_map(|id| cx.fd(*id)) {
        let _ = write!(out, "[{}]", fd.as_raw_fd());
    }
    if ids.len() > SHOWN {
        let _ = write!(out, "… {} in all", ids.len());
    }
    out.push('}');
    out
}
