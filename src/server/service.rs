//! Start, what a takeover's outcome means to the service, and the way out.
//!
//! Exit codes: 0 stopped or handed over, otherwise as [`StartError::exit_code`] says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use socket_takeover::event::{Cx, Event, Next, Signals, SourceId, Spec, Time};
use socket_takeover::sys::inherited_fds;
use socket_takeover::takeover::internal::limits::raise_nofile;
use socket_takeover::takeover::{ConnectError, Error, Moment, Probe, Report, Start, Takeover};

use super::failure::StartError;
use super::handover::peers;
use super::listener;
use super::neighbour;
use super::peer::Peer;
use super::{LogAddress, Server};
use crate::cli::{Options, Role};
use crate::daemon::daemonize::Readiness;
use crate::daemon::logging::Logging;
use crate::daemon::pidfile::PidFile;
use crate::daemon::report::ReportFile;

/// How many entries of the fd_array one line shows.
const SHOWN: usize = 16;

/// Inherited descriptors for which there is room in the reserve (`RESERVE`). A takeover, logs and
/// files need less than half of the reserve.
const INHERITED: usize = 16;

/// When signals are asked for again after they could not be read.
const SIGNALS: Duration = Duration::from_millis(100);

/// Runs the service until it stops or has handed over, and returns its exit code.
pub(crate) fn run(
    options: Options,
    logging: &'static Logging,
    readiness: Option<Readiness>,
    pid_file: Option<PidFile>,
    report: Option<ReportFile>,
) -> u8 {
    let mut server = Server::new(logging, slots());
    server.pid_file = pid_file;
    server.readiness = readiness;
    server.report = report;
    if let Err(error) = serve(&mut server, &options) {
        log::error!("{error}{}", error.remedy(&options));
        server.exit = error.exit_code();
    }
    server.shut_down()
}

/// How many descriptors this process can have of its own. In the foreground inherited descriptors
/// stay open, because one may be somebody's way to watch this process (a daemon closes them). A few
/// of them fit into the reserve that peers leave; each further one takes the place of a peer.
fn slots() -> usize {
    let others = inherited_fds().len().saturating_sub(INHERITED);
    raise_nofile().soft.saturating_sub(others)
}

fn serve(server: &mut Server, options: &Options) -> Result<(), StartError> {
    let start = match &options.role {
        Role::Serve { path: None, .. } => Start::alone(),
        Role::Serve {
            path: Some(path), ..
        } => Start::offer(path.clone()),
        Role::TakeOver { path } => Start::take_over(path.clone()),
    };
    let start = start
        .deadlines(options.deadlines)
        .check_positions(options.check_positions)
        .any_network(options.any_network);
    let mut reactor = start.reactor()?;
    let cx = reactor.cx();
    // Before PATH is made, which we are to remove again, and before the donor hears of us: it
    // may pass on a SIGTERM.
    watch_signals(cx)?;
    if let Role::Serve {
        listen,
        backlog,
        idle_timeout,
        path,
    } = &options.role
    {
        server.open(cx, *listen, *backlog)?;
        server.idle_timeout = *idle_timeout;
        server.start_statistics(cx);
        if path.is_none() {
            log::warn!("without a takeover path (-t) this service cannot be taken over");
        }
    }
    match start.begin(server, cx) {
        Err(Error::Connect {
            path,
            why: ConnectError::NoDonor(Probe::OtherProtocol),
        }) => server.adopt_original(cx, &path, options.deadlines)?,
        begun => begun?,
    }
    reactor.run(server)?;
    Ok(server.takeover.outcome()?)
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
    event: Event,
) -> io::Result<Next> {
    loop {
        let signal = match signals.read() {
            Ok(Some(signal)) => signal,
            Ok(None) => return Ok(Next::Keep),
            Err(error) => {
                // For any error: a service that cannot be told to stop would be worse.
                log::warn!("signals: {error}; tried again");
                cx.set_deadline(event.id(), Some(cx.now() + SIGNALS));
                return Ok(Next::Keep);
            }
        };
        match signal.signo {
            libc::SIGHUP => {
                server.logging.reopen();
                server.restore_pid_file();
            }
            number if server.stopping => {
                log::warn!("signal {number} again: leaving at once");
                Takeover::term(server, cx);
                if server.takeover.may_leave() {
                    server.leave_at_once(cx);
                }
            }
            number => {
                server.stopping = true;
                log::info!("signal {number} from pid {}: stopping", signal.pid);
                Takeover::term(server, cx);
            }
        }
    }
}

