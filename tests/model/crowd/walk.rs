//! The walk itself: a donor's machine, its items and a taker that keeps up with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use socket_takeover::takeover::internal::donor::{Action, Cause, Donor, Event, Outcome, State};
use socket_takeover::takeover::internal::ledger::{Batch, ItemId, Presence};
use socket_takeover::takeover::internal::preload::{BATCH, WINDOW};

/// Records that the channel takes before it blocks: fewer than the window, so that both
/// limits are met.
const CAPACITY: usize = 3;
/// More than any walk needs.
const STEPS: usize = 100_000;

/// SplitMix64: a stream of its own for every seed, and the same one every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides
    }
}

/// How busy the donor is.
pub(super) struct Habits {
    pub(super) items: u64,
    pub(super) slots: usize,
    /// Changes, accepts and closes between two steps of the takeover.
    pub(super) churn: u64,
    /// One new item in this many is declined.
    pub(super) declined_in: u64,
    /// One change in this many is a close, and as many are accepts.
    pub(super) close_in: u64,
    /// Only so many of the items change all the time.
    pub(super) hot: u64,
}

/// What the walk has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    UnderWay,
    Handed,
    RolledBack(Cause),
}

pub(super) struct Crowd {
    dice: Dice,
    habits: Habits,
    donor: Donor,
    changed: BTreeMap<ItemId, Presence>,
    /// How often each of the donor's items was changed.
    here: BTreeMap<ItemId, u32>,
    /// What the taker knows of that.
    there: BTreeMap<ItemId, u32>,
    declined: BTreeSet<ItemId>,
    next_id: u64,
    /// Batches in the channel, with the versions that went with them.
    queue: VecDeque<(Batch, BTreeMap<ItemId, u32>)>,
    acks: VecDeque<Vec<ItemId>>,
    unacknowledged: usize,
    acknowledged: u32,
    blocked: bool,
    prepared: bool,
    frozen: bool,
    pub(super) in_freeze: usize,
    pub(super) rounds: u32,
    pub(super) outlook: Outlook,
}

impl Crowd {
    pub(super) fn new(seed: u64, habits: Habits) -> Crowd {
        let mut crowd = Crowd {
            dice: Dice(seed),
            donor: Donor::default(),
            changed: BTreeMap::new(),
            here: (0..habits.items).map(|id| (ItemId(id), 0)).collect(),
            there: BTreeMap::new(),
            declined: BTreeSet::new(),
            next_id: habits.items,
            habits,
            queue: VecDeque::new(),
            acks: VecDeque::new(),
            unacknowledged: 0,
            acknowledged: 0,
            blocked: false,
            prepared: false,
            frozen: false,
            in_freeze: 0,
            rounds: 0,
            outlook: Outlook::UnderWay,
        };
        let slots = crowd.habits.slots;
        crowd.feed(Event::Caller);
        crowd.feed(Event::Fits { slots });
        crowd
    }

    /// Lets things happen until the takeover has an end.
    pub(super) fn walk(mut self) -> Crowd {
        for _ in 0..STEPS {
            if self.outlook != Outlook::UnderWay {
                return self;
            }
            if !self.frozen {
                (0..self.habits.churn).for_each(|_| self.serve());
            }
            match self.dice.below(3) {
                0 => self.taker_reads(),
                1 if self.blocked && self.queue.len() < CAPACITY => {
                    self.blocked = false;
                    self.feed(Event::Writable);
                }
                _ => self.donor_reads(),
            }
        }
        panic!("no end in sight in {:?}", self.donor.state());
    }

    /// Walks through the first round, and then changes every item once.
    pub(super) fn warm_up(&mut self) {
        while self.rounds == 0 && self.outlook == Outlook::UnderWay {
            self.taker_reads();
            if std::mem::take(&mut self.blocked) {
                self.feed(Event::Writable);
            }
            if self.acknowledged + 1 == self.habits.items.div_ceil(BATCH as u64) as u32 {
                self.here.iter_mut().for_each(|(id, version)| {
                    *version += 1;
                    self.changed.insert(*id, Presence::Held);
                });
            }
            self.donor_reads();
        }
    }

    fn serve(&mut self) {
        let hot = self.habits.hot.min(self.next_id);
        let any = ItemId(self.dice.below(hot));
        match self.dice.below(self.habits.close_in) {
            0 => {
                let id = ItemId(self.next_id);
                self.next_id += 1;
                self.here.insert(id, 0);
                self.changed.insert(id, Presence::Held);
            }
            1 => {
                let any = ItemId(self.dice.below(self.next_id));
                if self.here.remove(&any).is_some() {
                    self.changed.insert(any, Presence::Gone);
                }
            }
            _ => {
                if let Some(version) = self.here.get_mut(&any) {
                    *version += 1;
                    self.changed.insert(any, Presence::Held);
                }
            }
        }
    }

