//! The service: one listener, its peers and the takeover on one reactor.
//!
//! ```text
//!   main ─▶ run ─┬─ cold start: bind, offer PATH ────────────────┐
//!                ├─ -T: connect to PATH, receive, claim ─────────┤
//!                └─ -T: the original program is at PATH, adopt ┴─▶ serve ─▶ exit code
//! ```
//!
//! | file | open it for |
//! |---|---|
//! | `server/service.rs` | the start, what a takeover's outcome means here, the way out |
//! | `server/failure.rs` | why a start or a takeover failed, what to do, exit codes |
//! | `server/listener.rs` | the listener, and what the log says of it |
//! | `server/peer.rs` | one connection |
//! | `server/handover.rs` | which items there are, and how each is saved and restored |
//! | `server/pid.rs` | the pid file |
//! | `server/reporting.rs` | the file of reports, and the process that waits for the end of the start |
//! | `server/original/` | taking over from the original program |
//! | `server/from_original.rs` | going on for the original program |
//! | `server/neighbour.rs` | which other process is in the way of a start |

mod failure;
mod from_original;
mod handover;
mod listener;
mod neighbour;
mod original;
mod peer;
mod pid;
mod reporting;
mod service;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket_takeover::event::{Acceptor, Class, Cx, Handle, Time, TimerId};
use socket_takeover::takeover::{RateLimit, Takeover};

use crate::daemon::daemonize::Readiness;
use crate::daemon::logging::Logging;
use crate::daemon::pidfile::PidFile;
use crate::daemon::report::ReportFile;
pub(crate) use handover::STATE_VERSION;
use peer::Peer;
pub(crate) use service::run;

/// How often the counters are logged.
const STATISTICS: Duration = Duration::from_secs(60);

/// Lines about takeovers that may come at once, and how often they may in the long run.
const TAKEOVERS: (u32, Duration) = (32, Duration::from_secs(1));

/// Counters since the cold start; they travel and never go backwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) messages: u64,
}

/// The state that every callback gets.
#[derive(Debug)]
pub(crate) struct Server {
    /// None until a taker has received it, and once it was handed over.
    listener: Option<Handle<Acceptor>>,
    peers: usize,
    most_peers: usize,
    idle_timeout: Option<Duration>,
    /// Where every peer's bytes are read to.
    scratch: Box<[u8]>,
    counters: Counters,
    statistics: Option<TimerId>,
    /// When the statistics are due, as the donor has told a taker.
    statistics_due: Option<Time>,
    pid_file: Option<PidFile>,
    /// The donor's pid file, which is not ours before the takeover has succeeded.
    donors_pid_file: Option<pid::Donors>,
    /// The name of a pid file that could not be used.
    missing_pid_file: Option<PathBuf>,
    /// Where to say what each takeover did.
    report: Option<ReportFile>,
    /// The timer that looks after lines that wait to be written.
    lines: Option<TimerId>,
    takeover: Takeover,
    /// Limits the lines that say that a takeover has begun, and that it has failed.
    begun: RateLimit,
    failed: RateLimit,
    logging: &'static Logging,
    /// The process that waits to hear how the start went.
    readiness: Option<Readiness>,
    /// When the start was over, until that process has been told.
    ready_since: Option<Time>,
    /// SIGTERM has come. A second one ends the process at once.
    stopping: bool,
    /// How the process ends.
    exit: u8,
}

impl Server {
    fn new(logging: &'static Logging, nofile: usize) -> Server {
        Server {
            listener: None,
            peers: 0,
            most_peers: listener::most_peers(nofile),
            idle_timeout: None,
            scratch: vec![0; peer::BUFFER].into_boxed_slice(),
            counters: Counters::default(),
            statistics: None,
            statistics_due: None,
            pid_file: None,
            donors_pid_file: None,
            missing_pid_file: None,
            report: None,
            lines: None,
            takeover: Takeover::default(),
            begun: RateLimit::new(TAKEOVERS.0, TAKEOVERS.1),
            failed: RateLimit::new(TAKEOVERS.0, TAKEOVERS.1),
            logging,
            readiness: None,
            ready_since: None,
            stopping: false,
            exit: 0,
        }
    }

    /// The peer's callback ends it.
    fn peer_ended(&mut self, peer: &Peer, why: &str) {
        peer.end();
        self.peers -= 1;
        log::debug!("{peer} ended: {why}");
    }

    fn log_statistics(&self) {
        log::info!(
            "{} peers, {} accepted, {} messages; log lines dropped: {:?}, of reports: {}",
            self.peers,
            self.counters.accepted,
            self.counters.messages,
            self.logging.lost(),
            self.report.as_ref().map_or(0, ReportFile::lost),
        );
    }

    /// Logs the counters now and then. The timer travels.
    fn start_statistics(&mut self, cx: &mut Cx<Server>) {
        let at = self
            .statistics_due
            .take()
            .unwrap_or_else(|| cx.now() + STATISTICS);
        let timer = cx.timer(Class::Item, "statistics", at, |server: &mut Server, cx| {
            server.log_statistics();
            Some(cx.now() + STATISTICS)
        });
        self.statistics = Some(timer);
    }
}

/// An address as the log has always shown it: `[host]:port`, a link-local one with the number of
/// its interface.
#[derive(Debug, Clone, Copy)]
struct LogAddress(SocketAddr);

impl fmt::Display for LogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // `[fe80::1%2]:80`
            SocketAddr::V6(address) if address.scope_id() > 0 => address.fmt(f),
            address => write!(f, "[{}]:{}", address.ip(), address.port()),
        }
    }
}
