//! Every system call of a takeover fails once, and is once the one that its process does not
//! live to make: on both sides, with each error that fits, at the first, second, … call of its
//! name until there is no such call any more.
//!
//! | file | |
//! |---|---|
//! | `syscalls/errors.rs` | which errors fit which call |
//! | `syscalls/cell.rs` | one takeover with one fault, and the next one without |
//! | `syscalls/judge.rs` | what must hold after it |
//!
//! Which calls there are is recorded first. The donor's count from when its taker is started,
//! so they are those of serving and of handing over; the taker's from where it has read its
//! command line. What the loader and std do before is nobody's takeover: a taker that ends there
//! is to its donor one that was never started. strace says whether a fault was met; a takeover
//! in which it was not has to succeed like any other.

mod cell;
mod errors;
mod judge;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use cell::{Scene, Side, Site};
use errors::What;
use judge::Outcome;

/// What the taker calls first after its command line was read.
const BEGIN: &str = "RLIMIT_NOFILE";
/// Faults in a row that are not met, after which there are no further calls of a name: one
/// could be by chance, where their number depends on the load.
const MISSES: usize = 2;
/// Violations after which the rest of a series is not tried.
const ENOUGH: usize = 3;
/// Series at a time for each CPU: most of the time they wait for each other's processes.
const WORKERS: usize = 3;
const PROGRESS: Duration = Duration::from_secs(15);

/// The calls that make a takeover, for every test run: the first of each name, and of those
/// that carry the protocol some more.
const SHORT: &[(Side, &str, &str, usize)] = &[
    (Side::Donor, "accept4", "EMFILE", 1),
    (Side::Donor, "getsockopt", "EMFILE", 3),
    (Side::Donor, "fcntl", "EMFILE", 2),
    (Side::Donor, "epoll_ctl", "ENOMEM", 2),
    (Side::Donor, "recvmsg", "ECONNRESET", 3),
    (Side::Donor, "recvmsg", "KILL", 3),
    (Side::Donor, "eventfd2", "EMFILE", 1),
    (Side::Donor, "sendmsg", "ETOOMANYREFS", 6),
    (Side::Donor, "sendmsg", "KILL", 6),
    (Side::Donor, "write", "EAGAIN", 3),
    (Side::Donor, "recvfrom", "ECONNRESET", 1),
    (Side::Donor, "read", "KILL", 1),
    (Side::Donor, "epoll_create1", "EMFILE", 1),
    (Side::Donor, "exit_group", "KILL", 1),
    (Side::Taker, "openat", "EMFILE", 3),
    (Side::Taker, "connect", "ECONNREFUSED", 1),
    (Side::Taker, "bind", "EADDRINUSE", 1),
    (Side::Taker, "getsockopt", "EMFILE", 8),
    (Side::Taker, "sendmsg", "ENOBUFS", 4),
    (Side::Taker, "sendmsg", "EPIPE", 4),
    (Side::Taker, "sendmsg", "KILL", 4),
    (Side::Taker, "recvmsg", "ENOMEM", 3),
    (Side::Taker, "epoll_ctl", "ENOMEM", 12),
    (Side::Taker, "read", "EAGAIN", 12),
    (Side::Taker, "flock", "ENOLCK", 1),
    (Side::Taker, "renameat", "EIO", 1),
    (Side::Taker, "renameat", "KILL", 1),
];

/// Faults of one kind at the calls of one name.
struct Series {
    site: Site,
    first: usize,
    most: usize,
    /// As many as there were without a fault.
    calls: usize,
}

/// What has come of the calls of one name on one side.
#[derive(Default)]
struct Line {
    /// The most calls that a fault was met at.
    calls: usize,
    faults: usize,
    outcomes: BTreeMap<Outcome, usize>,
    violations: usize,
}

#[derive(Default)]
struct Table {
    lines: BTreeMap<(Side, String), Line>,
    violations: Vec<String>,
    done: usize,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let began = Instant::now();
    let traces = Scene::new(options.seed, false).record();
    let series = plan(options, &traces);
    let faults: usize = series.iter().map(|one| one.calls.min(one.most)).sum();
    show!("{} series, about {faults} faults", series.len());
    let all = series.len();
    let table = Mutex::new(Table::default());
    let queue = Mutex::new(VecDeque::from(series));
    let workers = thread::available_parallelism().map_or(2, usize::from) * WORKERS;
    let told = Mutex::new(Instant::now());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    // Not in a `while let`, which would keep the lock.
                    let Some(series) = lock(&queue).pop_front() else {
                        break;
                    };
                    work(options, &series, &table);
                    lock(&table).done += 1;
                    let mut told = lock(&told);
                    if told.elapsed() > PROGRESS {
                        *told = Instant::now();
                        lock(&table).progress(all, began);
                    }
                }
            });
        }
    });
    let table = table.into_inner().expect("no worker panics");
    table.print(began);
    match table.violations.len() {
        0 => Ok(()),
        some => Err(format!(
            "{some} violations, the first: {}",
            table.violations[0]
        )),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no worker panics with it")
}

