//! Releases that do not speak the same: what both know is agreed on, what one of them must
//! understand and does not is refused by name before anybody was held, and what a taker does
//! not read stays with its donor.
//!
//! The other release is played by the test. The bytes of the present one: `golden_wire.rs`;
//! an application of two releases: `state_versions.rs`.

use std::net::TcpStream;
use std::os::fd::AsFd;

use crate::support::side::{At, FakeDonor, FakeTaker, encoded};
use crate::support::{Client, Scene, Server, Stage};
use socket_takeover::proto::records::{
    DeclineCode, FailCode, Hello, Kind, Record, Refuse, RefuseCode, Welcome,
};
use socket_takeover::proto::wire::{FEATURES, MUST_UNDERSTAND, Versions};

/// Ranges of older releases, later ones, both, and none.
const RANGES: [(u16, u16); 9] = [
    (1, 1),
    (0, 1),
    (1, 2),
    (0, 99),
    (2, 3),
    (0, 0),
    (3, 2),
    (9, 1),
    (u16::MAX, u16::MAX),
];

const UNKNOWN: u16 = 0x0777;
const NEEDED: u16 = MUST_UNDERSTAND | UNKNOWN;

#[test]
fn accept_channel_any_range_of_versions_meets_at_the_highest_common_one() {
    let scene = Scene::new(&[]);
    for (min, max) in RANGES {
        let common = Versions::OURS.common(Versions { min, max });
        let mut taker = FakeTaker::connect(&scene.stage.path());
        let hello = Hello {
            min,
            max,
            ..FakeTaker::hello()
        };
        taker.side.say(&Record::Hello(hello));
        let answer = taker.side.hear().expect("an answer");
        match answer.record() {
            Record::Welcome(welcome) => {
                assert_eq!(Some(welcome.version), common, "{min} to {max}");
                assert_eq!(answer.header().version, welcome.version);
            }
            Record::Refuse(refuse) => {
                assert_eq!((refuse.code, common), (RefuseCode::Version, None));
                let spoken = Versions {
                    min: refuse.min,
                    max: refuse.max,
                };
                assert_eq!(spoken, Versions::OURS, "so that the taker can say it");
            }
            other => panic!("{other:?}"),
        }
        drop(taker);
        scene.is_as_before();
    }
    scene.end();
}

#[test]
fn accept_channel_features_are_those_that_both_know() {
    let scene = Scene::new(&[]);
    for features in [0, 1, u64::MAX] {
        let mut taker = FakeTaker::connect(&scene.stage.path());
        let hello = Hello {
            features,
            ..FakeTaker::hello()
        };
        taker.side.say(&Record::Hello(hello));
        let answer = taker.side.expect(Kind::Welcome);
        let Record::Welcome(welcome) = answer.record() else {
            unreachable!("it is of that kind");
        };
        assert_eq!(welcome.features, features & FEATURES);
        drop((answer, taker));
        scene.is_as_before();
    }
    scene.end();
}

/// Any taker that ends here has never had its donor hold: there is no line about an attempt.
#[test]
fn accept_channel_hello_that_must_be_understood_is_refused_by_name() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.side.extension = Some(NEEDED);
    taker.side.say(&Record::Hello(FakeTaker::hello()));
    let last = taker.side.last_word().expect("a last word");
    let Record::Refuse(refuse) = last.record() else {
        panic!("{last:?}");
    };
    assert_eq!(refuse.code, RefuseCode::Features);
    assert!(refuse.reason.contains("0x8777"), "{}", refuse.reason);
    scene
        .donor
        .wait_line("refused: record has extension 0x8777");
    scene.is_as_before();
    assert_eq!(scene.donor.log().count("takeover failed"), 0);
    scene.end();
}

/// A later taker adds to each of its records what this donor does not know and need not.
#[test]
fn later_taker_with_optional_fields_takes_over() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.side.extension = Some(UNKNOWN);
    taker.begin();
    taker.preload();
    taker.side.say(&Record::Drained);
    let end = taker.final_array();
    assert_eq!(end.items, taker.copies.len() as u64);
    drop(taker);
    scene.is_as_before();
    scene.end();
}

/// It is refused at the latest when it answers PREPARE, so nobody is held.
#[test]
fn later_taker_that_needs_more_is_given_up_before_the_freeze() {
    let scene = Scene::new(&[]);
    for at in [At::FirstBatch, At::Window, At::HoldPeers] {
        let mut taker = FakeTaker::at(&scene.stage.path(), at);
        taker.side.extension = Some(NEEDED);
        taker.side.say(&Record::Drained);
        assert!(taker.side.await_abort(), "{at:?}");
        drop(taker);
        scene.is_as_before();
    }
    for line in scene.donor.log().lines() {
        assert!(!line.contains("freeze_ms="), "{line}");
    }
    scene.end();
}

/// A donor played by the test, one client, and a real taker that has called.
struct Played {
    donor: FakeDonor,
    hello: Hello,
    client: Client,
    taker: Server,
    _stage: Stage,
}

impl Played {
    fn new(set: impl FnOnce(&mut FakeDonor)) -> Played {
        let stage = Stage::new();
        let mut donor = FakeDonor::bind(&stage.path());
        set(&mut donor);
        let client = Client::connect(donor.address());
        donor.accept(1);
        let taker = stage.take_over(&[]);
        let hello = donor.await_taker();
        Played {
            donor,
            hello,
            client,
            taker,
            _stage: stage,
        }
    }

