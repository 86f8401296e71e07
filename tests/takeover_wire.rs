//! What the donor does with records that are wrong, and the taker with a refusal: nothing
//! that a client could notice, and nothing that stays.

mod support;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use socket_takeover::event::Time;
use socket_takeover::proto::records::{Ack, Hello, Kind, Record, RefuseCode};
use socket_takeover::proto::wire::{MAX_RECORD, MAX_VERSION, MUST_UNDERSTAND};
use socket_takeover::takeover::channel::Sent;
use support::side::{At, FakeDonor, FakeTaker, encoded};
use support::{Kind as Client, Peers, Server, Stage, seed};

#[test]
fn serving_good_taker_is_let_in() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &[(Client::Talking, 5)]);
    let mut next = stage.replace(&mut donor, &[]);
    peers.echoes(40);
    peers.finish().assert_flawless();
    assert!(next.is_running());
}

#[test]
fn pinned_smoke() {
    use support::pinned::{Pinned, Step};
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &[(Client::Talking, 150)]);
    let mut taker = Pinned::take_over(&stage.path(), &[]);
    let mut steps = vec![];
    let begin = std::time::Instant::now();
    loop {
        let s = taker.next_step().unwrap();
        steps.push((s, begin.elapsed()));
        if s == Step::Received(Kind::End) { break; }
    }
    println!("{steps:?}");
    let taker = taker.release();
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    peers.echoes(40);
    peers.finish().assert_flawless();
}

#[test]
fn fake_taker_smoke() {
    for at in At::ALL {
        let stage = Stage::new();
        let donor = stage.serve(&[]);
        let peers = Peers::connect(donor.address(), seed(), &[(Client::Talking, 100)]);
        let taker = FakeTaker::at(&stage.path(), at);
        drop(taker);
        peers.echoes(40);
        peers.finish().assert_flawless();
    }
}

#[test]
fn fake_donor_smoke() {
    let stage = Stage::new();
    let mut donor = FakeDonor::bind(&stage.path());
    let peers = Peers::connect(donor.address(), seed(), &[(Client::Talking, 20)]);
    donor.accept(20);
    let taker = stage.take_over(&[]);
    donor.await_taker();
    donor.preload();
    donor.finish();
    donor.side().expect(Kind::Active);
    taker.wait_line("Serving on");
    donor.close();
    peers.echoes(40);
    peers.finish().assert_flawless();
}
