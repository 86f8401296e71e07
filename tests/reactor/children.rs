//! Child processes as a source of the reactor: each by itself, and no other is touched.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, ExitStatus, Stdio};

use crate::common::{reactor, turn, turn_until};
use nix::poll::{PollFd, PollFlags, poll};
use socket_takeover::event::{Child, Exit, Reactor};
use socket_takeover::sys;

/// The children that have ended, and how.
type Ended = Vec<(&'static str, Exit)>;

fn shell(script: &str) -> process::Child {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", script]);
    shell.stdin(Stdio::piped()).spawn().unwrap()
}

fn add(reactor: &mut Reactor<Ended>, name: &'static str, child: &process::Child) {
    let child = Child::of(child).unwrap();
    reactor
        .cx()
        .child(name, child, move |ended: &mut Ended, _, exit| {
            ended.push((name, exit));
        })
        .unwrap();
}

fn status(raw: i32) -> Exit {
    Exit::Status(ExitStatus::from_raw(raw))
}

#[test]
fn child_that_ends_is_told_once_with_its_status_or_signal() {
    for (script, raw) in [
        ("exit 0", 0),
        ("exit 7", 7 << 8),
        ("kill -TERM $$", libc::SIGTERM),
        ("kill -40 $$", 40), // a realtime signal
    ] {
        let mut reactor = reactor(16);
        let mut ended = Ended::new();
        add(&mut reactor, "child", &shell(script));
        turn_until(&mut reactor, &mut ended, |ended| !ended.is_empty());
        turn(&mut reactor, &mut ended, 2);
        assert_eq!(ended, [("child", status(raw))], "{script}");
        assert!(reactor.cx().dump().sources.is_empty());
    }
}

#[test]
#[expect(clippy::zombie_processes, reason = "the reactor waits for it")]
fn child_that_was_not_asked_for_is_left_to_its_owner() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let mut others = [shell("exit 1"), shell("exit 2")];
    let own = shell("exit 3");
    add(&mut reactor, "own", &own);
    turn_until(&mut reactor, &mut ended, |ended| !ended.is_empty());
    assert_eq!(ended, [("own", status(3 << 8))]);
    for (other, code) in others.iter_mut().zip([1, 2]) {
        assert_eq!(other.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn children_of_one_turn_are_told_apart() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let names = ["zero", "one", "two", "three", "four"];
    for (code, name) in names.into_iter().enumerate() {
        add(&mut reactor, name, &shell(&format!("exit {code}")));
    }
    turn_until(&mut reactor, &mut ended, |ended| ended.len() == names.len());
    for (code, name) in (0..).zip(names) {
        assert!(ended.contains(&(name, status(code << 8))));
    }
}

#[test]
fn child_collected_by_somebody_else_is_told_as_such() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let mut child = shell("exit 5");
    add(&mut reactor, "child", &child);
    assert_eq!(child.wait().unwrap().code(), Some(5));
    turn_until(&mut reactor, &mut ended, |ended| !ended.is_empty());
    assert_eq!(ended, [("child", Exit::Collected)]);
}

#[test]
#[expect(clippy::zombie_processes, reason = "the reactor waits for it")]
fn child_signalled_through_its_handle_ends_by_that() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let child = shell("read line");
    let source = Child::from_pid(child.id()).unwrap();
    let handle = reactor
        .cx()
        .child("child", source, |ended: &mut Ended, _, exit| {
            ended.push(("child", exit));
        })
        .unwrap();
    turn(&mut reactor, &mut ended, 1);
    assert!(ended.is_empty());
    let running = reactor.cx().get(handle).unwrap();
    assert_eq!(running.id(), child.id());
    running.signal(libc::SIGKILL).unwrap();
    turn_until(&mut reactor, &mut ended, |ended| !ended.is_empty());
    assert_eq!(ended, [("child", status(libc::SIGKILL))]);
}

#[test]
fn child_taken_out_is_told_to_nobody_and_can_be_waited_for() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let mut child = shell("exit 6");
    let source = Child::of(&child).unwrap();
    let handle = reactor
        .cx()
        .child("child", source, |ended: &mut Ended, _, exit| {
            ended.push(("child", exit));
        })
        .unwrap();
    drop(reactor.cx().take(handle).unwrap());
    turn(&mut reactor, &mut ended, 1);
    assert_eq!(child.wait().unwrap().code(), Some(6));
    assert!(ended.is_empty());
}

#[test]
fn child_that_ends_during_a_hold_is_told_after_it() {
    let mut reactor = reactor(16);
    let mut ended = Ended::new();
    let child = shell("read line");
    add(&mut reactor, "child", &child);
    reactor.cx().hold(|_, _| {});
    turn(&mut reactor, &mut ended, 1);
    let pidfd = sys::pidfd_open(child.id()).unwrap();
    drop(child); // and with it the pipe that it reads
    let mut wanted = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wanted, 10_000_u16).unwrap(), 1, "it has ended");
    turn(&mut reactor, &mut ended, 3);
    assert!(ended.is_empty());
    reactor.cx().resume();
    turn_until(&mut reactor, &mut ended, |ended| !ended.is_empty());
    assert_eq!(ended, [("child", status(1 << 8))]);
}

#[test]
fn process_that_is_no_child_or_no_process_is_refused() {
    let own = Child::from_pid(process::id()).unwrap_err();
    assert_eq!(own.raw_os_error(), Some(libc::ECHILD));
    let mut child = shell("exit 0");
    child.wait().unwrap();
    let gone = Child::of(&child).unwrap_err();
    let gone = gone.raw_os_error();
    assert!(
        gone == Some(libc::ESRCH) || gone == Some(libc::ECHILD),
        "{gone:?}"
    );
}
