//! Whether there is room for one more connection, and which listeners wait for it.
//!
//! Each source of a reactor holds a descriptor, and the reactor knows how many there are: those of
//! the application, whichever way they have come, count without being told of, and cost nothing.
//! They leave [`RESERVE`] descriptors free. Whatever holds descriptors beside the reactor has the
//! reserve for it. Should it need more than half of that, accept(2) itself shows it: it
//! gives the lowest number that is free (open(2)), so that all below are taken.
//!
//! ```text
//!   0                                        limit - RESERVE        limit - RESERVE / 2     limit
//!   ├── sources of the reactor ──────────────┼── logs, files, … ────┼── a takeover ─────────┤
//!        the reactor counts                                           accept(2) shows it
//! ```
//!
//! A listener without room is left alone: with edge triggering nothing would ever wake it again,
//! so each source that leaves the reactor does. What the reactor does not know of is looked for
//! by a deadline.

use std::net::TcpListener;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd;

use super::super::source::Flags;
use super::super::{Cx, SourceId};

/// Descriptors that connections leave free, for a takeover (channel, lease, pidfd), logs and
/// files: at the limit accept(2), eventfd(2) and SO_PEERPIDFD all fail.
pub const RESERVE: usize = 64;

/// How much room there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Most sources beside the listener.
    pub(super) most: usize,
    /// The lowest number that nothing accepted is to have.
    end: RawFd,
    /// Something accepted has had it: each further one is looked at before, as others can be open
    /// above a number that is free.
    is_tight: bool,
}

impl Room {
    pub(super) const ALL: Room = Room {
        most: usize::MAX,
        end: RawFd::MAX,
        is_tight: false,
    };

    /// Asks for the limit of this process (getrlimit(2), RLIMIT_NOFILE).
    pub(super) fn measure(&mut self) {
        // It cannot fail for a resource that exists; 1024 is what every system grants.
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let soft = usize::try_from(soft).unwrap_or(usize::MAX);
        self.most = self.most.min(soft.saturating_sub(RESERVE));
        let end = soft.saturating_sub(RESERVE / 2);
        self.end = RawFd::try_from(end).unwrap_or(RawFd::MAX);
    }

    /// Whether one more may be accepted beside so many.
    pub(super) fn is_left(&self, sources: usize, listener: &TcpListener) -> bool {
        sources < self.most && !(self.is_tight && self.is_used_up(listener))
    }

    /// Learns from the number of what was accepted.
    pub(super) fn learn(&mut self, number: RawFd) {
        self.is_tight |= number >= self.end;
    }

    /// Whether something but the reactor may make room, which it does not say.
    pub(super) fn is_tight(&self) -> bool {
        self.is_tight
    }

    fn is_used_up(&self, listener: &TcpListener) -> bool {
        match fcntl(listener, FcntlArg::F_DUPFD_CLOEXEC(0)) {
            Ok(lowest) => {
                let _ = unistd::close(lowest);
                lowest >= self.end
            }
            Err(error) => error == Errno::EMFILE,
        }
    }
}

/// The listeners that pause.
#[derive(Debug, Default)]
pub(in crate::event) struct Pausing(Vec<Paused>);

#[derive(Debug, Clone, Copy)]
struct Paused {
    id: SourceId,
    /// Until a source has ended.
    for_room: bool,
}

impl<S> Cx<S> {
    /// How many sources there are beside one. The handover's are in the reserve.
    pub(super) fn others(&self) -> usize {
        self.lanes.item.sources.saturating_sub(1)
    }

    pub(super) fn begin_pause(&mut self, id: SourceId, for_room: bool) {
        self.end_pause(id);
        self.pausing.0.push(Paused { id, for_room });
    }

    pub(super) fn end_pause(&mut self, id: SourceId) {
        self.pausing.0.retain(|paused| paused.id != id);
    }

    /// Whether a listener pauses, and connections may be waiting that no edge will tell of.
    pub(in crate::event) fn is_pausing(&self, id: SourceId) -> bool {
        self.pausing.0.iter().any(|paused| paused.id == id)
    }

    /// A source leaves: those that wait for room have it, each in its turn the first.
    pub(in crate::event) fn make_room(&mut self, left: SourceId) {
        if self.pausing.0.is_empty() {
            return;
        }
        self.end_pause(left);
        let mut pausing = std::mem::take(&mut self.pausing);
        if !pausing.0.is_empty() {
            pausing.0.rotate_left(1);
        }
        for paused in pausing.0.iter().filter(|paused| paused.for_room) {
            self.leave(paused.id, Flags::NONE);
        }
        self.pausing = pausing;
    }
}
