//! Items: what each one is, so that the taker can check and restore it.
//!
//! ```text
//!   id u64 ┊ cookie u64 ┊ kind u16 ┊ state version u16 ┊ has fd u8
//!   ┊ name: length u8, bytes ┊ local address ┊ peer address ┊ links: count u8, ids u64
//!
//!   address:  0  ┊  4, ip 4 bytes, port u16  ┊  6, ip 16 bytes, port u16, flow u32, scope u32
//! ```
//!
//! The fds of a record come in the order of the descriptors that have one.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Kind;
use super::codes::ItemKind;
use super::list::{Entry, Fit, List, ListWriter};
use crate::proto::cursor::{Put, Reader};
use crate::proto::wire::{
    DecodeError, EncodeError, MAX_FDS, MAX_LINKS, check_text, put_text, read_bool, read_text,
};

/// The items of one record.
pub type Items<'a> = List<'a, Descriptor<'a>>;

/// One item, without its fd and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor<'a> {
    /// Its identity for the whole takeover. Any value is possible.
    pub id: u64,
    /// What it is.
    pub kind: ItemKind,
    /// The application's name for it; at most [`MAX_NAME`](crate::proto::wire::MAX_NAME) bytes.
    pub name: &'a str,
    /// The socket's SO_COOKIE (socket(7)), 0 for what is no socket. It names the open
    /// socket itself, where an fd number only names a place in one process' table.
    pub cookie: u64,
    /// Address that it is bound to.
    pub local: Option<SocketAddr>,
    /// Address that it is connected to.
    pub peer: Option<SocketAddr>,
    /// Items without which it cannot be served: they are declined together. At most [`MAX_LINKS`].
    pub links: Vec<u64>,
    /// Version of its state, which comes in STATE records.
    pub state_version: u16,
    /// Whether one of the record's fds belongs to it.
    pub has_fd: bool,
}

impl<'a> Entry<'a> for Descriptor<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id = reader.u64()?;
        let cookie = reader.u64()?;
        let kind = ItemKind::from_code(reader.u16()?);
        let state_version = reader.u16()?;
        let has_fd = read_bool(reader, "item fd flag")?;
        if !kind.allows(has_fd) {
            return Err(DecodeError::Value("item kind for its fd"));
        }
        let name = read_text(reader, "item name")?;
        let local = read_address(reader)?;
        let peer = read_address(reader)?;
        let links = read_links(reader)?;
        Ok(Descriptor {
            id,
            kind,
            name,
            cookie,
            local,
            peer,
            links,
            state_version,
            has_fd,
        })
    }

    fn fds(items: &Items<'a>) -> usize {
        items.iter().filter(|item| item.has_fd).count()
    }
}

impl Descriptor<'_> {
    fn check(&self) -> Result<(), EncodeError> {
        if !self.kind.allows(self.has_fd) {
            return Err(EncodeError::Value(if self.has_fd {
                "an item of kind state with an fd"
            } else {
                "an item without its fd"
            }));
        }
        let length = self.links.len();
        if length > MAX_LINKS {
            return Err(EncodeError::TooLong {
                what: "links of an item",
                length,
                most: MAX_LINKS,
            });
        }
        check_text(self.name, "name of an item")
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        out.put_u64(self.cookie);
        out.put_u16(self.kind.code());
        out.put_u16(self.state_version);
        out.put_u8(self.has_fd.into());
        put_text(self.name, out);
        put_address(self.local, out);
        put_address(self.peer, out);
        out.put_u8(self.links.len() as u8);
        self.links.iter().for_each(|id| out.put_u64(*id));
    }
}

fn read_links(reader: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    let count = usize::from(reader.u8()?);
    if count > MAX_LINKS {
        return Err(DecodeError::Value("number of links"));
    }
    let mut links = Vec::with_capacity(count);
    for _ in 0..count {
        links.push(reader.u64()?);
    }
    Ok(links)
}

fn read_address(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        4 => {
            let ip = reader.array::<4>()?.into();
            let port = reader.u16()?;
            Ok(Some(SocketAddrV4::new(ip, port).into()))
        }
        6 => {
            let ip = reader.array::<16>()?.into();
            let port = reader.u16()?;
            let flow = reader.u32()?;
            let scope = reader.u32()?;
            Ok(Some(SocketAddrV6::new(ip, port, flow, scope).into()))
        }
        _ => Err(DecodeError::Value("address family")),
    }
}

fn put_address(address: Option<SocketAddr>, out: &mut Vec<u8>) {
    match address {
        None => out.put_u8(0),
        Some(SocketAddr::V4(v4)) => {
            out.put_u8(4);
            out.put(&v4.ip().octets());
            out.put_u16(v4.port());
        }
        Some(SocketAddr::V6(v6)) => {
            out.put_u8(6);
            out.put(&v6.ip().octets());
            out.put_u16(v6.port());
            out.put_u32(v6.flowinfo());
            out.put_u32(v6.scope_id());
        }
    }
}

/// Writes the records that describe items.
#[derive(Debug)]
pub struct ItemsBuilder<'v> {
    list: ListWriter<'v>,
    fds: usize,
}

impl<'v> ItemsBuilder<'v> {
    /// Begins the record in `out`, in place of whatever was there.
    pub fn new(out: &'v mut Vec<u8>) -> Self {
        ItemsBuilder {
            list: ListWriter::new(Kind::Items, out, |_| ()),
            fds: 0,
        }
    }

    /// Adds an item. If it has an fd, that is the next one of the record's fds.
    ///
    /// # Errors
    /// [`EncodeError`] if the item cannot be handed over at all. The record is then as before.
    pub fn push(&mut self, item: &Descriptor<'_>) -> Result<Fit, EncodeError> {
        item.check()?;
        if item.has_fd && self.fds == MAX_FDS {
            return Ok(Fit::Full);
        }
        let fit = self.list.add(|out| item.put(out));
        if fit == Fit::Taken {
            self.fds += usize::from(item.has_fd);
        }
        Ok(fit)
    }

    /// How many fds the record comes with so far.
    #[must_use]
    pub fn fds(&self) -> usize {
        self.fds
    }

    /// How many items it has so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether it has none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.len() == 0
    }

    /// Completes the record. `last` asks for an ACK.
    pub fn finish(self, last: bool) {
        self.list.finish(last);
    }
}
