//! Numbers with a meaning: why something was refused, and what an item is.
//!
//! A number that is not known here is kept as `Other`, so that a later release can say more. It can
//! be logged, or declined, and is never taken for something else.

use std::fmt;

/// Makes an open enumeration of 16-bit codes: the enum, its conversions and its text.
macro_rules! codes {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $code:literal $variant:ident $text:literal)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A code that is not known here.
            Other(u16),
        }

        impl $name {
            /// The meaning of a code on the wire.
            #[must_use]
            pub fn from_code(code: u16) -> Self {
                match code {
                    $($code => $name::$variant,)*
                    other => $name::Other(other),
                }
            }

            /// The code on the wire.
            #[must_use]
            pub fn code(self) -> u16 {
                match self {
                    $($name::$variant => $code,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$variant => f.write_str($text),)*
                    $name::Other(other) => write!(f, "code {other}"),
                }
            }
        }
    };
}

codes! {
    /// Why the donor refuses a takeover.
    RefuseCode {
        /// No version is spoken by both.
        1 Version "no common version"
        /// A feature or extension that one side needs and the other does not know.
        2 Features "a needed feature is missing"
        /// The taker has too few free descriptor slots for the items.
        3 Slots "not enough free descriptor slots"
        /// A takeover is under way, or has taken place.
        4 Busy "another takeover is under way"
        /// The two do not read the same monotonic clock (time_namespaces(7)), so deadlines
        /// cannot move.
        5 Clock "different monotonic clocks"
        /// The donor is about to end.
        6 Stopping "about to stop"
        /// The taker runs as another user.
        7 Identity "not allowed for this user"
        /// The application does not want to be taken over now.
        8 Application "refused by the application"
        /// If the donor ends, other processes end with it, and the taker is one of them.
        9 Init "the donor is an init process"
        /// The two are in different network namespaces (network_namespaces(7)).
        10 Network "different network namespaces"
    }
}

codes! {
    /// Why the taker gives up.
    FailCode {
        /// A record that does not decode, or is not allowed where it came.
        1 Malformed "malformed record"
        /// Fds are missing (recvmsg(2), MSG_CTRUNC) or too many.
        2 Fds "wrong number of fds"
        /// An item is not what its descriptor says, or its state cannot be restored.
        3 Invalid "invalid item"
        /// The same item or socket twice.
        4 Duplicate "item sent twice"
        /// The final array is not the one that END describes.
        5 Digest "counts or digest differ"
        /// No memory, no descriptor slot or the like.
        6 Resources "out of resources"
        /// An item of the final array would have to be declined, and it is too late for that.
        7 Declined "item declined too late"
        /// A fault of the taker's own.
        8 Internal "internal error"
        /// The donor sent something that must be understood and is not.
        9 Features "a needed feature is missing"
    }
}

codes! {
    /// Why the taker does not take one item. The donor keeps serving it.
    DeclineCode {
        /// Its kind is not known or not wanted.
        1 Kind "kind of item not supported"
        /// The version of its state is not known.
        2 StateVersion "state version not supported"
        /// An item that it belongs to, or that belongs to it, was declined.
        3 Linked "linked to a declined item"
        /// The application does not want it.
        4 Application "declined by the application"
    }
}

codes! {
    /// What an item is.
    ItemKind {
        /// A listening socket.
        1 Listener "listener"
        /// One TCP connection.
        2 TcpPeer "tcp peer"
        /// A UDP socket.
        3 Udp "udp"
        /// A tun or tap device.
        4 Tun "tun"
        /// A packet socket (packet(7)).
        5 Packet "packet"
        /// A raw socket (raw(7)).
        6 Raw "raw"
        /// A netlink socket (netlink(7)).
        7 Netlink "netlink"
        /// A timerfd.
        8 Timerfd "timerfd"
        /// An eventfd.
        9 Eventfd "eventfd"
        /// Memory, such as a large table (memfd_create(2)).
        10 Memfd "memfd"
        /// A BPF map.
        11 BpfMap "bpf map"
        /// A BPF link.
        12 BpfLink "bpf link"
        /// A file whose meaning only the application knows.
        13 Opaque "opaque"
        /// State alone, without an fd.
        14 State "state"
    }
}

impl ItemKind {
    /// Whether this kind has an fd. `None` if the kind is not known here.
    #[must_use]
    pub fn needs_fd(self) -> Option<bool> {
        match self {
            ItemKind::Other(_) => None,
            kind => Some(kind != ItemKind::State),
        }
    }

    /// Whether this kind may come with an fd, or without one.
    pub(super) fn allows(self, has_fd: bool) -> bool {
        self.needs_fd().is_none_or(|needs_fd| needs_fd == has_fd)
    }
}
