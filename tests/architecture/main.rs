//! The arrows between rooms, and some absences, kept by a test: what may know what.
//!
//! It reads the sources as text, comments left out, so it can be fooled; it is here to catch
//! what happens without a thought.

mod circles;
mod documents;

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path from the root, and its lines without comments and tests.
struct Source {
    path: String,
    lines: Vec<String>,
}

fn sources(under: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut left = vec![root.join(under)];
    // A room's door stands beside its folder.
    let door = root.join(format!("{under}.rs"));
    left.extend(door.is_file().then_some(door));
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(read(root, &path));
        }
    }
    assert!(!found.is_empty(), "nothing under {under}");
    found
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    Source {
        path: path.strip_prefix(root).unwrap().display().to_string(),
        lines: code
            .lines()
            .map(|line| line.split("//").next().unwrap().to_owned())
            .collect(),
    }
}

/// Where one of the words stands in the sources.
fn mentions(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.contains("/tests"))
    {
        for (number, line) in source.lines.iter().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

fn assert_absent(under: &str, words: &[&str]) {
    let found = mentions(&sources(under), words);
    assert!(
        found.is_empty(),
        "{words:?} in {under}:\n{}",
        found.join("\n")
    );
}

const SCM: &str = "src/takeover/os/scm.rs";
const FAILPOINTS: &str = "src/takeover/failpoint.rs";

fn assert_only_in(file: &str, under: &str, words: &[&str]) {
    let mut found = mentions(&sources(under), words);
    found.retain(|place| !place.starts_with(file));
    assert!(
        found.is_empty(),
        "{words:?} elsewhere than in {file}:\n{}",
        found.join("\n")
    );
}

/// The modules under a folder with their code, tests left out; named from the root of their crate.
fn modules(crate_root: &str, under: &str) -> Vec<(circles::Module, String)> {
    let mut found = Vec::new();
    for source in sources(under) {
        let path = Path::new(&source.path).strip_prefix(crate_root).unwrap();
        let names = path.with_extension("");
        let mut module: circles::Module = names
            .iter()
            .map(|name| name.to_str().unwrap().to_owned())
            .collect();
        if module.contains(&"tests".to_owned()) {
            continue;
        }
        if let Some("lib" | "main") = module.last().map(String::as_str) {
            module.pop();
        }
        found.push((module, source.lines.join("\n")));
    }
    found
}

#[test]
fn files_of_a_room_use_each_other_in_no_circle() {
    let mut found = Vec::new();
    for (crate_root, room) in [
        ("src", "src/cli"),
        ("src", "src/daemon"),
        ("src", "src/event"),
        ("src", "src/proto"),
        ("src", "src/server"),
        ("tools/bench/src", "tools/bench/src"),
        ("tools/client/src", "tools/client/src"),
        ("tools/sweep/src", "tools/sweep/src"),
    ] {
        for circle in circles::circles(&modules(crate_root, room)) {
            found.push(format!("{room}: {circle}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn event_knows_no_protocol_and_no_takeover() {
    assert_absent(
        "src/event",
        &["crate::proto", "crate::takeover", "super::proto"],
    );
}

#[test]
fn proto_does_no_io_and_knows_no_reactor() {
    let io = [
        "std::os",
        "TcpStream",
        "std::fs",
        "std::io",
        "Instant",
        "nix::",
        "libc::",
        "mio::",
    ];
    assert_absent("src/proto", &["crate::event", "crate::takeover"]);
    assert_absent("src/proto", &io);
}

#[test]
fn donor_taker_and_ledger_see_no_socket_clock_or_descriptor() {
    let world = [
        "crate::event",
        "std::os",
        "std::io",
        "std::net",
        "std::time",
        "std::fs",
        "nix::",
        "libc::",
        "session",
        "takeover::os",
        "Time",
    ];
    // Of other files of the takeover it knows none but its own.
    assert_absent("src/takeover/core", &world);
    let others: Vec<_> = mentions(&sources("src/takeover/core"), &["crate::takeover::"])
        .into_iter()
        .filter(|place| !place.contains("crate::takeover::core"))
        .collect();
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// The rules of the core are tables over its states. A state that is new has to be thought about in
/// each, so none has an arm for the rest.
#[test]
fn tables_of_the_core_name_every_state() {
    for (file, tables) in [
        (
            "donor.rs",
            &["fn authority(", "fn expects(&self) -> Option<Kind>"][..],
        ),
        ("donor/state.rs", &["fn ledger(", "fn name("]),
        ("donor/alphabet.rs", &["fn message("]),
        (
            "taker.rs",
            &[
                "fn expects(self",
                "fn may_leave(",
                "fn name(",
                "fn message(",
            ],
        ),
    ] {
        let source = sources(&format!("src/takeover/core/{file}")).remove(0);
        for table in tables {
            let begins = source.lines.iter().position(|line| line.contains(table));
            let begins = begins.unwrap_or_else(|| panic!("{file} has no {table}"));
            let body = source.lines[begins..].iter();
            let body = body.take_while(|line| *line != "    }");
            let rest = body.filter(|line| line.contains("_ =>") || line.contains("_ if"));
            assert_eq!(rest.count(), 0, "{file}: {table}");
        }
    }
}

#[test]
fn os_knows_no_session_no_machine_and_no_reactor() {
    let rooms = ["application", "core", "session", "moment", "start"];
    let mut above: Vec<String> = ["takeover", "super", "super::super"]
        .iter()
        .flat_map(|path| rooms.map(|room| format!("{path}::{room}")))
        .collect();
    above.push("crate::event".into());
    let above: Vec<&str> = above.iter().map(String::as_str).collect();
    let mut found = mentions(&sources("src/takeover/os"), &above);
    // A number, so that a batch and a record are held against each other.
    found.retain(|place| !place.contains("core::preload::BATCH"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn unsafe_stays_in_its_two_files() {
    let found: Vec<_> = mentions(&sources("src"), &["unsafe "])
        .into_iter()
        .filter(|place| !place.starts_with("src/sys.rs") && !place.starts_with(SCM))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn takeover_knows_no_items_meaning() {
    // What is echoed, and by which other program, is the service's matter.
    assert_absent(
        "src/takeover",
        &["proto::sequence", "sequence::", "Original", "original::"],
    );
}

#[test]
fn library_needs_nothing_of_the_service() {
    for room in ["src/event", "src/proto", "src/takeover", "src/sys.rs"] {
        assert_absent(room, &["getopts", "syslog::"]);
        assert_only_in(FAILPOINTS, room, &["process::exit"]);
    }
}

#[test]
fn failpoints_are_in_one_file_behind_a_feature_that_is_off() {
    let traces = ["feature = \"failpoints\"", "TAKEOVER_FAILPOINT", "raise("];
    assert_only_in(FAILPOINTS, "src", &traces);
    // All of it that does something stands behind the feature, to the end of the file.
    let file = sources(FAILPOINTS).remove(0);
    let (without, with) = file.lines.split_at(
        file.lines
            .iter()
            .position(|line| line == "#[cfg(any(test, feature = \"failpoints\"))]")
            .expect("the feature's part"),
    );
    let does = ["env", "raise(", "panic!", "exit(", "Plan"];
    let works = |lines: &[String]| {
        let mut lines = lines.iter();
        lines.any(|line| does.iter().any(|word| line.contains(word)))
    };
    assert!(works(with) && !works(without));
    assert!(with[1..].iter().all(|line| !line.starts_with("#[")));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(manifest.contains("\ndefault = [\"daemon\"]\n"));
    assert!(manifest.contains("\ndaemon = [\"dep:getopts\", \"dep:syslog\"]\n"));
    assert!(manifest.contains("\nfailpoints = []\n"));
    // Whatever else asks for it would put it into the service that is built beside it.
    assert!(!manifest.contains("features = [\"failpoints\"]"));
}

#[test]
fn epoll_set_is_never_duplicated() {
    // Closing a set as a whole is what releases it, and closes nothing while a copy lives.
    assert_absent("src/event", &["try_clone"]);
}

#[test]
fn socket_error_is_never_asked_for() {
    // Reading SO_ERROR clears it: the owner would then see a reset as a clean end.
    assert_absent("src", &["take_error", "SO_ERROR", "SocketError"]);
}

#[test]
fn channel_is_read_in_one_place_and_never_peeked() {
    // A plain read closes what came along unseen; each peek installs a fresh copy.
    assert_absent("src", &["MSG_PEEK"]);
    let found: Vec<_> = mentions(&sources("src"), &["recvmsg("])
        .into_iter()
        .filter(|place| !place.starts_with(SCM))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn names_in_the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dead = documents::dead_names(root);
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// What the model's proof relies on is kept by code, and is missed if it is not.
#[test]
fn rules_of_the_sessions_stand_beside_their_code_and_have_mutants() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let door = read("src/takeover/session.rs");
    let table = door.split("//! | rule | | mutant |").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect())
        .collect();
    assert_eq!(rows.len(), 8);
    let rooms = fs::read_dir(root.join("src/takeover/session")).unwrap();
    let (mut left, mut code): (Vec<PathBuf>, _) = (
        rooms.map(|entry| entry.unwrap().path()).collect(),
        String::new(),
    );
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let inside = fs::read_dir(path).unwrap();
            left.extend(inside.map(|entry| entry.unwrap().path()));
        } else {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let (mutants, caught) = (
        read("tests/model/mutants.rs"),
        read("tests/model/caught.rs"),
    );
    for row in rows {
        let [number, _, mutant] = row[..] else {
            panic!("{row:?}");
        };
        let mark = [format!("Rule {number}:"), format!("Rule {number}.")];
        let is_kept = mark.iter().any(|mark| code.contains(mark.as_str()));
        assert!(is_kept, "rule {number} stands beside no code");
        let mutant = mutant.trim_matches('`');
        assert!(mutants.contains(&format!("    {mutant},\n")), "{mutant}");
        assert!(
            caught.contains(&format!("Mutant::{mutant},")),
            "{mutant} is not caught"
        );
    }
}
