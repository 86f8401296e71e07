use std::process::{self, Command};

use super::*;

#[test]
fn status_of_a_process_tells_a_crash_from_a_stop() {
    let status = |state: &str, core: &str| {
        format!("Name:\tx y\nUmask:\t0022\nState:\t{state}\nCoreDumping:\t{core}\n")
    };
    for (state, core, expected) in [
        ("S (sleeping)", "0", Condition::Waiting),
        ("R (running)", "0", Condition::Running),
        ("D (disk sleep)", "0", Condition::Waiting),
        ("T (stopped)", "0", Condition::Stopped),
        ("t (tracing stop)", "0", Condition::Stopped),
        ("Z (zombie)", "0", Condition::Dead),
        ("R (running)", "1", Condition::Dumping),
    ] {
        assert_eq!(condition_in(&status(state, core)), expected, "{state}");
    }
    assert_eq!(condition_in("garbage"), Condition::Unknown);
}

use crate::takeover::os::channel::Channel;

#[test]
fn our_own_process_is_trusted_and_alive() {
    let (near, _far) = Channel::pair().unwrap();
    let identity = Identity::of(&near).unwrap();
    assert_eq!(identity.pid(), process::id());
    assert_eq!(identity.uid(), geteuid().as_raw());
    assert!(identity.pidfd().is_some());
    assert!(!identity.is_dead());
    identity.terminate(0).unwrap();
}

#[test]
fn both_sides_in_one_process_neither_wait_for_its_death_nor_bring_it_about() {
    let (near, _far) = Channel::pair().unwrap();
    let identity = Identity::of(&near).unwrap();
    let start = std::time::Instant::now();
    let forever = Duration::from_secs(600);
    assert!(!identity.dies_within(forever));
    assert!(start.elapsed() < forever / 2);
    let refused = identity.kill().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn trust_covers_root_and_our_own_user_alone() {
    let namespace = || panic!("must not matter");
    assert!(trusts(1000, 1000, namespace));
    assert!(trusts(ROOT, 1000, namespace));
    assert!(!trusts(1001, 1000, namespace));
    assert!(!trusts(1000, ROOT, namespace));
}

#[test]
fn overflow_uid_is_trusted_only_where_nobody_can_hide_behind_it() {
    assert!(trusts(OVERFLOW_UID, OVERFLOW_UID, || true));
    assert!(!trusts(OVERFLOW_UID, OVERFLOW_UID, || false));
    assert!(!trusts(OVERFLOW_UID, ROOT, || true));
}

#[test]
fn process_that_has_hung_up_has_no_pidfd_by_number() {
    let (near, far) = Channel::pair().unwrap();
    let pid = process::id();
    assert!(pidfd_of(pid, near.as_fd()).unwrap().is_some());
    drop(far);
    assert!(pidfd_of(pid, near.as_fd()).unwrap().is_none());
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id();
    ended.wait().unwrap();
    assert!(pidfd_of(pid, near.as_fd()).unwrap().is_none());
    let (near, _far) = Channel::pair().unwrap();
    let error = pidfd_of(pid, near.as_fd()).unwrap_err();
    assert!(matches!(error, IdentityError::Os(error) if error.raw_os_error() == Some(libc::ESRCH)));
}

#[test]
fn process_of_another_pid_namespace_has_no_pidfd_by_number_and_gets_no_signal() {
    let (near, _far) = Channel::pair().unwrap();
    let pidfd = pidfd_of(0, near.as_fd()).unwrap();
    assert!(pidfd.is_none());
    let identity = Identity {
        pid: 0,
        uid: 0,
        pidfd,
    };
    assert!(!identity.is_dead());
    let error = identity.kill().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn socket_without_a_peer_has_no_identity() {
    let pipe = io::pipe().unwrap().0;
    assert!(matches!(Identity::of(&pipe), Err(IdentityError::Os(_))));
}
