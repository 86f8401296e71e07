//! What the way from the kernel to a callback costs, without what the callback does.
//!
//! So many eventfds are watched edge-triggered; each is rung, and then one turn of the loop is
//! timed, in which every callback adds one to a counter. Ringing is not part of the time, the
//! wait is: a loop that asks the kernel more often than the floor pays for it here. Of all
//! turns the median counts, so that one in which another process ran says nothing.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::{EventLoop, Mode, PostAction};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket_takeover::event::{Config, Next, Reactor, Spec};

use takeover_say::say;

use crate::cli::Options;
use crate::echo::order;
use crate::figures::{median, ratios, spread};
use crate::machine::pin;
use crate::ready::wait;

/// How many are ready at once.
const READY: [usize; 3] = [1, 64, 1000];

/// What is rung; the loop has the other reference.
type Bell = Arc<EventFd>;

/// One way to wait and call.
trait Subject {
    const NAME: &'static str;
    fn new(bells: &[Bell]) -> io::Result<Self>
    where
        Self: Sized;
    /// One wait, and the callbacks of what is ready.
    fn turn(&mut self) -> io::Result<()>;
    /// How many callbacks there were so far.
    fn calls(&self) -> u64;
}

/// The least: a wait, and a match on what it says.
struct Raw {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    /// Kept as long as they are watched, as a server keeps its sockets.
    bells: Vec<Bell>,
    calls: u64,
}

impl Subject for Raw {
    const NAME: &'static str = "epoll and match";

    fn new(bells: &[Bell]) -> io::Result<Raw> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (bell, number) in bells.iter().zip(0..) {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(bell, EpollEvent::new(flags, number))?;
        }
        Ok(Raw {
            epoll,
            events: vec![EpollEvent::empty(); 1024],
            bells: bells.to_vec(),
            calls: 0,
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        for event in wait(&self.epoll, &mut self.events)? {
            match self.bells.get(event.data() as usize) {
                Some(_) => self.calls += 1,
                None => return Err(io::Error::other("an event of nobody")),
            }
        }
        Ok(())
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

struct Ours {
    reactor: Reactor<u64>,
    calls: u64,
}

impl Subject for Ours {
    const NAME: &'static str = "socket-takeover";

    fn new(bells: &[Bell]) -> io::Result<Ours> {
        let mut reactor = Reactor::new(Config::default())?;
        for bell in bells {
            let callback = |_: &mut Bell, calls: &mut u64, _: &mut _, _| {
                *calls += 1;
                Ok(Next::Keep)
            };
            reactor
                .cx()
                .add(Spec::item("bell"), Arc::clone(bell), callback)
                .map_err(|refused| refused.error)?;
        }
        Ok(Ours { reactor, calls: 0 })
    }

    fn turn(&mut self) -> io::Result<()> {
        self.reactor.turn(&mut self.calls, None)
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

struct Calloop {
    event_loop: EventLoop<'static, u64>,
    calls: u64,
}

impl Subject for Calloop {
    const NAME: &'static str = "calloop";

    fn new(bells: &[Bell]) -> io::Result<Calloop> {
        let event_loop = EventLoop::try_new()?;
        for bell in bells {
            let source = Generic::new(Arc::clone(bell), calloop::Interest::READ, Mode::Edge);
            let callback = |_, _: &mut _, calls: &mut u64| {
                *calls += 1;
                Ok(PostAction::Continue)
            };
            event_loop
                .handle()
                .insert_source(source, callback)
                .map_err(io::Error::other)?;
        }
        Ok(Calloop {
            event_loop,
            calls: 0,
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        Ok(self.event_loop.dispatch(None, &mut self.calls)?)
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

type Measure = fn(usize, Duration) -> Result<f64, Box<dyn Error>>;

/// Measures and prints.
pub(crate) fn table(options: &Options) -> Result<(), Box<dyn Error>> {
    let subjects: [(&str, Measure); 3] = [
        (Raw::NAME, measure::<Raw>),
        (Ours::NAME, measure::<Ours>),
        (Calloop::NAME, measure::<Calloop>),
    ];
    pin(options.load_cpu);
    let pairs = options.pairs;
    say!(
        "Nanoseconds a callback, wait included, and the ratio in {pairs} pairs; median (min–max).\n"
    )?;
    let [raw, ours, calloop] = subjects.map(|(name, _)| name);
    say!("| ready at once | {raw} | {ours} | ratio | {calloop} | ratio |")?;
    say!("|---|---|---|---|---|---|")?;
    for ready in READY {
        let mut rounds = vec![Vec::with_capacity(pairs); subjects.len()];
        for round in 0..pairs {
            for which in order(subjects.len(), round) {
                let (_, measure) = subjects[which];
                // A tenth of a server's measurement is thousands of turns already.
                rounds[which].push(measure(ready, options.length / 10)?);
            }
        }
        let mut line = format!("| {ready} | {} |", spread(&rounds[0], 0));
        for figures in &rounds[1..] {
            let ratio = spread(&ratios(figures, &rounds[0]), 2);
            line += &format!(" {} | {ratio} |", spread(figures, 0));
        }
        say!("{line}")?;
    }
    Ok(())
}

/// Nanoseconds a callback in the median turn of those within `length`.
fn measure<T: Subject>(ready: usize, length: Duration) -> Result<f64, Box<dyn Error>> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bells = (0..ready).map(|_| EventFd::from_flags(flags).map(Arc::new));
    let bells: Vec<Bell> = bells.collect::<Result<_, _>>()?;
    let mut subject = T::new(&bells)?;
    let mut turns = Vec::new();
    let began = Instant::now();
    let mut expected = 0;
    while began.elapsed() < length || turns.is_empty() {
        for bell in &bells {
            bell.write(1)?;
        }
        expected += ready as u64;
        let start = Instant::now();
        while subject.calls() < expected {
            subject.turn()?;
        }
        turns.push(start.elapsed().as_nanos() as f64 / ready as f64);
        if subject.calls() > expected {
            return Err(format!("{} called back more often than it was rung", T::NAME).into());
        }
    }
    // The first tenth warms caches.
    let warm = turns.len() / 10;
    Ok(median(&turns[warm..]))
}
