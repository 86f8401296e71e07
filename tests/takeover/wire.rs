//! What a donor does with records that are wrong: nothing that a client could notice, and
//! nothing that stays.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::support::Scene;
use crate::support::side::{At, FakeTaker, encoded, extend};
use socket_takeover::event::Time;
use socket_takeover::proto::records::{
    Abort, AckBuilder, Active, End, Fail, FailCode, Hello, Kind, Record, Refuse, RefuseCode,
};
use socket_takeover::proto::wire::{
    HEADER, MAX_RECORD, MAX_VERSION, MUST_UNDERSTAND, patch_sequence,
};
use socket_takeover::takeover::internal::lease::Verdict;

/// The donor's answer to a HELLO.
fn answer(scene: &Scene, hello: Hello) -> RefuseCode {
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.side.say(&Record::Hello(hello));
    taker.refusal()
}

#[test]
fn accept_channel_hello_that_does_not_fit_is_refused() {
    let scene = Scene::new(&[]);
    let good = FakeTaker::hello;
    let now = Time::now();
    let unfit = [
        (
            RefuseCode::Version,
            Hello {
                min: MAX_VERSION + 1,
                max: 99,
                ..good()
            },
        ),
        (
            RefuseCode::Version,
            Hello {
                min: 0,
                max: 0,
                ..good()
            },
        ),
        (
            RefuseCode::Version,
            Hello {
                min: 9,
                max: 1,
                ..good()
            },
        ),
        (
            RefuseCode::Clock,
            Hello {
                now_ns: (now + Duration::from_secs(600)).as_ns(),
                ..good()
            },
        ),
        (
            RefuseCode::Clock,
            Hello {
                now_ns: 0,
                ..good()
            },
        ),
        (
            RefuseCode::Slots,
            Hello {
                free_slots: 0,
                ..good()
            },
        ),
        (
            RefuseCode::Slots,
            Hello {
                free_slots: 74,
                ..good()
            },
        ),
    ];
    for (code, hello) in unfit {
        assert_eq!(answer(&scene, hello), code, "{hello:?}");
        scene.is_as_before();
    }
    scene.end();
}

#[test]
fn accept_channel_hello_of_a_later_release_is_welcomed() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    let hello = Hello {
        min: 0,
        max: 99,
        features: u64::MAX,
        ..FakeTaker::hello()
    };
    let mut record = encoded(&Record::Hello(hello));
    extend(&mut record, 7, b"");
    taker.side.say_encoded(record, &[]);
    taker.side.expect(Kind::Welcome);
    drop(taker);
    scene.is_as_before();
    scene.end();
}

#[test]
fn accept_channel_descriptors_with_hello_do_not_stay() {
    let scene = Scene::new(&[]);
    let file = File::open("/dev/null").unwrap();
    for _ in 0..20 {
        let mut taker = FakeTaker::connect(&scene.stage.path());
        let hello = encoded(&Record::Hello(FakeTaker::hello()));
        match taker.side.throw(&hello, &[file.as_fd(), file.as_fd()]) {
            // SO_PASSRIGHTS, Linux 6.16.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
            Ok(_) => assert!(taker.side.hear().is_none(), "hung up without a word"),
        }
        drop(taker);
        scene.is_as_before();
    }
    scene.end();
}

/// A record whose number is `number`, spoilt by `spoil`.
fn spoilt(number: u32, record: &Record<'_>, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = encoded(record);
    patch_sequence(&mut bytes, number);
    spoil(&mut bytes);
    bytes
}

/// What no taker may say as its record `number`, whatever the donor's state.
fn garbage(number: u32) -> Vec<(&'static str, Vec<u8>)> {
    let hello = Record::Hello(FakeTaker::hello());
    let plain = |spoil: &dyn Fn(&mut Vec<u8>)| spoilt(number, &hello, spoil);
    vec![
        ("one byte", vec![0]),
        ("a header cut short", vec![b'S'; HEADER - 1]),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("magic", plain(&|bytes| bytes[0] ^= 1)),
        // A HELLO is read whatever its version, so that versions can be refused.
        (
            "version",
            spoilt(number, &Record::Drained, |bytes| bytes[4] = 99),
        ),
        ("kind", plain(&|bytes| bytes[6] = 0x7f)),
        ("flags", plain(&|bytes| bytes[7] = 0x80)),
        ("length 0", plain(&|bytes| bytes[8..12].fill(0))),
        ("length 2³²−1", plain(&|bytes| bytes[8..12].fill(0xff))),
        ("cut short", plain(&|bytes| bytes.truncate(HEADER + 3))),
        (
            "must understand",
            plain(&|bytes| extend(bytes, MUST_UNDERSTAND | 7, b"")),
        ),
        (
            "number skipped",
            plain(&|bytes| patch_sequence(bytes, number + 1)),
        ),
        (
            "number repeated",
            plain(&|bytes| patch_sequence(bytes, number.wrapping_sub(1))),
        ),
        ("longer than a record", vec![b'S'; MAX_RECORD + 1]),
    ]
}

