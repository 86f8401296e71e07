//! Every fault of a server is named in the verdict, once, and nothing else is.

mod common;

use std::time::Duration;

use common::{Habit, Server, run};

/// 150 messages, of which the sixth meets the server's fault.
const LOAD: &str = "-R 500 -d 0.3 --drain-timeout 0.5";

/// Runs against one habit and returns the failures with their counts.
fn faults_of(habit: Habit, words: &str) -> Vec<(String, u64)> {
    let verdict = run(Server::start(habit).address, words);
    verdict.adds_up();
    let failures = verdict.failures().into_iter();
    failures
        .map(|name| (name.to_owned(), verdict.count(name)))
        .collect()
}

fn named(name: &str, count: u64) -> (String, u64) {
    (name.to_owned(), count)
}

#[test]
fn lost_message_is_one_lost() {
    assert_eq!(faults_of(Habit::Lose(5), LOAD), [named("lost", 1)]);
}

#[test]
fn lost_message_among_many_connections_is_one_lost() {
    let server = Server::start_with(|index| {
        Some(if index == 7 {
            Habit::Lose(5)
        } else {
            Habit::Echo
        })
    });
    let verdict = run(server.address, "-c 50 -R 2000 -d 0.5 --drain-timeout 0.5");
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["lost"]);
    assert_eq!(verdict.count("lost"), 1);
}

#[test]
fn lost_message_of_a_pipelined_closed_loop_is_one_lost_and_the_loop_goes_on() {
    let verdict = run(
        Server::start(Habit::Lose(5)).address,
        "--closed -D 2 -d 0.5 --drain-timeout 0.5",
    );
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["lost"]);
    assert_eq!(verdict.count("lost"), 1);
    assert!(verdict.count("received") > 20);
}

#[test]
fn doubled_message_is_one_doubled() {
    assert_eq!(faults_of(Habit::Double(5), LOAD), [named("doubled", 1)]);
}

#[test]
fn swapped_messages_are_one_reordered() {
    assert_eq!(faults_of(Habit::Swap(5), LOAD), [named("reordered", 1)]);
}

#[test]
fn changed_byte_is_one_run_and_one_damaged_message() {
    let expected = [named("corrupted", 1), named("damaged", 1)];
    assert_eq!(faults_of(Habit::Corrupt(5), LOAD), expected);
}

#[test]
fn changed_byte_of_the_only_answer_due_does_not_end_a_closed_loop() {
    let verdict = run(Server::start(Habit::Corrupt(5)).address, "--closed -d 0.5");
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["corrupted", "damaged"]);
    assert!(verdict.count("received") > 5);
}

#[test]
fn missing_byte_is_one_run_and_one_damaged_message() {
    let expected = [named("corrupted", 1), named("damaged", 1)];
    assert_eq!(faults_of(Habit::Cut(5), LOAD), expected);
}

#[test]
fn foreign_byte_is_one_run_and_damages_nothing() {
    let verdict = run(Server::start(Habit::Pad(5)).address, LOAD);
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["corrupted"]);
    assert_eq!(
        (verdict.count("corrupted"), verdict.count("corrupted_bytes")),
        (1, 1)
    );
}

#[test]
fn server_that_stops_answering_is_stalled_and_the_rest_is_lost() {
    let verdict = run(Server::start(Habit::Stall(5)).address, LOAD);
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["lost", "stalled"]);
    assert_eq!(
        (verdict.count("stalled"), verdict.count("received")),
        (1, 5)
    );
    assert!(verdict.stderr.contains("still owes answers"));
    assert!(verdict.json["longest_gap_ms"].as_f64().unwrap() > 500.0);
}

#[test]
fn closed_connection_is_named_and_loses_what_was_unanswered() {
    let verdict = run(Server::start(Habit::Close(5)).address, "-R 500");
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["lost", "closed_by_server"]);
    assert_eq!(
        (verdict.count("closed_by_server"), verdict.count("received")),
        (1, 5)
    );
    assert!(verdict.stderr.contains("no connection is left"));
}

