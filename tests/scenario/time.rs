//! What is measured over the life of a service, not of a process: how long a peer has been
//! silent, and how much has been served.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{BOUND, Kind, Peers, Server, Stage, figure, seed};
use nix::sys::signal::Signal;

/// What a busy machine may add to a deadline.
const LATE: Duration = Duration::from_millis(1500);

/// A peer that is watched while it says nothing.
struct Silent {
    stream: TcpStream,
    /// When it said its last word, at the earliest and at the latest.
    spoke: (Instant, Instant),
}

impl Silent {
    fn connect(server: &Server) -> Silent {
        let stream = TcpStream::connect(server.address()).unwrap();
        let now = Instant::now();
        let mut silent = Silent {
            stream,
            spoke: (now, now),
        };
        silent.speak();
        silent
    }

    fn speak(&mut self) {
        let before = Instant::now();
        self.stream.write_all(b"word").unwrap();
        self.stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut back = [0; 4];
        self.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, *b"word");
        self.spoke = (before, Instant::now());
    }

    /// Listens until that long after its last word, in which nothing must come.
    fn listen_until(&mut self, after: Duration) {
        let left = (self.spoke.0 + after).saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        let heard = self.stream.read(&mut [0]);
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    /// Waits for the end, which has to come `idle` after its last word.
    fn assert_ended_after(mut self, idle: Duration) {
        self.stream.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
        let now = Instant::now();
        let silent = (now - self.spoke.1, now - self.spoke.0);
        assert!(silent.1 >= idle, "ended after {silent:?}");
        assert!(silent.0 <= idle + LATE, "ended after {silent:?}");
    }
}

#[test]
fn silent_peer_replaced_half_way_is_ended_when_it_was_to_be() {
    const IDLE: Duration = Duration::from_secs(3);
    let stage = Stage::new();
    let mut first = stage.serve(&["-v", "-i", "3"]);
    let mut early = Silent::connect(&first);
    let mut late = Silent::connect(&first);
    let peers = Peers::connect(first.address(), seed(), &[(Kind::Talking, 20)]);
    // Were the time counted anew by each owner, the end would come that much too late.
    early.listen_until(IDLE * 3 / 5);
    let mut second = stage.replace(&mut first, &["-v"]);
    late.speak();
    early.assert_ended_after(IDLE);
    late.listen_until(IDLE * 3 / 5);
    let third = stage.replace(&mut second, &["-v"]);
    late.assert_ended_after(IDLE);
    third.wait_line("idle for too long");
    let ends = [&first, &second, &third].map(|server| server.log().count("idle for too long"));
    assert_eq!(ends, [0, 1, 1]);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn peer_that_spoke_in_the_preload_is_ended_counted_from_then() {
    const IDLE: Duration = Duration::from_secs(3);
    let stage = Stage::new();
    // So few items that all are sent at once: what is said then is said after that.
    for _ in 0..50 {
        let donor = stage.serve(&["-i", "3"]);
        let mut silent = Silent::connect(&donor);
        let mut taker = stage.take_over(&[]);
        donor.wait_line("Current fd_array:=");
        taker.stop();
        silent.listen_until(IDLE * 3 / 5);
        silent.speak();
        taker.go_on();
        if !taker.serves() {
            // It was stopped in the freeze, and the donor gave up waiting for it.
            assert_eq!(taker.wait_exit(), 75);
        } else if figure(&donor.wait_line("Releasing "), "preload_ms") >= 1e3 {
            silent.assert_ended_after(IDLE);
            return;
        }
        // Otherwise it was stopped too late; the next one may be stopped in time.
    }
    panic!("no taker was stopped in time");
}

#[test]
fn counters_replaced_4_times_say_what_was_served_in_all() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let address = server.address();
    let seed = seed();
    let (mut connections, mut messages) = (0, 0);
    for _ in 0..4 {
        let kinds = [(Kind::Talking, 20), (Kind::Churning, 5)];
        let peers = Peers::connect(address, seed, &kinds);
        peers.echoes(40);
        server = stage.replace(&mut server, &[]);
        peers.echoes(40);
        let verdict = peers.finish();
        verdict.assert_flawless();
        connections += verdict.connections;
        messages += verdict.checked / 4;
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    server.wait_line(&format!(
        "0 peers, {connections} accepted, {messages} messages"
    ));
}
