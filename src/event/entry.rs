//! A source and its callback, as one value of unknown type, and the slot it lives in.

use std::any::{Any, TypeId};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use super::names::NameId;
use super::slots::Key;
use super::source::{Event, Flags, Interest, Next};
use super::{Class, Cx};

/// What the reactor can do with a source without knowing its type.
pub(super) trait Entry<S> {
    fn call(&mut self, state: &mut S, cx: &mut Cx<S>, event: Event) -> io::Result<Next>;
    fn fd(&self) -> BorrowedFd<'_>;
    fn source(&self) -> &dyn Any;
    fn source_mut(&mut self) -> &mut dyn Any;
    /// Moves the source into `place`, which is an `Option<T>` of its type.
    fn move_to(self: Box<Self>, place: &mut dyn Any);
}

/// The only implementation: one allocation holds both.
pub(super) struct Pair<T, F> {
    pub(super) source: T,
    pub(super) callback: F,
}

impl<S, T, F> Entry<S> for Pair<T, F>
where
    T: AsFd + 'static,
    F: FnMut(&mut T, &mut S, &mut Cx<S>, Event) -> io::Result<Next> + 'static,
{
    fn call(&mut self, state: &mut S, cx: &mut Cx<S>, event: Event) -> io::Result<Next> {
        (self.callback)(&mut self.source, state, cx, event)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    fn source(&self) -> &dyn Any {
        &self.source
    }

    fn source_mut(&mut self) -> &mut dyn Any {
        &mut self.source
    }

    fn move_to(self: Box<Self>, place: &mut dyn Any) {
        if let Some(place) = place.downcast_mut::<Option<T>>() {
            *place = Some(self.source);
        }
    }
}

/// What is known about a source. There may be a million: see the assertion below.
pub(super) struct Slot<S> {
    /// `None` while its callback runs.
    pub(super) entry: Option<Box<dyn Entry<S>>>,
    pub(super) name: NameId,
    /// The type of the source; a function, because a `TypeId` itself is twice as large.
    pub(super) kind: fn() -> TypeId,
    /// Its node in the deadlines of its class; dangling until one is set.
    pub(super) deadline: Key,
    /// The number under which the kernel knows it.
    pub(super) fd: RawFd,
    /// The turn of its last event, or the turn in which it was added or watched for something
    /// else: only a later wait can tell what is ready then.
    pub(super) turn: u32,
    /// How often its callback may go on.
    pub(super) budget: u32,
    pub(super) class: Class,
    pub(super) interest: Interest,
    /// The reasons for its resumption; empty if it is not in the resume queue.
    pub(super) left: Flags,
    /// It has an entry in the resume queue, live or not.
    pub(super) listed: bool,
    /// It is in the list of changes.
    pub(super) noted: bool,
    /// It only brings in new work, and ends when a drain begins.
    pub(super) intake: bool,
}

const _: () = assert!(size_of::<Option<Slot<()>>>() <= 64);
