//! System calls that fail, and processes that stop or die, at one exact call of one side.
//!
//! strace(1) injects them: an error in place of the call, or a signal with it. A SIGSTOP takes
//! effect right after the call, a SIGKILL in place of it. Which call is the one follows from
//! the order of records, one sendmsg(2) each, with few items:
//!
//! | | 1 | 2 | 3 | 4 | 5 | 6 |
//! |---|---|---|---|---|---|---|
//! | donor | WELCOME | ITEMS | STATE | PREPARE | STATE | END |
//! | taker | HELLO | ACK | DRAINED | ACTIVE | | |
//!
//! What is asked for each time: who owns serves on, the other one leaves with the right exit
//! code, nothing leaks, and the next takeover succeeds.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::apart::test_name;
use crate::support::{BOUND, Fault, Server, Stage, wait_readable};
use nix::sys::signal::Signal;
use socket_takeover::proto::records::{Hello, Record, encode};
use socket_takeover::proto::wire::{MAX_VERSION, MIN_VERSION, patch_sequence};
use socket_takeover::takeover::TakeoverPath;
use socket_takeover::takeover::internal::channel::{Channel, Got, Sent};
use socket_takeover::takeover::internal::path;

fn serve_with(stage: &Stage, fault: &str, more: &[&str]) -> Server {
    let path = stage.path();
    let mut args = vec!["-G", "-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)];
    args.extend(more);
    let server = Server::start_with(fault, &args);
    server.wait_line("Starting Takeover channel on");
    server
}

fn take_over_with(stage: &Stage, fault: &str, more: &[&str]) -> Server {
    let path = stage.path();
    let mut args = vec!["-G", "-T", utf8(&path)];
    args.extend(more);
    Server::start_with(fault, &args)
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

/// A client that notices everything.
struct Client(TcpStream, u32);

impl Client {
    fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("somebody listens");
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut client = Client(stream, 0);
        client.echo();
        client
    }

    /// One message there and back.
    #[track_caller]
    fn echo(&mut self) {
        self.1 += 1;
        let message = self.1.to_be_bytes();
        self.0.write_all(&message).expect("connected");
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, message);
    }
}

/// A caller at PATH that is played by the test.
fn call(stage: &Stage) -> Channel {
    let path = TakeoverPath::new(stage.path()).unwrap();
    path::connect(&path).expect("a donor").0
}

fn hello() -> Vec<u8> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let mut record = Vec::new();
    let hello = Hello {
        min: MIN_VERSION,
        max: MAX_VERSION,
        features: 0,
        free_slots: 1000,
        now_ns: Duration::from(now).as_nanos() as u64,
        pid: std::process::id(),
        newest_state: None,
        network: None,
    };
    encode(&Record::Hello(hello), false, &mut record).unwrap();
    record
}

/// Reads until the donor hangs up; false if it does not within `bound`.
fn hangs_up(channel: &mut Channel, bound: Duration) -> bool {
    let end = Instant::now() + bound;
    loop {
        match channel.recv(&mut [0; 1 << 16], &mut Vec::new()) {
            Got::Record(_) => {}
            Got::Empty => {
                let left = end.saturating_duration_since(Instant::now());
                if !wait_readable(channel.as_fd(), left).unwrap() {
                    return false;
                }
            }
            Got::End | Got::Broken(_) => return true,
        }
    }
}

