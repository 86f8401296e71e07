//! A sweep whose reader goes away or pauses: what moves processes goes on, and the exit code
//! tells how it ended. The service is a script that says what a successor would.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_takeover-sweep");
const SHARDS: usize = 6;
/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(60);

/// A successor: `$report` and `$path` are what it was told.
const ARGUMENTS: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in --report) report=$2 ;; -T) path=$2 ;; esac
    shift
done
"#;
const SUCCEEDS: &str = r#"
echo '{"outcome":"active","items":{"moved":3},"freeze_ns":1000,"generation":1}' >>"$report"
: >"$path.replaced"
"#;

/// A folder with shards, and a service.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(service: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
        for number in 0..SHARDS {
            fs::write(place.file(&format!("shard-{number:03}.sock")), "").unwrap();
        }
        let program = place.file("service");
        fs::write(&program, format!("{ARGUMENTS}{service}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sweep(&self, what: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.arg(what).arg(self.folder.path());
        command.arg("--service").arg(self.file("service"));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn roll(&self) -> Command {
        let mut command = self.sweep("roll");
        command.args(["--at-once", "1"]);
        command
    }

    fn replaced(&self) -> usize {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".replaced"))
            .count()
    }
}

/// What it said on stderr, and its exit code.
fn end_of(mut child: Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    let said = child.stderr.take().unwrap().read_to_string(&mut stderr);
    said.unwrap();
    (child.wait().unwrap().code(), stderr)
}

/// An end to write to that nobody reads any more.
fn deserted() -> OwnedFd {
    UnixStream::pair().unwrap().0.into()
}

#[test]
fn roll_goes_on_when_its_reader_goes_away_after_the_first_line() {
    // All but the first wait until the reader has left.
    let wait = r#"
case $path in *-000.sock) ;; *) until [ -e "${path%/*}/left" ]; do sleep 0.01; done ;; esac"#;
    let place = Place::new(&format!("{wait}{SUCCEEDS}"));
    let mut roll = place.roll().stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(roll.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("shard-000  generation 1  3 items"),
        "{line}"
    );
    drop(stdout);
    fs::write(place.file("left"), "").unwrap();
    let (code, stderr) = end_of(roll);
    assert_eq!((code, place.replaced()), (Some(0), SHARDS), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("the roll goes on"), "{stderr}");
}

#[test]
fn roll_that_nobody_hears_ends_with_the_code_of_how_it_ended() {
    for (service, code, replaced) in [
        (SUCCEEDS, 0, SHARDS),
        ("exit 75", 75, 0),
        ("kill -9 $$", 1, 0),
    ] {
        let place = Place::new(service);
        let mut roll = place.roll();
        roll.stdout(deserted()).stderr(deserted());
        assert_eq!(roll.status().unwrap().code(), Some(code), "{service}");
        assert_eq!(place.replaced(), replaced, "{service}");
    }
}

#[test]
fn roll_goes_on_while_its_reader_pauses() {
    let place = Place::new(SUCCEEDS);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    // Not one line fits any more.
    ours.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = ours.write(&[b'.'; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    while ours.write(b".").is_ok() {}
    ours.set_nonblocking(false).unwrap();
    let roll = place.roll().stdout(OwnedFd::from(ours)).spawn().unwrap();
    let end = Instant::now() + BOUND;
    while place.replaced() < SHARDS {
        assert!(Instant::now() < end, "{} replaced", place.replaced());
        std::thread::yield_now();
    }
    let mut said = String::new();
    theirs.read_to_string(&mut said).unwrap();
    let (code, stderr) = end_of(roll);
    assert_eq!(code, Some(0), "{stderr}");
    let said = said.trim_start_matches('.');
    assert_eq!(said.lines().count(), SHARDS + 1, "{said}");
    assert!(said.contains("6 replaced, 18 items"), "{said}");
}

#[test]
fn answer_that_nobody_gets_is_exit_1_without_a_panic() {
    let place = Place::new(SUCCEEDS);
    let mut help = Command::new(BINARY);
    help.arg("--help").stderr(Stdio::piped());
    for mut asked in [place.sweep("status"), help] {
        let (code, stderr) = end_of(asked.stdout(deserted()).spawn().unwrap());
        assert_eq!(code, Some(1), "{asked:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{asked:?}: {stderr}");
    }
    let mut wrong = place.sweep("nothing");
    let wrong = wrong.stdout(deserted()).stderr(deserted());
    assert_eq!(wrong.status().unwrap().code(), Some(2));
}

#[test]
fn successor_without_a_report_is_not_taken_for_an_earlier_one() {
    let place = Place::new("");
    let earlier = r#"{"outcome":"active","items":{"moved":9},"freeze_ns":1,"generation":8}"#;
    fs::write(place.file("shard-000.report"), format!("{earlier}\n")).unwrap();
    let output = place.roll().stdout(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no takeover is in it"), "{said}");
}
