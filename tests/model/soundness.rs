//! No state of any scenario breaks a rule. Together they show everything that
//! can happen, wherever it can.
//!
//! Each is explored once a run, by whichever test asks first.

use std::sync::OnceLock;

use crate::census::Census;
use crate::explore::explore;
use crate::names::{
    ACTION_NAMES, DEADLINE_NAMES, DONOR_MOVES, DONOR_NAMES, LAST_ACTION_NAMES, OP_NAMES,
    OUTSIDE_NAMES, TAKER_MOVES, TAKER_NAMES,
};
use crate::scenario::Scenario;
use crate::scenarios::{
    ALL, BRANCHES, CALLERS, CHAIN, COUNT, FAULTS, LATE, LIES, NARROW, ONE_SLOT, ORPHAN, QUIET,
    REFUSALS, RESETS, ROUNDS, SILENT, STOPS, TERMS, TRAFFIC, TWO,
};

/// Explores the scenario and prints its census, once.
fn assert_sound(scenario: &Scenario) -> &'static Census {
    static SEEN: [OnceLock<Census>; COUNT] = [const { OnceLock::new() }; COUNT];
    let at = ALL.iter().position(|one| one.name == scenario.name);
    SEEN[at.expect("it is listed")].get_or_init(|| {
        let census = explore(scenario);
        let census = census.unwrap_or_else(|found| panic!("{}:\n{found}", scenario.name));
        println!("{}: {census}\n", scenario.name);
        census
    })
}

