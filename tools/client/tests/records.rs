//! What a run leaves behind: its trace, what `join` puts together, and the picture.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::{Habit, Server, Verdict, client};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_takeover-client");

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn trace_has_every_answer_in_its_time_and_the_verdict_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let server = Server::start(Habit::Echo);
    let mut command = client(server.address, "-c 4 -R 400 -d 0.4 --json --trace");
    let verdict = Verdict::of(command.arg(&trace).output().unwrap());
    assert_eq!(verdict.code, 0);
    let lines = lines(&trace);
    assert_eq!(lines[0]["type"], "run");
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["received"]),
        (&"verdict".into(), &verdict.json["received"])
    );
    let buckets = &lines[1..lines.len() - 1];
    let answers: u64 = buckets
        .iter()
        .map(|it| it["answers"].as_u64().unwrap())
        .sum();
    assert_eq!(
        answers,
        verdict.json["latency_us"]["count"].as_u64().unwrap()
    );
    let times: Vec<u64> = buckets
        .iter()
        .map(|it| it["at_ns"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted() && times.len() > 5, "{times:?}");
}

#[test]
fn faults_are_in_the_trace_where_they_happened() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let server = Server::start(Habit::Reset(3));
    let mut command = client(server.address, "-R 100 -d 0.5 -q --trace");
    let status = command.arg(&trace).output().unwrap().status;
    assert_eq!(status.code(), Some(1));
    let faults = lines(&trace);
    let faults = faults.iter().filter_map(|it| it["faults"].as_u64());
    assert!(faults.sum::<u64>() > 0);
}

#[test]
fn saved_runs_are_joined_into_one_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let servers = [Server::start(Habit::Echo), Server::start(Habit::Lose(2))];
    let mut sent = 0;
    let mut files = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let file = folder.path().join(number.to_string());
        let words = "-c 2 --closed -D 4 -d 0.2 --drain-timeout 0.2 -q --json --save";
        let run = Verdict::of(client(server.address, words).arg(&file).output().unwrap());
        sent += run.count("sent");
        files.push(file);
    }
    let join = Command::new(BINARY)
        .args(["join", "--json"])
        .args(&files)
        .output();
    let whole = Verdict::of(join.unwrap());
    whole.adds_up();
    assert_eq!((whole.count("sent"), whole.count("connections")), (sent, 4));
    assert_eq!(whole.code, 1, "one of them lost a message");
}

#[test]
fn traces_become_a_picture_with_the_takeovers_of_the_reports() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, report) = (folder.path().join("trace"), folder.path().join("report"));
    let out = folder.path().join("picture.svg");
    let server = Server::start(Habit::Echo);
    let mut command = client(server.address, "-c 2 -R 200 -d 0.3 -q --trace");
    assert!(command.arg(&trace).output().unwrap().status.success());
    let at = lines(&trace)[3]["at_ns"].as_u64().unwrap();
    let takeover = format!(
        "{{\"outcome\":\"active\",\"welcome_at\":{at},\"held_at\":{},\"decided_at\":{}}}\n",
        at + 1_000_000,
        at + 1_042_000
    );
    fs::write(&report, takeover).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["plot", "--title", "Here <we> are"])
        .arg(&trace);
    command.arg("--report").arg(&report).arg("-o").arg(&out);
    assert!(command.status().unwrap().success());
    let picture = fs::read_to_string(&out).unwrap();
    for part in [
        "<svg",
        "Here &lt;we&gt; are",
        "0.042 ms",
        "nothing lost",
        "</svg>",
    ] {
        assert!(picture.contains(part), "{part}");
    }
}

#[test]
fn what_cannot_be_read_or_made_is_named_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Habit::Echo);
    let nowhere = folder.path().join("no").join("where");
    let mut traced = client(server.address, "-d 0.1 --trace");
    traced.arg(&nowhere);
    let mut plotted = Command::new(BINARY);
    plotted.arg("plot").arg(&nowhere);
    let mut joined = Command::new(BINARY);
    joined.arg("join").arg(&nowhere);
    for mut command in [traced, plotted, joined] {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("no/where"), "{said}");
    }
}

/// Runs a shell's `set-up` before the client.
fn after(set_up: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{set_up}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn files_beyond_their_size_limit_cost_themselves_and_not_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Habit::Echo);
    for flag in ["--trace", "--save", "--hgrm"] {
        let file = folder.path().join(flag);
        let words = format!("-c 2 -R 400 -d 0.3 -q --json {flag}");
        let mut command = client(server.address, &words);
        // Blocks of 512 or of 1,024 bytes, as the shell has it.
        let output = after("ulimit -f 1", command.arg(&file)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(flag) && said.contains("too large"), "{said}");
        let verdict = Verdict::of(output);
        assert_eq!(verdict.code, 1);
        assert_eq!(verdict.json["verdict"], "ok", "{}", verdict.json);
        assert!(fs::metadata(&file).unwrap().len() >= 512);
    }
}

#[test]
fn trace_to_a_fifo_whose_reader_hangs_is_no_gap_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let server = Server::start(Habit::Echo);
    let words = "-c 2 -R 400 -d 0.5 -q --json --max-gap 1000 --trace";
    // A reader that has left room for one page: the first lines.
    let reader = fs::File::options().read(true).write(true).open(&path);
    let mut reader = reader.unwrap();
    reader.write_all(&[b'\n'; 15 * 4_096]).unwrap();
    let output = client(server.address, words).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--trace: its reader or disk hangs"), "{said}");
    let verdict = Verdict::of(output);
    assert_eq!(verdict.code, 1);
    assert_eq!(verdict.json["verdict"], "ok", "{}", verdict.json);
}

#[test]
fn trace_to_a_fifo_that_nobody_reads_is_refused_before_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let server = Server::start(Habit::Echo);
    let output = client(server.address, "-d 0.1 -q --trace")
        .arg(&path)
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nobody reads it"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}
