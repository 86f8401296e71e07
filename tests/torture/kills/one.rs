//! One run: a service, its clients, a takeover, a kill, and what must have come of it.
//!
//! Whoever is left has accepted each connection and echoed each message *once*, by its own
//! counters, which travel with a takeover: had two processes served for a moment, the
//! survivor's would lack what the other one did. A client by itself may not see that, as each
//! of its messages is read by one of them only.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::outcome::{Outcome, Owner, Phase};
use super::{Plan, Victim};
use crate::support::{BOUND, Kind, Log, PATIENT, Peers, Server, Stage};

/// Clients that stay. The last to connect talk: by their first answer all are accepted.
const STEADY: [(Kind, usize); 5] = [
    (Kind::Idle, 2),
    (Kind::Unread, 1),
    (Kind::HalfSent, 2),
    (Kind::Pipelining, 2),
    (Kind::Talking, 6),
];
/// Clients that come and go. One in the listener's backlog may outlive its owner.
const PASSING: [(Kind, usize); 2] = [(Kind::Churning, 2), (Kind::Resetting, 1)];
/// What [`Server::wait_exit`] says of a process that was killed.
const KILLED: i32 = 128 + libc::SIGKILL;
/// Exit codes of a taker that leaves: nobody there, not taken over, the donor died.
const LEFT: [i32; 3] = [69, 75, 1];
/// What a donor says that finds itself with none but new clients.
const ORPHANED: &str = "died right after it took over";
/// Lines of a log that are told of a failed run.
const LAST: usize = 12;

/// A service with clients that watch it.
struct Scene {
    stage: Stage,
    to: SocketAddr,
    donor: Server,
    steady: Peers,
    passing: Peers,
}

impl Scene {
    /// On an address of its own: nobody else takes the port while nobody serves.
    fn new(number: usize, seed: u64) -> Scene {
        let [.., b, c, d] = (number as u32).to_be_bytes();
        let address = SocketAddr::from(([127, 64 + b % 64, c, d], 0));
        let stage = Stage::new();
        let donor = cold_start(&stage, address);
        assert!(is_open(&donor), "it does not start");
        let to = donor.address();
        let steady = Peers::connect(to, seed, &STEADY);
        let passing = Peers::connect(to, !seed, &PASSING);
        steady.say(2);
        steady.echoes(4);
        passing.echoes(4);
        Scene {
            stage,
            to,
            donor,
            steady,
            passing,
        }
    }
}

/// The two processes, once everything was done to them.
struct Sides {
    donor: Server,
    taker: Server,
    /// The donor had left when the taker was killed.
    alone: bool,
}

/// How long a whole takeover takes: from the spawn of the taker to the exit of the donor.
pub(super) fn measure(number: usize, seed: u64) -> Duration {
    let mut scene = Scene::new(number, seed);
    let begun = Instant::now();
    let _taker = scene.stage.take_over(&PATIENT);
    let left = scene.donor.wait_exit_within(BOUND);
    let took = begun.elapsed();
    assert_eq!(left, Some(0), "nobody was killed");
    let verdict = scene.steady.finish().and(scene.passing.finish());
    verdict.assert_flawless();
    took
}

/// Plays one run. An error says what must not be, and shows the logs.
pub(super) fn play(plan: &Plan, whole: Duration) -> Result<Outcome, String> {
    let scene = Scene::new(plan.number, plan.seed);
    let (stage, donor, to) = (&scene.stage, scene.donor, scene.to);
    let mut sides = kill(stage, donor, plan, whole);
    let outcome = judge(&mut sides, plan, stage, to, [scene.steady, scene.passing]);
    outcome.map_err(|why| {
        let moment = |share: f64| whole.mul_f64(share).as_secs_f64() * 1e3;
        format!(
            "{why}\n  donor's moment {:.3} ms, taker's {:.3} ms{}{}",
            moment(plan.donor),
            moment(plan.taker),
            last_lines("donor", &sides.donor),
            last_lines("taker", &sides.taker),
        )
    })
}

