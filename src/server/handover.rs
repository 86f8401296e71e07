//! What the service hands over, and how each item is saved and restored.
//!
//! | item | kind | state, version 1, little-endian |
//! |---|---|---|
//! | listener | listener | nothing; *run* if peers may be waiting in its backlog |
//! | peer | tcp peer | idle deadline (CLOCK_MONOTONIC ns, 0 none), then the session |
//! | carried 0, "service" | state | accepted, messages, statistics due, idle timeout (ns) |
//! | carried 1, "pid file" | opaque, the locked descriptor | its path |
//!
//! Save and restore stand side by side for each item. Until the claim nothing here does I/O, or
//! sets an option, on what arrived.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use socket_takeover::event::{Acceptor, Cx, SourceId, Time};
use socket_takeover::proto::records::{DeclineCode, ItemKind};
use socket_takeover::proto::sequence::{self, Session};
use socket_takeover::takeover::{
    Application, Arrival, Description, Item, Moment, Positions, Rejection, SavedState, Takeover,
};

use super::listener;
use super::peer::Peer;
use super::pid::Donors;
use super::{Counters, Server};

/// Version of every state that is saved here.
pub(crate) const STATE_VERSION: u16 = 1;

const SERVICE: u32 = 0;
const PID_FILE: u32 = 1;

