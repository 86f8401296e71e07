//! What only shows after the claim, where the exploration has one process too few.

use super::*;
use crate::takeover::core::ledger::{Batch, ItemId, Presence};

const ITEM: ItemId = ItemId(1);
const DECLINED: ItemId = ItemId(2);

/// A donor whose END is out; the taker has declined one of two items.
fn awaiting_claim() -> Donor {
    awaiting_claim_with(vec![DECLINED])
}

fn awaiting_claim_with(declined: Vec<ItemId>) -> Donor {
    let mut donor = Donor::default();
    let items = vec![(ITEM, Presence::Held), (DECLINED, Presence::Held)];
    let batch = Batch::Items {
        new: vec![ITEM, DECLINED],
        changed: vec![],
    };
    for event in [
        Event::Caller,
        Event::Fits { slots: 9 },
        Event::Changed(items),
        Event::Did(Outcome::Sent { batch, number: 7 }),
        Event::Declined {
            items: declined,
            kinds: vec![],
        },
        Event::Ack { number: 7 },
        Event::Drained,
        Event::Did(Outcome::Held),
        Event::Did(Outcome::Granted),
        Event::Did(Outcome::EndSent),
    ] {
        donor = donor.step(event).0;
    }
    assert!(matches!(donor.state(), State::AwaitClaim(_)), "{donor:?}");
    donor
}

#[test]
fn active_heard_from_a_taker_that_is_dead_is_no_orphan() {
    let (donor, _) = awaiting_claim().step(Event::Active);
    let (_, actions) = donor.step(Event::Did(Outcome::Lost { dead: true }));
    assert!(actions.contains(&Action::Release(vec![DECLINED])));
    assert!(!matches!(actions.last(), Some(Action::Orphan(_))));
}

#[test]
fn silent_death_after_the_claim_leaves_an_orphan() {
    for (first, second) in [(Cause::Eof, Cause::Died), (Cause::Died, Cause::Eof)] {
        let donor = held_by_silence(first);
        let (donor, actions) = donor.step(Event::Failure(Cause::Deadline));
        assert_eq!(actions, [Action::Arm(Step::Look)]);
        let (donor, actions) = donor.step(Event::Failure(second));
        assert!(actions.contains(&Action::Orphan(vec![DECLINED])));
        assert_eq!(donor.state(), &State::Idle);
    }
}

/// A donor whose lease is claimed and whose taker says nothing more.
fn held_by_silence(cause: Cause) -> Donor {
    let (donor, _) = awaiting_claim().step(Event::Failure(cause));
    let (donor, actions) = donor.step(Event::Did(Outcome::Lost { dead: false }));
    assert_eq!(actions, [Action::Wait, Action::Arm(Step::Look)]);
    assert!(matches!(donor.state(), State::AwaitActive(_)), "{donor:?}");
    donor
}

#[test]
fn claimed_and_silent_is_waited_for_whatever_else_it_says() {
    let mut donor = held_by_silence(Cause::Deadline);
    for event in [
        Event::Failure(Cause::Failed),
        Event::Failure(Cause::Protocol),
        Event::Drained,
        Event::Ack { number: 0 },
        Event::Failure(Cause::Deadline),
        Event::Failure(Cause::Died),
        Event::Failure(Cause::Deadline),
    ] {
        donor = donor.step(event).0;
        assert!(matches!(donor.state(), State::AwaitActive(_)), "{donor:?}");
    }
    let (donor, actions) = donor.step(Event::Active);
    assert!(actions.contains(&Action::Release(vec![DECLINED])));
    assert_eq!(donor.state(), &State::Drain);
}

#[test]
fn lease_that_cannot_be_read_is_asked_again() {
    let (donor, _) = awaiting_claim().step(Event::Failure(Cause::Deadline));
    let (donor, actions) = donor.step(Event::Did(Outcome::Unread));
    assert_eq!(actions, [Action::Arm(Step::Look)]);
    let (donor, actions) = donor.step(Event::Failure(Cause::Deadline));
    assert_eq!(actions, [Action::Revoke]);
    let (donor, actions) = donor.step(Event::Did(Outcome::Won));
    assert_eq!(actions.first(), Some(&Action::Resume(Cause::Deadline)));
    assert!(matches!(donor.state(), State::Rollback { .. }));
}

#[test]
fn second_term_with_the_grant_out_revokes_first() {
    let (donor, _) = awaiting_claim().term();
    let (donor, actions) = donor.term();
    assert_eq!(actions, [Action::Revoke]);
    let (won, actions) = donor.clone().step(Event::Did(Outcome::Won));
    assert_eq!(actions.first(), Some(&Action::Resume(Cause::Stopping)));
    assert_eq!(actions.last(), Some(&Action::Stop));
    assert_eq!(won.state(), &State::Done);
    let (lost, actions) = donor.step(Event::Did(Outcome::Lost { dead: false }));
    assert!(actions.contains(&Action::PassTerm));
    assert!(actions.contains(&Action::Release(vec![DECLINED])));
    assert_eq!(actions.last(), Some(&Action::Exit));
    assert_eq!(lost.state(), &State::Done);
}

#[test]
fn each_term_to_a_held_donor_is_for_the_owner() {
    let (donor, actions) = held_by_silence(Cause::Deadline).term();
    assert_eq!(actions, [Action::PassTerm]);
    let (orphan, _) = donor.clone().step(Event::Failure(Cause::Eof));
    let (orphan, actions) = orphan.step(Event::Failure(Cause::Died));
    assert_eq!(
        actions.last(),
        Some(&Action::Stop),
        "it owns again and was told to stop"
    );
    assert_eq!(orphan.state(), &State::Done);
    let (stopped, actions) = donor.clone().step(Event::Active);
    assert!(!actions.contains(&Action::PassTerm), "it was told already");
    assert_eq!(stopped.state(), &State::Done);
    let (left, actions) = donor.term();
    assert_eq!(actions.first(), Some(&Action::PassTerm));
    assert_eq!(actions.last(), Some(&Action::Exit));
    assert_eq!(left.state(), &State::Done);
}

#[test]
fn term_that_waited_for_the_outcome_ends_the_drain_too() {
    let (donor, none) = awaiting_claim().term();
    assert_eq!(none, []);
    let (donor, _) = donor.step(Event::Active);
    let (donor, actions) = donor.step(Event::Did(Outcome::Lost { dead: false }));
    assert_eq!(actions.first(), Some(&Action::PassTerm));
    assert_eq!(actions.last(), Some(&Action::Exit));
    assert_eq!(donor.state(), &State::Done);
}

#[test]
fn term_in_the_turn_of_the_release_is_passed_on() {
    let (donor, _) = awaiting_claim_with(vec![]).step(Event::Active);
    let (donor, actions) = donor.step(Event::Did(Outcome::Lost { dead: false }));
    assert_eq!(actions.last(), Some(&Action::Exit));
    assert_eq!(donor.term().1, [Action::PassTerm]);
}
