//! Callers of our own user that do what no honest taker would: floods, pushed descriptors, a
//! forged lease. The service is unaffected, what the donor holds is as before, the log has a line
//! and no flood, and the next takeover succeeds. See SECURITY.md.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::support;
use crate::support::side::{At, FakeTaker, encoded};
use crate::support::{Kind as Peer, Scene, Server, Stage};
use socket_takeover::proto::records::{Active, Hello, Record, RefuseCode};
use socket_takeover::takeover::ConnectError;
use socket_takeover::takeover::internal::lease::Verdict;

/// How often a nuisance is one.
const MANY: usize = 1000;

/// A thousand in all: each is heard, and what the log says of them fits on a page.
#[test]
fn callers_of_our_own_user_say_nothing_that_fits() {
    let scene = Scene::new(&[]);
    let hello = encoded(&Record::Hello(FakeTaker::hello()));
    let strange = encoded(&Record::Hello(Hello {
        min: 77,
        max: 99,
        ..FakeTaker::hello()
    }));
    let words: [&[u8]; 5] = [
        b"",
        b"S",
        &hello[..hello.len() - 1],
        &strange,
        b"GET / HTTP/1.1",
    ];
    let begun = Instant::now();
    for word in words.iter().cycle().take(MANY) {
        let mut taker = loop {
            match FakeTaker::try_connect(&scene.stage.path()) {
                Ok(taker) => break taker,
                Err(error) => assert!(matches!(error, ConnectError::Busy), "{error}"),
            }
        };
        if !word.is_empty() {
            let _ = taker.side.throw(word, &[]);
            let _ = taker.side.last_word();
        }
    }
    scene
        .donor
        .says_now_and_then("a call for a takeover by pid", begun);
    scene.is_as_before();
    scene.end();
}

/// They wait in the queue while the donor is away. The first is listened to, the others are
/// told BUSY; a real taker finds no room, and then finds the donor.
#[test]
fn backlog_full_of_callers_who_stay() {
    let scene = Scene::new(&[]);
    scene.donor.stop();
    let mut callers = Vec::new();
    let full = loop {
        match FakeTaker::try_connect(&scene.stage.path()) {
            Ok(caller) => callers.push(caller),
            Err(error) => break error,
        }
        assert!(callers.len() < 100, "the queue has an end");
    };
    assert!(matches!(full, ConnectError::Busy), "{full}");
    let mut taker = scene.stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("its queue of callers is full");
    let begun = Instant::now();
    scene.donor.go_on();
    let first = callers.remove(0);
    println!("{} more callers", callers.len());
    for mut caller in callers {
        assert_eq!(caller.refusal(), RefuseCode::Busy);
    }
    scene.donor.says_now_and_then("another is under way", begun);
    scene.peers.echoes(4);
    drop(first);
    scene.is_as_before();
    scene.end();
}

/// Nobody serves just then, and a slow log would keep every client waiting.
#[test]
fn callers_in_the_freeze_are_mentioned_later() {
    let scene = Scene::new(&["--deadline", "claim=60000"]);
    let path = scene.stage.path();
    let busy = || assert_eq!(FakeTaker::connect(&path).refusal(), RefuseCode::Busy);
    let taker = FakeTaker::at(&path, At::AwaitClaim);
    for _ in 0..10 {
        busy();
    }
    drop(taker);
    scene.is_as_before();
    let taker = FakeTaker::connect(&path);
    busy();
    let line = scene.donor.wait_line("another is under way");
    assert!(line.ends_with("(10 more like it before)"), "{line}");
    drop(taker);
    scene.is_as_before();
    scene.end();
}

/// Each try succeeds or is told to try again, and one succeeds.
#[test]
fn flood_of_callers_while_takers_call() {
    let mut scene = Scene::new(&[]);
    let over = AtomicBool::new(false);
    let path = scene.stage.path();
    let mut tries = 0;
    let owner = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match FakeTaker::try_connect(&path) {
                    Ok(caller) => drop(caller),
                    Err(ConnectError::Busy) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let begun = Instant::now();
        let owner = loop {
            tries += 1;
            let mut taker = Server::take_over(&path, &[]);
            if taker.serves() || begun.elapsed() > support::BOUND {
                break taker;
            }
            assert_eq!(taker.wait_exit(), 75);
        };
        over.store(true, Ordering::Relaxed);
        owner
    });
    println!("{tries} tries");
    assert_eq!(scene.donor.wait_exit(), 0);
    owner.wait_line("Serving on ");
    scene.donor = owner;
    scene.peers.echoes(4);
    scene.fds = scene.donor.fds();
    scene.end();
}

/// SO_PASSRIGHTS where the kernel has it; then the record does not even arrive.
#[test]
fn descriptors_pushed_in_any_state() {
    let scene = Scene::new(&[]);
    let file = File::open("/dev/null").unwrap();
    for at in At::ALL {
        let taker = FakeTaker::at(&scene.stage.path(), at);
        match taker.side.throw(b"take this", &[file.as_fd(); 250]) {
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{at:?}"),
            Ok(_) => println!("{at:?}: this kernel has no SO_PASSRIGHTS"),
        }
        drop(taker);
        scene.is_as_before();
    }
    scene.end();
}

