//! An offer from its temporary name to its end, and those that call it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Place, set_age};
use crate::takeover::os::channel::{Got, Sent};
use crate::takeover::os::identity::Identity;
use crate::takeover::os::offer::{Offer, PublishError, Replace};
use crate::takeover::os::path::{ConnectError, Probe, TakeoverPath, connect, probe};

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

/// Of the kernel that is running, or of the one that `as-kernel` acts.
fn kernel_version() -> (u32, u32) {
    let release = std::env::var("AS_KERNEL").or_else(|_| {
        let path = "/proc/sys/kernel/osrelease";
        fs::read_to_string(path)
    });
    let release = release.unwrap();
    let mut numbers = release
        .split(|other: char| !other.is_ascii_digit())
        .map(|number| number.parse().unwrap());
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

#[test]
fn offer_into_a_missing_folder_is_an_error() {
    let place = Place::new();
    let path = TakeoverPath::new(place.folder.path().join("no/offer")).unwrap();
    let error = Offer::bind(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
