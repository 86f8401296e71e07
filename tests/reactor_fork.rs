//! A reactor that was set up before a fork(2), in the child and in the parent.
//!
//! A process with a second thread must not fork, and the standard test harness always has one: so
//! this brings its own `main` (`harness = false`).

#[path = "reactor/common.rs"]
mod common;
#[path = "support/harness.rs"]
mod harness;

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::time::Duration;

use common::{LONG, drain, is_ended, pair, poke, reactor, turn, turn_until};
use harness::{Harness, scenarios};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use socket_takeover::event::{Class, Cx, Event, Next, Reactor, Signals, Spec};
use socket_takeover::sys::{Fork, fork_alone};

fn main() {
    Harness::of(env::args().skip(1)).run(scenarios![
        signal_to_a_daemon_set_up_before_its_fork_is_heard,
        everything_armed_before_a_fork_goes_on_in_the_child,
        child_that_removes_and_adds_leaves_its_parents_set_alone,
        child_without_descriptors_fails_its_turn_and_comes_back,
    ]);
}

/// Runs `part` in a child; fails with it.
fn in_child(part: impl FnOnce()) -> Pid {
    match fork_alone().unwrap() {
        Fork::Parent(pid) => Pid::from_raw(pid.cast_signed()),
        Fork::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(part));
            process::exit(i32::from(outcome.is_err()));
        }
    }
}

#[track_caller]
fn ended_well(child: Pid) {
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
}

#[derive(Default)]
struct Seen {
    signals: u32,
    bytes: u32,
    timers: u32,
}

fn on_signals(
    signals: &mut Signals,
    seen: &mut Seen,
    _: &mut Cx<Seen>,
    _: Event,
) -> io::Result<Next> {
    while signals.read()?.is_some() {
        seen.signals += 1;
    }
    Ok(Next::Keep)
}

fn on_bytes(
    stream: &mut UnixStream,
    seen: &mut Seen,
    _: &mut Cx<Seen>,
    _: Event,
) -> io::Result<Next> {
    seen.bytes += 1;
    Ok(if drain(stream) { Next::End } else { Next::Keep })
}

fn with_signals() -> Reactor<Seen> {
    let mut reactor = reactor(16);
    let signals = Signals::new(&[libc::SIGTERM]).unwrap();
    let spec = Spec::handover("signals");
    reactor.cx().add(spec, signals, on_signals).unwrap();
    reactor
}

fn signal_to_a_daemon_set_up_before_its_fork_is_heard() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(LONG)).unwrap();
    let launcher = in_child(|| {
        let mut reactor = with_signals();
        // The launcher leaves, and the daemon goes on with what it has set up.
        if let Fork::Parent(_) = fork_alone().unwrap() {
            return;
        }
        let mut seen = Seen::default();
        // That its launcher is gone for good is an event of the signalfd, too: let it pass.
        far.read_exact(&mut [0]).unwrap();
        turn(&mut reactor, &mut seen, 1);
        far.write_all(&process::id().to_ne_bytes()).unwrap();
        turn_until(&mut reactor, &mut seen, |seen| seen.signals > 0);
        far.write_all(&seen.signals.to_ne_bytes()).unwrap();
    });
    ended_well(launcher);
    near.write_all(b".").unwrap();
    let mut number = [0; 4];
    near.read_exact(&mut number).unwrap();
    kill(Pid::from_raw(i32::from_ne_bytes(number)), Signal::SIGTERM).unwrap();
    near.read_exact(&mut number).expect("it hears the signal");
    assert_eq!(u32::from_ne_bytes(number), 1);
}

fn everything_armed_before_a_fork_goes_on_in_the_child() {
    let mut reactor = with_signals();
    let (near, far) = pair();
    let (before, ready) = pair();
    poke(&before);
    reactor.cx().add(Spec::item("far"), far, on_bytes).unwrap();
    let waits = reactor
        .cx()
        .add(Spec::item("ready"), ready, on_bytes)
        .unwrap();
    let soon = reactor.cx().now() + Duration::from_millis(5);
    let ran = |seen: &mut Seen, _: &mut Cx<Seen>| {
        seen.timers += 1;
        None
    };
    reactor.cx().timer(Class::Item, "timer", soon, ran);
    reactor.cx().liveness_timer("liveness", soon, ran).unwrap();
    ended_well(in_child(|| {
        let mut seen = Seen::default();
        // Ready before the fork, and never reported to anybody.
        turn_until(&mut reactor, &mut seen, |seen| seen.bytes == 1);
        poke(&near);
        turn_until(&mut reactor, &mut seen, |seen| seen.bytes == 2);
        turn_until(&mut reactor, &mut seen, |seen| seen.timers == 2);
        assert!(reactor.cx().remove(waits));
        assert_eq!(reactor.cx().stats().stale_events, 0);
    }));
}

fn child_that_removes_and_adds_leaves_its_parents_set_alone() {
    let mut kept = Some(with_signals());
    let (near, far) = pair();
    let other = pair();
    // A registration lives as long as any copy of what it is of.
    let _copy = other.1.try_clone().unwrap();
    let cx = kept.as_mut().unwrap().cx();
    let far = cx.add(Spec::item("far"), far, on_bytes).unwrap();
    let child = in_child(|| {
        let mut reactor = kept.take().unwrap();
        assert!(reactor.cx().remove(far));
        let cx = reactor.cx();
        cx.add(Spec::item("other"), other.1, on_bytes).unwrap();
        let mut seen = Seen::default();
        turn(&mut reactor, &mut seen, 1);
        assert_eq!(seen.bytes, 0);
    });
    ended_well(child);
    let mut reactor = kept.unwrap();
    let mut seen = Seen::default();
    poke(&near);
    poke(&other.0);
    turn_until(&mut reactor, &mut seen, |seen| seen.bytes == 1);
    turn(&mut reactor, &mut seen, 2);
    assert_eq!(seen.bytes, 1);
    assert_eq!(reactor.cx().stats().stale_events, 0);
    // Its signals are its own, too.
    kill(Pid::this(), Signal::SIGTERM).unwrap();
    turn_until(&mut reactor, &mut seen, |seen| seen.signals == 1);
    assert!(!is_ended(&near));
}

fn child_without_descriptors_fails_its_turn_and_comes_back() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let mut reactor = with_signals();
    ended_well(in_child(|| {
        let mut seen = Seen::default();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        let failed = reactor.turn(&mut seen, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EMFILE));
        let (_near, far) = pair_in_spite_of(soft, hard);
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        // Not into the parent's set either.
        assert!(reactor.cx().add(Spec::item("far"), far, on_bytes).is_err());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        turn_until(&mut reactor, &mut seen, |seen| seen.signals == 1);
    }));

    fn pair_in_spite_of(soft: u64, hard: u64) -> (UnixStream, UnixStream) {
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        pair()
    }
}