impl Application for Server {
    const NAME: &'static str = "socket-takeover";
    const NEWEST_STATE: Option<u16> = Some(STATE_VERSION);

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(SERVICE);
        if self.pid_file.is_some() {
            out.push(PID_FILE);
        }
    }

    fn carried_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        match number {
            PID_FILE => self.pid_file.as_ref().map(AsFd::as_fd),
            _ => None,
        }
    }

    fn describe(&mut self, cx: &mut Cx<Server>, item: Item) -> Result<Description, String> {
        let (kind, name, local, peer) = match item {
            Item::Carried(SERVICE) => (ItemKind::State, "service", None, None),
            Item::Carried(PID_FILE) => (ItemKind::Opaque, "pid file", None, None),
            Item::Carried(number) => return Err(format!("nothing is carried as {number}")),
            Item::Source(id) => {
                if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.get(handle)) {
                    let local = peer.stream.local_addr().ok();
                    (ItemKind::TcpPeer, "peer", local, Some(peer.address))
                } else if let Some(listener) = cx.source::<Acceptor>(id) {
                    // A successor that cannot listen either would own what nobody can reach.
                    if let Some(why) = listener::obstacle(listener) {
                        return Err(format!("the listener is broken: {why}; free the port"));
                    }
                    let local = listener.local_addr().map_err(|e| e.to_string())?;
                    (ItemKind::Listener, "listener", Some(local), None)
                } else {
                    return Err(format!("source {:?} has no form to travel in", cx.name(id)));
                }
            }
        };
        Ok(Description::new(kind, name, STATE_VERSION)
            .local(local)
            .peer(peer))
    }

    fn save(&mut self, cx: &mut Cx<Server>, item: Item, out: &mut Vec<u8>) -> bool {
        match item {
            Item::Carried(SERVICE) => self.save_service(cx, out),
            Item::Carried(_) => {
                if let Some(pid_file) = &self.pid_file {
                    out.extend_from_slice(pid_file.path().as_os_str().as_bytes());
                }
            }
            Item::Source(id) => {
                let deadline = cx.deadline(id).map_or(0, Time::as_ns);
                if let Some(peer) = cx.handle::<Peer>(id).and_then(|handle| cx.get(handle)) {
                    out.extend_from_slice(&deadline.to_le_bytes());
                    peer.session.save(out);
                    return !peer.session.may_read();
                }
                // A listener that pauses is told of by the reactor.
            }
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<Server>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let known = arrival.state.version == STATE_VERSION;
        match (arrival.kind, arrival.name, arrival.fd) {
            (ItemKind::TcpPeer, "peer", Some(fd)) if known => {
                let address = arrival
                    .peer
                    .ok_or_else(|| invalid("a peer has no address"))?;
                self.restore_peer(cx, fd, address, arrival.state.bytes)
            }
            (ItemKind::Listener, "listener", Some(fd)) if known && self.listener.is_none() => {
                let socket = TcpListener::from(fd);
                let listener = listener::adopt(socket);
                let handle = listener::add(listener, self, cx).map_err(invalid)?;
                self.listener = Some(handle);
                Ok(Item::Source(handle.id()))
            }
            (ItemKind::State, "service", None) if known => {
                self.restore_service(arrival.state.bytes)
                    .map_err(Rejection::Invalid)?;
                Ok(Item::Carried(SERVICE))
            }
            // A fault of the pid file is no reason to end a takeover.
            (ItemKind::Opaque, "pid file", fd) if self.donors_pid_file.is_none() => {
                let path = Path::new(OsStr::from_bytes(arrival.state.bytes));
                self.donors_pid_file = Some(Donors::adopt(fd.filter(|_| known), path));
                Ok(Item::Carried(PID_FILE))
            }
            // A peer of a version that we do not know is better off with its donor.
            (ItemKind::TcpPeer, ..) if !known => {
                Err(Rejection::Declined(DeclineCode::StateVersion))
            }
            (ItemKind::TcpPeer | ItemKind::Other(_), ..) => {
                Err(Rejection::Declined(DeclineCode::Kind))
            }
            (kind, name, _) => Err(invalid(format!(
                "{kind:?} {name:?} with state version {} does not belong to this service",
                arrival.state.version,
            ))),
        }
    }

    fn update(
        &mut self,
        cx: &mut Cx<Server>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String> {
        match item {
            Item::Source(id) => match cx.handle::<Peer>(id) {
                Some(handle) => {
                    let (deadline, session) = read_peer(state.bytes)?;
                    cx.set_deadline(id, deadline);
                    if let Some(peer) = cx.get_mut(handle) {
                        peer.session = session;
                    }
                    Ok(())
                }
                None => Ok(()),
            },
            Item::Carried(SERVICE) => self.restore_service(state.bytes),
            Item::Carried(_) => Ok(()),
        }
    }

    fn arrived(&mut self, _: &mut Cx<Server>) -> Result<(), String> {
        match self.listener {
            Some(_) => Ok(()),
            None => Err("the donor has sent no listener, so nobody could connect to us".into()),
        }
    }

    fn positions(&mut self, cx: &mut Cx<Server>, item: Item) -> Option<Positions> {
        let Item::Source(id) = item else { return None };
        let peer = cx.get(cx.handle::<Peer>(id)?)?;
        Some(Positions {
            consumed: peer.session.consumed()?,
            written: peer.session.written(),
        })
    }

    fn forget(&mut self, cx: &mut Cx<Server>, item: Item) {
        match item {
            Item::Source(id) => {
                if cx.handle::<Peer>(id).is_some() {
                    self.peers -= 1;
                } else {
                    self.listener = None;
                }
                cx.remove(id);
            }
            Item::Carried(PID_FILE) => self.donors_pid_file = None,
            Item::Carried(_) => {}
        }
    }

    fn moment(&mut self, cx: &mut Cx<Server>, moment: Moment) {
        self.on_moment(cx, moment);
    }
}

impl Server {
    fn restore_peer(
        &mut self,
        cx: &mut Cx<Server>,
        fd: OwnedFd,
        address: SocketAddr,
        state: &[u8],
    ) -> Result<Item, Rejection> {
        let (deadline, session) = read_peer(state).map_err(Rejection::Invalid)?;
        let peer = Peer {
            stream: TcpStream::from(fd),
            session,
            address,
        };
        let id = peer.add(self, cx).map_err(invalid)?.id();
        cx.set_deadline(id, deadline);
        self.peers += 1;
        Ok(Item::Source(id))
    }

    fn save_service(&self, cx: &Cx<Server>, out: &mut Vec<u8>) {
        let due = self.statistics.and_then(|timer| cx.due(timer));
        let idle = self.idle_timeout.map_or(0, |idle| idle.as_nanos() as u64);
        for number in [
            self.counters.accepted,
            self.counters.messages,
            due.map_or(0, Time::as_ns),
            idle,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn restore_service(&mut self, state: &[u8]) -> Result<(), String> {
        let (words, rest) = state.as_chunks::<8>();
        let ([accepted, messages, due, idle], []) = (words, rest) else {
            return Err(format!(
                "the service's state has {} bytes, not 32",
                state.len()
            ));
        };
        self.counters = Counters {
            accepted: u64::from_le_bytes(*accepted),
            messages: u64::from_le_bytes(*messages),
        };
        let due = u64::from_le_bytes(*due);
        self.statistics_due = (due > 0).then(|| Time::from_ns(due));
        let idle = u64::from_le_bytes(*idle);
        self.idle_timeout = (idle > 0).then(|| Duration::from_nanos(idle));
        Ok(())
    }
}

fn read_peer(state: &[u8]) -> Result<(Option<Time>, Session), String> {
    let Some((deadline, session)) = state.split_first_chunk::<8>() else {
        return Err(format!("a peer's state has {} bytes", state.len()));
    };
    let deadline = u64::from_le_bytes(*deadline);
    let session =
        Session::restore(sequence::STATE_VERSION, session).map_err(|error| error.to_string())?;
    Ok(((deadline > 0).then(|| Time::from_ns(deadline)), session))
}

fn invalid(what: impl ToString) -> Rejection {
    Rejection::Invalid(what.to_string())
}

/// Which peers there are, for the lines that name them.
pub(crate) fn peers(cx: &mut Cx<Server>) -> Vec<SourceId> {
    let mut ids = Vec::with_capacity(cx.items_len());
    cx.items(&mut ids);
    ids.retain(|id| cx.handle::<Peer>(*id).is_some());
    ids
}
