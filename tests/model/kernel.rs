//! The part of the kernel that a takeover leans on: connections, descriptors registered
//! edge-triggered, the channel, the lease.

use std::collections::VecDeque;

use socket_takeover::takeover::ledger::ItemId;

/// How many connections a world can have; every one lives at most once.
pub(crate) const ITEMS: usize = 2;

/// A rule that was broken, in words.
pub(crate) type Broken = String;

/// What a step draws on, if it is not simply what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Luck {
    Good,
    Glitch,
    CutShort,
    Deadline,
    Decline,
}

/// One client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Connection {
    Unborn,
    /// Bytes that the client has sent, and how many of them were read by anybody.
    Open {
        sent: u8,
        consumed: u8,
    },
    Ended,
}

impl Connection {
    pub(crate) const NEW: Connection = Connection::Open {
        sent: 0,
        consumed: 0,
    };

    pub(crate) fn is_open(self) -> bool {
        matches!(self, Connection::Open { .. })
    }

    pub(crate) fn unread(self) -> u8 {
        match self {
            Connection::Open { sent, consumed } => sent - consumed,
            Connection::Unborn | Connection::Ended => 0,
        }
    }
}

/// What travels of an item: the application's position in the client's stream, and whether
/// it has unfinished work for which no edge will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Saved {
    pub(crate) position: u8,
    pub(crate) run: bool,
}

impl Saved {
    pub(crate) const FRESH: Saved = Saved {
        position: 0,
        run: false,
    };
}

/// What one process has of a connection: its state, and a descriptor in its epoll set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holding {
    pub(crate) saved: Saved,
    /// On the set's ready list. Edge-triggered: put there by data, taken off by a wait.
    pub(crate) edge: bool,
}

impl Holding {
    /// `EPOLL_CTL_ADD` reports what is readable already.
    pub(crate) fn registered(saved: Saved, connection: Connection) -> Holding {
        Holding {
            saved,
            edge: connection.unread() > 0,
        }
    }

    fn is_due(self) -> bool {
        self.edge || self.saved.run
    }

    /// One dispatch: reads until EAGAIN, or is cut short by its budget after one byte and
    /// then stays in the resume queue.
    pub(crate) fn serve(
        &mut self,
        connection: &mut Connection,
        cut_short: bool,
    ) -> Result<(), Broken> {
        let Connection::Open { sent, consumed } = connection else {
            return Err("a connection is served that has ended".into());
        };
        if self.saved.position != *consumed {
            let at = self.saved.position;
            return Err(format!(
                "read at byte {consumed} by a process that is at byte {at}"
            ));
        }
        *consumed = if cut_short { *consumed + 1 } else { *sent };
        *self = Holding {
            saved: Saved {
                position: *consumed,
                run: cut_short,
            },
            edge: false,
        };
        Ok(())
    }
}

pub(crate) type Holdings = [Option<Holding>; ITEMS];

/// What a turn over this set would dispatch.
pub(crate) fn due(items: &Holdings) -> impl Iterator<Item = usize> {
    (0..ITEMS).filter(|item| items[*item].is_some_and(Holding::is_due))
}

/// Donor to taker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Down {
    Welcome,
    Closed(Vec<usize>),
    Items {
        new: Vec<(usize, Saved)>,
        changed: Vec<(usize, Saved)>,
    },
    Prepare,
    End,
    Abort,
}

/// Taker to donor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    Hello { slots: usize },
    Ack { declined: Vec<usize> },
    Drained,
    Fail,
    Active,
}

/// A connected pair of sockets. What is queued outlives the writer: the reader gets it all,
/// then EOF.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Channel {
    pub(crate) down: VecDeque<Down>,
    pub(crate) up: VecDeque<Up>,
    /// Records for the taker that may be queued.
    capacity: usize,
    donor_end: bool,
    taker_end: bool,
}

impl Channel {
    /// The taker has connected and said HELLO; the donor has not accepted yet.
    pub(crate) fn connected(capacity: usize, slots: usize) -> Channel {
        Channel {
            down: VecDeque::new(),
            up: VecDeque::from([Up::Hello { slots }]),
            capacity,
            donor_end: true,
            taker_end: true,
        }
    }

    pub(crate) fn close_donor_end(&mut self) {
        self.donor_end = false;
        self.up.clear();
    }

    pub(crate) fn close_taker_end(&mut self) {
        self.taker_end = false;
        self.down.clear();
    }

    /// Whether the donor can still send, so that a record it queues may be read.
    pub(crate) fn is_open(&self) -> bool {
        self.donor_end && self.taker_end
    }

    /// Whether the donor has not hung up on it, be it accepted or not.
    pub(crate) fn is_pending(&self) -> bool {
        self.donor_end
    }

    pub(crate) fn has_room(&self) -> bool {
        self.down.len() < self.capacity
    }

    /// The donor's send, where the caller has looked for room.
    pub(crate) fn tell(&mut self, record: Down) {
        if self.is_open() {
            self.down.push_back(record);
        }
    }

    /// The taker's send: the little that it says always fits.
    pub(crate) fn say(&mut self, record: Up) {
        if self.is_open() {
            self.up.push_back(record);
        }
    }

    pub(crate) fn is_at_end_for_donor(&self) -> bool {
        self.donor_end && !self.taker_end && self.up.is_empty()
    }

    pub(crate) fn is_at_end_for_taker(&self) -> bool {
        self.taker_end && !self.donor_end && self.down.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Donor,
    Taker,
}

/// The eventfd. A read to zero is a test-and-set: one process gets the 1, the other EAGAIN.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    value: u8,
    granted: bool,
    winner: Option<Side>,
}

impl Lease {
    pub(crate) fn grant(&mut self) -> Result<(), Broken> {
        if self.granted {
            return Err("a lease is granted twice".into());
        }
        self.granted = true;
        self.value = 1;
        Ok(())
    }

    /// Whether this process got the 1.
    pub(crate) fn read(&mut self, by: Side) -> bool {
        let won = self.value == 1;
        if won {
            self.value = 0;
            self.winner = Some(by);
        }
        won
    }

    pub(crate) fn is_one(&self) -> bool {
        self.value == 1
    }

    pub(crate) fn winner(&self) -> Option<Side> {
        self.winner
    }
}

/// What the taker's pidfd tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pidfd {
    Alive,
    /// It is dead, and its sockets are closed already, but the pidfd is not readable yet.
    Dead,
    Readable,
}

/// What the donor sends by the taker's pidfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Signal {
    Term,
    Kill,
}

/// Everything outside the two processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) connections: [Connection; ITEMS],
    pub(crate) channel: Channel,
    pub(crate) lease: Lease,
    /// END of the present attempt was queued while the taker waited for it.
    pub(crate) end_in_time: bool,
    pub(crate) pidfd: Pidfd,
    /// Connections of a kind that the present taker was known to decline when they came.
    pub(crate) unwanted: [bool; ITEMS],
    /// Sent and not delivered yet.
    pub(crate) signal: Option<Signal>,
}

pub(crate) fn id(item: usize) -> ItemId {
    ItemId(item as u64)
}

pub(crate) fn slot(id: ItemId) -> usize {
    usize::try_from(id.0).expect("ids are small here")
}
