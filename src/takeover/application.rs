//! What an application gives to be taken over: its items, and how each is saved and restored.
//!
//! An item is either a source of the reactor (a listener, a connection) or something that
//! the application *carries* beside it under a number of its own (counters, a locked file).
//! Saving and restoring are a pair, kept side by side in the application:
//!
//! ```text
//!   donor                                      taker
//!   describe ─▶ descriptor, fd ──────────────▶ restore   a new item, once, on arrival
//!   save ─────▶ state ───────────────────────▶ update    an item that has changed since
//!                     an item closed since ──▶ forget
//! ```
//!
//! Ordering: on the taker an item's `restore` comes before its `update`s and its `forget`;
//! the order between items is not defined. `arrived` comes once, behind the `restore` of all that
//! the donor had when it began, and before whatever comes in the freeze. Until its reactor calls an item back the taker must
//! do no I/O on it and change none of its socket options: it is called once we own, in the
//! turn that ends with [`Moment::Active`].

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::core::ledger::ItemId;
use super::drive::Takeover;
use super::kinds;
use super::moment::Moment;
use super::positions::Positions;
use super::validate;
use crate::event::{Acceptor, AddError, Cx, Handle, SourceId};
use crate::proto::records::{DeclineCode, ItemKind};

/// An item in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A source of the reactor, added as an item.
    Source(SourceId),
    /// Something beside the reactor, by a number of the application's choice.
    Carried(u32),
}

/// The bit that tells carried items from sources on the wire; a source id never has it.
const CARRIED: u64 = 1 << 63;

impl<T> From<Handle<T>> for Item {
    fn from(handle: Handle<T>) -> Item {
        Item::Source(handle.id())
    }
}

impl From<Item> for ItemId {
    fn from(item: Item) -> ItemId {
        match item {
            Item::Source(id) => ItemId(id.to_bits()),
            Item::Carried(number) => ItemId(CARRIED | u64::from(number)),
        }
    }
}

impl From<ItemId> for Item {
    fn from(ItemId(bits): ItemId) -> Item {
        if bits & CARRIED == 0 {
            Item::Source(SourceId::from_bits(bits))
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the low half is the number"
            )]
            Item::Carried(bits as u32)
        }
    }
}

/// What the taker is told of an item once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Kind of the descriptor; [`ItemKind::State`] for an item without one.
    pub kind: ItemKind,
    /// A name that the application on the other side knows; at most 255 bytes.
    pub name: Cow<'static, str>,
    /// The address that a socket is bound to.
    pub local: Option<SocketAddr>,
    /// The address that a connection leads to.
    pub peer: Option<SocketAddr>,
    /// Items that it cannot be served without, such as the other leg of a relay: a taker that
    /// declines one of them declines all. At most 16; one side naming the other is enough, and
    /// has the same effect as if both did.
    pub links: Vec<Item>,
    /// Version of what `save` writes.
    pub state_version: u16,
}

/// The peer of a connection that has none any more.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Description {
    /// A source of the reactor: with the name that it was added with, which is
    /// [`Arrival::name`] at the other side, and, if it is a socket, with its addresses.
    ///
    /// # Errors
    /// If there is no such source, or its callback runs just now. If it is an [`Acceptor`] that was
    /// shut down and cannot listen again: a successor could not be reached either.
    pub fn source<S>(
        cx: &Cx<S>,
        id: SourceId,
        kind: ItemKind,
        state_version: u16,
    ) -> Result<Self, String> {
        let (Some(name), Some(fd)) = (cx.name(id), cx.fd(id)) else {
            return Err(format!("{id:?} is no source"));
        };
        // The kernel does not tell it from a connection that was reset.
        if let Some((address, why)) = cx.source::<Acceptor>(id).and_then(Acceptor::broken) {
            return Err(format!(
                "the listener is broken: cannot listen on {address}: {why}; free the port"
            ));
        }
        let about = Description::new(kind, name, state_version);
        Ok(match validate::describe_tcp(fd) {
            // A connection that was reset has lost its peer's address, and whether an address
            // is right is asked only of one that lives.
            Ok((local, None)) if kind == ItemKind::TcpPeer => {
                about.local(Some(local)).peer(Some(UNKNOWN))
            }
            Ok((local, peer)) => about.local(Some(local)).peer(peer),
            Err(_) => about,
        })
    }

    /// As [`Description::source`], of the kind that the kernel says its descriptor is
    /// ([`kinds::of`](super::kinds::of)): a TCP socket is a listener, a connection or, while it
    /// is being connected, opaque.
    ///
    /// # Errors
    /// As [`Description::source`].
    pub fn detect<S>(cx: &Cx<S>, id: SourceId, state_version: u16) -> Result<Self, String> {
        let kind = cx.fd(id).map_or(ItemKind::Opaque, kinds::of);
        Description::source(cx, id, kind, state_version)
    }

    /// An item with a descriptor or, of kind [`ItemKind::State`], without; no addresses, no
    /// links.
    #[must_use]
    pub fn new(kind: ItemKind, name: impl Into<Cow<'static, str>>, state_version: u16) -> Self {
        Description {
            kind,
            name: name.into(),
            local: None,
            peer: None,
            links: Vec::new(),
            state_version,
        }
    }

    /// The address that a socket is bound to.
    #[must_use]
    pub fn local(self, local: Option<SocketAddr>) -> Self {
        Description { local, ..self }
    }

    /// The address that a connection leads to.
    #[must_use]
    pub fn peer(self, peer: Option<SocketAddr>) -> Self {
        Description { peer, ..self }
    }

    /// What it cannot be served without.
    #[must_use]
    pub fn links(self, links: impl IntoIterator<Item = Item>) -> Self {
        let links = links.into_iter().collect();
        Description { links, ..self }
    }
}

