//! Takers that do not do what they should: silent, deaf, lying, failing, choosy, dying. The
//! donor serves on, or what is lost is lost with the one who owned it.

use std::io::ErrorKind;

use crate::support;
use crate::support::pinned::{Pinned, Step};
use crate::support::side::{At, FakeTaker};
use crate::support::{Client, Kind as Peer, Scene};
use nix::sys::signal::Signal;
use socket_takeover::proto::records::{Active, ItemKind, Kind, Record};
use socket_takeover::takeover::internal::lease::Verdict;

/// Deadlines that a test can wait for, and that a busy machine still keeps.
const SHORT: [&str; 8] = [
    "--deadline",
    "hello=500",
    "--deadline",
    "preload=1500",
    "--deadline",
    "freeze=500",
    "--deadline",
    "claim=500",
];

/// New clients that the final array has no room for in one go: their items fill the channel.
const CROWD: usize = 2500;

/// What the donor says last, and that the lease is its own.
#[track_caller]
fn hear_out(mut taker: FakeTaker, at: At) {
    if at == At::AcceptChannel {
        assert!(taker.side.hear().is_none(), "hung up without a word");
        return;
    }
    assert!(taker.side.await_abort(), "{at:?}: ABORT is the answer");
    assert_eq!(taker.claim(), Verdict::Lost, "{at:?}");
}

#[test]
fn any_state_taker_silent_is_given_up() {
    let scene = Scene::new(&SHORT);
    for at in At::ALL {
        hear_out(FakeTaker::at(&scene.stage.path(), at), at);
        scene.is_as_before();
    }
    scene.end();
}

#[test]
fn any_state_taker_fails() {
    let scene = Scene::new(&[]);
    for at in At::ALL {
        let mut taker = FakeTaker::at(&scene.stage.path(), at);
        taker.fail();
        hear_out(taker, at);
        scene.is_as_before();
    }
    scene.end();
}

/// At the ACK the donor goes on with the next batch and finds nobody to take it. Why is still
/// to be read.
#[test]
fn taker_that_fails_and_hangs_up_at_once_is_heard_out() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.begin();
    let batch = taker.batch().expect("the first of two");
    scene.donor.stop();
    taker.ack(&batch);
    taker.fail();
    drop(taker);
    scene.donor.go_on();
    let line = scene.donor.wait_line("takeover failed, we serve on");
    assert!(line.contains("the taker gave up"), "{line}");
    scene.is_as_before();
    scene.end();
}

#[test]
fn any_state_taker_hangs_up() {
    let scene = Scene::new(&[]);
    for _ in 0..5 {
        for at in At::ALL {
            drop(FakeTaker::at(&scene.stage.path(), at));
            scene.is_as_before();
        }
    }
    scene.end();
}

#[test]
fn await_claim_taker_says_active_without_claim() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::at(&scene.stage.path(), At::AwaitClaim);
    taker.side.say(&Record::Active(Active::default()));
    hear_out(taker, At::AwaitClaim);
    scene.donor.wait_line("said ACTIVE and had not claimed");
    scene.is_as_before();
    scene.end();
}

/// The claim is refused by the kernel, and the taker leaves with nothing.
#[test]
fn await_claim_taker_claims_late() {
    let mut scene = Scene::new(&["--deadline", "claim=300"]);
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Received(Kind::End), 1);
    scene.donor.wait_line("takeover failed, we serve on");
    let mut taker = taker.release();
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("the donor took back its grant");
    scene.is_as_before();
    assert!(scene.donor.is_running());
    scene.end();
}

#[test]
fn send_fd_array_taker_never_reads() {
    let scene = Scene::new(&["--deadline", "freeze=3000"]);
    let mut taker = FakeTaker::at(&scene.stage.path(), At::HoldPeers);
    scene.peers.add(Peer::Idle, CROWD);
    taker.side.say(&Record::Drained);
    let line = scene.donor.wait_line("takeover failed, we serve on");
    drop(taker);
    assert!(line.contains("did not answer in time"), "{line}");
    assert!(line.contains("prepare_ms="), "it was held: {line}");
    assert!(!line.contains("array_ms="), "END was never sent: {line}");
    scene.peers.echoes(4);
    scene.end();
}

