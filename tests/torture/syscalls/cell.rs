//! One cell of the proof: a takeover with one fault, and what came of it.
//!
//! ```text
//!   owner, clients ─▶ fault in the owner, or in a stopped taker ─▶ takeover
//!        ▲                                                            │ one of them is gone
//!        │                                                            ▼
//!        └── next owner ◀── a takeover without fault ◀── judged ◀── who answers a new client?
//! ```
//!
//! Cells are strung together: the owner of one is the donor of the next, so that whatever a
//! fault leaves behind has the rest of the run to show itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::errors::What;
use super::judge::{self, Outcome};
use crate::support::fault::lines;
use crate::support::{BOUND, Fault, Kind, Peers, Server, Stage, Verdict};

/// Who makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Donor,
    Taker,
}

/// One fault, but for which call of its name it hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub side: Side,
    pub call: String,
    pub what: What,
}

impl Site {
    pub(crate) fn name(&self) -> String {
        let side = match self.side {
            Side::Donor => "donor",
            Side::Taker => "taker",
        };
        format!("{side} {} {}", self.call, self.what.name())
    }
}

/// Who answers new clients when all is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Donor,
    Taker,
    Nobody,
}

/// What is known of a takeover that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub owner: Owner,
    /// Exit codes; `None` of one that runs.
    pub donor: Option<i32>,
    pub taker: Option<i32>,
    pub donor_log: Vec<String>,
    pub taker_log: Vec<String>,
    /// Of the side with the fault: the calls of its name, and those that tell of the lease.
    pub trace: Vec<String>,
    /// Clients that were lost, and all of them.
    pub lost: u64,
    pub clients: u64,
}

/// Who is connected: each state that a peer can be in.
const CLIENTS: [(Kind, usize); 5] = [
    (Kind::Talking, 3),
    (Kind::Pipelining, 1),
    (Kind::HalfSent, 1),
    (Kind::Idle, 1),
    (Kind::Unread, 1),
];
/// How many of them where the owner is to die each time: an unread one takes a while to be so.
const MORTAL: usize = 4;
/// Long enough for a machine with much else to do, where a takeover without fault must not fail;
/// short enough for the few faults after which only a deadline tells.
const DEADLINES: &[&str] = &[
    "--deadline",
    "hello=8000",
    "--deadline",
    "preload=8000",
    "--deadline",
    "freeze=8000",
    "--deadline",
    "claim=8000",
];
/// How long the clients of a dead owner may take to notice.
const NOTICED: Duration = Duration::from_secs(10);

/// A running service with its clients.
pub(crate) struct Scene {
    stage: Stage,
    owner: Server,
    address: SocketAddr,
    peers: Peers,
    kinds: &'static [(Kind, usize)],
    /// What every owner of the clients has.
    descriptors: Vec<String>,
    seed: u64,
    runs: usize,
    /// One of its descriptors was kept from being closed: not to be used any more.
    pub(crate) is_leaky: bool,
}

impl Scene {
    /// `mortal` if its owners are to die.
    pub(crate) fn new(seed: u64, mortal: bool) -> Scene {
        let kinds = &CLIENTS[..if mortal { MORTAL } else { CLIENTS.len() }];
        let stage = Stage::new();
        let owner = stage.serve(DEADLINES);
        let address = owner.address();
        let mut descriptors = owner.fd_kinds();
        let peers = clients(address, seed, kinds);
        for (_, count) in kinds {
            descriptors.extend(std::iter::repeat_n("socket".to_owned(), *count));
        }
        descriptors.sort_unstable();
        let mut scene = Scene {
            stage,
            owner,
            address,
            peers,
            kinds,
            descriptors,
            seed,
            runs: 0,
            is_leaky: false,
        };
        scene.at_rest();
        scene
    }

