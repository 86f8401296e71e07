//! Failpoints are in no service but the one that tests build for themselves; one that there is
//! none of is found out before anything is done.

use std::fs;
use std::path::Path;

use crate::support;
use crate::support::{Stage, failpoints};

/// What a service with failpoints asks the environment for.
const VARIABLE: &[u8] = b"TAKEOVER_FAILPOINT";

fn has_failpoints(program: &Path) -> bool {
    let program = fs::read(program).expect("it is built");
    program.windows(VARIABLE.len()).any(|part| part == VARIABLE)
}

#[test]
fn service_that_tests_leave_in_target_has_no_failpoints() {
    // In this order: the second build must not come in the place of the first.
    assert!(has_failpoints(failpoints::service()));
    assert!(!has_failpoints(Path::new(failpoints::PLAIN)));
}

#[test]
fn unknown_failpoint_ends_either_start_with_one_line_and_2() {
    let stage = Stage::new();
    let mut donor = stage.serve(&[]);
    let mut taker = stage.take_over_failing("donor.await-claim.before:die", &[]);
    assert_eq!(taker.wait_exit(), 2);
    let lines = taker.log().lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("the actions are kill"), "{lines:?}");
    assert!(donor.is_running());
    assert_eq!(donor.log().count("Accepting connection"), 0);

    let other = Stage::new();
    let args = ["-G", "-a", "127.0.0.1", "-p", "0", "-t"].map(String::from);
    let path = other.path().display().to_string();
    let args = [&args[..], &[path]].concat();
    let mut cold = support::Server::start_failing("taker.grant.before:kill", &args);
    assert_eq!(cold.wait_exit(), 2);
    assert!(!other.path().exists());
    cold.wait_line("the states are hello, receive");
}
