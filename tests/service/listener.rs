//! A listener that fails in ways that nobody has foreseen, and one that another holder of it has
//! shut down. Whatever it is, the service is not deaf afterwards, and says what has happened.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::support;
use crate::support::side::FakeDonor;
use crate::support::{BOUND, Client, Fault, Kind, PATIENT, Peers, Server, Stage, need, seed};
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket_takeover::proto::records::{Kind as RecordKind, Record};

/// The service with one fault of its system calls.
fn serve_with(stage: &Stage, fault: &str) -> Server {
    let path = stage.path();
    let path = path.to_str().unwrap();
    let server = Server::start_with(fault, &["-G", "-a", "127.0.0.1", "-p", "0", "-t", path]);
    server.wait_line("Starting Takeover channel on");
    server
}

/// What a stray holder of a copy can do: shutdown(2) is for all.
fn shut_down(server: &Server) {
    shutdown(copy_of_listener(server).as_raw_fd(), Shutdown::Read).unwrap();
}

fn copy_of_listener(server: &Server) -> OwnedFd {
    let line = server.wait_line(" (fd:");
    let (_, number) = line.split_once("(fd:").unwrap();
    let number = number.split_once(')').unwrap().0.parse().unwrap();
    let pid = Pid::from_raw(server.pid().cast_signed()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).unwrap()
}

/// One message there and back, by a client that nobody knows yet.
fn is_served(at: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(at) else {
        return false;
    };
    client.set_read_timeout(Some(BOUND)).unwrap();
    let mut answer = [1; 4];
    client.write_all(&[0; 4]).is_ok() && client.read_exact(&mut answer).is_ok() && answer == [0; 4]
}

#[test]
fn accept_that_fails_for_whatever_reason_goes_on() {
    for error in [
        "EACCES",
        "EPROTONOSUPPORT",
        "ESOCKTNOSUPPORT",
        "EINVAL",
        "EBADF",
        "EREMOTE",
    ] {
        let stage = Stage::new();
        let mut server = serve_with(&stage, &format!("accept4:error={error}:when=1..3"));
        for _ in 0..3 {
            assert!(is_served(server.address()), "{error}");
        }
        server.wait_line("peers are accepted again");
        assert_eq!(server.log().count("no more peers are accepted"), 1);
        assert!(server.is_running());
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit(), 0);
    }
}

#[test]
fn answer_that_is_the_same_for_ever_costs_a_try_now_and_then() {
    for error in ["EACCES", "EPERM"] {
        let stage = Stage::new();
        let server = stage.serve(&[]);
        let trace = stage.file("trace");
        let fault = Fault::traced(
            &server,
            &format!("accept4:error={error}"),
            "accept4",
            &trace,
        );
        let client = TcpStream::connect(server.address()).unwrap();
        // 10, 20, 40, 80 ms: with a pause between any two there are few tries by then.
        let wanted = if error == "EPERM" { 5 * 16 } else { 5 };
        let tries = || support::fault::lines(&trace).len();
        let begun = std::time::Instant::now();
        while tries() < wanted {
            assert!(begun.elapsed() < BOUND, "{} tries", tries());
            std::thread::yield_now();
        }
        assert!(begun.elapsed().as_millis() >= 100, "{error}: it spins");
        drop((fault, client));
        assert!(is_served(server.address()));
        server.wait_line("peers are accepted again");
    }
}

#[test]
fn listener_shut_down_by_another_holder_listens_again() {
    let stage = Stage::new();
    let mut server = stage.serve(&["-b", "77"]);
    let address = server.address();
    let peers = Peers::connect(address, seed(), &[(Kind::Talking, 5)]);
    peers.echoes(4);
    let fds = server.fds();
    for times in 1..=3 {
        shut_down(&server);
        server.wait_nth_line("it listens on", times);
        assert!(is_served(address));
    }
    let backlog = socket_takeover::sys::tcp_backlog(copy_of_listener(&server)).unwrap();
    assert_eq!(backlog, 77);
    server.wait_fds(|now| now == fds);
    let mut next = stage.replace(&mut server, &[]);
    // The backlog is nothing that a donor tells: the socket does.
    shut_down(&next);
    next.wait_line("it listens on");
    assert!(is_served(address));
    let backlog = socket_takeover::sys::tcp_backlog(copy_of_listener(&next)).unwrap();
    assert_eq!(backlog, 77);
    let _last = stage.replace(&mut next, &[]);
    assert!(is_served(address));
    peers.finish().assert_flawless();
}