#[test]
fn reset_connection_is_named_and_loses_what_was_unanswered() {
    // No duration: the run ends because nothing is left.
    let verdict = run(Server::start(Habit::Reset(5)).address, "-R 500");
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["lost", "resets"]);
    assert_eq!(verdict.count("resets"), 1);
}

#[test]
fn silent_connection_that_ends_is_named_and_loses_nothing() {
    // The second connection is closed at once; both are idle.
    let server = Server::start_with(|index| (index == 0).then_some(Habit::Echo));
    let verdict = run(server.address, "-c 2 --idle 100 --connect-rate 20 -d 0.3");
    assert!(
        verdict
            .failures()
            .iter()
            .any(|&name| name == "closed_by_server" || name == "resets")
    );
    assert_eq!(verdict.code, 1);
}

#[test]
fn idle_connection_that_nobody_serves_any_more_is_stalled() {
    let expected = [named("lost", 1), named("stalled", 1)];
    assert_eq!(
        faults_of(Habit::Stall(0), "--idle 100 -d 0.1 --drain-timeout 0.2"),
        expected
    );
}

#[test]
fn refused_connections_after_a_good_start_are_counted() {
    // The third connection, one of churn's, makes the listener go away.
    let server = Server::start_with(|index| (index < 2).then_some(Habit::Echo));
    let verdict = run(
        server.address,
        "-c 2 -R 500 -d 1 --churn 50 --drain-timeout 0.5",
    );
    assert!(verdict.failures().contains(&"connect_failures"));
    assert_eq!(verdict.code, 1);
}

/// No answer comes for so long, however late the client itself is.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn pause_longer_than_allowed_fails_and_is_measured() {
    let server = Server::start(Habit::Nap(20, PAUSE));
    let verdict = run(server.address, "-R 200 -d 0.5 --max-gap 50");
    verdict.adds_up();
    assert_eq!(verdict.failures(), ["gaps_over_max"]);
    assert!(verdict.json["longest_gap_ms"].as_f64().unwrap() >= 99.0);
    assert!(verdict.stderr.contains("waited"));
}

#[test]
fn pause_without_a_limit_is_only_reported() {
    let server = Server::start(Habit::Nap(20, PAUSE));
    let verdict = run(server.address, "-R 200 -d 0.5");
    verdict.adds_up();
    assert_eq!(verdict.code, 0);
    assert!(verdict.json["longest_gap_ms"].as_f64().unwrap() >= 99.0);
}

#[test]
fn pause_shows_in_every_message_that_was_due_meanwhile() {
    // A third of the messages become due in the nap, but with a depth of 1 none is sent:
    // measured from when it was sent, one single message would show the nap.
    let nap = Habit::Nap(20, Duration::from_millis(200));
    let verdict = run(Server::start(nap).address, "-R 200 -d 0.6 -D 1");
    verdict.adds_up();
    assert_eq!(verdict.code, 0);
    let p90 = verdict.json["latency_us"]["p90"].as_f64().unwrap();
    assert!(p90 > 80_000.0, "{p90}");
}

#[test]
fn complaint_names_connection_address_and_numbers_and_quiet_has_none() {
    let server = Server::start(Habit::Lose(5));
    let loud = run(server.address, LOAD);
    assert!(
        loud.stderr.contains("connection 0 [127.0.0.1]:"),
        "{}",
        loud.stderr
    );
    assert!(loud.stderr.contains("expected 5, got 6: 1 missing so far"));
    let quiet = run(server.address, &format!("{LOAD} -q"));
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.failures(), ["lost"]);
}

#[test]
fn flood_of_faults_is_counted_but_not_all_complained_about() {
    let server = Server::start(Habit::Double(5));
    let verdict = run(server.address, "-c 300 -R 6000 -d 0.6");
    assert_eq!(verdict.count("doubled"), 300);
    assert!(verdict.stderr.lines().count() < 250);
    assert!(
        verdict
            .stderr
            .contains("further complaints are only counted")
    );
}
