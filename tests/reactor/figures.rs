//! What a reactor tells about itself, its budgets, and its hooks.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{drain, pair, poke, reactor, turn};
use socket_takeover::event::{
    Class, Clock, Config, Cx, Event, Interest, NameStats, Next, Reactor, Spec,
};

type Names = Vec<&'static str>;

fn keep(far: &mut UnixStream, ran: &mut Names, cx: &mut Cx<Names>, event: Event) -> Reply {
    drain(far);
    ran.push(cx.name(event.id()).unwrap());
    Ok(Next::Keep)
}

type Reply = io::Result<Next>;

fn of<S>(reactor: &mut Reactor<S>, wanted: &str) -> NameStats {
    let lines: Vec<_> = reactor.cx().stats_by_name().collect();
    let found: Vec<_> = lines.iter().filter(|(name, _)| *name == wanted).collect();
    assert_eq!(found.len(), 1, "one line for {wanted}: {lines:?}");
    *found[0].1
}

fn manual() -> Reactor<Names> {
    Reactor::new(Config {
        clock: Clock::Manual,
        ..Config::default()
    })
    .unwrap()
}

/// Runs for at least so long.
fn burn(span: Duration) {
    let began = Instant::now();
    while began.elapsed() < span {
        std::hint::spin_loop();
    }
}

#[test]
fn callbacks_are_counted_by_name() {
    let mut reactor = reactor(16);
    let mut ran = Names::new();
    let mut nears = Vec::new();
    for name in ["one", "two", "one"] {
        let (near, far) = pair();
        reactor.cx().add(Spec::item(name), far, keep).unwrap();
        poke(&near);
        nears.push(near);
    }
    reactor.cx().defer(|_, _| {});
    turn(&mut reactor, &mut ran, 1);
    poke(&nears[0]);
    turn(&mut reactor, &mut ran, 1);
    let calls = ["deferred", "one", "two"].map(|name| of(&mut reactor, name).calls);
    assert_eq!(calls, [1, 3, 1]);
    assert_eq!(of(&mut reactor, "one").time, Duration::ZERO, "not measured");
}

#[test]
fn budget_hits_stale_events_and_faults_are_counted_by_name() {
    let mut reactor = reactor::<Names>(16);
    reactor.cx().on_error(|_, _, _| {});
    let mut nears = Vec::new();
    let mut victims = Vec::new();
    let gone = Rc::new(Cell::new(None));
    let killer = Rc::clone(&gone);
    let kill = move |far: &mut UnixStream, _: &mut Names, cx: &mut Cx<Names>, _: Event| {
        drain(far);
        assert!(cx.remove(killer.take().unwrap()));
        // Its slot is used again at once, by another name.
        cx.add(Spec::item("new"), pair().1, keep)?;
        Ok(Next::Keep)
    };
    let again = |_: &mut UnixStream, _: &mut Names, _: &mut Cx<Names>, _: Event| Ok(Next::Again);
    let fail = |_: &mut UnixStream, _: &mut Names, _: &mut Cx<Names>, _: Event| {
        Err(io::Error::other("no luck"))
    };
    let mut pairs = || {
        let (near, far) = pair();
        poke(&near);
        nears.push(near);
        far
    };
    let cx = reactor.cx();
    cx.add(Spec::item("killer"), pairs(), kill).unwrap();
    // The victim's slot has been another's.
    let former = cx.add(Spec::item("former"), pairs(), keep).unwrap();
    assert!(cx.remove(former));
    victims.push(cx.add(Spec::item("victim"), pairs(), keep).unwrap().id());
    cx.add(Spec::item("again"), pairs(), again).unwrap();
    cx.add(Spec::item("fault"), pairs(), fail).unwrap();
    gone.set(victims.pop());
    turn(&mut reactor, &mut Names::new(), 2);
    assert_eq!(of(&mut reactor, "victim").stale_events, 1);
    assert_eq!(of(&mut reactor, "victim").calls, 0);
    assert_eq!(of(&mut reactor, "new").stale_events, 0);
    assert_eq!(of(&mut reactor, "again").budget_hits, 2);
    assert_eq!(of(&mut reactor, "fault").faults, 1);
}

