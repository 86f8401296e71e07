//! What is short on the client's own machine, and a connection of the client to itself: neither
//! is ever taken for a server, or blamed on one.
//!
//! Few ports are a network of the test's own with a small ephemeral range; few descriptors and
//! no memory are made by strace(1).

#[path = "../../../tests/support/apart.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, unused_macros)]
mod apart;
mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apart::in_own_network;
use common::{Habit, Server, Verdict, client};

/// The client's command line with system calls that fail, as `strace -e inject=` takes them.
fn starved(address: SocketAddr, words: &str, fault: &str) -> Command {
    let plain = client(address, words);
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("inject={fault}")]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::null());
    command
}

fn verdict(mut command: Command) -> Verdict {
    let output = command.arg("--json").output();
    let verdict = Verdict::of(output.expect("strace is installed (tools/setup)"));
    println!(
        "{:?}: {verdict:#?}",
        command.get_args().collect::<Vec<&OsStr>>()
    );
    verdict
}

/// Something was short on this machine, and the server is not said to have done anything.
#[track_caller]
fn assert_own(verdict: &Verdict) {
    assert_eq!(verdict.code, 71);
    assert_eq!(verdict.json["verdict"], "incomplete");
    assert_eq!(verdict.failures(), [""; 0]);
    assert!(verdict.count("client_failures") > 0);
    assert!(!verdict.stderr.contains("did not take it"));
}

#[test]
fn connection_to_itself_is_nobody_there_and_leaves_the_port_free() {
    let settings = ["net.ipv4.ip_local_port_range=40000 40001"];
    if !in_own_network(
        "connection_to_itself_is_nobody_there_and_leaves_the_port_free",
        &settings,
    ) {
        return;
    }
    // The port of a client that connects is picked out of two, and one of them is the target.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 40000));
    for words in [
        "-d 0.2",
        "-d 0.2 -c 2 --connect-rate 5",
        "-d 0.2 --unread 100",
    ] {
        let output = client(nobody, words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{words}: {stderr}");
        assert!(output.stdout.is_empty(), "{words}");
        assert!(stderr.contains("nobody answers at"), "{words}: {stderr}");
        TcpListener::bind(nobody).expect("nothing rests at the port");
    }
}

#[test]
fn server_that_went_away_under_churn_gets_its_port_back() {
    let settings = ["net.ipv4.ip_local_port_range=40001 40040"];
    if !in_own_network(
        "server_that_went_away_under_churn_gets_its_port_back",
        &settings,
    ) {
        return;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 40001));
    let listener = TcpListener::bind(address).unwrap();
    let mut child = client(address, "-c 5 -R 5 -d 60 --churn 100")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let served: Vec<_> = (0..5).map(|_| listener.accept().unwrap()).collect();
    let mut ready = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready: 5 connections\n");
    drop((served, listener));
    // One in twenty of the connects that follow picks the port of the server that was.
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    let itself = lines.find(|line| line.contains("came back to this client"));
    assert!(itself.is_some(), "it has taken itself for a server");
    // A moment may find a connection that is being dropped.
    let end = Instant::now() + Duration::from_secs(5);
    while let Err(error) = TcpListener::bind(address) {
        assert!(Instant::now() < end, "the port is held: {error}");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ports_that_run_out_under_churn_are_the_clients_own_trouble() {
    let settings = ["net.ipv4.ip_local_port_range=40000 40039"];
    if !in_own_network(
        "ports_that_run_out_under_churn_are_the_clients_own_trouble",
        &settings,
    ) {
        return;
    }
    let server = Server::start(Habit::Echo);
    // For the second run: towards the first server the first source's ports rest by then.
    let other = Server::start(Habit::Echo);
    // Each connection that churn ends rests in TIME-WAIT for a minute, with its port.
    let verdict = verdict(client(server.address, "-c 10 -R 500 -d 1 --churn 200"));
    assert_own(&verdict);
    assert!(verdict.count("connect_failures") == 0);
    assert!(verdict.stderr.contains("no free local port"));
    assert!(verdict.stderr.contains("--sources"));
    // What helps does help.
    let words = "-c 10 -R 500 -d 1 --churn 200 --sources 20";
    let more = self::verdict(client(other.address, words));
    assert_eq!((more.code, more.count("client_failures")), (0, 0));
}

#[test]
fn fewer_ports_than_connections_is_no_measurement() {
    let settings = ["net.ipv4.ip_local_port_range=40000 40009"];
    if !in_own_network("fewer_ports_than_connections_is_no_measurement", &settings) {
        return;
    }
    let server = Server::start(Habit::Echo);
    let output = client(server.address, "-q -c 30 -d 0.2").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(71), "{stderr}");
    assert!(stderr.contains("no free local port"), "{stderr}");
    assert!(stderr.contains("ip_local_port_range"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn want_of_descriptors_or_memory_later_is_the_clients_own_trouble() {
    let server = Server::start(Habit::Echo);
    for (fault, remedy) in [
        ("socket:error=EMFILE:when=3+", "ulimit -n"),
        ("socket:error=ENFILE:when=3+", "fs.file-max"),
        ("socket:error=ENOBUFS:when=3+", "tcp_mem"),
        ("connect:error=ENOMEM:when=3+", "tcp_mem"),
        ("connect:error=EPERM:when=3+", "packet filter"),
        ("epoll_ctl:error=ENOSPC:when=6+", "this machine"),
    ] {
        let words = "-c 2 -R 200 -d 0.3 --churn 50";
        let verdict = verdict(starved(server.address, words, fault));
        assert_own(&verdict);
        assert!(verdict.stderr.contains(remedy), "{fault}");
    }
}

#[test]
fn want_of_descriptors_or_memory_at_the_start_is_no_measurement() {
    let server = Server::start(Habit::Echo);
    for fault in [
        "socket:error=EMFILE:when=1+",
        "socket:error=ENFILE:when=2+",
        "connect:error=ENOBUFS:when=1+",
        "epoll_create1:error=EMFILE",
    ] {
        let output = starved(server.address, "-q -c 3 -d 0.2", fault).output();
        let output = output.expect("strace is installed (tools/setup)");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(71), "{fault}: {stderr}");
        assert!(!stderr.contains("nobody answers"), "{fault}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{fault}: {stderr}");
    }
}

#[test]
fn write_and_read_that_this_machine_has_no_memory_for_are_repeated() {
    let server = Server::start(Habit::Echo);
    for fault in [
        "sendto:error=ENOBUFS:when=5..9",
        "sendto:error=ENOMEM:when=5",
        "recvfrom:error=ENOMEM:when=5..9",
    ] {
        let verdict = verdict(starved(server.address, "-c 2 -R 200 -d 0.3", fault));
        assert_own(&verdict);
        let answered = (verdict.count("received"), verdict.count("resets"));
        assert_eq!(answered, (verdict.count("sent"), 0), "{fault}");
    }
}
