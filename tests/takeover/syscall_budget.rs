//! What is spent in system calls: for a message, for an item that is handed over, and between
//! the hold and the claim. Counts do not depend on how fast a machine is, so these are budgets
//! that may fail a build, where a time may not.
//!
//! strace(1) writes down every call. Records of the takeover are known by the kind in their
//! header, one byte behind magic and version.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support;
use crate::support::fault::lines;
use crate::support::{Client, Fault, Kind, Peers, Server, Stage, need, seed};

const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");
/// Items of the two takeovers whose difference is looked at.
const FEW: usize = 100;
const MANY: usize = 600;

/// How often each call was made.
type Counts = BTreeMap<String, usize>;

/// The name of the call in a line of strace, if there is one.
fn call(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('(')?;
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    (!name.is_empty() && is_name(name)).then_some(name)
}

fn count<'a>(trace: impl IntoIterator<Item = &'a String>) -> Counts {
    let mut counts = Counts::new();
    for name in trace.into_iter().filter_map(|line| call(line)) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// What was called up to the claim, by a taker; by a donor, all.
fn until_claim(trace: &[String]) -> Counts {
    let claimed = trace.iter().position(|line| is_claim(line));
    count(&trace[..claimed.unwrap_or(trace.len())])
}

fn is_claim(line: &str) -> bool {
    line.starts_with("read(") && line.contains("\"\\1\\0\\0\\0\\0\\0\\0\\0\", 8)")
}

fn sum(counts: &Counts) -> usize {
    counts.values().sum()
}

/// Where the first line with all of these is.
#[track_caller]
fn position(trace: &[String], parts: &[&str]) -> usize {
    let has = |line: &String| parts.iter().all(|part| line.contains(part));
    let at = trace.iter().position(has);
    at.unwrap_or_else(|| {
        panic!(
            "no {parts:?} in {:#?}",
            &trace[trace.len().saturating_sub(60)..]
        )
    })
}

/// A takeover of so many silent peers: what donor and taker called.
fn traced(peers: usize) -> [Vec<String>; 2] {
    need("strace");
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let clients = Peers::connect(donor.address(), seed(), &[(Kind::Idle, peers)]);
    // All of them are accepted, and have been answered once: the taker is told of all.
    let mut last = Client::connect(donor.address());
    last.talk();
    let (donors, takers) = (stage.file("donor"), stage.file("taker"));
    let tracing = Fault::none(&donor, &donors);
    let mut command = Command::new("strace");
    command.args(["-D", "-e", "signal=none", "-o"]).arg(&takers);
    let mut taker = Server::spawn(command.args([BINARY, "-G", "-T"]).arg(stage.path()));
    taker.wait_line("taken over from");
    assert_eq!(donor.wait_exit(), 0);
    drop(tracing);
    last.talk();
    clients.finish().assert_flawless();
    taker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(taker.wait_exit(), 0);
    [lines(&donors), complete(&takers)]
}

/// A trace whose process has ended; the tracer may have a line to write still.
fn complete(trace: &Path) -> Vec<String> {
    let end = std::time::Instant::now() + support::BOUND;
    loop {
        let lines = lines(trace);
        if lines
            .last()
            .is_some_and(|line| line.starts_with("+++ exited"))
        {
            return lines;
        }
        assert!(std::time::Instant::now() < end, "strace does not end");
        std::thread::yield_now();
    }
}

#[test]
fn message_costs_a_wait_a_read_and_a_write() {
    const MESSAGES: usize = 500;
    let stage = Stage::new();
    let server = stage.serve(&[]);
    let mut client = Client::connect(server.address());
    client.talk();
    let trace = stage.file("trace");
    let tracing = Fault::none(&server, &trace);
    for _ in 0..MESSAGES {
        client.talk();
    }
    drop(tracing);
    let counts = count(&lines(&trace));
    println!("{MESSAGES} messages: {counts:?}");
    let of = |names: &[&str]| -> usize { names.iter().filter_map(|name| counts.get(*name)).sum() };
    assert_eq!(of(&["read", "recvfrom"]), MESSAGES);
    assert_eq!(of(&["write", "sendto"]), MESSAGES);
    // One more is under way when strace comes, and one when it goes.
    assert!(of(&["epoll_wait"]) <= MESSAGES + 2, "{counts:?}");
    assert!(
        sum(&counts) <= 3 * MESSAGES + 3,
        "something else: {counts:?}"
    );
}

#[test]
fn item_costs_a_few_calls_on_each_side_and_commit_as_many_for_any_number() {
    let [few, many] = [traced(FEW), traced(MANY)];
    // What one item more costs, in tenths of a call.
    for (side, which, budget) in [("donor", 0, DONORS_ITEM), ("taker", 1, TAKERS_ITEM)] {
        let (less, more) = (until_claim(&few[which]), until_claim(&many[which]));
        let each = (sum(&more) - sum(&less)) * 10 / (MANY - FEW);
        println!(
            "{side}: {}.{} calls an item; {more:?}",
            each / 10,
            each % 10
        );
        assert!(
            each <= budget,
            "{side}: {each} tenths of a call, budget {budget}"
        );
    }

    let commits = [&few, &many].map(|[donor, taker]| {
        let drained = position(donor, &["recvmsg(", "SKTO\\1\\0\\203"]);
        let end = position(donor, &["sendmsg(", "SKTO\\1\\0\\7"]);
        let heard = position(taker, &["recvmsg(", "SKTO\\1\\0\\7"]);
        let claimed = taker
            .iter()
            .position(|line| is_claim(line))
            .expect("a claim");
        let served = claimed + 1 + position(&taker[claimed + 1..], &["epoll_wait("]);
        let donors = count(&donor[drained + 1..=end]);
        let takers = count(&taker[heard..=served]);
        println!("commit: donor {donors:?}, taker {takers:?}");
        (sum(&donors), sum(&takers))
    });
    let [few, many] = commits;
    assert_eq!(few, many, "a freeze that grows with the number of items");
    assert!(
        many.0 <= DONORS_COMMIT && many.1 <= TAKERS_COMMIT,
        "{many:?}"
    );
}

/// Tenths of a call for each item. Donor: its own address and its cookie for the record, its
/// close, for which std in a debug build asks once whether it is open, and a share of the
/// messages; to take the epoll set down costs no call. Taker: five socket options, two sorts of
/// flags and two addresses are validated; `epoll_ctl`, and a share of the messages.
const DONORS_ITEM: usize = 43;
const TAKERS_ITEM: usize = 103;
/// From DRAINED to END: the last sweep, a state that has changed, the grant, END.
const DONORS_COMMIT: usize = 8;
/// From END to the first wait that serves: END, the claim, the wait.
const TAKERS_COMMIT: usize = 4;
