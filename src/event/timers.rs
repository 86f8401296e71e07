//! Deadlines in order: a pure set, the time is an argument.
//!
//! Most deadlines of a server are pushed later or dropped before they pass. So arming one
//! later than before, or disarming it, is a store into its node; its *mark* in the heap stays
//! where it is and is put right only when it comes to the top.
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
//! - an armed node that is not expired has exactly one live mark, never later than its due
//!   time; a mark is live while its number is `node.mark`;
//! - an entry of the expired queue is live while its number is `node.arming`: arming anew,
//!   disarming and removing all undo it;
//! - equal times fire in the order in which they were armed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::Time;
use super::slots::{Key, Slots};

/// A heap smaller than this is not worth sweeping for dead marks.
const SMALL: usize = 64;

/// Deadlines, each with a value that says what it is for.
#[derive(Debug)]
pub(super) struct Timers<T> {
    nodes: Slots<Node<T>>,
    marks: BinaryHeap<Reverse<Mark>>,
    /// Marks that stand for nothing any more.
    dead: usize,
    expired: VecDeque<Expired>,
    armings: u64,
}

#[derive(Debug)]
struct Node<T> {
    due: Time,
    /// Number of the last arming; 0: disarmed.
    arming: u64,
    marked: Time,
    /// Number of the live mark; 0: none.
    mark: u64,
    value: T,
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

impl<T> Timers<T> {
    pub(super) fn new() -> Timers<T> {
        Timers {
            nodes: Slots::new(),
            marks: BinaryHeap::new(),
            dead: 0,
            expired: VecDeque::new(),
            armings: 0,
        }
    }

    /// A new deadline.
    pub(super) fn add(&mut self, at: Time, value: T) -> Key {
        let key = self.nodes.insert(Node {
            due: at,
            arming: 0,
            marked: Time::ZERO,
            mark: 0,
            value,
        });
        self.arm(key, at);
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
        if node.mark != 0 && node.marked <= at {
            return true;
        }
        self.dead += usize::from(node.mark != 0);
        self.place(key.slot());
        self.sweep();
        true
    }

    /// It does not fire until it is armed again; false if there is no such deadline.
    pub(super) fn disarm(&mut self, key: Key) -> bool {
        let node = self.nodes.get_mut(key);
        node.map(|node| node.arming = 0).is_some()
    }

    /// Gives the value back; the key names nothing from here on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let node = self.nodes.remove(key)?;
        self.dead += usize::from(node.mark != 0);
        self.sweep();
        Some(node.value)
    }

    /// Removes all of them.
    pub(super) fn clear(&mut self) {
        let keys: Vec<Key> = self.nodes.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.nodes.remove(key);
        }
        self.marks.clear();
        self.expired.clear();
        self.dead = 0;
    }

    pub(super) fn value(&self, key: Key) -> Option<&T> {
        self.nodes.get(key).map(|node| &node.value)
    }

    pub(super) fn value_mut(&mut self, key: Key) -> Option<&mut T> {
        self.nodes.get_mut(key).map(|node| &mut node.value)
    }

    /// When it is due; `None` if it is disarmed or does not exist.
    pub(super) fn due(&self, key: Key) -> Option<Time> {
        let node = self.nodes.get(key).filter(|node| node.arming != 0);
        node.map(|node| node.due)
    }

    /// The earliest time at which something is to be done; [`Time::ZERO`] if something has
    /// expired and waits to be taken.
    pub(super) fn next_due(&mut self) -> Option<Time> {
        while let Some(&first) = self.expired.front() {
            if self.is_live(first) {
                return Some(Time::ZERO);
            }
            self.expired.pop_front();
        }
        self.first_mark().map(|mark| mark.at)
    }

    /// Moves what is due by `now` to the expired queue; returns the length of the queue.
    pub(super) fn expire(&mut self, now: Time) -> usize {
        while let Some(mark) = self.first_mark()
            && mark.at <= now
        {
            self.unmark();
            if let Some((key, node)) = self.nodes.in_slot(mark.slot) {
                let arming = node.arming;
                self.expired.push_back(Expired { key, arming });
            }
        }
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

    /// The first mark that says the truth; puts right or drops those that come before it.
    fn first_mark(&mut self) -> Option<Mark> {
        loop {
            let Reverse(mark) = *self.marks.peek()?;
            let node = self.nodes.in_slot(mark.slot).map(|(_, node)| node);
            match node.filter(|node| node.mark == mark.arming) {
                None => {
                    self.marks.pop();
                    self.dead -= 1;
                }
                Some(node) if node.arming == mark.arming => return Some(mark),
                Some(node) => {
                    let armed = node.arming != 0;
                    self.unmark();
                    if armed {
                        self.place(mark.slot);
                    }
                }
            }
        }
    }

    /// Drops the first mark, which is live.
    fn unmark(&mut self) {
        if let Some(Reverse(mark)) = self.marks.pop()
            && let Some((key, _)) = self.nodes.in_slot(mark.slot)
            && let Some(node) = self.nodes.get_mut(key)
        {
            node.mark = 0;
        }
    }

    fn place(&mut self, slot: u32) {
        if let Some((key, _)) = self.nodes.in_slot(slot)
            && let Some(node) = self.nodes.get_mut(key)
        {
            node.marked = node.due;
            node.mark = node.arming;
            self.marks.push(Reverse(Mark {
                at: node.due,
                arming: node.arming,
                slot,
            }));
        }
    }

    /// Drops the dead marks once they are the greater part: each sweep is paid for by as many
    /// removals as it drops marks.
    fn sweep(&mut self) {
        if self.marks.len() > SMALL && self.dead > self.marks.len() / 2 {
            let nodes = &self.nodes;
            self.marks.retain(|Reverse(mark)| {
                let node = nodes.in_slot(mark.slot);
                node.is_some_and(|(_, node)| node.mark == mark.arming)
            });
            self.dead = 0;
        }
    }
}

#[cfg(test)]
mod tests;