/// Until it has these descriptors and no others.
#[track_caller]
fn await_fds(server: &Server, expected: &[(i32, String)]) {
    let end = Instant::now() + BOUND;
    while server.fds() != expected {
        assert!(Instant::now() < end, "{:?}\n{expected:?}", server.fds());
        thread::yield_now();
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[test]
fn stopped_after_end_and_woken_when_its_taker_has_handed_over_leaves() {
    let stage = Stage::new();
    let mut first = serve_with(&stage, "sendmsg:signal=SIGSTOP:when=6", &[]);
    let mut client = Client::connect(first.address());
    let mut second = stage.take_over(&[]);
    second.wait_line("Serving on ");
    client.echo();
    let third = stage.replace(&mut second, &[]);
    client.echo();
    // Its taker is dead by now, and yet was no orphan's: another one owns.
    first.go_on();
    assert_eq!(first.wait_exit(), 0);
    client.echo();
    Client::connect(third.address());
}

#[test]
fn claimed_and_died_before_it_had_path_keeps_the_donor_offering() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let address = donor.address();
    let _lost = Client::connect(address);
    let mut taker = take_over_with(&stage, "sendmsg:signal=SIGKILL:when=4", &[]);
    assert_eq!(taker.wait_exit(), 128 + 9);
    donor.wait_line("died right after it took over");
    let mut client = Client::connect(address);
    let _next = stage.replace(&mut donor, &[]);
    client.echo();
    assert_eq!(donor.log().count("no further takeover"), 0);
}

#[test]
fn failed_taker_leaves_the_donors_pid_file() {
    let stage = Stage::new();
    let file = stage.file("pid");
    let mut donor = stage.serve(&["-P", utf8(&file)]);
    let mut client = Client::connect(donor.address());
    donor.wait_accepted(1);
    let before = donor.fds();
    let mut taker = take_over_with(&stage, "sendmsg:error=EIO:when=3", &["-P", utf8(&file)]);
    assert_eq!(taker.wait_exit(), 75);
    donor.wait_line("takeover failed, we serve on");
    assert_eq!(pid_in(&file), Some(donor.pid()));
    client.echo();
    await_fds(&donor, &before);
    let next = stage.replace(&mut donor, &["-P", utf8(&file)]);
    assert_eq!(pid_in(&file), Some(next.pid()));
}

#[test]
fn taker_with_another_pid_file_moves_there() {
    let stage = Stage::new();
    let (old, new) = (stage.file("old.pid"), stage.file("new.pid"));
    let mut donor = stage.serve(&["-P", utf8(&old)]);
    let mut taker = stage.replace(&mut donor, &["-P", utf8(&new)]);
    assert_eq!(pid_in(&new), Some(taker.pid()));
    assert!(!old.exists());
    let last = stage.replace(&mut taker, &[]);
    assert_eq!(pid_in(&new), Some(last.pid()));
}

#[test]
fn stops_while_a_hung_taker_holds_copies_leaves_no_listener() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let address = donor.address();
    let mut client = Client::connect(address);
    let taker = take_over_with(&stage, "sendmsg:signal=SIGSTOP:when=2", &[]);
    donor.wait_line("Current fd_array");
    client.echo();
    donor.signal(Signal::SIGTERM);
    assert_eq!(donor.wait_exit(), 0);
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "the end of the stream");
    TcpStream::connect(address).expect_err("nobody listens");
    drop(taker);
}

#[test]
fn caller_for_whom_no_descriptor_is_left_is_hung_up_on() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let before = donor.fds();
    for when in 1..=2 {
        let fault = format!("fcntl:error=EMFILE:when={when}");
        let _fault = Fault::of(&donor, &fault);
        assert!(
            hangs_up(&mut call(&stage), Duration::from_secs(10)),
            "{fault}"
        );
    }
    await_fds(&donor, &before);
    stage.replace(&mut donor, &[]);
}

#[test]
fn caller_that_cannot_be_accepted_at_once_is_accepted_later() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let _fault = Fault::of(&donor, "accept4:error=EMFILE:when=1..3");
    stage.replace(&mut donor, &[]);
}

#[test]
fn channel_that_cannot_be_read_ends_the_attempt_and_not_the_service() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut client = Client::connect(donor.address());
    let fault = Fault::of(&donor, "recvmsg:error=ENOMEM:when=2+");
    let mut taker = play(&stage, "flood");
    donor.wait_line("takeover failed");
    client.echo();
    // Its end cannot be read either, so it is killed like one that hangs.
    taker.wait().unwrap();
    drop(fault);
    await_idle(&stage);
    stage.replace(&mut donor, &[]);
}

/// Until the donor answers a caller with something else than BUSY.
fn await_idle(stage: &Stage) {
    let end = Instant::now() + BOUND;
    while Instant::now() < end {
        let mut channel = call(stage);
        assert_eq!(
            channel.send(&hello(), &[]).unwrap_or(Sent::Done),
            Sent::Done
        );
        wait_readable(channel.as_fd(), BOUND).unwrap();
        let mut buffer = [0; 1 << 16];
        let mut fds = Vec::new();
        if matches!(channel.recv(&mut buffer, &mut fds), Got::Record(_)) && !fds.is_empty() {
            return;
        }
        thread::yield_now();
    }
    panic!("the donor stays busy");
}

