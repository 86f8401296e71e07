//! Deadlines in order: a pure set, to which the time is an argument.
//!
//! Most deadlines of a server are pushed later or dropped before they pass. So pushing one later is
//! a store into its node. The *mark*, by which the node is found, stays where it is and is
//! corrected when it comes up. Marks lie in a [wheel](wheel), where adding and removing cost the
//! same for ten as for a million. The marks of the present tick are few, and have to be told apart
//! to the nanosecond: they are *near*, in a heap.
//!
//! ```text
//!             arm                      its mark comes up, due
//!   disarmed ─────▶ armed ────────────────────────────────────▶ expired ──▶ the caller takes it
//!       ▲            │ ▲ arm: later = one store, earlier = a new mark │      (`pop_expired`)
//!       └────────────┘ └──────────────────────────────────────────────┘
//!          disarm                arm: replaces the firing
//! ```
//!
//! Invariants:
//! - every arming has a number of its own; `node.arming` is 0 exactly while it is disarmed;
//! - an armed node that is not expired has exactly one mark, never later than its due time,
//!   and any other node has none; `node.place` says where it is;
//! - every near mark is earlier than every one in the wheel. A removed one is left in the heap,
//!   dead: one is alive while its number is that of its node's place;
//! - an entry of the expired queue is live while its number is `node.arming`: arming anew,
//!   disarming and removing all undo it;
//! - equal times fire in the order in which they were armed.

mod wheel;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

use super::Time;
use super::slots::{Key, Slots};
use wheel::{Spot, Wheel};

/// A heap smaller than this is not worth sweeping for dead marks.
const SMALL: usize = 64;
/// In a bucket of up to so many the next deadline is looked for exactly. In a larger one it may
/// be told too early, once, when the earliest has gone.
const EXACT: usize = 32;

/// Deadlines, each with a value that says what it is for.
#[derive(Debug)]
pub(super) struct Timers<T> {
    nodes: Slots<Node<T>>,
    wheel: Wheel,
    near: BinaryHeap<Reverse<Mark>>,
    /// Near marks that stand for nothing any more.
    dead: usize,
    expired: VecDeque<Expired>,
    armings: u64,
    /// Room for what is on its way out of the wheel: empty between calls.
    leaving: Vec<u32>,
    passed: Vec<Mark>,
}

#[derive(Debug)]
struct Node<T> {
    due: Time,
    /// Number of the last arming; 0: disarmed.
    arming: u64,
    /// The time of its mark.
    marked: Time,
    place: Place,
    value: T,
}

/// Where a node's mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// In the heap, with this number.
    Near(u64),
    Far(Spot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    at: Time,
    arming: u64,
    slot: u32,
}

/// A deadline that has passed and was not acted on yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) key: Key,
    arming: u64,
}

// A million of them for the I/O deadlines of a million connections.
const _: () = assert!(size_of::<Option<Node<u64>>>() <= 48);

impl<T> Timers<T> {
    /// An empty set. Those added are expected to be later than `now`, and may be earlier.
    pub(super) fn new(now: Time) -> Timers<T> {
        Timers {
            nodes: Slots::new(),
            wheel: Wheel::new(now),
            near: BinaryHeap::new(),
            dead: 0,
            expired: VecDeque::new(),
            armings: 0,
            leaving: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// A new deadline.
    pub(super) fn add(&mut self, at: Time, value: T) -> Key {
        self.armings += 1;
        let key = self.nodes.insert(Node {
            due: at,
            arming: self.armings,
            marked: at,
            place: Place::Nowhere,
            value,
        });
        self.mark(key.slot());
        key
    }

    /// Sets the time anew; false if there is no such deadline.
    pub(super) fn arm(&mut self, key: Key, at: Time) -> bool {
        let Some(node) = self.nodes.get_mut(key) else {
            return false;
        };
        self.armings += 1;
        node.due = at;
        node.arming = self.armings;
        match node.place {
            Place::Near(_) if node.marked <= at => {}
            Place::Far(spot) if node.marked <= at => self.wheel.blur(spot, node.marked),
            _ => {
                self.unmark(key.slot());
                self.mark(key.slot());
            }
        }
        true
    }

    /// It does not fire until it is armed again; false if there is no such deadline.
    pub(super) fn disarm(&mut self, key: Key) -> bool {
        let Some(node) = self.nodes.get_mut(key) else {
            return false;
        };
        node.arming = 0;
        self.unmark(key.slot());
        true
    }

    /// Gives the value back; the key names nothing from here on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.disarm(key);
        self.nodes.remove(key).map(|node| node.value)
    }

    /// Removes all but those with a value to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let all = self.nodes.iter();
        let gone = all.filter(|(_, node)| !keep(&node.value));
        let gone: Vec<Key> = gone.map(|(key, _)| key).collect();
        for key in gone {
            self.remove(key);
        }
    }

    pub(super) fn value(&self, key: Key) -> Option<&T> {
        self.nodes.get(key).map(|node| &node.value)
    }

    pub(super) fn value_mut(&mut self, key: Key) -> Option<&mut T> {
        self.nodes.get_mut(key).map(|node| &mut node.value)
    }

    /// When it is due; `None` if it is disarmed or does not exist.
    pub(super) fn due(&self, key: Key) -> Option<Time> {
        self.nodes.get(key).and_then(Node::due)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Option<Time>, &T)> {
        let all = self.nodes.iter();
        all.map(|(key, node)| (key, node.due(), &node.value))
    }

