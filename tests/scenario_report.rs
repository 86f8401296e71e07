//! What donor and taker say of a takeover: the same, in the log and in the file of reports.

mod support;

use std::fs;

use support::{Scene, figure};

/// The value under `key` in a line of JSON of which every key is unique.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let key = format!("\"{key}\":");
    let (_, rest) = line
        .split_once(&key)
        .unwrap_or_else(|| panic!("{key} in {line}"));
    rest.split([',', '}']).next().unwrap()
}

/// What both sides know of it.
const SHARED: [&str; 14] = [
    "id",
    "generation",
    "moved",
    "new",
    "closed",
    "changed",
    "declined",
    "dead",
    "adopted",
    "rounds",
    "held_at",
    "end_at",
    "decided_at",
    "freeze_ns",
];
