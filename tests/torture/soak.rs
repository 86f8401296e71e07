//! A chain of takeovers under load, one a second, for as long as asked: nothing is lost, and
//! nothing grows.
//!
//! ```text
//!   ├─ takeover ─┬─ everybody talks, connections come and go ─┬─ they rest ─┤ next takeover
//!              freeze                                     fds, RSS
//! ```
//!
//! | must hold | how it is seen |
//! |---|---|
//! | no client notices anything | each checks every byte of its own |
//! | descriptors are flat | each owner holds what the first one held, and one a peer: exactly |
//! | memory is flat | the median RSS of the owners of the last quarter and of the first |
//! | nobody served twice | the last owner's counters, which travel, are what the clients saw |
//!
//! How long a freeze takes is told and not judged: it is the machine's, too. Ctrl-C ends the
//! chain, with the summary.

use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::options::Options;
use crate::support::{Kind, PATIENT, Peers, Server, Stage, Verdict, figure, wait_readable};

/// Clients that stay.
const STEADY: [(Kind, usize); 5] = [
    (Kind::Talking, 150),
    (Kind::Pipelining, 10),
    (Kind::HalfSent, 60),
    (Kind::Unread, 5),
    (Kind::Idle, 75),
];
/// Clients that come and go; they rest while descriptors are counted.
const PASSING: [(Kind, usize); 2] = [(Kind::Churning, 2), (Kind::Resetting, 1)];
/// From one takeover to the next, and for a short form.
const PACE: Duration = Duration::from_secs(1);
const SHORT_PACE: Duration = Duration::from_millis(300);
/// How long without being told.
const LONG: Duration = Duration::from_secs(600);
/// Most KiB by which the median RSS of the last quarter's owners may be above that of the
/// first's. Each owner is a process of its own, so only what travels could grow: half a page a
/// takeover would be 900 KiB in ten minutes. One process differs from the next by up to 300,
/// by the pages that it happened to touch, which is what two of a short run may show.
const GROWTH: f64 = 512.0;

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let pace = if options.short { SHORT_PACE } else { PACE };
    let long = if options.short { 10 * pace } else { LONG };
    let interrupt = Interrupt::new();
    let mut soak = Soak::new(options.seed);
    show!("{HEADING}");
    let mut due = Instant::now();
    let end = due + options.long.unwrap_or(long);
    loop {
        soak.take_over()?;
        // On a machine that is too slow for the pace one follows the other.
        due = Instant::now().max(due + pace);
        let interrupted = interrupt.comes_before(due);
        soak.look()?;
        if interrupted || due + pace / 2 > end {
            return soak.end();
        }
    }
}

struct Soak {
    stage: Stage,
    seed: u64,
    owner: Server,
    /// Descriptors of an owner without peers.
    base: usize,
    steady: Peers,
    passing: Peers,
    /// Of those whose time is over.
    gone: Verdict,
    chain: Vec<Generation>,
}

impl Soak {
    fn new(seed: u64) -> Soak {
        let stage = Stage::new();
        let args = ["-G", "-a", "127.0.0.1", "-p", "0", "-t"].map(OsString::from);
        let owner = start(&args, &stage);
        owner.wait_line("Starting Takeover channel on");
        let base = owner.fds().len();
        let steady = Peers::connect(owner.address(), seed, &STEADY);
        let passing = Peers::connect(owner.address(), !seed, &PASSING);
        steady.say(2);
        Soak {
            stage,
            seed,
            owner,
            base,
            steady,
            passing,
            gone: Verdict::default(),
            chain: Vec::new(),
        }
    }

    /// The next generation begins.
    fn take_over(&mut self) -> Result<(), String> {
        let taker = start(&["-G", "-T"].map(OsString::from), &self.stage);
        let line = taker.wait_line("taken over from ");
        let code = self.owner.wait_exit();
        let number = self.chain.len() + 1;
        if code != 0 || figure(&line, "generation") != number as f64 {
            return Err(format!("takeover {number}: the donor exits {code}; {line}"));
        }
        self.owner = taker;
        self.chain.push(Generation {
            pid: self.owner.pid(),
            items: figure(&line, "items"),
            preload: figure(&line, "preload_ms"),
            freeze: figure(&line, "freeze_ms"),
            whole: figure(&line, "whole_ms"),
            fds: 0.0,
            rss: 0.0,
        });
        self.steady.say(3);
        self.steady.echoes(8);
        self.passing.echoes(64);
        Ok(())
    }