    /// No deadline is due before this, and most often one is due then; [`Time::ZERO`] if
    /// something has expired and waits to be taken.
    pub(super) fn next_due(&mut self) -> Option<Time> {
        while let Some(&first) = self.expired.front() {
            if self.is_live(first) {
                return Some(Time::ZERO);
            }
            self.expired.pop_front();
        }
        if let Some(mark) = self.first_near() {
            return Some(mark.at);
        }
        loop {
            let first = self.wheel.first()?;
            if !first.blurred || first.len > EXACT {
                return Some(first.floor);
            }
            let mut leaving = mem::take(&mut self.leaving);
            self.wheel.take(first, &mut leaving);
            for slot in leaving.drain(..) {
                self.mark(slot);
            }
            self.leaving = leaving;
        }
    }

    /// Moves what is due by `now` to the expired queue; returns the length of the queue.
    pub(super) fn expire(&mut self, now: Time) -> usize {
        while let Some(mark) = self.first_near()
            && mark.at <= now
        {
            self.near.pop();
            self.put_out(mark);
        }
        let mut leaving = mem::take(&mut self.leaving);
        while self.wheel.advance(now, &mut leaving) {
            for slot in leaving.drain(..) {
                self.pass_or_mark(slot, now);
            }
        }
        self.leaving = leaving;
        let mut passed = mem::take(&mut self.passed);
        passed.sort_unstable();
        for mark in passed.drain(..) {
            self.put_out(mark);
        }
        self.passed = passed;
        self.expired.len()
    }

    /// Takes one entry off the expired queue: `None` if it was undone since, or none is left.
    /// Its deadline stays armed for the caller to disarm, arm anew or put back.
    pub(super) fn pop_expired(&mut self) -> Option<Expired> {
        let expired = self.expired.pop_front()?;
        self.is_live(expired).then_some(expired)
    }

    /// Puts an entry back, to be asked for again after the others.
    pub(super) fn put_back(&mut self, expired: Expired) {
        self.expired.push_back(expired);
    }

    fn is_live(&self, expired: Expired) -> bool {
        let node = self.nodes.get(expired.key);
        node.is_some_and(|node| node.arming == expired.arming)
    }

    /// The first near mark that says the truth; puts right or drops those that come before it.
    fn first_near(&mut self) -> Option<Mark> {
        loop {
            let Reverse(mark) = *self.near.peek()?;
            let node = self.nodes.in_slot(mark.slot).map(|(_, node)| node);
            match node.filter(|node| node.place == Place::Near(mark.arming)) {
                Some(node) if node.arming == mark.arming => return Some(mark),
                Some(_) => {
                    self.near.pop();
                    self.mark(mark.slot);
                }
                None => {
                    self.near.pop();
                    self.dead -= 1;
                }
            }
        }
    }

    /// A node that has left the wheel has either passed or is marked anew.
    fn pass_or_mark(&mut self, slot: u32, now: Time) {
        match self.nodes.in_slot(slot) {
            Some((_, node)) if node.due <= now => self.passed.push(Mark {
                at: node.due,
                arming: node.arming,
                slot,
            }),
            _ => self.mark(slot),
        }
    }

    /// Appends a node, whose mark is gone already, to the expired queue.
    fn put_out(&mut self, mark: Mark) {
        if let Some((key, node)) = self.nodes.in_slot_mut(mark.slot) {
            node.place = Place::Nowhere;
            let arming = mark.arming;
            self.expired.push_back(Expired { key, arming });
        }
    }

    /// Makes the mark of an armed node that has none, or whose last one is gone already.
    fn mark(&mut self, slot: u32) {
        let Some((_, node)) = self.nodes.in_slot_mut(slot) else {
            return;
        };
        node.marked = node.due;
        node.place = match self.wheel.insert(node.due, slot) {
            Some(spot) => Place::Far(spot),
            None => {
                self.near.push(Reverse(Mark {
                    at: node.due,
                    arming: node.arming,
                    slot,
                }));
                Place::Near(node.arming)
            }
        };
    }

    /// Removes the mark of a node, if it has one.
    fn unmark(&mut self, slot: u32) {
        let Some((_, node)) = self.nodes.in_slot_mut(slot) else {
            return;
        };
        match mem::replace(&mut node.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Near(_) => {
                self.dead += 1;
                self.sweep();
            }
            Place::Far(spot) => {
                let moved = self.wheel.remove(spot, node.marked);
                if let Some((_, moved)) = moved.and_then(|slot| self.nodes.in_slot_mut(slot)) {
                    moved.place = Place::Far(spot);
                }
            }
        }
    }

    /// Drops the dead marks once they are the greater part: each sweep is paid for by as many
    /// removals as it drops marks.
    fn sweep(&mut self) {
        if self.near.len() > SMALL && self.dead > self.near.len() / 2 {
            let nodes = &self.nodes;
            self.near.retain(|Reverse(mark)| {
                let node = nodes.in_slot(mark.slot);
                node.is_some_and(|(_, node)| node.place == Place::Near(mark.arming))
            });
            self.dead = 0;
        }
    }
}

impl<T> Node<T> {
    fn due(&self) -> Option<Time> {
        (self.arming != 0).then_some(self.due)
    }
}

#[cfg(test)]
mod tests;