/// Records that are valid, and not for a taker to say.
fn donors_words() -> Vec<Record<'static>> {
    let reason = "a test";
    let end = End {
        items: 0,
        closed: 0,
        new: 0,
        changed: 0,
        held_ns: 0,
        digest: 0,
        rounds: None,
    };
    vec![
        Record::Refuse(Refuse {
            code: RefuseCode::Busy,
            min: 1,
            max: 1,
            reason,
        }),
        Record::Prepare,
        Record::End(end),
        Record::Abort(Abort { reason }),
    ]
}

#[test]
fn accept_channel_anything_but_hello_is_hung_up_on() {
    let scene = Scene::new(&[]);
    let mut wrong = garbage(0);
    let valid = donors_words();
    let takers = [Record::Drained, Record::Active(Active::default()), fail()];
    for record in valid.iter().chain(&takers) {
        wrong.push(("not HELLO", encoded(record)));
    }
    wrong.push(("an ACK of nothing", ack_of(0)));
    for (what, bytes) in wrong {
        let mut taker = FakeTaker::connect(&scene.stage.path());
        let _ = taker.side.throw(&bytes, &[]).unwrap();
        match what {
            // It is a taker, of a later release; this it has to be told.
            "must understand" => assert_eq!(taker.refusal(), RefuseCode::Features),
            _ => assert!(
                taker.side.hear().is_none(),
                "{what}: nothing is handed over"
            ),
        }
        scene.is_as_before();
    }
    scene.end();
}

/// Every state in which a taker has copies, against everything that is wrong in it. The
/// last word is ABORT, and the donor serves on with what it had.
#[test]
fn any_state_wrong_record_rolls_back() {
    let scene = Scene::new(&[]);
    for at in [At::FirstBatch, At::Window, At::HoldPeers, At::AwaitClaim] {
        let number = FakeTaker::at(&scene.stage.path(), at).side.next_number();
        scene.is_as_before();
        let mut wrong = garbage(number);
        let mut say = |record: &Record<'_>| {
            wrong.push(("not for now", spoilt(number, record, |_| ())));
        };
        donors_words().iter().for_each(&mut say);
        say(&Record::Hello(FakeTaker::hello()));
        say(&Record::Active(Active::default()));
        // DRAINED is what HoldPeers waits for; an ACK is what FirstBatch and Window do.
        if at != At::HoldPeers {
            say(&Record::Drained);
        }
        let mut ack = ack_of(12_345);
        patch_sequence(&mut ack, number);
        wrong.push(("an ACK out of its turn", ack));
        for (what, bytes) in wrong {
            let mut taker = FakeTaker::at(&scene.stage.path(), at);
            let _ = taker.side.throw(&bytes, &[]).unwrap();
            let last = taker.side.await_abort();
            assert!(last, "{at:?}, {what}: ABORT is the answer");
            assert_eq!(taker.claim(), Verdict::Lost, "{at:?}, {what}");
            drop(taker);
            scene.is_as_before();
        }
    }
    scene.end();
}

#[test]
fn first_batch_acknowledged_twice_rolls_back() {
    let scene = Scene::new(&[]);
    let mut taker = FakeTaker::connect(&scene.stage.path());
    taker.begin();
    let batch = taker.batch().unwrap();
    taker.ack(&batch);
    taker.ack(&batch);
    assert!(taker.side.await_abort());
    drop(taker);
    scene.is_as_before();
    scene.end();
}

fn fail() -> Record<'static> {
    Record::Fail(Fail {
        code: FailCode::Internal,
        item: None,
        reason: "a test",
    })
}

fn ack_of(sequence: u32) -> Vec<u8> {
    let mut record = Vec::new();
    AckBuilder::new(sequence, &mut record).finish();
    record
}
