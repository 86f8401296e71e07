//! Timers to the microsecond, and how seldom the kernel hears of them.

use std::time::Duration;

use crate::common::{LONG, reactor, turn, turn_until};
use socket_takeover::event::{Class, Reactor, Time, TimerId};

const MICROSECOND: Duration = Duration::from_micros(1);

fn add(reactor: &mut Reactor<Vec<Time>>, at: Time) -> TimerId {
    reactor
        .cx()
        .liveness_timer("bfd", at, |ran: &mut Vec<Time>, cx| {
            ran.push(cx.now());
            None
        })
        .unwrap()
}

#[test]
fn liveness_timer_within_a_millisecond_runs_within_it() {
    let mut reactor = reactor(16);
    let mut least = Duration::MAX;
    // A loaded machine may be late many times; a wait in whole milliseconds would be always.
    for _ in 0..200 {
        let at = Time::now() + 200 * MICROSECOND;
        add(&mut reactor, at);
        let mut ran = Vec::new();
        turn_until(&mut reactor, &mut ran, |ran| !ran.is_empty());
        assert!(ran[0] >= at, "never early");
        least = least.min(ran[0].since(at));
    }
    assert!(least < 700 * MICROSECOND, "{least:?} late at best");
}

#[test]
fn liveness_timer_pushed_later_with_every_packet_costs_no_call() {
    let mut reactor = reactor(16);
    let timer = add(&mut reactor, Time::now() + LONG);
    let mut ran = Vec::new();
    turn(&mut reactor, &mut ran, 1);
    assert_eq!(reactor.cx().stats().alarms, 1);
    for packet in 1..100 {
        let at = Time::now() + LONG + packet * MICROSECOND;
        assert!(reactor.cx().rearm(timer, at));
        turn(&mut reactor, &mut ran, 1);
    }
    // Later ones change nothing, an earlier one does.
    add(&mut reactor, Time::now() + 2 * LONG);
    turn(&mut reactor, &mut ran, 1);
    assert_eq!(reactor.cx().stats().alarms, 1);
    add(&mut reactor, Time::now() + LONG / 2);
    turn(&mut reactor, &mut ran, 2);
    assert_eq!(reactor.cx().stats().alarms, 2);
    assert!(ran.is_empty());
}

#[test]
fn liveness_timer_due_runs_before_other_timers() {
    let mut reactor = reactor(16);
    let at = Time::now();
    reactor
        .cx()
        .timer(Class::Item, "item", at, |ran: &mut Vec<Time>, _| {
            assert_eq!(ran.len(), 1);
            None
        });
    add(&mut reactor, at);
    let mut ran = Vec::new();
    turn(&mut reactor, &mut ran, 1);
    assert_eq!(ran.len(), 1);
    assert_eq!(reactor.cx().stats().timers_fired, 2);
}

#[test]
fn liveness_timer_is_cancelled_and_moved_like_any() {
    let mut reactor = reactor(16);
    let soon = Time::now() + 300 * MICROSECOND;
    let (gone, moved) = (add(&mut reactor, soon), add(&mut reactor, soon));
    let later = soon + 2_000 * MICROSECOND;
    assert_eq!(reactor.cx().timer_name(gone), Some("bfd"));
    assert!(reactor.cx().cancel(gone) && reactor.cx().rearm(moved, later));
    assert_eq!(reactor.cx().due(moved), Some(later));
    let mut ran = Vec::new();
    turn_until(&mut reactor, &mut ran, |ran| !ran.is_empty());
    assert!(ran.len() == 1 && ran[0] >= later);
}

#[test]
fn liveness_timer_sleeps_during_a_hold_and_goes_with_a_release() {
    let mut reactor = reactor(16);
    let mut ran = Vec::new();
    let timer = add(&mut reactor, Time::now() + 500 * MICROSECOND);
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut ran, 1);
    let limit = Duration::from_millis(3);
    reactor.turn(&mut ran, Some(limit)).unwrap();
    assert!(ran.is_empty());
    reactor.cx().resume();
    // Not before it is known which items were ready meanwhile.
    turn(&mut reactor, &mut ran, 2);
    assert_eq!(ran.len(), 1);

    let gone = add(&mut reactor, Time::now());
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut ran, 1);
    ran.clear();
    reactor.cx().release(&[]).unwrap();
    assert_eq!(reactor.cx().timer_name(gone), None);
    assert_ne!(gone, timer);
    // A new one wakes the new set.
    add(&mut reactor, Time::now() + 100 * MICROSECOND);
    turn_until(&mut reactor, &mut ran, |ran| !ran.is_empty());
}

#[test]
fn liveness_timer_makes_the_descriptor_readable_for_another_loop() {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    let mut reactor = reactor(16);
    let at = Time::now() + 400 * MICROSECOND;
    add(&mut reactor, at);
    assert_eq!(reactor.wake_time(), Some(at));
    let mut wanted = [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wanted, 10_000_u16).unwrap(), 1);
    let mut ran = Vec::new();
    turn(&mut reactor, &mut ran, 1);
    assert_eq!(ran.len(), 1);
}
