//! What must hold in every state, and what must have become of everybody in the end.

use socket_takeover::takeover::donor::State;
use socket_takeover::takeover::taker::Leaving;

use crate::donor::DonorProcess;
use crate::kernel::{Broken, Connection, Holdings, ITEMS, Side};
use crate::scenario::Scenario;
use crate::taker::TakerProcess;
use crate::world::{Life, World};

/// Safety: checked in every state.
pub(crate) fn check_always(world: &World) -> Result<(), Broken> {
    let donor = world.donor.alive();
    let taker = world.taker.alive();
    for item in 0..ITEMS {
        check_one_server(item, donor, taker)?;
    }
    if let Some(donor) = donor {
        check_positions("donor", donor.polls(), donor.items(), world)?;
        check_donor_has_what_it_owns(donor, world)?;
    }
    if let Some(taker) = taker {
        check_positions("taker", taker.polls(), taker.items(), world)?;
        check_taker_has_what_it_owns(taker, world)?;
    }
    if let (Some(donor), Some(taker)) = (donor, taker)
        && *donor.state() == State::Idle
        && !donor.is_attached()
        && taker.items().iter().any(Option::is_some)
    {
        return Err("the donor has forgotten a taker that has copies still".into());
    }
    Ok(())
}

fn check_one_server(
    item: usize,
    donor: Option<&DonorProcess>,
    taker: Option<&TakerProcess>,
) -> Result<(), Broken> {
    let by_donor = donor.is_some_and(|donor| donor.polls() && donor.items()[item].is_some());
    let by_taker = taker.is_some_and(|taker| taker.polls() && taker.items()[item].is_some());
    if by_donor && by_taker {
        return Err(format!("two processes serve item {item}"));
    }
    Ok(())
}

/// No byte of a stream is read twice or skipped: who polls is where the kernel is.
fn check_positions(who: &str, polls: bool, items: &Holdings, world: &World) -> Result<(), Broken> {
    if !polls {
        return Ok(());
    }
    for (item, (held, connection)) in items.iter().zip(&world.kernel.connections).enumerate() {
        if let (Some(held), Connection::Open { consumed, .. }) = (held, connection)
            && held.saved.position != *consumed
        {
            let at = held.saved.position;
            return Err(format!(
                "the {who} serves item {item} from byte {at}, and the kernel is at {consumed}"
            ));
        }
    }
    Ok(())
}

/// Until the taker has claimed, the donor has all that it had before.
fn check_donor_has_what_it_owns(donor: &DonorProcess, world: &World) -> Result<(), Broken> {
    if world.kernel.lease.winner() == Some(Side::Taker) || *donor.state() == State::Done {
        return Ok(());
    }
    for (item, connection) in world.kernel.connections.iter().enumerate() {
        if connection.is_open() != donor.items()[item].is_some() {
            return Err(format!("the donor owns, and has not kept item {item}"));
        }
    }
    Ok(())
}

/// The owner has every open connection but those it declined, and the donor has those.
fn check_taker_has_what_it_owns(taker: &TakerProcess, world: &World) -> Result<(), Broken> {
    if !taker.polls() {
        return Ok(());
    }
    if world.kernel.lease.winner() != Some(Side::Taker) {
        return Err("the taker serves without having claimed".into());
    }
    for (item, connection) in world.kernel.connections.iter().enumerate() {
        let has = taker.items()[item].is_some();
        let declined = taker.has_declined(item) || world.kernel.unwanted[item];
        if has && !connection.is_open() {
            return Err(format!("the taker owns item {item}, which has ended"));
        }
        if connection.is_open() && has == declined {
            return Err(format!(
                "the taker owns, and item {item} is not where it belongs"
            ));
        }
        if let Some(donor) = world.donor.alive()
            && connection.is_open()
            && declined
            && donor.items()[item].is_none()
        {
            return Err(format!("nobody has kept the declined item {item}"));
        }
    }
    Ok(())
}

/// Liveness: checked where only a deadline, a client or bad luck leads on.
pub(crate) fn check_quiescent(world: &World, scenario: &Scenario) -> Result<(), Broken> {
    let donor = world.running_donor().filter(|donor| donor.polls());
    let taker = world.running_taker().filter(|taker| taker.polls());
    let tables = [
        donor.map(DonorProcess::items),
        taker.map(TakerProcess::items),
    ];
    for items in tables.into_iter().flatten() {
        for (item, connection) in world.kernel.connections.iter().enumerate() {
            if items[item].is_some() && connection.unread() > 0 {
                return Err(format!(
                    "item {item} has unread data and nobody wakes for it"
                ));
            }
        }
    }
    if world.is_armed() {
        return Ok(());
    }
    check_end(world)?;
    check_taker_had_reason_to_leave(world, scenario)
}

/// Nothing at all will happen any more: every process that runs must be one that serves.
fn check_end(world: &World) -> Result<(), Broken> {
    if let Some(donor) = world.running_donor() {
        if *donor.state() != State::Idle || !donor.polls() {
            return Err("the donor is stuck".into());
        }
        if donor.was_termed() {
            return Err("the donor was told to stop and serves on".into());
        }
    }
    if world.running_taker().is_some_and(|taker| !taker.polls()) {
        return Err("the taker is stuck".into());
    }
    Ok(())
}

fn check_taker_had_reason_to_leave(world: &World, scenario: &Scenario) -> Result<(), Broken> {
    let Life::Left(why) = &world.taker else {
        return Ok(());
    };
    if *why == Leaving::Failed && scenario.budget.glitches == world.budget.glitches {
        return Err("the taker finds fault with an honest donor".into());
    }
    let excused = matches!(why, Leaving::Stopping | Leaving::Failed);
    let revoked = world.kernel.lease.winner() == Some(Side::Donor);
    let donor_is_lost = world.donor == Life::Killed || world.donor_stopped;
    if donor_is_lost && world.kernel.end_in_time && !revoked && !excused {
        return Err("the donor was lost after END, and the taker did not go on".into());
    }
    Ok(())
}