    /// A generation's time is over: what its owner holds, while nobody comes or goes.
    ///
    /// # Panics
    /// If it does not come to the descriptors that it has to have.
    fn look(&mut self) -> Result<(), String> {
        let seed = self.seed ^ self.chain.len() as u64;
        let next = Peers::connect(self.owner.address(), seed, &[]);
        let passing = std::mem::replace(&mut self.passing, next);
        self.gone = self.gone.clone().and(passing.finish());
        let wanted = self.base + STEADY.iter().map(|(_, count)| count).sum::<usize>();
        self.owner.wait_fds(|fds| fds.len() == wanted);
        let rss = rss_kib(self.owner.pid());
        for (kind, count) in PASSING {
            self.passing.add(kind, count);
        }
        let seen = self.gone.clone().and(self.steady.verdict());
        let number = self.chain.len();
        if let Some(generation) = self.chain.last_mut() {
            (generation.fds, generation.rss) = (wanted as f64, rss);
            generation.show(number, &seen);
        }
        match seen.faults {
            0 => Ok(()),
            _ => Err(format!("in generation {number}: {seen}")),
        }
    }

    /// Everybody ends: the summary, and whether it may be so.
    fn end(mut self) -> Result<(), String> {
        let seen = self
            .gone
            .and(self.passing.finish())
            .and(self.steady.finish());
        let counters = self.owner.retire();
        let [first, last] = summary(&self.chain);
        show!("{seen}");
        if seen.faults > 0 {
            return Err(format!("{} faults", seen.faults));
        }
        if counters != seen.counted() {
            let clients = seen.counted();
            return Err(format!(
                "{counters:?} connections and messages, {clients:?} by the clients"
            ));
        }
        if last > first + GROWTH {
            return Err(format!("RSS grows from {first} to {last} KiB"));
        }
        Ok(())
    }
}

/// Runs the service with these arguments, the last of which wants PATH.
fn start(args: &[OsString], stage: &Stage) -> Server {
    let path = [stage.path().into_os_string()];
    Server::start_apart(&[args, &path, &PATIENT.map(OsString::from)].concat())
}

const HEADING: &str = "  gen     pid items preload ms freeze ms whole ms  fds RSS KiB   bytes checked longest wait ms, clients late";

/// One takeover, and its owner at the end of its time.
struct Generation {
    pid: u32,
    items: f64,
    preload: f64,
    freeze: f64,
    whole: f64,
    fds: f64,
    rss: f64,
}

impl Generation {
    fn show(&self, number: usize, seen: &Verdict) {
        show!(
            "{number:>5} {:>7} {:>5} {:>10.3} {:>9.3} {:>8.2} {:>4} {:>7} {:>15} {:>15.2} {:>14.2}",
            self.pid,
            self.items,
            self.preload,
            self.freeze,
            self.whole,
            self.fds,
            self.rss,
            seen.checked,
            seen.longest.as_secs_f64() * 1e3,
            seen.late.as_secs_f64() * 1e3,
        );
    }
}

/// What the chain came to; returns the median RSS of its first and of its last quarter.
fn summary(chain: &[Generation]) -> [f64; 2] {
    let quarter = (chain.len() / 4).max(1);
    let (first, last) = (&chain[..quarter], &chain[chain.len() - quarter..]);
    let freeze = |share| quantile(chain, |one| one.freeze, share);
    show!(
        "{} takeovers; freeze ms: least {:.3}, median {:.3}, p99 {:.3}, most {:.3}",
        chain.len(),
        freeze(0.0),
        freeze(0.5),
        freeze(0.99),
        freeze(1.0)
    );
    let medians = |of: fn(&Generation) -> f64| [first, last].map(|part| quantile(part, of, 0.5));
    let (fds, rss, freeze) = (
        medians(|one| one.fds),
        medians(|one| one.rss),
        medians(|one| one.freeze),
    );
    show!(
        "medians of the first and the last quarter: fds {} and {}, RSS {} and {} KiB, freeze {:.3} and {:.3} ms",
        fds[0],
        fds[1],
        rss[0],
        rss[1],
        freeze[0],
        freeze[1]
    );
    rss
}

/// The figure that this share of them does not exceed.
fn quantile(of: &[Generation], figure: impl Fn(&Generation) -> f64, share: f64) -> f64 {
    let mut all: Vec<f64> = of.iter().map(figure).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * share).round() as usize]
}

/// Resident memory, as proc_pid_status(5) shows it.
fn rss_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok())
        .expect("a process has memory")
}

/// Ctrl-C and SIGTERM, as something that can be waited for.
struct Interrupt {
    fd: SignalFd,
    before: SigSet,
}

impl Interrupt {
    /// Before any other thread is begun: it inherits the mask.
    fn new() -> Interrupt {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        let before = SigSet::thread_get_mask().expect("a thread has a mask");
        signals.thread_block().expect("they may be blocked");
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).expect("a signalfd");
        Interrupt { fd, before }
    }

    fn comes_before(&self, due: Instant) -> bool {
        let left = due.saturating_duration_since(Instant::now());
        wait_readable(&self.fd, left).expect("a signalfd can be polled")
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // One that is pending has had its answer, and shall not end what comes next.
        while self.comes_before(Instant::now()) {
            self.fd.read_signal().expect("it is readable");
        }
        self.before.thread_set_mask().expect("it was ours");
    }
}
