//! All connections of a run: opens them, lets them do things, and keeps the books on what
//! comes of it.
//!
//! Invariants: `alive` is how many slots are taken, `connecting` and `owing` how many of
//! those connections are connecting or were stopped and owe answers; every connection that
//! needs to wake has a timer that is not later.

use std::net::SocketAddr;

use mio::Poll;

use crate::Failure;
use crate::answers::Answers;
use crate::cause::Cause;
use crate::conn::{Conn, Fate, Gone};
use crate::dial::{self, Buffers};
use crate::pace::Role;
use crate::plan::Plan;
use crate::shared::Shared;
use crate::timers::Timers;

/// What a connection is for, at this time of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stance {
    /// It comes up and waits for the others.
    Gathering,
    /// It sends as soon as it is up, and is replaced when it was stopped.
    Sending,
    /// It stays until all are done.
    Leaving,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Open the next connections.
    Dial,
    /// The connection in a slot.
    Conn(usize),
    /// End the next connections.
    Churn,
    /// Show the progress.
    Progress,
    /// The time is over.
    End,
}

/// The connections.
#[derive(Debug)]
pub struct Connections {
    /// Where their events come from.
    pub poll: Poll,
    /// Theirs and those of the run.
    pub timers: Timers<Timer>,
    /// What they share.
    pub shared: Shared,
    /// What they are for.
    pub stance: Stance,
    target: SocketAddr,
    plan: Plan,
    slots: Vec<Option<Conn>>,
    /// How many connections each slot has had.
    lives: Vec<u32>,
    alive: usize,
    connecting: usize,
    owing: usize,
    /// Connections that did not finish their turn.
    unfinished: Vec<usize>,
}

