//! Donors that die, stop, refuse, or send what is wrong. Up to END the taker leaves with
//! nothing; from END on the lease is all it needs.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::pinned::{Pinned, Step};
use crate::support::side::{FakeDonor, Stuffing, encoded};
use crate::support::{Client, Kind as Peer, Peers, Scene, Server, Stage, seed};
use nix::sys::signal::Signal;
use socket_takeover::proto::records::{Active, End, Kind, Record, RefuseCode, Welcome};
use socket_takeover::proto::wire::{HEADER, patch_sequence};
use socket_takeover::takeover::internal::lease::Verdict;

/// A donor held at `step` of a takeover by a real taker.
fn held_at(stage: &Stage, donor: Server, step: Step) -> (Pinned, Server) {
    let mut donor = Pinned::hold(donor);
    let taker = stage.take_over(&[]);
    donor.run_to(step, 1);
    (donor, taker)
}

#[test]
fn donor_killed_before_end_leaves_nobody() {
    for step in [
        Step::Sent(Kind::Welcome),
        Step::Sent(Kind::Items),
        Step::Sent(Kind::State),
        Step::Received(Kind::Ack),
        Step::Sent(Kind::Prepare),
        Step::Received(Kind::Drained),
        // Granted, but nobody was told.
        Step::Sending(Kind::End),
    ] {
        let Scene {
            stage,
            donor,
            peers: _peers,
            ..
        } = Scene::new(&[]);
        let address = donor.address();
        let mut client = Client::connect(address);
        client.talk();
        let (donor, mut taker) = held_at(&stage, donor, step);
        donor.kill().wait_exit();
        assert_eq!(taker.wait_exit(), 1, "{step:?}");
        taker.wait_line("the donor has died");
        // No copy is left anywhere.
        client.ended();
        let error = std::net::TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        // And PATH is free for a start from nothing.
        let mut again = stage.serve(&[]);
        assert!(again.is_running());
    }
}

/// It may just as well have handed over to somebody else: the answer is to ask again.
#[test]
fn donor_killed_before_welcome_is_to_be_asked_again() {
    let Scene { stage, donor, .. } = Scene::new(&[]);
    let (donor, mut taker) = held_at(&stage, donor, Step::Sending(Kind::Welcome));
    donor.kill().wait_exit();
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("try again");
    assert_eq!(stage.take_over(&[]).wait_exit(), 69);
}

#[test]
fn donor_killed_after_end_is_claimed_from() {
    let Scene {
        stage,
        donor,
        peers,
        ..
    } = Scene::new(&[]);
    let (donor, mut taker) = held_at(&stage, donor, Step::Sent(Kind::End));
    donor.kill().wait_exit();
    taker.wait_line("Serving on ");
    peers.echoes(4);
    let mut next = stage.replace(&mut taker, &[]);
    peers.finish().assert_flawless();
    assert!(next.is_running());
}

/// The same, but the donor has been dead for long when the taker comes to look.
#[test]
fn validate_donor_is_dead_already() {
    let mut scene = Scene::new(&[]);
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Received(Kind::End), 1);
    scene.donor.signal(Signal::SIGKILL);
    scene.donor.wait_exit();
    scene.donor = taker.release();
    scene.donor.wait_line("Serving on ");
    scene.peers.echoes(4);
    scene.end();
}

#[test]
fn donor_stopped_after_end_is_claimed_from_and_exits() {
    let mut scene = Scene::new(&[]);
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Received(Kind::End), 1);
    scene.donor.stop();
    let taker = taker.release();
    taker.wait_line("Serving on ");
    scene.peers.echoes(4);
    scene.donor.go_on();
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.donor = taker;
    scene.end();
}

