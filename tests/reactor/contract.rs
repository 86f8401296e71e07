//! What a reactor promises about sources. Each of these is a bug that a well-known event loop
//! has or had.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::common::{drain, is_ended, pair, poke, reactor, turn};
use socket_takeover::event::{Class, Cx, Event, Handle, Interest, Next, SourceId, Spec, Time};

/// The names of those called back, in order, and what a callback may act on.
#[derive(Default)]
struct World {
    called: Vec<&'static str>,
    peers: Vec<Handle<UnixStream>>,
    events: Vec<Event>,
    near: Vec<UnixStream>,
}

type Reply = io::Result<Next>;

fn keep(far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event) -> Reply {
    drain(far);
    world.called.push(cx.name(event.id()).unwrap());
    world.events.push(event);
    Ok(Next::Keep)
}

/// Whoever is called first removes everybody else.
fn remove_others(_: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event) -> Reply {
    world.called.push("first");
    for peer in world.peers.drain(..) {
        assert!(cx.remove(peer), "nobody was removed before");
        if peer.id() == event.id() {
            assert!(!cx.contains(peer));
        }
    }
    Ok(Next::Keep)
}

#[test]
fn neighbour_removed_in_the_same_batch_gets_no_event() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let ends: Vec<UnixStream> = (0..3)
        .map(|_| {
            let (near, far) = pair();
            poke(&near);
            let spec = Spec::item("peer");
            let peer = reactor.cx().add(spec, far, remove_others).unwrap();
            world.peers.push(peer);
            near
        })
        .collect();
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.called, ["first"]);
    assert_eq!(reactor.cx().stats().stale_events, 2);
    assert_eq!(reactor.cx().items_len(), 0);
    assert!(ends.iter().all(is_ended));
}

#[test]
fn slot_reused_in_the_same_batch_gets_no_event_of_its_predecessor() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let mut nears = Vec::new();
    for _ in 0..2 {
        let (near, far) = pair();
        poke(&near);
        nears.push(near);
        let replace = |_: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event| {
            world.called.push("first");
            let other = *world.peers.iter().find(|p| p.id() != event.id()).unwrap();
            cx.remove(other);
            let (near, far) = pair();
            world.near.push(near);
            let new = cx.add(Spec::item("new"), far, keep)?;
            let slot = |id: SourceId| id.to_bits() as u32;
            assert_eq!(slot(new.id()), slot(other.id()), "the slot is used again");
            assert_ne!(new.id(), other.id());
            assert_eq!(cx.get(other).map(|_| ()), None);
            Ok(Next::Keep)
        };
        let peer = reactor.cx().add(Spec::item("peer"), far, replace).unwrap();
        world.peers.push(peer);
    }
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.called, ["first"]);
    assert_eq!(reactor.cx().stats().stale_events, 1);
    poke(&world.near[0]);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.called, ["first", "new"]);
}

#[test]
fn source_removing_itself_hears_nothing_more_and_is_dropped_on_return() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (mut near, far) = pair();
    poke(&near);
    let spec = Spec::item("self").deadline(Time::now());
    let leave = |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event: Event| {
        world.called.push("once");
        assert!(cx.remove(event.id()));
        assert!(!cx.remove(event.id()));
        assert!(!cx.resume_later(event.id()));
        far.write_all(b"bye")?; // it lives until its callback returns
        Ok(Next::Again)
    };
    reactor.cx().add(spec, far, leave).unwrap();
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.called, ["once"]);
    assert_eq!(reactor.wake_time(), None, "its deadline has gone with it");
    let stats = reactor.cx().stats();
    assert_eq!((stats.stale_events, stats.deadlines_fired), (0, 0));
    let mut bye = [0; 3];
    near.read_exact(&mut bye).unwrap();
    assert!(is_ended(&near));
}

