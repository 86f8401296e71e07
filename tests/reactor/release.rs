//! What a reactor promises to a takeover: changes are known, and what is released is gone.

use std::os::unix::net::UnixStream;

use crate::common::{is_ended, pair, poke, reactor, turn};
use crate::world::{World, add_items, note, past, poke_all};
use socket_takeover::event::{Class, Cx, Interest, Next, Reactor, SourceId, Spec, Time};

/// A reactor with so many items, and held.
fn held_with(items: usize) -> (Reactor<World>, World) {
    let (mut reactor, mut world) = (reactor(16), World::default());
    add_items(reactor.cx(), &mut world, items);
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut world, 1);
    assert!(reactor.cx().is_held());
    (reactor, world)
}

#[test]
fn released_items_wake_nobody_though_their_copies_live() {
    let (mut reactor, mut world) = held_with(0);
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
    let (mut reactor, mut world) = held_with(2);
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
    let (mut reactor, mut world) = held_with(2);
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
        cx.set_interest(items[5], Interest::Both).unwrap();
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
