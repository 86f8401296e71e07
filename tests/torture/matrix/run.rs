//! One cell with real processes: a donor with clients, a taker, the fault; then what came of
//! it is compared with the table.

use std::fmt;

use nix::sys::signal::Signal;
use socket_takeover::proto::records::{Active, Record};
use socket_takeover::takeover::internal::lease::Verdict;

use super::cell::{Action, Cell};
use super::table::{Clients, End, Outcome, Owner, Scene, Side};
use crate::support::side::FakeTaker;
use crate::support::{BOUND, Client, Kind, Peers, Server, Stage};

/// The clients of every cell: few, of each kind that has a state of its own.
const CLIENTS: [(Kind, usize); 4] = [
    (Kind::Talking, 6),
    (Kind::Pipelining, 2),
    (Kind::HalfSent, 2),
    (Kind::Idle, 2),
];
/// In one run of so many there is also one that does not read: to fill the buffers of both ends
/// takes longer than all the rest.
const UNREAD: u64 = 3;

/// How many descriptors there are of each kind.
type Shape = Vec<(String, usize)>;

struct Run<'a> {
    cell: &'a Cell,
    stage: Stage,
    donor: Server,
    peers: Peers,
    /// The donor's descriptors without clients, and with them.
    bare: Shape,
    full: Vec<(i32, String)>,
}

/// Runs the cell until its state was met: what came of it and in which try, or what is not as
/// the table says.
pub(super) fn run(cell: &Cell, seed: u64) -> Result<(Outcome, usize), String> {
    /// A state that lasts for less than a millisecond may be missed by a process that has to
    /// wait for its CPU.
    const TRIES: usize = 50;
    for tries in 1..=TRIES {
        let run = Run::new(cell, seed);
        let met = match cell.row.scene {
            Scene::Declined => run.drain()?,
            _ => run.takeover()?,
        };
        if let Some(outcome) = met {
            return Ok((outcome, tries));
        }
    }
    Err(format!("the state was not met in {TRIES} tries"))
}

