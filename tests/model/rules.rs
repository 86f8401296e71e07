//! What must hold in every state, and what must have become of everybody in the end.
//!
//! | of the design's invariants | rules |
//! |---|---|
//! | never two processes with I/O enabled on an item | [`Rule::OneServer`] |
//! | I/O only by the process whose position is the socket's; every byte once, in order | [`Rule::Position`] |
//! | while the owner lives, some process ends with I/O enabled | [`Rule::SomebodyServes`], [`Rule::Progress`], [`Rule::Wakes`] |
//! | after an abort the donor is as before | [`Rule::OwnerKeepsAll`], [`Rule::NoCopiesLeft`] |
//! | after success the donor has the declined items, the taker all others | [`Rule::TakerHasTheRest`] |
//! | every accepted connection is in exactly one generation | the two above, [`Rule::NotOthersPeers`] |
//! | one grant per lease | [`Rule::OneGrant`], [`Rule::OneEnd`] |
//! | the one commit point | [`Rule::ClaimFirst`], [`Rule::ReleaseAfterClaim`], [`Rule::OwnerIsNotKilled`] |
//!
//! The others are about the honest and the told: nobody is blamed, lost, deaf or stopped
//! without need. What belongs to real descriptors, clocks and credentials (CLOEXEC, socket
//! options, timers, identity) is not in this world: scenarios with real processes assert that.

use std::fmt;

use socket_takeover::takeover::internal::donor::State;
use socket_takeover::takeover::internal::taker::Leaving;

use crate::donor::DonorProcess;
use crate::kernel::{Connection, Holdings, ITEMS, Side};
use crate::taker::TakerProcess;
use crate::world::{Life, World};

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// Never do two processes serve one item.
    OneServer,
    /// Who serves is where the kernel is: no byte of a stream is read twice or skipped.
    Position,
    /// Until the taker has claimed, the donor has all that it had before.
    OwnerKeepsAll,
    /// A donor forgets only a taker that has no copies any more, if it can help it.
    NoCopiesLeft,
    /// The new owner has every open connection but those it declined; the donor has those.
    TakerHasTheRest,
    /// Nobody ends, releases or hands over what belongs to somebody else.
    NotOthersPeers,
    /// A lease is granted once.
    OneGrant,
    /// END is said once a lease.
    OneEnd,
    /// A taker serves only what it has claimed.
    ClaimFirst,
    /// A donor lets go of its peers, and leaves, only when the taker has claimed.
    ReleaseAfterClaim,
    /// Who owns is not killed by the other side.
    OwnerIsNotKilled,
    /// What is readable, or reset, is found by who serves it.
    Wakes,
    /// The processes do not keep each other busy for ever.
    Progress,
    /// In the end whoever owns serves, and nobody hangs in between.
    SomebodyServes,
    /// A donor that is lost after its END is claimed from.
    NoAvoidableLoss,
    /// A donor lets go only when the new owner has said that it serves, or when it is told twice
    /// to stop.
    HeldUntilActive,
    /// Whoever keeps to the protocol is not found fault with.
    NoBlame,
    /// What was said before the channel's end is heard before the end.
    HeardOut,
    /// A second caller is told BUSY and changes nothing.
    Busy,
    /// SIGTERM stops whoever owns, once, and nobody stops unasked.
    Term,
}

impl Rule {
    pub(crate) fn broken(self, what: impl Into<String>) -> Broken {
        let what = what.into();
        Broken { rule: self, what }
    }
}

/// A rule that was broken, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Safety: checked in every state.
pub(crate) fn check_always(world: &World) -> Result<(), Broken> {
    check_one_server(world)?;
    for (who, polls, items) in world.processes() {
        check_positions(who, polls, items, world)?;
    }
    if let Some(donor) = world.donor.alive() {
        check_donor_has_what_it_owns(donor, world)?;
    }
    if let Some(taker) = world.taker.alive() {
        check_taker_has_what_it_owns(taker, world)?;
    }
    if let Some(other) = &world.other
        && let Some(taker) = other.taker.alive()
        && taker.polls()
        && other.line.lease.winner() != Some(Side::Taker)
    {
        return Err(Rule::ClaimFirst.broken("a taker of another attempt serves"));
    }
    check_no_copies_are_left(world)
}

fn check_no_copies_are_left(world: &World) -> Result<(), Broken> {
    let idle = |donor: &DonorProcess| *donor.state() == State::Idle && !donor.is_attached();
    let holds = |taker: &TakerProcess| taker.items().iter().any(Option::is_some);
    if !world.running_donor().is_some_and(idle) || world.kernel.line.kill_failed {
        return Ok(());
    }
    // What became of a taker that had claimed is not the donor's business any more.
    let owned = world.kernel.line.lease.winner() == Some(Side::Taker);
    if world.taker.alive().is_some_and(holds) && !owned {
        return Err(Rule::NoCopiesLeft.broken("the donor has forgotten a taker that has copies"));
    }
    Ok(())
}

fn check_one_server(world: &World) -> Result<(), Broken> {
    for item in 0..ITEMS {
        let serves = |(_, polls, items): &(_, bool, &Holdings)| *polls && items[item].is_some();
        if world.processes().filter(serves).count() > 1 {
            return Err(Rule::OneServer.broken(format!("two processes serve item {item}")));
        }
    }
    Ok(())
}

