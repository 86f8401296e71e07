//! The lock on PATH.lock: taken ahead of time, and held by others.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};

use super::Place;
use crate::takeover::os::offer::{Holder, Offer, PublishError, Replace};
use crate::takeover::os::path::{Probe, connect};

/// A program that holds the lock, until this is dropped and it reads the end of its input.
struct Keeper(Child);

impl Keeper {
    /// Returns once the lock is taken.
    fn start(place: &Place, script: &str) -> Keeper {
        let mut keeper = Command::new("sh")
            .args(["-c", script])
            .arg(place.folder.path().join("offer.lock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 3];
        io::Read::read_exact(keeper.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(said, *b"yes");
        Keeper(keeper)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[track_caller]
fn holder(outcome: Result<(), PublishError>) -> Option<Holder> {
    match outcome {
        Err(PublishError::Locked { holder }) => holder,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reserved_offer_locks_others_out_and_is_published() {
    let place = Place::new();
    let donor = place.publish();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.reserve().unwrap();
    taker.reserve().unwrap();

    let mut rival = Offer::bind(&place.path).unwrap();
    let ours = holder(rival.publish(Replace::Live)).unwrap();
    assert_eq!(ours.pid, std::process::id());
    holder(rival.reserve());
    connect(&place.path).unwrap();
    assert!(donor.accept().unwrap().is_some(), "the donor's until then");

    taker.publish(Replace::Live).unwrap();
    taker.reserve().unwrap();
    connect(&place.path).unwrap();
    assert!(taker.accept().unwrap().is_some());
    rival.publish(Replace::Live).unwrap();
}

#[test]
fn dropped_reservation_is_free_again() {
    let place = Place::new();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.reserve().unwrap();
    let mut rival = Offer::bind(&place.path).unwrap();
    holder(rival.reserve());
    drop(taker);
    rival.reserve().unwrap();
}

#[test]
fn whatever_is_in_the_way_of_a_name_is_found_when_it_is_reserved() {
    let place = Place::new();
    let at = place.path.as_path();
    let mut taker = Offer::bind(&place.path).unwrap();
    fs::write(at, "precious").unwrap();
    assert!(matches!(
        taker.reserve(),
        Err(PublishError::Taken(Probe::NotASocket(_)))
    ));
    fs::remove_file(at).unwrap();

    let aside = place.folder.path().with_extension("aside");
    fs::rename(place.folder.path(), &aside).unwrap();
    fs::create_dir(place.folder.path()).unwrap();
    let error = taker.reserve().unwrap_err();
    assert!(error.to_string().contains("made anew"), "{error}");
    fs::remove_dir(place.folder.path()).unwrap();
    fs::rename(&aside, place.folder.path()).unwrap();

    let [temporary] = place.temporary_names().try_into().unwrap();
    let kept = place.folder.path().join("kept");
    let temporary = place.folder.path().join(temporary);
    fs::rename(&temporary, &kept).unwrap();
    let error = taker.reserve().unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
    fs::rename(&kept, &temporary).unwrap();

    // Nothing of it has left a lock behind, and it can be tried again.
    Offer::bind(&place.path).unwrap().reserve().unwrap();
    taker.reserve().unwrap();
    taker.publish(Replace::Live).unwrap();
}

#[test]
fn file_that_comes_after_the_reservation_is_not_replaced() {
    let place = Place::new();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.reserve().unwrap();
    fs::write(place.path.as_path(), "precious").unwrap();
    assert!(matches!(
        taker.publish(Replace::Live),
        Err(PublishError::Taken(Probe::NotASocket(_)))
    ));
    assert_eq!(fs::read(place.path.as_path()).unwrap(), b"precious");
}

#[test]
fn process_that_holds_the_lock_is_named() {
    let place = Place::new();
    let mut offer = Offer::bind(&place.path).unwrap();
    let keeper = Keeper::start(&place, "exec flock \"$0\" sh -c 'echo yes; cat'");
    let error = offer.reserve().unwrap_err();
    let said = error.to_string();
    let holder = holder(Err(error)).unwrap();
    assert_eq!(holder.pid, keeper.0.id());
    assert_eq!(holder.command.as_deref(), Some("flock"));
    assert!(
        said.contains(&format!("pid {} (flock)", holder.pid)),
        "{said}"
    );
}

/// flock(1) locks the descriptor that it has inherited, and ends.
#[test]
fn lock_that_has_outlived_who_took_it_is_not_pinned_on_anybody() {
    let place = Place::new();
    let mut offer = Offer::bind(&place.path).unwrap();
    let keeper = Keeper::start(&place, "exec 9>\"$0\"; flock 9; echo yes; exec cat");
    let error = offer.reserve().unwrap_err();
    let said = error.to_string();
    // Within a PID namespace the kernel shows nothing of a lock whose taker has ended.
    assert!(
        holder(Err(error)).is_none_or(|one| one.command.is_none()),
        "{said}"
    );
    assert!(said.contains("fuser(1)"), "{said}");
    drop(keeper);
    offer.reserve().unwrap();
}

/// A cleaner of old files may do that. Of two files of one name only one is the lock.
#[test]
fn lock_file_that_was_removed_under_its_holder_is_made_anew() {
    let place = Place::new();
    let mut first = Offer::bind(&place.path).unwrap();
    first.reserve().unwrap();
    fs::remove_file(place.folder.path().join("offer.lock")).unwrap();
    let mut second = Offer::bind(&place.path).unwrap();
    second.reserve().unwrap();
    holder(Offer::bind(&place.path).unwrap().reserve());
}
