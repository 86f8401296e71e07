//! What a reactor promises about timers, I/O deadlines and deferred calls.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{drain, pair, poke, reactor, turn, turn_until};
use crate::world::{World, note, past};
use nix::poll::{PollFd, PollFlags, poll};
use socket_takeover::event::{Class, Cx, Event, Interest, Next, Reactor, Spec, Time};

#[test]
fn timer_expired_but_not_run_can_be_cancelled() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let at = past();
    reactor
        .cx()
        .timer(Class::Item, "first", at, |world: &mut World, cx| {
            world.ran.push("first");
            assert_eq!(cx.timer_name(world.timers[0]), Some("second"));
            assert!(cx.cancel(world.timers[0]));
            assert!(!cx.cancel(world.timers[0]));
            None
        });
    let second = reactor
        .cx()
        .timer(Class::Item, "second", at, |world: &mut World, _| {
            world.ran.push("second");
            None
        });
    world.timers.push(second);
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.ran, ["first"]);
    assert!(!reactor.cx().rearm(second, Time::now()));
}

#[test]
fn timer_cancelling_itself_ends_whatever_it_returns() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let own = reactor
        .cx()
        .timer(Class::Item, "own", past(), |world: &mut World, cx| {
            world.ran.push("own");
            assert_eq!(cx.due(world.timers[0]), None);
            assert!(cx.cancel(world.timers[0]));
            Some(cx.now())
        });
    world.timers.push(own);
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.ran, ["own"]);
    assert_eq!(reactor.cx().timer_name(own), None);
}

#[test]
fn timer_expired_but_not_run_is_replaced_by_rearming() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let at = past();
    let later = Time::now() + Duration::from_millis(20);
    reactor
        .cx()
        .timer(Class::Item, "first", at, move |world: &mut World, cx| {
            assert!(cx.rearm(world.timers[0], later));
            None
        });
    let second = reactor
        .cx()
        .timer(Class::Item, "second", at, move |world: &mut World, cx| {
            assert!(cx.now() >= later, "never early");
            world.ran.push("second");
            None
        });
    world.timers.push(second);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(reactor.cx().due(second), Some(later));
    turn_until(&mut reactor, &mut world, |world| !world.ran.is_empty());
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.ran, ["second"]);
}

#[test]
fn zero_rearm_and_endless_defer_run_once_a_turn_beside_io() {
    fn endless(world: &mut World, cx: &mut Cx<World>) {
        world.ran.push("deferred");
        cx.defer(endless);
    }
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (near, far) = pair();
    reactor.cx().add(Spec::item("peer"), far, note).unwrap();
    reactor
        .cx()
        .timer(Class::Item, "zero", past(), |world: &mut World, cx| {
            world.ran.push("timer");
            Some(cx.now())
        });
    reactor.cx().defer(endless);
    for _ in 0..3 {
        poke(&near);
        world.ran.clear();
        // Without a limit to the wait: what is queued must keep it from sleeping.
        reactor.turn(&mut world, None).unwrap();
        assert_eq!(world.ran, ["timer", "peer", "deferred"]);
    }
}

#[test]
fn stages_of_a_turn_run_in_order() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let mut nears = Vec::new();
    for (ready, spec) in [
        (true, Spec::item("item")),
        (true, Spec::handover("channel")),
        (false, Spec::item("silent").deadline(past())),
        (false, Spec::item("left")),
    ] {
        let (near, far) = pair();
        if ready {
            poke(&near);
        }
        nears.push(near);
        let source = reactor.cx().add(spec, far, note).unwrap();
        world.items.push(source.id());
    }
    reactor.cx().resume_later(world.items[3]);
    reactor
        .cx()
        .defer(|world: &mut World, _| world.ran.push("deferred"));
    reactor
        .cx()
        .timer(Class::Item, "timer", past(), |world: &mut World, _| {
            world.ran.push("timer");
            None
        });
    turn(&mut reactor, &mut world, 1);
    let order = ["channel", "timer", "item", "timeout", "left", "deferred"];
    assert_eq!(world.ran, order);
}

