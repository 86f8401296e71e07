//! An application of several releases, each with a state of its own, taken over upwards and
//! downwards while its clients stay: it writes what its successor reads, and keeps what the
//! successor does not.
//!
//! | release | writes | reads |
//! |---|---|---|
//! | 1 | 1: the count, u32 | 1 |
//! | 2 | 2: the count, u64; or 1 | 1, 2 |
//! | 3 | 3: the count as text; or 2 | 2, 3 |
//!
//! Each release is a process's main loop on a thread of its own, so that one test binary can be
//! them all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket_takeover::event::{Acceptor, Cx, Next, Spec, Time};
use socket_takeover::proto::records::{Hello, Record, encode};
use socket_takeover::proto::wire::{MAX_VERSION, MIN_VERSION};
use socket_takeover::takeover::internal::channel::Sent;
use socket_takeover::takeover::internal::path;
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Error, Item, Moment, Rejection, Report,
    SavedState, Start, Takeover, TakeoverPath,
};
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);

/// One connection: how many bytes it has sent.
struct Peer {
    stream: TcpStream,
    count: u64,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Release `N`; one that does not tell what it reads is older than the means to.
struct App<const N: u16, const TELLS: bool> {
    takeover: Takeover,
    told: Sender<(&'static str, Report)>,
}

impl<const N: u16, const TELLS: bool> App<N, TELLS> {
    /// What this release can still write for a successor that reads no more than `version`.
    fn writes(version: u16) -> u16 {
        version.clamp(N.saturating_sub(1).max(1), N)
    }

    fn add(stream: TcpStream, count: u64, cx: &mut Cx<Self>) -> io::Result<Item> {
        let peer = Peer { stream, count };
        let added = cx.add(Spec::item("peer"), peer, |peer, app: &mut Self, cx, _| {
            let mut byte = [0];
            match peer.stream.read(&mut byte) {
                Ok(0) => return Ok(Next::End),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Keep),
                Err(error) => return Err(error),
            }
            peer.count += 1;
            let mut answer = N.to_le_bytes().to_vec();
            answer.extend(peer.count.to_le_bytes());
            peer.stream.write_all(&answer)?;
            if byte == *b"q" {
                Takeover::term(app, cx);
            }
            Ok(Next::Again)
        })?;
        Ok(added.into())
    }

    fn listen(listener: Acceptor, cx: &mut Cx<Self>) -> io::Result<Item> {
        let added = listener.add(cx, "listener", |_, cx, stream, _| {
            Self::add(stream, 0, cx).map(|_| ())
        })?;
        Ok(added.into())
    }

    fn read(state: SavedState<'_>) -> Result<u64, String> {
        let wrong = || format!("state {} of {:?}", state.version, state.bytes);
        match state.version {
            1 => Ok(u32::from_le_bytes(state.bytes.try_into().map_err(|_| wrong())?).into()),
            2 => Ok(u64::from_le_bytes(
                state.bytes.try_into().map_err(|_| wrong())?,
            )),
            _ => {
                let text = std::str::from_utf8(state.bytes).map_err(|_| wrong())?;
                text.parse().map_err(|_| wrong())
            }
        }
    }
}

impl<const N: u16, const TELLS: bool> Application for App<N, TELLS> {
    const NAME: &'static str = "releases";
    const NEWEST_STATE: Option<u16> = if TELLS { Some(N) } else { None };

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        let Item::Source(id) = item else {
            return Err("nothing is carried".into());
        };
        if cx.source::<Peer>(id).is_some() {
            let version = Self::writes(self.takeover.state_version(N));
            return Description::detect(cx, id, version);
        }
        Description::detect(cx, id, 1) // as it has always been
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        let Item::Source(id) = item else { return false };
        let Some(peer) = cx.source::<Peer>(id) else {
            return true;
        };
        match Self::writes(self.takeover.state_version(N)) {
            1 => out.extend(u32::try_from(peer.count).unwrap_or(u32::MAX).to_le_bytes()),
            2 => out.extend(peer.count.to_le_bytes()),
            _ => out.extend(peer.count.to_string().bytes()),
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let reads = N.saturating_sub(1).max(1)..=N;
        match (arrival.name, arrival.fd) {
            ("listener", Some(fd)) => Ok(Self::listen(TcpListener::from(fd).into(), cx)?),
            ("peer", Some(fd)) if reads.contains(&arrival.state.version) => {
                let count = Self::read(arrival.state)?;
                Ok(Self::add(TcpStream::from(fd), count, cx)?)
            }
            ("peer", _) => Err(Rejection::Declined(DeclineCode::StateVersion)),
            (name, _) => Err(format!("no {name:?}").into()),
        }
    }

