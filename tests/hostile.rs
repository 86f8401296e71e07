//! Neighbours that mean no good: other users, other namespaces, floods, what they leave at PATH,
//! and takers of our own user that do what no honest one would. The service is unaffected, what
//! the donor holds is as before, the log has a line and no flood, and the next takeover succeeds.
//!
//! SECURITY.md says which of them are defended against.

mod support;

use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    socket,
};
use socket_takeover::proto::records::{Hello, Record, RefuseCode};
use socket_takeover::takeover::lease::Verdict;
use socket_takeover::takeover::rendezvous::{self, ConnectError, TakeoverPath};
use support::apart::{self, Program, STRANGER, as_user, is_root, open_folder};
use support::side::{At, FakeTaker, encoded};
use support::{Kind as Peer, Scene, Server, Stage, wait_readable};

/// How often a nuisance is one.
const MANY: usize = 1000;

/// Another process's part in a test.
#[test]
fn part() {
    let Some((part, path)) = apart::played() else {
        return;
    };
    match part.as_str() {
        "is kept out" => is_kept_out(&path),
        "knocks" => knocks(&path),
        "squats" => squats(&path),
        other => panic!("no part {other:?}"),
    }
}

/// Plays a part to its end.
#[track_caller]
fn play(command: &mut Command) {
    assert_eq!(Server::spawn(command).wait_exit(), 0);
}

/// At most one line a second of this kind, and at least one.
#[track_caller]
fn is_said_now_and_then(donor: &Server, what: &str, since: Instant) {
    donor.wait_line(what);
    let lines = donor.log().count(what);
    let seconds = since.elapsed().as_secs() as usize;
    println!("{lines} lines with {what:?} in {seconds} s");
    assert!(
        (1..=seconds + 2).contains(&lines),
        "{:#?}",
        donor.log().lines()
    );
}

fn is_kept_out(path: &Path) {
    let path = TakeoverPath::new(path).unwrap();
    match rendezvous::connect(&path).map(drop) {
        Err(ConnectError::Other(error)) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
}

fn seqpacket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap()
}

/// Calls again and again, says a good HELLO, and must not hear one byte.
fn knocks(path: &Path) {
    let hello = encoded(&Record::Hello(FakeTaker::hello()));
    let address = UnixAddr::new(path).unwrap();
    for _ in 0..MANY {
        let caller = loop {
            let caller = seqpacket();
            match connect(caller.as_raw_fd(), &address) {
                Ok(()) => break caller,
                // Its queue is full.
                Err(Errno::EAGAIN) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let _ = nix::sys::socket::send(caller.as_raw_fd(), &hello, MsgFlags::MSG_NOSIGNAL);
        assert!(wait_readable(&caller, support::BOUND).unwrap());
        match recv(caller.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) {
            Ok(0) | Err(Errno::ECONNRESET) => {}
            heard => panic!("{heard:?}"),
        }
    }
}

/// Moves what is at PATH away, and listens there instead. Says so if anybody calls.
fn squats(path: &Path) {
    fs::rename(path, path.with_extension("moved")).unwrap();
    let listener = seqpacket();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    eprintln!("listening");
    if wait_readable(&listener, support::BOUND).unwrap() {
        eprintln!("called");
    }
}

#[test]
fn stranger_knocks_a_thousand_times() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&[]);
    let path = scene.stage.path();
    open_folder(&path, 0o755);
    let program = Program::this();
    play(as_user(
        &mut program.part(&[], "is kept out", &path),
        STRANGER,
    ));
    assert_eq!(
        scene.donor.log().count("a call for"),
        0,
        "mode 0600 is enough"
    );

    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let begun = Instant::now();
    play(as_user(&mut program.part(&[], "knocks", &path), STRANGER));
    is_said_now_and_then(&scene.donor, "runs as uid 12345", begun);
    scene.is_as_before();
    scene.end();
}

/// There it is root, which does not make it root here.
#[test]
fn stranger_knocks_as_root_of_a_user_namespace() {
    if !is_root() || !has_user_namespaces() {
        return;
    }
    let scene = Scene::new(&[]);
    let path = scene.stage.path();
    open_folder(&path, 0o755);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let program = Program::this();
    let begun = Instant::now();
    let mut stranger = program.part(&["unshare", "-Ur"], "knocks", &path);
    play(as_user(&mut stranger, STRANGER));
    is_said_now_and_then(&scene.donor, "runs as uid 12345", begun);
    scene.is_as_before();
    scene.end();
}

