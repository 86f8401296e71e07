//! Connections that come and go while the service changes hands.

use crate::support::{Kind, Peers, Stage, figure, seed};

#[test]
fn connect_storm_replaced_8_times_refuses_nobody() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let kinds = [(Kind::Churning, 60), (Kind::Resetting, 20)];
    let peers = Peers::connect(server.address(), seed(), &kinds);
    for _ in 0..8 {
        peers.echoes(64);
        server = stage.replace(&mut server, &[]);
    }
    peers.echoes(64);
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
    assert!(verdict.connections > 2_000, "{verdict}");
}

#[test]
fn preload_with_peers_opened_closed_and_changed_takes_rounds_and_loses_none() {
    let stage = Stage::new();
    // The taker may be stopped for longer than a client should have to wait.
    let patient = ["--deadline", "freeze=60000", "--deadline", "claim=60000"];
    let mut server = stage.serve(&patient);
    let kinds = [
        (Kind::Idle, 3000),
        (Kind::HalfSent, 500),
        (Kind::Talking, 100),
        (Kind::Churning, 10),
    ];
    let peers = Peers::connect(server.address(), seed(), &kinds);
    let mut most_rounds = 0.0_f64;
    for round in 0..3 {
        // It stops when it is welcome, before it can have anything.
        let taker = stage.take_over_failing("taker.receive.before:stop", &patient);
        taker.wait_stopped();
        peers.add(Kind::Idle, 200);
        peers.leave(Kind::Idle, 150);
        peers.reset(Kind::Idle, 50);
        peers.leave(Kind::HalfSent, 20);
        peers.add(Kind::HalfSent, 20);
        peers.say(1 + round);
        peers.echoes(8);
        taker.go_on();
        taker.wait_line("Serving on ");
        assert_eq!(server.wait_exit(), 0);
        most_rounds = most_rounds.max(figure(&server.wait_line("Releasing "), "rounds"));
        peers.echoes(8);
        server = taker;
    }
    assert!(most_rounds >= 2.0, "{most_rounds} rounds");
    let verdict = peers.finish();
    println!("{verdict}");
    verdict.assert_flawless();
}
