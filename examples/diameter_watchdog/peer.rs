//! One connection: its socket, its deadline, and how both travel with the conversation.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket_takeover::event::{Cx, Event, Interest, Next, Spec, Time};
use socket_takeover::takeover::Item;

use crate::Diameter;
use crate::session::Session;

/// A peer is to be heard of twice in so long (RFC 3539 recommends a watchdog each 30 s).
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Peer {
    stream: TcpStream,
    session: Session,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// One that was just accepted, or is about to be restored.
impl From<TcpStream> for Peer {
    fn from(stream: TcpStream) -> Peer {
        let session = Session::default();
        Peer { stream, session }
    }
}

impl Peer {
    /// Gives it to the reactor. Accepted or handed over, a peer is served in the same way.
    pub(crate) fn add(self, cx: &mut Cx<Diameter>, until: Option<Time>) -> io::Result<Item> {
        let until = until.unwrap_or(cx.now() + SILENCE);
        let spec = Spec::item("peer").interest(Interest::Both).deadline(until);
        let added = cx.add(spec, self, |peer, app, cx, event| {
            let served = peer.serve(app, cx, event);
            if !matches!(served, Ok(Next::Keep | Next::Again)) {
                // For every holder of the socket, a successor that has failed included.
                let _ = peer.stream.shutdown(Shutdown::Both);
            }
            served
        })?;
        Ok(added.into())
    }

    /// True if there is something to send, which is to be tried without waiting for an event.
    pub(crate) fn save(&self, deadline: Option<Time>, out: &mut Vec<u8>) -> bool {
        let deadline = deadline.unwrap_or(Time::ZERO);
        out.extend_from_slice(&deadline.as_ns().to_le_bytes());
        self.session.save(out);
        !self.session.output.is_empty()
    }

    /// Returns the deadline.
    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<Time, String> {
        let (deadline, session) = state.split_first_chunk().ok_or("no deadline")?;
        self.session = Session::restore(session).ok_or("no session")?;
        Ok(Time::from_ns(u64::from_le_bytes(*deadline)))
    }

    fn serve(&mut self, app: &Diameter, cx: &mut Cx<Diameter>, event: Event) -> io::Result<Next> {
        if event.is_timeout() {
            return Ok(Next::End);
        }
        let mut bytes = [0; 4096];
        for _ in 0..cx.budget() {
            // Nothing more is read until the kernel has taken the answers so far.
            let is_reading = self.session.output.is_empty();
            let moved = if is_reading {
                self.stream.read(&mut bytes)
            } else {
                self.stream.write(&self.session.output)
            };
            match moved {
                Ok(0) => return Ok(Next::End),
                Ok(length) if is_reading => {
                    let us = self.stream.local_addr()?.ip();
                    let understood = self.session.take_in(&bytes[..length], &app.identity, us);
                    understood.ok_or(ErrorKind::InvalidData)?;
                    cx.set_deadline(event.id(), Some(cx.now() + SILENCE));
                }
                Ok(length) => drop(self.session.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Next::Again)
    }
}