/// The same where the kernel does not know the option: they arrive, and are closed.
#[test]
fn descriptors_pushed_under_an_older_kernel() {
    let stage = Stage::new();
    let path = stage.path();
    let args = [
        "-G",
        "-a",
        "127.0.0.1",
        "-p",
        "0",
        "-t",
        path.to_str().unwrap(),
    ];
    // The listener sets two options, SO_REUSEADDR and SO_OOBINLINE; SO_PASSRIGHTS is the third.
    let donor = Server::start_with("setsockopt:error=ENOPROTOOPT:when=3", &args);
    donor.wait_line("Starting Takeover channel on");
    let scene = Scene::of(stage, donor, &[(Peer::Talking, 70), (Peer::Idle, 3)]);
    let file = File::open("/dev/null").unwrap();
    let many: [BorrowedFd<'_>; 250] = [file.as_fd(); 250];
    for fds in [&many[..1], &many[..]] {
        for at in At::ALL {
            let mut taker = FakeTaker::at(&scene.stage.path(), at);
            let ahead = match at {
                At::AcceptChannel => encoded(&Record::Hello(FakeTaker::hello())),
                _ => b"take this".to_vec(),
            };
            let _ = taker.side.throw(&ahead, fds).expect("the option is off");
            let aborted = taker.side.await_abort();
            assert_eq!(aborted, at != At::AcceptChannel, "{at:?}");
            drop(taker);
            scene.is_as_before();
        }
    }
    scene.end();
}

/// It can claim nothing that was not granted, however often it tries.
#[test]
fn taker_claims_before_its_time() {
    let scene = Scene::new(&[]);
    for at in [At::FirstBatch, At::Window, At::HoldPeers] {
        let taker = FakeTaker::at(&scene.stage.path(), at);
        for _ in 0..MANY {
            assert_eq!(taker.claim(), Verdict::Lost, "{at:?}");
        }
        scene.peers.echoes(4);
        drop(taker);
        scene.is_as_before();
    }
    scene.end();
}

/// The grant comes before END, so one that looks at nothing but the lease can win. Then it owns,
/// with whatever it has: the donor waits until it says so, and does not serve beside it.
#[test]
fn taker_claims_without_end() {
    let mut scene = Scene::new(&[]);
    let mut taker = FakeTaker::at(&scene.stage.path(), At::HoldPeers);
    taker.side.say(&Record::Drained);
    let begun = Instant::now();
    while taker.claim() == Verdict::Lost {
        assert!(begun.elapsed() < support::BOUND, "it is never granted");
        thread::yield_now();
    }
    scene.donor.wait_line("held since");
    assert!(scene.donor.is_running());
    assert_eq!(taker.claim(), Verdict::Lost, "one grant a lease");
    taker.side.say(&Record::Active(Active::default()));
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.donor.wait_line("released");
    assert_eq!(scene.donor.log().count("we serve on"), 0);
}

/// A taker can write to the lease it was given, and so grant itself what it likes: the donor
/// does not ask before its own grant, and then takes all there is.
#[test]
fn taker_writes_to_the_lease() {
    let scene = Scene::new(&[]);
    type Forge = fn(&mut FakeTaker);
    let forgeries: [(&str, Forge); 4] = [
        ("one more than granted", |taker| {
            assert!(taker.write_lease(1));
        }),
        ("as much as fits", |taker| {
            assert!(taker.write_lease(u64::MAX - 2));
        }),
        ("more, and says that it owns", |taker| {
            assert!(taker.write_lease(7));
            taker.side.say(&Record::Active(Active::default()));
            assert!(taker.side.await_abort());
        }),
        ("nothing, and says that it owns", |taker| {
            taker.side.say(&Record::Active(Active::default()));
            assert!(taker.side.await_abort());
        }),
    ];
    for (what, forge) in forgeries {
        let mut taker = FakeTaker::at(&scene.stage.path(), At::AwaitClaim);
        forge(&mut taker);
        println!("{what}");
        drop(taker);
        scene.is_as_before();
    }
    // Before the grant: claimed by itself, or so full that the grant has no room.
    for value in [1, u64::MAX - 1] {
        let mut taker = FakeTaker::at(&scene.stage.path(), At::HoldPeers);
        assert!(taker.write_lease(value));
        if value == 1 {
            assert_eq!(taker.claim(), Verdict::Won, "of its own");
            scene.peers.echoes(4);
        }
        taker.side.say(&Record::Drained);
        if value == 1 {
            taker.final_array();
            drop(taker);
        } else {
            assert!(taker.side.await_abort());
            drop(taker);
            scene.donor.wait_line("lease: ");
        }
        scene.is_as_before();
    }
    scene.end();
}

/// Attempts that come to nothing have their lines, but not for ever.
#[test]
fn thousand_takers_give_up() {
    let scene = Scene::new(&[]);
    let begun = Instant::now();
    for number in 0..MANY {
        let at = [At::FirstBatch, At::HoldPeers, At::AwaitClaim][number % 3];
        drop(FakeTaker::at(&scene.stage.path(), at));
        // The next one is not to find it busy.
        scene.donor.wait_fds(|fds| fds == scene.fds);
    }
    scene.peers.echoes(4);
    let seconds = begun.elapsed().as_secs() as usize;
    let lines = scene.donor.log().lines().len();
    println!("{lines} lines of {MANY} takers in {seconds} s");
    assert!(
        lines <= 3 * (32 + seconds + 1) + 2,
        "{lines} in {seconds} s"
    );
    scene.is_as_before();
    scene.end();
}
