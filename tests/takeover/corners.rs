//! The corners of TCP in every state of a takeover, whether it succeeds or is rolled back: what
//! a client sees is what it would have seen without one.
//!
//! ```text
//!   guests: one in each corner, early ones have acted before the takeover begins
//!        │
//!   one process held at an exact record ── late ones act ──┬─ released: the taker owns
//!        │                                                 └─ the taker killed: the donor does
//!   every guest says more, gets all back once and in order, and ends as it should
//! ```
//!
//! Both sides compare positions with sockets (`--check-positions`) throughout; nothing may
//! differ. Descriptors tell that everybody who has gone was noticed.

use crate::support::corner::{Corner, Guest};
use crate::support::pinned::{MOMENTS, Pinned, Step, Steps};
use crate::support::{Client, Peers, Random, Scene, Server, Stage, seed};
use nix::sys::signal::Signal;
use socket_takeover::proto::records::Kind;

/// Positions are compared, and nobody is given up for being held.
const PATIENT: [&str; 7] = [
    "--check-positions",
    "--deadline",
    "preload=60000",
    "--deadline",
    "freeze=60000",
    "--deadline",
    "claim=60000",
];

/// It owns, and nobody knows.
const CLAIMED: (&str, Steps) = ("Active", &[(Step::Sending(Kind::Active), 1)]);

/// Where the donor can be held: nobody serves then.
const DONOR: [(&str, Steps); 10] = [
    ("AcceptChannel", &[(Step::Received(Kind::Hello), 1)]),
    ("Preload, WELCOME", &[(Step::Sent(Kind::Welcome), 1)]),
    ("Preload, items", &[(Step::Sent(Kind::Items), 1)]),
    ("Preload, first batch", &[(Step::Sent(Kind::State), 1)]),
    ("Preload, first ACK", &[(Step::Received(Kind::Ack), 1)]),
    ("HoldPeers, before", &[(Step::Sending(Kind::Prepare), 1)]),
    ("HoldPeers", &[(Step::Sent(Kind::Prepare), 1)]),
    ("Sweep", &[(Step::Received(Kind::Drained), 1)]),
    (
        "SendFdArray",
        &[
            (Step::Received(Kind::Drained), 1),
            (Step::Sending(Kind::State), 1),
        ],
    ),
    // The lease is granted, and nobody was told.
    ("Grant", &[(Step::Sending(Kind::End), 1)]),
];

/// The taker may have claimed already.
const GRANTED: (&str, Steps) = ("AwaitClaim", &[(Step::Sent(Kind::End), 1)]);

/// A donor, clients that watch it, and who comes besides.
struct Play {
    stage: Stage,
    /// Whoever serves; away while it is held.
    donor: Option<Server>,
    peers: Peers,
    speaker: Client,
    /// It waits for an answer.
    spoken: bool,
    /// Descriptors of whoever serves nobody but the watching clients.
    fds: usize,
    random: Random,
}

/// One guest in each corner, twice: those who have acted before, and those who are about to.
struct Guests {
    early: Vec<Guest>,
    late: Vec<Guest>,
}

impl Play {
    fn new() -> Play {
        let Scene {
            stage,
            mut donor,
            peers,
            ..
        } = Scene::new(&PATIENT);
        // A successor that nobody has disturbed: what each of them is to hold.
        donor = stage.replace(&mut donor, &PATIENT);
        peers.echoes(4);
        let mut speaker = Client::connect(donor.address());
        speaker.talk();
        let fds = donor.fds().len();
        Play {
            stage,
            donor: Some(donor),
            peers,
            speaker,
            spoken: false,
            fds,
            random: Random::new(seed()),
        }
    }

    fn donor(&mut self) -> &mut Server {
        self.donor.as_mut().expect("it is not held")
    }

    /// Lets a process come to where `steps` say. Behind the first of several somebody speaks, so
    /// that something has changed and the final array is not empty.
    fn walk(&mut self, held: &mut Pinned, steps: Steps) {
        for (at, (step, nth)) in steps.iter().enumerate() {
            if at == 1 {
                self.speaker.say();
            }
            held.run_to(*step, *nth);
        }
        self.spoken = steps.len() > 1;
    }

    /// Lets the donor come to where `steps` say, in a takeover by a taker that is free.
    fn hold_donor(&mut self, steps: Steps) -> (Pinned, Server) {
        let mut donor = Pinned::hold(self.donor.take().expect("it is not held"));
        let taker = self.stage.take_over(&PATIENT);
        self.walk(&mut donor, steps);
        (donor, taker)
    }

