//! What ends before it begins: exit codes 2 and 69, and one line that says why.

mod common;

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use common::client;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

const BINARY: &str = env!("CARGO_BIN_EXE_takeover-client");

/// A loopback address where nobody listens, and nobody can as long as the descriptor is held.
fn nobody() -> (OwnedFd, SocketAddr) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let held = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = getsockname(held.as_raw_fd()).unwrap();
    (held, SocketAddrV4::from(address).into())
}

fn outcome(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn bad_input_is_one_line_and_exit_2() {
    for words in [
        "",
        "-a 127.0.0.1",
        "-a localhost -p 1",
        "-a 127.0.0.1 -p 99999",
        "-a 127.0.0.1 -p 1 -c none",
        "-a 127.0.0.1 -p 1 --idle=120",
        "-a 127.0.0.1 -p 1 --closed --rate=5",
        "-a 127.0.0.1 -p 1 --nonsense",
    ] {
        let mut command = Command::new(BINARY);
        command.args(words.split_whitespace());
        let (code, stdout, stderr) = outcome(command);
        assert_eq!(code, Some(2), "{words}: {stderr}");
        assert_eq!(stdout, "", "{words}");
        assert_eq!(stderr.lines().count(), 1, "{words}: {stderr}");
        assert!(stderr.starts_with("takeover-client: "), "{words}: {stderr}");
    }
}

#[test]
fn more_connections_than_descriptors_is_exit_2_and_names_the_limit() {
    let mut command = Command::new("sh");
    let script = "ulimit -n 64 && exec \"$0\" -a 127.0.0.1 -p 1 -c 100";
    command.args(["-c", script, BINARY]);
    let (code, _, stderr) = outcome(command);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("-c 100") && stderr.contains("64"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn nobody_there_is_exit_69() {
    let (_held, nobody) = nobody();
    for words in ["-q", "-q -c 100 --json", "-q --sources 2 --connect-rate 5"] {
        let (code, stdout, stderr) = outcome(client(nobody, words));
        assert_eq!(code, Some(69), "{words}: {stderr}");
        assert_eq!(stdout, "");
        assert!(stderr.contains("nobody answers at 127.0.0.1:"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn source_address_that_is_not_ours_is_exit_1_and_named() {
    let (_held, nobody) = nobody();
    let (code, _, stderr) = outcome(client(nobody, "-q --source 192.0.2.1"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("192.0.2.1"), "{stderr}");
}

#[test]
fn ready_file_that_cannot_be_written_is_exit_1_and_named() {
    let server = common::Server::start(common::Habit::Echo);
    let words = "-q -d 0.1 --ready-file /proc/nowhere/ready";
    let (code, _, stderr) = outcome(client(server.address, words));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/proc/nowhere/ready"), "{stderr}");
}

#[test]
fn verdict_that_nobody_takes_is_exit_1() {
    let server = common::Server::start(common::Habit::Echo);
    let mut command = client(server.address, "-q -d 0.1");
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = command.stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn help_teaches_on_stdout() {
    for flag in ["-h", "--help"] {
        let mut command = Command::new(BINARY);
        command.arg(flag);
        let (code, stdout, stderr) = outcome(command);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(
            stdout.contains("Examples") && stdout.contains("Exit codes"),
            "{stdout}"
        );
        assert!(
            stdout.lines().all(|line| line.chars().count() <= 80),
            "{stdout}"
        );
    }
}

#[test]
fn version_is_one_line() {
    let mut command = Command::new(BINARY);
    command.arg("--version");
    let (code, stdout, _) = outcome(command);
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout,
        concat!("takeover-client ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
