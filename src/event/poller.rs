//! One epoll set and what it has reported.
//!
//! A reactor has two sets. The small one (handover) is itself watched by the big one (items),
//! edge-triggered like everything: it is asked until it returns less than it has room for.
//!
//! `Registry::try_clone` is used nowhere. It duplicates the epoll descriptor, and then closing the
//! set as a whole would close nothing.
//!
//! After a fork(2) parent and child have the same set, and what one of them does to it is done to
//! both. So a child does not touch a set that it has inherited: asking it for anything is an error,
//! and taking a source out has no effect. The reactor makes a new set (`forked.rs`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll, Token};

use super::id::SourceId;
use super::source::{Event, Flags, Interest};
use super::time::Time;
use crate::sys;

/// The token of what is in no table. It is no [`SourceId`]: those have a top bit of 0.
const NESTED: Token = Token(1 << (usize::BITS - 1));
const ALARM: Token = Token(NESTED.0 + 1);

// A token has to hold a SourceId.
const _: () = assert!(usize::BITS == 64);

/// What a wait found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    /// Events of sources, now in [`Poller::reported`].
    pub(super) events: usize,
    /// The nested set has something to report.
    pub(super) nested: bool,
    /// There was no room for another event.
    pub(super) full: bool,
}

#[derive(Debug)]
pub(super) struct Poller {
    poll: Poll,
    events: Events,
    /// What was reported and not dispatched yet. It is empty between turns, unless a panic cut a
    /// batch short. Edges come once, so the rest of such a batch waits here for the next turn.
    pub(super) reported: VecDeque<Event>,
    /// Which process made it; see [`sys::forks`].
    forks: u32,
}

impl Poller {
    /// An empty set, which is asked for up to `room` events at a time.
    pub(super) fn new(room: usize) -> io::Result<Poller> {
        sys::count_forks()?;
        Ok(Poller {
            forks: sys::forks(),
            poll: Poll::new()?,
            events: Events::with_capacity(room),
            reported: VecDeque::with_capacity(room),
        })
    }

    /// Whether the set belongs to our parent.
    pub(super) fn is_inherited(&self) -> bool {
        self.forks != sys::forks()
    }

    fn is_ours(&self) -> io::Result<()> {
        match self.is_inherited() {
            true => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the epoll set is that of the parent process; turn the reactor first",
            )),
            false => Ok(()),
        }
    }

    pub(super) fn room(&self) -> usize {
        self.events.capacity()
    }

    pub(super) fn add(&self, fd: RawFd, id: SourceId, interest: Interest) -> io::Result<()> {
        self.is_ours()?;
        let registry = self.poll.registry();
        let added = registry.register(&mut SourceFd(&fd), token(id), wanted(interest));
        added.map_err(|error| match error.raw_os_error() {
            // "No space left on device" would send its reader to the disk.
            Some(libc::ENOSPC) => io::Error::new(
                error.kind(),
                "this user has no epoll watch left; raise fs.epoll.max_user_watches",
            ),
            _ => error,
        })
    }

    pub(super) fn change(&self, fd: RawFd, id: SourceId, interest: Interest) -> io::Result<()> {
        self.is_ours()?;
        let registry = self.poll.registry();
        registry.reregister(&mut SourceFd(&fd), token(id), wanted(interest))
    }

    pub(super) fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.is_ours()?;
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }

    /// Watches another set.
    pub(super) fn nest(&self, inner: &Poller) -> io::Result<()> {
        self.is_ours()?;
        inner.is_ours()?;
        let fd = inner.poll.as_raw_fd();
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), NESTED, mio::Interest::READABLE)
    }

    /// Watches a descriptor that does nothing but end a wait.
    pub(super) fn add_alarm(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.is_ours()?;
        let registry = self.poll.registry();
        registry.register(
            &mut SourceFd(&fd.as_raw_fd()),
            ALARM,
            mio::Interest::READABLE,
        )
    }

    /// Waits for events until a point in time. [`Time::ZERO`] only looks, and `None` waits without
    /// end. It never returns early, and returns up to a millisecond late: mio rounds up to what
    /// epoll_wait(2) takes.
    pub(super) fn wait(&mut self, until: Option<Time>) -> io::Result<Waited> {
        self.is_ours()?;
        loop {
            let timeout = match until {
                Some(Time::ZERO) => Some(Duration::ZERO),
                Some(until) => Some(until.since(Time::now())),
                None => None,
            };
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.collect())
    }

    fn collect(&mut self) -> Waited {
        let mut waited = Waited {
            events: 0,
            nested: false,
            full: false,
        };
        if self.reported.is_empty() {
            // Back to the start of its ring: a small batch then uses the same few cache lines
            // each time, and does not walk through all of the ring's.
            self.reported.clear();
        }
        let mut found = 0;
        for event in &self.events {
            found += 1;
            if event.token().0 >= NESTED.0 {
                waited.nested |= event.token() == NESTED;
                continue;
            }
            waited.events += 1;
            self.reported.push_back(Event {
                id: SourceId::from_bits(event.token().0 as u64),
                flags: Flags::of(event),
            });
        }
        waited.full = found == self.room();
        waited
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

fn token(id: SourceId) -> Token {
    Token(id.to_bits() as usize)
}

/// The interest with EPOLLPRI, which tells that a short read may not have been the last one.
const READING: mio::Interest = mio::Interest::READABLE.add(mio::Interest::PRIORITY);

fn wanted(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Read => READING,
        Interest::Write => mio::Interest::WRITABLE,
        Interest::Both => READING | mio::Interest::WRITABLE,
    }
}
