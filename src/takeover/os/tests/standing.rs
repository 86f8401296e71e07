//! What has become of a published name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use super::{Place, set_age};
use crate::takeover::os::offer::{Offer, Replace};
use crate::takeover::os::path::{Probe, TakeoverPath, connect, probe};
use crate::takeover::os::standing::Standing;

#[track_caller]
fn stands(offer: &Offer, is_expected: impl Fn(&Standing) -> bool) {
    let standing = offer.standing(None).unwrap();
    assert!(is_expected(&standing), "{standing:?}");
}

#[test]
fn name_of_our_own_is_told_from_whatever_else_is_there() {
    let place = Place::new();
    let at = place.path.as_path();
    let offer = place.publish();
    stands(&offer, |found| matches!(found, Standing::Ours));
    assert!(offer.accept().unwrap().is_none(), "nobody was called");
    fs::remove_file(at).unwrap();
    stands(&offer, |found| matches!(found, Standing::Gone));
    place.leave_stale();
    stands(&offer, |found| matches!(found, Standing::Gone));
    let rival = place.publish();
    let Standing::Taken(Probe::Alive, file) = offer.standing(None).unwrap() else {
        panic!("it lives");
    };
    assert!(rival.accept().unwrap().is_some(), "who was called");
    assert!(matches!(
        offer.standing(Some(file)).unwrap(),
        Standing::Spared
    ));
    assert!(rival.accept().unwrap().is_none(), "who was spared");
    fs::remove_file(at).unwrap();
    fs::write(at, "").unwrap();
    stands(&offer, |found| {
        matches!(found, Standing::Taken(Probe::NotASocket(_), _))
    });
    fs::remove_file(at).unwrap();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    stands(&offer, |found| matches!(found, Standing::Exposed));
}

#[test]
fn renewed_offer_is_in_the_folder_that_callers_find() {
    let place = Place::new();
    let old = place.publish();
    let aside = place.folder.path().with_extension("aside");
    fs::rename(place.folder.path(), &aside).unwrap();
    stands(&old, |found| matches!(found, Standing::NoFolder));
    old.renew().unwrap_err();
    fs::create_dir(place.folder.path()).unwrap();
    stands(&old, |found| matches!(found, Standing::Gone));
    let mut new = old.renew().unwrap();
    new.publish(Replace::Stale).unwrap();
    connect(&place.path).unwrap();
    assert!(new.accept().unwrap().is_some());
    // A name that leads nowhere any more is not left to be found in the old place.
    old.retire();
    assert!(!aside.join("offer").exists());
    fs::remove_dir_all(&aside).unwrap();
    stands(&new, |found| matches!(found, Standing::Ours));
}

#[test]
fn name_below_tmp_that_gets_old_is_made_young() {
    let place = Place {
        folder: tempfile::tempdir_in("/tmp").unwrap(),
        ..Place::new()
    };
    let path = TakeoverPath::new(place.folder.path().join("offer")).unwrap();
    let place = Place { path, ..place };
    let offer = place.publish();
    let age = || {
        let found = fs::metadata(place.path.as_path()).unwrap();
        found.modified().unwrap().elapsed().unwrap_or_default()
    };
    let (old, young) = (Duration::from_secs(4 * 3600), Duration::from_secs(3600));
    for (was, expected) in [(young, young), (old, Duration::ZERO)] {
        set_age(place.path.as_path(), was);
        stands(&offer, |found| matches!(found, Standing::Ours));
        assert!(age() >= expected && age() < expected + young, "{:?}", age());
    }
}

/// The donor of a taker that was about to own is told to stop.
#[test]
fn withdrawal_waits_for_a_reservation_that_is_given_up() {
    let place = Place::new();
    let donor = place.publish();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.reserve().unwrap();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| donor.withdraw().unwrap());
        drop(taker);
        stopping.join().unwrap();
    });
    assert_eq!(place.names(), ["offer.lock"]);
}

#[test]
fn withdrawal_does_not_wait_for_ever() {
    let place = Place::new();
    let donor = place.publish();
    let mut taker = Offer::bind(&place.path).unwrap();
    taker.reserve().unwrap();
    donor.withdraw().unwrap();
    assert_eq!(probe(&place.path).unwrap(), Probe::Stale);
    taker.publish(Replace::Live).unwrap();
    connect(&place.path).unwrap();
}
