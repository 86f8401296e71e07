//! A batch of the donor: items, states and closed ids into records.
//!
//! ```text
//!   ITEMS (descriptors, fds) ┊ STATE ┊ STATE …        or        CLOSED ┊ CLOSED …
//! ```
//!
//! The first record is the only one with descriptors and the only one that may find no
//! room: then nothing has happened. Behind it the batch is as good as sent: the taker gets
//! all of it, or the attempt ends.

use std::os::fd::BorrowedFd;

use super::audit;
use crate::event::Cx;
use crate::proto::records::{
    ClosedBuilder, Descriptor, Fit, ItemKind, ItemsBuilder, StateBuilder, Unsent,
};
use crate::proto::wire::MAX_STATE;
use crate::takeover::application::{Application, Item};
use crate::takeover::core::ledger::{Batch, ItemId};
use crate::takeover::os::descriptor::{can_travel, cookie};

/// What the taker was told of a carried item last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LastSent {
    pub(super) run: bool,
    pub(super) state: Vec<u8>,
}

impl LastSent {
    /// What it would be told now.
    pub(super) fn now<S: Application>(app: &mut S, cx: &mut Cx<S>, number: u32) -> LastSent {
        let mut state = Vec::new();
        let run = app.save(cx, Item::Carried(number), &mut state);
        LastSent { run, state }
    }
}

/// The records of a batch, the first one leading.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) records: Vec<Vec<u8>>,
    /// Whose descriptors go with the first record, in this order.
    pub(super) owners: Vec<Item>,
    /// What is said of items that are carried: nothing tells when that changes.
    pub(super) carried: Vec<(u32, LastSent)>,
}

impl Records {
    /// Writes the batch. `last` asks for an ACK of it.
    ///
    /// # Errors
    /// An item that cannot travel, or whose state is not its socket's, in words.
    pub(super) fn of<S: Application>(
        batch: &Batch,
        last: bool,
        app: &mut S,
        cx: &mut Cx<S>,
    ) -> Result<Records, String> {
        let mut out = Records::default();
        match batch {
            Batch::Closed(ids) => out.closed(ids, last),
            Batch::Items { new, changed } => {
                out.items(new, app, cx)?;
                out.states(new.iter().chain(changed), last, app, cx)?;
            }
        }
        Ok(out)
    }

    /// The descriptors that go with the first record.
    pub(super) fn fds<'a, S: Application>(
        &self,
        app: &'a S,
        cx: &'a Cx<S>,
    ) -> Option<Vec<BorrowedFd<'a>>> {
        self.owners
            .iter()
            .map(|owner| fd_of(*owner, app, cx))
            .collect()
    }

    fn closed(&mut self, ids: &[ItemId], last: bool) {
        let mut ids = ids.iter().peekable();
        while ids.peek().is_some() {
            let mut record = Vec::new();
            let mut builder = ClosedBuilder::new(&mut record);
            while let Some(ItemId(id)) = ids.peek() {
                if builder.push(*id) == Fit::Full {
                    break;
                }
                ids.next();
            }
            builder.finish(last && ids.peek().is_none());
            self.records.push(record);
        }
    }

    fn items<S: Application>(
        &mut self,
        new: &[ItemId],
        app: &mut S,
        cx: &mut Cx<S>,
    ) -> Result<(), String> {
        if new.is_empty() {
            return Ok(());
        }
        let mut record = Vec::new();
        let mut builder = ItemsBuilder::new(&mut record);
        for &id in new {
            let item = Item::from(id);
            let about = app.describe(cx, item)?;
            let has_fd = about.kind != ItemKind::State;
            if has_fd {
                self.owners.push(item);
            }
            let cookie = match fd_of(item, app, cx) {
                Some(fd) if has_fd => {
                    if !matches!(about.kind, ItemKind::Listener | ItemKind::TcpPeer) {
                        can_travel(fd).map_err(|why| why.to_string())?;
                    }
                    cookie(fd)
                }
                None if has_fd => return Err(format!("{} has no descriptor", about.name)),
                Some(_) | None => 0,
            };
            let descriptor = Descriptor {
                id: id.0,
                kind: about.kind,
                name: &about.name,
                cookie,
                local: about.local,
                peer: about.peer,
                links: about
                    .links
                    .iter()
                    .map(|link| ItemId::from(*link).0)
                    .collect(),
                state_version: about.state_version,
                has_fd,
            };
            match builder
                .push(&descriptor)
                .map_err(|error| error.to_string())?
            {
                Fit::Taken => {}
                Fit::Full => return Err("descriptors of a batch exceed a record".into()),
            }
        }
        builder.finish(false);
        self.records.push(record);
        Ok(())
    }

    fn states<'a, S: Application>(
        &mut self,
        ids: impl Iterator<Item = &'a ItemId>,
        last: bool,
        app: &mut S,
        cx: &mut Cx<S>,
    ) -> Result<(), String> {
        let mut state = Vec::new();
        let mut record = Vec::new();
        let mut builder = StateBuilder::new(&mut record);
        for &id in ids {
            let item = Item::from(id);
            state.clear();
            let queued = matches!(item, Item::Source(source) if cx.is_resuming(source));
            let run = app.save(cx, item, &mut state) || queued;
            // Of the final array, which asks for no ACK, the taker does it: in the freeze nobody
            // does it twice.
            if last {
                audit::check(app, cx, item)?;
            }
            let mut unsent = Unsent::new(id.0, run, &state)
                .map_err(|_| format!("an item's state is larger than {MAX_STATE} bytes"))?;
            if let Item::Carried(number) = item {
                let state = state.clone();
                self.carried.push((number, LastSent { run, state }));
            }
            while builder.push(&mut unsent) == Fit::Full {
                builder.finish(false);
                self.records.push(std::mem::take(&mut record));
                builder = StateBuilder::new(&mut record);
            }
        }
        builder.finish(last);
        self.records.push(record);
        Ok(())
    }
}

pub(super) fn fd_of<'a, S: Application>(
    item: Item,
    app: &'a S,
    cx: &'a Cx<S>,
) -> Option<BorrowedFd<'a>> {
    match item {
        Item::Source(id) => cx.fd(id),
        Item::Carried(number) => app.carried_fd(number),
    }
}