    fn update(
        &mut self,
        cx: &mut Cx<Self>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String> {
        if let Item::Source(id) = item
            && let Some(peer) = cx.source_mut::<Peer>(id)
        {
            peer.count = Self::read(state)?;
        }
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        let told = match &moment {
            Moment::Open => Some(("open", Report::default())),
            Moment::Active(report) => Some(("active", report.clone())),
            Moment::Preload => Some(("preload", Report::default())),
            Moment::Released(report) => Some(("released", report.clone())),
            Moment::RolledBack(report) => Some(("rolled back", report.clone())),
            _ => None,
        };
        if let Some(told) = told {
            // A test that has failed does not listen any more.
            let _ = self.told.send(told);
        }
        moment.follow(self, cx);
    }
}

/// A release at work.
struct Process {
    thread: JoinHandle<Result<(), Error>>,
    told: Receiver<(&'static str, Report)>,
}

impl Process {
    fn run<const N: u16, const TELLS: bool>(
        start: Start,
        listener: Option<TcpListener>,
    ) -> Process {
        let (sender, told) = channel();
        let thread = thread::spawn(move || {
            let mut app = App::<N, TELLS> {
                takeover: Takeover::default(),
                told: sender,
            };
            start.run(&mut app, |_, cx| {
                let listener = listener.expect("a cold start has one");
                App::<N, TELLS>::listen(listener.into(), cx).map(|_| ())
            })
        });
        Process { thread, told }
    }

    #[track_caller]
    fn is(&self, wanted: &str) -> Report {
        let said = || self.told.recv_timeout(BOUND).expect("it says so");
        let (mut told, mut report) = said();
        if told == "preload" && wanted != told {
            (told, report) = said();
        }
        assert_eq!(told, wanted, "{report}");
        report
    }

    #[track_caller]
    fn ends(self) {
        self.thread.join().unwrap().unwrap();
    }
}

struct Stage {
    _folder: TempDir,
    path: TakeoverPath,
    address: SocketAddr,
}

impl Stage {
    fn cold<const N: u16>() -> (Stage, Process) {
        let folder = tempfile::tempdir().unwrap();
        let path = TakeoverPath::new(folder.path().join("offer")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let process = Process::run::<N, true>(Start::offer(path.clone()), Some(listener));
        process.is("open");
        let stage = Stage {
            _folder: folder,
            path,
            address,
        };
        (stage, process)
    }

    fn take_over<const N: u16, const TELLS: bool>(&self) -> Process {
        let process = Process::run::<N, TELLS>(Start::take_over(self.path.clone()), None);
        process.is("active");
        process
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        Client { stream, count: 0 }
    }
}

struct Client {
    stream: TcpStream,
    count: u64,
}

impl Client {
    /// Sends a byte; it must be this release that has counted it, with all before.
    #[track_caller]
    fn is_counted_by(&mut self, release: u16) {
        self.says(b"x", release);
    }

    #[track_caller]
    fn says(&mut self, what: &[u8; 1], release: u16) {
        self.stream.write_all(what).unwrap();
        self.count += 1;
        let mut answer = [0; 10];
        self.stream.read_exact(&mut answer).unwrap();
        let (by, count) = answer.split_first_chunk().unwrap();
        assert_eq!(u16::from_le_bytes(*by), release);
        assert_eq!(count, self.count.to_le_bytes());
    }