#[test]
fn hello_refused_says_why_by_exit_code() {
    let codes = [
        (RefuseCode::Version, 76),
        (RefuseCode::Features, 76),
        (RefuseCode::Slots, 75),
        (RefuseCode::Busy, 75),
        (RefuseCode::Clock, 75),
        (RefuseCode::Stopping, 75),
        (RefuseCode::Identity, 75),
        (RefuseCode::Application, 75),
        (RefuseCode::Other(999), 75),
    ];
    let stage = Stage::new();
    let mut donor = FakeDonor::bind(&stage.path());
    for (code, exit) in codes {
        let mut taker = stage.take_over(&[]);
        donor.await_taker();
        donor.refuse(code);
        assert_eq!(taker.wait_exit(), exit, "{code:?}");
        taker.wait_line(&format!("refused: {code} (a test)"));
        taker.wait_line("the donor serves on");
    }
}

/// A donor with clients, played by the test, and a real taker that has just called.
struct Played {
    donor: FakeDonor,
    peers: Peers,
    taker: Server,
    _stage: Stage,
}

impl Played {
    fn new() -> Played {
        const CLIENTS: usize = 20;
        let stage = Stage::new();
        let mut donor = FakeDonor::bind(&stage.path());
        let peers = Peers::connect(donor.address(), seed(), &[(Peer::Talking, CLIENTS)]);
        donor.accept(CLIENTS);
        let taker = stage.take_over(&[]);
        donor.await_taker();
        Played {
            donor,
            peers,
            taker,
            _stage: stage,
        }
    }

    /// The taker has given up, said why, and can never own.
    #[track_caller]
    fn gives_up(mut self, what: &str) {
        let last = self.donor.last_word();
        let last = last.unwrap_or_else(|| panic!("{what}: no last word"));
        assert_eq!(last.record().kind(), Kind::Fail, "{what}");
        assert_eq!(self.taker.wait_exit(), 75, "{what}");
        assert_ne!(
            self.donor.revoke(),
            Verdict::Lost,
            "{what}: nothing was claimed"
        );
    }
}

#[test]
fn good_donor_is_taken_over() {
    let Played {
        mut donor,
        peers,
        taker,
        _stage,
    } = Played::new();
    donor.preload();
    donor.finish();
    donor.side().expect(Kind::Active);
    taker.wait_line("Serving on ");
    donor.close();
    peers.echoes(40);
    peers.finish().assert_flawless();
}

