//! Which items have changed since somebody last asked.
//!
//! A takeover sends every item once while the donor serves, and then again only what has changed.
//! The first change after each question costs a flag in the slot and one entry of a list. While
//! tracking is off it costs nothing.

use super::entry::Slot;
use super::{Class, Cx, SourceId};

#[derive(Debug, Default)]
pub(super) struct Changes {
    on: bool,
    /// Each id once; the slot of one that still exists is `noted`.
    ids: Vec<SourceId>,
}

impl Changes {
    pub(super) fn note<S>(&mut self, id: SourceId, slot: &mut Slot<S>) {
        if self.on && !slot.noted && slot.class == Class::Item {
            slot.noted = true;
            self.ids.push(id);
        }
    }
}

impl<S> Cx<S> {
    /// Starts or stops tracking changes of items. Either way nothing counts as changed yet.
    pub fn track(&mut self, on: bool) {
        self.forget_changes(|_| {});
        self.changes.on = on;
    }

    /// Appends the ids of all items that have changed since tracking began or since this was last
    /// called. An item changes when it is added, removed, called back, borrowed by [`Cx::get_mut`],
    /// [touched](Cx::touch), put into or taken out of the resume queue, or given another deadline
    /// or interest. Each id comes once, in the order of the first change.
    pub fn changed(&mut self, into: &mut Vec<SourceId>) {
        self.forget_changes(|id| into.push(id));
    }

    /// How many ids [`Cx::changed`] would append.
    pub fn changed_len(&self) -> usize {
        self.changes.ids.len()
    }

    /// Marks an item as changed. Use it for a change that the reactor cannot see, in a timer bound
    /// to the item or in its part of the application's state.
    pub fn touch(&mut self, id: impl Into<SourceId>) {
        let id = id.into();
        if let Some(slot) = self.sources.get_mut(id.0) {
            self.changes.note(id, slot);
        }
    }

    /// Appends the ids of all items.
    pub fn items(&self, into: &mut Vec<SourceId>) {
        let items = self.sources.iter();
        let items = items.filter(|(_, slot)| slot.class == Class::Item);
        into.extend(items.map(|(key, _)| SourceId(key)));
    }

    /// How many items there are.
    pub fn items_len(&self) -> usize {
        self.lanes.item.sources - self.lanes.item.locals
    }

    fn forget_changes(&mut self, mut each: impl FnMut(SourceId)) {
        for id in self.changes.ids.drain(..) {
            if let Some(slot) = self.sources.get_mut(id.0) {
                slot.noted = false;
            }
            each(id);
        }
    }
}
