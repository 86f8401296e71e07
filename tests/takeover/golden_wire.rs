//! The bytes of a whole takeover as an earlier release spoke it (`tests/golden/`), replayed:
//! its taker against the present donor, and its donor against the present taker. Whatever is
//! changed in what the records say, or in their order, shows here.
//!
//! Each side says the file's bytes to the letter, but for what differs from one run to the next,
//! and must be answered with the file's bytes; a later release may add to them what an earlier
//! one skips. The file's taker claims, and its donor grants, as the file's release did.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::support::side::Side;
use crate::support::{BOUND, Client, Stage, wait_readable};
use socket_takeover::event::Time;
use socket_takeover::proto::digest::Digest;
use socket_takeover::proto::wire::{HEADER, MIN_VERSION, MUST_UNDERSTAND};
use socket_takeover::takeover::TakeoverPath;
use socket_takeover::takeover::internal::descriptor;
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::offer::{Offer, Replace};
use socket_takeover::takeover::internal::path;

const WIRE_1: &str = include_str!("../golden/wire-1.txt");

/// What the holes of a file are filled with.
type Holes = BTreeMap<&'static str, Vec<u8>>;

/// One record of a file.
#[derive(Debug)]
struct Line {
    from_taker: bool,
    name: &'static str,
    fds: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Byte(u8),
    Hole(&'static str, usize),
}

fn read(file: &'static str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for text in file.lines() {
        let text = text.split('#').next().unwrap();
        let mut words = text.split_whitespace().peekable();
        if let Some(side) = words.next_if(|word| ["<", ">"].contains(word)) {
            lines.push(Line {
                from_taker: side == ">",
                name: words.next().expect("a record has a name"),
                fds: words.next().map_or(0, |fds| fds[1..].parse().unwrap()),
                parts: Vec::new(),
            });
        }
        for word in words {
            let part = match word.strip_prefix('{') {
                Some(hole) => {
                    let (name, length) = hole.strip_suffix('}').unwrap().split_once(':').unwrap();
                    Part::Hole(name, length.parse().unwrap())
                }
                None => Part::Byte(u8::from_str_radix(word, 16).expect("a byte")),
            };
            lines
                .last_mut()
                .expect("a record has begun")
                .parts
                .push(part);
        }
    }
    lines
}

impl Line {
    /// The bytes, each hole filled.
    fn filled(&self, holes: &Holes) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Byte(byte) => bytes.push(*byte),
                Part::Hole(name, length) => {
                    let value = holes.get(name).unwrap_or_else(|| panic!("what is {name}?"));
                    assert_eq!(value.len(), *length, "{name}");
                    bytes.extend(value);
                }
            }
        }
        bytes
    }

    /// Holds the line against what was heard, and learns what is in its holes.
    #[track_caller]
    fn is_heard(&self, heard: &[u8], holes: &mut Holes) {
        let mut at = 0;
        for part in &self.parts {
            match part {
                // The record's own length: more, where a later release has added something.
                Part::Byte(_) if (8..12).contains(&at) => at += 1,
                Part::Byte(byte) => {
                    assert_eq!(heard.get(at), Some(byte), "{}, byte {at}", self.name);
                    at += 1;
                }
                Part::Hole(name, length) => {
                    let value = heard.get(at..at + length);
                    let value = value.unwrap_or_else(|| panic!("{} ends in {name}", self.name));
                    let known = holes.entry(name).or_insert_with(|| value.to_vec());
                    assert_eq!(known, value, "{name} in {}", self.name);
                    at += length;
                }
            }
        }
        assert_eq!(heard[8..12], (heard.len() as u32).to_le_bytes());
        let mut more = &heard[at..];
        while let Some((head, rest)) = more.split_first_chunk::<4>() {
            let kind = u16::from_le_bytes([head[0], head[1]]);
            assert_eq!(kind & MUST_UNDERSTAND, 0, "{} cannot be skipped", self.name);
            more = &rest[usize::from(u16::from_le_bytes([head[2], head[3]]))..];
        }
        assert!(more.is_empty(), "{} goes on: {more:02x?}", self.name);
    }
}

#[test]
fn file_is_of_a_version_that_is_still_spoken() {
    let lines = read(WIRE_1);
    assert_eq!(lines.len(), 10);
    for line in &lines {
        let length: usize = line
            .parts
            .iter()
            .map(|part| match part {
                Part::Byte(_) => 1,
                Part::Hole(_, length) => *length,
            })
            .sum();
        let bytes: Vec<_> = line.parts[..HEADER].iter().collect();
        let [Part::Byte(low), Part::Byte(high)] = bytes[4..6] else {
            panic!("a version is no hole");
        };
        assert!(u16::from_le_bytes([*low, *high]) >= MIN_VERSION);
        let Part::Byte(said) = bytes[8] else {
            panic!("a length is no hole");
        };
        assert_eq!(usize::from(*said), length, "{}", line.name);
    }
}

/// Answers one message of the client's, and leaves the socket as a donor has it.
fn echo(peer: &mut TcpStream, client: &mut Client) {
    peer.set_nonblocking(false).unwrap();
    client.say();
    let mut message = [0; 4];
    peer.read_exact(&mut message).unwrap();
    peer.write_all(&message).unwrap();
    client.hear();
    peer.set_nonblocking(true).unwrap();
}