    fn taker_reads(&mut self) {
        let Some((batch, versions)) = self.queue.pop_front() else {
            return;
        };
        let mut refused = Vec::new();
        match batch {
            Batch::Closed(ids) => ids.iter().for_each(|id| {
                self.there.remove(id);
            }),
            Batch::Items { new, changed } => {
                for id in &changed {
                    let known = self.there.contains_key(id) || self.declined.contains(id);
                    assert!(known, "a change of an unknown item");
                }
                for id in new {
                    assert!(!self.there.contains_key(&id), "an item that is new twice");
                    assert!(!self.declined.contains(&id), "a declined item once more");
                    if !self.prepared && self.dice.below(self.habits.declined_in) == 0 {
                        refused.push(id);
                    }
                }
                self.there.extend(versions);
                self.declined.extend(&refused);
                // Also those that it has declined while their change was on its way.
                self.there.retain(|id, _| !self.declined.contains(id));
            }
        }
        assert!(
            self.there.len() <= self.habits.slots,
            "more copies than slots"
        );
        if !self.frozen {
            self.acks.push_back(refused);
        }
    }

    fn donor_reads(&mut self) {
        if let Some(declined) = self.acks.pop_front() {
            self.unacknowledged -= 1;
            self.acknowledged += 1;
            if !declined.is_empty() {
                let kinds = Vec::new();
                self.feed(Event::Declined {
                    items: declined,
                    kinds,
                });
            }
            self.feed(Event::Ack { number: 0 });
        } else if self.prepared && !self.frozen {
            self.feed(Event::Drained);
        }
    }

    /// As the driver does it: what changed, what happened, and the outcomes of what follows.
    fn feed(&mut self, event: Event) {
        let changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        let mut events = VecDeque::from([Event::Changed(changed), event]);
        while let Some(event) = events.pop_front() {
            let (donor, actions) = std::mem::take(&mut self.donor).step(event);
            self.donor = donor;
            if let State::Preload(preload) = self.donor.state() {
                self.rounds = preload.rounds();
            }
            for action in actions {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Welcome => {
                let all = self.here.keys().map(|id| (*id, Presence::Held)).collect();
                return Some(Event::Changed(all));
            }
            Action::Send(_) | Action::End if self.queue.len() >= CAPACITY => {
                self.blocked = true;
                return Some(Event::Did(Outcome::Blocked));
            }
            Action::Send(batch) => {
                self.send(&batch);
                return Some(Event::Did(Outcome::Sent { batch, number: 0 }));
            }
            Action::Prepare => self.prepared = true,
            Action::Hold => {
                self.frozen = true;
                return Some(Event::Did(Outcome::Held));
            }
            Action::Grant => return Some(Event::Did(Outcome::Granted)),
            Action::End => {
                self.outlook = Outlook::Handed;
                return Some(Event::Did(Outcome::EndSent));
            }
            Action::Resume(cause) => self.outlook = Outlook::RolledBack(cause),
            Action::Arm(_) | Action::Disarm | Action::Abort(_) | Action::HangUp => {}
            Action::Revoke
            | Action::Wait
            | Action::Kill
            | Action::Orphan(_)
            | Action::Release(_)
            | Action::PassTerm
            | Action::Stop
            | Action::Exit => panic!("{action:?} in a walk without faults"),
        }
        None
    }

    fn send(&mut self, batch: &Batch) {
        let ids: Vec<ItemId> = match batch {
            Batch::Closed(ids) => ids.clone(),
            Batch::Items { new, changed } => new.iter().chain(changed).copied().collect(),
        };
        assert!(!ids.is_empty() && ids.len() <= BATCH, "{} ids", ids.len());
        if self.frozen {
            self.in_freeze += ids.len();
        } else {
            self.unacknowledged += 1;
            let window = if self.acknowledged == 0 { 1 } else { WINDOW };
            assert!(self.unacknowledged <= window, "beyond the window");
        }
        let version = |id| Some((id, *self.here.get(&id)?));
        let versions = ids.into_iter().filter_map(version).collect();
        self.queue.push_back((batch.clone(), versions));
    }

    /// What is in the channel at END is taken as well, since END comes after it.
    pub(super) fn assert_handed_over(mut self) -> Crowd {
        assert_eq!(self.outlook, Outlook::Handed);
        while !self.queue.is_empty() {
            self.taker_reads();
        }
        let mut own = self.here.clone();
        own.retain(|id, _| !self.declined.contains(id));
        assert_eq!(self.there, own);
        self
    }
}