    /// The taker has said why, that a retry is in vain, and owns nothing.
    #[track_caller]
    fn finds_no_common_ground(mut self, why: &str) {
        let last = self.donor.last_word().expect("a last word");
        let Record::Fail(fail) = last.record() else {
            panic!("{why}: {last:?}");
        };
        assert_eq!(fail.code, FailCode::Features, "{}", fail.reason);
        assert_eq!(self.taker.wait_exit(), 76, "{why}");
        self.taker.wait_line(why);
        self.taker.wait_line("the donor serves on");
    }
}

#[test]
fn hello_says_what_this_release_speaks_and_reads() {
    let Played { hello, .. } = Played::new(|_| ());
    let Versions { min, max } = Versions::OURS;
    assert_eq!((hello.min, hello.max), (min, max));
    assert_eq!(hello.features, FEATURES);
    assert_eq!(hello.newest_state, Some(1));
}

#[test]
fn hello_donors_of_any_versions_are_told_apart() {
    for (min, max) in RANGES {
        let mut played = Played::new(|_| ());
        let theirs = Versions { min, max };
        let offered = Versions {
            min: played.hello.min,
            max: played.hello.max,
        };
        match theirs.common(offered) {
            Some(_) => {
                played.donor.preload();
                played.donor.finish();
                played.taker.wait_line("Serving on ");
                played.client.talk();
            }
            None => {
                played.donor.side().say(&Record::Refuse(Refuse {
                    code: RefuseCode::Version,
                    min,
                    max,
                    reason: "a test",
                }));
                played.donor.hang_up();
                assert_eq!(played.taker.wait_exit(), 76, "{min} to {max}");
                played.taker.wait_line("no common version");
            }
        }
    }
}

#[test]
fn hello_answered_by_what_was_never_offered() {
    type Spoil = fn(&mut Welcome<'static>);
    let wrong: [(Spoil, &str); 4] = [
        (|welcome| welcome.version = 0, "version 0 was never offered"),
        (|welcome| welcome.version = 2, "version 2 was never offered"),
        (
            |welcome| welcome.features = 1,
            "features 0x1 were never offered",
        ),
        (|welcome| welcome.features = 1 << 63, "were never offered"),
    ];
    for (spoil, why) in wrong {
        let mut played = Played::new(|_| ());
        let mut welcome = played.donor.greeting();
        spoil(&mut welcome);
        let lease = played.donor.lease();
        let record = encoded(&Record::Welcome(welcome));
        played.donor.side().say_encoded(record, &[lease.as_fd()]);
        played.finds_no_common_ground(why);
    }
}

/// A WELCOME of a version whose layout is not known here.
#[test]
fn hello_answered_in_another_version() {
    let mut played = Played::new(|_| ());
    let mut record = encoded(&Record::Welcome(played.donor.greeting()));
    record[4] = 2;
    let lease = played.donor.lease();
    played.donor.side().say_encoded(record, &[lease.as_fd()]);
    played.finds_no_common_ground("has wire version 2, spoken here are 1 to 1");
}

#[test]
fn later_donor_with_optional_fields_is_taken_over() {
    let mut played = Played::new(|_| ());
    played.donor.side().extension = Some(UNKNOWN);
    played.donor.preload();
    played.donor.finish();
    played.taker.wait_line("Serving on ");
    played.client.talk();
}

/// Whichever record it is on, the taker leaves before it has said DRAINED.
#[test]
fn later_donor_that_must_be_understood_is_left_before_the_freeze() {
    type Reach = fn(&mut FakeDonor);
    let records: [(Reach, Reach); 3] = [
        (|_| (), FakeDonor::welcome),
        (FakeDonor::welcome, |donor| {
            let stuffing = donor.stuffing();
            donor.throw(&stuffing);
        }),
        (
            |donor| {
                donor.welcome();
                let stuffing = donor.stuffing();
                donor.send(&stuffing);
            },
            |donor| donor.side().say(&Record::Prepare),
        ),
    ];
    for (reach, say) in records {
        let mut played = Played::new(|_| ());
        reach(&mut played.donor);
        played.donor.side().extension = Some(NEEDED);
        say(&mut played.donor);
        played.finds_no_common_ground("extension 0x8777");
    }
}

/// Its state is unknown, so it is better off with its donor, which goes on to serve it.
#[test]
fn receive_peer_of_a_later_state_version_stays_with_its_donor() {
    let mut played = Played::new(|donor| donor.peer_version = 2);
    played.donor.welcome();
    let stuffing = played.donor.stuffing();
    let last = played.donor.throw(&stuffing);
    let ack = played.donor.side().expect(Kind::Ack);
    let Record::Ack(ack) = ack.record() else {
        unreachable!("it is of that kind");
    };
    assert_eq!(ack.sequence, last);
    let declined: Vec<_> = ack.declined.iter().map(|one| one.code).collect();
    assert_eq!(declined, [DeclineCode::StateVersion]);

    played.donor.side().say(&Record::Prepare);
    played.donor.side().expect(Kind::Drained);
    played.donor.finish_without_peers();
    played.taker.wait_line("Serving on ");
    // New clients are the taker's.
    let mut new = Client::connect(played.donor.address());
    new.talk();
    // The old one is its donor's alone: what it says is there, and its end is its donor's.
    let peer = played.donor.take_peer();
    echo_once(&peer, &mut played.client);
    drop((peer, stuffing));
    assert!(played.client.ended());
}

fn echo_once(mut peer: &TcpStream, client: &mut Client) {
    use std::io::{Read, Write};
    peer.set_nonblocking(false).unwrap();
    client.say();
    let mut message = [0; 4];
    peer.read_exact(&mut message).unwrap();
    peer.write_all(&message).unwrap();
    client.hear();
}