    fn guests(&mut self) -> Guests {
        let to = self.donor().address();
        let mut arrive = || -> Vec<Guest> {
            let corners = Corner::ALL.into_iter();
            let guests = corners.map(|corner| Guest::arrive(to, corner, self.random.bits()));
            guests.collect()
        };
        let (mut early, late) = (arrive(), arrive());
        early.iter_mut().for_each(Guest::act);
        early.iter_mut().for_each(Guest::await_answers);
        Guests { early, late }
    }

    /// The taker goes on, and owns.
    fn succeed(&mut self, name: &str, guests: Guests, taker: Server) {
        taker.wait_line("Serving on ");
        assert_eq!(self.donor().wait_exit(), 0, "{name}");
        let sent = self.donor().wait_line("positions of what was sent: ");
        assert!(sent.ends_with(" 0 differ"), "{name}: {sent}");
        let taken = taker.wait_line("positions of what was taken over: ");
        assert!(taken.ends_with(" 0 differ"), "{name}: {taken}");
        assert!(agree(&taken) >= Scene::PEERS as f64, "{name}: {taken}");
        self.donor = Some(taker);
        self.served(name, "taken over", guests, &taken);
    }

    /// The taker is dead, and the donor goes on.
    fn roll_back(&mut self, name: &str, guests: Guests, nth: usize) {
        let failed = self
            .donor()
            .wait_nth_line("takeover failed, we serve on", nth);
        assert!(!failed.contains("the state says"), "{name}: {failed}");
        let sent = self
            .donor()
            .wait_nth_line("positions of what was sent: ", nth);
        assert!(sent.ends_with(" 0 differ"), "{name}: {sent}");
        self.served(name, "rolled back", guests, &sent);
    }

    /// Everybody gets what he would have got in any case, and who has gone was noticed.
    fn served(&mut self, name: &str, outcome: &str, guests: Guests, positions: &str) {
        let Guests { early, late } = guests;
        let bytes: u64 = early.into_iter().chain(late).map(Guest::leave).sum();
        let held = self.fds;
        self.donor().wait_fds(|fds| fds.len() == held);
        self.peers.echoes(4);
        if self.spoken {
            self.speaker.hear();
        }
        let positions = positions.split("positions").nth(1).unwrap_or_default();
        println!("{name:<24} {outcome:<12} {bytes:>9} bytes; positions{positions}");
    }

    fn end(mut self) {
        let donor = self.donor.as_mut().expect("it is not held");
        let mut next = self.stage.replace(donor, &PATIENT);
        self.peers.echoes(4);
        self.peers.finish().assert_flawless();
        assert!(next.is_running());
    }
}

fn agree(line: &str) -> f64 {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| word.starts_with("agree"));
    let number = at.and_then(|at| words[at - 1].parse().ok());
    number.unwrap_or_else(|| panic!("no figures in {line:?}"))
}

#[test]
fn any_state_corners_and_taker_goes_on() {
    let mut play = Play::new();
    for (name, steps) in MOMENTS.into_iter().chain([CLAIMED]) {
        let mut guests = play.guests();
        let mut taker = Pinned::take_over(&play.stage.path(), &PATIENT);
        play.walk(&mut taker, steps);
        guests.late.iter_mut().for_each(Guest::act);
        play.succeed(name, guests, taker.release());
    }
    play.end();
}

#[test]
fn any_state_corners_and_taker_is_killed() {
    let mut play = Play::new();
    for (nth, (name, steps)) in MOMENTS.into_iter().enumerate() {
        let mut guests = play.guests();
        let mut taker = Pinned::take_over(&play.stage.path(), &PATIENT);
        play.walk(&mut taker, steps);
        guests.late.iter_mut().for_each(Guest::act);
        taker.kill().wait_exit();
        play.roll_back(name, guests, nth + 1);
    }
    play.end();
}

#[test]
fn any_state_corners_and_donor_goes_on() {
    let mut play = Play::new();
    for (name, steps) in DONOR.into_iter().chain([GRANTED]) {
        let mut guests = play.guests();
        let (donor, taker) = play.hold_donor(steps);
        guests.late.iter_mut().for_each(Guest::act);
        play.donor = Some(donor.release());
        play.succeed(name, guests, taker);
    }
    play.end();
}

#[test]
fn any_state_corners_and_donor_finds_the_taker_dead() {
    let mut play = Play::new();
    for (nth, (name, steps)) in DONOR.into_iter().enumerate() {
        let mut guests = play.guests();
        let (donor, mut taker) = play.hold_donor(steps);
        guests.late.iter_mut().for_each(Guest::act);
        taker.signal(Signal::SIGKILL);
        taker.wait_exit();
        play.donor = Some(donor.release());
        play.roll_back(name, guests, nth + 1);
    }
    play.end();
}
