//! The floor of a takeover: the least that hands over as many connections with the same care.
//!
//! ```text
//!   donor                                              taker
//!   accepts so many, adds each to its epoll set        connects
//!   ── 250 a message: address, cookie, 64 bytes of state, descriptor ──▶
//!                                                      checks and adds each
//!   ── PREPARE, with the lease ──▶                     empties its epoll set
//!   one more wait            ◀── DRAINED ──
//!   freeze begins: grants    ── END ──▶                claims, waits once: the freeze ends
//!   closes its epoll set, exits   ◀── ACTIVE ──        is the donor of the next round
//! ```
//!
//! It passes, validates and registers exactly as the product does (by the library's own
//! `scm` and `descriptor`), and commits by the same lease; it has no reactor, no application,
//! no answer to anything unexpected. Whatever fails ends it.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use socket_takeover::event::Time;
use socket_takeover::proto::records::{Descriptor, ItemKind};
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::{descriptor, limits, scm};

use takeover_say::{say, tell};

/// Descriptors in one message.
const BATCH: usize = 250;
/// Bytes that go with each connection: addresses and cookie, and as much state.
const RECORD: usize = 28 + 64;
/// As long as the product's taker looks for END before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

const PREPARE: u8 = 1;
const DRAINED: u8 = 2;
const END: u8 = 3;
const ACTIVE: u8 = 4;

/// A connection and what a record says of it.
struct Peer {
    socket: OwnedFd,
    local: SocketAddr,
    peer: SocketAddr,
    cookie: u64,
}

/// One process of the pair: the connections in its epoll set.
struct Holder {
    epoll: Epoll,
    peers: Vec<Peer>,
}

/// Accepts so many connections, says so, and hands them over once.
pub(crate) fn cold(path: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tell!("[127.0.0.1]:{}", listener.local_addr()?.port());
    let mut holder = Holder::new()?;
    for _ in 0..count {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        holder.add(OwnedFd::from(stream))?;
    }
    holder.hand_over(path)
}

/// Takes over from whoever listens at `path`, prints how long it took in nanoseconds (the
/// freeze; pass, validate and register), and hands over once.
pub(crate) fn successor(path: &Path) -> Result<(), Box<dyn Error>> {
    let channel = unix()?;
    connect(channel.as_raw_fd(), &UnixAddr::new(path)?)?;
    let began = Instant::now();
    let mut holder = Holder::new()?;
    let (mut buffer, mut fds) = (vec![0; BATCH * RECORD], Vec::with_capacity(BATCH));
    // Its first message is the count, so that the descriptor table can be sized first.
    let count = receive(&channel, &mut buffer, &mut fds)?;
    let count = u64::from_le_bytes(buffer[..count].try_into()?) as usize;
    limits::size_table(count)?;
    holder.peers.reserve(count);
    let lease = loop {
        let length = receive(&channel, &mut buffer, &mut fds)?;
        if buffer[..length] == [PREPARE] {
            break Lease::from_fd(fds.pop().ok_or("no lease")?)?;
        }
        for (record, socket) in buffer[..length].chunks(RECORD).zip(fds.drain(..)) {
            holder.take(record, socket)?;
        }
    };
    let passed = began.elapsed();
    let mut events = vec![EpollEvent::empty(); 1024];
    while holder.epoll.wait(&mut events, EpollTimeout::ZERO)? == events.len() {}
    scm::send(channel.as_fd(), &[DRAINED], &[])?;

    let spin = Instant::now();
    let length = loop {
        match scm::recv(channel.as_fd(), &mut buffer, &mut fds) {
            Ok(received) => break received.len,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if spin.elapsed() < SPIN => {}
            Err(_) => readable(channel.as_fd())?,
        }
    };
    if buffer[0] != END || length != 9 || lease.claim()? != Verdict::Won {
        return Err("no END, or no lease".into());
    }
    holder.epoll.wait(&mut events, EpollTimeout::ZERO)?;
    let held = Time::from_ns(u64::from_le_bytes(buffer[1..9].try_into()?));
    let freeze = Time::now().since(held);
    // The next donor is there before the old one goes, as with the product.
    let offer = offer_at(path)?;
    say!("{} {}", freeze.as_nanos(), passed.as_nanos())?;
    scm::send(channel.as_fd(), &[ACTIVE], &[])?;
    holder.serve(&offer)
}

impl Holder {
    fn new() -> io::Result<Holder> {
        Ok(Holder {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            peers: Vec::new(),
        })
    }

