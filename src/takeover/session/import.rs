//! What arrives at the taker: each item is validated once, restored once, and kept.
//!
//! ```text
//!   ITEMS ─▶ staged ──STATE complete──▶ restore ─▶ held ──STATE complete──▶ update
//!                                          │ declined       │ CLOSED
//!                                          ▼                ▼
//!                                   closed, named in      forget
//!                                   the batch's ACK
//! ```
//!
//! Invariants: an id and a socket are in here once; a batch leaves nothing staged behind;
//! nothing is declined in the final array, since the donor would not hear of it in time; what
//! is linked is declined as a whole.
//!
//! | file | |
//! |---|---|
//! | `import/verdict.rs` | what is asked of all that has arrived |
//! | `import/problem.rs` | why it cannot go on |

mod problem;
mod verdict;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::audit::Suspects;
use crate::event::Cx;
use crate::proto::assembly::{Assembly, State};
use crate::proto::digest::Digest;
use crate::proto::records::{Decline, DeclineCode, Descriptor, FailCode, ItemKind, Part, Record};
use crate::takeover::application::{Application, Arrival, Item, Rejection, SavedState};
use crate::takeover::core::ledger::ItemId;
use crate::takeover::os::descriptor::{self, PeerState};
use crate::takeover::report::Tally;
pub(super) use problem::Problem;

/// Room for so many items is made on a donor's word; it is a number of its record, and where
/// the limit of open files is none that alone would ask for more memory than there is.
const EXPECTED: usize = 1 << 20;

/// An item whose state is not complete yet.
#[derive(Debug)]
struct Staged {
    kind: ItemKind,
    name: String,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    version: u16,
    cookie: u64,
    fd: Option<OwnedFd>,
    /// The connection was reset before it came here, so no event will tell.
    dead: bool,
}

/// An item that was restored.
#[derive(Debug)]
struct Held {
    item: Item,
    kind: ItemKind,
    version: u16,
    cookie: u64,
    dead: bool,
}

/// See the file's own description.
#[derive(Debug, Default)]
pub(super) struct Import {
    staged: HashMap<u64, Staged>,
    held: HashMap<u64, Held>,
    cookies: HashSet<u64>,
    declined: HashSet<u64>,
    /// Which items cannot be served without which, in both directions; each once, though both
    /// may have said so.
    partners: HashMap<u64, BTreeSet<u64>>,
    /// Of those held, the ones to be run once when we own: looking for them among all would
    /// make the freeze depend on how many items there are.
    to_run: BTreeSet<u64>,
    /// Of those held, the ones whose states have to come again.
    suspects: Suspects,
    assembly: Assembly,
    /// Declined in the batch under way.
    pub(super) declines: Vec<Decline>,
    /// Of the final array.
    pub(super) digest: Digest,
    pub(super) tally: Tally,
}

