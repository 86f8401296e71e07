//! The reactor as one of several loops: a daemon that has an epoll loop of its own, with its own
//! sources and signals, moves one service at a time.
//!
//! ```text
//!   host's epoll ─┬─ heartbeat (timerfd)            the host's, not handed over
//!                 ├─ SIGTERM (signalfd)             the host's: it asks for an orderly end
//!                 └─ reactor's descriptor ──▶ turn ─▶ UDP echo, takeover
//!
//!   nested_loop -t PATH ADDRESS    cold start
//!   nested_loop -T PATH            take over from whoever offers it at PATH
//! ```
//!
//! What it shows: a start in steps, and what a host has to do in each pass of its loop: arm the
//! reactor's descriptor, wait until its wake time at most, give it a turn. What is handed over
//! is one UDP socket without state.

use std::net::UdpSocket;
use std::time::Duration;
use std::{env, io};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket_takeover::event::{Cx, Next, Reactor, Signals, Spec, Time};
use socket_takeover::takeover::{
    Application, Arrival, Description, Error, Exit, Item, ItemKind, Moment, Rejection, SavedState,
    Start, Takeover, TakeoverPath,
};

const VERSION: u16 = 1;
/// What the host's events carry.
const REACTOR: u64 = 0;
const HEARTBEAT: u64 = 1;
const SIGNALS: u64 = 2;

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (start, address) = match words[..] {
        ["-T", path] => (Start::take_over(TakeoverPath::new(path)?), None),
        ["-t", path, address] => (Start::offer(TakeoverPath::new(path)?), Some(address)),
        _ => return Err(Error::usage("say -t PATH ADDRESS, or -T PATH")),
    };
    // What the host has anyway.
    let mut host = Host::new()?;

    // What it takes to embed the service.
    let mut echo = Echo::default();
    let mut reactor = start.reactor()?;
    if let Some(address) = address {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        eprintln!("serving on {}", socket.local_addr()?);
        add(socket, reactor.cx())?;
    }
    start.begin(&mut echo, reactor.cx())?;
    while !reactor.cx().is_stopped() {
        arm(&host.epoll, &reactor)?;
        if host.wait(timeout(reactor.wake_time()))? {
            Takeover::term(&mut echo, reactor.cx());
        }
        reactor.turn(&mut echo, Some(Duration::ZERO))?;
    }
    eprintln!("the host's heart has beaten {} times", host.beats);
    echo.takeover.outcome()
}

/// Arms the reactor's descriptor for one wait. While the items are held it is another one, and
/// after a release a new one; those that are not armed stay asleep.
fn arm(epoll: &Epoll, reactor: &Reactor<Echo>) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    let mut event = EpollEvent::new(flags, REACTOR);
    match epoll.modify(reactor, &mut event) {
        Err(Errno::ENOENT) => Ok(epoll.add(reactor, event)?),
        armed => Ok(armed?),
    }
}

/// Milliseconds, rounded up so that no pass is in vain.
fn timeout(wake: Option<Time>) -> EpollTimeout {
    let Some(wake) = wake else {
        return EpollTimeout::NONE;
    };
    let left = wake.since(Time::now()).as_micros().div_ceil(1000);
    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
}

/// The loop that was there first.
struct Host {
    epoll: Epoll,
    heart: TimerFd,
    signals: Signals,
    beats: u64,
}

impl Host {
    fn new() -> io::Result<Host> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let heart = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let each = Expiration::Interval(Duration::from_millis(1).into());
        heart.set(each, TimerSetTimeFlags::empty())?;
        let signals = Signals::new(&[libc::SIGTERM])?;
        epoll.add(&heart, EpollEvent::new(EpollFlags::EPOLLIN, HEARTBEAT))?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        Ok(Host {
            epoll,
            heart,
            signals,
            beats: 0,
        })
    }

    /// One pass of its own; true if it is to end.
    fn wait(&mut self, timeout: EpollTimeout) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); 8];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        let mut ends = false;
        for event in &events[..ready] {
            match event.data() {
                HEARTBEAT => {
                    self.heart.wait()?;
                    self.beats += 1;
                    if self.beats == 1 {
                        eprintln!("the host's heart beats");
                    }
                }
                SIGNALS => ends |= self.signals.read()?.is_some(),
                // REACTOR: its turn comes in any case.
                _ => {}
            }
        }
        Ok(ends)
    }
}

/// The service that has moved to the reactor.
#[derive(Default)]
struct Echo {
    takeover: Takeover,
}

fn add(socket: UdpSocket, cx: &mut Cx<Echo>) -> io::Result<Item> {
    let added = cx.add(Spec::item("echo"), socket, |socket, _, cx, _| {
        let mut datagram = [0; 2048];
        for _ in 0..cx.budget() {
            match socket.recv_from(&mut datagram) {
                // Not taken is as good as lost, and UDP's clients ask again.
                Ok((length, peer)) => drop(socket.send_to(&datagram[..length], peer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Keep),
                // It was about one datagram (udp(7)), and reading it has cleared it.
                Err(_) => {}
            }
        }
        Ok(Next::Again)
    })?;
    Ok(added.into())
}

impl Application for Echo {
    const NAME: &'static str = "nested_loop";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Source(id) => Description::source(cx, id, ItemKind::Udp, VERSION),
            Item::Carried(number) => Err(format!("nothing is carried as {number}")),
        }
    }

    fn save(&mut self, _: &mut Cx<Self>, _: Item, _: &mut Vec<u8>) -> bool {
        false
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.name, arrival.state.version, arrival.fd) {
            ("echo", VERSION, Some(fd)) => Ok(add(fd.into(), cx)?),
            (name, version, _) => Err(format!("{name:?}, version {version}, is not for us").into()),
        }
    }

    fn update(&mut self, _: &mut Cx<Self>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}");
        moment.follow(self, cx);
    }
}
