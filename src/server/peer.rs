//! One client connection: read, echo, and nothing else.
//!
//! A peer that does not read what it is sent is not read from. Output that the kernel did not take
//! waits in the session (one read's worth at most), and the peer goes on when the socket has room
//! again. An idle peer owns no buffer: all peers read into the server's.
//!
//! Ending a peer is the owner's explicit act: `shutdown`, then close. A taker that failed and hangs
//! may still hold a copy of the socket, and a plain close would then tell the client nothing.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket_takeover::event::{Cx, Event, Handle, Interest, Next, Spec};
use socket_takeover::proto::sequence::Session;

use super::{LogAddress, Server};

/// One read's worth; also the most that may wait unsent for one peer.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Full reads of one peer before the others have their turn. One is 64 KiB already: beside it,
/// asking the kernel who else is ready costs nothing.
const READS: u32 = 1;

/// See the file's own description.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) session: Session,
    /// The address it connected from, which is known even after the peer has gone.
    pub(crate) address: SocketAddr,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// As log lines name it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.stream.as_raw_fd();
        write!(f, "Peer {} (fd:{number})", LogAddress(self.address))
    }
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, address: SocketAddr) -> Peer {
        Peer {
            stream,
            session: Session::default(),
            address,
        }
    }

    /// Gives the peer to the reactor.
    pub(crate) fn add(self, server: &Server, cx: &mut Cx<Server>) -> io::Result<Handle<Peer>> {
        let interest = if self.session.may_read() {
            Interest::Read
        } else {
            Interest::Both
        };
        let mut spec = Spec::item("peer").interest(interest).budget(READS);
        if let Some(idle) = server.idle_timeout {
            spec = spec.deadline(cx.now() + idle);
        }
        cx.add(spec, self, dispatch)
            .map_err(|refused| refused.error)
    }

    /// Ends the connection for every holder of the socket.
    pub(crate) fn end(&self) {
        // A peer that has reset the connection has nothing left to shut down.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends what waits. True if nothing waits any more.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.session.may_read() {
            match self.stream.write(self.session.output()) {
                Ok(sent) => self.session.sent(sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends `bytes`; what the kernel does not take waits in the session.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.session.queue(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn dispatch(
    peer: &mut Peer,
    server: &mut Server,
    cx: &mut Cx<Server>,
    event: Event,
) -> io::Result<Next> {
    let served = serve(peer, server, cx, event);
    match &served {
        Ok(Next::Keep | Next::Again) => {
            let interest = if peer.session.may_read() {
                Interest::Read
            } else {
                Interest::Both
            };
            if let Err(error) = cx.set_interest(event.id(), interest) {
                server.peer_ended(peer, &error.to_string());
                return Ok(Next::End);
            }
        }
        Ok(Next::End) => server.peer_ended(peer, "closed"),
        Err(error) => {
            server.peer_ended(peer, &error.to_string());
            return Ok(Next::End);
        }
    }
    served
}

fn serve(
    peer: &mut Peer,
    server: &mut Server,
    cx: &mut Cx<Server>,
    event: Event,
) -> io::Result<Next> {
    if event.is_timeout() {
        return Err(io::Error::new(ErrorKind::TimedOut, "idle for too long"));
    }
    if let Some(idle) = server.idle_timeout {
        cx.set_deadline(event.id(), Some(cx.now() + idle));
    }
    // Data and the end of the stream can be one event, which is then used up, and so can what
    // lies before and behind an urgent byte. One that goes on in a new process does not know
    // which event it was left with.
    let to_the_end = event.is_read_closed()
        || event.is_urgent()
        || event.is_hangup()
        || event.is_error()
        || event.is_resumed();
    for _ in 0..cx.budget() {
        if !peer.flush()? {
            return Ok(Next::Keep);
        }
        let room = &mut server.scratch[..];
        let kept = peer.session.begin(room);
        let read = match peer.stream.read(&mut room[kept..]) {
            Ok(0) => return Ok(Next::End),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
            Err(error) => return Err(error),
        };
        let before = peer.session.messages();
        let whole = peer.session.take_in(&room[..kept + read]);
        server.counters.messages += peer.session.messages() - before;
        if log::log_enabled!(log::Level::Trace) {
            trace(peer.address, &room[..whole]);
        }
        let full = kept + read == room.len();
        let echo = &server.scratch[..whole];
        peer.send(echo)?;
        if !full && !to_the_end {
            return Ok(Next::Keep);
        }
    }
    Ok(Next::Again)
}

/// One line a message, as the original shows them.
fn trace(address: SocketAddr, messages: &[u8]) {
    for message in messages.chunks_exact(4) {
        let seqnum = u32::from_be_bytes([message[0], message[1], message[2], message[3]]);
        log::trace!("{} - seqnum:{seqnum}", LogAddress(address));
    }
}