impl Import {
    /// Takes a record of items, states or closed ids. `is_final` is true in the final
    /// array.
    pub(super) fn take<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        record: &Record<'_>,
        fds: Vec<OwnedFd>,
        is_final: bool,
    ) -> Result<(), Problem> {
        match record {
            Record::Items(items) => {
                let mut fds = fds.into_iter();
                for descriptor in items.iter() {
                    let fd = if descriptor.has_fd { fds.next() } else { None };
                    if is_final {
                        self.tally.new += 1;
                    }
                    self.stage(descriptor, fd)?;
                }
            }
            Record::State(parts) => {
                for part in parts.iter() {
                    self.part(app, cx, &part, is_final)?;
                }
            }
            Record::Closed(ids) => {
                for id in ids.iter() {
                    if is_final {
                        self.tally.closed += 1;
                    }
                    self.close(app, cx, id)?;
                }
            }
            // The others bring no items.
            _ => {}
        }
        Ok(())
    }

    /// The batch is complete: what was declined in it.
    pub(super) fn batch_complete(&mut self) -> Result<Vec<ItemId>, Problem> {
        self.complete()?;
        Ok(self.declines.iter().map(|one| ItemId(one.id)).collect())
    }

    /// Makes room for so many items at once: a table that grows copies all it has, which
    /// should not happen in the freeze.
    pub(super) fn expect(&mut self, items: usize) {
        let items = items.min(EXPECTED);
        // Without it they grow as items come.
        let _ = self.held.try_reserve(items);
        let _ = self.cookies.try_reserve(items);
    }

    fn stage(&mut self, descriptor: Descriptor<'_>, fd: Option<OwnedFd>) -> Result<(), Problem> {
        let id = descriptor.id;
        if self.held.contains_key(&id) || self.staged.contains_key(&id) {
            return Err(Problem::of(FailCode::Duplicate, id, "the same item twice"));
        }
        if descriptor.cookie != 0 && !self.cookies.insert(descriptor.cookie) {
            return Err(Problem::of(
                FailCode::Duplicate,
                id,
                "the same socket twice",
            ));
        }
        let dead = match &fd {
            Some(fd) => {
                let state = descriptor::check(fd.as_fd(), &descriptor)
                    .map_err(|why| Problem::of(FailCode::Invalid, id, why.to_string()))?;
                state == PeerState::Dead
            }
            None if descriptor.cookie != 0 => {
                let what = "a socket's cookie without a socket";
                return Err(Problem::of(FailCode::Invalid, id, what));
            }
            None => false,
        };
        for &link in &descriptor.links {
            self.partners.entry(id).or_default().insert(link);
            self.partners.entry(link).or_default().insert(id);
        }
        let staged = Staged {
            kind: descriptor.kind,
            name: descriptor.name.to_owned(),
            local: descriptor.local,
            peer: descriptor.peer,
            version: descriptor.state_version,
            cookie: descriptor.cookie,
            fd,
            dead,
        };
        self.staged.insert(id, staged);
        Ok(())
    }

    fn part<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        part: &Part<'_>,
        is_final: bool,
    ) -> Result<(), Problem> {
        let id = part.id;
        let mut assembly = std::mem::take(&mut self.assembly);
        let complete = assembly
            .add(part)
            .map_err(|error| Problem::of(FailCode::Malformed, id, error))?;
        let done = match complete {
            Some(state) => self.state(app, cx, &state, is_final),
            None => Ok(()),
        };
        self.assembly = assembly;
        done
    }

    /// The state of an item is complete.
    fn state<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        state: &State<'_>,
        is_final: bool,
    ) -> Result<(), Problem> {
        let &State { id, run, bytes } = state;
        if let Some(staged) = self.staged.remove(&id) {
            self.restore(app, cx, state, staged, is_final)
        } else if let Some(held) = self.held.get_mut(&id) {
            if is_final {
                self.tally.changed += 1;
            }
            if run || held.dead {
                self.to_run.insert(id);
            } else {
                self.to_run.remove(&id);
            }
            let (item, version) = (held.item, held.version);
            let state = SavedState { version, bytes };
            app.update(cx, item, state)
                .and_then(|()| self.suspects.judge(app, cx, id, item, is_final))
                .map_err(|what| Problem::of(FailCode::Invalid, id, what))
        } else if self.declined.contains(&id) {
            // It was on its way when the donor had not heard of the decline yet.
            Ok(())
        } else {
            Err(Problem::of(
                FailCode::Malformed,
                id,
                "state of an unknown item",
            ))
        }
    }

    fn restore<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        state: &State<'_>,
        staged: Staged,
        is_final: bool,
    ) -> Result<(), Problem> {
        let &State { id, run, bytes } = state;
        let Staged {
            kind,
            version,
            cookie,
            dead,
            ..
        } = staged;
        let arrival = Arrival {
            kind,
            name: &staged.name,
            local: staged.local,
            peer: staged.peer,
            links: self
                .partners(id)
                .filter_map(|id| Some(self.held.get(&id)?.item))
                .collect(),
            fd: staged.fd,
            state: SavedState { version, bytes },
        };
        let restored = if self.partners(id).any(|id| self.declined.contains(&id)) {
            Err(Rejection::Declined(DeclineCode::Linked))
        } else {
            app.restore(cx, arrival)
        };
        match restored {
            Ok(item) => {
                let held = Held {
                    item,
                    kind,
                    version,
                    cookie,
                    dead,
                };
                self.held.insert(id, held);
                if run || dead {
                    self.to_run.insert(id);
                }
                self.suspects
                    .judge(app, cx, id, item, is_final)
                    .map_err(|what| Problem::of(FailCode::Invalid, id, what))
            }
            Err(Rejection::Declined(code)) if is_final || kind == ItemKind::Listener => {
                Err(Problem::of(FailCode::Declined, id, code))
            }
            Err(Rejection::Declined(code)) => {
                self.cookies.remove(&cookie);
                self.decline(app, cx, id, code)
            }
            Err(Rejection::Invalid(what)) => Err(Problem::of(FailCode::Invalid, id, what)),
        }
    }

    /// Declines an item, and with it all that cannot be served without it.
    fn decline<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        id: u64,
        code: DeclineCode,
    ) -> Result<(), Problem> {
        self.declined.insert(id);
        self.declines.push(Decline { id, code });
        let mut left: Vec<u64> = self.partners(id).collect();
        while let Some(id) = left.pop() {
            let Some(held) = self.held.remove(&id) else {
                // Not here yet, and declined when it comes; or it is declined already.
                continue;
            };
            let code = DeclineCode::Linked;
            if held.kind == ItemKind::Listener {
                return Err(Problem::of(FailCode::Declined, id, code));
            }
            self.cookies.remove(&held.cookie);
            self.to_run.remove(&id);
            app.forget(cx, held.item);
            self.declined.insert(id);
            self.declines.push(Decline { id, code });
            left.extend(self.partners(id));
        }
        Ok(())
    }

    fn partners(&self, id: u64) -> impl Iterator<Item = u64> + '_ {
        self.partners.get(&id).into_iter().flatten().copied()
    }

    fn close<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        id: u64,
    ) -> Result<(), Problem> {
        self.partners.remove(&id);
        if let Some(held) = self.held.remove(&id) {
            self.cookies.remove(&held.cookie);
            self.to_run.remove(&id);
            self.suspects.forget(id);
            app.forget(cx, held.item);
            return Ok(());
        }
        if self.declined.remove(&id) {
            return Ok(());
        }
        Err(Problem::of(
            FailCode::Malformed,
            id,
            "an unknown item was closed",
        ))
    }
}

#[cfg(test)]
mod tests;