/// The taker of the earlier release takes over from the present donor.
#[test]
fn first_taker_of_version_1_takes_over() {
    let stage = Stage::new();
    // WELCOME says how long the file's donor waited.
    let mut donor = stage.serve(&["--deadline", "claim=1000"]);
    let mut client = Client::connect(donor.address());
    client.talk();
    let path = TakeoverPath::new(stage.path()).unwrap();
    let (channel, _) = path::connect(&path).unwrap();
    let mut side = Side::new(channel);
    let mut holes = Holes::new();
    holes.insert("slots", 1000u64.to_le_bytes().to_vec());
    holes.insert("taker", std::process::id().to_le_bytes().to_vec());
    let mut lease = None;
    let mut items = Vec::new();
    for line in read(WIRE_1) {
        if line.from_taker {
            holes.insert("hello_now", Time::now().as_ns().to_le_bytes().to_vec());
            if line.name == "ACTIVE" {
                let lease: &Lease = lease.as_ref().expect("WELCOME has come");
                assert_eq!(lease.claim().unwrap(), Verdict::Won);
            }
            if line.name == "DRAINED" {
                client.talk();
            }
            let _ = side.throw(&line.filled(&holes), &[]).unwrap();
            continue;
        }
        let mut heard = side.hear().expect("the donor goes on");
        line.is_heard(heard.bytes(), &mut holes);
        assert_eq!(heard.fds.len(), line.fds, "{}", line.name);
        match line.name {
            "WELCOME" => lease = heard.fds.pop().map(|fd| Lease::from_fd(fd).unwrap()),
            "ITEMS" => items = heard.fds,
            _ => {}
        }
    }
    assert_eq!(donor.wait_exit(), 0);
    // The listener leads, the client follows; both are ours alone now.
    let mut peer = TcpStream::from(items.pop().unwrap());
    echo(&mut peer, &mut client);
    let listener = TcpListener::from(items.pop().unwrap());
    listener.set_nonblocking(false).unwrap();
    let _new = Client::connect(listener.local_addr().unwrap());
    listener.accept().unwrap();
}

/// The present taker takes over from the donor of the earlier release.
#[test]
fn first_donor_of_version_1_is_taken_over() {
    let stage = Stage::new();
    let path = TakeoverPath::new(stage.path()).unwrap();
    let mut offer = Offer::bind(&path).unwrap();
    offer.publish(Replace::Stale).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::connect(address);
    let (mut peer, client_address) = listener.accept().unwrap();
    echo(&mut peer, &mut client);
    listener.set_nonblocking(true).unwrap();

    let taker = stage.take_over(&[]);
    assert!(wait_readable(&offer, BOUND).unwrap());
    let mut side = Side::new(offer.accept().unwrap().unwrap());
    let lease = Lease::new().unwrap();
    let mut digest = Digest::default();
    let mut holes = Holes::new();
    let now = || Time::now().as_ns().to_le_bytes().to_vec();
    let cookie = |fd: BorrowedFd<'_>| descriptor::cookie(fd).to_le_bytes().to_vec();
    for (name, value) in [
        ("id", 7u64.to_le_bytes().to_vec()),
        ("donor", std::process::id().to_le_bytes().to_vec()),
        ("listener", 1u64.to_le_bytes().to_vec()),
        ("listener_cookie", cookie(listener.as_fd())),
        ("port", address.port().to_le_bytes().to_vec()),
        ("peer", 2u64.to_le_bytes().to_vec()),
        ("peer_cookie", cookie(peer.as_fd())),
        ("client_port", client_address.port().to_le_bytes().to_vec()),
        ("statistics", now()),
    ] {
        holes.insert(name, value);
    }
    let mut is_final = false;
    for line in read(WIRE_1) {
        if line.from_taker {
            let heard = side.hear().expect("the taker goes on");
            line.is_heard(heard.bytes(), &mut holes);
            if line.name == "DRAINED" {
                is_final = true;
                echo(&mut peer, &mut client);
            }
            continue;
        }
        for name in ["welcome_now", "held_now"] {
            holes.insert(name, now());
        }
        holes.insert("digest", digest.value().to_le_bytes().to_vec());
        let bytes = line.filled(&holes);
        if is_final {
            digest.update(&bytes);
        }
        if line.name == "END" {
            lease.grant().unwrap();
        }
        let fds: Vec<OwnedFd> = match line.name {
            "WELCOME" => vec![lease.as_fd().try_clone_to_owned().unwrap()],
            "ITEMS" => vec![
                listener.as_fd().try_clone_to_owned().unwrap(),
                peer.as_fd().try_clone_to_owned().unwrap(),
            ],
            _ => Vec::new(),
        };
        assert_eq!(fds.len(), line.fds);
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let _ = side.throw(&bytes, &fds).unwrap();
    }
    assert_eq!(lease.revoke().unwrap(), Verdict::Lost);
    taker.wait_line("Serving on ");
    drop((peer, listener, side));
    // It goes on where the file's donor was: the service expects the third message.
    client.talk();
    Client::connect(address).talk();
}
