mod lock;
mod standing;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;

use super::*;
use crate::takeover::channel::{Got, Sent};

/// A folder and the PATH `offer` in it.
struct Place {
    folder: TempDir,
    path: TakeoverPath,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = TakeoverPath::new(folder.path().join("offer")).unwrap();
        Place { folder, path }
    }

    fn publish(&self) -> Offer {
        let mut offer = Offer::bind(&self.path).unwrap();
        offer.publish(Replace::Stale).unwrap();
        offer
    }

    /// The file of a process that died without removing it.
    fn leave_stale(&self) {
        drop(self.publish());
        assert_eq!(probe(&self.path).unwrap(), Probe::Stale);
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn temporary_names(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name.starts_with(".takeover."));
        names
    }
}

fn assert_bad(path: impl AsRef<Path>, is_expected: impl Fn(&PathError) -> bool) {
    let error = TakeoverPath::new(path.as_ref()).unwrap_err();
    assert!(is_expected(&error), "{}: {error}", path.as_ref().display());
}

#[test]
fn path_that_cannot_be_a_socket_is_refused() {
    assert_bad("", |error| matches!(error, PathError::Empty));
    assert_bad("a\0b", |error| matches!(error, PathError::Nul));
    assert_bad("\0abstract", |error| matches!(error, PathError::Nul));
    for length in [108, 4096] {
        assert_bad(
            "x".repeat(length),
            |error| matches!(error, PathError::TooLong(found) if *found == length),
        );
    }
    for directory in ["/", "a/", "a/.", "a/..", ".", "..", "/proc"] {
        assert_bad(directory, |error| matches!(error, PathError::Directory));
    }
}

#[test]
fn path_of_unusual_bytes_is_a_plain_file_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in [&b"@x"[..], b"\xff\x80", b"a b\n"] {
        let path = TakeoverPath::new(folder.path().join(OsStr::from_bytes(name))).unwrap();
        let mut offer = Offer::bind(&path).unwrap();
        offer.publish(Replace::Stale).unwrap();
        assert!(path.as_path().exists());
        connect(&path).unwrap();
    }
}

#[test]
fn path_of_the_longest_length_can_be_offered_and_reached() {
    // Alone in its directory, and below one that takes up nearly all of it.
    let folder = tempfile::tempdir().unwrap();
    let room = MAX_PATH - folder.path().as_os_str().len() - "/".len();
    let deep = folder.path().join("d".repeat(room - "/s".len()));
    fs::create_dir(&deep).unwrap();
    for path in [folder.path().join("s".repeat(room)), deep.join("s")] {
        let path = TakeoverPath::new(path).unwrap();
        assert_eq!(path.as_path().as_os_str().len(), MAX_PATH);
        let mut offer = Offer::bind(&path).unwrap();
        offer.publish(Replace::Stale).unwrap();
        connect(&path).unwrap();
        assert!(offer.accept().unwrap().is_some());
    }
}

#[test]
fn offered_path_connects_both_sides() {
    let place = Place::new();
    let offer = place.publish();
    assert!(offer.accept().unwrap().is_none());
    let (mut taker, donor_identity) = connect(&place.path).unwrap();
    assert_eq!(donor_identity.pid(), std::process::id());
    let mut donor = offer.accept().unwrap().unwrap();
    let taker_identity = Identity::of(&donor).unwrap();
    assert_eq!(taker_identity.pid(), std::process::id());

    let (mut buffer, mut fds) = ([0; 16], Vec::new());
    assert_eq!(taker.send(b"hello", &[]).unwrap(), Sent::Done);
    assert!(matches!(donor.recv(&mut buffer, &mut fds), Got::Record(5)));
    let given = std::io::stdin();
    let sent = donor.send(b"welcome", &[std::os::fd::AsFd::as_fd(&given)]);
    assert_eq!(sent.unwrap(), Sent::Done);
    assert!(matches!(taker.recv(&mut buffer, &mut fds), Got::Record(7)));
    assert_eq!(fds.len(), 1);
    drop(donor);
    assert!(matches!(taker.recv(&mut buffer, &mut fds), Got::End));
}

#[test]
fn fd_pushed_at_a_donor_does_not_stay() {
    let place = Place::new();
    let offer = place.publish();
    let (taker, _) = connect(&place.path).unwrap();
    // Before and after the donor has accepted.
    let mut donor = None;
    for _ in 0..2 {
        let (mut end, write) = std::io::pipe().unwrap();
        let sent = taker.send(b"x", &[std::os::fd::AsFd::as_fd(&write)]);
        drop(write);
        let donor = donor.get_or_insert_with(|| offer.accept().unwrap().unwrap());
        match sent {
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
            // An older kernel delivers it, and it is the receiver's to close.
            Ok(_) => {
                assert!(kernel_version() < (6, 16));
                let mut fds = Vec::new();
                assert!(matches!(donor.recv(&mut [0; 8], &mut fds), Got::Record(1)));
            }
        }
        assert_eq!(io::Read::read(&mut end, &mut [0]).unwrap(), 0);
    }
}

fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn socket_file_is_the_owners_alone() {
    let place = Place::new();
    let _unpublished = Offer::bind(&place.path).unwrap();
    let _offer = place.publish();
    for name in place.names() {
        let found = fs::metadata(place.folder.path().join(&name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn probe_tells_what_is_there() {
    let place = Place::new();
    let at = place.path.as_path();
    assert_eq!(probe(&place.path).unwrap(), Probe::Free);
    let offer = place.publish();
    assert_eq!(probe(&place.path).unwrap(), Probe::Alive);
    drop(offer);
    assert_eq!(probe(&place.path).unwrap(), Probe::Stale);

    let found_now = || {
        let found = probe(&place.path).unwrap();
        fs::remove_file(at).unwrap();
        found
    };
    fs::remove_file(at).unwrap();
    fs::write(at, "").unwrap();
    assert_eq!(found_now(), Probe::NotASocket("a regular file"));
    symlink("elsewhere", at).unwrap();
    assert_eq!(found_now(), Probe::NotASocket("a symbolic link"));
    nix::unistd::mkfifo(at, Mode::S_IRWXU).unwrap();
    assert_eq!(found_now(), Probe::NotASocket("a FIFO"));
    let _datagram = UnixDatagram::bind(at).unwrap();
    assert_eq!(found_now(), Probe::NotASocket("a datagram socket"));
    let _stream = UnixListener::bind(at).unwrap();
    assert_eq!(found_now(), Probe::Original);
    fs::create_dir(at).unwrap();
    assert_eq!(
        probe(&place.path).unwrap(),
        Probe::NotASocket("a directory")
    );
}

#[test]
fn symbolic_link_to_a_live_offer_is_not_followed() {
    let place = Place::new();
    let _offer = place.publish();
    let link = place.folder.path().join("link");
    symlink(place.path.as_path(), &link).unwrap();
    let error = connect(&TakeoverPath::new(&link).unwrap()).unwrap_err();
    assert!(matches!(error, ConnectError::NotASocket("a symbolic link")));
}

#[test]
fn original_program_is_not_triggered_by_a_look() {
    let place = Place::new();
    let original = UnixListener::bind(place.path.as_path()).unwrap();
    original.set_nonblocking(true).unwrap();
    assert_eq!(probe(&place.path).unwrap(), Probe::Original);
    assert!(matches!(connect(&place.path), Err(ConnectError::Original)));
    let error = original.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn donor_with_a_full_backlog_is_busy_and_not_stale() {
    let place = Place::new();
    let offer = place.publish();
    let mut callers = Vec::new();
    let refusal = loop {
        match connect(&place.path) {
            Ok(caller) => callers.push(caller),
            Err(error) => break error,
        }
        assert!(callers.len() < 100);
    };
    assert!(matches!(refusal, ConnectError::Busy), "{refusal}");
    assert_eq!(probe(&place.path).unwrap(), Probe::Alive);
    let mut rival = Offer::bind(&place.path).unwrap();
    let error = rival.publish(Replace::Stale).unwrap_err();
    assert!(matches!(error, PublishError::Taken(Probe::Alive)));
    while offer.accept().unwrap().is_some() {}
    connect(&place.path).unwrap();
}

#[test]
fn nobody_there_is_told_from_a_wrong_path() {
    let place = Place::new();
    let nobody = |path: &TakeoverPath| matches!(connect(path), Err(ConnectError::Nobody(_)));
    assert!(nobody(&place.path));
    let beyond = place.folder.path().join("no/such/folder");
    assert!(nobody(&TakeoverPath::new(beyond).unwrap()));
    place.leave_stale();
    assert!(nobody(&place.path));
    let below_a_file = TakeoverPath::new(place.path.as_path().join("x")).unwrap();
    assert!(matches!(
        connect(&below_a_file),
        Err(ConnectError::Other(_))
    ));
}

#[test]
fn stale_socket_is_replaced() {
    let place = Place::new();
    for _ in 0..100 {
        place.leave_stale();
    }
    let offer = place.publish();
    connect(&place.path).unwrap();
    assert!(offer.accept().unwrap().is_some());
    assert_eq!(place.names(), ["offer", "offer.lock"]);
}

#[test]
fn live_offer_is_replaced_only_on_purpose() {
    let place = Place::new();
    let donor = place.publish();
    let mut taker = Offer::bind(&place.path).unwrap();
    let error = taker.publish(Replace::Stale).unwrap_err();
    assert!(matches!(error, PublishError::Taken(Probe::Alive)));
    taker.publish(Replace::Live).unwrap();
    taker.publish(Replace::Live).unwrap();
    connect(&place.path).unwrap();
    assert!(taker.accept().unwrap().is_some());
    // The probes of both tries hung up; no caller of the donor's is lost either way.
    while donor.accept().unwrap().is_some() {}
}

#[test]
fn file_that_is_no_socket_is_never_replaced() {
    let place = Place::new();
    fs::write(place.path.as_path(), "precious").unwrap();
    let mut offer = Offer::bind(&place.path).unwrap();
    for replace in [Replace::Stale, Replace::Live] {
        let error = offer.publish(replace).unwrap_err();
        assert!(matches!(error, PublishError::Taken(Probe::NotASocket(_))));
    }
    assert_eq!(fs::read(place.path.as_path()).unwrap(), b"precious");
    // Once it is out of the way, the same offer can be published.
    fs::remove_file(place.path.as_path()).unwrap();
    offer.publish(Replace::Stale).unwrap();
    connect(&place.path).unwrap();
}

#[test]
fn publishing_under_another_processs_lock_can_be_tried_again() {
    use nix::fcntl::{Flock, FlockArg};
    let place = Place::new();
    let mut offer = Offer::bind(&place.path).unwrap();
    let lock = fs::File::create(place.folder.path().join("offer.lock")).unwrap();
    let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    assert!(matches!(
        offer.publish(Replace::Stale),
        Err(PublishError::Locked { .. })
    ));
    drop(held);
    offer.publish(Replace::Stale).unwrap();
}

#[test]
fn racing_plain_starts_over_a_stale_socket_have_one_winner() {
    const STARTS: usize = 8;
    for _ in 0..50 {
        let place = Place::new();
        place.leave_stale();
        let begin = Barrier::new(STARTS);
        let winners = thread::scope(|scope| {
            let start = || {
                let mut offer = Offer::bind(&place.path).unwrap();
                begin.wait();
                let published = offer.publish(Replace::Stale);
                begin.wait(); // A winner lives until all have tried.
                match published {
                    Ok(()) => 1,
                    Err(PublishError::Locked { .. } | PublishError::Taken(Probe::Alive)) => 0,
                    Err(other) => panic!("{other}"),
                }
            };
            let threads: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
            let wins = threads.into_iter().map(|thread| thread.join().unwrap());
            wins.sum::<usize>()
        });
        assert_eq!(winners, 1);
    }
}

#[test]
fn callers_find_an_offer_at_every_moment_of_two_hundred_takeovers() {
    let place = Place::new();
    let mut owner = place.publish();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let hammer = scope.spawn(|| {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) || calls == 0 {
                match connect(&place.path) {
                    Ok(_) | Err(ConnectError::Busy) => calls += 1,
                    Err(error) => panic!("after {calls} calls: {error}"),
                }
            }
            calls
        });
        for _ in 0..200 {
            let mut next = Offer::bind(&place.path).unwrap();
            next.publish(Replace::Live).unwrap();
            while next.accept().unwrap().is_some() {}
            // The donor goes once its successor has the name.
            owner = next;
        }
        over.store(true, Ordering::Relaxed);
        assert!(hammer.join().unwrap() > 0);
    });
    owner.withdraw().unwrap();
    assert_eq!(place.names(), ["offer.lock"]);
}

#[test]
fn withdrawn_offer_removes_its_own_name_alone() {
    let place = Place::new();
    let donor = place.publish();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.publish(Replace::Live).unwrap();
    donor.withdraw().unwrap();
    connect(&place.path).unwrap();
    taker.withdraw().unwrap();
    assert_eq!(place.names(), ["offer.lock"]);
}

#[test]
fn withdrawn_offer_whose_name_is_gone_is_no_error() {
    let place = Place::new();
    let offer = place.publish();
    fs::remove_file(place.path.as_path()).unwrap();
    offer.withdraw().unwrap();
}

#[test]
fn dropped_offer_leaves_no_temporary_name() {
    let place = Place::new();
    let offer = Offer::bind(&place.path).unwrap();
    assert_eq!(place.names().len(), 1);
    drop(offer);
    Offer::bind(&place.path).unwrap().withdraw().unwrap();
    assert!(place.names().is_empty());
}

#[test]
fn temporary_names_of_killed_processes_are_removed_when_they_are_old() {
    let place = Place::new();
    let leave = |name: &str| {
        // Bound and dropped by hand: the name stays, as after a kill.
        let at = place.folder.path().join(name);
        drop(UnixListener::bind(&at).unwrap());
        at
    };
    let (old, young) = (leave(".takeover.1.0"), leave(".takeover.1.1"));
    let live = place.folder.path().join(".takeover.1.2");
    let _living = UnixListener::bind(&live).unwrap();
    let document = place.folder.path().join(".takeover.notes");
    fs::write(&document, "").unwrap();
    for aged in [&old, &live, &document] {
        set_age(aged, Duration::from_secs(3600));
    }
    let _offer = place.publish();
    assert!(!old.exists());
    assert!(young.exists() && live.exists() && document.exists());
    assert!(fs::metadata(&young).unwrap().file_type().is_socket());
}

fn set_age(file: &Path, age: Duration) {
    let then = SystemTime::now() - age;
    let then = TimeSpec::from(then.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let flag = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, file, &then, &then, flag).unwrap();
}

#[test]
fn offer_into_a_missing_folder_is_an_error() {
    let place = Place::new();
    let path = TakeoverPath::new(place.folder.path().join("no/offer")).unwrap();
    let error = Offer::bind(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn folder_that_everybody_may_change_is_exposed() {
    let place = Place::new();
    let set = |mode| {
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        place.path.is_exposed()
    };
    assert!(!set(0o700));
    assert!(set(0o777));
    assert!(!set(0o1777));
}
