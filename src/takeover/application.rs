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
//! On the taker an item's `restore` comes before its `update`s and its `forget`. The order between
//! items is not defined. `arrived` comes once: after the `restore` of everything that the donor had
//! when it began, and before anything that comes in the freeze. The taker must do no I/O on an
//! item, and change none of its socket options, until the reactor calls the item back. That happens
//! once the taker owns, in the turn that ends with [`Moment::Owner`].

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::core::ledger::ItemId;
use super::moment::Moment;
use super::os::descriptor;
use super::os::positions::Positions;
use super::session::Takeover;
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

/// The bit that tells carried items from sources on the wire. A source id never has it.
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

/// What the taker is told of an item, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Kind of the descriptor; [`ItemKind::State`] for an item without one.
    pub kind: ItemKind,
    /// The name by which the application on the other side knows it; at most 255 bytes.
    pub name: Cow<'static, str>,
    /// The address that a socket is bound to.
    pub local: Option<SocketAddr>,
    /// The address that a connection leads to.
    pub peer: Option<SocketAddr>,
    /// Items without which this one cannot be served, such as the other leg of a relay. A taker
    /// that declines one of them declines all. There can be 16 at most. It is enough if one of two
    /// items names the other.
    pub links: Vec<Item>,
    /// Version of what `save` writes.
    pub state_version: u16,
}

/// Stands for the peer of a connection that has none any more.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Description {
    /// Describes a source of the reactor. The item has the name that the source was added with,
    /// which the other side sees as [`Arrival::name`]. If it is a socket, its addresses are filled
    /// in.
    ///
    /// # Errors
    /// If there is no such source, or if its callback is running. If it is an [`Acceptor`] that was
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
        Ok(match descriptor::addresses(fd) {
            // A connection that was reset has lost its peer's address, and whether an address
            // is right is asked only of one that lives.
            Ok((local, None)) if kind == ItemKind::TcpPeer => {
                about.local(Some(local)).peer(Some(UNKNOWN))
            }
            Ok((local, peer)) => about.local(Some(local)).peer(peer),
            Err(_) => about,
        })
    }

    /// As [`Description::source`], with the kind that the kernel tells of the descriptor
    /// ([`kind_of`](super::kind_of)). A TCP socket is a listener or a connection; while it is
    /// being connected it is opaque.
    ///
    /// # Errors
    /// As [`Description::source`].
    pub fn detect<S>(cx: &Cx<S>, id: SourceId, state_version: u16) -> Result<Self, String> {
        let kind = cx.fd(id).map_or(ItemKind::Opaque, descriptor::kind_of);
        Description::source(cx, id, kind, state_version)
    }

    /// Describes an item with a descriptor or, of the kind [`ItemKind::State`], without one. It has
    /// no addresses and no links yet.
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

    /// Sets the items without which this one cannot be served.
    #[must_use]
    pub fn links(self, links: impl IntoIterator<Item = Item>) -> Self {
        let links = links.into_iter().collect();
        Description { links, ..self }
    }
}

/// An item that has arrived at the taker. It has been validated as far as its kind allows.
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
    /// The items that are linked with it, whichever of the two named the other. Only those are here
    /// that have arrived before it and still exist: of two linked items the later one finds the
    /// earlier one.
    pub links: Vec<Item>,
    /// The descriptor, if its kind has one. It is close-on-exec. O_NONBLOCK belongs to the open
    /// file, so it is as the donor has set it. The taker has checked this for every kind that can
    /// block, except [`ItemKind::Opaque`]. Set nothing here: the donor still owns the file.
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
/// A function that both a cold start and `restore` use, such as one that adds a socket, returns an
/// [`io::Result`]. The operator `?` turns its error into an `Invalid`, and a `String` likewise.
#[derive(Debug)]
pub enum Rejection {
    /// This release does not know the item's kind, name or state version. The donor keeps the item
    /// and serves it to its end. This is possible during the preload only, and never for a
    /// listener.
    Declined(DeclineCode),
    /// The item is damaged, or this process has no means to hold it. The takeover fails, and the
    /// donor serves on.
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

/// For a source that arrived and cannot be watched.
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
/// A donor is asked to `describe` and `save`. A taker is first told of each item by `restore`, then
/// by any number of `update`s and, if the donor closes the item meanwhile, by `forget`. It is told
/// `arrived` once. None of its callbacks runs before it owns. There is a [table of what to do in
/// each method](super#what-to-do-in-each-method).
pub trait Application: Sized + 'static {
    /// The application's name. A taker with another name is refused.
    const NAME: &'static str;