/// An item that has arrived at the taker, validated as far as its kind allows.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Kind of the descriptor.
    pub kind: ItemKind,
    /// The donor's name for it.
    pub name: &'a str,
    /// The address that a socket is bound to.
    pub local: Option<SocketAddr>,
    /// The address that a connection leads to.
    pub peer: Option<SocketAddr>,
    /// The items that are linked with it, whichever of the two named the other, as far as they
    /// have arrived before it and are still here. So of two the later one finds the first.
    pub links: Vec<Item>,
    /// The descriptor, if its kind has one. It is close-on-exec. O_NONBLOCK belongs to the open
    /// file, so it is as the donor has set it, which is checked of all kinds that can block but
    /// [`ItemKind::Opaque`]: nothing has to be set here, and nothing may be.
    pub fd: Option<OwnedFd>,
    /// Its state.
    pub state: SavedState<'a>,
}

/// An item's state as the donor saved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedState<'a> {
    /// The donor's version of it.
    pub version: u16,
    /// What its `save` wrote.
    pub bytes: &'a [u8],
}

/// Why the taker does not take an item.
///
/// A function that both a cold start and `restore` use, such as one that adds a socket, returns
/// an [`io::Result`]: `?` makes an `Invalid` of its error, and of a `String`.
#[derive(Debug)]
pub enum Rejection {
    /// It is not for us (an unknown kind, name or state version): the donor keeps it and
    /// serves it to its end. Only possible during the preload, and never for a listener.
    Declined(DeclineCode),
    /// It is damaged, or we have no means to hold it: the takeover fails, the donor serves
    /// on.
    Invalid(String),
}

impl From<String> for Rejection {
    fn from(what: String) -> Rejection {
        Rejection::Invalid(what)
    }
}

impl From<io::Error> for Rejection {
    fn from(error: io::Error) -> Rejection {
        Rejection::Invalid(error.to_string())
    }
}

/// A source that arrived and cannot be watched.
impl<T> From<AddError<T>> for Rejection {
    fn from(failed: AddError<T>) -> Rejection {
        Rejection::Invalid(failed.to_string())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Declined(code) => write!(f, "declined: {code}"),
            Rejection::Invalid(what) => f.write_str(what),
        }
    }
}