impl Connections {
    /// Empty slots, as many as the plan has.
    #[must_use]
    pub fn new(
        target: SocketAddr,
        plan: Plan,
        poll: Poll,
        timers: Timers<Timer>,
        shared: Shared,
    ) -> Self {
        Self {
            poll,
            timers,
            shared,
            stance: Stance::Gathering,
            target,
            slots: (0..plan.slots()).map(|_| None).collect(),
            lives: vec![0; plan.slots()],
            plan,
            alive: 0,
            connecting: 0,
            owing: 0,
            unfinished: Vec::new(),
        }
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many connections there are.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// How many are not up yet.
    #[must_use]
    pub fn connecting(&self) -> usize {
        self.connecting
    }

    /// How many were stopped and owe answers.
    #[must_use]
    pub fn owing(&self) -> usize {
        self.owing
    }

    /// Takes those that did not finish their turn: each needs a [`Conn::resume`].
    pub fn take_unfinished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unfinished)
    }

    /// Whether there are such.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Opens a connection in an empty slot.
    ///
    /// # Errors
    /// See [`Connections::with`].
    pub fn dial(&mut self, slot: usize) -> Result<(), Failure> {
        let buffers = match self.plan.role(slot) {
            Role::Unread => Buffers::Small,
            Role::Steady | Role::Idle | Role::Half => Buffers::Automatic,
        };
        let now = self.shared.clock.now();
        let pace = self.plan.pace(slot, self.lives[slot]);
        self.lives[slot] += 1;
        // The first answers of those opened at the start wait until the server has accepted
        // all of them, which is no pause. For those opened later it is one.
        let answers = Answers::new(slot, self.stance == Stance::Sending, now);
        let conn = dial::dial(self.target, self.plan.source(slot), buffers).and_then(|it| {
            Conn::new(it, slot, pace, answers, self.poll.registry(), now).map_err(Cause::own)
        });
        match conn {
            Ok(conn) => {
                self.slots[slot] = Some(conn);
                self.alive += 1;
                self.connecting += 1;
                self.arm(slot);
                Ok(())
            }
            Err(cause) => self.unreachable(slot, &cause),
        }
    }

    /// Lets the connection in a slot do something, and deals with what came of it. An empty
    /// slot does nothing.
    ///
    /// # Errors
    /// `NoServer` if a connection did not come up and none ever did; `Unable` (or `Failed`,
    /// for a source address that is none) if this machine has no room for one at the start.
    pub fn with(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Conn, &mut Shared) -> Fate,
    ) -> Result<(), Failure> {
        let Some(conn) = &mut self.slots[slot] else {
            return Ok(());
        };
        match act(conn, &mut self.shared) {
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
                self.replace_if_sending(slot)
            }
            Fate::Gone(Gone::Unreachable(cause)) => {
                self.remove(slot);
                self.unreachable(slot, &cause)
            }
            Fate::Gone(gone) => {
                let was_stopped = conn.is_ending();
                self.lose(slot, gone);
                if was_stopped {
                    self.replace_if_sending(slot)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// The timer of a slot that was set for `at` has gone off.
    ///
    /// # Errors
    /// See [`Connections::with`].
    pub fn timer_fired(&mut self, slot: usize, at: u64) -> Result<(), Failure> {
        // One that was replaced by an earlier one, or is an earlier connection's, means
        // nothing any more.
        match &mut self.slots[slot] {
            Some(conn) if conn.armed == Some(at) => {
                conn.armed = None;
                self.with(slot, Conn::tick)
            }
            _ => Ok(()),
        }
    }

    /// Ends the connection in a slot when it has its answers, at the latest at `until`. One
    /// that is not up or is ending already is left alone; an empty slot gets a new one if
    /// `refill`.
    ///
    /// # Errors
    /// See [`Connections::with`].
    pub fn stop(&mut self, slot: usize, until: u64, refill: bool) -> Result<(), Failure> {
        match &self.slots[slot] {
            Some(conn) if conn.is_open() => {
                self.owing += 1;
                self.with(slot, |conn, shared| conn.stop(until, shared))
            }
            None if refill => self.dial(slot),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads from every connection what there is, then closes it.
    pub fn close_all(&mut self) {
        for slot in 0..self.slots.len() {
            while let Some(conn) = &mut self.slots[slot] {
                match conn.resume(&mut self.shared) {
                    Fate::Gone(gone) => self.lose(slot, gone),
                    Fate::Alive | Fate::Up | Fate::Drained if conn.wants_turn() => {}
                    Fate::Alive | Fate::Up | Fate::Drained => self.remove(slot),
                }
            }
        }
    }

    fn up(&mut self, slot: usize) -> Result<(), Failure> {
        self.connecting -= 1;
        self.shared.tally.established += 1;
        if let Some(conn) = &self.slots[slot] {
            self.shared.console.note(format_args!("{conn}: up"));
        }
        match self.stance {
            Stance::Gathering => self.with(slot, Conn::resume),
            Stance::Sending => self.with(slot, Conn::start),
            Stance::Leaving => {
                self.remove(slot);
                Ok(())
            }
        }
    }

    /// Puts a new connection into the place of one that was stopped. When all are stopped
    /// it stays as it is, to be read once more in the end.
    fn replace_if_sending(&mut self, slot: usize) -> Result<(), Failure> {
        if self.stance != Stance::Sending {
            return Ok(());
        }
        self.remove(slot);
        self.shared.tally.churned += 1;
        self.dial(slot)
    }

    /// A connection ended that should not have.
    fn lose(&mut self, slot: usize, gone: Gone) {
        let tally = &mut self.shared.tally;
        match gone {
            Gone::Unreachable(_) => tally.connect_failures += 1,
            Gone::Reset(_) => tally.resets += 1,
            Gone::Closed => tally.closed_by_server += 1,
            Gone::Stalled => tally.stalled += 1,
        }
        if let Some(conn) = &self.slots[slot] {
            self.owing -= usize::from(conn.is_ending());
            self.shared.complain(conn, format_args!("{gone}"));
        }
        self.remove(slot);
    }

    fn remove(&mut self, slot: usize) {
        if let Some(conn) = self.slots[slot].take() {
            self.alive -= 1;
            self.connecting -= usize::from(conn.is_connecting());
            self.shared.console.note(format_args!("{conn}: closed"));
            conn.close(&mut self.shared);
        }
    }

    /// A connection did not come up. If none ever did, there is no server; if this machine
    /// has no room for the load, there is nothing to measure.
    fn unreachable(&mut self, slot: usize, cause: &Cause) -> Result<(), Failure> {
        let (target, who) = (self.target, format_args!("connection {slot}"));
        let opening = self.stance == Stance::Gathering;
        let tally = &mut self.shared.tally;
        match cause {
            Cause::Server(error) if tally.established == 0 => Err(Failure::NoServer(format!(
                "nobody answers at {target}: {error}; is the server running, and is this its \
                 address and port?"
            ))),
            Cause::Server(error) => {
                tally.connect_failures += 1;
                let what = format_args!("{target} did not take it: {error}");
                self.shared.complain(&who, what);
                Ok(())
            }
            Cause::Source(_) if opening => Err(Failure::Failed(cause.to_string())),
            Cause::Client(_) if opening => Err(Failure::Unable(format!(
                "{who} cannot be opened from here: {cause}"
            ))),
            Cause::Client(_) | Cause::Source(_) => {
                tally.client_failures += 1;
                let what = format_args!("cannot be opened from here: {cause}");
                self.shared.complain(&who, what);
                Ok(())
            }
        }
    }

    /// Sets the timer of a connection, unless an earlier one is set.
    fn arm(&mut self, slot: usize) {
        if let Some(conn) = &mut self.slots[slot]
            && let Some(at) = conn.wake_at()
            && conn.armed.is_none_or(|armed| at < armed)
        {
            conn.armed = Some(at);
            self.timers.add(at, Timer::Conn(slot));
        }
    }
}