fn check_positions(who: &str, polls: bool, items: &Holdings, world: &World) -> Result<(), Broken> {
    if !polls {
        return Ok(());
    }
    for (item, (held, connection)) in items.iter().zip(&world.kernel.connections).enumerate() {
        if let (Some(held), Connection::Open { consumed, .. }) = (held, connection)
            && held.saved.position != *consumed
        {
            let at = held.saved.position;
            return Err(Rule::Position.broken(format!(
                "the {who} serves item {item} from byte {at}, and the kernel is at {consumed}"
            )));
        }
    }
    Ok(())
}

fn check_donor_has_what_it_owns(donor: &DonorProcess, world: &World) -> Result<(), Broken> {
    let claimed = world.kernel.line.lease.winner() == Some(Side::Taker);
    if claimed || *donor.state() == State::Done {
        return Ok(());
    }
    for (item, connection) in world.kernel.connections.iter().enumerate() {
        let ours = connection.exists() && !world.kernel.strayed[item];
        if ours != donor.items()[item].is_some() {
            return Err(Rule::OwnerKeepsAll
                .broken(format!("the donor owns, and item {item} is not as it was")));
        }
    }
    Ok(())
}

fn check_taker_has_what_it_owns(taker: &TakerProcess, world: &World) -> Result<(), Broken> {
    if !taker.polls() {
        return Ok(());
    }
    if world.kernel.line.lease.winner() != Some(Side::Taker) {
        return Err(Rule::ClaimFirst.broken("the taker serves without having claimed"));
    }
    for (item, connection) in world.kernel.connections.iter().enumerate() {
        if world.kernel.strayed[item] {
            continue;
        }
        let has = taker.items()[item].is_some();
        let wrong = |how| Err(Rule::TakerHasTheRest.broken(format!("item {item} {how}")));
        if has && !connection.exists() {
            return wrong("has ended, and the taker owns it");
        }
        if has && taker.has_declined(item) {
            return wrong("was declined, and the taker has it");
        }
        if has || !connection.exists() {
            continue;
        }
        if !taker.has_declined(item) && !world.kernel.withheld[item] {
            return wrong("was not declined, and the taker does not have it");
        }
        let donor = world.donor.alive();
        if donor.is_some_and(|donor| donor.items()[item].is_none()) {
            return wrong("was declined, and nobody has kept it");
        }
    }
    Ok(())
}

/// Liveness: checked where only a deadline, a client or bad luck leads on.
pub(crate) fn check_quiescent(world: &World) -> Result<(), Broken> {
    // A taker that says DRAINED and is not harms only itself.
    let honest = |who: &str| who != "taker" || !world.kernel.line.lied;
    for (who, polls, items) in world.running().filter(|(who, ..)| honest(who)) {
        for (item, connection) in world.kernel.connections.iter().enumerate() {
            if polls && items[item].is_some() && connection.has_news() {
                return Err(Rule::Wakes.broken(format!(
                    "item {item} has unread data and the {who} does not wake for it"
                )));
            }
        }
    }
    if world.is_armed() {
        return Ok(());
    }
    check_end(world)?;
    check_taker_had_reason_to_leave(world)
}

/// The new owner lives, and is stopped or has lied: it can only be waited for.
fn owner_is_silent(world: &World) -> bool {
    let owns = world.kernel.line.lease.winner() == Some(Side::Taker);
    owns && world.taker.alive().is_some() && (world.taker_stopped || world.kernel.line.lied)
}

/// Nothing at all will happen any more: every process that runs must be one that serves.
fn check_end(world: &World) -> Result<(), Broken> {
    let stuck = |who: &str| Err(Rule::SomebodyServes.broken(format!("the {who} is stuck")));
    if let Some(donor) = world.running_donor() {
        if donor.waits_for_owner() && owner_is_silent(world) {
            return Ok(());
        }
        if *donor.state() != State::Idle || !donor.polls() {
            return stuck("donor");
        }
        if donor.was_termed() {
            return Err(Rule::Term.broken("the donor was told to stop and serves on"));
        }
    }
    if let Some(past) = world.running_past()
        && *past.state() != State::Idle
    {
        return stuck("donor before");
    }
    if world.running_taker().is_some_and(|taker| !taker.polls()) {
        return stuck("taker");
    }
    if world.running_other().is_some_and(|taker| !taker.polls()) {
        return stuck("other taker");
    }
    Ok(())
}

fn check_taker_had_reason_to_leave(world: &World) -> Result<(), Broken> {
    let Life::Left(why) = &world.taker else {
        return Ok(());
    };
    let line = &world.kernel.line;
    if *why == Leaving::Failed && !line.lied && !line.unusable {
        return Err(Rule::NoBlame.broken("the taker finds fault with an honest donor"));
    }
    let claimed = line.lease.winner() == Some(Side::Taker);
    let serves_on = world.running_donor().is_some_and(DonorProcess::polls);
    if *why == Leaving::Stopping && claimed && serves_on && !line.lied {
        let what = "the new owner was told to stop, and the donor serves on";
        return Err(Rule::Term.broken(what));
    }
    let excused = matches!(why, Leaving::Stopping | Leaving::Failed | Leaving::Refused);
    let revoked = line.lease.winner() == Some(Side::Donor);
    let donor_is_lost = world.donor == Life::Killed || world.donor_stopped;
    if donor_is_lost && !line.lied && line.end_in_time && !revoked && !excused {
        let what = "the donor was lost after END, and the taker did not go on";
        return Err(Rule::NoAvoidableLoss.broken(what));
    }
    Ok(())
}