#[test]
fn time_of_callbacks_is_taken_while_asked_for() {
    let mut reactor = reactor(16);
    let burning = Duration::from_millis(2);
    let now = reactor.cx().now();
    reactor
        .cx()
        .timer(Class::Item, "busy", now, move |_: &mut (), cx| {
            burn(burning);
            Some(cx.now())
        });
    turn(&mut reactor, &mut (), 1);
    assert_eq!(of(&mut reactor, "busy").time, Duration::ZERO);
    reactor.cx().measure(true);
    turn(&mut reactor, &mut (), 2);
    let busy = of(&mut reactor, "busy");
    assert!(busy.time >= 2 * burning && busy.longest >= burning);
    assert!(busy.longest <= busy.time);
    reactor.cx().measure(false);
    turn(&mut reactor, &mut (), 1);
    assert_eq!(of(&mut reactor, "busy").time, busy.time);
    assert_eq!(of(&mut reactor, "busy").calls, 4);
}

#[test]
fn callback_that_runs_for_too_long_is_told_to_the_hook() {
    let mut reactor = reactor::<Names>(16);
    reactor
        .cx()
        .on_slow(Duration::from_millis(3), |slow: &mut Names, _, it| {
            assert!(it.took > Duration::from_millis(3));
            slow.push(it.name);
        });
    let long = Duration::from_millis(4);
    let (near, far) = pair();
    poke(&near);
    let spec = Spec::item("source");
    let serve = move |far: &mut UnixStream, _: &mut Names, _: &mut Cx<Names>, _: Event| {
        drain(far);
        burn(long);
        Ok(Next::End)
    };
    let cx = reactor.cx();
    cx.add(spec, far, serve).unwrap();
    let now = cx.now();
    for (name, span) in [("slow", long), ("quick", Duration::ZERO)] {
        cx.timer(Class::Item, name, now, move |_, _| {
            burn(span);
            None
        });
    }
    cx.defer(move |_, _| burn(long));
    let mut slow = Names::new();
    turn(&mut reactor, &mut slow, 1);
    // A quick one may be slow on a machine that is busy.
    slow.retain(|&name| name != "quick");
    assert_eq!(slow, ["slow", "source", "deferred"]);
}

#[test]
fn lateness_is_that_of_the_deadline_by_name() {
    let mut reactor = manual();
    let cx = reactor.cx();
    let (now, ms) = (cx.now(), Duration::from_millis(1));
    cx.timer(Class::Item, "late", now + ms, |_, _| None);
    cx.timer(Class::Handover, "in time", now + ms, |_, _| None);
    let (_near, far) = pair();
    let spec = Spec::item("peer").deadline(now + 4 * ms);
    cx.add(spec, far, keep).unwrap();
    cx.hold(|_, _| {});
    turn(&mut reactor, &mut Names::new(), 1);
    reactor.advance(&mut Names::new(), 9 * ms).unwrap();
    reactor.cx().resume();
    turn(&mut reactor, &mut Names::new(), 2);
    let lateness = |stats: NameStats| (stats.late, stats.latest);
    assert_eq!(lateness(of(&mut reactor, "late")), (1, 8 * ms));
    assert_eq!(lateness(of(&mut reactor, "peer")), (1, 5 * ms));
    assert_eq!(lateness(of(&mut reactor, "in time")), (0, Duration::ZERO));
}

