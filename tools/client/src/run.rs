//! The run: one thread, one poll, all connections.
//!
//! ```text
//!   Opening ──all up──▶ Running ──duration, signal──▶ Ending ──all answered──▶ Over
//!      │                   └───no connection left──────┘  second signal │        ▲
//!      └── nobody there, signal: Failure                                └────────┘
//! ```
//!
//! No message is sent before all connections are up, so that a storm of connects is not
//! measured. In *Ending* no message is begun, and the connections stay open until all of
//! them have their answers or the time for that is over; then each is read once more, since
//! an answer that comes twice comes after the last one.
//!
//! A turn: wait for events → connections with events → timers that are due → connections
//! that did not finish. Nothing in here knows of takeovers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::Failure;
use crate::cause::Cause;
use crate::cli::Options;
use crate::conn::Conn;
use crate::connections::{Connections, Stance, Timer};
use crate::console::Console;
use crate::dial;
use crate::plan::Plan;
use crate::report::{self, Summary};
use crate::shared::Shared;
use crate::tally::Tally;
use crate::timers::{Clock, Timers};
use crate::trace::Trace;

/// Connects begun in one turn, so that signals and those already up have their turns too.
const DIALS_A_TURN: u32 = 64;
/// Connections ended by churn in one turn.
const CHURN_A_TURN: u32 = 64;
/// How often the progress line changes, in nanoseconds.
const PROGRESS_EVERY: u64 = 500_000_000;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

const TIMER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening { next: usize },
    Running,
    Ending,
    Over,
}

/// Runs the load and returns what came of it, and what became of the trace: a file that fails
/// is no reason to lose the verdict.
///
/// # Errors
/// [`Failure`] if the run could not take place; faults of the server are no error here, but
/// part of the summary.
pub fn run(options: &Options) -> Result<(Summary, Result<(), Failure>), Failure> {
    dial::make_room(options.connections).map_err(Failure::Usage)?;
    let mut run = Run::new(options)?;
    let mut events = Events::with_capacity(EVENTS);
    while run.phase != Phase::Over {
        run.turn(&mut events)?;
    }
    Ok(run.finish())
}