#[test]
fn source_that_has_ended_is_not_watched_though_a_copy_lives() {
    // Each way of ending, with a copy of the descriptor that keeps the open file alive.
    let end = |_: &mut UnixStream, _: &mut World, _: &mut Cx<World>, _| Ok(Next::End);
    let fail = |_: &mut UnixStream, _: &mut World, _: &mut Cx<World>, _| {
        Err(io::Error::other("ended by an error"))
    };
    type Callback = fn(&mut UnixStream, &mut World, &mut Cx<World>, Event) -> Reply;
    let ways: [(&str, Callback); 4] = [
        ("end", end),
        ("fail", fail),
        ("take", keep),
        ("remove", keep),
    ];
    for (way, callback) in ways {
        let mut reactor = reactor(16);
        let mut world = World::default();
        let (near, far) = pair();
        let mut copy = far.try_clone().unwrap();
        let peer = reactor.cx().add(Spec::item("peer"), far, callback).unwrap();
        poke(&near);
        turn(&mut reactor, &mut world, 1);
        match way {
            "take" => drop(reactor.cx().take(peer).unwrap()),
            "remove" => assert!(reactor.cx().remove(peer)),
            _ => {}
        }
        assert!(!reactor.cx().contains(peer), "{way}");
        drain(&mut copy);
        let events = reactor.cx().stats().events;
        poke(&near);
        turn(&mut reactor, &mut world, 2);
        assert_eq!(reactor.cx().stats().events, events, "{way}");
    }
}

#[test]
fn error_of_one_source_goes_to_the_hook_and_the_batch_goes_on() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    reactor.cx().on_error(|world: &mut World, cx, fault| {
        assert!(!cx.contains(fault.id));
        assert_eq!(fault.error.to_string(), "no luck");
        world.called.push(fault.name);
    });
    let mut nears = Vec::new();
    for _ in 0..2 {
        for name in ["bad", "good"] {
            let (near, far) = pair();
            poke(&near);
            nears.push(near);
            let serve =
                move |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event| {
                    if name == "bad" {
                        return Err(io::Error::other("no luck"));
                    }
                    keep(far, world, cx, event)
                };
            reactor.cx().add(Spec::item(name), far, serve).unwrap();
        }
    }
    turn(&mut reactor, &mut world, 1);
    world.called.sort_unstable();
    assert_eq!(world.called, ["bad", "bad", "good", "good"]);
    assert_eq!(reactor.cx().items_len(), 2);
    assert_eq!(reactor.cx().stats().faults, 2);
}

#[test]
fn firehose_beside_a_hundred_quiet_sources_starves_none() {
    let mut reactor = reactor(1024);
    let mut world = World::default();
    let (near, far) = pair();
    poke(&near);
    world.near.push(near);
    let firehose = |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, _| {
        for _ in 0..cx.budget() {
            assert_eq!(far.read(&mut [0; 16])?, 1);
            poke(&world.near[0]); // it is never drained
        }
        world.called.push("firehose");
        Ok(Next::Again)
    };
    reactor
        .cx()
        .add(Spec::item("firehose"), far, firehose)
        .unwrap();
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.called, ["firehose"; 3], "once a turn");
    world.called.clear();
    let quiet: Vec<UnixStream> = (0..100)
        .map(|_| {
            let (near, far) = pair();
            reactor.cx().add(Spec::item("quiet"), far, keep).unwrap();
            near
        })
        .collect();
    for round in 1..=3 {
        quiet.iter().for_each(poke);
        turn(&mut reactor, &mut world, 1);
        let served = world.called.iter().filter(|&&name| name == "quiet").count();
        assert_eq!(served, round * 100);
        assert_eq!(world.called.len(), round * 101);
    }
    assert_eq!(reactor.cx().stats().budget_hits, 6);
}

#[test]
fn data_and_end_in_one_edge_are_carried_by_the_resume_queue() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (mut near, far) = pair();
    near.write_all(b"12345678").unwrap();
    drop(near);
    let three = |far: &mut UnixStream, world: &mut World, _: &mut Cx<World>, event: Event| {
        world.events.push(event);
        Ok(match far.read(&mut [0; 3])? {
            0 => Next::End,
            _ => Next::Again,
        })
    };
    let peer = reactor.cx().add(Spec::item("peer"), far, three).unwrap();
    turn(&mut reactor, &mut world, 1);
    assert!(reactor.cx().is_resuming(peer));
    turn(&mut reactor, &mut world, 5);
    assert_eq!(world.events.len(), 4, "3 + 3 + 2 bytes and the end");
    assert!(world.events.iter().all(Event::is_read_closed));
    let resumed: Vec<bool> = world.events.iter().map(Event::is_resumed).collect();
    assert_eq!(resumed, [false, true, true, true]);
    assert_eq!(reactor.cx().stats().events, 1);
    assert_eq!(reactor.cx().items_len(), 0);
}