#[test]
fn hello_answered_by_a_wrong_welcome() {
    type Spoil = fn(&mut Welcome<'static>);
    let wrong: [(&str, Spoil); 3] = [
        ("application", |welcome| welcome.application = "stranger"),
        ("clock ahead", |welcome| welcome.now_ns += 600_000_000_000),
        ("clock behind", |welcome| welcome.now_ns = 0),
    ];
    for (what, spoil) in wrong {
        let mut played = Played::new();
        let mut welcome = played.donor.greeting();
        spoil(&mut welcome);
        let lease = played.donor.lease();
        let record = encoded(&Record::Welcome(welcome));
        played.donor.side().say_encoded(record, &[lease.as_fd()]);
        played.donor.grant();
        played.gives_up(what);
    }
    let mut played = Played::new();
    let welcome = encoded(&Record::Welcome(played.donor.greeting()));
    let (socket, _other) = UnixStream::pair().unwrap();
    played.donor.side().say_encoded(welcome, &[socket.as_fd()]);
    played.donor.grant();
    played.gives_up("lease that is none");
}

#[test]
fn receive_wrong_items() {
    type Spoil = fn(&mut Stuffing);
    let wrong: [(&str, Spoil); 6] = [
        ("a cookie of what is no socket", |stuffing| {
            // The service's, which leads: behind the header, the count and its id.
            stuffing.items[HEADER + 4 + 8] = 1;
        }),
        ("a descriptor is missing", |stuffing| {
            stuffing.fds.pop();
        }),
        ("a descriptor too many", |stuffing| {
            let more = stuffing.fds[0].try_clone().unwrap();
            stuffing.fds.push(more);
        }),
        ("two sockets changed places", |stuffing| {
            stuffing.fds.swap(1, 2)
        }),
        ("the listener in a peer's place", |stuffing| {
            stuffing.fds.swap(0, 1)
        }),
        ("a Unix socket in a peer's place", |stuffing| {
            let (socket, _other) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            stuffing.fds[1] = socket.into();
        }),
    ];
    for (what, spoil) in wrong {
        let mut played = Played::new();
        played.donor.welcome();
        let mut stuffing = played.donor.stuffing();
        spoil(&mut stuffing);
        played.donor.throw(&stuffing);
        played.donor.grant();
        played.gives_up(what);
    }
    let mut played = Played::new();
    played.donor.welcome();
    let stuffing = played.donor.stuffing();
    played.donor.send(&stuffing);
    played.donor.throw(&stuffing);
    played.donor.grant();
    played.gives_up("the same items twice");
}

/// Found before anybody is held, and not at END.
#[test]
fn receive_prepare_before_the_items_have_their_state() {
    let mut played = Played::new();
    played.donor.welcome();
    let mut stuffing = played.donor.stuffing();
    let items = std::mem::take(&mut stuffing.items);
    let fds: Vec<_> = stuffing.fds.iter().map(AsFd::as_fd).collect();
    played.donor.side().say_encoded(items, &fds);
    played.donor.side().say(&Record::Prepare);
    let last = played.donor.last_word().expect("a last word");
    assert_eq!(last.record().kind(), Kind::Fail);
    assert_eq!(played.taker.wait_exit(), 75);
    played.taker.wait_line("an item came without state");
}

#[test]
fn settle_end_that_does_not_fit() {
    type Spoil = fn(&mut End);
    let wrong: [(&str, Spoil); 5] = [
        ("items", |end| end.items += 1),
        ("closed", |end| end.closed += 1),
        ("new", |end| end.new += 1),
        ("changed", |end| end.changed -= 1),
        ("digest", |end| end.digest ^= 1),
    ];
    for (what, spoil) in wrong {
        let mut played = Played::new();
        played.donor.preload();
        played.donor.final_array();
        played.donor.grant();
        let mut end = played.donor.ending();
        spoil(&mut end);
        played.donor.side().say(&Record::End(end));
        played.gives_up(what);
    }
}

/// Without the grant END means nothing: the claim finds the lease empty.
#[test]
fn settle_end_without_grant() {
    let mut played = Played::new();
    played.donor.preload();
    played.donor.final_array();
    let end = Record::End(played.donor.ending());
    played.donor.side().say(&end);
    assert_eq!(played.taker.wait_exit(), 75);
    played.taker.wait_line("the donor took back its grant");
}

#[test]
fn any_state_words_that_are_not_for_now() {
    let end = Record::End(End {
        items: 0,
        closed: 0,
        new: 0,
        changed: 0,
        held_ns: 0,
        digest: 0,
        rounds: None,
    });
    type Reach = fn(&mut FakeDonor);
    let states: [(&str, Reach); 3] = [
        ("Hello", |_| ()),
        ("Receive", FakeDonor::welcome),
        ("Settle", FakeDonor::preload),
    ];
    for (state, reach) in states {
        let mut wrong = vec![Record::Drained, Record::Active(Active::default())];
        match state {
            "Hello" => wrong.extend([Record::Prepare, end.clone()]),
            "Receive" => wrong.push(end.clone()),
            _ => wrong.push(Record::Prepare),
        }
        for record in wrong {
            let mut played = Played::new();
            reach(&mut played.donor);
            played.donor.grant();
            played.donor.side().say(&record);
            played.gives_up(&format!("{record:?} in {state}"));
        }
        let mut played = Played::new();
        reach(&mut played.donor);
        played.donor.grant();
        let mut skipped = encoded(&Record::Prepare);
        patch_sequence(&mut skipped, played.donor.side().next_number() + 1);
        let _ = played.donor.side().throw(&skipped, &[]).unwrap();
        played.gives_up(&format!("a number skipped in {state}"));

        let mut played = Played::new();
        reach(&mut played.donor);
        played.donor.grant();
        let _ = played.donor.side().throw(b"HTTP/1.1 400", &[]).unwrap();
        played.gives_up(&format!("text in {state}"));
    }
}
