//! `examples/diameter_watchdog`: messages that come byte by byte, across takeovers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use crate::example::{Example, Exchange, addresses, connect};
use nix::sys::signal::Signal;

const CAPABILITIES: u32 = 257;
const WATCHDOG: u32 = 280;
const DISCONNECT: u32 = 282;
const ORIGIN_STATE_ID: u32 = 278;

/// A request whose identifiers tell connection and round, with one AVP that needs padding.
fn request(command: u32, connection: u64, round: u64) -> Vec<u8> {
    let host = b"client.example.org";
    let avp = 8 + host.len();
    let length = 20 + avp.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&(1 << 24 | length as u32).to_be_bytes());
    message.extend_from_slice(&(0x80 << 24 | command).to_be_bytes());
    message.extend_from_slice(&0_u32.to_be_bytes());
    message.extend_from_slice(&(connection as u32).to_be_bytes());
    message.extend_from_slice(&(round as u32).to_be_bytes());
    message.extend_from_slice(&264_u32.to_be_bytes());
    message.extend_from_slice(&(0x40 << 24 | avp as u32).to_be_bytes());
    message.extend_from_slice(host);
    message.resize(length, 0);
    message
}

/// Sends a request byte by byte, and returns the AVPs of its answer: code and data.
fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
    for byte in request {
        stream.write_all(&[*byte])?;
    }
    let mut header = [0; 20];
    stream.read_exact(&mut header)?;
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let length = word(&header[..4]) & 0xff_ffff;
    let command = word(&header[4..8]) & 0xff_ffff;
    let mut body = vec![0; length as usize - 20];
    stream.read_exact(&mut body)?;
    if header[0] != 1 || header[4] & 0x80 != 0 || command != word(&request[4..8]) & 0xff_ffff {
        return Err(io::Error::other(format!("header {header:?}")));
    }
    if header[12..] != request[12..20] {
        return Err(io::Error::other("the answer to something else"));
    }
    let mut avps = Vec::new();
    let mut rest = &body[..];
    while let [_, _, _, _, _, a, b, c, ..] = *rest {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        avps.push((word(&rest[..4]), rest[8..length].to_vec()));
        rest = &rest[length.next_multiple_of(4)..];
    }
    Ok(avps)
}

fn value(avps: &[(u32, Vec<u8>)], code: u32) -> io::Result<u32> {
    let found = avps.iter().find(|avp| avp.0 == code);
    let bytes = found.and_then(|avp| avp.1.as_slice().try_into().ok());
    bytes
        .map(u32::from_be_bytes)
        .ok_or_else(|| io::Error::other(format!("no AVP {code} in {avps:?}")))
}

/// A successful answer; returns its Origin-State-Id.
fn succeed(stream: &mut TcpStream, request: &[u8]) -> io::Result<u32> {
    let avps = ask(stream, request)?;
    match value(&avps, 268)? {
        2001 => value(&avps, ORIGIN_STATE_ID),
        result => Err(io::Error::other(format!("Result-Code {result}"))),
    }
}

/// Peers that exchange capabilities and then ask watchdogs, as fast as they can.
fn peers(to: SocketAddr, count: u64) -> Exchange {
    let state = Mutex::new(None);
    let round = move |stream: &mut TcpStream, connection, round| {
        let command = if round == 0 { CAPABILITIES } else { WATCHDOG };
        let found = succeed(stream, &request(command, connection, round))?;
        let first = *state.lock().unwrap().get_or_insert(found);
        if found != first {
            return Err(io::Error::other(format!(
                "restarted: {first}, then {found}"
            )));
        }
        Ok(())
    };
    let last = |stream: &mut TcpStream, connection| {
        let avps = ask(stream, &request(DISCONNECT, connection, 0))?;
        value(&avps, 268).map(|_| ())
    };
    Exchange::start(to, count, round, last)
}

#[test]
fn five_takeovers_under_load_keep_every_byte_and_the_state_id() {
    let example = Example::new("diameter_watchdog");
    let server = example.serve(&["node.example.org", "127.0.0.1:0"]);
    let load = peers(addresses(&server)[0], 6);
    load.progress.wait_for_more(20);
    let server = example.replace_often(server, &load.progress);
    println!("{} answers", load.finish());
    server.signal(Signal::SIGTERM);
}

#[test]
fn half_a_message_taken_over_is_completed_by_the_rest() {
    let example = Example::new("diameter_watchdog");
    let mut server = example.serve(&["node.example.org", "127.0.0.1:0"]);
    let mut peer = connect(addresses(&server)[0]).unwrap();
    let before = succeed(&mut peer, &request(CAPABILITIES, 1, 0)).unwrap();
    let watchdog = request(WATCHDOG, 1, 1);
    let (half, rest) = watchdog.split_at(21);
    peer.write_all(half).unwrap();
    server = example.replace(&mut server);
    peer.write_all(rest).unwrap();
    let mut answer = [0; 20];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12..], watchdog[12..20]);
    let mut body = vec![0; usize::from(answer[3]) - 20];
    peer.read_exact(&mut body).unwrap();
    let after = succeed(&mut peer, &request(WATCHDOG, 1, 2)).unwrap();
    assert_eq!(before, after);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "ended in an orderly way");
}

#[test]
fn what_is_no_diameter_peer_is_ended() {
    let example = Example::new("diameter_watchdog");
    let server = example.serve(&["node.example.org", "127.0.0.1:0"]);
    let watchdog = request(WATCHDOG, 1, 0);
    for strange in [&b"GET / HTTP/1.1\r\n"[..], &[1, 0, 0, 8], &watchdog] {
        let mut peer = connect(addresses(&server)[0]).unwrap();
        peer.write_all(strange).unwrap();
        let mut answer = Vec::new();
        // By FIN or, if something was left unread, by RST.
        let ended = peer.read_to_end(&mut answer);
        assert!(
            ended.is_err() || answer.is_empty(),
            "{strange:?}: {answer:?}"
        );
    }
    let mut peer = connect(addresses(&server)[0]).unwrap();
    succeed(&mut peer, &request(CAPABILITIES, 1, 0)).unwrap();
    let unknown = ask(&mut peer, &request(999, 1, 1)).unwrap();
    assert_eq!(value(&unknown, 268).unwrap(), 3001);
}
