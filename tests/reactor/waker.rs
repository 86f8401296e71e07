//! Waking the reactor from other threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{LONG, reactor, turn, turn_until};
use socket_takeover::event::{Config, Cx, Next, Reactor, Waker};

fn count(woken: &mut usize, _: &mut Cx<usize>) -> io::Result<Next> {
    *woken += 1;
    Ok(Next::Keep)
}

fn add(reactor: &mut Reactor<usize>) -> Waker {
    reactor.cx().waker("waker", count).unwrap().1
}

#[test]
fn waker_goes_to_any_thread_and_any_copy_wakes() {
    fn any_thread<T: Send + Sync + Clone + 'static>(_: &T) {}
    let mut reactor = reactor(16);
    let waker = add(&mut reactor);
    any_thread(&waker);
    let mut woken = 0;
    for round in 1..=3 {
        let waker = waker.clone();
        let other = thread::spawn(move || waker.wake());
        // Without a limit: nothing but the wake ends this turn.
        while woken < round {
            reactor.turn(&mut woken, Some(LONG)).unwrap();
        }
        other.join().unwrap();
        assert_eq!(woken, round);
    }
}

#[test]
fn wakes_before_the_callback_are_one() {
    let mut reactor = reactor(16);
    let waker = add(&mut reactor);
    let mut woken = 0;
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 0);
    (0..1000).for_each(|_| waker.wake());
    turn(&mut reactor, &mut woken, 3);
    assert_eq!(woken, 1);
    waker.wake();
    turn(&mut reactor, &mut woken, 3);
    assert_eq!(woken, 2);
}

#[test]
fn wake_within_the_callback_is_heard_in_the_next_turn() {
    let mut reactor = reactor(16);
    let own = add(&mut reactor);
    let again = own.clone();
    let (_, waker) = reactor
        .cx()
        .waker("again", move |woken: &mut usize, _| {
            if *woken == 0 {
                again.wake();
            }
            Ok(Next::Keep)
        })
        .unwrap();
    let mut woken = 0;
    waker.wake();
    turn(&mut reactor, &mut woken, 1);
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 1);
}

#[test]
fn what_a_thread_has_done_before_its_wake_is_seen() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    let mut reactor = reactor(16);
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let (_, waker) = reactor
        .cx()
        .waker("count", move |last: &mut usize, _| {
            // Relaxed: only the wake itself makes it visible.
            *last = seen.load(Ordering::Relaxed);
            Ok(Next::Keep)
        })
        .unwrap();
    let threads = [(); THREADS].map(|()| {
        let (done, waker) = (Arc::clone(&done), waker.clone());
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                done.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        })
    });
    let mut last = 0;
    turn_until(&mut reactor, &mut last, |&last| last == THREADS * ROUNDS);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn wake_during_a_hold_is_heard_after_it() {
    let mut reactor = reactor(16);
    let waker = add(&mut reactor);
    let mut woken = 0;
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut woken, 1);
    waker.wake();
    turn(&mut reactor, &mut woken, 3);
    assert_eq!(woken, 0);
    reactor.cx().resume();
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 1);
}

#[test]
fn wake_before_a_taker_settles_is_not_discarded() {
    let mut reactor = Reactor::new_held(Config::default()).unwrap();
    let waker = add(&mut reactor);
    waker.wake();
    assert_eq!(reactor.cx().settle().unwrap(), 0, "it is no item's event");
    let mut woken = 0;
    reactor.cx().resume();
    turn(&mut reactor, &mut woken, 2);
    assert_eq!(woken, 1);
}

#[test]
fn waker_outlives_a_release_and_the_reactor() {
    let mut reactor = reactor(16);
    let waker = add(&mut reactor);
    let mut woken = 0;
    waker.wake();
    turn(&mut reactor, &mut woken, 1);
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut woken, 1);
    reactor.cx().release(&[]).unwrap();
    assert_eq!(reactor.cx().items_len(), 0);
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 1, "the new set reports it, and nobody has woken it");
    waker.wake();
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 2);
    drop(reactor);
    waker.wake();
}

#[test]
fn waker_with_more_to_do_is_resumed() {
    let mut reactor = reactor(16);
    let (handle, waker) = reactor
        .cx()
        .waker("queue", |woken: &mut usize, _| {
            *woken += 1;
            Ok(if *woken < 3 { Next::Again } else { Next::End })
        })
        .unwrap();
    let mut woken = 0;
    waker.wake();
    for turns in 1..=3 {
        turn(&mut reactor, &mut woken, 1);
        assert_eq!(woken, turns);
    }
    assert!(!reactor.cx().contains(handle));
    waker.wake();
    turn(&mut reactor, &mut woken, 1);
    assert_eq!(woken, 3);
}
