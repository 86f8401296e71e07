//! A donor played by the test: a listener and clients that it accepts and never reads, so
//! that whatever they have sent is for the taker to answer.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process;

use nix::sys::socket::{setsockopt, sockopt};
use socket_takeover::event::Time;
use socket_takeover::proto::digest::Digest;
use socket_takeover::proto::records::{
    Descriptor, End, Fit, Hello, ItemKind, ItemsBuilder, Kind, Record, Refuse, RefuseCode,
    StateBuilder, Unsent, Welcome,
};
use socket_takeover::proto::sequence::Session;
use socket_takeover::proto::wire::{MAX_VERSION, MIN_VERSION, WIRE_VERSION};
use socket_takeover::takeover::TakeoverPath;
use socket_takeover::takeover::internal::descriptor;
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::offer::{Offer, Replace};

use super::super::{BOUND, wait_readable};
use super::{Received, Side};

/// State version of every item of the service.
const STATE: u16 = 1;
const SERVICE: u64 = 1;
const LISTENER: u64 = 2;
const FIRST_PEER: u64 = 3;

/// See the file's own description.
#[derive(Debug)]
pub struct FakeDonor {
    offer: Offer,
    listener: TcpListener,
    peers: Vec<(TcpStream, SocketAddr)>,
    /// State version of every peer.
    pub peer_version: u16,
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    side: Side,
    lease: Lease,
    digest: Digest,
    changed: u64,
}

/// A batch that is ready to be sent, so that a test can spoil it first.
#[derive(Debug)]
pub struct Stuffing {
    /// ITEMS.
    pub items: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// STATE, which asks for the ACK.
    pub states: Vec<u8>,
}

