//! Other users that mean no good: they call, from other namespaces too, and put their own files
//! in the place of ours. The service is unaffected, what the donor holds is as before, the log
//! has a line and no flood, and the next takeover succeeds. See SECURITY.md.

use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::support;
use crate::support::apart::test_name;
use crate::support::apart::{self, Program, STRANGER, as_user, is_root, open_folder};
use crate::support::side::{FakeTaker, encoded};
use crate::support::{Kind as Peer, Scene, Server, Stage, wait_readable};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    socket,
};
use socket_takeover::proto::records::Record;
use socket_takeover::takeover::internal::path;
use socket_takeover::takeover::{ConnectError, TakeoverPath};

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

fn is_kept_out(path: &Path) {
    let path = TakeoverPath::new(path).unwrap();
    match path::connect(&path).map(drop) {
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
        &mut program.part(&[], &test_name!("part"), "is kept out", &path),
        STRANGER,
    ));
    assert_eq!(
        scene.donor.log().count("a call for"),
        0,
        "mode 0600 is enough"
    );

    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let begun = Instant::now();
    play(as_user(
        &mut program.part(&[], &test_name!("part"), "knocks", &path),
        STRANGER,
    ));
    scene.donor.says_now_and_then("runs as uid 12345", begun);
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
    let mut stranger = program.part(&["unshare", "-Ur"], &test_name!("part"), "knocks", &path);
    play(as_user(&mut stranger, STRANGER));
    scene.donor.says_now_and_then("runs as uid 12345", begun);
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
    play(as_user(
        &mut program.part(&[], &test_name!("part"), "knocks", &path),
        STRANGER,
    ));
    scene.donor.says_now_and_then("runs as uid 65534", begun);
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
    let mut squatter = program.part(&[], &test_name!("part"), "squats", &path);
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

    // A taker could not offer the next takeover, so it takes nothing, and nobody was held.
    fs::remove_file(&lock).unwrap();
    let mut scene = Scene::new(&[]);
    let lock = scene.stage.file("takeover.lock");
    chown(&lock, Some(STRANGER), None).unwrap();
    assert_eq!(scene.stage.take_over(&[]).wait_exit(), 75);
    let reason = scene.donor.wait_line("takeover failed, we serve on");
    assert!(
        reason.contains("takeover.lock belongs to uid 12345"),
        "{reason}"
    );
    assert!(!reason.contains("freeze_ms"), "{reason}");
    scene.peers.echoes(4);
    chown(&lock, Some(0), None).unwrap();
    scene.donor = scene.stage.replace(&mut scene.donor, &[]);
    scene.end();
}