#[test]
fn listener_of_a_chosen_port_shut_down_listens_again() {
    let stage = Stage::new();
    let chosen = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let port = chosen.port().to_string();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let server = Server::start(&["-G", "-a", "127.0.0.1", "-p", &port, "-t", path]);
    server.wait_line("Starting Takeover channel on");
    shut_down(&server);
    server.wait_line("it listens on");
    assert!(is_served(chosen));
}

/// The socket is one for both, and so is what has become of it.
#[test]
fn listener_shut_down_right_before_the_claim_listens_again_at_the_taker() {
    let stage = Stage::new();
    let mut donor = stage.serve(&PATIENT);
    let address = donor.address();
    let peers = Peers::connect(address, seed(), &[(Kind::Talking, 5)]);
    peers.echoes(4);
    let mut args = vec!["-G", "-T"];
    let path = stage.path();
    args.push(path.to_str().unwrap());
    args.extend(PATIENT);
    let taker = Server::start_failing("taker.claim.before:stop", &args);
    taker.wait_stopped();
    shut_down(&donor);
    taker.go_on();
    taker.wait_line("it listens on");
    assert_eq!(donor.wait_exit(), 0);
    assert!(is_served(address));
    peers.finish().assert_flawless();
}

#[test]
fn listener_that_cannot_listen_again_serves_its_peers_and_refuses_a_successor() {
    need("strace");
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let address = server.address();
    let peers = Peers::connect(address, seed(), &[(Kind::Talking, 5)]);
    peers.echoes(4);
    let fault = Fault::of(&server, "listen:error=EADDRINUSE");
    shut_down(&server);
    server.wait_line("cannot listen on");
    peers.echoes(8);
    assert!(TcpStream::connect(address).is_err());
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 75);
    server.wait_line(
        "we serve on: the donor could not go on (the listener is broken: cannot listen on",
    );
    peers.echoes(8);
    // A line a minute.
    assert_eq!(server.log().count("no more peers are accepted"), 1);
    drop(fault);
    server.wait_line("peers are accepted again");
    assert!(is_served(address));
    let _next = stage.replace(&mut server, &[]);
    assert!(is_served(address));
    peers.finish().assert_flawless();
}

#[test]
fn successor_that_gets_no_listener_refuses() {
    let stage = Stage::new();
    let mut donor = FakeDonor::bind(&stage.path());
    let mut taker = stage.take_over(&[]);
    donor.await_taker();
    donor.welcome();
    let stuffing = donor.stuffing_without_listener();
    donor.send(&stuffing);
    donor.side().say(&Record::Prepare);
    let last = donor.side().expect(RecordKind::Fail);
    let Record::Fail(fail) = last.record() else {
        unreachable!("it is of that kind");
    };
    assert!(fail.reason.contains("no listener"), "{}", fail.reason);
    donor.hang_up();
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("no listener");
}

#[test]
fn signals_that_cannot_be_read_once_are_read_later() {
    let stage = Stage::new();
    let mut server = stage.serve(&[]);
    let mut client = Client::connect(server.address());
    client.talk();
    // It has nothing else to read from by read(2).
    let trace = stage.file("trace");
    let fault = Fault::traced(&server, "read:error=EIO:when=1", "read", &trace);
    server.signal(Signal::SIGTERM);
    server.wait_line("signals: Input/output error");
    assert_eq!(server.wait_exit(), 0);
    drop(fault);
}
