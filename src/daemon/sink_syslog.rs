//! Lines to the local syslog daemon, without ever waiting for it.
//!
//! The `syslog` crate gives the vocabulary (facilities, severities, its [`LogFormat`]).
//! Transport and line format are ours, because the crate's
//! - socket blocks: a syslog daemon that hangs would stop the loop after
//!   net.unix.max_dgram_qlen lines;
//! - backend never connects again once the daemon was restarted;
//! - RFC 3164 stamp is UTC where the RFC wants local time.
//!
//! ```text
//!            ECONNREFUSED, ENOTCONN, …: the daemon went away
//!      Up ───────────────────────────────────────────────────→ Down
//!      ↑ │ EAGAIN: its queue is full, the line is lost           │
//!      └─┘                                                       │
//!      ↑                connected, at most one try a second      │
//!      └─────────────────────────────────────────────────────────┘
//! ```

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use log::Level;
use syslog::{Facility, LogFormat, Severity};

use super::logging::{Line, Sink};

#[cfg(test)]
mod tests;

/// The name that a line carries.
const TAG: &str = "socket-takeover";

/// Least time between two tries to connect: a service that logs a lot must not spend its
/// time on a daemon that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// A syslog socket, connected or to be connected again.
#[derive(Debug)]
pub(super) struct SyslogSink {
    path: PathBuf,
    format: LocalFormat,
    link: Link,
    /// When a connection was last tried.
    tried: Instant,
    /// The line being made, kept for its room.
    datagram: Vec<u8>,
}

#[derive(Debug)]
enum Link {
    Up(UnixDatagram),
    Down(io::Error),
}

impl SyslogSink {
    /// A sink that logs under `facility` to the daemon whose socket is at `path`. If there is
    /// none, each line fails until there is one.
    pub(super) fn at(path: &Path, facility: Facility) -> Self {
        Self {
            path: path.to_owned(),
            format: LocalFormat {
                facility,
                pid: process::id(),
            },
            link: connect(path),
            tried: Instant::now(),
            datagram: Vec::new(),
        }
    }

    /// Connects anew at once, whatever the state.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.tried = now;
        self.link = connect(&self.path);
    }

    /// Sends the datagram over the present link.
    fn transmit(&mut self) -> io::Result<()> {
        match &self.link {
            Link::Up(socket) => match socket.send(&self.datagram) {
                Ok(_) => Ok(()),
                Err(error) if keeps_the_link(&error) => Err(error),
                Err(error) => {
                    self.link = Link::Down(same(&error));
                    Err(error)
                }
            },
            Link::Down(error) => Err(same(error)),
        }
    }
}

impl Sink for SyslogSink {
    fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.datagram.clear();
        self.format
            .format(&mut self.datagram, severity(line.level), line.text)
            .map_err(io::Error::other)?;
        let first = self.transmit();
        let down = matches!(self.link, Link::Down(_));
        if down && line.at.saturating_duration_since(self.tried) >= RETRY {
            self.reopen(line.at);
            return self.transmit();
        }
        first
    }
}

/// `<priority>tag[pid]: text`, RFC 3164 without its stamp: the daemon on the same machine
/// adds the time of arrival (§4.3.2, as rsyslogd, syslog-ng and journald do), and it knows
/// the local time zone.
#[derive(Debug, Clone, Copy)]
struct LocalFormat {
    facility: Facility,
    pid: u32,
}

impl LogFormat<&str> for LocalFormat {
    fn format<W: Write>(&self, to: &mut W, severity: Severity, text: &str) -> syslog::Result<()> {
        let priority = self.facility as u8 | severity as u8;
        write!(to, "<{priority}>{TAG}[{}]: {text}", self.pid).map_err(syslog::Error::Write)
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    }
}

fn connect(path: &Path) -> Link {
    let opened = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(socket)
    });
    match opened {
        Ok(socket) => Link::Up(socket),
        Err(error) => Link::Down(error),
    }
}

/// Errors that concern this line alone; after any other the socket is of no use.
fn keeps_the_link(error: &io::Error) -> bool {
    match error.raw_os_error() {
        // Its queue is full, or the kernel is short of memory for the moment.
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => true,
        // The line is longer than the socket takes; the next one need not be.
        Some(libc::EMSGSIZE) => true,
        Some(libc::EINTR) => true,
        _ => false,
    }
}

/// The same error once more: io::Error has no Clone.
fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}
