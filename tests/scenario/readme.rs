//! The scenario of the original's README: a server, a client, a second server. The first
//! tells its part of the story and exits; the second goes on with the next number.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{BOUND, Server, Stage};

/// A client of the original: counts, and wants each number back.
struct Counter {
    stream: TcpStream,
    next: u32,
}

impl Counter {
    fn connect(server: &Server) -> Counter {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.set_nodelay(true).unwrap();
        Counter { stream, next: 0 }
    }

    fn count(&mut self) {
        let number = self.next.to_be_bytes();
        self.stream.write_all(&number).unwrap();
        let mut back = [0; 4];
        self.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, number);
        self.next += 1;
    }
}

/// The numbers that a server has logged.
fn seqnums(server: &Server) -> Vec<u32> {
    let lines = server.log().lines();
    let numbers = lines.iter().filter_map(|line| line.split_once("seqnum:"));
    numbers.map(|(_, number)| number.parse().unwrap()).collect()
}

/// The number behind "fd:" in a line.
fn fd_in(line: &str) -> &str {
    let (_, rest) = line.split_once("(fd:").unwrap();
    rest.split_once(')').unwrap().0
}

#[test]
fn counting_client_replaced_server_goes_on_with_the_next_number() {
    let stage = Stage::new();
    let mut first = stage.serve(&["-vv"]);
    let mut client = Counter::connect(&first);
    for _ in 0..20 {
        client.count();
    }
    let second = stage.take_over(&["-vv"]);
    while second.log().count("Serving on ") == 0 {
        client.count();
    }
    for _ in 0..20 {
        client.count();
    }
    assert_eq!(first.wait_exit(), 0);
    assert!(first.log().wait_end(BOUND));

    let listener = fd_in(&first.wait_line("Starting TCP server on [127.0.0.1]:")).to_owned();
    let peer = fd_in(&first.wait_line("Accepting connection from Peer [127.0.0.1]:")).to_owned();
    let story = [
        "Starting Takeover channel on [".to_owned(),
        "seqnum:0".to_owned(),
        "Accepting connection from Takeover channel".to_owned(),
        format!("Current fd_array:={{[{listener}][{peer}]}}"),
        "Holding connections with 1 Peers".to_owned(),
        "Releasing ".to_owned(),
        "released".to_owned(),
    ];
    let lines = first.log().lines();
    let mut rest = lines.iter();
    for part in &story {
        assert!(rest.any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    assert_eq!(rest.as_slice(), [""; 0], "said after it had released");
    second.wait_line("Starting connection with Peer [127.0.0.1]:");

    second.wait_line(&format!("seqnum:{}", client.next - 1));
    let (mut numbers, after) = (seqnums(&first), seqnums(&second));
    assert!(numbers.len() >= 20 && after.len() >= 20);
    numbers.extend(after);
    assert_eq!(numbers, (0..client.next).collect::<Vec<_>>());
}
