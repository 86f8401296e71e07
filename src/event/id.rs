//! The names of sources and timers: slot and generation, never a descriptor number.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use super::slots::Key;

/// Names a source for the whole life of its reactor. No other source ever gets the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub(super) Key);

impl SourceId {
    /// The id as a number, to store or to send. Its top bit is always 0.
    pub const fn to_bits(self) -> u64 {
        self.0.to_bits()
    }

    /// The id that `bits` were made from. If no id has these bits, the result names nothing.
    pub const fn from_bits(bits: u64) -> SourceId {
        SourceId(Key::from_bits(bits))
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceId({}.{})", self.0.slot(), self.to_bits() >> 32)
    }
}

/// A [`SourceId`] that knows the type of its source.
pub struct Handle<T> {
    id: SourceId,
    source: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    pub(super) fn new(id: SourceId) -> Handle<T> {
        Handle {
            id,
            source: PhantomData,
        }
    }

    /// The name alone.
    pub fn id(self) -> SourceId {
        self.id
    }
}

impl<T> From<Handle<T>> for SourceId {
    fn from(handle: Handle<T>) -> SourceId {
        handle.id
    }
}

// Written out, because a derive would ask the same of `T`.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Handle<T> {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Handle<T>) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Handle<T> {}

impl<T> Hash for Handle<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:?})", self.id)
    }
}

/// Names a timer, with the same promise as [`SourceId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(super) set: TimerSet,
    pub(super) key: Key,
}

/// Where a timer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TimerSet {
    /// Of the item lane: items and what is local.
    Item,
    Handover,
    /// Due to the microsecond.
    Liveness,
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, generation) = (self.key.slot(), self.key.to_bits() >> 32);
        write!(f, "TimerId({:?} {slot}.{generation})", self.set)
    }
}
