//! The ledger, move by move.

use super::*;

const A: ItemId = ItemId(1);
const B: ItemId = ItemId(2);

fn ledger_with_copies(ids: &[ItemId]) -> Ledger {
    let mut ledger = Ledger::new(9);
    ids.iter().for_each(|id| ledger.note(*id, Presence::Held));
    let batch = batch(&ledger);
    ledger.sent(&batch);
    ledger
}

fn batch(ledger: &Ledger) -> Batch {
    match ledger.next_batch(9) {
        Due::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_item_sent_is_known() {
    let ledger = ledger_with_copies(&[A, B]);
    assert_eq!((ledger.owed(), ledger.copies()), (0, 2));
    assert_eq!(ledger.next_batch(9), Due::Nothing);
}

#[test]
fn items_noted_together_are_noted_as_one_by_one() {
    use Presence::{Gone, Held, Unwanted};
    let notes = [
        vec![(B, Held), (A, Held), (B, Held)],
        vec![(A, Held), (B, Unwanted)],
        vec![(A, Held), (A, Gone)],
    ];
    for start in [
        Ledger::new(9),
        ledger_with_copies(&[A]),
        ledger_with_copies(&[A, B]),
    ] {
        for notes in &notes {
            let (mut together, mut apart) = (start.clone(), start.clone());
            together.note_all(notes.clone());
            notes.iter().for_each(|(id, what)| apart.note(*id, *what));
            assert_eq!(together, apart);
        }
    }
}

#[test]
fn blocked_batch_is_offered_again() {
    let mut ledger = Ledger::new(9);
    ledger.note(A, Presence::Held);
    assert_eq!(ledger.next_batch(9), ledger.next_batch(9));
    assert_eq!(ledger.owed(), 1);
}

#[test]
fn known_item_changed_goes_without_descriptor() {
    let mut ledger = ledger_with_copies(&[A]);
    ledger.note(A, Presence::Held);
    ledger.note(B, Presence::Held);
    let batch = Batch::Items {
        new: vec![B],
        changed: vec![A],
    };
    assert_eq!(ledger.next_batch(9), Due::Batch(batch));
}

#[test]
fn closed_item_leads_and_only_if_sent_before() {
    let mut ledger = ledger_with_copies(&[A]);
    ledger.note(B, Presence::Held);
    ledger.note(B, Presence::Gone);
    ledger.note(A, Presence::Gone);
    assert_eq!(ledger.copies(), 0);
    let batch = batch(&ledger);
    assert_eq!(batch, Batch::Closed(vec![A]));
    ledger.sent(&batch);
    assert_eq!((ledger.owed(), ledger.copies()), (0, 0));
}

#[test]
fn declined_item_stays_and_is_not_sent_again() {
    let mut ledger = ledger_with_copies(&[A, B]);
    ledger.decline(&[A], &[]);
    ledger.note(A, Presence::Held);
    assert_eq!((ledger.owed(), ledger.copies()), (0, 1));
    assert_eq!(ledger.declined().collect::<Vec<_>>(), [A]);
    ledger.note(A, Presence::Gone);
    assert_eq!(ledger.declined().count(), 0);
}

#[test]
fn unwanted_item_is_never_sent() {
    let mut ledger = Ledger::new(9);
    ledger.note(A, Presence::Held);
    ledger.note(A, Presence::Unwanted);
    assert_eq!(ledger.next_batch(9), Due::Nothing);
    assert_eq!(ledger.declined().collect::<Vec<_>>(), [A]);
}

#[test]
fn declined_after_close_is_closed_once() {
    let mut ledger = ledger_with_copies(&[A]);
    ledger.note(A, Presence::Gone);
    ledger.decline(&[A], &[]);
    assert_eq!(ledger.declined().count(), 0);
    assert_eq!(batch(&ledger), Batch::Closed(vec![A]));
}

#[test]
fn busy_items_do_not_keep_new_ones_back() {
    let mut ledger = ledger_with_copies(&[A]);
    ledger.note(A, Presence::Held);
    ledger.note(B, Presence::Held);
    let Due::Batch(Batch::Items { new, changed }) = ledger.next_batch(1) else {
        panic!("no items")
    };
    assert_eq!((new, changed), (vec![B], vec![]));
}

#[test]
fn round_passes_each_item_once() {
    let mut ledger = ledger_with_copies(&[A, B]);
    [A, B]
        .iter()
        .for_each(|id| ledger.note(*id, Presence::Held));
    let mut ahead = ledger.ahead();
    for expected in [A, B] {
        let Due::Batch(batch) = ledger.next_items(&ahead, 1) else {
            panic!("no items")
        };
        let (new, changed) = (vec![], vec![expected]);
        assert_eq!(batch, Batch::Items { new, changed });
        ledger.sent(&batch);
        ahead.pass(&batch);
        // Busy items, and one that comes while the round is on.
        ledger.note(A, Presence::Held);
        ledger.note(ItemId(3), Presence::Held);
    }
    assert_eq!(ledger.next_items(&ahead, 1), Due::Nothing);
    assert_eq!(ledger.owed(), 2);
}

#[test]
fn batch_at_its_limit_leaves_the_rest() {
    let mut ledger = Ledger::new(9);
    (0..5).for_each(|n| ledger.note(ItemId(n), Presence::Held));
    let Due::Batch(Batch::Items { new, .. }) = ledger.next_batch(4) else {
        panic!("no items")
    };
    assert_eq!(new.len(), 4);
}

#[test]
fn slots_at_and_beyond_the_limit() {
    let mut ledger = Ledger::new(2);
    [A, B]
        .iter()
        .for_each(|id| ledger.note(*id, Presence::Held));
    let first = batch(&ledger);
    ledger.sent(&first);
    ledger.note(ItemId(3), Presence::Held);
    assert_eq!(ledger.next_batch(9), Due::NoSlots);
    // A closed item is told first, and its slot serves the new one.
    ledger.note(A, Presence::Gone);
    let second = batch(&ledger);
    ledger.sent(&second);
    assert!(matches!(batch(&ledger), Batch::Items { .. }));
}
