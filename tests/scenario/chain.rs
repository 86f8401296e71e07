//! Many takeovers in a row, and many peers at once: nothing is lost, doubled or reordered,
//! and nothing is left behind in the owner.

use crate::support::{Kind, Peers, Stage, seed};

const MIX: [(Kind, usize); 6] = [
    (Kind::Talking, 140),
    (Kind::Idle, 60),
    (Kind::HalfSent, 60),
    (Kind::Unread, 5),
    (Kind::Pipelining, 20),
    (Kind::Churning, 15),
];

#[test]
fn mixed_peers_20_takeovers_notice_nothing() {
    const TAKEOVERS: usize = 20;
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let fresh = server.fd_kinds();
    let address = server.address();
    let seed = seed();
    let peers = Peers::connect(address, seed, &MIX);
    peers.say(2);
    for generation in 1..=TAKEOVERS {
        server = stage.replace(&mut server, &[]);
        server.wait_line(&format!("generation={generation} "));
        peers.say(3);
        peers.echoes(8);
    }
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();

    // The server has closed them all by the time that it answers another.
    let last = Peers::connect(address, seed, &[(Kind::Talking, 1)]);
    last.echoes(4);
    last.reset(Kind::Talking, 1);
    let last = Peers::connect(address, seed, &[(Kind::Talking, 1)]);
    last.echoes(4);
    let mut expected = fresh;
    expected.push("socket".into());
    expected.sort_unstable();
    assert_eq!(server.fd_kinds(), expected);
    assert_eq!(server.inheritable_fds(), []);
    last.finish().assert_flawless();
}

#[test]
fn any_number_of_peers_replaced_keeps_each() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let peers = Peers::connect(server.address(), seed(), &[]);
    let mut connected = 0;
    // Around the limits of one message (SCM_MAX_FD is 253) and of the original (251 peers).
    for count in [0, 1, 249, 250, 251, 253, 500] {
        peers.add(Kind::Talking, count - connected);
        connected = count;
        // Accepted, and not only connected: the new owner names the peers that it was given.
        peers.echoes(4);
        server = stage.replace(&mut server, &[]);
        server.wait_line(&format!(" with {count} Peers"));
        peers.echoes(8);
    }
    peers.finish().assert_flawless();
}

#[test]
fn thousands_of_peers_replaced_keep_talking() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let kinds = [
        (Kind::Idle, 4000),
        (Kind::HalfSent, 800),
        (Kind::Talking, 200),
    ];
    let peers = Peers::connect(server.address(), seed(), &kinds);
    peers.say(3);
    for _ in 0..3 {
        server = stage.replace(&mut server, &[]);
        server.wait_line(" with 5000 Peers");
        peers.say(3);
        peers.echoes(4);
    }
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
    assert_eq!(verdict.connections, 5000);
}

#[test]
fn successor_started_as_the_donor_exits_finds_the_new_owner() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Talking, 100)]);
    let mut owner = stage.take_over(&[]);
    for _ in 0..20 {
        assert_eq!(donor.wait_exit(), 0);
        donor = owner;
        owner = stage.take_over(&[]);
    }
    assert_eq!(donor.wait_exit(), 0);
    peers.echoes(8);
    peers.finish().assert_flawless();
}
