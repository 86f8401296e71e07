//! Donor and taker in places where a takeover would not be what it seems: process 1 of a pid
//! namespace, another network namespace, a kernel that is too old.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use as_kernel::{Version, act};

use crate::support::apart::{Program, is_root, played, test_name};
use crate::support::{Client, Kind, Peers, Server, Stage, seed};

const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");

/// Runs the service by way of another program.
fn by(program: &str, words: &[&str], args: &[&str]) -> Server {
    Server::spawn(Command::new(program).args(words).arg(BINARY).args(args))
}

#[test]
fn donor_that_is_process_1_refuses_and_serves_on() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let apart = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let start = ["-G", "-a", "127.0.0.1", "-p", "0", "-t", path];
    let donor = by("unshare", &apart, &start);
    donor.wait_line("as process 1 of this pid namespace");
    donor.wait_line("Starting Takeover channel on");
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Talking, 5)]);
    peers.echoes(4);
    let children = format!("/proc/{0}/task/{0}/children", donor.pid());
    let first = fs::read_to_string(children).unwrap();
    let inside = ["--pid", "--mount", "--target", first.trim()];
    let mut taker = by("nsenter", &inside, &["-G", "-T", path]);
    assert_eq!(taker.wait_exit(), 75);
    let reason = taker.wait_line("not taken over");
    assert!(
        reason.contains("process 1") && reason.contains("init"),
        "{reason}"
    );
    peers.echoes(4);
    peers.finish().assert_flawless();
    Client::connect(donor.address()).talk();
}

#[test]
fn taker_in_another_network_is_refused_unless_any_will_do() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let mut donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Talking, 5)]);
    peers.echoes(4);
    let mut taker = by("unshare", &["--net"], &["-G", "-T", path]);
    assert_eq!(taker.wait_exit(), 75);
    let reason = taker.wait_line("not taken over");
    assert!(reason.contains("network namespace"), "{reason}");
    assert!(reason.contains("--any-netns"), "{reason}");
    peers.echoes(4);
    let taker = by("unshare", &["--net"], &["-G", "-T", path, "--any-netns"]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    peers.echoes(4);
    peers.finish().assert_flawless();
    Client::connect(donor.address()).talk();
}

/// The other process's part in a test.
#[test]
fn part() {
    let Some((part, path)) = played() else {
        return;
    };
    let version = Version::parse(&part).unwrap();
    act(version).unwrap();
    let mut service = Command::new(BINARY);
    service.args(["-G", "-a", "127.0.0.1", "-p", "0", "-t"]);
    panic!("{}", service.arg(path).exec());
}

#[test]
fn kernel_that_cannot_identify_anybody_is_told_at_the_start() {
    let stage = Stage::new();
    let program = Program::this();
    let start = |version| {
        Server::spawn(&mut program.part(&[], &test_name!("part"), version, &stage.path()))
    };
    let mut donor = start("5.2");
    donor.wait_line("needs Linux 5.3 or later");
    assert_eq!(donor.wait_exit(), 1);
    assert!(!stage.path().exists());
    start("5.3").wait_line("Starting Takeover channel on");
}
