//! A server without fault passes in every mode, and the modes do what they say.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Habit, Server, Verdict, client, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs against a good server and expects a clean verdict.
fn clean(words: &str) -> (Verdict, Server) {
    let server = Server::start(Habit::Echo);
    let verdict = run(server.address, words);
    verdict.adds_up();
    assert_eq!(verdict.code, 0);
    assert_eq!(verdict.json["verdict"], "ok");
    (verdict, server)
}

/// Messages that are due at a rate until the run's end, which a machine that is busy reaches late.
fn due_in(verdict: &Verdict, rate: u64) -> u64 {
    let elapsed = verdict.json["elapsed_s"].as_f64().unwrap();
    1 + (elapsed * rate as f64).ceil() as u64
}

#[test]
fn one_connection_at_a_rate_keeps_the_rate() {
    let (verdict, _) = clean("-R 200 -d 0.5");
    let sent = verdict.count("sent");
    assert!(sent >= 50 && sent <= due_in(&verdict, 200), "{sent}");
    assert_eq!(verdict.json["loop"], "open");
    assert!(verdict.json["late_us"]["count"].as_u64().unwrap() >= sent - 1);
}

#[test]
fn default_is_ten_messages_a_second_on_each_connection() {
    let (verdict, _) = clean("-c 5 -d 0.5");
    let sent = verdict.count("sent");
    assert!(sent >= 10 && sent <= due_in(&verdict, 5 * 10), "{sent}");
}

#[test]
fn closed_loop_is_as_fast_as_the_server() {
    let (verdict, _) = clean("--closed -d 0.3 -c 2");
    assert!(verdict.count("sent") > 100);
    assert_eq!(verdict.json["loop"], "closed");
}

#[test]
fn closed_loop_with_depth_pipelines() {
    let (_, server) = clean("--closed -d 0.3 -D 16");
    let first = server.seen()[0][0];
    assert!(first > 4, "{first} bytes in the first read");
}

#[test]
fn idle_connections_are_silent_until_one_message_at_the_end() {
    let (verdict, server) = clean("-c 4 --idle 50 --closed -d 0.3");
    let totals: Vec<usize> = server
        .seen()
        .iter()
        .map(|reads| reads.iter().sum())
        .collect();
    assert_eq!(
        totals.iter().filter(|&&total| total == 4).count(),
        2,
        "{totals:?}"
    );
    assert_eq!(
        verdict.count("sent"),
        totals.iter().sum::<usize>() as u64 / 4
    );
}

#[test]
fn half_messages_arrive_in_two_pieces() {
    let (_, server) = clean("-c 4 --half 100 -d 1 -R 4");
    for reads in server.seen() {
        let first = reads[0];
        assert!((1..4).contains(&first), "{reads:?}");
        assert_eq!(first + reads[1], 4, "{reads:?}");
    }
}

#[test]
fn split_messages_are_never_whole_for_long() {
    let (verdict, server) = clean("-c 4 --split -R 400 -d 0.5");
    let odd = server
        .seen()
        .concat()
        .iter()
        .filter(|&&length| length % 4 != 0)
        .count();
    assert!(
        odd as u64 > verdict.count("sent") / 2,
        "{odd} reads within a message"
    );
}

#[test]
fn unread_connections_fill_all_buffers_and_check_every_byte() {
    let (verdict, _) = clean("-c 2 --unread 100 -R 20 -d 3");
    assert!(verdict.count("sent") > 10_000);
}

#[test]
fn churn_replaces_connections_and_loses_nothing() {
    let (verdict, _) = clean("-c 10 -R 500 -d 1 --churn 50");
    assert!(verdict.count("churned") > 5);
    // The last one may not have come up before the end.
    let opened = 10 + verdict.count("churned");
    assert!((opened - 1..=opened).contains(&verdict.count("established")));
}

#[test]
fn everything_at_once_is_clean() {
    let words = "-c 40 -R 1000 -d 2 --idle 20 --half 20 --unread 20 --split --churn 20 -D 4 \
                 --sources 3 --connect-rate 400 --seed 11 --max-gap 60000";
    let (verdict, _) = clean(words);
    assert_eq!(verdict.count("seed"), 11);
    assert_eq!(verdict.json["max_gap_ms"], 60_000.0);
}

#[test]
fn connect_rate_spreads_the_opening() {
    let start = std::time::Instant::now();
    clean("-c 6 --connect-rate 20 -d 0.1");
    assert!(start.elapsed().as_millis() >= 250);
}

#[test]
fn ready_line_and_file_tell_how_many_are_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ready");
    let (verdict, _) = clean(&format!("-c 3 -d 0.1 --ready-file {}", file.display()));
    assert!(verdict.stdout.starts_with("ready: 3 connections\n"));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "ready: 3 connections\n"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn drawn_seed_is_printed_and_in_the_verdict() {
    let (verdict, _) = clean("-d 0.05");
    assert!(
        verdict
            .stderr
            .contains(&format!("seed: {}", verdict.count("seed")))
    );
}

#[test]
fn verbose_names_each_connection() {
    let (verdict, _) = clean("-c 2 -d 0.05 -v");
    for what in [
        "connection 0 [127.0.0.1]:",
        "connection 1 [127.0.0.1]:",
        ": up",
        ": closed",
    ] {
        assert!(verdict.stderr.contains(what), "{what}: {}", verdict.stderr);
    }
}

#[test]
fn text_verdict_tells_the_same() {
    let server = Server::start(Habit::Echo);
    let output = client(server.address, "-R 100 -d 0.2").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\nOK: every message came back once"),
        "{text}"
    );
    assert!(text.contains("0 lost, 0 doubled, 0 reordered"), "{text}");
}

#[test]
fn signal_ends_an_endless_run_with_a_verdict() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = Server::start(Habit::Echo);
        let mut command = client(server.address, "-c 3 -R 1000 --json");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut ready, mut verdict) = (String::new(), String::new());
        stdout.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready: 3 connections\n");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        stdout.read_line(&mut verdict).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{verdict}");
        let json: serde_json::Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(json["interrupted"], true);
        assert_eq!(json["verdict"], "ok");
    }
}

#[test]
fn second_signal_does_not_wait_for_answers() {
    let server = Server::start(Habit::Stall(0));
    let mut command = client(server.address, "-R 1000 --json --drain-timeout 86400");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    stdout.read_line(&mut ready).unwrap();
    // Two that come before the first is taken are one, so ask until it is heard.
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        std::thread::yield_now();
    };
    assert!(status.code().is_some());
}

#[test]
fn signal_before_all_are_up_is_no_verdict() {
    let server = Server::start(Habit::Echo);
    let mut command = client(server.address, "-c 2 --connect-rate 0.001");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Signals are taken before the seed is told.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    line.clear();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("before all connections were up"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]));
}