impl<'a> Run<'a> {
    fn new(cell: &'a Cell, seed: u64) -> Run<'a> {
        let stage = Stage::new();
        let mut args = vec!["-G".into(), "-a".into(), "127.0.0.1".into()];
        args.extend(["-p".into(), "0".into(), "-t".into()]);
        args.push(stage.path().to_str().expect("it is UTF-8").to_owned());
        args.extend(cell.deadlines());
        let donor = start(args, failpoint(cell, Side::Donor));
        donor.wait_line("Starting Takeover channel on");
        let bare = shape(&donor);
        let peers = Peers::connect(donor.address(), seed, &CLIENTS);
        peers.say(2);
        if seed.is_multiple_of(UNREAD) {
            peers.add(Kind::Unread, 1);
            peers.fill();
        }
        peers.echoes(4);
        let full = donor.fds();
        Run {
            cell,
            stage,
            donor,
            peers,
            bare,
            full,
        }
    }

    /// `None` if the victim was never in that state.
    fn takeover(mut self) -> Result<Option<Outcome>, String> {
        let path = self.stage.path().to_str().expect("it is UTF-8").to_owned();
        let mut args = vec!["-G".into(), "-T".into(), path];
        args.extend(self.cell.deadlines());
        let mut taker = start(args, failpoint(self.cell, Side::Taker));
        if self.cell.row.scene == Scene::DonorSleeps {
            self.donor.wait_stopped();
            taker.signal(Signal::SIGTERM);
        }
        if !self.is_met(&taker) {
            return Ok(None);
        }
        let expected = self.expected(&mut taker);
        self.fault(&mut taker, expected)?;
        ended(&mut self.donor, "donor", expected.donor)?;
        ended(&mut taker, "taker", expected.taker)?;
        self.judge(taker, expected)?;
        Ok(Some(expected))
    }

    /// The outcome that the table has; where it has two, the one that the taker's exit code
    /// tells.
    fn expected(&self, taker: &mut Server) -> Outcome {
        match self.cell.or() {
            Some(or) if or.taker == End::Exit(taker.wait_exit()) => or,
            _ => self.cell.expected(),
        }
    }

    /// Waits until the victim has met its failpoint.
    fn is_met(&self, taker: &Server) -> bool {
        let victim = match self.cell.row.side {
            Side::Donor => &self.donor,
            Side::Taker => taker,
        };
        let met = format!("failpoint {}", self.cell.failpoint());
        let line = match self.cell.row.scene {
            // Its death may be seen before its silence is.
            Scene::OwnerPanics => victim.log().wait_any(&[&met, "Peers are lost"], BOUND),
            _ => victim.log().wait(&met, 1, BOUND),
        };
        line.is_some_and(|line| line == met)
    }

    /// Sees the fault through: who sleeps wakes up when the other side has decided.
    fn fault(&mut self, taker: &mut Server, expected: Outcome) -> Result<(), String> {
        match (self.cell.action, self.cell.row.side) {
            (Action::Stop, Side::Donor) => {
                self.donor.wait_stopped();
                self.wake_helper(taker);
                match expected.taker {
                    End::Serves => {
                        taker.wait_line("Serving on ");
                        self.peers.echoes(4);
                    }
                    end => ended(taker, "taker", end)?,
                }
                self.donor.go_on();
            }
            (Action::Stop, Side::Taker) => {
                taker.wait_stopped();
                self.wake_helper(taker);
                match expected.donor {
                    End::Serves => {
                        self.donor.wait_line("takeover failed, we serve on");
                        self.peers.echoes(4);
                    }
                    // It holds what the sleeper owns, and waits for it.
                    End::Exit(0) => drop(self.donor.wait_line("held since")),
                    end => ended(&mut self.donor, "donor", end)?,
                }
                taker.go_on();
            }
            (Action::Kill | Action::Panic | Action::Exit | Action::Term, side) => {
                // The donor waits for a sleeping owner, whatever comes.
                if self.cell.row.scene == Scene::OwnerSleeps {
                    self.wake_helper(taker);
                }
                match side {
                    Side::Donor if expected.donor != End::Serves => {
                        ended(&mut self.donor, "donor", expected.donor)?;
                    }
                    Side::Taker if expected.taker != End::Serves => {
                        ended(taker, "taker", expected.taker)?;
                    }
                    Side::Donor | Side::Taker => {}
                }
                if self.cell.row.scene != Scene::OwnerSleeps {
                    self.wake_helper(taker);
                }
            }
        }
        Ok(())
    }

    fn wake_helper(&self, taker: &Server) {
        match self.cell.row.scene {
            Scene::TakerSleeps | Scene::TakerSleepsLate | Scene::OwnerSleeps => {
                taker.wait_stopped();
                taker.go_on();
            }
            Scene::DonorSleeps => self.donor.go_on(),
            Scene::Plain | Scene::TakerKilled | Scene::OwnerPanics | Scene::Declined => {}
        }
    }

    /// The clients, the owner's descriptors, and the next takeover.
    fn judge(mut self, mut taker: Server, expected: Outcome) -> Result<(), String> {
        let owner = match expected.owner {
            Owner::Donor => &mut self.donor,
            Owner::Taker => &mut taker,
            Owner::Nobody => return nobody(&self.stage, self.peers),
        };
        if expected.clients == Clients::Flawless {
            if expected.owner == Owner::Taker {
                owner.wait_line("Serving on ");
            }
            self.peers.echoes(4);
            match expected.owner {
                Owner::Taker => owner.wait_fds(|fds| shape_of(fds) == shape_of(&self.full)),
                Owner::Donor | Owner::Nobody => owner.wait_fds(|fds| fds == self.full),
            }
            let next = self.stage.replace(owner, &[]);
            self.peers.echoes(4);
            let verdict = self.peers.finish();
            drop(next);
            return expect(verdict.faults, 0, verdict);
        }
        all_gone(self.peers)?;
        owner.wait_fds(|fds| shape_of(fds) == self.bare);
        let mut client = Client::connect(owner.address());
        client.talk();
        let next = self.stage.replace(owner, &[]);
        client.talk();
        drop(next);
        Ok(())
    }

    /// The taker is played by the test, which declines all peers.
    fn drain(mut self) -> Result<Option<Outcome>, String> {
        let expected = self.cell.expected();
        let mut taker = FakeTaker::connect(&self.stage.path());
        taker.begin();
        taker.preload_without_peers();
        taker.side.say(&Record::Drained);
        taker.final_array();
        expect(taker.claim(), Verdict::Won, "the claim")?;
        taker.side.say(&Record::Active(Active::default()));
        let met = format!("failpoint {}", self.cell.failpoint());
        self.donor.wait_line(&met);
        if self.cell.action == Action::Stop {
            self.donor.wait_stopped();
            self.donor.go_on();
            self.peers.echoes(4);
            let verdict = self.peers.finish();
            expect(verdict.faults, 0, verdict)?;
            ended(&mut self.donor, "donor", expected.donor)?;
        } else {
            ended(&mut self.donor, "donor", expected.donor)?;
            all_gone(self.peers)?;
        }
        drop(taker);
        cold_start(&self.stage)?;
        Ok(Some(expected))
    }
}

/// Nobody serves: who tries to take over is told so, and a cold start finds nothing in its way.
fn nobody(stage: &Stage, peers: Peers) -> Result<(), String> {
    all_gone(peers)?;
    expect(stage.take_over(&[]).wait_exit(), 69, "a further taker")?;
    cold_start(stage)
}

fn cold_start(stage: &Stage) -> Result<(), String> {
    let fresh = stage.serve(&[]);
    Client::connect(fresh.address()).talk();
    Ok(())
}

/// Every connection has ended, none of them after a wrong byte.
fn all_gone(peers: Peers) -> Result<(), String> {
    peers.may_end();
    peers.read();
    let verdict = peers.farewell();
    let wrong = |fault: &&String| !fault.contains("os error") && !fault.contains("ended");
    match verdict.shown.iter().find(wrong) {
        Some(fault) => Err(format!("before its end: {fault}")),
        None => Ok(()),
    }
}

fn ended(process: &mut Server, who: &str, expected: End) -> Result<(), String> {
    match expected {
        End::Serves if process.is_running() => Ok(()),
        End::Serves => Err(format!("{who}: exit code {}", process.wait_exit())),
        End::Exit(code) => expect(process.wait_exit(), code, format!("{who}'s exit code")),
        End::Fault | End::Played => Ok(()),
    }
}

fn expect<T: PartialEq + fmt::Debug>(
    found: T,
    expected: T,
    what: impl fmt::Display,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found:?} instead of {expected:?}: {what}"))
}

fn failpoint(cell: &Cell, side: Side) -> Option<String> {
    if cell.row.side == side {
        return Some(cell.failpoint());
    }
    cell.helper().map(str::to_owned)
}

fn start(args: Vec<String>, failpoint: Option<String>) -> Server {
    match failpoint {
        Some(failpoint) => Server::start_failing(&failpoint, &args),
        None => Server::start(&args),
    }
}

fn shape(server: &Server) -> Shape {
    shape_of(&server.fds())
}

fn shape_of(fds: &[(i32, String)]) -> Shape {
    let mut shape = Shape::new();
    for (_, target) in fds {
        // "socket:[123]", but "anon_inode:[eventpoll]"
        let kind = match target.split_once(":[") {
            Some((kind, _)) if kind != "anon_inode" => kind,
            _ => target,
        };
        match shape.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => shape.push((kind.to_owned(), 1)),
        }
    }
    shape.sort_unstable();
    shape
}
