//! Signals as a source of the reactor.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::common::{reactor, turn};
use nix::sys::signal::{SigSet, Signal, raise};
use socket_takeover::event::{Cx, Event, Next, SignalInfo, Signals, Spec};

// `raise` signals the calling thread alone, so that tests beside this one feel nothing.

fn read(
    signals: &mut Signals,
    seen: &mut Vec<SignalInfo>,
    _: &mut Cx<Vec<SignalInfo>>,
    _: Event,
) -> io::Result<Next> {
    while let Some(info) = signals.read()? {
        seen.push(info);
    }
    Ok(Next::Keep)
}

#[test]
fn signal_raised_is_an_event_with_its_sender() {
    let mut reactor = reactor(16);
    let mut seen = Vec::new();
    let signals = Signals::new(&[libc::SIGUSR1, libc::SIGTERM]).unwrap();
    reactor
        .cx()
        .add(Spec::handover("signals"), signals, read)
        .unwrap();
    turn(&mut reactor, &mut seen, 1);
    assert!(seen.is_empty());
    raise(Signal::SIGTERM).unwrap();
    raise(Signal::SIGUSR1).unwrap();
    raise(Signal::SIGUSR1).unwrap(); // one with the former
    turn(&mut reactor, &mut seen, 1);
    let pid = std::process::id();
    let expected = [libc::SIGUSR1, libc::SIGTERM].map(|signo| SignalInfo { signo, pid });
    assert_eq!(seen, expected);
    raise(Signal::SIGTERM).unwrap();
    turn(&mut reactor, &mut seen, 1);
    assert_eq!(seen.len(), 3);
}

#[test]
fn signals_arrive_during_a_hold() {
    let mut reactor = reactor(16);
    let mut seen = Vec::new();
    let signals = Signals::new(&[libc::SIGUSR2]).unwrap();
    reactor
        .cx()
        .add(Spec::handover("signals"), signals, read)
        .unwrap();
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut seen, 1);
    raise(Signal::SIGUSR2).unwrap();
    turn(&mut reactor, &mut seen, 1);
    assert_eq!(seen.len(), 1);
}

#[test]
fn mask_is_given_back_as_it_was() {
    let mut before = SigSet::thread_get_mask().unwrap();
    before.add(Signal::SIGHUP);
    before.thread_set_mask().unwrap();
    let outer = Signals::new(&[libc::SIGHUP, libc::SIGUSR1]).unwrap();
    let inner = Signals::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
    let during = SigSet::thread_get_mask().unwrap();
    assert!(during.contains(Signal::SIGUSR1) && during.contains(Signal::SIGUSR2));
    assert!(!during.contains(Signal::SIGTERM), "it was not asked for");
    drop(inner);
    let between = SigSet::thread_get_mask().unwrap();
    assert!(between.contains(Signal::SIGUSR1) && !between.contains(Signal::SIGUSR2));
    drop(outer);
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
}

#[test]
fn process_started_meanwhile_can_have_the_mask_from_before() {
    let signals = Signals::new(&[libc::SIGTERM]).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -TERM $$; exit 3"]);
    assert_eq!(shell.status().unwrap().code(), Some(3), "it is blocked");
    signals.unblock_in(&mut shell);
    assert_eq!(shell.status().unwrap().signal(), Some(libc::SIGTERM));
    assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
}

#[test]
fn signal_that_cannot_be_received_is_refused() {
    let before = SigSet::thread_get_mask().unwrap();
    for number in [libc::SIGKILL, libc::SIGSTOP, 0, -1, 1000] {
        let refused = Signals::new(&[libc::SIGUSR1, number]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{number}");
    }
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
}
