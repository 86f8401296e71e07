//! What only shows after the claim, where the exploration has one process too few.

use super::*;

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
        Event::Did(Outcome::Sent(batch)),
        Event::Ack { declined },
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
    let (donor, _) = awaiting_claim().step(Event::Failure(Cause::Died));
    let (_, actions) = donor.step(Event::Did(Outcome::Lost { dead: true }));
    assert_eq!(actions.last(), Some(&Action::Orphan(vec![DECLINED])));
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