/// An application whose items can be taken over. It is the `S` of its [`Cx`].
///
/// A donor is asked to `describe` and `save`. A taker is told of each item first by `restore`,
/// then by its `update`s and, if it is closed meanwhile, at last by `forget`; once by `arrived`.
/// None of its callbacks runs before it owns. [What to do in each
/// method](super#what-to-do-in-each-method) is a table.
pub trait Application: Sized + 'static {
    /// Says what it is; a taker of another name is refused.
    const NAME: &'static str;

    /// The newest version of state that `restore` and `update` read, over all items. A donor
    /// is told, so that a later release can write what this one reads:
    /// [`Takeover::state_version`]. Nothing is told unless this says otherwise.
    const NEWEST_STATE: Option<u16> = None;

    /// Where the application keeps the takeover's own state.
    fn takeover(&mut self) -> &mut Takeover;

    /// Adds the numbers of the items that it carries beside the reactor; none, unless this
    /// says otherwise.
    fn carried(&self, out: &mut Vec<u32>) {
        let _ = out;
    }

    /// The descriptor of an item that it carries, if it has one.
    fn carried_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        let _ = number;
        None
    }

    /// What the taker has to be told of an item once.
    ///
    /// # Errors
    /// An item that cannot travel: the takeover is refused, with this reason.
    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String>;

    /// Appends the item's state; asked again and again while a takeover is under way, and not
    /// always sent. Returns true if the item has work that no readiness event
    /// will announce (unfinished input that was read, pending output): it is then run once
    /// when the taker is active. A source in the resume queue is run in any case.
    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool;

    /// Makes an item out of what arrived. A source is added to the reactor, which does not
    /// poll it yet. Its interest and deadline have not travelled: they are set here, or by the
    /// source's own callback if `save` said that it is to be run.
    ///
    /// # Errors
    /// See [`Rejection`].
    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection>;

    /// Replaces the state of an item that has changed since it was restored.
    ///
    /// # Errors
    /// A state that cannot be used: the takeover fails, the donor serves on.
    fn update(
        &mut self,
        cx: &mut Cx<Self>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String>;

    /// All that the donor had has been restored: the place to find out that something is
    /// missing, as when an older release never had it. The donor serves on meanwhile, for at
    /// most [`Deadlines::freeze`](super::Deadlines::freeze). Afterwards items may still be
    /// opened, changed and closed, as clients come and go. Nothing is missed, unless this says
    /// otherwise.
    ///
    /// # Errors
    /// What is missing: the takeover fails, the donor serves on, and this process ends with 75.
    fn arrived(&mut self, cx: &mut Cx<Self>) -> Result<(), String> {
        let _ = cx;
        Ok(())
    }

    /// How far the item's state is in the two streams of its connection, to be compared with
    /// the socket if the process was started with
    /// [`Start::check_positions`](super::Start::check_positions). `None`, unless this says
    /// otherwise: there is nothing to compare.
    ///
    /// Both count from the beginning of the connection. A side that has connected begins with
    /// 1 written (its SYN), as [`Positions::of`] tells; a FIN is never counted.
    fn positions(&mut self, cx: &mut Cx<Self>, item: Item) -> Option<Positions> {
        let _ = (cx, item);
        None
    }

    /// The donor has closed the item: close the copy, by `close` alone. Unless this says
    /// otherwise, a source is removed; what is carried has to be dropped here.
    fn forget(&mut self, cx: &mut Cx<Self>, item: Item) {
        if let Item::Source(id) = item {
            cx.remove(id);
        }
    }

    /// Tells what has become of a takeover; [`Moment::follow`] does what is usual then, and
    /// nothing else is done unless this says otherwise. If it does, let it call
    /// `moment.follow(self, cx)`, or stop the reactor itself at `Exit`, `Left` and `Stop`: else
    /// the process never ends.
    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        moment.follow(self, cx);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};

    use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

    use super::*;
    use crate::event::{Config, Next, Reactor, Spec};

    #[test]
    fn item_to_wire_and_back() {
        for item in [
            Item::Source(SourceId::from_bits(0)),
            Item::Source(SourceId::from_bits((7 << 32) | 3)),
            Item::Carried(0),
            Item::Carried(u32::MAX),
        ] {
            assert_eq!(Item::from(ItemId::from(item)), item);
        }
    }

    #[test]
    fn connection_reset_before_it_is_described_still_has_a_description() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, address) = listener.accept().unwrap();
        peer.set_nonblocking(true).unwrap();
        let local = peer.local_addr().unwrap();
        let mut reactor = Reactor::<()>::new(Config::default()).unwrap();
        let keep = |_: &mut TcpStream, _: &mut (), _: &mut Cx<()>, _| Ok(Next::Keep);
        let id = reactor
            .cx()
            .add(Spec::item("peer"), peer, keep)
            .unwrap()
            .id();

        let cx = reactor.cx();
        let alive = Description::source(cx, id, ItemKind::TcpPeer, 7).unwrap();
        assert_eq!((alive.local, alive.peer), (Some(local), Some(address)));
        assert_eq!((&*alive.name, alive.state_version), ("peer", 7));

        // SO_LINGER of 0 makes the close a reset (socket(7)).
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&client, sockopt::Linger, &now).unwrap();
        drop(client);
        let dead = Description::source(reactor.cx(), id, ItemKind::TcpPeer, 7).unwrap();
        assert_eq!(dead.peer, Some(UNKNOWN));
    }

    #[test]
    fn listener_that_cannot_listen_again_is_nothing_to_hand_over() {
        let mut reactor: Reactor<bool> = Reactor::new(Config::default()).unwrap();
        let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let other = TcpListener::from(listener.as_fd().try_clone_to_owned().unwrap());
        let cx = reactor.cx();
        cx.on_accepting(|told, _, _| *told = true);
        let id = listener.add(cx, "listener", |_, _, _, _| Ok(())).unwrap();
        shutdown(other.as_raw_fd(), Shutdown::Both).unwrap();
        let _thief = TcpListener::bind(address).unwrap();
        let mut told = false;
        while !told {
            reactor.turn(&mut told, None).unwrap();
        }
        // The kernel does not tell it from a connection that was reset, which may well travel.
        let described = Description::detect(reactor.cx(), id.id(), 1);
        assert!(described.is_err_and(|why| why.contains("the listener is broken")));
    }
}