    /// A takeover without fault, and all calls that each side makes in it.
    pub(crate) fn record(&mut self) -> [Vec<String>; 2] {
        let traces = [
            self.stage.file("donor.trace"),
            self.stage.file("taker.trace"),
        ];
        let donor = Fault::none(&self.owner, &traces[0]);
        let mut taker = self.stopped_taker();
        let follow = Fault::none(&taker, &traces[1]);
        taker.go_on();
        self.settle(&mut taker);
        drop((donor, follow));
        self.owner = taker;
        self.at_rest();
        traces.map(|trace| lines(&trace))
    }

    /// Runs one cell. `Ok(None)` if the call was not made so often.
    pub(crate) fn run(&mut self, site: &Site, nth: usize) -> Result<Option<Outcome>, String> {
        self.runs += 1;
        let before = self.owner.fds();
        self.peers.say(4);
        let (taker, ended) = self.take_over(site, nth);
        let fired = judge::fired(site, &ended);
        let outcome = judge::judge(site, fired.as_deref(), &ended)
            .map_err(|why| format!("{why}\n{}", judge::shown(&ended)))?;
        match ended.owner {
            Owner::Donor => self.bury(&taker),
            Owner::Taker => self.owner = taker,
            Owner::Nobody => {
                self.bury(&taker);
                // What the dead have left at PATH is in nobody's way.
                self.owner = self.stage.serve(DEADLINES);
                self.address = self.owner.address();
            }
        }
        if ended.lost > 0 {
            self.peers = clients(self.address, self.seed, self.kinds);
        }
        self.is_leaky = site.call == "close" && fired.is_some();
        if ended.owner == Owner::Donor && ended.lost == 0 && !self.is_leaky {
            self.owner.wait_fds(|fds| fds == before);
        }
        self.at_rest();
        self.again()?;
        Ok(fired.map(|_| outcome))
    }

    /// All clients complete what they have begun, and have got every byte.
    pub(crate) fn end(self) -> Verdict {
        self.peers.finish()
    }

