//! A taker played by the test.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::thread;
use std::time::Instant;

use socket_takeover::event::Time;
use socket_takeover::proto::records::{
    AckBuilder, Decline, DeclineCode, End, Fail, FailCode, Fit, Hello, ItemKind, Kind, Record,
    RefuseCode,
};
use socket_takeover::proto::wire::{MAX_VERSION, MIN_VERSION};
use socket_takeover::takeover::internal::identity::Identity;
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::path;
use socket_takeover::takeover::{ConnectError, TakeoverPath};

use super::{Received, Side};

/// See the file's own description.
#[derive(Debug)]
pub struct FakeTaker {
    pub side: Side,
    pub donor: Identity,
    lease: Option<Lease>,
    /// By id.
    pub copies: BTreeMap<u64, Copy>,
}

/// What the taker got of one item.
#[derive(Debug)]
pub struct Copy {
    pub kind: ItemKind,
    pub peer: Option<SocketAddr>,
    pub fd: Option<OwnedFd>,
}

/// A batch that wants its ACK.
#[derive(Debug)]
pub struct Batch {
    pub sequence: u32,
    /// The items that came with it.
    pub new: Vec<u64>,
}

/// The donor's state in which a taker can keep it waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// Connected; no HELLO.
    AcceptChannel,
    /// The first batch has come and is not acknowledged.
    FirstBatch,
    /// The first batch is acknowledged, those behind it are not.
    Window,
    /// PREPARE has come, DRAINED was not sent.
    HoldPeers,
    /// END has come; the lease was not claimed.
    AwaitClaim,
}

impl At {
    pub const ALL: [At; 5] = [
        At::AcceptChannel,
        At::FirstBatch,
        At::Window,
        At::HoldPeers,
        At::AwaitClaim,
    ];
}

impl FakeTaker {
    /// Connects and is silent.
    pub fn connect(path: &Path) -> FakeTaker {
        FakeTaker::try_connect(path).expect("a donor at PATH")
    }

    /// The same, where the donor's queue of callers may be full.
    pub fn try_connect(path: &Path) -> Result<FakeTaker, ConnectError> {
        let path = TakeoverPath::new(path).expect("a good PATH");
        let (channel, donor) = path::connect(&path)?;
        Ok(FakeTaker {
            side: Side::new(channel),
            donor,
            lease: None,
            copies: BTreeMap::new(),
        })
    }

    /// Connects and goes on until the donor is where it shall be. For [`At::Window`] there
    /// must be more than one batch of items.
    pub fn at(path: &Path, at: At) -> FakeTaker {
        FakeTaker::at_batch(path, at).0
    }

    /// The same, and the number of the batch that waits for its ACK there.
    pub fn at_batch(path: &Path, at: At) -> (FakeTaker, Option<u32>) {
        let mut taker = FakeTaker::connect(path);
        if at == At::AcceptChannel {
            return (taker, None);
        }
        taker.begin();
        if matches!(at, At::FirstBatch | At::Window) {
            let mut batch = taker.batch().expect("a first batch");
            if at == At::Window {
                taker.ack(&batch);
                batch = taker.batch().expect("a second batch");
            }
            return (taker, Some(batch.sequence));
        }
        taker.preload();
        if at == At::AwaitClaim {
            taker.side.say(&Record::Drained);
            taker.final_array();
        }
        (taker, None)
    }

    /// Waits until the donor is done with whoever called before: it answers a HELLO that does
    /// not fit, and not that it is busy. It has hung up on this one, too, when this returns.
    ///
    /// # Panics
    /// If it is busy for longer than [`BOUND`](super::super::BOUND).
    pub fn await_idle(path: &Path) {
        let end = Instant::now() + super::super::BOUND;
        loop {
            let mut taker = FakeTaker::connect(path);
            let hello = Hello {
                min: u16::MAX,
                max: u16::MAX,
                ..FakeTaker::hello()
            };
            // It may hang up, busy, before it has heard this.
            let _ = taker
                .side
                .try_say(super::encoded(&Record::Hello(hello)), &[]);
            if taker.refusal() != RefuseCode::Busy {
                return;
            }
            assert!(Instant::now() < end, "the donor is still busy");
            thread::yield_now();
        }
    }

    /// HELLO as it should be.
    pub fn hello() -> Hello {
        Hello {
            min: MIN_VERSION,
            max: MAX_VERSION,
            features: 0,
            free_slots: 100_000,
            now_ns: Time::now().as_ns(),
            pid: process::id(),
            newest_state: None,
            network: None,
        }
    }

