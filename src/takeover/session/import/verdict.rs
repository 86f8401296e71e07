//! What is asked of all that has arrived: whether it is complete and as END says, what is to be
//! run, what the report counts.

use std::time::Duration;

use super::{Import, Problem};
use crate::event::{Cx, SourceId};
use crate::proto::records::{End, FailCode};
use crate::takeover::application::{Application, Item};
use crate::takeover::report::Tally;
use crate::takeover::session::audit::Suspects;

impl Import {
    /// How many items are held.
    pub(in crate::takeover::session) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many items the donor keeps.
    pub(in crate::takeover::session) fn declined_len(&self) -> usize {
        self.declined.len()
    }

    /// How many of those held were reset before they came here. Walks all: not in the freeze.
    pub(in crate::takeover::session) fn dead_len(&self) -> usize {
        self.held.values().filter(|held| held.dead).count()
    }

    /// Whether no item and no state is half here.
    pub(in crate::takeover::session) fn complete(&self) -> Result<(), Problem> {
        match self.staged.keys().next() {
            Some(&id) => Err(Problem::of(
                FailCode::Malformed,
                id,
                "an item came without state",
            )),
            None => match self.assembly.unfinished() {
                Some(id) => Err(Problem::of(FailCode::Malformed, id, "a state has no end")),
                None => Ok(()),
            },
        }
    }

    /// Whether all is here that END speaks of.
    pub(in crate::takeover::session) fn agrees_with(&self, end: &End) -> Result<(), Problem> {
        self.complete()?;
        if let Some(id) = self.suspects.first() {
            let what = "the socket was used after its state was sent, and no other state came";
            return Err(Problem::of(FailCode::Invalid, id, what));
        }
        let Tally {
            closed,
            new,
            changed,
        } = self.tally;
        let ours = (self.held.len() as u64, closed, new, changed);
        let theirs = (end.items, end.closed, end.new, end.changed);
        if ours != theirs {
            let what = format!(
                "items, closed, new, changed: the donor counts {theirs:?}, here are {ours:?}"
            );
            return Err(Problem::new(FailCode::Digest, what));
        }
        if self.digest.value() != end.digest {
            return Err(Problem::new(
                FailCode::Digest,
                "digest of the final array".into(),
            ));
        }
        Ok(())
    }

    /// Compares what is held with its sockets, for at most `longest`, while the donor still serves.
    pub(in crate::takeover::session) fn suspect<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        longest: Duration,
    ) {
        let held = self.held.iter().map(|(id, held)| (*id, held.item));
        self.suspects = Suspects::among(held, app, cx, longest);
    }

    /// All that is held.
    pub(in crate::takeover::session) fn items(&self) -> Vec<Item> {
        self.held.values().map(|held| held.item).collect()
    }

    /// The sources that have work no event will announce.
    pub(in crate::takeover::session) fn runs(&self) -> impl Iterator<Item = SourceId> + '_ {
        let held = self.to_run.iter().filter_map(|id| self.held.get(id));
        held.filter_map(|held| match held.item {
            Item::Source(id) => Some(id),
            Item::Carried(_) => None,
        })
    }
}