fn missing<const N: usize>(
    names: [&'static str; N],
    has: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    names.into_iter().filter(|name| !has(name)).collect()
}

/// Where the donor serves and can be taken over, or is being taken over.
const SERVING: [&str; 6] = [
    "Idle",
    "AcceptChannel",
    "Preload",
    "HoldPeers",
    "LastTurn",
    "Rollback",
];

const FROZEN: [&str; 4] = ["SendFdArray", "Grant", "AwaitClaim", "ReadLease"];

#[test]
fn everything_that_can_happen_does_somewhere() {
    let mut all = Census::default();
    ALL.iter()
        .for_each(|scenario| all.add(assert_sound(scenario)));
    println!("all scenarios: {all}");
    assert_eq!(missing(DONOR_NAMES, |name| all.has_donor(name)), [""; 0]);
    assert_eq!(missing(TAKER_NAMES, |name| all.has_taker(name)), [""; 0]);
    let happened = |name: &str| all.saw(name);
    assert_eq!(missing(ACTION_NAMES, happened), [""; 0]);
    assert_eq!(missing(LAST_ACTION_NAMES, happened), [""; 0]);
    assert_eq!(missing(OP_NAMES, happened), [""; 0]);
    assert_eq!(missing(DEADLINE_NAMES, happened), [""; 0]);
    assert_eq!(missing(DONOR_MOVES, happened), [""; 0]);
    assert_eq!(missing(TAKER_MOVES, happened), [""; 0]);
    assert_eq!(missing(OUTSIDE_NAMES, happened), [""; 0]);
}

#[test]
fn whatever_happens_happens_in_every_state() {
    let mut all = Census::default();
    ALL.iter()
        .for_each(|scenario| all.add(assert_sound(scenario)));
    for what in ["open", "close", "donor serves"] {
        let seen = |donor: &str| all.saw_at_donor(what, donor);
        // Only what is ready is swept in the last turn, and nothing else is served then.
        assert_eq!(missing(SERVING, seen), [""; 0], "{what}");
    }
    for what in [
        "byte",
        "reset",
        "kill donor",
        "kill taker",
        "stop donor",
        "stop taker",
        "cont donor",
        "cont taker",
        "term donor",
        "term taker",
        "call",
    ] {
        let seen = |donor: &str| all.saw_at_donor(what, donor);
        assert_eq!(missing(SERVING, seen), [""; 0], "{what}");
        assert_eq!(missing(FROZEN, seen), [""; 0], "{what}");
    }
    let takers = [
        "Hello", "Receive", "Settle", "Validate", "Claim", "Active", "Gone",
    ];
    for what in [
        "byte",
        "reset",
        "kill donor",
        "kill taker",
        "stop donor",
        "stop taker",
        "cont donor",
        "cont taker",
        "term donor",
        "term taker",
    ] {
        let seen = |taker: &str| all.saw_at_taker(what, taker);
        assert_eq!(missing(takers, seen), [""; 0], "{what}");
    }
}

#[test]
fn quiet_takeover_ends_with_the_taker_serving() {
    let census = assert_sound(&QUIET);
    assert!(census.of("(left)", "Active") > 0);
    assert_eq!(census.of("Rollback", "Gone"), 0);
}

/// Also shows that what looks like a race is one that does occur.
#[test]
fn faults_leave_one_owner_and_every_byte() {
    let census = assert_sound(&FAULTS);
    let races = [
        // The donor has revoked, and the taker is about to find out.
        ("Rollback", "Claim"),
        ("Rollback", "Validate"),
        // Both are about to read the lease.
        ("ReadLease", "Claim"),
        // The taker serves, and the donor does not know yet.
        ("AwaitClaim", "Active"),
        // The owner is dead, and the donor has to take up what is left.
        ("AwaitActive", "(killed)"),
        // The donor died with END on its way.
        ("(killed)", "Claim"),
        // Each serves what is its own.
        ("Drain", "Active"),
        // Nobody is left.
        ("(killed)", "(killed)"),
    ];
    let absent = races.iter().find(|(one, other)| census.of(one, other) == 0);
    assert_eq!(absent, None);
    for donor in SERVING {
        let both = census.of(donor, "Active");
        assert_eq!(both, 0, "{donor} serves next to an active taker");
    }
}

#[test]
fn traffic_arrives_once_and_in_order() {
    assert_sound(&TRAFFIC);
}

#[test]
fn reset_peers_do_not_end_a_takeover() {
    let census = assert_sound(&RESETS);
    for taker in ["Settle", "Validate", "Claim", "Active"] {
        assert!(census.saw_at_taker("reset", taker), "{taker}");
    }
}

#[test]
fn several_rounds_tell_the_taker_everything() {
    assert_sound(&ROUNDS);
}

#[test]
fn narrow_channel_only_takes_longer() {
    assert_sound(&NARROW);
}

#[test]
fn two_connections_share_the_outcome() {
    assert_sound(&TWO);
}

#[test]
fn stopped_process_does_not_stop_the_other() {
    assert_sound(&STOPS);
}

#[test]
fn silent_owner_is_waited_for_by_no_deadline() {
    let census = assert_sound(&SILENT);
    assert!(census.saw_at_donor("donor's next look", "AwaitActive"));
    assert!(census.saw_at_donor("term donor", "AwaitActive"));
    assert!(census.of("AwaitActive", "(killed)") > 0);
}

#[test]
fn term_is_obeyed_by_whoever_owns() {
    assert_sound(&TERMS);
}

#[test]
fn taker_short_of_slots_leaves_everything_as_it_was() {
    let census = assert_sound(&ONE_SLOT);
    assert!(census.of("Rollback", "Settle") > 0);
}

/// Every state in which a second caller can be told BUSY.
#[test]
fn second_caller_in_any_state_is_busy_or_next() {
    let census = assert_sound(&CALLERS);
    let busy = |donor: &str| census.saw_at_donor("answer", donor);
    assert_eq!(missing(SERVING, busy), [""; 0]);
    // In the others the donor is at work until it waits for room, or knows of the lease.
    let frozen = ["Grant", "AwaitClaim"];
    assert_eq!(missing(frozen, busy), [""; 0]);
}

#[test]
fn late_taker_of_an_attempt_before_changes_nothing() {
    assert!(assert_sound(&LATE).saw("other taker"));
}

#[test]
fn refused_taker_leaves_room_for_the_next() {
    let census = assert_sound(&REFUSALS);
    assert!(census.of("(left)", "Active") > 0);
}

#[test]
fn orphaned_donor_serves_new_connections() {
    assert_sound(&ORPHAN);
}

#[test]
fn lies_cost_the_attempt_and_nothing_else() {
    let census = assert_sound(&LIES);
    // It serves, and has hung up without ACTIVE.
    assert!(census.of("AwaitActive", "Active") > 0);
}

#[test]
fn chain_of_two_takeovers_has_one_owner() {
    assert_sound(&CHAIN);
    assert_sound(&BRANCHES);
}
