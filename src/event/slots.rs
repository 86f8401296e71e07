//! A table whose keys cannot go stale.
//!
//! A key is a slot and a generation of it. Slots are used again, latest first. Each use has a
//! generation of its own, so the key of something that was removed never fits anything again. The
//! slab crate gives slots without generations; the generations lie in its entries.
//!
//! Invariants:
//! - A generation is 1 up to [`GENERATIONS`]. Neither 0 nor the top bit is ever given out: 64 bits
//!   hold a key and one bit that tells other things from keys.
//! - A slot whose generations are used up is never used again. It stays empty and is lost: one slot
//!   for every 2³¹ uses of it.

use slab::Slab;

/// The highest generation of a slot.
const GENERATIONS: u32 = u32::MAX >> 1;

/// Names one use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// Fits nothing.
    pub(super) const DANGLING: Key = Key {
        slot: u32::MAX,
        generation: 0,
    };

    /// The generation in the upper half, the slot in the lower; the top bit is 0.
    pub(super) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The key that `to_bits` gave. Any other number becomes a key that fits nothing, or at least
    /// nothing that it was not made for.
    pub(super) const fn from_bits(bits: u64) -> Key {
        let generation = (bits >> 32) as u32;
        if generation > GENERATIONS {
            return Key::DANGLING;
        }
        Key {
            slot: bits as u32,
            generation,
        }
    }

    pub(super) const fn slot(self) -> u32 {
        self.slot
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Slab<Entry<T>>,
    /// Of each slot the generation of its next use: asked for on insertion only.
    next: Vec<u32>,
}

/// A slot in use. Its generation lies beside the value, to be found in the same cache line.
#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    /// `None` if the slot's generations are used up.
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots {
            entries: Slab::new(),
            next: Vec::new(),
        }
    }

    /// Puts a value in.
    ///
    /// # Panics
    /// With 2³² values in the table.
    pub(super) fn insert(&mut self, value: T) -> Key {
        let vacant = self.entries.vacant_entry();
        let index = vacant.key();
        if index == self.next.len() {
            self.next.push(1);
        }
        let generation = self.next[index];
        self.next[index] += 1;
        vacant.insert(Entry {
            generation,
            value: Some(value),
        });
        Key {
            slot: u32::try_from(index).expect("memory ends before 2^32 slots"),
            generation,
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.slot as usize)?;
        let entry = (entry.generation == key.generation).then_some(entry)?;
        entry.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        let entry = (entry.generation == key.generation).then_some(entry)?;
        entry.value.as_mut()
    }

    /// Takes a value out; its key fits nothing from here on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        if key.generation < GENERATIONS {
            self.entries.remove(key.slot as usize).value
        } else {
            self.entries.get_mut(key.slot as usize)?.value.take()
        }
    }

    /// The present use of a slot.
    pub(super) fn in_slot(&self, slot: u32) -> Option<(Key, &T)> {
        let Entry { generation, value } = self.entries.get(slot as usize)?;
        let generation = *generation;
        Some((Key { slot, generation }, value.as_ref()?))
    }

    /// The same, to be changed.
    pub(super) fn in_slot_mut(&mut self, slot: u32) -> Option<(Key, &mut T)> {
        let Entry { generation, value } = self.entries.get_mut(slot as usize)?;
        let generation = *generation;
        Some((Key { slot, generation }, value.as_mut()?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().filter_map(|(index, entry)| {
            // `insert` has checked that every index fits.
            let slot = index as u32;
            let generation = entry.generation;
            Some((Key { slot, generation }, entry.value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_used_again_refuses_the_old_key() {
        let mut slots = Slots::new();
        let old = slots.insert('a');
        assert_eq!(slots.remove(old), Some('a'));
        let new = slots.insert('b');
        assert_eq!(new.slot(), old.slot());
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&'b'));
        assert_eq!(slots.in_slot(old.slot()), Some((new, &'b')));
    }

    #[test]
    fn slot_with_used_up_generations_is_never_used_again() {
        let mut slots = Slots::new();
        let first = slots.insert(1);
        slots.remove(first);
        slots.next[0] = GENERATIONS;
        let last = slots.insert(2);
        assert_eq!(last.slot(), 0);
        assert_eq!(slots.remove(last), Some(2));
        assert_eq!(slots.get(last), None);
        assert_eq!(slots.iter().count(), 0);
        assert_eq!(slots.insert(3).slot(), 1);
        assert_eq!(slots.iter().count(), 1);
    }

    #[test]
    fn keys_survive_bits_and_other_bits_fit_nothing() {
        let mut slots = Slots::new();
        let key = slots.insert(());
        assert_eq!(Key::from_bits(key.to_bits()), key);
        for bits in [0, u64::MAX, key.to_bits() | 1 << 63] {
            assert_eq!(Key::from_bits(bits).to_bits() >> 63, 0);
            assert_eq!(slots.get(Key::from_bits(bits)), None);
        }
    }
}