/// Starts the taker and kills whom the plan says when it says so. A taker is there to be
/// killed once its spawn has returned.
fn kill(stage: &Stage, donor: Server, plan: &Plan, whole: Duration) -> Sides {
    let begun = Instant::now();
    let (taker, alone) = thread::scope(|scope| {
        if plan.victim != Victim::Taker {
            scope.spawn(|| {
                wait_until(begun + whole.mul_f64(plan.donor));
                donor.signal(Signal::SIGKILL);
            });
        }
        let taker = stage.take_over(&PATIENT);
        if plan.victim == Victim::Donor {
            return (taker, false);
        }
        wait_until(begun + whole.mul_f64(plan.taker));
        let alone = donor.has_exited();
        taker.signal(Signal::SIGKILL);
        (taker, alone)
    });
    Sides {
        donor,
        taker,
        alone,
    }
}

/// To some microseconds: epoll_wait(2) would round up to whole milliseconds.
fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC);
        let timer = timer.expect("a timerfd");
        let once = Expiration::OneShot(left.into());
        let set = timer.set(once, TimerSetTimeFlags::empty());
        set.and_then(|()| timer.wait()).expect("it is a timer");
    }
}

fn judge(
    sides: &mut Sides,
    plan: &Plan,
    stage: &Stage,
    to: SocketAddr,
    [steady, passing]: [Peers; 2],
) -> Result<Outcome, String> {
    let owner = sides.settle(plan.victim, to)?;
    let last = sides.go_on(owner, plan.further, stage, to)?;
    // By whoever has them now, if anybody has.
    steady.say(3);
    steady.echoes(4);
    passing.echoes(4);
    let (steady, passing) = (steady.finish(), passing.finish());
    let counters = match last {
        Some(mut last) => last.retire(),
        None if owner == Owner::Nobody => [0; 2],
        None => sides.one(owner).retire(),
    };

    // Their logs are complete now.
    let orphaned = owner == Owner::Donor && sides.donor.log().count(ORPHANED) > 0;
    let owner = if orphaned { Owner::Orphaned } else { owner };
    let phase = sides.phase();
    check(steady.wrong + passing.wrong == 0, || {
        format!("wrong bytes; {steady}; {passing}")
    })?;
    let all = STEADY.iter().map(|(_, count)| *count as u64).sum();
    let lives = matches!(owner, Owner::Donor | Owner::Taker);
    check(steady.faults == if lives { 0 } else { all }, || {
        format!("served by {} in the end: {steady}", owner.name())
    })?;
    if lives {
        check(passing.faults == 0, || passing.to_string())?;
        // One more connection with one message was our own.
        let seen = steady.clone().and(passing).counted().map(|count| count + 1);
        check(counters == seen, || {
            format!("connections and messages: {counters:?} by the owner, {seen:?} by its clients")
        })?;
    }
    let could_claim = phase == Phase::AfterEnd && plan.victim == Victim::Donor;
    check(!could_claim || owner == Owner::Taker, || {
        "the taker had END and did not claim".into()
    })?;
    Ok(Outcome {
        phase,
        owner,
        fine: all - steady.faults,
        lost: steady.faults,
    })
}

impl Sides {
    /// Waits until it is decided who serves, and for the end of whoever does not. A new client
    /// was answered if somebody does.
    fn settle(&mut self, victim: Victim, to: SocketAddr) -> Result<Owner, String> {
        if victim != Victim::Taker {
            let code = self.donor.wait_exit();
            check([KILLED, 0].contains(&code), || {
                format!("the donor exits {code}")
            })?;
            self.alone |= victim == Victim::Donor && code == 0;
        }
        if victim != Victim::Donor {
            let code = self.taker.wait_exit();
            let fits = code == KILLED || (victim == Victim::Both && LEFT.contains(&code));
            check(fits, || format!("the taker exits {code}"))?;
        }
        let owner = match victim {
            Victim::Both => Owner::Nobody,
            Victim::Donor if self.taker.serves() => Owner::Taker,
            Victim::Donor => {
                let (donor, taker) = (self.donor.wait_exit(), self.taker.wait_exit());
                check(donor == KILLED && LEFT.contains(&taker), || {
                    format!("the donor exits {donor}, the taker {taker}")
                })?;
                Owner::Nobody
            }
            Victim::Taker if answers(to) => return Ok(Owner::Donor),
            Victim::Taker => {
                let code = self.donor.wait_exit();
                check(code == 0, || format!("the donor exits {code}"))?;
                Owner::Nobody
            }
        };
        let served = answers(to);
        check(served == (owner == Owner::Taker), || {
            format!(
                "{} serves, and a new client is answered: {served}",
                owner.name()
            )
        })?;
        Ok(owner)
    }

