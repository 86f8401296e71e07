//! Scenarios that need a process of their own: no descriptors left, answers of the kernel that
//! nobody has foreseen, and stopped in a wait.
//!
//! Each child is this test binary again, running the one test that plays the child.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::{LONG, reactor, turn_until};
use crate::support;
use crate::support::apart::test_name;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket_takeover::event::{AcceptFailure, Acceptor, Backoff, Config, Cx, Event, Exit};
use socket_takeover::event::{Next, RESERVE, Reactor, Spec};

const ROLE: &str = "REACTOR_TEST_ROLE";

fn child(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test_name!(test), "--nocapture"])
        .env(ROLE, test)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn plays(test: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == test)
}

#[test]
fn listener_without_descriptors_backs_off_and_comes_back() {
    let output = child("play_exhausted").wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("all accepted"));
}

struct Accepted {
    peers: Vec<TcpStream>,
    backoff: Backoff,
}

#[test]
fn play_exhausted() {
    if !plays("play_exhausted") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    let mut reactor = reactor(16);
    let mut accepted = Accepted {
        peers: Vec::new(),
        backoff: Backoff::default(),
    };
    let accept = |listener: &mut TcpListener,
                  accepted: &mut Accepted,
                  cx: &mut Cx<Accepted>,
                  event: Event| {
        for _ in 0..cx.budget() {
            match listener.accept() {
                Ok((peer, _)) => {
                    accepted.backoff.reset();
                    accepted.peers.push(peer);
                }
                Err(error) => match AcceptFailure::of(&error) {
                    AcceptFailure::Drained => return Ok(Next::Keep),
                    AcceptFailure::PeerGone => {}
                    AcceptFailure::Exhausted => {
                        let again = accepted.backoff.next(cx.now());
                        cx.set_deadline(event.id(), Some(again));
                        return Ok(Next::Keep);
                    }
                    AcceptFailure::Broken => return Err(error),
                },
            }
        }
        Ok(Next::Again)
    };
    reactor
        .cx()
        .add(Spec::item("listener"), listener, accept)
        .unwrap();

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, next as u64, hard).unwrap();
    turn_until(&mut reactor, &mut accepted, |it| it.backoff.pauses() == 3);
    assert!(accepted.peers.is_empty());
    let dispatches = reactor.cx().stats().dispatches;
    assert_eq!(dispatches, 3, "it waits, and does not spin");

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    // Nobody else connects: no edge will tell.
    turn_until(&mut reactor, &mut accepted, |it| it.peers.len() == 3);
    assert_eq!(reactor.cx().stats().faults, 0);
    println!("all accepted");
}

/// The child with one system call that fails, as strace(1) takes it: `call:error=…`.
fn child_with(test: &str, fault: &str) -> std::process::Output {
    support::need("strace");
    let (call, _) = fault.split_once(':').unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "signal=none"]);
    strace.args(["-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={fault}")]);
    let child = strace.arg(std::env::current_exe().unwrap());
    child.args(["--exact", &test_name!(test), "--nocapture"]);
    child.env(ROLE, test).output().unwrap()
}

