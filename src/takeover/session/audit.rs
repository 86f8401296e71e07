//! States compared with their sockets, where the operator wants it: I/O only by the process
//! whose state is where the socket is.
//!
//! | who | when | which items | a difference |
//! |---|---|---|---|
//! | donor | a state is saved during the preload | that item | ends the attempt |
//! | taker | PREPARE, before DRAINED | all it holds, as far as there is time: the donor serves on, so a difference is a *suspect* | state must come again, or END is answered by FAIL |
//! | taker | an item of the final array is here | that item | FAIL |
//! | taker | it owns, and its peers have had their first turn | all, some at a time | a line of the log |
//!
//! The last one sees what was done in the freeze by somebody who no longer owned. It comes that
//! late, and costs the freeze nothing, because an owner's state and socket move together.
//! Everything before the claim leaves the donor serving.
//!
//! The donor waits for DRAINED no longer than its deadline for the freeze, and whatever changes
//! meanwhile has to be sent in the freeze. So the second comparison ends after half of that time.
//! The items come in no order, so that others are compared in the next takeover.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::event::{Cx, Time};
use crate::takeover::application::{Application, Item};
use crate::takeover::os::positions::{self, Check, Positions};
use crate::takeover::session::Takeover;
use crate::takeover::session::export::fd_of;

/// Items compared at a time once we own: half a millisecond in which nobody is served.
const AT_A_TIME: usize = 250;
/// Lines about differences once we own.
const LINES: u64 = 16;

/// What came of the comparisons of one takeover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Compared {
    agree: u64,
    unknown: u64,
    differ: u64,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared {
            agree,
            unknown,
            differ,
        } = self;
        write!(
            f,
            "{agree} agree, {unknown} cannot be told, {differ} differ"
        )
    }
}

impl Takeover {
    pub(super) fn audits(&self) -> bool {
        self.audit.is_some()
    }

    /// What came of it so far, if it is wanted; it begins anew.
    pub(super) fn audited(&mut self) -> Option<Compared> {
        self.audit.as_mut().map(std::mem::take)
    }
}

/// Items of a taker, by the donor's ids, whose sockets were ahead of their states when the donor
/// was about to hold.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeSet<u64>);

impl Suspects {
    /// Compares what is held, for at most `longest`.
    pub(super) fn among<S: Application>(
        held: impl ExactSizeIterator<Item = (u64, Item)>,
        app: &mut S,
        cx: &mut Cx<S>,
        longest: Duration,
    ) -> Suspects {
        if !app.takeover().audits() {
            return Suspects::default();
        }
        let (all, end) = (held.len(), Time::now() + longest);
        let mut suspects = Suspects::default();
        for (compared, (id, item)) in held.enumerate() {
            if Time::now() > end {
                log::info!(
                    "positions: {compared} of {all} compared before the freeze, in {longest:?}"
                );
                break;
            }
            if check(app, cx, item).is_err() {
                suspects.0.insert(id);
            }
        }
        suspects
    }

    /// A state has come. One of the final array is the last: it has to be where its socket is.
    pub(super) fn judge<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        id: u64,
        item: Item,
        is_final: bool,
    ) -> Result<(), String> {
        if !is_final {
            return Ok(());
        }
        self.0.remove(&id);
        check(app, cx, item)
    }

    /// The donor has closed it.
    pub(super) fn forget(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// One of which nothing more was heard.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.first().copied()
    }
}

/// Compares an item's state with its socket, if that is wanted and there is something to
/// compare.
///
/// # Errors
/// That they differ, in words.
pub(super) fn check<S: Application>(app: &mut S, cx: &mut Cx<S>, item: Item) -> Result<(), String> {
    if !app.takeover().audits() {
        return Ok(());
    }
    let Some(told) = app.positions(cx, item) else {
        return Ok(());
    };
    let Some(fd) = fd_of(item, app, cx) else {
        return Ok(());
    };
    let verdict = positions::check(fd, told);
    let Some(tally) = &mut app.takeover().audit else {
        return Ok(());
    };
    match verdict {
        Ok(Check::Agree) => tally.agree += 1,
        Ok(Check::Unknown) => tally.unknown += 1,
        Ok(Check::Differ { found }) => {
            tally.differ += 1;
            return Err(difference(app, cx, item, told, found));
        }
        Err(error) => return Err(format!("the positions of {item:?} cannot be read: {error}")),
    }
    Ok(())
}

/// Compares all of them once more, some at a time, and says what came of it.
pub(super) fn afterwards<S: Application>(app: &mut S, cx: &mut Cx<S>, mut items: Vec<Item>) {
    let rest = items.split_off(items.len().min(AT_A_TIME));
    for item in items {
        let so_far = app.takeover().audit.map_or(0, |tally| tally.differ);
        if let Err(what) = check(app, cx, item)
            && so_far < LINES
        {
            log::error!("positions, after the takeover: {what}");
        }
    }
    if !rest.is_empty() {
        cx.defer(|app, cx| afterwards(app, cx, rest));
    } else if let Some(tally) = app.takeover().audited() {
        log::info!("positions of what was taken over: {tally}");
    }
}

fn difference<S: Application>(
    app: &mut S,
    cx: &mut Cx<S>,
    item: Item,
    told: Positions,
    found: Positions,
) -> String {
    let about = app.describe(cx, item).ok();
    let name = about.as_ref().map_or("item", |about| &about.name);
    let peer = about.as_ref().and_then(|about| about.peer);
    let peer = peer.map_or(String::new(), |peer| format!(" {peer}"));
    format!("{name}{peer}: the state says {told}, the socket {found}")
}
