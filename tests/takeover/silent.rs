//! A new owner that says nothing after its claim: it is asleep, it dies slowly, it comes back.
//! Silence decides nothing. The donor waits, held and complete, for ACTIVE or for a death that
//! both the channel and the pidfd tell.

use crate::support::{Client, Kind, PATIENT, Peers, Server, Stage, seed};
use nix::sys::signal::Signal;

/// Long enough for a claim on a busy machine; it passes once the taker is silent.
const DEADLINES: [&str; 4] = ["--deadline", "end=5000", "--deadline", "claim=1000"];
const KINDS: [(Kind, usize); 3] = [(Kind::Talking, 5), (Kind::HalfSent, 2), (Kind::Idle, 2)];

/// A donor with clients, and a taker that has stopped in a state of its.
fn stopped_at(stage: &Stage, state: &str) -> (Server, Peers, Server) {
    let donor = stage.serve(&DEADLINES);
    let peers = Peers::connect(donor.address(), seed(), &KINDS);
    peers.echoes(4);
    let taker = stage.take_over_failing(&format!("taker.{state}.before:stop"), &[]);
    taker.wait_stopped();
    (donor, peers, taker)
}

#[test]
fn owner_silent_past_every_deadline_is_waited_for_and_nobody_notices() {
    let stage = Stage::new();
    let (mut donor, peers, taker) = stopped_at(&stage, "active");
    donor.wait_line("held since");
    assert!(
        donor.is_running(),
        "it has the copies of all that may be lost"
    );
    taker.go_on();
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    donor.wait_line("released");
    peers.echoes(4);
    peers.finish().assert_flawless();
}

#[test]
fn owner_that_dies_later_than_every_deadline_leaves_its_donor_serving() {
    let stage = Stage::new();
    let (mut donor, peers, taker) = stopped_at(&stage, "active");
    donor.wait_line("held since");
    taker.signal(Signal::SIGKILL);
    donor.wait_line("died right after it took over");
    peers.may_end();
    let mut client = Client::connect(donor.address());
    client.talk();
    let _ = peers.farewell();
    let next = stage.replace(&mut donor, &[]);
    client.talk();
    drop(next);
}

/// While the kernel writes its core a process closes nothing and cannot be seen to be dead.
#[test]
fn owner_that_dumps_its_core_leaves_its_donor_serving() {
    let stage = Stage::new();
    let (donor, peers, taker) = stopped_at(&stage, "active");
    donor.wait_line("held since");
    taker.signal(Signal::SIGABRT);
    taker.go_on();
    donor.wait_line("died right after it took over");
    peers.may_end();
    Client::connect(donor.address()).talk();
    let _ = peers.farewell();
}

/// An operator who serialises upgrades with flock(1) on the very lock that publishing needs.
#[test]
fn lock_on_path_held_by_somebody_is_refused_before_anybody_is_held() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let peers = Peers::connect(donor.address(), seed(), &KINDS);
    peers.echoes(4);
    let file = std::fs::File::open(stage.file("takeover.lock")).unwrap();
    file.lock().unwrap();
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 75);
    let reason = donor.wait_line("takeover failed, we serve on");
    let holder = format!("is locked by pid {} ", std::process::id());
    assert!(reason.contains(&holder), "{reason}");
    assert!(!reason.contains("freeze_ms"), "nobody was held: {reason}");
    drop(file);
    let next = stage.replace(&mut donor, &[]);
    peers.echoes(4);
    peers.finish().assert_flawless();
    drop(next);
}

#[test]
fn term_to_a_held_donor_stops_the_owner_when_it_wakes() {
    let stage = Stage::new();
    let (mut donor, peers, mut taker) = stopped_at(&stage, "active");
    donor.wait_line("held since");
    donor.signal(Signal::SIGTERM);
    donor.wait_line("stopping");
    assert!(donor.is_running(), "until the owner has said ACTIVE");
    peers.may_end();
    taker.go_on();
    assert_eq!(taker.wait_exit(), 0);
    assert_eq!(donor.wait_exit(), 0);
    let _ = peers.farewell();
    assert_eq!(stage.take_over(&[]).wait_exit(), 69, "nobody serves");
}

#[test]
fn second_term_to_a_held_donor_leaves_the_rest_to_the_owner() {
    let stage = Stage::new();
    let (mut donor, peers, mut taker) = stopped_at(&stage, "active");
    donor.wait_line("held since");
    donor.signal(Signal::SIGTERM);
    donor.wait_line("stopping");
    donor.signal(Signal::SIGTERM);
    assert_eq!(donor.wait_exit(), 0);
    peers.may_end();
    taker.go_on();
    assert_eq!(taker.wait_exit(), 0, "it was told to stop, too");
    let _ = peers.farewell();
}

#[test]
fn second_term_before_the_claim_revokes_and_the_service_stays_stopped() {
    let stage = Stage::new();
    let pid_file = stage.file("pid");
    // It must not be a deadline that revokes.
    let args = [&PATIENT[..], &["-P", pid_file.to_str().unwrap()]].concat();
    let mut donor = stage.serve(&args);
    let peers = Peers::connect(donor.address(), seed(), &KINDS);
    peers.echoes(4);
    let mut taker = stage.take_over_failing("taker.validate.before:stop", &[]);
    taker.wait_stopped();
    donor.signal(Signal::SIGTERM);
    donor.wait_line("stopping");
    peers.may_end();
    donor.signal(Signal::SIGTERM);
    assert_eq!(donor.wait_exit(), 0);
    // The peers heard of the end, though the sleeper has copies of their sockets.
    let _ = peers.farewell();
    assert!(!pid_file.exists());
    taker.go_on();
    assert_ne!(taker.wait_exit(), 0, "it owns nothing");
    let fresh = stage.serve(&[]);
    Client::connect(fresh.address()).talk();
}

/// Its donor has stopped behind PREPARE: a taker that has not asked does not know who serves.
#[test]
fn stopped_donor_is_not_said_to_serve_on() {
    let stage = Stage::new();
    let path = stage.path();
    let mut args = vec!["-G", "-a", "127.0.0.1", "-p", "0", "-t"];
    args.push(path.to_str().unwrap());
    args.extend(["--deadline", "freeze=100", "--deadline", "end=100"]);
    let donor = Server::start_failing("donor.hold-peers.after:stop", &args);
    donor.wait_line("Starting Takeover channel on");
    let mut taker = stage.take_over(&[]);
    donor.wait_stopped();
    assert_eq!(taker.wait_exit(), 75);
    let line = taker.wait_line("not taken over");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    assert!(
        line.contains("it is stopped") && line.contains("is not known"),
        "{line}"
    );
    donor.go_on();
    Client::connect(donor.address()).talk();
}
