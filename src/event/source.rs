//! What is said of a source: how it is watched, what happened to it, how it goes on.

use super::{Class, SourceId, Time};

/// Which readiness a source wants to hear of. Hang-ups and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Something to read or accept, urgent data, or the peer's end of the stream.
    Read,
    /// Room to write.
    Write,
    /// Both of them.
    Both,
}

/// How a source is to be watched.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) interest: Interest,
    pub(super) deadline: Option<Time>,
    pub(super) budget: Option<u32>,
    pub(super) intake: bool,
}

impl Spec {
    /// An item, watched for reading, without a deadline. The name is for logs, faults and
    /// [statistics](super::Cx::stats_by_name); use one for each kind of source. A successor also
    /// tells items apart by this name:
    /// [`Description::source`](crate::takeover::Description::source) gives it to the item.
    pub const fn item(name: &'static str) -> Spec {
        Spec::of(Class::Item, name)
    }

    /// A source of the handover. Otherwise as [`Spec::item`].
    pub const fn handover(name: &'static str) -> Spec {
        Spec::of(Class::Handover, name)
    }

    /// A source that stays with this process. Otherwise as [`Spec::item`].
    pub const fn local(name: &'static str) -> Spec {
        Spec::of(Class::Local, name)
    }

    /// Watches it for `interest`.
    pub const fn interest(self, interest: Interest) -> Spec {
        Spec { interest, ..self }
    }

    /// Sets a time at which the callback gets a timeout if nothing has come until then.
    pub const fn deadline(self, at: Time) -> Spec {
        Spec {
            deadline: Some(at),
            ..self
        }
    }

    /// Sets a budget of its own instead of [`Config::budget`](super::Config). 0 counts as 1.
    pub const fn budget(self, budget: u32) -> Spec {
        Spec {
            budget: Some(budget),
            ..self
        }
    }

    /// Marks it as a source that only brings in new work, such as a listener: it ends when a
    /// [drain](super::Cx::drain) begins.
    pub const fn intake(self) -> Spec {
        Spec {
            intake: true,
            ..self
        }
    }

    const fn of(class: Class, name: &'static str) -> Spec {
        Spec {
            name,
            class,
            interest: Interest::Read,
            deadline: None,
            budget: None,
            intake: false,
        }
    }
}

/// How a source goes on after its callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next edge. Everything was done until the kernel said `WouldBlock` to a read, or
    /// to a write of a source that is watched for writing too.
    Keep,
    /// There is more to do, but the budget is used up. Call again in the next turn, with the flags
    /// of this event.
    Again,
    /// Take the source out of the reactor and drop it.
    End,
}

/// Why a callback is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub(super) id: SourceId,
    pub(super) flags: Flags,
}

impl Event {
    /// The source that is called.
    pub fn id(&self) -> SourceId {
        self.id
    }

    /// There may be something to read or accept.
    pub fn is_readable(&self) -> bool {
        self.flags.has(Flags::READABLE)
    }

    /// There may be room to write.
    pub fn is_writable(&self) -> bool {
        self.flags.has(Flags::WRITABLE)
    }

    /// The peer has ended its side. What is left to read comes first, then the end of the stream.
    /// No further event will say so.
    pub fn is_read_closed(&self) -> bool {
        self.flags.has(Flags::READ_CLOSED)
    }

    /// The peer has marked a byte as urgent (tcp(7)), and it was not read yet. A read ends before
    /// it, however much comes after it. No further event will say so.
    pub fn is_urgent(&self) -> bool {
        self.flags.has(Flags::URGENT)
    }

    /// Both directions are closed.
    pub fn is_hangup(&self) -> bool {
        self.flags.has(Flags::HANGUP)
    }

    /// The descriptor has an error pending.
    pub fn is_error(&self) -> bool {
        self.flags.has(Flags::ERROR)
    }

    /// The callback goes on where it left off, or is called for
    /// [`Cx::resume_later`](super::Cx::resume_later). Reading and writing are both worth a try,
    /// whatever the other flags say.
    pub fn is_resumed(&self) -> bool {
        self.flags.has(Flags::RESUMED)
    }

    /// The I/O deadline has passed in silence. No other flag is set, and the deadline is unarmed.
    pub fn is_timeout(&self) -> bool {
        self.flags.has(Flags::TIMEOUT)
    }
}

/// A set of reasons, one byte in every slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const NONE: Flags = Flags(0);
    pub(super) const READABLE: Flags = Flags(1);
    pub(super) const WRITABLE: Flags = Flags(1 << 1);
    pub(super) const READ_CLOSED: Flags = Flags(1 << 2);
    pub(super) const HANGUP: Flags = Flags(1 << 3);
    pub(super) const ERROR: Flags = Flags(1 << 4);
    pub(super) const RESUMED: Flags = Flags(1 << 5);
    pub(super) const TIMEOUT: Flags = Flags(1 << 6);
    pub(super) const URGENT: Flags = Flags(1 << 7);

    pub(super) fn of(event: &mio::event::Event) -> Flags {
        Flags::NONE
            .when(event.is_readable(), Flags::READABLE)
            .when(event.is_writable(), Flags::WRITABLE)
            .when(event.is_read_closed(), Flags::READ_CLOSED)
            // mio does not show EPOLLHUP itself; it is what makes both of these true.
            .when(
                event.is_read_closed() && event.is_write_closed(),
                Flags::HANGUP,
            )
            .when(event.is_error(), Flags::ERROR)
            .when(event.is_priority(), Flags::URGENT)
    }

    pub(super) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    fn when(self, condition: bool, other: Flags) -> Flags {
        if condition { self.with(other) } else { self }
    }
}
