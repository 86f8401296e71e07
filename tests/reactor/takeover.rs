//! What a reactor promises to a takeover: hold, resume, settle.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{LONG, drain, pair, poke, reactor, turn};
use crate::world::{World, add_items, note, past, poke_all};
use socket_takeover::event::{Class, Config, Cx, Event, Next, Reactor, Spec};

fn held(world: &mut World, cx: &mut Cx<World>) {
    assert!(cx.is_held());
    world.ran.push("held");
}

/// A reactor with so many items, and held.
fn held_with(items: usize, batch: usize) -> (Reactor<World>, World) {
    let (mut reactor, mut world) = (reactor(batch), World::default());
    add_items(reactor.cx(), &mut world, items);
    reactor.cx().hold(held);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["held"]);
    world.ran.clear();
    (reactor, world)
}

#[test]
fn hold_sweeps_every_edge_before_it_begins() {
    for batch in [1, 4, 19, 20, 21, 64] {
        let (mut reactor, mut world) = (reactor(batch), World::default());
        add_items(reactor.cx(), &mut world, 20);
        turn(&mut reactor, &mut world, 1);
        // All become ready after the wait of the turn that is to be held.
        reactor.cx().defer(|world: &mut World, cx| {
            poke_all(world);
            cx.hold(held);
        });
        turn(&mut reactor, &mut world, 1);
        assert_eq!(world.count("item"), 20, "batch of {batch}");
        assert_eq!(world.ran.last(), Some(&"held"));
    }
}

#[test]
fn hold_under_an_endless_load_begins_after_so_many_waits() {
    let (mut reactor, mut world) = (reactor(2), World::default());
    for index in 0..6 {
        let (near, far) = pair();
        poke(&near);
        world.near.push(near);
        let busy = move |far: &mut UnixStream, world: &mut World, _: &mut Cx<World>, _| {
            drain(far);
            poke(&world.near[index]);
            Ok(Next::Keep)
        };
        reactor.cx().add(Spec::item("busy"), far, busy).unwrap();
    }
    let waits = reactor.cx().stats().waits;
    reactor.cx().hold(held);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["held"]);
    assert_eq!(reactor.cx().stats().waits - waits, 1 + 6 / 2 + 1);
}

#[test]
fn hold_leaves_the_resume_queue_as_it_is() {
    let (mut reactor, mut world) = (reactor(16), World::default());
    let (near, far) = pair();
    let again = |_: &mut UnixStream, world: &mut World, _: &mut Cx<World>, event: Event| {
        world.ran.push(if event.is_resumed() {
            "resumed"
        } else {
            "event"
        });
        assert!(event.is_readable());
        Ok(Next::Again)
    };
    let item = reactor.cx().add(Spec::item("left"), far, again).unwrap();
    turn(&mut reactor, &mut world, 1);
    reactor.cx().hold(held);
    reactor.cx().defer(move |_, _| poke(&near));
    turn(&mut reactor, &mut world, 5);
    assert_eq!(world.ran, ["event", "held"]);
    assert!(reactor.cx().is_resuming(item));
    reactor.cx().resume();
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["event", "held", "resumed"]);
}

#[test]
fn hold_cancelled_by_the_sweep_does_not_begin() {
    let (mut reactor, mut world) = (reactor(16), World::default());
    let (near, far) = pair();
    let cancel = |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event| {
        cx.cancel_hold();
        note(far, world, cx, event)
    };
    reactor.cx().add(Spec::item("item"), far, cancel).unwrap();
    reactor.cx().defer(move |_, cx| {
        poke(&near);
        cx.hold(held);
    });
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.ran, ["item"]);
    assert!(!reactor.cx().is_held());
}