    /// Removes the temporary name of a taker that was killed. A start does that with names a
    /// minute old; until then it looks at each, and would make one call more each time.
    fn bury(&self, taker: &Server) {
        let folder = self.stage.path();
        let folder = folder.parent().expect("it is in the stage's folder");
        let name = format!(".takeover.{}.", taker.pid());
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn clients(&self) -> usize {
        self.kinds.iter().map(|(_, count)| count).sum()
    }

    fn trace(&self) -> PathBuf {
        self.stage.file(&format!("{}.trace", self.runs))
    }

    fn stopped_taker(&self) -> Server {
        let taker = Server::take_over_stopped(&self.stage.path(), DEADLINES);
        taker.wait_stopped();
        taker
    }

    fn take_over(&mut self, site: &Site, nth: usize) -> (Server, Ended) {
        let trace = self.trace();
        let rule = format!("{}:{}:when={nth}", site.call, site.what.rule());
        // Reads and records tell who owned when somebody died.
        let calls = format!("{},read,sendmsg", site.call);
        let (mut taker, fault) = match site.side {
            Side::Donor => {
                let fault = Fault::traced(&self.owner, &rule, &calls, &trace);
                (self.stage.take_over(DEADLINES), fault)
            }
            Side::Taker => {
                let taker = self.stopped_taker();
                let fault = Fault::traced(&taker, &rule, &calls, &trace);
                taker.go_on();
                (taker, fault)
            }
        };
        let mut owner = self.settle(&mut taker);
        drop(fault);
        // It may have served already when it was to die, and be dying now.
        while owner != Owner::Nobody && !answers(self.address) {
            owner = self.settle(&mut taker);
        }
        let trace = lines(&trace);
        let (lost, clients) = self.lost(owner, &trace, site);
        let ended = Ended {
            owner,
            donor: self.owner.wait_exit_within(Duration::ZERO),
            taker: taker.wait_exit_within(Duration::ZERO),
            donor_log: self.owner.log().lines(),
            taker_log: taker.log().lines(),
            trace,
            lost,
            clients,
        };
        (taker, ended)
    }

    /// Waits until one of the two is gone and the other one serves, or both are gone.
    fn settle(&mut self, taker: &mut Server) -> Owner {
        let end = Instant::now() + BOUND;
        loop {
            assert!(Instant::now() < end, "neither serves alone");
            let taker_gone = taker.wait_exit_within(Duration::from_millis(2)).is_some();
            let donor_gone = self.owner.wait_exit_within(Duration::ZERO).is_some();
            if donor_gone && taker_gone {
                // Their logs are complete.
                self.owner.wait_exit();
                taker.wait_exit();
                return Owner::Nobody;
            }
            if (donor_gone || taker_gone) && answers(self.address) {
                if donor_gone {
                    self.owner.wait_exit();
                    return Owner::Taker;
                }
                taker.wait_exit();
                return Owner::Donor;
            }
        }
    }

    /// How many clients have noticed. With an owner that lives the others have each had an
    /// answer; after a death it takes a moment until all know.
    fn lost(&mut self, owner: Owner, trace: &[String], site: &Site) -> (u64, u64) {
        let clients = self.clients() as u64;
        let end = Instant::now() + NOTICED;
        let doomed = owner == Owner::Nobody
            || owner == Owner::Donor && (site.side == Side::Taker) && judge::has_claimed(trace);
        while doomed && self.peers.verdict().faults < clients && Instant::now() < end {
            thread::yield_now();
        }
        if owner != Owner::Nobody {
            self.peers.echoes(4);
        }
        (self.peers.verdict().faults, clients)
    }

    /// A takeover without fault succeeds, and nobody has noticed.
    fn again(&mut self) -> Result<(), String> {
        let end = Instant::now() + BOUND;
        let faults = self.peers.verdict().faults;
        loop {
            let mut taker = self.stage.take_over(DEADLINES);
            let owner = self.settle(&mut taker);
            if owner == Owner::Taker {
                let code = self.owner.wait_exit();
                self.owner = taker;
                if code != 0 {
                    return Err(format!("the donor of the next takeover left with {code}"));
                }
                break;
            }
            let log = taker.log().lines();
            let last = log.last().map_or("", String::as_str);
            // PATH leads to the one before until it is published.
            let publishing = self
                .owner
                .log()
                .count("no further takeover is possible for now")
                > 0
                && last.contains("nobody listens there any more");
            if owner == Owner::Nobody || !publishing || Instant::now() > end {
                let owners = self.owner.log().lines();
                let owners = owners[owners.len().saturating_sub(6)..].join("\n    ");
                return Err(format!(
                    "the next takeover failed, {owner:?} serves: {last}; its donor's log ends\n    {owners}"
                ));
            }
        }
        self.at_rest();
        let verdict = self.peers.verdict();
        if verdict.faults > faults {
            return Err(format!("in the next takeover: {verdict}"));
        }
        Ok(())
    }

    /// Everybody is served, and the owner has what a fresh one would have: its own descriptors
    /// and one for each client, all of them its own alone.
    fn at_rest(&mut self) {
        self.peers.echoes(4);
        if self.is_leaky {
            return;
        }
        let owner = &self.owner;
        owner.wait_fds(|_| owner.fd_kinds() == self.descriptors);
        assert_eq!(owner.inheritable_fds(), [], "a child would inherit them");
    }
}

fn clients(address: SocketAddr, seed: u64, kinds: &[(Kind, usize)]) -> Peers {
    let peers = Peers::connect(address, seed, kinds);
    peers.say(2);
    peers.fill();
    peers
}

/// Whether somebody serves a new client.
fn answers(address: SocketAddr) -> bool {
    let talk = || {
        let mut client = TcpStream::connect(address)?;
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        client.write_all(&[0, 0, 0, 1])?;
        client.read_exact(&mut [0; 4])
    };
    talk().is_ok()
}
