//! Every state that a takeover can be in.
//!
//! The real step functions of donor and taker, joined to a small world, are run through
//! every order of steps that is possible: who is scheduled, what clients send, which
//! deadline passes early, who is killed, stopped or told to stop, and when.
//!
//! ```text
//!   scenario   what may happen, and how often
//!   world      donor process + taker process + kernel, and every step from one state
//!   kernel     connections, edge-triggered readiness, channel, lease, pidfd
//!   donor      the machine and its driver; one action is one step, and a SIGKILL may
//!   taker      fall between any two
//!   rules      what must hold always, and what must have come about in the end
//!   explore    breadth first, so that a counterexample is as short as can be
//!   mutants    wrong machines and wrong drivers: `caught` shows that the rules bite
//!   crowd      a preload of more items than this can hold, walked at random
//! ```
//!
//! What the drivers here do is what a driver has to do, and the mutants show which of it
//! the protocol relies on:
//! - what changed is told the donor before anything else is;
//! - an action's outcome is told after the whole list was performed and before any other
//!   event;
//! - a broken channel is read to its end, and the end is what is reported, not the `EPIPE`;
//! - the taker reads what has arrived before it judges its deadline;
//! - the donor reads what the taker has said before it hears of its death;
//! - the donor looks at the taker's pidfd before it judges the deadline of Bereaved;
//! - a taker that leaves closes its copies before the channel.
//!
//! The channel takes two records or more. With one, PREPARE to a taker that has not read
//! WELCOME yet would not fit if there was no item to wait for in between; a real channel
//! holds some hundred.

mod caught;
mod crowd;
mod donor;
mod explore;
mod kernel;
mod mutants;
mod names;
mod rules;
mod scenario;
mod taker;
mod world;

use explore::{Census, explore};
use names::{DONOR_NAMES, TAKER_NAMES};
use scenario::{Budget, Scenario};

/// Explores the scenario and prints its census.
fn assert_sound(scenario: &Scenario) -> Census {
    let census = explore(scenario).unwrap_or_else(|found| panic!("{}:\n{found}", scenario.name));
    println!("{}: {census}", scenario.name);
    census
}

/// Everything that can go wrong at once, with one connection that talks.
fn faults() -> Scenario {
    Scenario {
        budget: Budget {
            bytes: 2,
            declines: 1,
            glitches: 1,
            deadlines: 3,
            donor_kills: 1,
            taker_kills: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("faults")
    }
}

#[test]
fn quiet_takeover_ends_with_the_taker_serving() {
    let census = assert_sound(&Scenario::quiet("quiet"));
    assert!(census.of("(left)", "Active") > 0);
    assert_eq!(census.of("Rollback", "Gone"), 0);
}

/// Also shows that the machines have no state that nothing leads to, and that what looks
/// like a race is one that does occur.
#[test]
fn faults_leave_one_owner_and_every_byte() {
    let census = assert_sound(&faults());
    let donor_at = |donor: &&str| TAKER_NAMES.iter().any(|taker| census.of(donor, taker) > 0);
    let taker_at = |taker: &&str| DONOR_NAMES.iter().any(|donor| census.of(donor, taker) > 0);
    assert_eq!(DONOR_NAMES.iter().find(|donor| !donor_at(donor)), None);
    assert_eq!(TAKER_NAMES.iter().find(|taker| !taker_at(taker)), None);
    let races = [
        // The donor has revoked, and the taker is about to find out.
        ("Rollback", "Claim"),
        ("Rollback", "Validate"),
        // Both are about to read the lease.
        ("Judge", "Claim"),
        // The taker serves, and the donor does not know yet.
        ("AwaitClaim", "Active"),
        // It serves and has closed the channel, and ACTIVE got lost.
        ("Bereaved", "Active"),
        // The owner is dead, and the donor has to take up what is left.
        ("Bereaved", "(killed)"),
        // The donor died with END on its way.
        ("(killed)", "Claim"),
        // Each serves what is its own.
        ("Drain", "Active"),
    ];
    assert_eq!(
        races
            .iter()
            .find(|(donor, taker)| census.of(donor, taker) == 0),
        None
    );
    for donor in [
        "Idle",
        "AcceptChannel",
        "Preload",
        "HoldPeers",
        "Sweep",
        "Rollback",
    ] {
        assert_eq!(
            census.of(donor, "Active"),
            0,
            "{donor} serves next to an active taker"
        );
    }
}

#[test]
fn traffic_arrives_once_and_in_order() {
    assert_sound(&Scenario {
        budget: Budget {
            bytes: 3,
            opens: 1,
            closes: 1,
            cuts: 2,
            declines: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("traffic")
    });
}

#[test]
fn two_connections_share_the_outcome() {
    assert_sound(&Scenario {
        connections: 2,
        budget: Budget {
            bytes: 2,
            closes: 1,
            cuts: 1,
            declines: 1,
            deadlines: 1,
            taker_kills: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("two connections")
    });
}

#[test]
fn stopped_process_does_not_stop_the_other() {
    assert_sound(&Scenario {
        budget: Budget {
            bytes: 2,
            glitches: 1,
            donor_stops: 1,
            taker_stops: 1,
            donor_kills: 1,
            taker_kills: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("stops")
    });
}

#[test]
fn term_is_obeyed_by_whoever_owns() {
    assert_sound(&Scenario {
        budget: Budget {
            bytes: 1,
            declines: 1,
            deadlines: 2,
            donor_kills: 1,
            taker_kills: 1,
            donor_terms: 1,
            taker_terms: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("terms")
    });
}

#[test]
fn taker_short_of_slots_leaves_everything_as_it_was() {
    let census = assert_sound(&Scenario {
        slots: 1,
        budget: Budget {
            bytes: 1,
            opens: 1,
            closes: 1,
            deadlines: 1,
            taker_kills: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("one slot")
    });
    assert!(census.of("Rollback", "Settle") > 0);
}

#[test]
fn second_takeover_follows_whatever_became_of_the_first() {
    assert_sound(&Scenario {
        budget: Budget {
            bytes: 1,
            declines: 1,
            glitches: 1,
            deadlines: 2,
            taker_kills: 1,
            takers: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("second takeover")
    });
}

#[test]
fn orphaned_donor_serves_new_connections() {
    assert_sound(&Scenario {
        budget: Budget {
            bytes: 1,
            opens: 1,
            declines: 1,
            taker_kills: 1,
            takers: 1,
            ..Budget::NONE
        },
        ..Scenario::quiet("orphan")
    });
}
