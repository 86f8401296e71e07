//! What can name a PATH, and what is told of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use nix::sys::stat::Mode;

use super::Place;
use crate::takeover::os::offer::{Offer, Replace};
use crate::takeover::os::path::{
    ConnectError, MAX_PATH, PathError, Probe, TakeoverPath, connect, probe,
};

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
    assert_eq!(found_now(), Probe::OtherProtocol);
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
    assert!(matches!(
        error,
        ConnectError::NoDonor(Probe::NotASocket("a symbolic link"))
    ));
}

#[test]
fn original_program_is_not_triggered_by_a_look() {
    let place = Place::new();
    let original = UnixListener::bind(place.path.as_path()).unwrap();
    original.set_nonblocking(true).unwrap();
    assert_eq!(probe(&place.path).unwrap(), Probe::OtherProtocol);
    assert!(matches!(
        connect(&place.path),
        Err(ConnectError::NoDonor(Probe::OtherProtocol))
    ));
    let error = original.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn nobody_there_is_told_from_a_wrong_path() {
    let place = Place::new();
    let nobody = |path: &TakeoverPath| {
        matches!(
            connect(path),
            Err(ConnectError::NoDonor(Probe::Free | Probe::Stale))
        )
    };
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
