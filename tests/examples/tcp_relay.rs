//! `examples/tcp_relay`: two connections a client, and nothing between them is lost.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use crate::example::{Example, Exchange, TAKEOVERS, addresses, connect};
use crate::support;
use crate::support::{Random, Server, seed};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, socket,
};
use socket_takeover::event::RESERVE;

/// More than the kernel has room for on the way from a client to the upstream and back: four
/// times a sender's and a receiver's buffer, at their largest (tcp(7)).
fn too_much() -> usize {
    let largest = |what: &str| -> usize {
        let file = format!("/proc/sys/net/ipv4/{what}");
        let text = std::fs::read_to_string(file).expect("it has TCP");
        text.split_whitespace().last().unwrap().parse().unwrap()
    };
    4 * (largest("tcp_rmem") + largest("tcp_wmem")) + (4 << 20)
}

/// A machine with buffers for so much is not filled in a test.
const TOO_LONG: usize = 256 << 20;

/// An upstream that sends back whatever comes, and ends when its client has.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an upstream");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn serve(example: &Example, upstream: SocketAddr) -> Server {
    example.serve(&["127.0.0.1:0", &upstream.to_string()])
}

/// Bytes that are not the same at any other place of any other stream.
fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.bits().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The other side has ended, and said nothing more.
fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more came back than was sent")),
    }
}

#[test]
fn five_takeovers_under_load_lose_nothing_in_either_direction() {
    let seed = seed();
    let example = Example::new("tcp_relay");
    let server = serve(&example, echo());
    let address = addresses(&server)[0];

    let round = move |stream: &mut TcpStream, connection: u64, round: u64| {
        let mut random = Random::new(seed ^ (connection << 32 | round));
        let length = random.within(1..20_000) as usize;
        let sent = bytes(&mut random, length);
        let (head, tail) = sent.split_at(random.within(0..sent.len() as u64) as usize);
        stream.write_all(head)?;
        stream.write_all(tail)?;
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back)?;
        if back != sent {
            return Err(io::Error::other("other bytes came back"));
        }
        Ok(())
    };
    let last = |stream: &mut TcpStream, _| {
        stream.shutdown(Shutdown::Write)?;
        expect_end(stream)
    };
    let load = Exchange::start(address, 6, round, last);

    // One that sends and does not read, until all takeovers are over.
    let greedy = connect(address).expect("it listens");
    let much = too_much().min(TOO_LONG);
    let sent = bytes(&mut Random::new(seed), much);
    let mut writer = greedy.try_clone().expect("a copy");
    let (mut reader, expected) = (greedy, sent.clone());
    let writing = thread::spawn(move || writer.write_all(&sent));

    load.progress.wait_for_more(20);
    let _server = example.replace_often(server, &load.progress);
    println!("{} rounds", load.finish());
    let has_room = writing.is_finished();
    assert!(!has_room || much == TOO_LONG, "room for {much} on the way");

    let mut back = vec![0; much];
    reader.read_exact(&mut back).expect("all comes back");
    assert!(back == expected, "other bytes came back");
    writing.join().unwrap().expect("all was sent");
    reader.shutdown(Shutdown::Write).unwrap();
    expect_end(&mut reader).unwrap();
}

/// It goes on as it is in the relay: there, and back from the upstream.
fn say(stream: &mut TcpStream) {
    stream.write_all(b"word").expect("it is connected");
}

fn hear(stream: &mut TcpStream) {
    let mut back = [0; 4];
    stream.read_exact(&mut back).expect("an answer");
    assert_eq!(&back, b"word");
}

fn talk(stream: &mut TcpStream) {
    say(stream);
    hear(stream);
}

/// More want to be served than it may hold descriptors for. Those that it leaves free are enough to
/// be taken over, and whoever waits is served when another has left, at whoever owns then.
#[test]
fn relay_at_its_descriptor_limit_serves_who_waits_and_is_taken_over() {
    const NOFILE: usize = 160;
    // Each client is two connections.
    const FULL: usize = (NOFILE - RESERVE) / 2;
    const MORE: usize = 40;
    let mut example = Example::new("tcp_relay");
    example.nofile = Some(NOFILE);
    let mut donor = serve(&example, echo());
    let address = addresses(&donor)[0];
    let mut clients: Vec<TcpStream> = (0..FULL).map(|_| connect(address).unwrap()).collect();
    clients.iter_mut().for_each(talk);
    let full = donor.fds().len();
    let mut waiting: Vec<TcpStream> = (0..MORE).map(|_| connect(address).unwrap()).collect();
    waiting.iter_mut().for_each(say);
    clients.iter_mut().for_each(talk);
    assert_eq!(donor.fds().len(), full, "the reserve is free");

    drop(clients.pop());
    let mut next = waiting.remove(0);
    hear(&mut next);
    clients.push(next);

    let mut owner = example.replace(&mut donor);
    clients.iter_mut().for_each(talk);
    assert!(owner.fds().len() < FULL * 2 + RESERVE / 2);
    for _ in 0..3 {
        drop(clients.pop());
        let mut next = waiting.remove(0);
        hear(&mut next);
        clients.insert(0, next);
    }
    // One with room for all of them.
    example.nofile = None;
    let _last = example.replace(&mut owner);
    waiting.iter_mut().for_each(hear);
    clients.iter_mut().chain(&mut waiting).for_each(talk);
}

#[test]
fn half_closed_and_taken_over_still_gets_the_answer() {
    let example = Example::new("tcp_relay");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = serve(&example, listener.local_addr().unwrap());
    let mut client = connect(addresses(&server)[0]).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();

    assert!(support::wait_readable(&listener, support::BOUND).unwrap());
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.set_read_timeout(Some(support::BOUND)).unwrap();
    let mut question = String::new();
    upstream.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    for _ in 0..TAKEOVERS {
        server = example.replace(&mut server);
        upstream.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }
    drop(upstream);
    expect_end(&mut client).unwrap();
}

#[test]
fn upstream_that_refuses_ends_its_client_alone() {
    let example = Example::new("tcp_relay");
    // A port that is taken, and at which nobody listens.
    let nobody = bound();
    let address = TcpListener::from(nobody.try_clone().unwrap()).local_addr();
    let mut server = serve(&example, address.unwrap());
    let mut client = connect(addresses(&server)[0]).unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    server = example.replace(&mut server);
    assert!(server.is_running());
}

/// A socket with a port of its own that does not listen.
fn bound() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(anywhere)).unwrap();
    fd
}

/// A listener whose queue is full: whoever connects now is not answered (tcp(7), listen(2)).
fn crowded() -> (TcpListener, Vec<TcpStream>) {
    let fd = bound();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (listener, queued)
}

#[test]
fn leg_taken_over_while_it_is_being_connected_gets_there() {
    let example = Example::new("tcp_relay");
    let (listener, queued) = crowded();
    let mut server = serve(&example, listener.local_addr().unwrap());
    let mut client = connect(addresses(&server)[0]).unwrap();
    client.write_all(b"early").unwrap();
    for _ in 0..2 {
        server = example.replace(&mut server);
    }
    let mut early = [0; 5];
    // The kernel tries again after a second.
    loop {
        assert!(support::wait_readable(&listener, support::BOUND).unwrap());
        let (mut stream, from) = listener.accept().unwrap();
        if queued.iter().all(|one| one.local_addr().unwrap() != from) {
            stream.set_read_timeout(Some(support::BOUND)).unwrap();
            match stream.read_exact(&mut early) {
                Ok(()) => break,
                // The one that found no room, and has gone.
                Err(error) => println!("{from}: {error}"),
            }
        }
    }
    assert_eq!(&early, b"early");
}