impl Server {
    /// Binds the port first: a second start by mistake ends here, and has touched nothing else.
    fn open(&mut self, cx: &mut Cx<Server>, listen: SocketAddr, backlog: i32) -> io::Result<()> {
        let listener = listener::bind(listen, backlog).map_err(|error| {
            let by = match error.kind() {
                io::ErrorKind::AddrInUse => neighbour::holder_of(listen.port()),
                _ => None,
            };
            let by = by.map_or_else(String::new, |holder| format!(", by {holder}"));
            let what = format!("cannot listen on {}: {error}{by}", LogAddress(listen));
            io::Error::new(error.kind(), what)
        })?;
        let bound = listener.local_addr()?;
        let number = listener::number(&listener);
        self.listener = Some(listener::add(listener, self, cx)?);
        log::info!("Starting TCP server on {} (fd:{number})", LogAddress(bound));
        if let Some(longest) = listener::longest_backlog().filter(|longest| *longest < backlog) {
            log::warn!(
                "no more than {longest} clients can wait to be accepted, not {backlog}; raise \
                 net.core.somaxconn, or say -b {longest}"
            );
        }
        Ok(())
    }

    /// See [`Moment`].
    pub(super) fn on_moment(&mut self, cx: &mut Cx<Server>, moment: Moment) {
        self.report(cx, &moment);
        match moment {
            Moment::Open => self.is_ready(cx),
            Moment::Preload => {
                if let Some(suppressed) = self.begun.allow(Time::now()) {
                    let shown = fd_array(cx);
                    log::info!("Current fd_array:={shown}{suppressed}");
                }
            }
            Moment::RolledBack(report) => {
                if let Some(suppressed) = self.failed.allow(Time::now()) {
                    let failure = &report.failure;
                    log::warn!("takeover failed, we serve on: {failure}; {report}{suppressed}");
                }
            }
            // The library says it, and says it again each minute.
            Moment::Held(_) => {}
            Moment::Released(report) => self.released(cx, &report),
            Moment::Exit => cx.stop(),
            Moment::Orphaned(report, declined) => self.orphaned(cx, &report, &declined),
            Moment::Stop => self.stop(cx),
            Moment::Owner => self.move_into_pid_file(),
            Moment::Active(report) => self.active(cx, &report),
            Moment::Left(report, _) => {
                self.listener = None;
                self.peers = 0;
                log::info!("the attempt: {report}");
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
                self.peer_ended(&peer, "lost with its owner");
            }
        }
        self.renew_pid_file();
    }

    fn active(&mut self, cx: &mut Cx<Server>, report: &Report) {
        if let Some(listener) = self.listener.and_then(|handle| cx.get(handle)) {
            match listener.local_addr() {
                Ok(address) => log::info!(
                    "Serving on {} (fd:{}) with {} Peers",
                    LogAddress(address),
                    listener::number(listener),
                    self.peers
                ),
                Err(error) => log::warn!("the listener has no address: {error}"),
            }
        }
        log::info!("taken over from pid {}: {report}", report.other);
        for_each_peer(cx, |peer| log::debug!("Starting connection with {peer}"));
        self.start_statistics(cx);
        self.is_ready(cx);
    }

    /// Answers everything that has arrived, in one last turn. Then the peers are ended.
    fn stop(&mut self, cx: &mut Cx<Server>) {
        cx.hold(|server, cx| {
            server.end_all(cx);
            server.log_statistics();
            cx.stop();
        });
    }

    /// Ends what we own, for all its holders. A taker that hangs may have copies: without this its
    /// peers would hear nothing, and the port would stay taken by nobody.
    fn end_all(&mut self, cx: &mut Cx<Server>) {
        for id in peers(cx) {
            if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.take(handle)) {
                peer.end();
            }
        }
        if let Some(listener) = self.listener.take().and_then(|handle| cx.take(handle))
            && let Err(error) = listener.end()
        {
            log::warn!("the listener: {error}");
        }
    }

    /// Ends the process within its callback. What was handed over has been closed here already.
    fn leave_at_once(&mut self, cx: &mut Cx<Server>) -> ! {
        // A taker that has left owns nothing, and its exit code says so.
        match self.takeover.outcome() {
            Ok(()) => self.end_all(cx),
            Err(error) => self.exit = error.exit_code(),
        }
        std::process::exit(self.shut_down().into());
    }
}

/// Walks the peers for lines that name each, but only if such lines are wanted.
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