#[test]
fn acceptor_after_an_unforeseen_answer_backs_off_and_comes_back() {
    for answer in ["EACCES", "EPROTONOSUPPORT", "EINVAL", "EBADF", "EREMOTE"] {
        let fault = format!("accept4:error={answer}:when=1..2");
        let output = child_with("play_unforeseen", &fault);
        assert!(output.status.success(), "{answer}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("2 pauses, 2 unforeseen"));
    }
}

#[test]
fn play_unforeseen() {
    if !plays("play_unforeseen") {
        return;
    }
    let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    let mut reactor = reactor(16);
    let cx = reactor.cx();
    let welcome = |accepted: &mut Vec<TcpStream>, _: &mut Cx<_>, stream, _| {
        accepted.push(stream);
        Ok(())
    };
    listener.add(cx, "listener", welcome).unwrap();
    let mut accepted = Vec::new();
    turn_until(&mut reactor, &mut accepted, |it| it.len() == 3);
    let stats = *reactor.cx().stats();
    assert_eq!(stats.faults, 0);
    println!(
        "{} pauses, {} unforeseen",
        stats.accept_pauses, stats.accepts_unforeseen
    );
}

#[test]
fn end_of_a_child_is_told_though_how_it_has_ended_cannot_be_had() {
    // The first asks whether it is a child of ours.
    let output = child_with("play_parent", "waitid:error=EACCES:when=2+");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn play_parent() {
    if !plays("play_parent") {
        return;
    }
    let mut reactor = reactor(16);
    let mut process = Command::new("true").spawn().unwrap();
    let child = socket_takeover::event::Child::of(&process).unwrap();
    let ended = |told: &mut Vec<Exit>, _: &mut Cx<_>, exit| told.push(exit);
    reactor.cx().child("child", child, ended).unwrap();
    let mut told = Vec::new();
    turn_until(&mut reactor, &mut told, |told| !told.is_empty());
    assert_eq!(told, [Exit::Collected]);
    assert_eq!(reactor.cx().stats().faults, 0);
    // It is a zombie still; std asks in its own way.
    let _ = process.wait();
}

#[test]
fn acceptor_that_is_told_of_gone_peers_for_ever_does_not_spin() {
    let output = child_with("play_forbidden", "accept4:error=EPERM");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn play_forbidden() {
    if !plays("play_forbidden") {
        return;
    }
    let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut reactor = reactor(16);
    let cx = reactor.cx();
    let welcome = |(): &mut (), _: &mut Cx<_>, _, _| Ok(());
    listener.add(cx, "listener", welcome).unwrap();
    let end = Instant::now() + LONG;
    while reactor.cx().stats().accept_pauses < 4 {
        assert!(Instant::now() < end);
        reactor.turn(&mut (), Some(LONG)).unwrap();
    }
    assert_eq!(reactor.cx().stats().dispatches, 4);
}

#[test]
fn acceptor_beside_descriptors_that_the_reactor_does_not_know_leaves_a_reserve() {
    let output = child("play_outside").wait_with_output().unwrap();
    assert!(output.status.success());
}

#[test]
fn play_outside() {
    if !plays("play_outside") {
        return;
    }
    const NOFILE: usize = 200;
    const CLIENTS: usize = NOFILE + 40;
    let listener = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    // In a process of their own, as their descriptors are not to count.
    let mut clients = child("play_clients");
    let mut input = clients.stdin.take().unwrap();
    for _ in 0..CLIENTS {
        writeln!(input, "{address}").unwrap();
    }
    writeln!(input).unwrap();
    let mut output = BufReader::new(clients.stdout.take().unwrap());
    wait_for_line(&mut output, "connected");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, NOFILE as u64, hard).unwrap();
    let mut reactor = reactor(16);
    let cx = reactor.cx();
    let welcome = |accepted: &mut Vec<TcpStream>, _: &mut Cx<_>, stream, _| {
        accepted.push(stream);
        Ok(())
    };
    let handle = listener.add(cx, "listener", welcome).unwrap();
    let mut accepted = Vec::new();
    let mut highest = 0;
    // One leaves that has a lower number, and another comes: how often makes no difference.
    for round in 0..40 {
        let has_paused =
            |reactor: &mut Reactor<Vec<TcpStream>>| reactor.cx().get(handle).unwrap().is_pausing();
        let before = accepted.len();
        let end = Instant::now() + LONG;
        while !has_paused(&mut reactor) || accepted.len() == before {
            assert!(Instant::now() < end, "round {round}: {before} accepted");
            reactor.turn(&mut accepted, Some(LONG)).unwrap();
        }
        highest = highest.max(accepted.iter().map(AsRawFd::as_raw_fd).max().unwrap());
        drop(accepted.remove(0));
    }
    assert!(highest as usize <= NOFILE - RESERVE / 2, "{highest}");
    drop(input);
    clients.wait().unwrap();
}

#[test]
fn play_clients() {
    if !plays("play_clients") {
        return;
    }
    let mut lines = io::stdin().lines().map_while(Result::ok);
    let addresses = lines.by_ref().take_while(|line| !line.is_empty());
    let _clients: Vec<TcpStream> = addresses
        .map(|address| TcpStream::connect(address).unwrap())
        .collect();
    println!("connected");
    assert_eq!(lines.next(), None, "the end of the input");
}

#[test]
fn wait_interrupted_by_a_stop_goes_on() {
    // Being continued ends epoll_wait(2) with EINTR even without a handler (signal(7)).
    let mut child = child("play_stopped");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for_line(&mut output, "waiting");
    let pid = Pid::from_raw(child.id() as i32);
    for _ in 0..3 {
        wait_for_states(child.id(), 'S');
        kill(pid, Signal::SIGSTOP).unwrap();
        wait_for_states(child.id(), 'T');
        kill(pid, Signal::SIGCONT).unwrap();
    }
    wait_for_states(child.id(), 'S');
    drop(child.stdin.take());
    wait_for_line(&mut output, "one turn");
    assert!(child.wait().unwrap().success());
}

#[test]
fn play_stopped() {
    if !plays("play_stopped") {
        return;
    }
    let mut reactor: Reactor<bool> = Reactor::new(Config::default()).unwrap();
    let end = |_: &mut io::Stdin, ended: &mut bool, _: &mut Cx<bool>, event: Event| {
        *ended = event.is_hangup() || event.is_read_closed();
        Ok(Next::End)
    };
    let input = Spec::item("input");
    reactor.cx().add(input, io::stdin(), end).unwrap();
    println!("waiting");
    let mut ended = false;
    reactor.turn(&mut ended, Some(LONG)).unwrap();
    assert!(ended, "the turn was cut short");
    println!("one turn");
}

fn wait_for_line(output: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "it said no {wanted:?}"
        );
    }
}

/// Waits until all threads of a process are in a state as in proc_pid_stat(5).
fn wait_for_states(pid: u32, wanted: char) {
    let end = Instant::now() + LONG;
    let all = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.into_iter().all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            let state = stat.rsplit_once(") ").unwrap().1;
            state.starts_with(wanted)
        })
    };
    while !all() {
        assert!(Instant::now() < end, "no {wanted} in {pid}");
        std::thread::yield_now();
    }
}