    /// HELLO and WELCOME.
    pub fn begin(&mut self) {
        self.side.say(&Record::Hello(FakeTaker::hello()));
        let mut welcome = self.side.expect(Kind::Welcome);
        let lease = welcome.fds.pop().expect("WELCOME has the lease");
        self.lease = Some(Lease::from_fd(lease).expect("it is a lease"));
    }

    /// The next batch, its copies kept; `None` if PREPARE came in its place.
    pub fn batch(&mut self) -> Option<Batch> {
        let mut new = Vec::new();
        loop {
            let received = self.side.hear().expect("the channel is open");
            if received.record() == Record::Prepare {
                assert!(new.is_empty(), "PREPARE within a batch");
                return None;
            }
            let header = received.header();
            new.extend(self.keep(received));
            if header.is_last() {
                return Some(Batch {
                    sequence: header.sequence,
                    new,
                });
            }
        }
    }

    pub fn ack(&mut self, batch: &Batch) {
        self.ack_without(batch, &[]);
    }

    /// ACKs a batch and declines these items of it; their copies are closed.
    pub fn ack_without(&mut self, batch: &Batch, declined: &[u64]) {
        let mut record = Vec::new();
        let mut builder = AckBuilder::new(batch.sequence, &mut record);
        for id in declined {
            self.copies.remove(id);
            let code = DeclineCode::Application;
            assert_eq!(builder.push(Decline { id: *id, code }), Fit::Taken);
        }
        builder.finish();
        self.side.say_encoded(record, &[]);
    }

    /// ACKs every batch until PREPARE.
    pub fn preload(&mut self) {
        while let Some(batch) = self.batch() {
            self.ack(&batch);
        }
    }

    /// The same, but declines every peer.
    pub fn preload_without_peers(&mut self) {
        while let Some(batch) = self.batch() {
            let peers: Vec<u64> = batch
                .new
                .iter()
                .copied()
                .filter(|id| self.copies[id].kind == ItemKind::TcpPeer)
                .collect();
            self.ack_without(&batch, &peers);
        }
    }

    /// The final array, its copies kept, and END.
    pub fn final_array(&mut self) -> End {
        loop {
            let received = self.side.hear().expect("the channel is open");
            if let Record::End(end) = received.record() {
                return end;
            }
            self.keep(received);
        }
    }

    pub fn claim(&self) -> Verdict {
        let lease = self.lease.as_ref().expect("WELCOME has come");
        lease.claim().expect("a lease can be read")
    }

    /// Writes to the lease, which no honest taker does. False if it is full.
    pub fn write_lease(&self, value: u64) -> bool {
        let lease = self.lease.as_ref().expect("WELCOME has come");
        nix::unistd::write(lease, &value.to_ne_bytes()).is_ok()
    }

    pub fn fail(&mut self) {
        self.side.say(&Record::Fail(Fail {
            code: FailCode::Internal,
            item: None,
            reason: "a test",
        }));
    }

    /// Everything up to REFUSE, which must be the donor's last word.
    pub fn refusal(&mut self) -> RefuseCode {
        let last = self.side.last_word().expect("a last word");
        match last.record() {
            Record::Refuse(refuse) => refuse.code,
            other => panic!("{other:?} instead of REFUSE"),
        }
    }

    /// The copy of the listener, moved out.
    pub fn listener(&mut self) -> TcpListener {
        let mut copies = self.copies.values_mut();
        let listener = copies.find(|copy| copy.kind == ItemKind::Listener);
        let fd = listener.and_then(|copy| copy.fd.take());
        TcpListener::from(fd.expect("a listener has come"))
    }

    /// The peers of which there are copies.
    pub fn peers(&self) -> usize {
        let peers = self
            .copies
            .values()
            .filter(|copy| copy.kind == ItemKind::TcpPeer);
        peers.count()
    }

    /// Keeps what a record brought, closes what it says is closed; the ids of new items.
    fn keep(&mut self, received: Received) -> Vec<u64> {
        let mut new = Vec::new();
        let Received { bytes, fds } = received;
        let count = fds.len();
        let mut fds = fds.into_iter();
        let (_, record) =
            socket_takeover::proto::records::decode(&bytes, count).expect("it was decoded before");
        match record {
            Record::Items(items) => {
                for item in items.iter() {
                    let fd = if item.has_fd { fds.next() } else { None };
                    let copy = Copy {
                        kind: item.kind,
                        peer: item.peer,
                        fd,
                    };
                    new.push(item.id);
                    assert!(
                        self.copies.insert(item.id, copy).is_none(),
                        "an item came twice"
                    );
                }
            }
            Record::Closed(ids) => {
                for id in ids.iter() {
                    self.copies.remove(&id);
                }
            }
            Record::State(_) => {}
            other => panic!("{other:?} among the items"),
        }
        new
    }
}
