//! One of the two connections of a relayed client, and what passes from it to the other.
//!
//! ```text
//!              read                  unsent                write
//!   leg A ───────────────▶ B.unsent ─────────▶ leg B         and the same from B to A
//!     end of stream: B.out = Closing, Closed once the last byte is written (shutdown, FIN)
//! ```
//!
//! Back-pressure: A is not read while B has something unsent, so a client that does not read
//! fills the kernel's buffers and not ours. The one that gets rid of its bytes resumes the
//! other, whose readiness was reported before and would not be again.
//!
//! State, version 1: out (0 open, 1 closing, 2 closed), unsent bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage};
use socket_takeover::event::{Cx, Handle, Interest, Next, Spec};

use crate::Relay;

pub(crate) struct Leg {
    stream: TcpStream,
    /// Set as soon as both are in the reactor.
    pub(crate) partner: Option<Handle<Leg>>,
    /// Read from the partner.
    unsent: Vec<u8>,
    out: Half,
}

/// The direction in which we write.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    Open,
    /// The partner has ended; it is said here once everything is sent.
    Closing,
    Closed,
}

impl AsFd for Leg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl From<TcpStream> for Leg {
    fn from(stream: TcpStream) -> Leg {
        Leg {
            stream,
            partner: None,
            unsent: Vec::new(),
            out: Half::Open,
        }
    }
}

impl Leg {
    /// Begins to connect. It is done when the socket becomes writable; until then reading and
    /// writing say `WouldBlock`, so nothing else has to know.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Leg> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        Ok(Leg::from(stream))
    }

    /// Gives it to the reactor. Both directions are always of interest: with edges, what is
    /// not acted upon costs nothing.
    pub(crate) fn add(self, cx: &mut Cx<Relay>) -> io::Result<Handle<Leg>> {
        let spec = Spec::item("leg").interest(Interest::Both);
        Ok(cx.add(spec, self, |leg, _, cx, _| {
            let passed = leg.pass(cx);
            if !matches!(passed, Ok(Next::Keep | Next::Again)) {
                leg.end();
                if let Some(partner) = leg.partner.and_then(|partner| cx.take(partner)) {
                    partner.end();
                }
            }
            passed
        })?)
    }

    /// Whether it has a peer: not while it is being connected, nor after a reset.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.peer_addr().is_ok()
    }

    /// Ends it for every holder of the socket, a successor that has failed included.
    pub(crate) fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// True if there is something to send, which is to be tried without waiting for an event.
    pub(crate) fn save(&self, out: &mut Vec<u8>) -> bool {
        out.push(self.out as u8);
        out.extend_from_slice(&self.unsent);
        !self.unsent.is_empty() || self.out == Half::Closing
    }

    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        (self.out, self.unsent) = match state {
            [0, unsent @ ..] => (Half::Open, unsent.to_vec()),
            [1, unsent @ ..] => (Half::Closing, unsent.to_vec()),
            [2] => (Half::Closed, Vec::new()),
            _ => return Err("no state of a leg".into()),
        };
        Ok(())
    }

    /// All that can be done for this leg now.
    fn pass(&mut self, cx: &mut Cx<Relay>) -> io::Result<Next> {
        let Some(partner) = self.partner else {
            return Ok(Next::Keep);
        };
        let was_blocked = !self.unsent.is_empty();
        self.flush()?;
        if was_blocked && self.unsent.is_empty() {
            cx.resume_later(partner);
        }
        let mut bytes = [0; 16 * 1024];
        for _ in 0..cx.budget() {
            let Some(other) = cx.get_mut(partner) else {
                return Ok(Next::End);
            };
            if self.out == Half::Closed && other.out == Half::Closed {
                return Ok(Next::End);
            }
            if other.out != Half::Open || !other.unsent.is_empty() {
                return Ok(Next::Keep);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => other.out = Half::Closing,
                Ok(length) => other.unsent.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            other.flush()?;
        }
        Ok(Next::Again)
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A shutdown would break off a connection that is being made (`inet_shutdown`).
        if self.out == Half::Closing && self.is_connected() {
            self.stream.shutdown(Shutdown::Write)?;
            self.out = Half::Closed;
        }
        Ok(())
    }
}
