//! The donor's ledger: what the taker knows of each item, and what it still has to be told.
//!
//! Pure bookkeeping by item id; no socket, no clock. Owed is what the taker has no copy of,
//! or an old state of. Every item of the donor is in one of these places:
//!
//! ```text
//!               next_batch            sent                 ack with a decline
//!   owed ───────────────▶ (batch) ────────▶ copies ──────────────────────▶ declined
//!    ▲                       │ blocked        │  │                            │
//!    └───────────────────────┴────────────────┘  │ closed by the donor        │ closed
//!          changed since it was sent             ▼                            ▼
//!                                              closed ──(CLOSED batch)──▶  forgotten
//! ```
//!
//! Invariants:
//! - an id in `copies` and not in `changed` has at the taker exactly the state that it has here
//!   (this is what makes a freeze short, and what a missed change would break);
//! - `closed` only names ids that the taker has a copy of;
//! - a declined item is never sent again, and neither is one that the application says the
//!   taker does not want ([`Presence::Unwanted`]);
//! - never more copies are out than the taker has descriptor slots;
//! - batches are acknowledged in the order in which they were sent.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::proto::records::ItemKind;

/// Identity of an item for the whole takeover: the donor's slot and generation, never a
/// descriptor number (those differ between the two processes and are reused).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

/// What has become of an item that was opened, used or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It exists; its state may have changed.
    Held,
    /// It was closed.
    Gone,
    /// It exists, and the taker has declined its kind and state version before.
    Unwanted,
}

/// What goes to the taker as one acknowledged message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Batch {
    /// Items that the donor closed after it had sent them.
    Closed(Vec<ItemId>),
    /// Items with their present state.
    Items {
        /// These go with their descriptor and fd.
        new: Vec<ItemId>,
        /// These the taker has; only their state goes.
        changed: Vec<ItemId>,
    },
}

/// What [`Ledger::next_batch`] found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Due {
    /// Send this.
    Batch(Batch),
    /// The taker knows all.
    Nothing,
    /// New items are owed, and the taker has no slot for them.
    NoSlots,
}

/// The ids that a round has still to pass: each once, in their order, so that what changes
/// all the time is not sent again and again while the rest waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ahead {
    new: (Bound<ItemId>, Bound<ItemId>),
    changed: (Bound<ItemId>, Bound<ItemId>),
}

impl Ahead {
    /// No item is passed over.
    pub const EVERYTHING: Ahead = Ahead {
        new: (Bound::Unbounded, Bound::Unbounded),
        changed: (Bound::Unbounded, Bound::Unbounded),
    };

    /// The round does not come back to what this batch has passed.
    pub fn pass(&mut self, batch: &Batch) {
        let Batch::Items { new, changed } = batch else {
            return;
        };
        if let Some(last) = new.last() {
            self.new.0 = Bound::Excluded(*last);
        }
        if let Some(last) = changed.last() {
            self.changed.0 = Bound::Excluded(*last);
        }
    }
}

/// What the taker knows of each item, and what it still has to be told. The [module](self) shows
/// the places that an item can be in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Descriptor slots that the taker has for copies.
    slots: usize,
    /// The taker has a copy.
    copies: BTreeSet<ItemId>,
    /// The taker has to be sent it.
    new: BTreeSet<ItemId>,
    /// The taker has a copy, and its state there is old.
    changed: BTreeSet<ItemId>,
    /// The taker has a copy, and the donor has none any more.
    closed: BTreeSet<ItemId>,
    declined: BTreeSet<ItemId>,
    /// Kinds, with the version of their state, that the taker does not know.
    refused: Vec<(ItemKind, u16)>,
    /// The numbers of the batches that the taker has not acknowledged.
    unacknowledged: VecDeque<u32>,
}

impl Ledger {
    /// A taker with this many free descriptor slots, that knows nothing yet.
    #[must_use]
    pub fn new(slots: usize) -> Ledger {
        Ledger {
            slots,
            copies: BTreeSet::new(),
            new: BTreeSet::new(),
            changed: BTreeSet::new(),
            closed: BTreeSet::new(),
            declined: BTreeSet::new(),
            refused: Vec::new(),
            unacknowledged: VecDeque::new(),
        }
    }

    /// The batch that ends with this record waits for its ACK.
    pub fn await_ack(&mut self, number: u32) {
        self.unacknowledged.push_back(number);
    }

    /// An ACK has come; whether it is that of the oldest batch.
    #[must_use]
    pub fn acknowledge(&mut self, number: u32) -> bool {
        self.unacknowledged.pop_front() == Some(number)
    }

    /// How many batches are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Whether all that was sent is acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Whether the taker has declined anything, so that it matters what an item is.
    #[must_use]
    pub fn has_declines(&self) -> bool {
        !self.declined.is_empty() || !self.refused.is_empty()
    }

    /// Whether the taker has said already that it does not know this kind in this version.
    #[must_use]
    pub fn knows_refused(&self, kind: ItemKind, version: u16) -> bool {
        self.refused.contains(&(kind, version))
    }

