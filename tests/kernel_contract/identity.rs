//! Who is at the other end of a Unix socket, and whether it still lives.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use tempfile::TempDir;

use crate::channel::pair;
use crate::role::{Actor, given, say, stay};
use crate::skip;
use crate::support::{BOUND, need, wait_readable};

fn pid_seen_by(socket: impl AsFd) -> u32 {
    let peer = getsockopt(&socket, sockopt::PeerCredentials).expect("a connected socket");
    peer.pid().unsigned_abs()
}

/// Accepts two callers at an inherited listener, and listens anew in between.
pub(crate) fn acceptor() {
    let listener = UnixListener::from(given());
    let first = listener.accept().expect("somebody calls");
    listen(&listener, Backlog::new(8).expect("a small one")).expect("it is bound");
    say("ready");
    let second = listener.accept().expect("somebody calls");
    drop((first, second));
    stay();
}

/// Stands on it: every generation makes its own socket and listens on it itself.
#[test]
fn k14_credentials_are_those_of_who_listened() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("path");
    let listener = UnixListener::bind(&path).expect("a new name");
    let mut heir = Actor::start("acceptor", OwnedFd::from(listener));
    let first = UnixStream::connect(&path).expect("it listens");
    heir.wait_ready();
    assert_eq!(
        pid_seen_by(&first),
        std::process::id(),
        "not the acceptor's"
    );
    let second = UnixStream::connect(&path).expect("it listens");
    assert_eq!(pid_seen_by(&second), heir.pid(), "after its own listen");
}

/// Calls at the path that it is given.
pub(crate) fn caller() {
    let path = std::env::var("CALL").expect("the test says where");
    let _stream = UnixStream::connect(path).expect("it listens");
    say("ready");
    stay();
}

/// Stands on it: a caller that has died meanwhile is known to be dead, and is no other process.
#[test]
fn k15_pidfd_of_a_peer_that_is_dead_and_collected() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("path");
    let listener = UnixListener::bind(&path).expect("a new name");
    let mut command = Command::new(std::env::current_exe().expect("we have a name"));
    let mut caller = Actor::start_by(command.env("CALL", &path), "caller", Stdio::null());
    caller.wait_ready();
    caller.kill();
    caller.wait();
    let (stream, _) = listener.accept().expect("it is queued");
    match getsockopt(&stream, sockopt::PeerPidfd) {
        Ok(pidfd) => assert!(wait_readable(&pidfd, Duration::ZERO).expect("it can be polled")),
        Err(Errno::ENOPROTOOPT) => skip("SO_PEERPIDFD came with Linux 6.5"),
        Err(error) => panic!("a collected peer gives {error}"),
    }
}

/// Looks at its peer's uid from where that is not mapped.
pub(crate) fn stranger() {
    let peer = getsockopt(&given(), sockopt::PeerCredentials).expect("a connected socket");
    say(&format!("{}", peer.uid()));
}

/// Stands on it: the overflow uid is nobody's, unless we run as it in the first namespace.
#[test]
fn k16_unmapped_uid_is_seen_as_65534() {
    let there = Command::new("unshare").args(["-U", "true"]).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip("no user namespace can be made here");
    }
    let (_ours, theirs) = pair(SockType::SeqPacket);
    let mut command = Command::new("unshare");
    command
        .arg("-U")
        .arg(std::env::current_exe().expect("we have a name"));
    let mut stranger = Actor::start_by(&mut command, "stranger", Stdio::from(theirs));
    assert_eq!(stranger.found().as_deref(), Some("65534"));
}

/// Stands on it: the end of the channel is not death, and death is waited for on the pidfd.
#[test]
fn k23_end_of_the_channel_is_never_later_than_the_pidfd() {
    let mut pidfd_was_later = 0;
    for _ in 0..10 {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let mut victim = Actor::start("silent", theirs);
        victim.wait_ready();
        let pidfd = socket_takeover::sys::pidfd_open(victim.pid()).expect("it lives");
        let at_once = |fd: &OwnedFd| wait_readable(fd, Duration::ZERO).expect("it can be polled");
        assert!(!at_once(&pidfd) && !at_once(&ours));
        victim.kill();
        assert!(wait_readable(&ours, BOUND).expect("it can be polled"));
        pidfd_was_later += usize::from(!at_once(&pidfd));
        assert!(wait_readable(&pidfd, BOUND).expect("it can be polled"));
        assert!(at_once(&ours), "dead, and its sockets are open");
    }
    println!("the pidfd was later in {pidfd_was_later} of 10");
}

/// Takes the lock on what it is given.
pub(crate) fn locker() {
    let file = File::from(given());
    let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("it is free");
    say("ready");
    stay();
}

/// Stands on it: a killed process leaves no lock on PATH or the pid file.
#[test]
fn k24_lock_of_a_killed_holder_is_free_at_once() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("lock");
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
    };
    let mut locker = Actor::start("locker", OwnedFd::from(open().expect("our folder")));
    locker.wait_ready();
    let lock = || Flock::lock(open().expect("our folder"), FlockArg::LockExclusiveNonblock);
    assert!(matches!(lock(), Err((_, Errno::EWOULDBLOCK))));
    locker.kill();
    locker.wait();
    assert!(lock().is_ok());
}

/// Stands on it: the tests that kill a process at every system call.
#[test]
fn k25_injected_signal_kills_before_the_call_runs() {
    need("strace");
    let output = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=write"])
        .args(["-e", "inject=write:signal=SIGKILL:when=2"])
        .args(["sh", "-c", "echo one; echo two; echo three"])
        .output()
        .expect("strace starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return skip(&format!("strace traces nothing here: {why}"));
    }
    assert_eq!(said, "one\n");
}

/// Stands on it: PATH is never open to others, not even for a moment, whatever the umask.
#[test]
fn mode_set_before_bind_is_that_of_the_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("path");
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    fchmod(&socket, Mode::from_bits_truncate(0o600)).expect("it is ours");
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &UnixAddr::new(&path).expect("short"),
    )
    .expect("a new name");
    assert_eq!(
        fs::metadata(&path)
            .expect("it is bound")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

/// Stands on it: a PATH of 107 bytes works, and nobody finds it missing while it changes hands.
#[test]
fn name_bound_through_a_folders_descriptor_can_be_renamed_into_place() {
    let folder = TempDir::new().expect("a temporary folder");
    let handle = File::open(folder.path()).expect("it is ours");
    let number = std::os::fd::AsRawFd::as_raw_fd(&handle);
    let near = |name: &str| format!("/proc/self/fd/{number}/{name}");
    let path = folder.path().join("path");
    for generation in 0..20 {
        let listener = UnixListener::bind(near("new")).expect("a new name");
        fs::rename(folder.path().join("new"), &path).expect("the same folder");
        let mut caller = UnixStream::connect(near("path")).expect("it is in place");
        let (_accepted, address) = listener.accept().expect("it is this one that was called");
        assert!(address.is_unnamed(), "{generation}");
        caller.write_all(b"x").expect("it is connected");
        let inode = fs::metadata(&path).expect("it is bound").ino();
        assert_ne!(inode, 0);
    }
}
