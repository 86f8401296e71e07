//! A table whose keys cannot go stale.
//!
//! A key is a slot and a generation of it. Slots are used again, latest first; each use has a
//! generation of its own, so that the key of something removed fits nothing ever after. The
//! slab crate gives slots but no generations, these stand beside it.
//!
//! Invariants:
//! - a generation is 1 up to [`GENERATIONS`]; 0 is never given out, nor is the top bit, so that
//!   64 bits hold a key and one bit to tell other things from keys;
//! - a slot whose generations are used up is never used again. It is left empty and lost: one
//!   slot for every 2³¹ uses of it.

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

    /// What `to_bits` gave; any other number becomes a key that fits nothing, or at least
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
    /// `None` is a slot whose generations are used up.
    entries: Slab<Option<T>>,
    /// Of each slot the generation of its present use, or of its next one.
    generations: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots {
            entries: Slab::new(),
            generations: Vec::new(),
        }
    }

    /// Puts a value in.
    ///
    /// # Panics
    /// With 2³² values in the table.
    pub(super) fn insert(&mut self, value: T) -> Key {
        let index = self.entries.insert(Some(value));
        if index == self.generations.len() {
            self.generations.push(1);
        }
        Key {
            slot: u32::try_from(index).expect("memory ends before 2^32 slots"),
            generation: self.generations[index],
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.occupied(key)
            .and_then(|index| self.entries.get(index))
            .and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.occupied(key)
            .and_then(|index| self.entries.get_mut(index))
            .and_then(Option::as_mut)
    }

    /// Takes a value out; its key fits nothing from here on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let index = self.occupied(key)?;
        let value = self.entries.get_mut(index)?.take()?;
        if self.generations[index] < GENERATIONS {
            self.generations[index] += 1;
            self.entries.remove(index);
        }
        Some(value)
    }

    /// The present use of a slot.
    pub(super) fn in_slot(&self, slot: u32) -> Option<(Key, &T)> {
        let value = self.entries.get(slot as usize)?.as_ref()?;
        let generation = self.generations[slot as usize];
        Some((Key { slot, generation }, value))
    }

    /// The same, to be changed.
    pub(super) fn in_slot_mut(&mut self, slot: u32) -> Option<(Key, &mut T)> {
        let value = self.entries.get_mut(slot as usize)?.as_mut()?;
        let generation = self.generations[slot as usize];
        Some((Key { slot, generation }, value))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().filter_map(|(index, value)| {
            // `insert` has checked that every index fits.
            let slot = index as u32;
            let generation = self.generations[index];
            Some((Key { slot, generation }, value.as_ref()?))
        })
    }

    fn occupied(&self, key: Key) -> Option<usize> {
        let index = key.slot as usize;
        (self.generations.get(index) == Some(&key.generation)).then_some(index)
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
        slots.generations[0] = GENERATIONS;
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
