//! Lines to the local syslog daemon, without ever waiting for it.
//!
//! The `syslog` crate gives the vocabulary (facilities, severities, its [`LogFormat`]).
//! Transport and line format are ours, because the crate's
//! - socket blocks: a syslog daemon that hangs would stop the loop after
//!   net.unix.max_dgram_qlen lines;
//! - backend never connects again once the daemon was restarted;
//! - RFC 3164 stamp is UTC where the RFC wants local time.
//!
//! The socket is one for datagrams or, as syslog-ng and others make it, for a stream. Each
//! connection tries which one it is, in the order of syslog(3). On a stream a message ends with a
//! NUL. If the daemon has taken only a part of a message, the rest is sent before the next message.
//! If the daemon went away meanwhile, the whole message is sent once more to the next one. So no
//! message is torn.
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
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use log::Level;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use syslog::{Facility, LogFormat, Severity};

use super::sink::{Line, Sink};
use super::writer::same;

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
    /// The message being made, kept for its room.
    message: Vec<u8>,
    /// The message before, if a stream has taken only a part of it.
    cut: Option<Cut>,
}

#[derive(Debug)]
struct Cut {
    message: Vec<u8>,
    /// Bytes that the present link has taken.
    taken: usize,
}

#[derive(Debug)]
enum Link {
    Up(Socket),
    Down(io::Error),
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    kind: SockType,
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
            link: connected(path),
            tried: Instant::now(),
            message: Vec::new(),
            cut: None,
        }
    }

    /// Connects anew at once, whatever the state.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.tried = now;
        self.link = connected(&self.path);
        if let Some(cut) = &mut self.cut {
            cut.taken = 0;
        }
    }

    /// Sends the message over the present link, behind what is left of the one before.
    fn transmit(&mut self) -> io::Result<()> {
        let socket = match &self.link {
            Link::Up(socket) => socket,
            Link::Down(error) => return Err(same(error)),
        };
        let sent = finish(socket, &mut self.cut).and_then(|()| socket.send(&self.message, 0));
        match sent {
            Ok(taken) => {
                if socket.is_short(&self.message, taken) {
                    let message = self.message.clone();
                    self.cut = Some(Cut { message, taken });
                }
                Ok(())
            }
            Err(error) => {
                if !keeps_the_link(&error) {
                    self.link = Link::Down(same(&error));
                }
                Err(error)
            }
        }
    }
}

/// Sends the rest of a message that was cut.
fn finish(socket: &Socket, cut: &mut Option<Cut>) -> io::Result<()> {
    while let Some(Cut { message, taken }) = cut {
        *taken += socket.send(message, *taken)?;
        if !socket.is_short(message, *taken) {
            *cut = None;
        }
    }
    Ok(())
}

impl Socket {
    /// Sends the message from byte `from` on, or a part of that on a stream; returns how many
    /// bytes went out.
    fn send(&self, message: &[u8], from: usize) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let framed;
        let bytes = match self.kind {
            SockType::Stream => {
                framed = [message, b"\0"].concat();
                &framed[from..]
            }
            _ => message,
        };
        Ok(send(self.fd.as_raw_fd(), bytes, flags)?)
    }

    fn is_short(&self, message: &[u8], taken: usize) -> bool {
        self.kind == SockType::Stream && taken <= message.len()
    }
}

impl Sink for SyslogSink {
    fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.message.clear();
        self.format
            .format(&mut self.message, severity(line.level), line.text)
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

/// Neither call waits: of a stream whose queue of connections is full it is EAGAIN (unix(7)).
fn connected(path: &Path) -> Link {
    let by = |kind| -> nix::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, kind, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Socket { fd, kind })
    };
    let opened = match by(SockType::Datagram) {
        Err(Errno::EPROTOTYPE) => by(SockType::Stream),
        opened => opened,
    };
    match opened {
        Ok(socket) => Link::Up(socket),
        Err(error) => Link::Down(error.into()),
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