    /// The newest version of state that `restore` and `update` read, over all items. The donor is
    /// told, so that a later release can write what this one reads ([`Takeover::state_version`]).
    /// By default it is told nothing.
    const NEWEST_STATE: Option<u16> = None;

    /// The takeover's own state, which the application keeps for it.
    fn takeover(&mut self) -> &mut Takeover;

    /// Appends the numbers of the items that the application carries beside the reactor. By default
    /// there are none.
    fn carried(&self, out: &mut Vec<u32>) {
        let _ = out;
    }

    /// The descriptor of a carried item, if it has one.
    fn carried_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        let _ = number;
        None
    }

    /// Describes an item for the taker, which is told this once.
    ///
    /// # Errors
    /// Why the item cannot travel. The takeover is refused with this reason.
    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String>;

    /// Appends the item's state. It is called again and again while a takeover is under way, and
    /// what it writes is not always sent. It returns true if the item has work that no readiness
    /// event will announce, such as unfinished input that was read, or pending output. Such an item
    /// is run once when the taker is active. A source in the resume queue is run in any case.
    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool;

    /// Makes an item of what arrived. A source is added to the reactor, which does not poll it yet.
    /// Its interest and its deadline have not travelled. Set them here, or in the source's own
    /// callback if `save` said that the source is to be run.
    ///
    /// # Errors
    /// See [`Rejection`].
    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection>;

    /// Replaces the state of an item that has changed since it was restored.
    ///
    /// If the state cannot be used: the takeover fails, and the donor serves on.
    fn update(
        &mut self,
        cx: &mut Cx<Self>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String>;

    /// Everything that the donor had at the beginning has been restored. Here is the place to find
    /// out that something is missing, for example because an older release never had it. The donor
    /// serves on meanwhile, for at most [`Deadlines::freeze`](super::Deadlines::freeze). Afterwards
    /// items may still be opened, changed and closed, as clients come and go. By default nothing is
    /// missing.
    ///
    /// # Errors
    /// What is missing. The takeover fails, the donor serves on, and this process ends with 75.
    fn arrived(&mut self, cx: &mut Cx<Self>) -> Result<(), String> {
        let _ = cx;
        Ok(())
    }

    /// How far the item's state has come in the two streams of its connection. The takeover
    /// compares it with the socket if the process was started with
    /// [`Start::check_positions`](super::Start::check_positions). By default there is nothing to
    /// compare (`None`).
    ///
    /// Both counts begin with the connection. A side that has connected begins with 1 written (its
    /// SYN), as [`Positions::of`] says. A FIN is never counted.
    fn positions(&mut self, cx: &mut Cx<Self>, item: Item) -> Option<Positions> {
        let _ = (cx, item);
        None
    }

    /// The donor has closed the item: close the copy, by `close` alone. By default a source is
    /// removed. A carried item has to be dropped here.
    fn forget(&mut self, cx: &mut Cx<Self>, item: Item) {
        if let Item::Source(id) = item {
            cx.remove(id);
        }
    }

    /// Tells what has become of a takeover. By default it calls [`Moment::follow`], which does what
    /// is usual then. If you override it, call `moment.follow(self, cx)`, or stop the reactor
    /// yourself at `Exit`, `Left` and `Stop`: otherwise the process never ends.
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
