//! The steady state of a reactor: one wait a batch, no `epoll_ctl`, no allocation; and what an
//! idle source costs.
//!
//! The counting allocator needs `unsafe`, which the library itself does without.
#![allow(unsafe_code)]

#[path = "reactor/common.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{drain, pair, poke, reactor, turn};
use socket_takeover::event::{Class, Clock, Config, Cx, Drift, Event, Next, Reactor, Spec};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread, as tests run side by side.
struct Counting;

fn count(allocations: usize, bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = ALLOCATIONS.try_with(|all| all.set(all.get() + allocations));
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: every call is passed on unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn busy_reactor_only_waits() {
    const PEERS: usize = 100;
    let mut reactor = reactor(1024);
    let mut bytes = 0_usize;
    let nears: Vec<UnixStream> = (0..PEERS)
        .map(|_| {
            let (near, far) = pair();
            let deadline = reactor.cx().now() + Duration::from_secs(60);
            let spec = Spec::item("peer").deadline(deadline);
            let serve =
                |far: &mut UnixStream, served: &mut usize, cx: &mut Cx<usize>, event: Event| {
                    drain(far);
                    *served += 1;
                    cx.set_deadline(event.id(), Some(cx.now() + Duration::from_secs(60)));
                    // Every other call needs a second one.
                    Ok(if served.is_multiple_of(2) {
                        Next::Again
                    } else {
                        Next::Keep
                    })
                };
            reactor.cx().add(spec, far, serve).unwrap();
            near
        })
        .collect();
    reactor.cx().track(true);
    let mut changed = Vec::with_capacity(PEERS);
    let mut round = |bytes: &mut usize| {
        nears.iter().for_each(poke);
        turn(&mut reactor, bytes, 4);
        changed.clear();
        reactor.cx().changed(&mut changed);
        assert_eq!(changed.len(), PEERS);
        *reactor.cx().stats()
    };
    let before = (0..3).map(|_| round(&mut bytes)).last().unwrap();
    let allocations = ALLOCATIONS.get();
    let after = (0..50).map(|_| round(&mut bytes)).last().unwrap();
    assert_eq!(ALLOCATIONS.get() - allocations, 0);
    assert_eq!(after.controls, before.controls);
    assert_eq!(after.waits - before.waits, after.turns - before.turns);
    assert_eq!(after.events - before.events, 50 * PEERS as u64);
    assert!(after.resumed > before.resumed);
}

#[test]
fn timers_that_come_again_allocate_nothing() {
    const PERIOD: Duration = Duration::from_millis(10);
    let mut reactor = Reactor::new(Config {
        clock: Clock::Manual,
        ..Config::default()
    })
    .unwrap();
    let first = reactor.cx().now() + PERIOD;
    let mut ran = 0_u64;
    for _ in 0..100 {
        reactor.cx().every(
            Class::Item,
            "tick",
            first,
            PERIOD,
            Drift::Skip,
            |ran: &mut u64, _, _| {
                *ran += 1;
                ControlFlow::Continue(())
            },
        );
    }
    // Once round all buckets that these come to lie in.
    reactor.advance(&mut ran, Duration::from_secs(5)).unwrap();
    let (allocations, before) = (ALLOCATIONS.get(), ran);
    reactor.advance(&mut ran, Duration::from_secs(2)).unwrap();
    assert_eq!(ran - before, 20_000);
    assert_eq!(ALLOCATIONS.get() - allocations, 0);
}

#[test]
fn timers_waker_and_figures_add_no_call_to_a_turn() {
    let mut reactor = reactor(16);
    let (_, waker) = reactor.cx().waker("waker", |_, _| Ok(Next::Keep)).unwrap();
    let far_off = reactor.cx().now() + Duration::from_secs(60);
    let cx = reactor.cx();
    let timer = cx.timer(Class::Item, "timer", far_off, |_: &mut (), _| None);
    let liveness = cx.liveness_timer("bfd", far_off, |_, _| None).unwrap();
    cx.measure(true);
    cx.on_turn_end(|_, _| {});
    let mut round = |later: Duration| {
        waker.wake();
        let cx = reactor.cx();
        assert!(cx.rearm(timer, far_off + later) && cx.rearm(liveness, far_off + later));
        turn(&mut reactor, &mut (), 1);
        *reactor.cx().stats()
    };
    let before = round(Duration::from_micros(1));
    let allocations = ALLOCATIONS.get();
    let after = (2..100).map(|by| round(Duration::from_micros(by))).last();
    let after = after.unwrap();
    assert_eq!(ALLOCATIONS.get() - allocations, 0);
    assert_eq!(after.controls, before.controls);
    assert_eq!(after.alarms, before.alarms);
    assert_eq!(after.waits - before.waits, after.turns - before.turns);
    assert_eq!(after.dispatches - before.dispatches, 98);
}

/// A connection with a little state of its own.
struct Peer {
    stream: UnixStream,
    _state: [u64; 8],
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[test]
fn idle_source_costs_less_than_256_bytes() {
    const PEERS: usize = 300; // within the usual limit of 1024 descriptors
    let mut reactor = reactor::<()>(1024);
    let mut nears = Vec::with_capacity(PEERS);
    let before = LIVE_BYTES.get();
    for _ in 0..PEERS {
        let (near, stream) = pair();
        nears.push(near);
        let peer = Peer {
            stream,
            _state: [0; 8],
        };
        let serve = |peer: &mut Peer, _: &mut (), _: &mut _, _| {
            drain(&mut peer.stream);
            Ok(Next::Keep)
        };
        reactor.cx().add(Spec::item("peer"), peer, serve).unwrap();
    }
    turn(&mut reactor, &mut (), 1);
    let each = (LIVE_BYTES.get() - before) / PEERS as isize;
    println!(
        "{each} bytes a source, its own {} included",
        size_of::<Peer>()
    );
    assert!(each <= 256, "{each} bytes");
}
