//! What is under way on a connection at the moment of a takeover: nothing, part of a message,
//! more output than the buffers hold, bursts in both directions.

use crate::support::{Kind, Peers, Stage, seed};

#[test]
fn silent_peers_replaced_are_served_when_they_speak() {
    let stage = Stage::new();
    let mut first = stage.serve(&[]);
    let peers = Peers::connect(first.address(), seed(), &[(Kind::Idle, 100)]);
    let mut second = stage.replace(&mut first, &[]);
    let _third = stage.replace(&mut second, &[]);
    let verdict = peers.finish();
    verdict.assert_flawless();
    assert_eq!(verdict.checked, 400);
}

#[test]
fn half_message_replaced_twice_is_completed() {
    const BEFORE_BETWEEN_AFTER: [[u64; 3]; 9] = [
        [1, 0, 3],
        [2, 0, 2],
        [3, 0, 1],
        [1, 3, 0],
        [2, 2, 0],
        [3, 1, 0],
        [1, 1, 2],
        [1, 2, 1],
        [2, 1, 1],
    ];
    const PEERS: usize = 20;
    let stage = Stage::new();
    let mut first = stage.serve(&[]);
    let address = first.address();
    let seed = seed();
    let groups = BEFORE_BETWEEN_AFTER.map(|split| {
        let peers = Peers::connect(address, seed, &[(Kind::HalfSent, PEERS)]);
        (peers, split)
    });
    let say = |part: usize| {
        groups
            .iter()
            .for_each(|(peers, split)| peers.say(split[part]))
    };
    say(0);
    let mut second = stage.replace(&mut first, &[]);
    say(1);
    let _third = stage.replace(&mut second, &[]);
    say(2);
    for (peers, split) in groups {
        let verdict = peers.finish();
        assert_eq!(verdict.faults, 0, "{split:?}: {verdict}");
        assert_eq!(verdict.checked, 4 * PEERS as u64, "{split:?}");
    }
}

#[test]
fn half_message_then_fin_over_a_takeover_ends_without_an_answer() {
    let stage = Stage::new();
    let mut first = stage.serve(&[]);
    let peers = Peers::connect(first.address(), seed(), &[(Kind::HalfSent, 30)]);
    peers.say(4 + 3);
    let _second = stage.replace(&mut first, &[]);
    peers.leave(Kind::HalfSent, 30);
    let verdict = peers.finish();
    verdict.assert_flawless();
    assert_eq!(verdict.checked, 30 * 4);
}

#[test]
fn unread_output_replaced_twice_is_all_there() {
    const PEERS: usize = 4;
    let stage = Stage::new();
    let mut first = stage.serve(&[]);
    let kinds = [(Kind::Unread, PEERS), (Kind::Talking, 20)];
    let peers = Peers::connect(first.address(), seed(), &kinds);
    peers.fill();
    let mut second = stage.replace(&mut first, &[]);
    // They are stuck as before: whatever the new owner could still send does not free them.
    peers.fill();
    peers.echoes(8);
    let _third = stage.replace(&mut second, &[]);
    peers.fill();
    peers.read();
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
    assert!(verdict.checked > PEERS as u64 * 256 * 1024, "{verdict}");
}

#[test]
fn bursts_in_flight_replaced_8_times_keep_their_order() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let kinds = [(Kind::Pipelining, 30)];
    let peers = Peers::connect(server.address(), seed(), &kinds);
    for _ in 0..8 {
        peers.echoes(10_000);
        server = stage.replace(&mut server, &[]);
    }
    peers.echoes(10_000);
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
}
