//! Several instances replaced in a rolling sweep, and what a refusal does to it.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{BOUND, Kind, Peers, raise_nofile, seed};
use socket_takeover::sys::{pidfd_open, pidfd_send_signal};
use takeover_sweep::{NoOwner, Outcome, Shard, Summary, find, roll, start, stop};

const SERVICE: &str = env!("CARGO_BIN_EXE_socket-takeover");
const SHARDS: u16 = 5;

/// Running shards with clients that check every byte.
fn shards(folder: &Path) -> (Vec<Shard>, Vec<Peers>) {
    raise_nofile();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let shards = start(folder, OsStr::new(SERVICE), SHARDS, any).expect("they start");
    assert_eq!(find(folder).unwrap(), shards);
    let kinds = [(Kind::Talking, 10), (Kind::Idle, 5)];
    let peers = shards
        .iter()
        .map(|shard| Peers::connect(shard.address().unwrap(), seed(), &kinds));
    let peers: Vec<_> = peers.collect();
    (shards, peers)
}

/// Kills its process, which leaves its files as they are.
fn kill(shard: &Shard) {
    let owner = shard.owner().unwrap();
    let pidfd = pidfd_open(owner.pid()).unwrap();
    pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL).unwrap();
    assert!(owner.has_ended_within(BOUND).unwrap());
}

/// A process that serves nothing, and has the number that the pid file names.
fn stranger_with_the_number_of(shard: &Shard) -> Child {
    let stranger = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(shard.file("pid"), format!("{:10}\n", stranger.id())).unwrap();
    stranger
}

#[track_caller]
fn all_were_served(peers: Vec<Peers>) {
    for peers in peers {
        peers.echoes(4);
        peers.finish().assert_flawless();
    }
}

#[test]
fn sweep_replaces_every_shard_and_no_client_notices() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, peers) = shards(folder.path());
    let before: Vec<_> = shards.iter().map(|shard| shard.pid().unwrap()).collect();
    let told = Mutex::new(0);
    let two = NonZeroUsize::new(2).unwrap();
    for generation in 1..=2 {
        let outcomes = roll(&shards, OsStr::new(SERVICE), two, |_, _| {
            *told.lock().unwrap() += 1;
        });
        for outcome in &outcomes {
            let Outcome::Moved(moved) = outcome else {
                panic!("{outcome:?}");
            };
            // The listener, the peers, the service's own state and the pid file.
            assert_eq!((moved.items, moved.generation), (18, generation));
            assert!(moved.freeze < moved.whole);
        }
        assert_eq!(Summary::of(&outcomes).items(), 18 * u64::from(SHARDS));
    }
    assert_eq!(told.into_inner().unwrap(), 2 * usize::from(SHARDS));
    for (shard, before) in shards.iter().zip(before) {
        assert_ne!(shard.pid().unwrap(), before);
    }
    all_were_served(peers);
    stop(&shards).unwrap();
}

#[test]
fn refusal_ends_the_sweep_and_the_rest_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, peers) = shards(folder.path());
    let pids: Vec<_> = shards.iter().map(|shard| shard.pid().unwrap()).collect();
    let one = NonZeroUsize::MIN;
    // A version that is none.
    let outcomes = roll(&shards, OsStr::new("/bin/false"), one, |_, _| ());
    assert!(matches!(outcomes[0], Outcome::Refused(_)), "{outcomes:?}");
    for outcome in &outcomes[1..] {
        assert_eq!(*outcome, Outcome::NotTried);
    }
    for (shard, pid) in shards.iter().zip(pids) {
        assert_eq!(shard.pid().unwrap(), pid, "its old process serves");
    }
    all_were_served(peers);
    stop(&shards).unwrap();
}

#[test]
fn shard_that_nobody_serves_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody offers a takeover there.
    let shard = Shard::new(folder.path(), "nobody");
    let refused = shard.replace(OsStr::new(SERVICE)).unwrap_err();
    assert_eq!(refused.code, Some(69));
    assert!(!refused.is_safe());
    assert!(refused.why.contains("start the service"), "{refused:?}");
}

#[test]
fn shard_that_was_killed_is_nobody_and_whoever_has_its_number_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let shards = start(folder.path(), OsStr::new(SERVICE), 3, any).expect("they start");
    kill(&shards[1]);
    let nobody = |shard: &Shard| match shard.owner() {
        Err(NoOwner::Nobody(why)) => assert!(why.contains("stale"), "{why}"),
        other => panic!("{other:?}"),
    };
    nobody(&shards[1]);
    let mut stranger = stranger_with_the_number_of(&shards[1]);
    nobody(&shards[1]);
    let refused = shards[1].replace(OsStr::new(SERVICE)).unwrap_err();
    assert_eq!(refused.code, Some(69));
    assert!(refused.why.contains("stale"), "{refused:?}");
    // Those beside it end.
    let unserved = stop(&shards).unwrap();
    assert_eq!(unserved.len(), 1);
    assert_eq!(unserved[0].0, &shards[1]);
    for shard in &shards {
        assert!(shard.owner().is_err());
    }
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    // And a stale file is in nobody's way.
    let number = stranger.id();
    shards[1]
        .start(OsStr::new(SERVICE), any)
        .expect("it starts");
    assert_ne!(shards[1].pid().unwrap(), number);
    assert!(stop(&shards[1..2]).unwrap().is_empty());
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn shard_that_is_served_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let shards = start(folder.path(), OsStr::new(SERVICE), 1, any).expect("it starts");
    let owner = shards[0].owner().unwrap();
    let (name, refused) = start(folder.path(), OsStr::new(SERVICE), 1, any).unwrap_err();
    assert_eq!(name, shards[0].name());
    let pid = owner.pid().to_string();
    assert!(
        refused.why.contains(&pid) && refused.why.contains("roll"),
        "{refused:?}"
    );
    assert!(!owner.has_ended_within(Duration::ZERO).unwrap());
    stop(&shards).unwrap();
    assert!(owner.has_ended_within(Duration::ZERO).unwrap());
}
