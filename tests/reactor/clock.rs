//! The manual clock, and what runs by it: periodic timers, deadlines, hours in a microsecond.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{drain, pair, poke, turn};
use socket_takeover::event::{Class, Clock, Config, Cx, Drift, Event, Next, Reactor, Spec, Tick};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn manual<S>() -> Reactor<S> {
    Reactor::new(Config {
        clock: Clock::Manual,
        ..Config::default()
    })
    .unwrap()
}

/// What ran and when, in milliseconds since the start.
type Log = Vec<(&'static str, u128)>;

/// A timer that notes its runs.
fn every(reactor: &mut Reactor<Log>, name: &'static str, period: Duration, drift: Drift) {
    let start = reactor.cx().now();
    let first = start + period;
    reactor.cx().every(
        Class::Item,
        name,
        first,
        period,
        drift,
        move |log: &mut Log, cx, _| {
            log.push((name, cx.now().since(start).as_millis()));
            ControlFlow::Continue(())
        },
    );
}

#[test]
fn clock_moved_on_runs_each_deadline_at_its_own_time() {
    let mut reactor = manual();
    let mut log = Log::new();
    every(&mut reactor, "three", 3 * SECOND, Drift::Skip);
    every(&mut reactor, "two", 2 * SECOND, Drift::Skip);
    let start = reactor.cx().now();
    reactor.advance(&mut log, 6 * SECOND).unwrap();
    assert_eq!(
        log,
        [
            ("two", 2000),
            ("three", 3000),
            ("two", 4000),
            ("three", 6000), // armed before the other one
            ("two", 6000),
        ]
    );
    assert_eq!(reactor.cx().now(), start + 6 * SECOND);
}

#[test]
fn clock_stands_still_between_advances() {
    let mut reactor = manual();
    let mut log = Log::new();
    every(&mut reactor, "one", MILLISECOND, Drift::Skip);
    let start = reactor.cx().now();
    for _ in 0..3 {
        // It would wait for ever for a clock that nobody moves.
        reactor.turn(&mut log, None).unwrap();
    }
    assert_eq!(reactor.cx().now(), start);
    assert!(log.is_empty());
}

#[test]
fn clock_moved_to_the_next_deadline_runs_that_alone() {
    let mut reactor = manual();
    let mut log = Log::new();
    assert!(!reactor.advance_to_next(&mut log).unwrap());
    every(&mut reactor, "hour", 3600 * SECOND, Drift::Skip);
    every(&mut reactor, "day", 24 * 3600 * SECOND, Drift::Skip);
    for _ in 0..2 {
        assert!(reactor.advance_to_next(&mut log).unwrap());
    }
    assert_eq!(log, [("hour", 3_600_000), ("hour", 7_200_000)]);
}

#[test]
fn peer_silent_for_three_intervals_is_given_up_in_no_time() {
    const INTERVAL: Duration = Duration::from_secs(10);
    fn serve(far: &mut UnixStream, given_up: &mut bool, cx: &mut Cx<bool>, event: Event) -> Reply {
        if event.is_timeout() {
            *given_up = true;
            return Ok(Next::End);
        }
        drain(far);
        cx.set_deadline(event.id(), Some(cx.now() + 3 * INTERVAL));
        Ok(Next::Keep)
    }
    type Reply = io::Result<Next>;
    let mut reactor = manual();
    let (near, far) = pair();
    let spec = Spec::item("peer").deadline(reactor.cx().now() + 3 * INTERVAL);
    reactor.cx().add(spec, far, serve).unwrap();
    let mut given_up = false;
    for _ in 0..100 {
        reactor.advance(&mut given_up, INTERVAL).unwrap();
        poke(&near);
    }
    reactor
        .advance(&mut given_up, 3 * INTERVAL - MILLISECOND)
        .unwrap();
    assert!(!given_up);
    reactor.advance(&mut given_up, MILLISECOND).unwrap();
    assert!(given_up);
}

#[test]
fn readiness_made_by_a_timer_is_served_at_the_time_of_the_timer() {
    let mut reactor = manual();
    let (near, far) = pair();
    let start = reactor.cx().now();
    let note = move |far: &mut UnixStream, log: &mut Log, cx: &mut Cx<Log>, _: Event| {
        drain(far);
        log.push(("peer", cx.now().since(start).as_millis()));
        Ok(Next::Keep)
    };
    reactor.cx().add(Spec::item("peer"), far, note).unwrap();
    reactor
        .cx()
        .timer(Class::Item, "poke", start + SECOND, move |_, _| {
            poke(&near);
            None
        });
    let mut log = Log::new();
    reactor.advance(&mut log, 5 * SECOND).unwrap();
    assert_eq!(log, [("peer", 1000)]);
}

#[test]
fn clock_beside_a_timer_that_is_always_due_goes_on() {
    let mut reactor = manual();
    let mut runs = 0_u32;
    let now = reactor.cx().now();
    reactor
        .cx()
        .timer(Class::Item, "endless", now, |runs: &mut u32, cx| {
            *runs += 1;
            Some(cx.now())
        });
    reactor.advance(&mut runs, 10 * MILLISECOND).unwrap();
    assert_eq!(reactor.cx().now(), now + 10 * MILLISECOND);
    assert!(runs >= 1000);
}

#[test]
fn clock_moved_on_stops_with_the_reactor() {
    let mut reactor = manual();
    let start = reactor.cx().now();
    reactor
        .cx()
        .timer(Class::Item, "stop", start + SECOND, |_: &mut (), cx| {
            cx.stop();
            None
        });
    reactor.advance(&mut (), 9 * SECOND).unwrap();
    assert_eq!(reactor.cx().now(), start + SECOND);
}

#[test]
fn clock_of_the_kernel_cannot_be_moved() {
    let mut reactor = Reactor::<()>::new(Config::default()).unwrap();
    let refused = reactor.advance(&mut (), SECOND).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(reactor.advance_to_next(&mut ()).is_err());
}

#[test]
fn liveness_timer_runs_by_the_manual_clock_too() {
    let mut reactor = manual();
    let at = reactor.cx().now() + Duration::from_micros(3_300);
    reactor
        .cx()
        .liveness_timer("bfd", at, move |ran: &mut bool, cx| {
            *ran = cx.now() == at;
            None
        })
        .unwrap();
    let mut ran = false;
    assert!(reactor.advance_to_next(&mut ran).unwrap());
    assert!(ran);
    assert_eq!(reactor.cx().stats().alarms, 0);
}

/// The ticks of a timer of 10 ms that is held up from its second run on for 35 ms.
fn held_up(drift: Drift) -> (Log, Vec<u64>) {
    let mut reactor = manual();
    let period = 10 * MILLISECOND;
    let start = reactor.cx().now();
    let first = start + period;
    type Ticks = (Log, Vec<u64>);
    let note = move |(log, missed): &mut Ticks, cx: &mut Cx<Ticks>, tick: Tick| {
        log.push(("tick", cx.now().since(start).as_millis()));
        missed.push(tick.missed);
        ControlFlow::Continue(())
    };
    reactor
        .cx()
        .every(Class::Item, "tick", first, period, drift, note);
    let mut ticks = Ticks::default();
    reactor.advance(&mut ticks, 10 * MILLISECOND).unwrap();
    // While items are held their timers wait, and the clock goes on.
    reactor.cx().hold(|_, _| {});
    reactor.advance(&mut ticks, 35 * MILLISECOND).unwrap();
    reactor.cx().resume();
    reactor.advance(&mut ticks, 20 * MILLISECOND).unwrap();
    ticks
}

#[test]
fn periodic_timer_held_up_skips_delays_or_makes_up() {
    let at = |times: &[u128]| times.iter().map(|&at| ("tick", at)).collect::<Log>();
    let (skip, missed) = held_up(Drift::Skip);
    assert_eq!(skip, at(&[10, 45, 50, 60]));
    assert_eq!(missed, [0, 2, 0, 0]);
    let (delay, missed) = held_up(Drift::Delay);
    assert_eq!(delay, at(&[10, 45, 55, 65]));
    assert_eq!(missed, [0; 4]);
    let (burst, missed) = held_up(Drift::Burst);
    assert_eq!(burst, at(&[10, 45, 45, 45, 50, 60]));
    assert_eq!(missed, [0; 6]);
}

#[test]
fn periodic_timer_moved_keeps_the_new_rhythm_until_it_breaks() {
    let mut reactor = manual();
    let start = reactor.cx().now();
    let timer = reactor.cx().every(
        Class::Item,
        "tick",
        start + SECOND,
        SECOND,
        Drift::Skip,
        move |log: &mut Log, cx, _| {
            log.push(("tick", cx.now().since(start).as_millis()));
            if log.len() == 3 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    );
    let mut log = Log::new();
    reactor.advance(&mut log, SECOND).unwrap();
    assert!(reactor.cx().rearm(timer, start + 1500 * MILLISECOND));
    reactor.advance(&mut log, 9 * SECOND).unwrap();
    assert_eq!(log, [("tick", 1000), ("tick", 1500), ("tick", 2500)]);
    assert!(!reactor.cx().cancel(timer));
    turn(&mut reactor, &mut log, 1);
}