    fn one(&mut self, owner: Owner) -> &mut Server {
        match owner {
            Owner::Taker => &mut self.taker,
            Owner::Donor | Owner::Orphaned | Owner::Nobody => &mut self.donor,
        }
    }

    /// One more takeover if that is wanted: whoever serves then. Where nobody serves it is a
    /// cold start, which ends here.
    fn go_on(
        &mut self,
        owner: Owner,
        wanted: bool,
        stage: &Stage,
        to: SocketAddr,
    ) -> Result<Option<Server>, String> {
        if !wanted {
            return Ok(None);
        }
        if owner == Owner::Nobody {
            let mut again = cold_start(stage, to);
            let serves = is_open(&again) && answers(to);
            check(serves, || {
                format!("no cold start{}", last_lines("it", &again))
            })?;
            again.retire();
            return Ok(None);
        }
        let next = take_over(stage)?;
        let code = self.one(owner).wait_exit();
        check(code == 0, || format!("a later donor exits {code}"))?;
        Ok(Some(next))
    }

    /// See [`Phase`].
    fn phase(&mut self) -> Phase {
        let (code, pid) = (self.donor.wait_exit(), self.taker.pid());
        let (donor, taker) = (self.donor.log(), self.taker.log());
        let line = |log: &Log, part: &str| log.wait(part, 1, Duration::ZERO);
        let told = line(donor, "takeover failed").or_else(|| line(taker, "the attempt:"));
        if self.alone && code == 0 {
            Phase::AfterTheEnd
        } else if donor.count(&format!("items to pid {pid}:")) + donor.count(ORPHANED) > 0 {
            Phase::AfterClaim
        } else if taker.count("Serving on ") > 0 {
            Phase::AfterEnd
        } else if let Some(line) = told {
            Phase::of(&line)
        } else if donor.count(&format!("Takeover channel (pid {pid})")) > 0 {
            Phase::AfterWelcome
        } else {
            Phase::BeforeWelcome
        }
    }
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Whether a new client gets its answer; not if nobody is there, or leaves before it answers.
fn answers(to: SocketAddr) -> bool {
    let talk = || -> io::Result<bool> {
        let mut client = TcpStream::connect(to)?;
        client.set_read_timeout(Some(BOUND))?;
        client.write_all(b"here")?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer)?;
        Ok(&answer == b"here")
    };
    talk().unwrap_or(false)
}

fn cold_start(stage: &Stage, at: SocketAddr) -> Server {
    let (address, port) = (at.ip().to_string(), at.port().to_string());
    let mut args = ["-G", "-a", &address, "-p", &port, "-t"]
        .map(OsString::from)
        .to_vec();
    args.push(stage.path().into());
    args.extend(PATIENT.map(OsString::from));
    Server::start(&args)
}

/// Whether it serves and can be taken over; not if it has given up.
fn is_open(server: &Server) -> bool {
    let line = server.log().wait("Starting Takeover channel on", 1, BOUND);
    line.is_some()
}

/// A successor that serves. Exit code 75 means that a retry is safe: the donor may not have
/// heard yet that the taker before it is dead.
fn take_over(stage: &Stage) -> Result<Server, String> {
    let begun = Instant::now();
    loop {
        let mut next = stage.take_over(&PATIENT);
        if next.serves() {
            return Ok(next);
        }
        let code = next.wait_exit();
        check(code == 75 && begun.elapsed() < BOUND, || {
            format!(
                "no further takeover: exit code {code}{}",
                last_lines("it", &next)
            )
        })?;
    }
}

/// The end of a log, for a report.
fn last_lines(name: &str, server: &Server) -> String {
    let lines = server.log().lines();
    let mut text = format!("\n  {name}, pid {}:", server.pid());
    for line in &lines[lines.len().saturating_sub(LAST)..] {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}
