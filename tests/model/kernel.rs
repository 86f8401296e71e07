//! The part of the kernel that a takeover leans on: connections, descriptors registered
//! edge-triggered, the channel, the lease.

use std::collections::VecDeque;

use socket_takeover::takeover::internal::ledger::ItemId;

use crate::rules::{Broken, Rule};

/// How many connections a world can have; every one lives at most once.
pub(crate) const ITEMS: usize = 2;

/// What a step draws on, if it is not simply what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Luck {
    Good,
    Glitch,
    CutShort,
    Deadline,
    Decline,
    Refusal,
    Lie,
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
    /// The client has reset it, and what it had sent is gone; its process was told by HUP.
    Reset,
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

    /// Somebody has a descriptor of it, or should.
    pub(crate) fn exists(self) -> bool {
        matches!(self, Connection::Open { .. } | Connection::Reset)
    }

    pub(crate) fn unread(self) -> u8 {
        match self {
            Connection::Open { sent, consumed } => sent - consumed,
            Connection::Unborn | Connection::Reset | Connection::Ended => 0,
        }
    }

    /// A wait would report it.
    pub(crate) fn has_news(self) -> bool {
        self.unread() > 0 || self == Connection::Reset
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
    /// `EPOLL_CTL_ADD` reports what is readable already, and what was reset.
    pub(crate) fn registered(saved: Saved, connection: Connection) -> Holding {
        Holding {
            saved,
            edge: connection.has_news(),
        }
    }

    fn is_due(self) -> bool {
        self.edge || self.saved.run
    }

    /// One dispatch: reads until EAGAIN, or is cut short by its budget after one byte and
    /// then stays in the resume queue. `None` if that was the connection's end.
    pub(crate) fn served(
        self,
        connection: &mut Connection,
        cut_short: bool,
    ) -> Result<Option<Holding>, Broken> {
        let (sent, consumed) = match connection {
            Connection::Open { sent, consumed } => (*sent, consumed),
            Connection::Reset => {
                *connection = Connection::Ended;
                return Ok(None);
            }
            Connection::Unborn | Connection::Ended => {
                let what = "a connection is served that has ended";
                return Err(Rule::TakerHasTheRest.broken(what));
            }
        };
        if self.saved.position != *consumed {
            let at = self.saved.position;
            let what = format!("read at byte {consumed} by a process that is at byte {at}");
            return Err(Rule::Position.broken(what));
        }
        *consumed = if cut_short { *consumed + 1 } else { sent };
        Ok(Some(Holding {
            saved: Saved {
                position: *consumed,
                run: cut_short,
            },
            edge: false,
        }))
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
    Refuse,
    Closed(Vec<usize>),
    Items {
        new: Vec<(usize, Saved)>,
        changed: Vec<(usize, Saved)>,
    },
    Prepare,
    End,
    /// END with totals or a digest that are not those of what was sent.
    FalseEnd,
    Abort,
}

/// Taker to donor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    Hello {
        slots: usize,
    },
    Ack {
        declined: Vec<usize>,
        how: Option<Declining>,
    },
    Drained,
    Fail,
    Active,
}

/// Why an item is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Declining {
    /// This one alone.
    Alone,
    /// All of its kind that come from now on; what was taken stays taken.
    Kind,
    /// It, and all that is linked to it: in this world everything else.
    Linked,
}

impl Declining {
    pub(crate) const ALL: [Declining; 3] = [Declining::Alone, Declining::Kind, Declining::Linked];
}

/// A connected pair of sockets. What is queued outlives the writer: the reader gets it all,
/// then EOF. What a side had not read when it closed is lost, and the other is told so by
/// ECONNRESET *before* it gets what is queued for it (`unix_release_sock`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Channel {
    pub(crate) down: VecDeque<Down>,
    pub(crate) up: VecDeque<Up>,
    /// Records for the taker that may be queued.
    capacity: usize,
    donor_end: bool,
    taker_end: bool,
    reset_for_donor: bool,
    reset_for_taker: bool,
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
            reset_for_donor: false,
            reset_for_taker: false,
        }
    }

    /// The donor does not serve this caller: it says so, and hangs up.
    pub(crate) fn refuse(&mut self) {
        self.tell(Down::Refuse);
        self.close_donor_end();
    }

    pub(crate) fn close_donor_end(&mut self) {
        self.reset_for_taker |= self.taker_end && !self.up.is_empty();
        self.donor_end = false;
        self.up.clear();
    }

    pub(crate) fn close_taker_end(&mut self) {
        self.reset_for_donor |= self.donor_end && !self.down.is_empty();
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

    /// The donor's next receive would say ECONNRESET first.
    pub(crate) fn is_reset_for_donor(&self) -> bool {
        self.reset_for_donor && self.donor_end
    }

    /// The taker's next receive would say ECONNRESET first.
    pub(crate) fn is_reset_for_taker(&self) -> bool {
        self.reset_for_taker && self.taker_end
    }

    pub(crate) fn has_no_taker(&self) -> bool {
        !self.taker_end
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
            return Err(Rule::OneGrant.broken("a lease is granted twice"));
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

/// What joins one donor and one taker: the objects of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    pub(crate) lease: Lease,
    /// What the taker's pidfd tells.
    pub(crate) pidfd: Pidfd,
    /// Sent and not delivered yet.
    pub(crate) signal: Option<Signal>,
    /// END was said.
    pub(crate) end_sent: bool,
    /// END was queued while the taker waited for it.
    pub(crate) end_in_time: bool,
    /// One of the two has said what the protocol does not allow.
    pub(crate) lied: bool,
    /// The taker's kernel, or its application, has refused something.
    pub(crate) unusable: bool,
    /// The donor may not signal the taker (it is root and the donor is not).
    pub(crate) kill_failed: bool,
}

impl Line {
    /// A taker has connected, and nobody has accepted it yet.
    pub(crate) fn connected(capacity: usize, slots: usize) -> Line {
        Line {
            channel: Channel::connected(capacity, slots),
            lease: Lease::default(),
            pidfd: Pidfd::Alive,
            signal: None,
            end_sent: false,
            end_in_time: false,
            lied: false,
            unusable: false,
            kill_failed: false,
        }
    }
}

/// Everything outside the processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) connections: [Connection; ITEMS],
    /// Of the present attempt.
    pub(crate) line: Line,
    /// Items that the donor has not offered, since their like was declined.
    pub(crate) withheld: [bool; ITEMS],
    /// Items that the donor before the present one has kept.
    pub(crate) strayed: [bool; ITEMS],
}

pub(crate) fn id(item: usize) -> ItemId {
    ItemId(item as u64)
}

pub(crate) fn slot(id: ItemId) -> usize {
    usize::try_from(id.0).expect("ids are small here")
}