#[test]
fn deadline_of_a_silent_source_fires_once_and_never_early() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (_near, far) = pair();
    let at = Time::now() + Duration::from_micros(2_300);
    let spec = Spec::item("silent").deadline(at);
    let timed = move |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event| {
        assert!(cx.now() >= at);
        assert!(!event.is_readable() && !event.is_resumed());
        assert_eq!(cx.deadline(event.id()), None);
        note(far, world, cx, event)
    };
    let peer = reactor.cx().add(spec, far, timed).unwrap();
    assert_eq!(reactor.cx().deadline(peer), Some(at));
    turn_until(&mut reactor, &mut world, |world| !world.ran.is_empty());
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.ran, ["timeout"]);
    assert_eq!(reactor.cx().stats().deadlines_fired, 1);
    reactor
        .cx()
        .set_deadline(peer, Some(Time::now() + Duration::from_millis(1)));
    turn_until(&mut reactor, &mut world, |world| world.ran.len() == 2);
}

#[test]
fn deadline_taken_away_or_pushed_before_its_stage_does_not_fire() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let mut nears = Vec::new();
    for _ in 0..2 {
        let (near, far) = pair();
        nears.push(near);
        let spec = Spec::item("peer").deadline(past());
        let source = reactor.cx().add(spec, far, note).unwrap();
        world.items.push(source.id());
    }
    let far_off = Time::now() + Duration::from_secs(3600);
    reactor.cx().timer(
        Class::Item,
        "timer",
        past(),
        move |world: &mut World, cx| {
            assert!(cx.set_deadline(world.items[0], None));
            assert!(cx.set_deadline(world.items[1], Some(far_off)));
            None
        },
    );
    turn(&mut reactor, &mut world, 3);
    assert!(world.ran.is_empty(), "{:?}", world.ran);
    assert_eq!(reactor.cx().deadline(world.items[1]), Some(far_off));
}

#[test]
fn readiness_beats_a_deadline_even_beyond_a_full_batch() {
    let mut reactor = reactor(1);
    let mut world = World::default();
    let mut nears = Vec::new();
    for _ in 0..5 {
        let (near, far) = pair();
        poke(&near);
        nears.push(near);
        let spec = Spec::item("ready").deadline(past());
        let answer = |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event| {
            cx.set_deadline(event.id(), None);
            note(far, world, cx, event)
        };
        reactor.cx().add(spec, far, answer).unwrap();
    }
    turn(&mut reactor, &mut world, 10);
    assert_eq!(world.ran, ["ready"; 5]);
    assert!(reactor.cx().stats().full_waits >= 5);
}

#[test]
fn deadline_of_a_source_new_in_this_turn_is_judged_after_the_next_wait() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (write_near, far) = pair();
    poke(&write_near);
    let spec = Spec::item("reading").interest(Interest::Write);
    let reading = reactor.cx().add(spec, far, note).unwrap();
    turn(&mut reactor, &mut world, 1);
    poke(&write_near);
    world.ran.clear();
    world.items.push(reading.id());
    reactor
        .cx()
        .timer(Class::Item, "timer", past(), |world: &mut World, cx| {
            // Both have something to read that no wait was asked for yet.
            let (near, far) = pair();
            poke(&near);
            world.near.push(near);
            let spec = Spec::item("new").deadline(past());
            cx.add(spec, far, note).unwrap();
            cx.set_interest(world.items[0], Interest::Read).unwrap();
            cx.set_deadline(world.items[0], Some(past()));
            None
        });
    turn(&mut reactor, &mut world, 2);
    world.ran.sort_unstable();
    assert_eq!(world.ran, ["new", "reading"]);
}

#[test]
fn resumption_beats_a_deadline() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (_near, far) = pair();
    let spec = Spec::item("left").deadline(past());
    let peer = reactor.cx().add(spec, far, note).unwrap();
    reactor.cx().resume_later(peer);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["left"]);
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.ran, ["left", "timeout"]);
}

