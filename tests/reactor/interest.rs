//! What a source can be watched for, and what it hears of without asking.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::common::{pair, reactor, turn, turn_until};
use nix::sys::socket::{MsgFlags, send};
use socket_takeover::event::{Config, Cx, Event, Interest, Next, Reactor, Spec};

/// All events, in order.
#[derive(Default)]
struct World {
    events: Vec<Event>,
}

fn note(
    _: &mut UnixStream,
    world: &mut World,
    _: &mut Cx<World>,
    event: Event,
) -> io::Result<Next> {
    world.events.push(event);
    Ok(Next::Keep)
}

#[test]
fn hangup_without_read_interest_is_reported_once() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (near, far) = pair();
    let spec = Spec::item("peer").interest(Interest::Write);
    reactor.cx().add(spec, far, note).unwrap();
    turn(&mut reactor, &mut world, 1);
    assert!(world.events[0].is_writable() && !world.events[0].is_hangup());
    drop(near);
    turn(&mut reactor, &mut world, 5);
    assert_eq!(world.events.len(), 2, "an unhandled hang-up does not spin");
    assert!(world.events[1].is_hangup() && world.events[1].is_read_closed());
}

#[test]
fn error_on_a_pipe_is_reported_once() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (reading, writing) = io::pipe().unwrap();
    let watch = |_: &mut io::PipeWriter, world: &mut World, _: &mut Cx<World>, event| {
        world.events.push(event);
        Ok(Next::Keep)
    };
    reactor
        .cx()
        .add(Spec::item("pipe"), writing, watch)
        .unwrap();
    turn(&mut reactor, &mut world, 1);
    assert!(world.events.is_empty(), "it is watched for reading only");
    drop(reading);
    turn(&mut reactor, &mut world, 5);
    assert_eq!(world.events.len(), 1);
    assert!(world.events[0].is_error() && !world.events[0].is_hangup());
}

#[test]
fn refused_source_comes_back() {
    let mut reactor: Reactor<()> = Reactor::new(Config::default()).unwrap();
    let file = tempfile::tempfile().unwrap(); // cannot be polled: epoll_ctl(2), EPERM
    let refused = reactor
        .cx()
        .add(Spec::item("file"), file, |_, _, _, _| Ok(Next::Keep));
    let mut refused = refused.unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(libc::EPERM));
    refused.source.write_all(b"still usable").unwrap();
    assert_eq!(reactor.cx().items_len(), 0);
}

#[test]
fn unchanged_interest_costs_no_system_call() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (_near, far) = pair();
    let peer = reactor.cx().add(Spec::item("peer"), far, note).unwrap();
    let controls = reactor.cx().stats().controls;
    reactor.cx().set_interest(peer, Interest::Read).unwrap();
    assert_eq!(reactor.cx().stats().controls, controls);
    reactor.cx().set_interest(peer, Interest::Both).unwrap();
    assert_eq!(reactor.cx().stats().controls, controls + 1);
    turn_until(&mut reactor, &mut world, |world| {
        world.events.iter().any(Event::is_writable)
    });
    reactor.cx().remove(peer);
    let gone = reactor.cx().set_interest(peer, Interest::Read).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

/// What lies behind an urgent byte is announced by the same edge as what lies in front of it,
/// and a read ends there: whoever takes a short read for the last one has to be warned.
#[test]
fn urgent_byte_is_told_to_whoever_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    client.write_all(b"ab").unwrap();
    send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
    client.write_all(b"cd").unwrap();

    let mut reactor = reactor(16);
    let mut world = World::default();
    let read = |socket: &mut TcpStream, world: &mut World, _: &mut Cx<World>, event: Event| {
        world.events.push(event);
        let length = socket.read(&mut [0; 64])?;
        let is_empty = socket.peek(&mut [0; 1]).is_err();
        assert!(length == 2 && (event.is_urgent() || is_empty), "{event:?}");
        Ok(if is_empty { Next::Keep } else { Next::Again })
    };
    let spec = Spec::item("peer");
    reactor.cx().add(spec, socket, read).unwrap();
    turn_until(&mut reactor, &mut world, |world| world.events.len() == 2);
    let [first, second] = world.events[..] else {
        unreachable!("there are two");
    };
    assert!(first.is_urgent() && first.is_readable());
    assert!(second.is_urgent() && second.is_resumed());
}
