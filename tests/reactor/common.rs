//! What the scenarios of the reactor share.

#![allow(dead_code)] // each test binary uses its own part

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket_takeover::event::{Config, Reactor};

/// A scenario that takes longer hangs.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Both ends of a stream: one for the test, one (non-blocking) for the reactor.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(LONG)).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// A reactor whose waits have room for `batch` events.
pub(crate) fn reactor<S>(batch: usize) -> Reactor<S> {
    let config = Config {
        batch,
        ..Config::default()
    };
    Reactor::new(config).unwrap()
}

/// Turns `count` times without waiting.
pub(crate) fn turn<S>(reactor: &mut Reactor<S>, state: &mut S, count: usize) {
    for _ in 0..count {
        reactor.turn(state, Some(Duration::ZERO)).unwrap();
    }
}

/// Turns until the state is as wished.
pub(crate) fn turn_until<S>(
    reactor: &mut Reactor<S>,
    state: &mut S,
    mut done: impl FnMut(&S) -> bool,
) {
    let end = std::time::Instant::now() + LONG;
    while !done(state) {
        assert!(std::time::Instant::now() < end, "it never happened");
        reactor
            .turn(state, Some(Duration::from_millis(100)))
            .unwrap();
    }
}

/// Reads until the kernel has no more; true if that was the end of the stream.
pub(crate) fn drain(stream: &mut UnixStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("read: {error}"),
        }
    }
}

/// Whether the other end is closed in every process; with unread data that shows as a reset.
pub(crate) fn is_ended(mut near: &UnixStream) -> bool {
    near.set_nonblocking(true).unwrap();
    loop {
        match near.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Sends one byte.
pub(crate) fn poke(mut near: &UnixStream) {
    near.write_all(b".").unwrap();
}