    /// Has the service stop.
    fn ends(mut self, process: Process, release: u16) {
        self.says(b"q", release);
        process.ends();
    }
}

#[test]
fn state_written_by_an_older_release_is_read() {
    let (stage, donor) = Stage::cold::<1>();
    let mut client = stage.client();
    client.is_counted_by(1);
    let taker = stage.take_over::<2, true>();
    assert_eq!(donor.is("released").declined, 0);
    donor.ends();
    client.is_counted_by(2);
    client.ends(taker, 2);
}

#[test]
fn state_is_written_as_an_older_release_reads_it() {
    let (stage, donor) = Stage::cold::<2>();
    let mut client = stage.client();
    client.is_counted_by(2);
    let taker = stage.take_over::<1, true>();
    assert_eq!(donor.is("released").declined, 0, "nothing has to stay");
    donor.ends();
    client.is_counted_by(1);
    client.ends(taker, 1);
}

/// Up by one release at a time, and down again, with the same client.
#[test]
fn state_goes_up_and_down_over_a_chain_of_releases() {
    let (stage, first) = Stage::cold::<1>();
    let mut client = stage.client();
    client.is_counted_by(1);
    let second = stage.take_over::<2, true>();
    first.ends();
    client.is_counted_by(2);
    let third = stage.take_over::<3, true>();
    second.ends();
    client.is_counted_by(3);
    let fourth = stage.take_over::<2, true>();
    third.ends();
    client.is_counted_by(2);
    let fifth = stage.take_over::<1, true>();
    fourth.ends();
    client.is_counted_by(1);
    client.ends(fifth, 1);
}

/// The taker has everything else; its donor serves the client to its end, and leaves with it.
#[track_caller]
fn client_stays<const N: u16, const TELLS: bool>(stage: &Stage, donor: Process, release: u16) {
    let mut old = stage.client();
    old.is_counted_by(release);
    let taker = stage.take_over::<N, TELLS>();
    assert_eq!(donor.is("released").declined, 1);
    old.is_counted_by(release);
    let mut new = stage.client();
    new.is_counted_by(N);
    old.is_counted_by(release);
    drop(old);
    donor.ends();
    new.is_counted_by(N);
    new.ends(taker, N);
}

#[test]
fn state_that_cannot_be_written_so_old_stays_and_is_served_to_its_end() {
    let (stage, donor) = Stage::cold::<3>();
    client_stays::<1, true>(&stage, donor, 3);
}

/// A release from before takers told what they read.
#[test]
fn state_of_a_later_release_stays_if_the_taker_does_not_tell_what_it_reads() {
    let (stage, donor) = Stage::cold::<2>();
    client_stays::<1, false>(&stage, donor, 2);
}

#[test]
fn state_too_old_for_a_later_release_stays() {
    let (stage, donor) = Stage::cold::<1>();
    client_stays::<3, true>(&stage, donor, 1);
}

/// What one taker said is forgotten when the next one calls: one that reads nothing older
/// than 2, and does not say so.
#[test]
fn state_is_newest_again_after_an_older_taker_has_failed() {
    let (stage, donor) = Stage::cold::<2>();
    let mut client = stage.client();
    client.is_counted_by(2);
    let (channel, _) = path::connect(&stage.path).unwrap();
    let mut record = Vec::new();
    let hello = Record::Hello(Hello {
        min: MIN_VERSION,
        max: MAX_VERSION,
        features: 0,
        free_slots: 1000,
        now_ns: Time::now().as_ns(),
        pid: std::process::id(),
        newest_state: Some(1),
        network: None,
    });
    encode(&hello, false, &mut record).unwrap();
    assert_eq!(channel.send(&record, &[]).unwrap(), Sent::Done);
    donor.is("preload");
    drop(channel);
    donor.is("rolled back");
    let taker = stage.take_over::<3, false>();
    donor.is("preload");
    assert_eq!(donor.is("released").declined, 0);
    donor.ends();
    client.is_counted_by(3);
    client.ends(taker, 3);
}
