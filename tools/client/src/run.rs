//! The run: one thread, one poll, all connections.
//!
//! ```text
//!   Opening ──all up──▶ Running ──duration, signal──▶ Ending ──all answered──▶ Over
//!      │                   └───no connection left──────┘  second signal │        ▲
//!      └── nobody there: NoServer                                       └────────┘
//! ```
//!
//! No message is sent before all connections are up, so that a storm of connects is not
//! measured. In *Ending* no message is begun, and the connections stay open until all of
//! them have their answers or the time for that is over; then each is read once more, since
//! an answer that comes twice comes after the last one.
//!
//! A turn: wait for events → connections with events → alarms that are due → connections
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
use crate::alarms::{Alarms, Clock};
use crate::cli::Options;
use crate::conn::{Conn, Desk, Fate, Gone};
use crate::console::Console;
use crate::dial::{self, Buffers};
use crate::plan::{Plan, Role};
use crate::report::{self, Summary};
use crate::tally::Tally;

/// Connects begun in one turn, so that signals and those already up have their turns too.
const DIALS_A_TURN: u64 = 64;
/// Connections ended by churn in one turn.
const CHURN_A_TURN: u64 = 64;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Dial,
    Conn(usize),
    Churn,
    Progress,
    End,
}

/// Runs the load and returns what came of it.
///
/// # Errors
/// [`Failure`] if the run could not take place; faults of the server are no error here, but
/// part of the summary.
pub fn run(options: &Options) -> Result<Summary, Failure> {
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
    plan: Plan,
    random: fastrand::Rng,
    poll: Poll,
    alarms: Alarms<Alarm>,
    signals: SignalFd,
    desk: Desk,
    phase: Phase,
    conns: Vec<Option<Conn>>,
    /// How many connections each slot has had.
    lives: Vec<u32>,
    /// Connections that are there.
    alive: usize,
    /// Those among them that are connecting.
    connecting: usize,
    /// Those among them that were stopped and owe answers.
    owing: usize,
    /// Connections that did not finish their turn.
    unfinished: Vec<usize>,
    /// When sending began.
    started_at: Option<u64>,
    stopped_at: u64,
    interrupted: bool,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> Result<Self, Failure> {
        let seed = options.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
        let poll = Poll::new().map_err(failed("epoll"))?;
        let mut alarms = Alarms::new(poll.registry(), TIMER).map_err(failed("timerfd"))?;
        let signals = take_signals(&poll).map_err(failed("signalfd"))?;
        let max_gap = options.max_gap.map(nanoseconds);
        let mut console = Console::new(options.quiet, options.verbose);
        console.tell(format_args!("seed: {seed}"));
        if console.shows_progress() {
            alarms.add(0, Alarm::Progress);
        }
        alarms.add(0, Alarm::Dial);
        Ok(Self {
            options,
            seed,
            plan: Plan::new(options, seed),
            random: fastrand::Rng::with_seed(!seed),
            poll,
            alarms,
            signals,
            desk: Desk::new(Clock::start(), Tally::new(max_gap), console),
            phase: Phase::Opening { next: 0 },
            conns: (0..options.connections).map(|_| None).collect(),
            lives: vec![0; options.connections],
            alive: 0,
            connecting: 0,
            owing: 0,
            unfinished: Vec::new(),
            started_at: None,
            stopped_at: 0,
            interrupted: false,
        })
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), Failure> {
        let due = self
            .alarms
            .set(self.desk.clock.now())
            .map_err(failed("timerfd"))?;
        let wait = (due || !self.unfinished.is_empty()).then_some(Duration::ZERO);
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(failed("epoll")(error)),
        }
        let unfinished = std::mem::take(&mut self.unfinished);
        for event in events.iter() {
            match event.token() {
                TIMER => {}
                SIGNALS => self.signalled()?,
                Token(slot) => self.with(slot, |conn, desk| conn.ready(event, desk))?,
            }
        }
        let now = self.desk.clock.now();
        while let Some((at, alarm)) = self.alarms.next_due(now) {
            self.alarmed(at, alarm, now)?;
        }
        for slot in unfinished {
            self.with(slot, Conn::tick)?;
        }
        self.advance()
    }

    /// Moves on to the next phase if this one is done.
    fn advance(&mut self) -> Result<(), Failure> {
        match self.phase {
            Phase::Opening { next } if next == self.conns.len() && self.connecting == 0 => {
                self.start()
            }
            Phase::Running if self.alive == 0 && self.options.churn.is_none() => {
                self.desk
                    .console
                    .complain(format_args!("no connection is left"));
                self.end()
            }
            Phase::Ending if self.owing == 0 => {
                self.phase = Phase::Over;
                Ok(())
            }
            Phase::Opening { .. } | Phase::Running | Phase::Ending | Phase::Over => Ok(()),
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let now = self.desk.clock.now();
        self.phase = Phase::Running;
        self.started_at = Some(now);
        self.desk.console.clear_progress();
        announce(self.alive, self.options.ready_file.as_deref())?;
        for slot in 0..self.conns.len() {
            self.with(slot, Conn::start)?;
        }
        if let Some(duration) = self.options.duration {
            self.alarms
                .add(now.saturating_add(nanoseconds(duration)), Alarm::End);
        }
        if let Some(rate) = self.options.churn {
            self.alarms.add(now + period(rate), Alarm::Churn);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.phase = Phase::Ending;
        self.stopped_at = self.desk.clock.now();
        let until = self.drain_until();
        for slot in 0..self.conns.len() {
            self.stop(slot, until)?;
        }
        Ok(())
    }

    /// The last look, and the sums.
    fn finish(mut self) -> Summary {
        for slot in 0..self.conns.len() {
            while let Some(conn) = &mut self.conns[slot] {
                match conn.tick(&mut self.desk) {
                    Fate::Gone(gone) => self.lose(slot, gone),
                    Fate::Alive | Fate::Up | Fate::Drained if conn.wants_turn() => {}
                    Fate::Alive | Fate::Up | Fate::Drained => self.remove(slot),
                }
            }
        }
        self.desk.console.clear_progress();
        let from = self.started_at.unwrap_or(self.stopped_at);
        Summary {
            seed: self.seed,
            load: self.options.load,
            connections: self.options.connections,
            elapsed: Duration::from_nanos(self.stopped_at - from),
            started_at: from,
            interrupted: self.interrupted,
            tally: self.desk.tally,
        }
    }

    fn signalled(&mut self) -> Result<(), Failure> {
        while let Ok(Some(_)) = self.signals.read_signal() {
            match self.phase {
                Phase::Opening { .. } | Phase::Running => {
                    self.interrupted = true;
                    self.end()?;
                }
                Phase::Ending | Phase::Over => self.phase = Phase::Over,
            }
        }
        Ok(())
    }

    fn alarmed(&mut self, at: u64, alarm: Alarm, now: u64) -> Result<(), Failure> {
        match alarm {
            Alarm::Conn(slot) => {
                // An alarm that was replaced by an earlier one means nothing any more.
                let conn = self.conns[slot]
                    .as_mut()
                    .filter(|conn| conn.armed == Some(at));
                if let Some(conn) = conn {
                    conn.armed = None;
                    self.with(slot, Conn::tick)?;
                }
            }
            Alarm::Dial => self.dial_more(at, now)?,
            Alarm::Churn => self.churn(at, now)?,
            Alarm::Progress => {
                let elapsed = Duration::from_nanos(now - self.started_at.unwrap_or(now));
                let line = report::progress(&self.desk.tally, self.alive, elapsed);
                self.desk.console.progress(format_args!("{line}"));
                self.alarms.add(now + PROGRESS_EVERY, Alarm::Progress);
            }
            Alarm::End if self.phase == Phase::Running => self.end()?,
            Alarm::End => {}
        }
        Ok(())
    }

    /// Opens the connections that are due since `at`.
    fn dial_more(&mut self, at: u64, now: u64) -> Result<(), Failure> {
        let period = self.options.connect_rate.map_or(0, period);
        let mut at = at;
        for _ in 0..DIALS_A_TURN {
            let Phase::Opening { next } = self.phase else {
                return Ok(());
            };
            if next == self.conns.len() {
                return Ok(());
            }
            if at > now {
                break;
            }
            self.phase = Phase::Opening { next: next + 1 };
            self.dial(next)?;
            at += period;
        }
        self.alarms
            .add(if period == 0 { now } else { at }, Alarm::Dial);
        Ok(())
    }

    /// Ends the connections that are due since `at`, and fills empty slots.
    fn churn(&mut self, at: u64, now: u64) -> Result<(), Failure> {
        let (Phase::Running, Some(rate)) = (self.phase, self.options.churn) else {
            return Ok(());
        };
        let mut at = at;
        for _ in 0..CHURN_A_TURN {
            if at > now {
                break;
            }
            at += period(rate);
            let slot = self.random.usize(0..self.conns.len());
            if self.conns[slot].is_none() {
                self.dial(slot)?;
            } else {
                self.stop(slot, self.drain_until())?;
            }
        }
        self.alarms.add(at, Alarm::Churn);
        Ok(())
    }

    fn dial(&mut self, slot: usize) -> Result<(), Failure> {
        let buffers = match self.plan.role(slot) {
            Role::Unread => Buffers::Small,
            Role::Steady | Role::Idle | Role::Half => Buffers::Automatic,
        };
        let pace = self.plan.pace(slot, self.lives[slot]);
        // The first answers of those opened at the start wait until the server has accepted
        // all of them, which is no pause. For those opened later it is one.
        let timed = self.phase == Phase::Running;
        self.lives[slot] += 1;
        let now = self.desk.clock.now();
        let stream = dial::dial(self.options.target, self.plan.source(slot), buffers);
        let conn =
            stream.and_then(|it| Conn::new(it, slot, pace, timed, self.poll.registry(), now));
        match conn {
            Ok(conn) => {
                self.conns[slot] = Some(conn);
                self.alive += 1;
                self.connecting += 1;
                self.arm(slot);
                Ok(())
            }
            Err(error) => self.unreachable(slot, &error),
        }
    }

    /// Lets a connection do something, and deals with what came of it.
    fn with(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Conn, &mut Desk) -> Fate,
    ) -> Result<(), Failure> {
        let Some(conn) = &mut self.conns[slot] else {
            return Ok(());
        };
        let was_connecting = conn.is_connecting();
        match act(conn, &mut self.desk) {
            Fate::Alive => {
                if conn.wants_turn() {
                    self.unfinished.push(slot);
                }
                self.arm(slot);
                Ok(())
            }
            Fate::Up => self.up(slot),
            Fate::Drained => {
                self.owing -= 1;
                if self.phase == Phase::Running {
                    self.replace(slot)
                } else {
                    Ok(())
                }
            }
            Fate::Gone(Gone::Unreachable(error)) => {
                self.remove(slot);
                self.unreachable(slot, &error)
            }
            Fate::Gone(gone) => {
                debug_assert!(!was_connecting);
                let was_churned = conn.is_ending() && self.phase == Phase::Running;
                self.lose(slot, gone);
                if was_churned {
                    self.replace(slot)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn up(&mut self, slot: usize) -> Result<(), Failure> {
        self.connecting -= 1;
        self.desk.tally.established += 1;
        if let Some(conn) = &self.conns[slot] {
            self.desk.console.note(format_args!("{conn}: up"));
        }
        match self.phase {
            Phase::Opening { .. } => self.with(slot, Conn::tick),
            Phase::Running => self.with(slot, Conn::start),
            Phase::Ending | Phase::Over => {
                self.remove(slot);
                Ok(())
            }
        }
    }

    /// Begins to end the connection of a slot, if it is one that can be ended.
    fn stop(&mut self, slot: usize, until: u64) -> Result<(), Failure> {
        match &self.conns[slot] {
            Some(conn) if conn.is_open() => {
                self.owing += 1;
                self.with(slot, |conn, desk| conn.stop(until, desk))
            }
            _ => Ok(()),
        }
    }

    /// Puts a new connection into the place of one that churn has ended.
    fn replace(&mut self, slot: usize) -> Result<(), Failure> {
        self.remove(slot);
        self.desk.tally.churned += 1;
        self.dial(slot)
    }

    /// A connection ended that should not have.
    fn lose(&mut self, slot: usize, gone: Gone) {
        let tally = &mut self.desk.tally;
        match gone {
            Gone::Unreachable(_) => tally.connect_failures += 1,
            Gone::Reset(_) => tally.resets += 1,
            Gone::Closed => tally.closed_by_server += 1,
            Gone::Stalled => tally.stalled += 1,
        }
        if let Some(conn) = &self.conns[slot] {
            self.owing -= usize::from(conn.is_ending());
            conn.complain(&mut self.desk, format_args!("{gone}"));
        }
        self.remove(slot);
    }

    fn remove(&mut self, slot: usize) {
        if let Some(conn) = self.conns[slot].take() {
            self.alive -= 1;
            self.connecting -= usize::from(conn.is_connecting());
            self.desk.console.note(format_args!("{conn}: closed"));
            conn.close(&mut self.desk);
        }
    }

    /// A connection did not come up. If none ever did, there is no server.
    fn unreachable(&mut self, slot: usize, error: &io::Error) -> Result<(), Failure> {
        let target = self.options.target;
        if self.desk.tally.established > 0 {
            self.desk.tally.connect_failures += 1;
            let source = format_args!("connection {slot}: {target} did not take it: {error}");
            self.desk.console.complain(source);
            return Ok(());
        }
        Err(match error.kind() {
            io::ErrorKind::AddrNotAvailable => Failure::Failed(error.to_string()),
            _ => Failure::NoServer(format!(
                "nobody answers at {target}: {error}; is the server running, and is this its \
                 address and port?"
            )),
        })
    }

    /// Sets the alarm of a connection, unless an earlier one is set.
    fn arm(&mut self, slot: usize) {
        if let Some(conn) = &mut self.conns[slot]
            && let Some(at) = conn.wake_at()
            && conn.armed.is_none_or(|armed| at < armed)
        {
            conn.armed = Some(at);
            self.alarms.add(at, Alarm::Conn(slot));
        }
    }

    fn drain_until(&self) -> u64 {
        self.desk
            .clock
            .now()
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