/// Its own user is trusted from outside as well; whom its namespace does not map is nobody.
#[test]
fn donor_in_a_user_namespace_is_called_from_outside() {
    if !is_root() || !has_user_namespaces() {
        return;
    }
    let stage = Stage::new();
    let path = stage.path();
    let mut command = Command::new("unshare");
    command.args(["-Ur", env!("CARGO_BIN_EXE_socket-takeover")]);
    command
        .args(["-G", "-a", "127.0.0.1", "-p", "0", "-t"])
        .arg(&path);
    let donor = Server::spawn(&mut command);
    donor.wait_line("Starting Takeover channel on");
    let scene = Scene::of(stage, donor, &[(Peer::Talking, 70)]);
    open_folder(&path, 0o755);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let begun = Instant::now();
    let program = Program::this();
    play(as_user(&mut program.part(&[], "knocks", &path), STRANGER));
    is_said_now_and_then(&scene.donor, "runs as uid 65534", begun);
    scene.is_as_before();
    scene.end();
}

fn has_user_namespaces() -> bool {
    let allowed = Command::new("unshare").args(["-Ur", "true"]).status();
    let allowed = allowed.is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("skipped: no user namespaces, or no unshare(1)");
    }
    allowed
}

/// In a folder of everybody: neither a taker nor a cold start says a word to it, and the donor
/// whose PATH it was serves on.
#[test]
fn stranger_listens_in_the_place_of_path() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&[]);
    let path = scene.stage.path();
    open_folder(&path, 0o777);
    let program = Program::this();
    let mut squatter = program.part(&[], "squats", &path);
    let squatter = Server::spawn(as_user(&mut squatter, STRANGER));
    squatter.wait_line("listening");
    let mut taker = scene.stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 1);
    taker.wait_line("can be written by others");
    taker.wait_line("belongs to uid 12345");
    let mut second = scene.stage.start(&[]);
    assert_eq!(second.wait_exit(), 1);
    second.wait_line("belongs to uid 12345");
    scene.is_as_before();
    assert_eq!(fs::metadata(&path).unwrap().uid(), STRANGER, "left alone");
    assert_eq!(squatter.log().count("called"), 0);
    drop(squatter);

    fs::rename(path.with_extension("moved"), &path).unwrap();
    scene.end();
}

/// PATH.lock of a stranger could stay locked for ever: nobody waits for it.
#[test]
fn lock_on_path_belongs_to_a_stranger() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let lock = stage.file("takeover.lock");
    File::create(&lock).unwrap();
    chown(&lock, Some(STRANGER), None).unwrap();
    let mut cold = stage.start(&[]);
    assert_eq!(cold.wait_exit(), 1);
    cold.wait_line("takeover.lock belongs to uid 12345");

    // A new owner serves, and offers as soon as it can.
    fs::remove_file(&lock).unwrap();
    let mut scene = Scene::new(&[]);
    let lock = scene.stage.file("takeover.lock");
    chown(&lock, Some(STRANGER), None).unwrap();
    let owner = scene.stage.replace(&mut scene.donor, &[]);
    owner.wait_line("no further takeover is possible for now");
    scene.peers.echoes(4);
    chown(&lock, Some(0), None).unwrap();
    owner.wait_line("takeovers are possible again");
    assert_eq!(owner.log().count("no further takeover"), 1);
    scene.donor = owner;
    scene.end();
}

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
    is_said_now_and_then(&scene.donor, "a call for a takeover by pid", begun);
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
    is_said_now_and_then(&scene.donor, "another is under way", begun);
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
    // SO_REUSEADDR is the first option that it sets, SO_PASSRIGHTS the second.
    let donor = Server::start_with("setsockopt:error=ENOPROTOOPT:when=2", &args);
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
            taker.side.say(&Record::Active);
            assert!(taker.side.await_abort());
        }),
        ("nothing, and says that it owns", |taker| {
            taker.side.say(&Record::Active);
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
