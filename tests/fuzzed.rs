//! What the fuzz targets call (`fuzz/`), for as long as a test may take: good conversations come
//! to their known ends, and any others to one that leaves nothing behind.

#![allow(unreachable_pub, dead_code)]

#[path = "../fuzz/src/app.rs"]
mod app;
#[path = "../fuzz/src/donor.rs"]
mod donor;
#[path = "../fuzz/src/made.rs"]
mod made;
#[path = "../fuzz/src/record.rs"]
mod record;
#[path = "../fuzz/src/script.rs"]
mod script;
#[path = "../fuzz/src/taker.rs"]
mod taker;

use std::cell::RefCell;
use std::collections::BTreeMap;

use app::End;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use script::{Message, messages, put};

/// What is done to one message of a good conversation.
#[derive(Debug, Clone)]
enum Change {
    Missing,
    Doubled,
    Swapped,
    Cut(usize),
    Byte(usize, u8),
    Word(usize, u32),
    How(u8),
    Fds(u8),
    Instead(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..600_usize;
    let word = prop_oneof![Just(0), Just(1), Just(65_536), Just(u32::MAX), any::<u32>()];
    prop_oneof![
        Just(Change::Missing),
        Just(Change::Doubled),
        Just(Change::Swapped),
        at.clone().prop_map(Change::Cut),
        (at.clone(), 1..=u8::MAX).prop_map(|(at, with)| Change::Byte(at, with)),
        (at, word).prop_map(|(at, word)| Change::Word(at, word)),
        (0..16u8).prop_map(Change::How),
        any::<u8>().prop_map(Change::Fds),
        vec(any::<u8>(), 0..80).prop_map(Change::Instead),
    ]
}

/// A conversation with each change made to the message that it names.
fn changed(seed: &[u8], changes: &[(usize, Change)]) -> Vec<u8> {
    let owned = |message: Message<'_>| (message.how, message.fds, message.bytes.to_vec());
    let mut all: Vec<_> = messages(seed).map(owned).collect();
    for (which, change) in changes {
        let count = all.len();
        let which = which % count;
        let (how, fds, bytes) = &mut all[which];
        let room = bytes.len().max(1);
        match change {
            Change::Missing if count > 1 => drop(all.remove(which)),
            Change::Missing => {}
            Change::Doubled => all.insert(which, all[which].clone()),
            Change::Swapped => {
                let other = (which + 1) % count;
                all.swap(which, other);
            }
            Change::Cut(at) => bytes.truncate(at % room),
            Change::Byte(at, with) => {
                if let Some(byte) = bytes.get_mut(at % room) {
                    *byte ^= with;
                }
            }
            Change::Word(at, word) => {
                if let Some(place) = bytes.get_mut(at % room..at % room + 4) {
                    place.copy_from_slice(&word.to_le_bytes());
                }
            }
            Change::How(other) => *how ^= other,
            Change::Fds(other) => *fds = *other,
            Change::Instead(other) => bytes.clone_from(other),
        }
    }
    let mut out = Vec::new();
    for (how, fds, bytes) in &all {
        put(&mut out, *how, *fds, bytes);
    }
    out
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let all = made::all().into_iter();
    let of_target = all.filter(|(of, ..)| *of == target);
    of_target.map(|(.., bytes)| bytes).collect()
}

/// Conversations of a target with some changes, and some that were never good.
fn conversations(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let seeds = prop::sample::select(seeds(target));
    let changes = vec((0..16_usize, change()), 1..4);
    let near = (seeds, changes).prop_map(|(seed, changes)| changed(&seed, &changes));
    prop_oneof![9 => near, 1 => vec(any::<u8>(), 0..400)]
}

fn run(target: &str, cases: u32, hear: fn(&[u8]) -> Option<End>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let ends = RefCell::new(BTreeMap::<_, u32>::new());
    let outcome = TestRunner::new(config).run(&conversations(target), |data| {
        let end = hear(&data);
        *ends.borrow_mut().entry(format!("{end:?}")).or_default() += 1;
        Ok(())
    });
    println!("{target}: {:?}", ends.borrow());
    outcome.unwrap_or_else(|why| panic!("{target}: {why}"));
}

/// One test, since each conversation counts the descriptors of the whole process.
#[test]
fn conversations_come_to_an_end_and_leave_nothing() {
    assert_eq!(taker::hear(&made::of_donor()), Some(End::Active));
    assert_eq!(donor::hear(&made::of_taker(&[])), Some(End::Released));
    for (target, name, bytes) in made::all() {
        let end = match target {
            "hear_taker" => taker::hear(&bytes),
            "hear_donor" => donor::hear(&bytes),
            _ => continue,
        };
        let expected = match (target, name.as_str()) {
            ("hear_taker", "takeover") => End::Active,
            ("hear_donor", "takeover") => End::Released,
            ("hear_donor", _) => End::RolledBack,
            _ => End::Left,
        };
        assert_eq!(end, Some(expected), "{target}, {name}");
    }
    run("hear_taker", 3000, taker::hear);
    run("hear_donor", 3000, donor::hear);
}

#[test]
fn records_of_every_kind_are_seeds() {
    let seeds = seeds("decode_record");
    assert_eq!(
        seeds.len(),
        socket_takeover::proto::records::Kind::ALL.len()
    );
    assert!(seeds.iter().all(|seed| record::decode(seed)));
}

proptest! {
    #![proptest_config(Config { cases: 5000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn records_near_good_ones_are_answered(
        seed in prop::sample::select(seeds("decode_record")),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        fds in prop::option::of(any::<u8>()),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = seed;
        for (at, with) in changes {
            *at.get_mut(&mut bytes) ^= with;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let (Some(fds), Some(first)) = (fds, bytes.first_mut()) {
            *first = fds;
        }
        record::decode(&bytes);
    }
}
