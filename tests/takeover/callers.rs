//! Callers at PATH that are too many, too small, or no takers at all: one takeover at a time,
//! and no client hears of the rest.

use crate::support;
use crate::support::pinned::{Pinned, Step};
use crate::support::side::FakeTaker;
use crate::support::{Scene, Server};
use socket_takeover::proto::records::{Kind, Record, RefuseCode};
use socket_takeover::takeover::ConnectError;
use std::time::Instant;

const CALLERS: usize = 10;
const RACERS: usize = 50;

#[test]
fn preload_ten_more_takers_are_told_busy() {
    let mut scene = Scene::new(&[]);
    let mut first = Pinned::take_over(&scene.stage.path(), &[]);
    first.run_to(Step::Received(Kind::Welcome), 1);
    let mut others: Vec<Server> = (0..CALLERS).map(|_| scene.stage.take_over(&[])).collect();
    for other in &mut others {
        assert_eq!(other.wait_exit(), 75);
        other.wait_line("another takeover is under way");
    }
    let first = first.release();
    first.wait_line("Serving on ");
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.donor = first;
    scene.end();
}

/// All at once: some are told BUSY or find the queue full, some come early enough to take over
/// from the one before them. Whoever owned hands over or serves, whoever did not leaves with 75,
/// and one is left.
#[test]
fn fifty_takers_race() {
    let mut scene = Scene::new(&[]);
    let takers: Vec<Server> = (0..RACERS).map(|_| scene.stage.take_over(&[])).collect();
    assert_eq!(scene.donor.wait_exit(), 0);
    let mut owners = Vec::new();
    for mut taker in takers {
        // It comes to this, or the process ends without it.
        match taker.log().wait("taken over from pid", 1, support::BOUND) {
            Some(line) => owners.push((generation(&line), giver(&line), taker)),
            None => assert_eq!(taker.wait_exit(), 75, "pid {}", taker.pid()),
        }
    }
    owners.sort_by_key(|(generation, ..)| *generation);
    println!("{} of {RACERS} owned in turn", owners.len());
    let (.., mut owner) = owners.pop().expect("one wins");
    // Each got it from the one before, so at every instant there was one to get it from.
    let mut before = scene.donor.pid();
    for (number, (generation, giver, mut gone)) in owners.into_iter().enumerate() {
        assert_eq!((generation, giver), (number as u64 + 1, before));
        assert_eq!(gone.wait_exit(), 0);
        before = gone.pid();
    }
    let line = owner.wait_line("taken over from pid");
    assert_eq!(giver(&line), before);
    assert!(owner.is_running());
    scene.donor = owner;
    scene.peers.echoes(4);
    scene.end();
}

/// It called the donor, who handed over to somebody else and left without having seen it: a
/// retry finds the new owner, and nobody has died.
#[test]
fn hello_donor_hands_over_to_another_and_leaves() {
    let mut scene = Scene::new(&[]);
    let mut first = Pinned::take_over(&scene.stage.path(), &[]);
    first.run_to(Step::Received(Kind::End), 1);
    scene.donor.stop();
    let mut late = Pinned::take_over(&scene.stage.path(), &[]);
    late.run_to(Step::Sent(Kind::Hello), 1);
    let mut late = late.release();
    let first = first.release();
    first.wait_line("Serving on ");
    scene.donor.go_on();
    assert_eq!(scene.donor.wait_exit(), 0);
    assert_eq!(late.wait_exit(), 75);
    scene.donor = first;
    scene.end();
}

fn generation(line: &str) -> u64 {
    let mut words = line.split_whitespace();
    let number = words.find_map(|word| word.strip_prefix("generation="));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// Whom it says that it has taken over from.
fn giver(line: &str) -> u32 {
    let (_, rest) = line.split_once("taken over from pid ").expect("it says so");
    let number = rest.split(':').next();
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn accept_channel_hundred_more_silent_callers() {
    // Long enough for a hundred calls on a slow machine.
    let scene = Scene::new(&["--deadline", "hello=4000"]);
    let since = Instant::now();
    let mut first = FakeTaker::connect(&scene.stage.path());
    for _ in 0..100 {
        let mut other = FakeTaker::connect(&scene.stage.path());
        assert_eq!(other.refusal(), RefuseCode::Busy);
    }
    scene.peers.echoes(4);
    assert!(first.side.hear().is_none(), "the deadline is its end");
    scene.is_as_before();
    quiet(&scene.donor, since);
    scene.end();
}

/// Faster than the donor accepts them: its queue may be full for a moment, no more.
#[test]
fn idle_thousand_callers_hang_up_at_once() {
    let scene = Scene::new(&[]);
    let since = Instant::now();
    let mut called = 0;
    for _ in 0..1000 {
        match FakeTaker::try_connect(&scene.stage.path()) {
            Ok(taker) => {
                called += 1;
                drop(taker);
            }
            Err(error) => assert!(matches!(error, ConnectError::Busy), "{error}"),
        }
    }
    assert!(called > 0);
    scene.is_as_before();
    // One that is heard stands behind all of them; BUSY means that one of them is before it.
    loop {
        let mut last = FakeTaker::connect(&scene.stage.path());
        last.side.say(&Record::Drained);
        if last.side.hear().is_none() {
            break;
        }
    }
    scene.is_as_before();
    quiet(&scene.donor, since);
    scene.end();
}

/// Callers cannot fill the log: one line a second about all of a kind, of which there are two.
#[track_caller]
fn quiet(donor: &Server, since: Instant) {
    let lines = donor.log().lines();
    let callers = donor.log().count("a call for a takeover by pid");
    let most = 2 * (since.elapsed().as_secs() as usize + 1);
    assert!((1..=most).contains(&callers), "{lines:#?}");
    assert!(lines.len() <= callers + 3, "{lines:#?}");
}

#[test]
fn hello_taker_with_few_descriptors_is_refused() {
    let scene = Scene::new(&[]);
    let mut args: Vec<std::ffi::OsString> = vec!["-G".into(), "-T".into()];
    args.push(scene.stage.path().into());
    let mut taker = Server::start_limited(90, &args);
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("raise its limit of open files");
    scene
        .donor
        .wait_line("refused: 75 items need a descriptor each");
    // Before anything was sent, let alone held.
    assert_eq!(scene.donor.log().count("Current fd_array"), 0);
    scene.is_as_before();
    scene.end();
}
