//! One client: what it sends, and what it must get back.
//!
//! Its bytes are a stream that its key decides, so any byte can be checked by its position
//! alone. The service echoes whole messages: of `sent` bytes `sent / 4 * 4` come back.
//!
//! ```text
//!   received ≤ whole messages sent ≤ sent ≤ target
//! ```
//!
//! What it does is a matter of how [`Peer::target`] grows and of whether it reads:
//!
//! | kind | target | reads |
//! |---|---|---|
//! | talking | one more message at a tick, when the last one is back | yes |
//! | idle | nothing before the end | yes |
//! | half-sent | as many bytes as it is told | yes |
//! | unread | no end | when told |
//! | pipelining | at a tick, a random burst more than was received, cut anywhere | yes |
//! | churning | one to eight messages, then FIN, the end, and a new connection | yes |
//! | resetting | the same, but RST | yes |

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};

use super::random::{Random, fill};

pub(super) const MESSAGE: u64 = 4;
/// The longest burst of a pipelining client, in bytes.
const BURST: u64 = 16 * 1024;
/// Reads and writes in a row before the other clients have their turn.
const BUDGET: usize = 4;
/// Send and receive buffer that an unread client asks for, so that it is stuck soon.
const SMALL: usize = 16 * 1024;

/// What a client does; see the file's own description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Talking,
    Idle,
    HalfSent,
    Unread,
    Pipelining,
    Churning,
    Resetting,
}

/// Where a client is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Open,
    /// It has said that it sends no more and waits for the end of the stream.
    Closing,
    Ended,
}

/// What a client wants after it was given its socket's readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Wait,
    /// Take its socket away: this life is over, as it should be.
    Over,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) stream: TcpStream,
    random: Random,
    key: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    target: u64,
    pub(super) reading: bool,
    /// No new messages: what has been begun is completed, then it ends.
    finishing: bool,
    /// It will be reset rather than closed.
    reset: bool,
    /// Since when the answer to the last message is awaited.
    asked: Instant,
    pub(super) longest: Duration,
    /// When a byte was last sent or received.
    pub(super) moved: Instant,
}

