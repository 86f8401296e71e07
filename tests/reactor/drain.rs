//! Ending in order: no new work, and a limit to the old.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::common;
use crate::common::{drain, pair, turn, turn_until};
use socket_takeover::event::{Class, Clock, Config, Cx, Event, Next, Reactor, Spec};

const SECOND: Duration = Duration::from_secs(1);

/// How many items were left, each time that somebody was told.
type Told = Vec<usize>;

fn serve(far: &mut UnixStream, _: &mut Told, _: &mut Cx<Told>, _: Event) -> io::Result<Next> {
    Ok(if drain(far) { Next::End } else { Next::Keep })
}

fn told(told: &mut Told, cx: &mut Cx<Told>, left: usize) {
    assert!(!cx.is_draining());
    told.push(left);
    cx.stop();
}

fn manual() -> Reactor<Told> {
    Reactor::new(Config {
        clock: Clock::Manual,
        ..Config::default()
    })
    .unwrap()
}

/// A reactor with so many peers, and their other ends.
fn with_peers(count: usize) -> (Reactor<Told>, Vec<UnixStream>) {
    let mut reactor = manual();
    let nears = (0..count).map(|_| {
        let (near, far) = pair();
        reactor.cx().add(Spec::item("peer"), far, serve).unwrap();
        near
    });
    let nears = nears.collect();
    (reactor, nears)
}

#[test]
fn drain_ends_when_the_last_item_has_gone() {
    let (mut reactor, mut nears) = with_peers(3);
    let mut left = Told::new();
    let deadline = reactor.cx().now() + 60 * SECOND;
    reactor.cx().drain(deadline, told);
    while let Some(near) = nears.pop() {
        assert!(reactor.cx().is_draining() && left.is_empty());
        drop(near);
        turn(&mut reactor, &mut left, 1);
    }
    assert_eq!(left, [0]);
    reactor.run(&mut left).unwrap(); // stopped
    assert!(
        reactor.cx().dump().timers.is_empty(),
        "its deadline is gone"
    );
}

#[test]
fn drain_ends_at_its_deadline_with_what_is_left() {
    let (mut reactor, mut nears) = with_peers(3);
    let mut left = Told::new();
    let deadline = reactor.cx().now() + 60 * SECOND;
    reactor.cx().drain(deadline, told);
    nears.pop();
    reactor.advance(&mut left, 59 * SECOND).unwrap();
    assert!(left.is_empty());
    reactor.advance(&mut left, SECOND).unwrap();
    assert_eq!(left, [2]);
}

#[test]
fn drain_ends_what_brings_in_new_work_and_nothing_else() {
    let (mut reactor, _nears) = with_peers(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let ignore = |_: &mut UnixListener, _: &mut Told, _: &mut Cx<Told>, _| Ok(Next::Keep);
    let spec = Spec::item("listener").intake();
    let listener = reactor.cx().add(spec, listener, ignore).unwrap();
    UnixStream::connect(&path).unwrap();
    let now = reactor.cx().now();
    reactor.cx().drain(now + SECOND, told);
    assert!(!reactor.cx().contains(listener));
    assert_eq!(reactor.cx().items_len(), 1);
    UnixStream::connect(&path).unwrap_err();
}

#[test]
fn drain_of_nothing_ends_in_the_turn_that_asked_for_it() {
    let (mut reactor, _) = with_peers(0);
    let mut left = Told::new();
    // What is local keeps nobody waiting.
    reactor.cx().waker("waker", |_, _| Ok(Next::Keep)).unwrap();
    let now = reactor.cx().now();
    reactor.cx().timer(Class::Item, "drain", now, move |_, cx| {
        cx.drain(now + SECOND, told);
        None
    });
    turn(&mut reactor, &mut left, 1);
    assert_eq!(left, [0]);
}

#[test]
fn drain_asked_for_again_has_the_later_deadline_and_one_end() {
    let (mut reactor, _nears) = with_peers(1);
    let mut left = Told::new();
    let now = reactor.cx().now();
    reactor.cx().drain(now + SECOND, |_, _, _| unreachable!());
    reactor.cx().drain(now + 5 * SECOND, told);
    reactor.advance(&mut left, 4 * SECOND).unwrap();
    assert!(left.is_empty());
    reactor.advance(&mut left, 4 * SECOND).unwrap();
    assert_eq!(left, [1]);
}

#[test]
fn drain_during_a_hold_ends_at_its_deadline() {
    let (mut reactor, nears) = with_peers(1);
    let mut left = Told::new();
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut left, 1);
    drop(nears);
    let now = reactor.cx().now();
    reactor.cx().drain(now + SECOND, told);
    reactor.advance(&mut left, SECOND / 2).unwrap();
    assert!(left.is_empty(), "the item is held");
    reactor.advance(&mut left, SECOND / 2).unwrap();
    assert_eq!(left, [1]);
}

#[test]
fn drain_by_the_kernels_clock_ends_too() {
    let mut reactor = common::reactor(16);
    let (_near, far) = pair();
    reactor.cx().add(Spec::item("peer"), far, serve).unwrap();
    let deadline = reactor.cx().now() + Duration::from_millis(5);
    reactor.cx().drain(deadline, told);
    let mut left = Told::new();
    turn_until(&mut reactor, &mut left, |left| !left.is_empty());
    assert_eq!(left, [1]);
}