/// All faults there are to be tried.
fn plan(options: &Options, traces: &[Vec<String>; 2]) -> Vec<Series> {
    let mut series = Vec::new();
    for (side, trace) in [Side::Donor, Side::Taker].into_iter().zip(traces) {
        let begin = match side {
            Side::Donor => 0,
            Side::Taker => trace
                .iter()
                .position(|line| line.contains(BEGIN))
                .expect("the taker asks for its limit"),
        };
        // How often each call came from there on, and before.
        let mut calls: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for call in trace[begin..].iter().filter_map(|line| call_of(line)) {
            calls.entry(call).or_default().0 += 1;
        }
        for line in &trace[..begin] {
            if let Some((_, before)) = call_of(line).and_then(|call| calls.get_mut(call)) {
                *before += 1;
            }
        }
        for (call, (calls, before)) in calls {
            for what in errors::of(call) {
                let site = Site {
                    side,
                    call: call.to_owned(),
                    what,
                };
                let most = if options.short {
                    let wanted = |(is, name, fault, _): &&(Side, &str, &str, usize)| {
                        (*is, *name, *fault) == (side, call, what.name())
                    };
                    SHORT.iter().find(wanted).map_or(0, |(.., most)| *most)
                } else {
                    usize::MAX
                };
                let first = before + 1;
                if most > 0 && options.wants(&site.name()) {
                    series.push(Series {
                        site,
                        first,
                        most,
                        calls,
                    });
                }
            }
        }
    }
    series
}

fn call_of(line: &str) -> Option<&str> {
    let (call, _) = line.split_once('(')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!call.is_empty() && call.chars().all(is_name)).then_some(call)
}

/// One series, with a service of its own.
fn work(options: &Options, series: &Series, table: &Mutex<Table>) {
    let site = &series.site;
    let mortal = (site.side, site.what) == (Side::Donor, What::Kill);
    let mut scene = None;
    let (mut misses, mut violations) = (0, 0);
    for nth in (series.first..).take(series.most) {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let scene = scene.get_or_insert_with(|| Scene::new(options.seed, mortal));
            scene.run(site, nth)
        }));
        let ran = ran.unwrap_or_else(|_| Err("the harness gave up, see above".to_owned()));
        match ran {
            Ok(Some(outcome)) => {
                scene = scene.filter(|scene: &Scene| !scene.is_leaky);
                misses = 0;
                lock(table).fired(site, nth + 1 - series.first, outcome);
            }
            Ok(None) => misses += 1,
            Err(why) => {
                violations += 1;
                lock(table).violation(site, nth, &why);
                scene = None;
            }
        }
        if misses == MISSES || violations == ENOUGH {
            break;
        }
    }
    if let Some(verdict) =
        scene.and_then(|scene| catch_unwind(AssertUnwindSafe(|| scene.end())).ok())
        && verdict.faults > 0
    {
        lock(table).violation(site, 0, &format!("at the end: {verdict}"));
    }
}

impl Table {
    fn line(&mut self, site: &Site) -> &mut Line {
        let key = (site.side, site.call.clone());
        self.lines.entry(key).or_default()
    }

    fn fired(&mut self, site: &Site, calls: usize, outcome: Outcome) {
        let line = self.line(site);
        line.calls = line.calls.max(calls);
        line.faults += 1;
        *line.outcomes.entry(outcome).or_default() += 1;
    }

    fn violation(&mut self, site: &Site, nth: usize, why: &str) {
        self.line(site).violations += 1;
        let what = format!("{} at call {nth}: {why}", site.name());
        show!("VIOLATION {what}");
        self.violations.push(what);
    }

    fn progress(&self, all: usize, began: Instant) {
        let faults: usize = self.lines.values().map(|line| line.faults).sum();
        show!(
            "{:>5.0} s: {} of {all} series, {faults} faults, {} violations",
            began.elapsed().as_secs_f64(),
            self.done,
            self.violations.len()
        );
    }

    fn print(&self, began: Instant) {
        let columns = [
            Outcome::TookOver,
            Outcome::RolledBack,
            Outcome::Refused,
            Outcome::OwnerDied,
            Outcome::PeerEnded,
        ];
        show!(
            "{:<6} {:<18} {:>5} {:>6} {:>9} {:>11} {:>7} {:>10} {:>10} {:>10}",
            "side",
            "call",
            "calls",
            "faults",
            "took over",
            "rolled back",
            "refused",
            "owner died",
            "peer ended",
            "violations"
        );
        let mut sum = Line::default();
        for ((side, call), line) in &self.lines {
            print_line(&format!("{side:?}").to_lowercase(), call, line, &columns);
            sum.calls += line.calls;
            sum.faults += line.faults;
            sum.violations += line.violations;
            for (outcome, count) in &line.outcomes {
                *sum.outcomes.entry(*outcome).or_default() += count;
            }
        }
        print_line("both", "all", &sum, &columns);
        show!("{:.0} s", began.elapsed().as_secs_f64());
    }
}

fn print_line(side: &str, call: &str, line: &Line, columns: &[Outcome; 5]) {
    let count = |outcome| line.outcomes.get(&outcome).copied().unwrap_or(0);
    let [took, back, refused, died, peer] = columns.map(count);
    show!(
        "{side:<6} {call:<18} {:>5} {:>6} {took:>9} {back:>11} {refused:>7} {died:>10} \
         {peer:>10} {:>10}",
        line.calls,
        line.faults,
        line.violations
    );
}
