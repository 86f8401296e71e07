//! What a reactor promises to a takeover: hold, resume, settle, release, changes.

mod reactor_support;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use reactor_support::{LONG, drain, is_ended, pair, poke, reactor, turn, turn_until};
use socket_takeover::event::{Class, Config, Cx, Event, Next, Reactor, SourceId, Spec, Time};

/// What ran, in order, and the items with their near ends.
#[derive(Default)]
struct World {
    ran: Vec<&'static str>,
    items: Vec<SourceId>,
    near: Vec<UnixStream>,
}

impl World {
    fn count(&self, name: &str) -> usize {
        self.ran.iter().filter(|&&ran| ran == name).count()
    }
}

type Reply = io::Result<Next>;

/// Notes the name, or that it was a timeout.
fn note(far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event) -> Reply {
    drain(far);
    let name = cx.name(event.id()).unwrap();
    world
        .ran
        .push(if event.is_timeout() { "timeout" } else { name });
    Ok(Next::Keep)
}

fn add_items(cx: &mut Cx<World>, world: &mut World, count: usize) {
    for _ in 0..count {
        let (near, far) = pair();
        let item = cx.add(Spec::item("item"), far, note).unwrap();
        world.items.push(item.id());
        world.near.push(near);
    }
}

fn poke_all(world: &World) {
    world.near.iter().for_each(poke);
}

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

fn past() -> Time {
    Time::now() - Duration::from_secs(1)
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
                Class::Item => "item timer",
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

#[test]
fn released_items_wake_nobody_though_their_copies_live() {
    let (mut reactor, mut world) = held_with(0, 16);
    let mut copies = Vec::new();
    for _ in 0..10 {
        let (near, far) = pair();
        copies.push(far.try_clone().unwrap());
        let item = reactor.cx().add(Spec::item("item"), far, note).unwrap();
        world.items.push(item.id());
        world.near.push(near);
    }
    let (channel, far) = pair();
    reactor
        .cx()
        .add(Spec::handover("channel"), far, note)
        .unwrap();
    reactor
        .cx()
        .timer(Class::Item, "timer", past(), |world: &mut World, _| {
            world.ran.push("timer");
            None
        });
    reactor
        .cx()
        .defer(|world: &mut World, _| world.ran.push("deferred"));
    reactor.cx().set_deadline(world.items[3], Some(past()));
    let keep = [world.items[0], world.items[0], world.items[9]];

    let controls = reactor.cx().stats().controls;
    reactor.cx().release(&keep).unwrap();
    assert!(!reactor.cx().is_held());
    assert_eq!(reactor.cx().items_len(), 2);
    let controls = reactor.cx().stats().controls - controls;
    assert_eq!(controls, 3, "nothing was taken out one by one");

    turn(&mut reactor, &mut world, 1);
    let events = reactor.cx().stats().events;
    for near in &world.near[1..9] {
        poke(near);
    }
    turn(&mut reactor, &mut world, 3);
    assert_eq!(reactor.cx().stats().events, events);
    assert!(world.ran.is_empty(), "{:?}", world.ran);
    poke_all(&world);
    poke(&channel);
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.ran, ["channel", "item", "item"]);
    // By close alone: the copies keep the connections up, and then close ends them.
    assert!(!world.near.iter().any(is_ended));
    drop(copies);
    let ended: Vec<bool> = world.near.iter().map(is_ended).collect();
    assert_eq!(ended.iter().filter(|&&ended| ended).count(), 8);
    assert!(!ended[0] && !ended[9]);
}

#[test]
fn release_naming_what_is_no_item_ignores_it() {
    let (mut reactor, mut world) = held_with(2, 16);
    let (_near, far) = pair();
    let channel = reactor
        .cx()
        .add(Spec::handover("channel"), far, note)
        .unwrap();
    reactor.cx().remove(world.items[0]);
    let keep = [world.items[0], channel.id(), SourceId::from_bits(u64::MAX)];
    reactor.cx().release(&keep).unwrap();
    assert_eq!(reactor.cx().items_len(), 0);
    assert!(reactor.cx().contains(channel));
    turn(&mut reactor, &mut world, 2);
}

#[test]
fn item_kept_by_a_release_reports_what_was_ready() {
    let (mut reactor, mut world) = held_with(2, 16);
    poke_all(&world);
    let keep = [world.items[1]];
    reactor.cx().release(&keep).unwrap();
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.ran, ["item"]);
    // And a second release, while serving, gives up that one as well.
    reactor.cx().release(&[]).unwrap();
    assert!(world.near.iter().all(is_ended));
}