#[test]
fn budget_of_a_source_is_its_own() {
    let mut reactor = Reactor::<Vec<u32>>::new(Config {
        budget: 5,
        ..Config::default()
    })
    .unwrap();
    let mut nears = Vec::new();
    let serve = |far: &mut UnixStream, read: &mut Vec<u32>, cx: &mut Cx<Vec<u32>>, _: Event| {
        for done in 0..cx.budget() {
            if let Err(error) = far.read_exact(&mut [0]) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                read.push(done);
                return Ok(Next::Keep);
            }
        }
        read.push(cx.budget());
        Ok(Next::Again)
    };
    for spec in [
        Spec::item("usual"),
        Spec::item("small").budget(2),
        Spec::item("none").budget(0),
    ] {
        let (near, far) = pair();
        (0..6).for_each(|_| poke(&near));
        nears.push(near);
        reactor.cx().add(spec, far, serve).unwrap();
    }
    let mut read = Vec::new();
    turn(&mut reactor, &mut read, 1);
    assert_eq!(read, [5, 2, 1]);
    assert_eq!(reactor.cx().budget(), 5, "outside of callbacks");
    read.clear();
    turn(&mut reactor, &mut read, 1);
    assert_eq!(read, [1, 2, 1]);
}

#[test]
fn end_of_a_turn_comes_after_all_else_and_before_a_hold() {
    let mut reactor = reactor::<Names>(16);
    reactor
        .cx()
        .on_turn_end(|ran: &mut Names, _| ran.push("end"));
    let (near, far) = pair();
    reactor.cx().add(Spec::item("peer"), far, keep).unwrap();
    poke(&near);
    reactor
        .cx()
        .defer(|ran: &mut Names, _| ran.push("deferred"));
    let mut ran = Names::new();
    turn(&mut reactor, &mut ran, 2);
    assert_eq!(ran, ["peer", "deferred", "end", "end"]);

    ran.clear();
    reactor.cx().defer(move |_, cx| {
        poke(&near);
        cx.hold(|ran: &mut Names, _| ran.push("held"));
    });
    turn(&mut reactor, &mut ran, 3);
    assert_eq!(ran, ["end", "peer", "end", "held"], "none while held");
}

#[test]
fn dump_tells_what_is_armed_and_when_it_is_due() {
    let mut reactor = manual();
    let cx = reactor.cx();
    let (now, ms) = (cx.now(), Duration::from_millis(1));
    let (_near, far) = pair();
    let spec = Spec::item("peer")
        .interest(Interest::Both)
        .deadline(now + 7 * ms);
    let peer = cx.add(spec, far, keep).unwrap().id();
    let (waker, _) = cx.waker("waker", |_, _| Ok(Next::Keep)).unwrap();
    cx.resume_later(peer);
    let later = cx.timer(Class::Local, "later", now + 5 * ms, |_, _| None);
    let sooner = cx.timer(Class::Handover, "sooner", now + 3 * ms, |_, _| None);
    let soonest = cx.liveness_timer("soonest", now + ms, |_, _| None).unwrap();
    cx.defer(|_, _| {});

    let dump = cx.dump();
    assert_eq!((dump.now, dump.held, dump.deferred), (now, false, 1));
    let sources: Vec<_> = dump.sources.iter().map(|it| (it.id, it.name)).collect();
    assert_eq!(sources, [(peer, "peer"), (waker.id(), "waker")]);
    let first = dump.sources[0];
    assert_eq!((first.class, first.interest), (Class::Item, Interest::Both));
    assert_eq!((first.deadline, first.resuming), (Some(now + 7 * ms), true));
    assert_eq!(dump.sources[1].class, Class::Local);
    let timers: Vec<_> = dump
        .timers
        .iter()
        .map(|it| (it.id, it.name, it.due))
        .collect();
    assert_eq!(
        timers,
        [
            (soonest, "soonest", Some(now + ms)),
            (sooner, "sooner", Some(now + 3 * ms)),
            (later, "later", Some(now + 5 * ms)),
        ]
    );
}

#[test]
fn local_timer_outlives_a_release_and_an_items_does_not() {
    let mut reactor = manual();
    let mut ran = Names::new();
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut ran, 1);
    let cx = reactor.cx();
    let at = cx.now() + Duration::from_millis(1);
    for (class, name) in [(Class::Item, "item"), (Class::Local, "local")] {
        cx.timer(class, name, at, move |ran: &mut Names, _| {
            ran.push(name);
            None
        });
    }
    cx.release(&[]).unwrap();
    reactor.advance(&mut ran, Duration::from_secs(1)).unwrap();
    assert_eq!(ran, ["local"]);
}