#[test]
fn nothing_of_an_item_runs_between_hold_and_resume() {
    let (mut reactor, mut world) = held_with(3, 16);
    let cx = reactor.cx();
    for class in [Class::Item, Class::Handover] {
        cx.timer(class, "timer", past(), move |world: &mut World, _| {
            world.ran.push(match class {
                Class::Item | Class::Local => "item timer",
                Class::Handover => "handover timer",
            });
            None
        });
    }
    cx.defer(|world: &mut World, _| world.ran.push("item deferred"));
    cx.defer_handover(|world: &mut World, _| world.ran.push("handover deferred"));
    cx.resume_later(world.items[0]);
    cx.set_deadline(world.items[1], Some(past()));
    cx.set_deadline(world.items[2], Some(past()));
    let (near, far) = pair();
    cx.add(Spec::handover("channel"), far, note).unwrap();
    poke(&near);
    poke(&world.near[2]);
    turn(&mut reactor, &mut world, 5);
    assert_eq!(
        world.ran,
        ["channel", "handover timer", "handover deferred"]
    );
    world.ran.clear();

    reactor.cx().resume();
    turn(&mut reactor, &mut world, 1);
    // Items 2 and 0 run; item 1 is silent, item 2 was ready in time, and the timer waits until
    // it is known who was.
    assert_eq!(world.ran, ["item", "timeout", "item", "item deferred"]);
    turn(&mut reactor, &mut world, 1);
    // Item 2 has not moved its deadline, and is silent now.
    assert_eq!(world.ran[4..], ["item timer", "timeout"]);
}

#[test]
fn handover_goes_on_before_during_and_after_a_hold() {
    let (mut reactor, mut world) = held_with(1, 16);
    let (near, far) = pair();
    reactor
        .cx()
        .add(Spec::handover("channel"), far, note)
        .unwrap();
    for round in 1..=3 {
        poke(&near);
        turn(&mut reactor, &mut world, 1);
        assert_eq!(world.count("channel"), 3 * round - 2, "held");
        // Readiness that comes while held, and is found by the first turn after.
        poke(&near);
        reactor.cx().resume();
        reactor.turn(&mut world, Some(LONG)).unwrap();
        assert_eq!(world.count("channel"), 3 * round - 1, "resumed");
        poke(&near);
        reactor.turn(&mut world, Some(LONG)).unwrap();
        assert_eq!(world.count("channel"), 3 * round, "serving");
        reactor.cx().hold(held);
        turn(&mut reactor, &mut world, 1);
    }
    assert_eq!(world.count("held"), 3);
}

#[test]
fn held_turn_sleeps_although_items_are_ready() {
    let (mut reactor, mut world) = held_with(10, 16);
    poke_all(&world);
    let waits = reactor.cx().stats().waits;
    reactor
        .turn(&mut world, Some(Duration::from_millis(5)))
        .unwrap();
    assert_eq!(reactor.cx().stats().waits, waits + 1);
    assert!(world.ran.is_empty());
}

#[test]
fn resume_within_the_call_that_follows_the_hold_serves_on() {
    let (mut reactor, mut world) = (reactor(16), World::default());
    add_items(reactor.cx(), &mut world, 2);
    reactor.cx().hold(|world: &mut World, cx| {
        poke_all(world);
        cx.resume();
    });
    turn(&mut reactor, &mut world, 1);
    assert!(world.ran.is_empty());
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["item", "item"]);
}

#[test]
fn taker_serves_only_what_came_after_it_settled() {
    for batch in [1, 3, 64] {
        let config = Config {
            batch,
            ..Config::default()
        };
        let mut reactor = Reactor::new_held(config).unwrap();
        let mut world = World::default();
        add_items(reactor.cx(), &mut world, 10);
        poke_all(&world);
        turn(&mut reactor, &mut world, 3);
        assert!(world.ran.is_empty());
        assert_eq!(reactor.cx().settle().unwrap(), 10);
        assert_eq!(reactor.cx().settle().unwrap(), 0);
        poke(&world.near[4]);
        reactor.cx().resume_later(world.items[7]);
        reactor.cx().resume();
        turn(&mut reactor, &mut world, 3);
        assert_eq!(
            world.ran,
            ["item", "item"],
            "the new edge and the resumed one"
        );
    }
}

#[test]
fn settle_keeps_what_it_sees_of_the_handover() {
    let mut reactor = Reactor::new_held(Config::default()).unwrap();
    let mut world = World::default();
    let (near, far) = pair();
    reactor
        .cx()
        .add(Spec::handover("channel"), far, note)
        .unwrap();
    poke(&near);
    assert_eq!(reactor.cx().settle().unwrap(), 0, "the channel is no item");
    reactor.cx().resume();
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["channel"]);
}

#[test]
fn settle_while_serving_is_refused() {
    let mut reactor: Reactor<()> = reactor(16);
    let refused = reactor.cx().settle().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}
