//! What donor and taker say of a takeover: the same, in the log and in the file of reports.

use std::fs;

use crate::support;
use crate::support::{Kind, Peers, Stage, seed, wait_text};

/// The value under `key` in a line of JSON of which every key is unique.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let key = format!("\"{key}\":");
    let (_, rest) = line
        .split_once(&key)
        .unwrap_or_else(|| panic!("{key} in {line}"));
    rest.split([',', '}']).next().unwrap()
}

/// What both sides know of it.
const SHARED: [&str; 15] = [
    "id",
    "generation",
    "moved",
    "new",
    "closed",
    "changed",
    "declined",
    "dead",
    "rounds",
    "cut_short",
    "fds",
    "bytes",
    "held_at",
    "decided_at",
    "freeze_ns",
];

#[test]
fn takeover_is_reported_alike_by_donor_and_taker() {
    let stage = Stage::new();
    let report = stage.file("report");
    let option = ["--report", report.to_str().unwrap()];
    let mut donor = stage.serve(&option);
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Talking, 30)]);
    peers.echoes(4);
    let taker = stage.replace(&mut donor, &option);
    peers.echoes(4);
    // Each writes it behind the takeover.
    wait_text(&report, "\"active\"");
    let text = fs::read_to_string(&report).unwrap();
    let of = |outcome: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| value(line, "outcome") == format!("{outcome:?}"));
        line.unwrap_or_else(|| panic!("{outcome} in {text}"))
    };
    let (released, active) = (of("released"), of("active"));
    for key in SHARED {
        assert_eq!(value(released, key), value(active, key), "{key} in {text}");
    }
    // The listener, the service's own state and the peers.
    assert_eq!(value(active, "moved"), "32");
    assert_eq!(value(active, "failure"), "null");
    assert_eq!(value(released, "other"), taker.pid().to_string());
    assert_eq!(value(active, "other"), donor.pid().to_string());
    // The same facts, in the line that is logged.
    let id = format!("id={}", value(active, "id").trim_matches('"'));
    for (server, line) in [(&donor, "Releasing "), (&taker, "taken over from ")] {
        let line = server.wait_line(line);
        assert!(line.contains(&id) && line.contains(" items=32 "), "{line}");
    }
    peers.finish().assert_flawless();
}

#[test]
fn attempt_that_fails_is_reported_by_both_with_the_reason() {
    let stage = Stage::new();
    let report = stage.file("report");
    let option = ["--report", report.to_str().unwrap()];
    let donor = stage.serve(&option);
    // Too few descriptors for what it would take over.
    let peers = Peers::connect(donor.address(), seed(), &[(Kind::Idle, 40)]);
    let path = stage.path();
    let args = ["-G", "-T", path.to_str().unwrap(), option[0], option[1]];
    let mut taker = support::Server::start_limited(60, &args);
    assert_eq!(taker.wait_exit(), 75);
    let text = fs::read_to_string(&report).unwrap();
    let line = text.lines().find(|line| line.contains("\"left\"")).unwrap();
    assert_ne!(value(line, "failure"), "null");
    peers.finish().assert_flawless();
}