#[test]
fn send_fd_array_taker_reads_at_last() {
    let scene = Scene::new(&["--deadline", "freeze=30000"]);
    let mut taker = FakeTaker::at(&scene.stage.path(), At::HoldPeers);
    scene.peers.add(Peer::Idle, CROWD);
    taker.side.say(&Record::Drained);
    let end = taker.final_array();
    // The last ones may not be accepted yet: then the listener has work for its next owner.
    assert!(end.new > CROWD as u64 / 2, "{end:?}");
    assert_eq!(taker.peers() as u64, Scene::PEERS as u64 + end.new);
    assert_eq!(end.items, taker.copies.len() as u64);
    drop(taker);
    scene.peers.echoes(4);
    scene.end();
}

/// A takeover of everything but the peers: the donor has them alone from then on.
fn decline_peers(scene: &Scene) -> FakeTaker {
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.begin();
    taker.preload_without_peers();
    taker.side.say(&Record::Drained);
    taker.final_array();
    assert_eq!(taker.peers(), 0);
    assert_eq!(taker.claim(), Verdict::Won);
    taker.side.say(&Record::Active(Active::default()));
    scene.donor.wait_line("draining 73 declined Peers");
    taker
}

#[test]
fn peers_declined_are_served_to_their_end() {
    let mut scene = Scene::new(&[]);
    let address = scene.donor.address();
    let mut taker = decline_peers(&scene);
    scene.peers.echoes(40);

    // New clients are the taker's: nobody else has the listener.
    let listener = taker.listener();
    while let Ok((stranger, _)) = listener.accept() {
        drop(stranger);
    }
    let client = Client::connect(address);
    let (accepted, from) = accept(&listener);
    assert!(from.ip().is_loopback());
    scene.peers.echoes(40);
    drop(accepted);
    assert!(client.ended());

    scene.peers.finish().assert_flawless();
    assert_eq!(scene.donor.wait_exit(), 0);
}

fn accept(listener: &std::net::TcpListener) -> (std::net::TcpStream, std::net::SocketAddr) {
    loop {
        assert!(support::wait_readable(listener, support::BOUND).unwrap());
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            accepted => return accepted.expect("a client"),
        }
    }
}

#[test]
fn drain_term_ends_it() {
    let mut scene = Scene::new(&[]);
    let taker = decline_peers(&scene);
    scene.peers.echoes(4);
    scene.donor.signal(Signal::SIGTERM);
    assert_eq!(scene.donor.wait_exit(), 0);
    drop(taker);
}

#[test]
fn drain_deadline_ends_it() {
    let mut scene = Scene::new(&["--deadline", "drain=300"]);
    let taker = decline_peers(&scene);
    assert_eq!(scene.donor.wait_exit(), 0);
    drop(taker);
}

#[test]
fn preload_listener_declined_is_refused() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.begin();
    let batch = taker.batch().expect("a first batch");
    let listener: Vec<u64> = taker
        .copies
        .iter()
        .filter(|(_, copy)| copy.kind == ItemKind::Listener)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(listener.len(), 1, "the listener leads");
    taker.ack_without(&batch, &listener);
    hear_out(taker, At::FirstBatch);
    scene.donor.wait_line("listener cannot be declined");
    scene.is_as_before();
    scene.end();
}

/// It owned, so its peers are lost with it; nobody else has to be.
#[test]
fn taker_killed_right_after_its_claim_orphans_the_donor() {
    let mut scene = Scene::new(&[]);
    let address = scene.donor.address();
    let mut lost = Client::connect(address);
    lost.talk();
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Sending(Kind::Active), 1);
    taker.kill().wait_exit();
    scene.donor.wait_line("died right after it took over");
    lost.ended();

    let mut found = Client::connect(address);
    found.talk();
    let mut next = scene.stage.replace(&mut scene.donor, &[]);
    found.talk();
    assert!(next.is_running());
}