#[test]
fn release_within_an_items_callback_ends_that_item() {
    let (mut reactor, mut world) = (reactor(16), World::default());
    add_items(reactor.cx(), &mut world, 3);
    let (near, far) = pair();
    let leave = |_: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, _| {
        world.ran.push("leave");
        cx.release(&[])?;
        Ok(Next::Again)
    };
    reactor.cx().add(Spec::item("leave"), far, leave).unwrap();
    poke(&near);
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.ran, ["leave"]);
    assert_eq!(reactor.cx().items_len(), 0);
    assert!(is_ended(&near) && world.near.iter().all(is_ended));
}

#[test]
fn changes_are_reported_once_each_in_order() {
    let (mut reactor, mut world) = (reactor(16), World::default());
    add_items(reactor.cx(), &mut world, 9);
    let items = world.items.clone();
    let mut changed = Vec::new();
    reactor.cx().touch(items[0]);
    reactor.cx().changed(&mut changed);
    assert!(changed.is_empty(), "nothing counts before tracking");

    reactor.cx().track(true);
    let cx = reactor.cx();
    for _ in 0..2 {
        cx.touch(items[8]);
        let handle = cx.handle::<UnixStream>(items[7]).unwrap();
        assert!(cx.get_mut(handle).is_some());
        cx.set_deadline(items[6], Some(Time::MAX));
        cx.set_interest(items[5], socket_takeover::event::Interest::Both)
            .unwrap();
        cx.resume_later(items[4]);
        cx.remove(items[3]);
    }
    let handle = cx.handle::<UnixStream>(items[0]).unwrap();
    assert!(cx.get(handle).is_some(), "looking is no change");
    cx.set_deadline(items[0], None); // nor is what makes no difference
    let (_channel, far) = pair();
    let channel = cx.add(Spec::handover("channel"), far, note).unwrap();
    cx.touch(channel);
    add_items(cx, &mut world, 1);
    let new = world.items[9];
    let expected = [
        items[8], items[7], items[6], items[5], items[4], items[3], new,
    ];
    assert_eq!(cx.changed_len(), expected.len());
    cx.changed(&mut changed);
    assert_eq!(changed, expected);

    changed.clear();
    poke(&world.near[2]);
    turn(&mut reactor, &mut world, 1);
    let cx = reactor.cx();
    cx.changed(&mut changed);
    // Called back: ready, writable since its interest changed, and resumed.
    changed.sort_unstable();
    let mut expected = [items[2], items[5], items[4]];
    expected.sort_unstable();
    assert_eq!(changed, expected);
    assert_eq!(cx.changed_len(), 0);

    cx.touch(items[1]);
    cx.track(false);
    cx.touch(items[2]);
    assert_eq!(cx.changed_len(), 0);
    let mut all = Vec::new();
    cx.items(&mut all);
    assert_eq!((all.len(), cx.items_len()), (9, 9));
    assert!(!all.contains(&channel.id()) && !all.contains(&items[3]));
}

#[test]
fn spinning_ends_with_an_event_and_with_its_time() {
    let (mut reactor, mut world) = held_with(0, 16);
    let (near, far) = pair();
    reactor
        .cx()
        .add(Spec::handover("channel"), far, note)
        .unwrap();
    // An event that is there ends it at the first look, ...
    poke(&near);
    reactor.cx().spin_for(LONG);
    let waits = reactor.cx().stats().waits;
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(world.ran, ["channel"]);
    assert_eq!(reactor.cx().stats().waits, waits + 1);
    // ... and for good: the next wait sleeps.
    let waits = reactor.cx().stats().waits;
    reactor
        .turn(&mut world, Some(Duration::from_millis(2)))
        .unwrap();
    assert_eq!(reactor.cx().stats().waits, waits + 1);
    // A deadline of the handover is met while spinning.
    let at = Time::now() + Duration::from_millis(20);
    reactor
        .cx()
        .timer(Class::Handover, "timer", at, |world: &mut World, _| {
            world.ran.push("timer");
            None
        });
    reactor.cx().spin_for(LONG);
    let began = Instant::now();
    turn_until(&mut reactor, &mut world, |world| world.count("timer") == 1);
    assert!(began.elapsed() < LONG / 2);
    assert!(reactor.cx().stats().waits > waits + 3);
}