    fn add(&mut self, socket: OwnedFd) -> Result<(), Box<dyn Error>> {
        let (local, peer) = descriptor::addresses(socket.as_fd())?;
        let peer = peer.ok_or("not connected")?;
        let cookie = descriptor::cookie(socket.as_fd());
        self.register(Peer {
            socket,
            local,
            peer,
            cookie,
        })
    }

    /// Validates what arrived, and registers it.
    fn take(&mut self, record: &[u8], socket: OwnedFd) -> Result<(), Box<dyn Error>> {
        let address = |at: &[u8]| {
            let ip: [u8; 4] = at[..4].try_into().expect("4 bytes");
            SocketAddr::from(SocketAddrV4::new(
                ip.into(),
                u16::from_le_bytes([at[4], at[5]]),
            ))
        };
        let (local, peer) = (address(&record[..6]), address(&record[6..12]));
        let cookie = u64::from_le_bytes(record[12..20].try_into()?);
        let about = Descriptor {
            id: cookie,
            kind: ItemKind::TcpPeer,
            name: "",
            cookie,
            local: Some(local),
            peer: Some(peer),
            links: Vec::new(),
            state_version: 0,
            has_fd: true,
        };
        descriptor::check(socket.as_fd(), &about)?;
        self.register(Peer {
            socket,
            local,
            peer,
            cookie,
        })
    }

    fn register(&mut self, peer: Peer) -> Result<(), Box<dyn Error>> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let event = EpollEvent::new(flags | EpollFlags::EPOLLET, self.peers.len() as u64);
        self.epoll.add(&peer.socket, event)?;
        self.peers.push(peer);
        Ok(())
    }

    fn hand_over(self, path: &Path) -> Result<(), Box<dyn Error>> {
        let offer = offer_at(path)?;
        tell!("all accepted");
        self.serve(&offer)
    }

    /// Waits for a caller, and hands over.
    fn serve(self, offer: &UnixListener) -> Result<(), Box<dyn Error>> {
        let channel = OwnedFd::from(offer.accept()?.0);
        let count = self.peers.len() as u64;
        send(&channel, &count.to_le_bytes(), &[])?;
        let mut batch = Vec::with_capacity(BATCH * RECORD);
        for peers in self.peers.chunks(BATCH) {
            batch.clear();
            peers.iter().for_each(|peer| peer.put(&mut batch));
            let fds: Vec<_> = peers.iter().map(|peer| peer.socket.as_fd()).collect();
            send(&channel, &batch, &fds)?;
        }
        let lease = Lease::new()?;
        send(&channel, &[PREPARE], &[lease.as_fd()])?;
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        let mut events = vec![EpollEvent::empty(); 1024];
        if receive(&channel, &mut buffer, &mut fds)? != 1 || buffer[0] != DRAINED {
            return Err("no DRAINED".into());
        }
        while self.epoll.wait(&mut events, EpollTimeout::ZERO)? == events.len() {}
        let held = Time::now();
        lease.grant()?;
        let mut end = [END; 9];
        end[1..].copy_from_slice(&held.as_ns().to_le_bytes());
        send(&channel, &end, &[])?;
        if receive(&channel, &mut buffer, &mut fds)? != 1 || buffer[0] != ACTIVE {
            return Err("no ACTIVE".into());
        }
        drop(self.epoll);
        std::process::exit(0);
    }
}

impl Peer {
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for address in [self.local, self.peer] {
            if let SocketAddr::V4(address) = address {
                out.extend_from_slice(&address.ip().octets());
                out.extend_from_slice(&address.port().to_le_bytes());
            }
        }
        out.extend_from_slice(&self.cookie.to_le_bytes());
        out.resize(start + RECORD, 0);
    }
}

fn unix() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

/// Listens at `path`, in place of whoever did.
fn offer_at(path: &Path) -> Result<UnixListener, Box<dyn Error>> {
    let offer = unix()?;
    let name = path.with_extension(std::process::id().to_string());
    bind(offer.as_raw_fd(), &UnixAddr::new(&name)?)?;
    listen(&offer, Backlog::new(1)?)?;
    std::fs::rename(&name, path)?;
    // accept(2) does not mind what kind of a Unix socket it is.
    Ok(UnixListener::from(offer))
}

fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

fn send(channel: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        match scm::send(channel.as_fd(), bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let room = PollFd::new(channel.as_fd(), PollFlags::POLLOUT);
                poll(&mut [room], PollTimeout::NONE)?;
            }
            sent => return sent,
        }
    }
}

/// The next message's length.
fn receive(channel: &OwnedFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    loop {
        match scm::recv(channel.as_fd(), buffer, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable(channel.as_fd())?,
            Err(error) => return Err(error),
            Ok(received) if received.len == 0 || received.fds_lost => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(received) => return Ok(received.len),
        }
    }
}