    /// Whether the taker would decline an item of this kind and version with these links. To ask it
    /// in the final array would be too late.
    #[must_use]
    pub fn would_decline(&self, kind: ItemKind, version: u16, links: &[ItemId]) -> bool {
        self.refused.contains(&(kind, version))
            || links.iter().any(|link| self.declined.contains(link))
    }

    /// Notes what has become of several items, in the order given.
    pub fn note_all(&mut self, items: Vec<(ItemId, Presence)>) {
        let held = items
            .iter()
            .all(|(_, presence)| *presence == Presence::Held);
        let blank = self.copies.is_empty() && self.new.is_empty() && self.declined.is_empty();
        if held && blank {
            // The start of a preload brings all that the donor has, and holds up its peers:
            // a set made at once costs a small part of one insertion after the other.
            self.new = items.into_iter().map(|(id, _)| id).collect();
            return;
        }
        for (id, presence) in items {
            self.note(id, presence);
        }
    }

    /// Notes that an item was opened, changed or closed.
    pub fn note(&mut self, id: ItemId, presence: Presence) {
        match presence {
            Presence::Held if self.copies.contains(&id) => {
                self.changed.insert(id);
            }
            Presence::Held if self.declined.contains(&id) => {}
            Presence::Held => {
                self.new.insert(id);
            }
            Presence::Gone => {
                self.new.remove(&id);
                self.changed.remove(&id);
                self.declined.remove(&id);
                if self.copies.remove(&id) {
                    self.closed.insert(id);
                }
            }
            // It was taken before its like was declined: what is taken stays taken.
            Presence::Unwanted if self.copies.contains(&id) => {
                self.changed.insert(id);
            }
            Presence::Unwanted => {
                self.new.remove(&id);
                self.declined.insert(id);
            }
        }
    }

    /// The next message for the taker when nothing changes any more, of at most `most` ids.
    /// Closed ids come first, so that the taker's slots are free before new items arrive.
    ///
    /// Nothing is marked as sent: see [`Ledger::sent`].
    #[must_use]
    pub fn next_batch(&self, most: usize) -> Due {
        self.next_closed(most)
            .map_or_else(|| self.next_items(&Ahead::EVERYTHING, most), Due::Batch)
    }

    /// At most `most` ids that the taker has to be told are closed, if there are any.
    #[must_use]
    pub fn next_closed(&self, most: usize) -> Option<Batch> {
        let ids: Vec<_> = self.closed.iter().take(most).copied().collect();
        (!ids.is_empty()).then_some(Batch::Closed(ids))
    }

    /// At most `most` owed items of those that are ahead: new ones first, so that busy ones
    /// cannot keep others from being sent at all. A closed item that the taker has not been
    /// told of takes up its slot still.
    #[must_use]
    pub fn next_items(&self, ahead: &Ahead, most: usize) -> Due {
        let new: Vec<_> = self.new.range(ahead.new).take(most).copied().collect();
        let changed: Vec<_> = self
            .changed
            .range(ahead.changed)
            .take(most - new.len())
            .copied()
            .collect();
        if new.is_empty() && changed.is_empty() {
            Due::Nothing
        } else if self.copies.len() + self.closed.len() + new.len() > self.slots {
            Due::NoSlots
        } else {
            Due::Batch(Batch::Items { new, changed })
        }
    }

    /// What one round has before it: ids up to the highest that are owed now.
    #[must_use]
    pub fn ahead(&self) -> Ahead {
        let up_to = |ids: &BTreeSet<ItemId>| {
            let last = ids.last().copied().unwrap_or(ItemId(0));
            (Bound::Unbounded, Bound::Included(last))
        };
        Ahead {
            new: up_to(&self.new),
            changed: up_to(&self.changed),
        }
    }

    /// The batch is in the kernel, so the taker will see it or die.
    pub fn sent(&mut self, batch: &Batch) {
        match batch {
            Batch::Closed(ids) => ids.iter().for_each(|id| {
                self.closed.remove(id);
            }),
            Batch::Items { new, changed } => {
                for id in new {
                    self.new.remove(id);
                }
                for id in changed {
                    self.changed.remove(id);
                }
                self.copies.extend(new);
            }
        }
    }

    /// The taker has refused to take these, and does not know these kinds in these versions. It has
    /// closed its copies.
    pub fn decline(&mut self, items: &[ItemId], kinds: &[(ItemKind, u16)]) {
        for kind in kinds {
            if !self.refused.contains(kind) {
                self.refused.push(*kind);
            }
        }
        for id in items {
            // One that the donor has closed meanwhile is in `closed`; naming it to the
            // taker once more is harmless.
            if self.copies.remove(id) {
                self.changed.remove(id);
                self.declined.insert(*id);
            }
        }
    }

    /// How many items the taker has not been told the present state of, closed ones included.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.new.len() + self.changed.len() + self.closed.len()
    }

    /// How many items the taker has a copy of and the donor still holds.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// The items that stay with the donor.
    pub fn declined(&self) -> impl ExactSizeIterator<Item = ItemId> + '_ {
        self.declined.iter().copied()
    }
}

#[cfg(test)]
mod tests;