#[test]
fn taker_that_never_stops_talking_does_not_starve_the_peers() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut client = Client::connect(donor.address());
    let mut flood = play(&stage, "flood");
    donor.wait_line("takeover failed");
    for _ in 0..100 {
        client.echo();
    }
    // It is killed in the end, as it does not go away.
    flood.wait().unwrap();
    stage.replace(&mut donor, &[]);
}

#[test]
fn takers_own_deadlines_count_once_it_offers() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let taker = stage.replace(&mut donor, &["--deadline", "preload=100"]);
    let mut silent = play(&stage, "silent");
    let line = taker
        .log()
        .wait("did not answer in time", 1, Duration::from_secs(15));
    let _ = silent.kill();
    silent.wait().unwrap();
    line.expect("its own deadline, not its donor's");
}

/// Plays a caller in a process of its own: a donor kills one that does not go away.
fn play(stage: &Stage, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test_name!("part")])
        .env("TEST_PART", part)
        .env("TEST_PATH", stage.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The other process's part in a test.
#[test]
fn part() {
    let Ok(part) = std::env::var("TEST_PART") else {
        return;
    };
    let path = TakeoverPath::new(std::env::var_os("TEST_PATH").unwrap()).unwrap();
    let (mut channel, _) = path::connect(&path).expect("a donor");
    let mut record = hello();
    let _ = channel.send(&record, &[]).unwrap();
    if part == "silent" {
        hangs_up(&mut channel, BOUND);
    }
    for number in 1.. {
        patch_sequence(&mut record, number);
        if channel.send(&record, &[]).is_err() {
            return;
        }
    }
}

#[test]
fn peer_that_cannot_be_watched_is_ended_and_counted() {
    let stage = Stage::new();
    let path = stage.path();
    // Room for one peer beside the reserve.
    let args = ["-G", "-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)];
    let server = Server::start_limited(65, &args);
    let address = server.address();
    server.wait_line("Starting Takeover channel on");
    let client = Client::connect(address);
    let fault = Fault::of(&server, "epoll_ctl:error=ENOMEM:when=1");
    // It never reads, so that output has to wait and the interest changes.
    client.0.set_write_timeout(Some(BOUND)).unwrap();
    while (&client.0).write(&[0; 1 << 16]).is_ok() {}
    drop(fault);
    Client::connect(address);
}

#[test]
fn path_that_cannot_be_published_at_once_is_published_later() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut taker = take_over_with(&stage, "renameat,renameat2:error=ENOMEM:when=1..3", &[]);
    taker.wait_line("no further takeover is possible for now");
    assert_eq!(donor.wait_exit(), 0);
    taker.wait_line("takeovers are possible again");
    stage.replace(&mut taker, &[]);
}

#[test]
fn owner_whose_lock_cannot_be_released_serves_on() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut client = Client::connect(donor.address());
    let mut taker = take_over_with(&stage, "flock:error=ENOLCK:when=2", &[]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    client.echo();
    stage.replace(&mut taker, &[]);
}

#[test]
fn taker_that_cannot_call_its_donor_says_who_serves() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut client = Client::connect(donor.address());
    // Its channel cannot be watched; there is no memory for HELLO.
    for fault in [
        "epoll_ctl:error=ENOMEM:when=3",
        "sendmsg:error=ENOBUFS:when=1",
    ] {
        let mut taker = take_over_with(&stage, fault, &[]);
        assert_eq!(taker.wait_exit(), 75, "{fault}");
        taker.wait_line("the donor serves on");
        client.echo();
    }
    stage.replace(&mut donor, &[]);
}

/// The offer of the next takeover is listened to before anything is taken over: there is
/// nothing after the claim that could cost the one after.
#[test]
fn owner_for_whom_no_source_can_be_added_can_be_taken_over() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let client = Client::connect(donor.address());
    // The nested set, signals, offer, channel, listener, peer: with the seventh it owns.
    let mut taker = take_over_with(&stage, "epoll_ctl:error=ENOMEM:when=7", &[]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    drop(client);
    stage.replace(&mut taker, &[]);
}