struct Run<'a> {
    options: &'a Options,
    seed: u64,
    /// Picks whom churn ends.
    random: fastrand::Rng,
    signals: SignalFd,
    connections: Connections,
    phase: Phase,
    /// When sending began.
    started_at: Option<u64>,
    stopped_at: u64,
    interrupted: bool,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> Result<Self, Failure> {
        let seed = options.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
        let poll = Poll::new().map_err(unable("epoll"))?;
        let mut timers = Timers::new(poll.registry(), TIMER).map_err(unable("timerfd"))?;
        let signals = take_signals(&poll).map_err(unable("signalfd"))?;
        let mut console = Console::new(options.quiet, options.verbose);
        console.tell(format_args!("seed: {seed}"));
        if console.shows_progress() {
            timers.add(0, Timer::Progress);
        }
        timers.add(0, Timer::Dial);
        let tally = Tally::new(options.max_gap.map(nanoseconds));
        let mut shared = Shared::new(Clock::start(), tally, console);
        if let Some(path) = &options.trace {
            let trace = Trace::create(path, options, seed, shared.clock.epoch());
            shared.trace = Some(trace.map_err(|error| {
                let path = path.display();
                Failure::Usage(format!(
                    "--trace {path}: {error}; name a file that can be made"
                ))
            })?);
        }
        let plan = Plan::new(options, seed);
        Ok(Self {
            options,
            seed,
            random: fastrand::Rng::with_seed(!seed),
            signals,
            connections: Connections::new(options.target, plan, poll, timers, shared),
            phase: Phase::Opening { next: 0 },
            started_at: None,
            stopped_at: 0,
            interrupted: false,
        })
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), Failure> {
        let due = self
            .connections
            .timers
            .set(self.now())
            .map_err(unable("timerfd"))?;
        let wait = (due || self.connections.has_unfinished()).then_some(Duration::ZERO);
        match self.connections.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(unable("epoll")(error)),
        }
        let unfinished = self.connections.take_unfinished();
        for event in events.iter() {
            match event.token() {
                TIMER => {}
                SIGNALS => self.signalled()?,
                Token(slot) => self
                    .connections
                    .with(slot, |conn, shared| conn.ready(event, shared))?,
            }
        }
        let now = self.now();
        while let Some((at, timer)) = self.connections.timers.next_due(now) {
            self.timer_fired(at, timer, now)?;
        }
        for slot in unfinished {
            self.connections.with(slot, Conn::resume)?;
        }
        let shared = &mut self.connections.shared;
        if let Some(trace) = &mut shared.trace {
            trace.turn(now, &shared.tally);
        }
        self.advance()
    }

    /// Moves on to the next phase if this one is done.
    fn advance(&mut self) -> Result<(), Failure> {
        match self.phase {
            Phase::Opening { next }
                if next == self.connections.slots() && self.connections.connecting() == 0 =>
            {
                self.start()
            }
            Phase::Running if self.connections.alive() == 0 && self.options.churn.is_none() => {
                self.connections
                    .shared
                    .console
                    .complain(format_args!("no connection is left"));
                self.end()
            }
            Phase::Ending if self.connections.owing() == 0 => {
                self.phase = Phase::Over;
                Ok(())
            }
            Phase::Opening { .. } | Phase::Running | Phase::Ending | Phase::Over => Ok(()),
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let now = self.now();
        self.phase = Phase::Running;
        self.connections.stance = Stance::Sending;
        self.started_at = Some(now);
        self.connections.shared.console.clear_progress();
        announce(self.connections.alive(), self.options.ready_file.as_deref())?;
        for slot in 0..self.connections.slots() {
            self.connections.with(slot, Conn::start)?;
        }
        if let Some(duration) = self.options.duration {
            let end = now.saturating_add(nanoseconds(duration));
            self.connections.timers.add(end, Timer::End);
        }
        if let Some(rate) = self.options.churn {
            self.connections
                .timers
                .add(now + period(rate), Timer::Churn);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.phase = Phase::Ending;
        self.connections.stance = Stance::Leaving;
        self.stopped_at = self.now();
        let until = self.drain_until();
        for slot in 0..self.connections.slots() {
            self.connections.stop(slot, until, false)?;
        }
        Ok(())
    }

    /// The last look, and the sums.
    fn finish(mut self) -> (Summary, Result<(), Failure>) {
        self.connections.close_all();
        self.connections.shared.console.clear_progress();
        // It has: no run ends well without a start.
        let from = self.started_at.unwrap_or(self.stopped_at);
        let now = self.now();
        let trace = self.connections.shared.trace.take();
        let summary = Summary {
            seed: self.seed,
            load: self.options.load,
            connections: self.options.connections,
            elapsed: Duration::from_nanos(self.stopped_at - from),
            started_at: from,
            interrupted: self.interrupted,
            tally: self.connections.shared.tally,
        };
        let traced = match trace {
            Some(trace) => trace.finish(now, &summary.tally, &summary.json()),
            None => Ok(()),
        };
        (summary, traced.map_err(failed("--trace")))
    }

    fn signalled(&mut self) -> Result<(), Failure> {
        while let Ok(Some(_)) = self.signals.read_signal() {
            match self.phase {
                Phase::Opening { .. } => {
                    let why = "ended by a signal before all connections were up";
                    return Err(Failure::Failed(why.to_owned()));
                }
                Phase::Running => {
                    self.interrupted = true;
                    self.end()?;
                }
                Phase::Ending | Phase::Over => self.phase = Phase::Over,
            }
        }
        Ok(())
    }

    fn timer_fired(&mut self, at: u64, timer: Timer, now: u64) -> Result<(), Failure> {
        match timer {
            Timer::Conn(slot) => self.connections.timer_fired(slot, at),
            Timer::Dial => self.dial_more(at, now),
            Timer::Churn => self.churn(at, now),
            Timer::Progress => {
                self.show_progress(now);
                Ok(())
            }
            Timer::End if self.phase == Phase::Running => self.end(),
            Timer::End => Ok(()),
        }
    }

    /// Opens the connections that are due since `at`.
    fn dial_more(&mut self, mut at: u64, now: u64) -> Result<(), Failure> {
        let period = self.options.connect_rate.map_or(0, period);
        for _ in 0..DIALS_A_TURN {
            let Phase::Opening { next } = self.phase else {
                return Ok(());
            };
            if next == self.connections.slots() {
                return Ok(());
            }
            if at > now {
                break;
            }
            self.phase = Phase::Opening { next: next + 1 };
            self.connections.dial(next)?;
            at += period;
        }
        // Not before the next turn, or this one would never end.
        self.connections.timers.add(at.max(now + 1), Timer::Dial);
        Ok(())
    }

    /// Ends the connections that are due since `at`, and fills empty slots.
    fn churn(&mut self, mut at: u64, now: u64) -> Result<(), Failure> {
        let (Phase::Running, Some(rate)) = (self.phase, self.options.churn) else {
            return Ok(());
        };
        let until = self.drain_until();
        for _ in 0..CHURN_A_TURN {
            if at > now {
                break;
            }
            at += period(rate);
            let slot = self.random.usize(0..self.connections.slots());
            self.connections.stop(slot, until, true)?;
        }
        // Those that this turn had no room for are not made up for.
        self.connections.timers.add(at.max(now + 1), Timer::Churn);
        Ok(())
    }

    fn show_progress(&mut self, now: u64) {
        let elapsed = Duration::from_nanos(now - self.started_at.unwrap_or(now));
        let line = report::progress(
            &self.connections.shared.tally,
            self.connections.alive(),
            elapsed,
        );
        self.connections
            .shared
            .console
            .progress(format_args!("{line}"));
        self.connections
            .timers
            .add(now + PROGRESS_EVERY, Timer::Progress);
    }

    fn now(&self) -> u64 {
        self.connections.shared.clock.now()
    }

    fn drain_until(&self) -> u64 {
        self.now()
            .saturating_add(nanoseconds(self.options.drain_timeout))
    }
}

/// From now on INT and TERM are read from a descriptor instead of ending the process.
fn take_signals(poll: &Poll) -> io::Result<SignalFd> {
    let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let fd = signals.as_fd().as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE)?;
    Ok(signals)
}

/// Says that all connections are up, on stdout and by a file that appears with its content.
fn announce(connections: usize, file: Option<&Path>) -> Result<(), Failure> {
    let line = format!("ready: {connections} connections\n");
    report::print(&line)?;
    let Some(path) = file else {
        return Ok(());
    };
    let mut unready = path.as_os_str().to_owned();
    unready.push(".tmp");
    std::fs::write(&unready, &line)
        .and_then(|()| std::fs::rename(&unready, path))
        .map_err(|error| Failure::Failed(format!("--ready-file {}: {error}", path.display())))
}

/// A call that only this machine answers.
fn unable(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Unable(format!("{what}: {}", Cause::own(error)))
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds between two things that happen `rate` times a second.
fn period(rate: f64) -> u64 {
    ((1e9 / rate) as u64).max(1)
}