impl Peer {
    /// Begins to connect, from an address of 127.0.0.0/8 that the key picks if the server is
    /// there: ports cannot run out then, however many connections are in TIME_WAIT.
    pub(super) fn connect(to: SocketAddr, kind: Kind, key: u64) -> io::Result<Peer> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        if kind == Kind::Unread {
            setsockopt(&fd, sockopt::SndBuf, &SMALL)?;
            setsockopt(&fd, sockopt::RcvBuf, &SMALL)?;
        }
        let mut random = Random::new(key);
        if to.ip() == Ipv4Addr::LOCALHOST {
            let [_, b, c, d, ..] = random.bits().to_le_bytes();
            let source = SocketAddrV4::new(Ipv4Addr::new(127, b, c, d.clamp(1, 254)), 0);
            bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
        }
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let target = match kind {
            Kind::Talking | Kind::Idle | Kind::HalfSent => 0,
            Kind::Unread => u64::MAX,
            Kind::Pipelining => random.within(1..BURST),
            Kind::Churning | Kind::Resetting => MESSAGE * random.within(1..9),
        };
        let now = Instant::now();
        Ok(Peer {
            kind,
            state: State::Connecting,
            stream: TcpStream::from(fd),
            key: random.bits(),
            random,
            sent: 0,
            received: 0,
            target,
            reading: kind != Kind::Unread,
            finishing: false,
            reset: kind == Kind::Resetting,
            asked: now,
            longest: Duration::ZERO,
            moved: now,
        })
    }

    /// Bytes of whole messages that are sent and not back.
    fn owed(&self) -> u64 {
        self.sent / MESSAGE * MESSAGE - self.received
    }

    /// Whether it has something to write.
    pub(super) fn wants_room(&self) -> bool {
        self.state == State::Connecting || (self.state == State::Open && self.sent < self.target)
    }

    /// All that it meant to send is sent, and all that is owed is back.
    pub(super) fn is_even(&self) -> bool {
        self.sent == self.target && self.owed() == 0
    }

    /// At a tick: a talking client's next message if the last one is back, a pipelining
    /// client's next burst. False if it has nothing new to say.
    pub(super) fn talk(&mut self) -> bool {
        if self.state != State::Open || self.finishing {
            return false;
        }
        let target = match self.kind {
            Kind::Talking if self.is_even() => self.target + MESSAGE,
            Kind::Pipelining => self.received + self.random.within(1..BURST),
            _ => return false,
        };
        self.asked = Instant::now();
        let more = target > self.target;
        self.target = self.target.max(target);
        more
    }

    /// That many bytes more, wherever they cut a message.
    pub(super) fn say(&mut self, bytes: u64) {
        self.target += bytes;
    }

    /// To complete its last message, get everything back and end; one message at least.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
        self.reading = true;
        self.target = match self.kind {
            Kind::Unread | Kind::Pipelining => self.sent.next_multiple_of(MESSAGE),
            _ => self.target.next_multiple_of(MESSAGE),
        };
        if self.target == 0 {
            self.target = MESSAGE;
        }
    }

    /// To end now, by FIN or by RST, whatever it is in the midst of. By FIN it still wants
    /// every answer; by RST none.
    pub(super) fn leave(&mut self, reset: bool) -> io::Result<After> {
        self.reading = true;
        self.finishing = true;
        self.reset = reset;
        self.target = self.sent;
        if reset { self.close() } else { self.go_on() }
    }

    /// Its socket is ready for something.
    pub(super) fn ready(&mut self) -> io::Result<After> {
        if self.state == State::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.state = State::Open;
        }
        self.go_on()
    }

    /// Writes and reads as much as it may.
    fn go_on(&mut self) -> io::Result<After> {
        for _ in 0..BUDGET {
            let wrote = self.write()?;
            match self.read()? {
                Some(0) => return Ok(After::Over),
                None if !wrote => break,
                _ => {}
            }
        }
        let lives = self.state == State::Open
            && (self.finishing || matches!(self.kind, Kind::Churning | Kind::Resetting));
        if lives && self.is_even() {
            return self.close();
        }
        Ok(After::Wait)
    }

    /// It has sent all that it will.
    fn close(&mut self) -> io::Result<After> {
        if self.reset {
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&self.stream, sockopt::Linger, &linger)?;
            return Ok(After::Over);
        }
        self.state = State::Closing;
        self.stream.shutdown(Shutdown::Write)?;
        Ok(After::Wait)
    }

    /// Whether anything was written.
    fn write(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let mut wrote = false;
        while self.state == State::Open && self.sent < self.target {
            let length = (self.target - self.sent).min(buffer.len() as u64) as usize;
            fill(self.key, self.sent, &mut buffer[..length]);
            match self.stream.write(&buffer[..length]) {
                Ok(sent) => {
                    self.sent += sent as u64;
                    self.moved = Instant::now();
                    wrote = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(wrote)
    }

    /// Reads once and compares: how many bytes came (0 is the end), or `None` if there are
    /// none now.
    fn read(&mut self) -> io::Result<Option<usize>> {
        if !self.reading {
            return Ok(None);
        }
        let mut buffer = [0; 16 * 1024];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return self.end().map(|()| Some(0)),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut expected = [0; 16 * 1024];
        fill(self.key, self.received, &mut expected[..length]);
        if let Some(wrong) = (0..length).find(|at| buffer[*at] != expected[*at]) {
            let at = self.received + wrong as u64;
            return Err(wrong_bytes(format!("wrong byte at {at}")));
        }
        if length as u64 > self.owed() {
            return Err(wrong_bytes("more bytes came back than were sent".into()));
        }
        self.received += length as u64;
        self.moved = Instant::now();
        if self.kind == Kind::Talking && self.owed() == 0 {
            self.longest = self.longest.max(self.moved - self.asked);
        }
        Ok(Some(length))
    }

    /// The server has ended the stream.
    fn end(&mut self) -> io::Result<()> {
        let complete = self.owed() == 0;
        let state = std::mem::replace(&mut self.state, State::Ended);
        match (complete, state) {
            (true, State::Closing) => Ok(()),
            (true, _) => Err(io::Error::other("the server has ended it")),
            (false, _) => Err(io::Error::other("ended before all came back")),
        }
    }
}

/// What came back is not what was sent, as [`Verdict::wrong`](super::Verdict::wrong) counts it.
fn wrong_bytes(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