/// Every wait is full for ever: each callback makes its own next edge.
fn overload(reactor: &mut Reactor<World>, world: &mut World, sources: usize) {
    for index in 0..sources {
        let (near, far) = pair();
        poke(&near);
        world.near.push(near);
        let busy =
            move |far: &mut UnixStream, world: &mut World, _: &mut Cx<World>, event: Event| {
                assert!(!event.is_timeout(), "it is ready all the time");
                drain(far);
                poke(&world.near[index]);
                Ok(Next::Keep)
            };
        let spec = Spec::item("busy").deadline(past());
        reactor.cx().add(spec, far, busy).unwrap();
    }
}

#[test]
fn overload_that_fills_every_wait_puts_off_no_deadline_for_ever() {
    let mut reactor = reactor(2);
    let mut world = World::default();
    overload(&mut reactor, &mut world, 7);
    let (_near, far) = pair();
    let spec = Spec::item("silent").deadline(past());
    reactor.cx().add(spec, far, note).unwrap();
    let (_channel_near, channel) = pair();
    let spec = Spec::handover("channel").deadline(past());
    reactor.cx().add(spec, channel, note).unwrap();
    turn(&mut reactor, &mut world, 30);
    assert_eq!(world.ran, ["timeout", "timeout"]);
    let stats = *reactor.cx().stats();
    assert!(stats.full_waits >= 30, "{stats:?}");
}

#[test]
fn time_of_turns_never_goes_back_and_the_end_of_time_never_comes() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (_near, far) = pair();
    let spec = Spec::item("peer").deadline(Time::MAX);
    let peer = reactor.cx().add(spec, far, note).unwrap();
    let end = Time::now() + Duration::MAX;
    let timer = reactor
        .cx()
        .timer(Class::Item, "end", end, |world: &mut World, _| {
            world.ran.push("end");
            None
        });
    let mut last = Time::ZERO;
    for _ in 0..100 {
        turn(&mut reactor, &mut world, 1);
        let now = reactor.cx().now();
        assert!(now >= last);
        last = now;
    }
    reactor
        .turn(&mut world, Some(Duration::from_millis(1)))
        .unwrap();
    assert!(reactor.cx().now().since(last) >= Duration::from_millis(1));
    assert!(world.ran.is_empty());
    assert_eq!(reactor.cx().due(timer), Some(Time::MAX));
    assert_eq!(reactor.cx().deadline(peer), Some(Time::MAX));
}

#[test]
fn stop_in_a_callback_ends_run() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    reactor
        .cx()
        .timer(Class::Handover, "stop", past(), |_: &mut World, cx| {
            cx.stop();
            None
        });
    reactor.run(&mut world).unwrap();
    assert!(reactor.cx().is_stopped());
    reactor.run(&mut world).unwrap(); // at once
    assert_eq!(reactor.cx().stats().turns, 1);
}

#[test]
fn reactor_inside_another_loop_tells_when_to_be_turned() {
    fn readable(reactor: &Reactor<World>) -> bool {
        let mut wanted = [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, 0_u8).unwrap() == 1
    }
    let mut reactor = reactor(16);
    let mut world = World::default();
    assert_eq!(reactor.wake_time(), None);
    let (near, far) = pair();
    let peer = reactor.cx().add(Spec::item("peer"), far, note).unwrap();
    assert!(!readable(&reactor));
    poke(&near);
    assert!(readable(&reactor));
    turn(&mut reactor, &mut world, 1);
    assert!(!readable(&reactor));
    reactor.cx().set_deadline(peer, Some(Time::MAX));
    assert_eq!(reactor.wake_time(), Some(Time::MAX));
    reactor.cx().resume_later(peer);
    assert_eq!(reactor.wake_time(), Some(Time::ZERO));
    turn(&mut reactor, &mut world, 1);

    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut world, 1);
    poke(&near);
    assert!(!readable(&reactor), "an item wakes nobody during a hold");
    assert_eq!(reactor.wake_time(), None);
    reactor.cx().resume();
    assert!(readable(&reactor));
}
