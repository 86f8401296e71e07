//! Clients that do what TCP allows and nobody expects, each once, when it is told.
//!
//! Like all clients here it sends a stream that its key decides, and knows what it must get
//! back: its whole messages, each byte once and in order, and then the answer to its FIN.
//!
//! | corner | what it does when it acts | how it goes on |
//! |---|---|---|
//! | silent | nothing | says more, FIN |
//! | fin | FIN | |
//! | fin behind a half | a message and half of one, FIN | |
//! | half-close | fills every buffer and reads nothing, FIN | reads: all comes, though it has ended |
//! | reset | RST | gone |
//! | reset behind data | messages, RST: it may be the first that is seen | gone |
//! | full buffers | sends until nobody takes any more, and reads nothing | reads, says more, FIN |
//! | zero window | has a small window and lets the answers close it | reads, says more, FIN |
//! | urgent byte | the third byte of a message is urgent (MSG_OOB) | says more, FIN |
//! | urgent last | the last byte it has sent is urgent | says more, FIN |
//! | in flight | a message and half of one, and does not wait | says more, FIN |
//! | backlog | connects | says more, FIN |
//! | backlog, data | connects, a message and a half | says more, FIN |
//! | backlog, fin | connects, messages, FIN | |
//! | backlog, reset | connects, messages, RST | gone |

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, send,
    setsockopt, socket, sockopt,
};
use socket_takeover::sys::unread_bytes;

use super::BOUND;
use super::random::fill;

const MESSAGE: u64 = 4;
/// What the answers of a zero window are, at least: many times what such a client has room for.
const ANSWERS: u64 = 48 * 1024;
/// The receive buffer that it asks for (tcp(7): the kernel doubles it).
const WINDOW: usize = 4096;
/// The send buffer of one that fills all. One that holds less than a few segments of loopback
/// waits for a delayed ACK each time.
const ROOM: usize = 256 * 1024;
/// If nobody has taken anything for so long all buffers count as full. On a busy machine they
/// may not be, and then are a little less full.
const STUCK: Duration = Duration::from_millis(50);

/// See the file's own description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corner {
    Silent,
    Fin,
    FinBehindHalf,
    HalfClose,
    Reset,
    ResetBehindData,
    FullBuffers,
    ZeroWindow,
    Urgent,
    UrgentLast,
    InFlight,
    Backlog,
    BacklogData,
    BacklogFin,
    BacklogReset,
}

impl Corner {
    pub const ALL: [Corner; 15] = [
        Corner::Silent,
        Corner::Fin,
        Corner::FinBehindHalf,
        Corner::HalfClose,
        Corner::Reset,
        Corner::ResetBehindData,
        Corner::FullBuffers,
        Corner::ZeroWindow,
        Corner::Urgent,
        Corner::UrgentLast,
        Corner::InFlight,
        Corner::Backlog,
        Corner::BacklogData,
        Corner::BacklogFin,
        Corner::BacklogReset,
    ];

    /// It connects when it acts, and not before.
    fn comes_late(self) -> bool {
        matches!(
            self,
            Corner::Backlog | Corner::BacklogData | Corner::BacklogFin | Corner::BacklogReset
        )
    }

    fn ends_by_reset(self) -> bool {
        matches!(
            self,
            Corner::Reset | Corner::ResetBehindData | Corner::BacklogReset
        )
    }
}

/// One client in a corner.
#[derive(Debug)]
pub struct Guest {
    pub corner: Corner,
    to: SocketAddr,
    key: u64,
    stream: Option<TcpStream>,
    sent: u64,
    heard: u64,
    finished: bool,
}

impl Guest {
    /// Has had one answer, unless it is one that comes late.
    #[track_caller]
    pub fn arrive(to: SocketAddr, corner: Corner, key: u64) -> Guest {
        let mut guest = Guest {
            corner,
            to,
            key,
            stream: None,
            sent: 0,
            heard: 0,
            finished: false,
        };
        if !corner.comes_late() {
            guest.connect();
            guest.say(MESSAGE);
            guest.hear_until(|guest| guest.heard == MESSAGE);
        }
        guest
    }

    /// Does what its corner is about.
    pub fn act(&mut self) {
        if self.corner.comes_late() {
            self.connect();
        }
        match self.corner {
            Corner::Silent | Corner::Backlog => {}
            Corner::Fin => self.finish(),
            Corner::FinBehindHalf => {
                self.say(MESSAGE + 2);
                self.finish();
            }
            Corner::HalfClose => {
                self.stuff();
                self.finish();
            }
            Corner::Reset => self.reset(),
            Corner::ResetBehindData | Corner::BacklogReset => {
                self.say(5 * MESSAGE);
                self.reset();
            }
            Corner::FullBuffers => self.stuff(),
            Corner::ZeroWindow => self.say(ANSWERS),
            Corner::Urgent => {
                self.say(2);
                self.say_urgently();
                self.say(2 * MESSAGE + 1);
            }
            Corner::UrgentLast => {
                self.say(MESSAGE - 1);
                self.say_urgently();
            }
            Corner::InFlight | Corner::BacklogData => self.say(MESSAGE + 2),
            Corner::BacklogFin => {
                self.say(3 * MESSAGE);
                self.finish();
            }
        }
    }