impl FakeDonor {
    /// Offers a takeover at `path`, of a listener on a port that the kernel picks.
    pub fn bind(path: &Path) -> FakeDonor {
        let path = TakeoverPath::new(path).expect("a good PATH");
        let mut offer = Offer::bind(&path).expect("an offer");
        offer.publish(Replace::Stale).expect("PATH is free");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.set_nonblocking(true).expect("a listener");
        // As the service does.
        setsockopt(&listener, sockopt::OobInline, &true).expect("a listener");
        FakeDonor {
            offer,
            listener,
            peers: Vec::new(),
            peer_version: STATE,
            attempt: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Accepts so many clients that have connected or will.
    pub fn accept(&mut self, clients: usize) {
        while self.peers.len() < clients {
            await_readable(&self.listener);
            let (peer, address) = self.listener.accept().expect("a client");
            peer.set_nonblocking(true).expect("a client");
            peer.set_nodelay(true).expect("a client");
            self.peers.push((peer, address));
        }
    }

    /// Its end of the first client's connection, to be used behind the taker's back.
    pub fn first_peer(&mut self) -> &mut TcpStream {
        &mut self.peers.first_mut().expect("a client").0
    }

    /// Waits for a taker and hears its HELLO.
    pub fn await_taker(&mut self) -> Hello {
        await_readable(&self.offer);
        let channel = self.offer.accept().expect("a taker").expect("a taker");
        let mut side = Side::new(channel);
        let Record::Hello(hello) = side.expect(Kind::Hello).record() else {
            unreachable!("it is of that kind");
        };
        self.attempt = Some(Attempt {
            side,
            lease: Lease::new().expect("a lease"),
            digest: Digest::default(),
            changed: 0,
        });
        hello
    }

    fn attempt(&mut self) -> &mut Attempt {
        self.attempt.as_mut().expect("a taker has called")
    }

    pub fn side(&mut self) -> &mut Side {
        &mut self.attempt().side
    }

    /// Says a last word and hangs up.
    pub fn refuse(&mut self, code: RefuseCode) {
        self.side().say(&Record::Refuse(Refuse {
            code,
            min: MIN_VERSION,
            max: MAX_VERSION,
            reason: "a test",
        }));
        self.hang_up();
    }

    pub fn hang_up(&mut self) {
        self.attempt = None;
    }

    /// WELCOME as it should be, but for the lease.
    pub fn greeting(&self) -> Welcome<'static> {
        Welcome {
            version: WIRE_VERSION,
            features: 0,
            id: 1,
            generation: 1,
            items: self.peers.len() as u64 + 2,
            preload_ms: 30_000,
            freeze_ms: 30_000,
            claim_ms: 30_000,
            pid: process::id(),
            now_ns: Time::now().as_ns(),
            application: "socket-takeover",
        }
    }

    /// A copy of the lease.
    pub fn lease(&mut self) -> OwnedFd {
        copy(self.attempt().lease.as_fd())
    }

    pub fn welcome(&mut self) {
        let greeting = super::encoded(&Record::Welcome(self.greeting()));
        let Attempt { side, lease, .. } = self.attempt();
        side.say_encoded(greeting, &[lease.as_fd()]);
    }

    /// All items in one batch, ready to be sent. At most a batch's worth of clients.
    pub fn stuffing(&self) -> Stuffing {
        let mut items = Vec::new();
        let mut fds = Vec::new();
        let mut builder = ItemsBuilder::new(&mut items);
        let mut push = |item: Descriptor<'_>| {
            assert_eq!(builder.push(&item), Ok(Fit::Taken));
        };
        push(Descriptor {
            local: None,
            has_fd: false,
            ..self.descriptor(SERVICE, ItemKind::State, "service", 0)
        });
        let listener = self.listener.as_fd();
        push(self.descriptor(LISTENER, ItemKind::Listener, "listener", cookie(listener)));
        fds.push(copy(listener));
        for (at, (peer, address)) in self.peers.iter().enumerate() {
            let id = FIRST_PEER + at as u64;
            push(Descriptor {
                peer: Some(*address),
                state_version: self.peer_version,
                ..self.descriptor(id, ItemKind::TcpPeer, "peer", cookie(peer.as_fd()))
            });
            fds.push(copy(peer.as_fd()));
        }
        builder.finish(false);

        let mut states = Vec::new();
        let mut builder = StateBuilder::new(&mut states);
        push_state(&mut builder, SERVICE, false, &[0; 32]);
        push_state(&mut builder, LISTENER, false, &[]);
        for at in 0..self.peers.len() {
            push_state(
                &mut builder,
                FIRST_PEER + at as u64,
                false,
                &untouched_peer(),
            );
        }
        builder.finish(true);
        Stuffing { items, fds, states }
    }

    /// What a donor has that has lost its listener, and serves nobody.
    pub fn stuffing_without_listener(&self) -> Stuffing {
        let (mut items, mut states) = (Vec::new(), Vec::new());
        let mut builder = ItemsBuilder::new(&mut items);
        let service = Descriptor {
            local: None,
            has_fd: false,
            ..self.descriptor(SERVICE, ItemKind::State, "service", 0)
        };
        assert_eq!(builder.push(&service), Ok(Fit::Taken));
        builder.finish(false);
        let mut builder = StateBuilder::new(&mut states);
        push_state(&mut builder, SERVICE, false, &[0; 32]);
        builder.finish(true);
        let fds = Vec::new();
        Stuffing { items, fds, states }
    }

    /// Sends a batch; returns what its ACK will name. A taker that does not like the items
    /// may have hung up before the states.
    pub fn throw(&mut self, stuffing: &Stuffing) -> u32 {
        let side = self.side();
        let fds: Vec<BorrowedFd<'_>> = stuffing.fds.iter().map(AsFd::as_fd).collect();
        side.say_encoded(stuffing.items.clone(), &fds);
        side.try_say(stuffing.states.clone(), &[]).0
    }

    /// Sends a batch and waits for its ACK.
    pub fn send(&mut self, stuffing: &Stuffing) {
        let last = self.throw(stuffing);
        let side = self.side();
        match side.expect(Kind::Ack).record() {
            Record::Ack(ack) => assert_eq!((ack.sequence, ack.declined.len()), (last, 0)),
            other => panic!("{other:?} instead of ACK"),
        }
    }

