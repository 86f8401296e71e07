//! The scenario of the original's README: a server, a client, a second server.

mod support;

use support::{Kind, Peers, Stage, seed};

#[test]
fn serving_replaced_goes_on() {
    let stage = Stage::new();
    let mut first = stage.serve(&[]);
    let peers = Peers::connect(
        first.address(),
        seed(),
        &[
            (Kind::Talking, 10),
            (Kind::Idle, 10),
            (Kind::HalfSent, 5),
            (Kind::Unread, 2),
            (Kind::Pipelining, 5),
            (Kind::Churning, 5),
            (Kind::Resetting, 2),
        ],
    );
    peers.echoes(40);
    peers.say(2);
    peers.fill();
    let second = stage.replace(&mut first, &[]);
    peers.echoes(40);
    peers.say(1);
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
    drop(second);
}