    /// Waits until whoever serves has done what can be done about it.
    #[track_caller]
    pub fn await_answers(&mut self) {
        match self.corner {
            Corner::Urgent | Corner::UrgentLast | Corner::InFlight | Corner::BacklogData => {
                self.hear_until(|guest| guest.heard == guest.whole());
            }
            // Its window is full when so much of it is: what comes in one segment fits or waits.
            Corner::ZeroWindow => {
                let end = Instant::now() + BOUND;
                while unread_bytes(self.stream()).expect("it is a socket") < WINDOW as u32 / 2 {
                    assert!(Instant::now() < end, "{self:?}: no answers");
                    std::thread::yield_now();
                }
            }
            _ => {}
        }
    }

    /// Says more if it can, gets everything back, then FIN and the answer to it. Returns how
    /// many bytes it has checked.
    #[track_caller]
    pub fn leave(mut self) -> u64 {
        if self.corner.ends_by_reset() {
            return self.heard;
        }
        if !self.finished {
            let more = self.sent.next_multiple_of(MESSAGE) + 2 * MESSAGE;
            let end = Instant::now() + BOUND;
            loop {
                self.say(more - self.sent);
                self.hear();
                if self.sent == more && self.heard == more {
                    break;
                }
                assert!(Instant::now() < end, "{self:?}: not all comes back");
                self.await_ready(self.sent < more, Duration::from_secs(1));
            }
            self.finish();
        }
        self.hear_until(|guest| guest.stream.is_none());
        assert_eq!(self.heard, self.whole(), "{self:?}: ended too early");
        self.heard
    }

    fn connect(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let family = AddressFamily::Inet;
        let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp).expect("a socket");
        setsockopt(&fd, sockopt::TcpNoDelay, &true).expect("it is a socket");
        // Before the handshake, which tells the window.
        match self.corner {
            Corner::ZeroWindow => {
                setsockopt(&fd, sockopt::RcvBuf, &WINDOW).expect("it is a socket");
            }
            Corner::HalfClose | Corner::FullBuffers => {
                setsockopt(&fd, sockopt::SndBuf, &ROOM).expect("it is a socket");
            }
            _ => {}
        }
        connect(fd.as_raw_fd(), &SockaddrStorage::from(self.to)).expect("somebody listens");
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(true).expect("it is a socket");
        self.stream = Some(stream);
    }

    /// What has to come back of what was sent.
    fn whole(&self) -> u64 {
        self.sent / MESSAGE * MESSAGE
    }

    fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("it is connected")
    }

    /// As many bytes as the kernel takes.
    fn say(&mut self, bytes: u64) {
        self.try_say(bytes);
    }

    /// True if it took any.
    fn try_say(&mut self, bytes: u64) -> bool {
        let mut room = vec![0; bytes as usize];
        fill(self.key, self.sent, &mut room);
        match self.stream().write(&room) {
            Ok(taken) => {
                self.sent += taken as u64;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    fn say_urgently(&mut self) {
        let mut byte = [0];
        fill(self.key, self.sent, &mut byte);
        let taken = send(self.stream().as_raw_fd(), &byte, MsgFlags::MSG_OOB);
        self.sent += taken.expect("there is room") as u64;
    }

    /// Until every buffer on the way to the server, in it and back is full.
    fn stuff(&mut self) {
        loop {
            while self.try_say(ROOM as u64) {}
            if !self.await_ready(true, STUCK).contains(PollFlags::POLLOUT) {
                return;
            }
        }
    }

    fn finish(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("it is open");
        self.finished = true;
    }

    fn reset(&mut self) {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(self.stream(), sockopt::Linger, &at_once).expect("it is a socket");
        self.stream = None;
    }

    /// Reads what is there and checks it. At the end of the stream there is no stream any more.
    #[track_caller]
    fn hear(&mut self) {
        let mut room = [0; 64 * 1024];
        let mut expected = [0; 64 * 1024];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut room) {
                Ok(0) => self.stream = None,
                Ok(length) => {
                    fill(self.key, self.heard, &mut expected[..length]);
                    let right = room[..length] == expected[..length];
                    self.heard += length as u64;
                    assert!(right, "{self:?}: a wrong byte");
                    assert!(self.heard <= self.whole(), "{self:?}: bytes too many");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An RST in place of FIN too.
                Err(error) => panic!("{self:?}: {error}"),
            }
        }
    }

    #[track_caller]
    fn hear_until(&mut self, done: impl Fn(&Guest) -> bool) {
        let end = Instant::now() + BOUND;
        loop {
            self.hear();
            if done(self) {
                return;
            }
            assert!(Instant::now() < end, "{self:?}: it does not come to that");
            self.await_ready(false, Duration::from_secs(1));
        }
    }

    fn await_ready(&self, wants_room: bool, bound: Duration) -> PollFlags {
        let Some(stream) = &self.stream else {
            return PollFlags::empty();
        };
        // Who fills buffers does not read.
        let flags = match (wants_room, bound == STUCK) {
            (true, true) => PollFlags::POLLOUT,
            (true, false) => PollFlags::POLLOUT | PollFlags::POLLIN,
            (false, _) => PollFlags::POLLIN,
        };
        let mut wanted = [PollFd::new(stream.as_fd(), flags)];
        let timeout = PollTimeout::try_from(bound).expect("it is short");
        poll(&mut wanted, timeout).expect("it is a socket");
        wanted[0].revents().unwrap_or(PollFlags::empty())
    }
}
