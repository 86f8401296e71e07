//! What programs say that share no code with this project: 40 streams through socat and 760
//! connections of a Python checker, over a chain of ten takeovers.
//!
//! `tools/setup` installs both programs where they are missing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::support::{Random, Stage, need, seed};

const STREAMS: usize = 40;
const CONNECTIONS: usize = 760;
const TAKEOVERS: usize = 10;
/// Sent on each stream around each takeover; more than both socket buffers start with.
const CHUNK: usize = 48 * 1024;

/// One socat between a pipe and the server; what comes back goes to a file.
struct Stream {
    socat: Child,
    input: ChildStdin,
    sent: Vec<u8>,
    received: std::path::PathBuf,
}

impl Stream {
    fn open(stage: &Stage, number: usize, to: SocketAddr) -> Stream {
        let received = stage.file(&format!("stream-{number}"));
        let mut socat = Command::new("socat")
            .args(["-t", "60", "-", &format!("TCP:{to}")])
            .stdin(Stdio::piped())
            .stdout(File::create(&received).unwrap())
            .spawn()
            .expect("socat is there");
        Stream {
            input: socat.stdin.take().unwrap(),
            socat,
            sent: Vec::new(),
            received,
        }
    }

    fn say(&mut self, random: &mut Random) {
        let chunk: Vec<u8> = (0..CHUNK / 8)
            .flat_map(|_| random.bits().to_le_bytes())
            .collect();
        self.input.write_all(&chunk).unwrap();
        self.sent.extend(chunk);
    }

    /// Ends the stream's input, and the connection with it; whether all came back.
    fn finish(mut self) -> bool {
        drop(self.input);
        self.socat.wait().unwrap().success() && fs::read(self.received).unwrap() == self.sent
    }
}

#[test]
fn chain_of_ten_takeovers_seen_by_foreign_checkers() {
    need("socat");
    need("python3");
    let stage = Stage::new();
    let mut random = Random::new(seed());
    let mut server = stage.serve(&[]);
    let address = server.address();

    let mut checker = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/echo_check.py"
        ))
        .args([address.port().to_string(), CONNECTIONS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut said = BufReader::new(checker.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let mut streams: Vec<_> = (0..STREAMS)
        .map(|number| Stream::open(&stage, number, address))
        .collect();

    for _ in 0..TAKEOVERS {
        streams
            .iter_mut()
            .for_each(|stream| stream.say(&mut random));
        server = stage.replace(&mut server, &[]);
        streams
            .iter_mut()
            .for_each(|stream| stream.say(&mut random));
    }

    drop(checker.stdin.take());
    let mut verdict = String::new();
    said.read_to_string(&mut verdict).unwrap();
    println!("{verdict}");
    assert!(checker.wait().unwrap().success(), "{verdict}");
    let whole = streams
        .into_iter()
        .map(Stream::finish)
        .filter(|whole| *whole)
        .count();
    assert_eq!(whole, STREAMS, "streams that came back whole");
}