#[test]
fn event_of_a_source_to_be_resumed_is_one_call_with_all_flags() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (near, far) = pair();
    poke(&near);
    let again = |_: &mut UnixStream, world: &mut World, _: &mut Cx<World>, event| {
        world.events.push(event);
        Ok(match world.events.len() {
            1 => Next::Again,
            _ => Next::Keep,
        })
    };
    let peer = reactor.cx().add(Spec::item("peer"), far, again).unwrap();
    turn(&mut reactor, &mut world, 1);
    drop(near);
    turn(&mut reactor, &mut world, 3);
    assert_eq!(world.events.len(), 2);
    let event = world.events[1];
    assert!(event.is_resumed() && event.is_readable() && event.is_hangup());
    assert!(!reactor.cx().is_resuming(peer));
}

#[test]
fn source_in_its_own_callback_cannot_take_itself() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let (near, far) = pair();
    poke(&near);
    let grab = |far: &mut UnixStream, _: &mut World, cx: &mut Cx<World>, event: Event| {
        drain(far);
        let own: Handle<UnixStream> = cx.handle(event.id()).unwrap();
        assert!(cx.take(own).is_none() && cx.get(own).is_none() && cx.contains(own));
        assert!(cx.handle::<io::PipeReader>(event.id()).is_none());
        cx.set_interest(own, Interest::Both)?;
        assert_eq!(cx.interest(own), Some(Interest::Both));
        Ok(Next::End)
    };
    let peer = reactor.cx().add(Spec::item("peer"), far, grab).unwrap();
    turn(&mut reactor, &mut world, 2);
    assert!(!reactor.cx().contains(peer));
    assert!(is_ended(&near));
}

#[test]
fn panic_in_a_callback_ends_its_source_and_leaves_no_hole() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let alive = Rc::new(Cell::new(3));
    let mut nears = Vec::new();
    for _ in 0..3 {
        let (near, far) = pair();
        poke(&near);
        nears.push(near);
        let alive = Rc::clone(&alive);
        let serve = move |far: &mut UnixStream, world: &mut World, cx: &mut Cx<World>, event| {
            if alive.replace(alive.get() - 1) == 3 {
                panic!("the first one called");
            }
            keep(far, world, cx, event)
        };
        reactor.cx().add(Spec::item("peer"), far, serve).unwrap();
    }
    catch_unwind(AssertUnwindSafe(|| turn(&mut reactor, &mut world, 1))).unwrap_err();
    assert_eq!(reactor.cx().items_len(), 2);
    assert_eq!(nears.iter().filter(|near| is_ended(near)).count(), 1);
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.called.len(), 2, "the rest of the batch was kept");
    nears.iter().for_each(|mut near| drop(near.write(b".")));
    turn(&mut reactor, &mut world, 1);
    assert_eq!(world.called.len(), 4);
    let (_near, far) = pair();
    reactor.cx().add(Spec::item("new"), far, keep).unwrap();
    assert_eq!(reactor.cx().items_len(), 3);
}

#[test]
fn panic_in_a_timer_ends_it_and_the_others_run() {
    let mut reactor = reactor(16);
    let mut world = World::default();
    let now = Time::now();
    let bad = reactor
        .cx()
        .timer(Class::Item, "bad", now, |_, _| panic!("a timer"));
    reactor
        .cx()
        .timer(Class::Item, "good", now, |world: &mut World, _| {
            world.called.push("good");
            None
        });
    catch_unwind(AssertUnwindSafe(|| turn(&mut reactor, &mut world, 1))).unwrap_err();
    assert_eq!(reactor.cx().timer_name(bad), None);
    turn(&mut reactor, &mut world, 2);
    assert_eq!(world.called, ["good"]);
}