    /// Everything up to DRAINED: WELCOME, one batch, PREPARE.
    pub fn preload(&mut self) {
        self.welcome();
        let stuffing = self.stuffing();
        self.send(&stuffing);
        self.side().say(&Record::Prepare);
        self.side().expect(Kind::Drained);
    }

    /// The final array: each peer is to be run, since what it has sent was never read.
    pub fn final_array(&mut self) {
        let states = self.final_states();
        let finished = self.side().finished(states.clone());
        self.note_final(&finished);
        self.side().say_encoded(states, &[]);
    }

    /// Its one record, but for the number.
    pub fn final_states(&self) -> Vec<u8> {
        let mut states = Vec::new();
        let mut builder = StateBuilder::new(&mut states);
        for at in 0..self.peers.len() {
            push_state(
                &mut builder,
                FIRST_PEER + at as u64,
                true,
                &untouched_peer(),
            );
        }
        builder.finish(false);
        states
    }

    /// Has END speak of a final array that is this record.
    pub fn note_final(&mut self, record: &[u8]) {
        let changed = self.peers.len() as u64;
        let attempt = self.attempt();
        attempt.digest.update(record);
        attempt.changed = changed;
    }

    /// END as it should be.
    pub fn ending(&mut self) -> End {
        let items = self.peers.len() as u64 + 2;
        let Attempt {
            digest, changed, ..
        } = self.attempt();
        End {
            items,
            closed: 0,
            new: 0,
            changed: *changed,
            held_ns: Time::now().as_ns(),
            digest: digest.value(),
            rounds: None,
        }
    }

    pub fn grant(&mut self) {
        self.attempt()
            .lease
            .grant()
            .expect("a lease can be granted");
    }

    pub fn revoke(&mut self) -> Verdict {
        self.attempt().lease.revoke().expect("a lease can be read")
    }

    /// Everything behind DRAINED: the final array, the grant, END.
    pub fn finish(&mut self) {
        self.final_array();
        self.grant();
        let end = Record::End(self.ending());
        self.side().say(&end);
    }

    /// The same, of a taker that has declined every peer.
    pub fn finish_without_peers(&mut self) {
        let items = 2;
        self.grant();
        let end = End {
            items,
            ..self.ending()
        };
        self.side().say(&Record::End(end));
    }

    /// The first peer, moved out.
    pub fn take_peer(&mut self) -> TcpStream {
        self.peers.remove(0).0
    }

    /// What the taker says last.
    pub fn last_word(&mut self) -> Option<Received> {
        self.side().last_word()
    }

    /// Closes its own copies of everything.
    pub fn close(self) {}

    fn descriptor(
        &self,
        id: u64,
        kind: ItemKind,
        name: &'static str,
        cookie: u64,
    ) -> Descriptor<'static> {
        Descriptor {
            id,
            kind,
            name,
            cookie,
            local: Some(self.address()),
            peer: None,
            links: Vec::new(),
            state_version: STATE,
            has_fd: true,
        }
    }
}

/// No idle deadline, and a session that has not begun.
fn untouched_peer() -> Vec<u8> {
    let mut state = 0u64.to_le_bytes().to_vec();
    Session::default().save(&mut state);
    state
}

fn push_state(builder: &mut StateBuilder<'_>, id: u64, run: bool, state: &[u8]) {
    let mut unsent = Unsent::new(id, run, state).expect("a small state");
    assert_eq!(builder.push(&mut unsent), Fit::Taken);
}

fn cookie(socket: BorrowedFd<'_>) -> u64 {
    descriptor::cookie(socket)
}

fn copy(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().expect("a descriptor")
}

fn await_readable(fd: impl AsFd) {
    assert!(
        wait_readable(fd, BOUND).expect("it can be polled"),
        "nobody has called"
    );
}
