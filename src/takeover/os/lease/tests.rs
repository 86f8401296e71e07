use std::io::pipe;
use std::sync::Barrier;
use std::thread;

use super::*;

/// The lease as the other side holds it: another descriptor, the same eventfd.
fn copy_of(lease: &Lease) -> Lease {
    Lease::from_fd(lease.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

#[track_caller]
fn assert_refused(fd: OwnedFd, why: &str) {
    let error = Lease::from_fd(fd).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn ungranted_lease_is_lost_to_both() {
    let lease = Lease::new().unwrap();
    assert_eq!(copy_of(&lease).claim().unwrap(), Verdict::Lost);
    assert_eq!(lease.revoke().unwrap(), Verdict::Lost);
}

#[test]
fn granted_lease_is_claimed_once() {
    let lease = Lease::new().unwrap();
    let taken = copy_of(&lease);
    lease.grant().unwrap();
    assert_eq!(taken.claim().unwrap(), Verdict::Won);
    assert_eq!(lease.revoke().unwrap(), Verdict::Lost);
    assert_eq!(taken.claim().unwrap(), Verdict::Lost);
}

#[test]
fn revoked_lease_cannot_be_claimed() {
    let lease = Lease::new().unwrap();
    let taken = copy_of(&lease);
    lease.grant().unwrap();
    assert_eq!(lease.revoke().unwrap(), Verdict::Won);
    assert_eq!(taken.claim().unwrap(), Verdict::Lost);
}

#[test]
fn grant_outlives_the_descriptor_that_gave_it() {
    let lease = Lease::new().unwrap();
    let taken = copy_of(&lease);
    lease.grant().unwrap();
    drop(lease);
    assert_eq!(taken.claim().unwrap(), Verdict::Won);
}

#[test]
fn claim_and_revoke_at_once_have_one_winner() {
    for _ in 0..1000 {
        let lease = Lease::new().unwrap();
        let taken = copy_of(&lease);
        lease.grant().unwrap();
        let start = Barrier::new(2);
        let (claim, revoke) = thread::scope(|scope| {
            let claim = scope.spawn(|| {
                start.wait();
                taken.claim().unwrap()
            });
            start.wait();
            let revoke = lease.revoke().unwrap();
            (claim.join().unwrap(), revoke)
        });
        assert_ne!(claim, revoke);
    }
}

/// By a taker that is up to no good, say. All of it goes to the one who reads first.
#[test]
fn lease_written_to_twice_has_one_winner() {
    let lease = Lease::new().unwrap();
    let taken = copy_of(&lease);
    taken.grant().unwrap();
    lease.grant().unwrap();
    assert_eq!(lease.revoke().unwrap(), Verdict::Won);
    assert_eq!(taken.claim().unwrap(), Verdict::Lost);
}

#[test]
fn received_fd_that_is_no_lease_is_refused() {
    let (read, _write) = pipe().unwrap();
    assert_refused(read.into(), "not an eventfd");
    let odd = |value, flags| EventFd::from_value_and_flags(value, flags).unwrap().into();
    assert_refused(odd(0, EfdFlags::empty()), "blocks");
    assert_refused(odd(1, EfdFlags::EFD_NONBLOCK), "before its time");
}

#[test]
fn received_semaphore_is_refused_if_the_kernel_tells_one() {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_SEMAPHORE;
    let semaphore = EventFd::from_value_and_flags(0, flags).unwrap();
    let info = format!("/proc/self/fdinfo/{}", semaphore.as_fd().as_raw_fd());
    if !std::fs::read_to_string(info).unwrap().contains("semaphore") {
        return eprintln!("skipped: before Linux 6.5 the mode cannot be asked for");
    }
    assert_refused(semaphore.into(), "semaphore");
}
