//! The command line of the real binary: every refusal is exit code 2, one line on stderr that
//! says what to do, and not a trace in the file system.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

/// Runs the service in an empty folder; says also what was found there afterwards.
fn run<A: AsRef<OsStr>>(args: &[A]) -> (Output, usize) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_socket-takeover"))
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, fs::read_dir(folder.path()).unwrap().count())
}

fn assert_refused<A: AsRef<OsStr> + std::fmt::Debug>(args: &[A], expected: &str) {
    let (output, made) = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    assert_eq!(made, 0, "{args:?} made files");

    let line = stderr.strip_suffix('\n').unwrap_or_default();
    assert!(
        line.starts_with("socket-takeover: "),
        "{args:?}: {stderr:?}"
    );
    assert!(!line.chars().any(char::is_control), "{args:?}: {stderr:?}");
    assert!(
        line.contains(expected),
        "{args:?}: {expected:?} not in {line:?}"
    );
    assert!(line.contains("; "), "{args:?}: no remedy in {line:?}");
}

/// A line of words, run with a pid file and a takeover path that must not come into being.
fn assert_line_refused(line: &str, expected: &str) {
    assert_refused(&line.split(' ').collect::<Vec<_>>(), expected);
}

#[test]
fn unknown_doubled_or_incomplete_option_is_refused() {
    for (line, expected) in [
        ("-x", "option -x: there is no such option"),
        ("--no-such-option", "option --no-such-option"),
        ("-T x --takeover-pat y", "option --takeover-pat:"),
        ("-dx", "option -x"),
        (
            "-a 127.0.0.1 -a 127.0.0.1 -p 0",
            "option --listen-address: is given more than once",
        ),
        ("-a :: --listen-address=:: -p 0", "more than once"),
        ("-a :: -p 0 -p 0", "more than once"),
        (
            "-a :: -p 0 -d -d",
            "option --daemon: is given more than once",
        ),
        ("-T x -T y", "option --takeover: is given more than once"),
        ("-a :: -p 0 -t x -t y", "more than once"),
        ("-a :: -p", "option -p: needs a value"),
        ("-a :: --listen-port", "option --listen-port: needs a value"),
        ("-a :: -p 0 --deadline", "needs a value"),
        ("-a :: -p 0 --daemon=yes", "option --daemon: takes no value"),
        ("-a :: -p 0 -l=yes", "there is no such option"),
        (
            "-a :: -p 0 --check-positions",
            "--check-positions without -t",
        ),
        ("-T x --check-positions --check-positions", "more than once"),
    ] {
        assert_line_refused(line, expected);
    }
}

#[test]
fn operand_is_refused() {
    assert_line_refused("-a :: -p 0 extra", "operand \"extra\"");
    assert_line_refused("start", "operand \"start\"");
    assert_line_refused("-a :: -p 0 -- -d", "operand \"-d\"");
    assert_refused(&["-a", "::", "-p", "0", ""], "operand \"\"");
}

#[test]
fn argument_that_is_not_utf8_is_refused() {
    let bad = OsStr::from_bytes(b"/tmp/\xff\xfe");
    assert_refused(&[OsStr::new("-T"), bad], "not valid UTF-8");
    let mut joined = OsString::from("--pid-file=");
    joined.push(bad);
    assert_refused(&[joined], "not valid UTF-8");
}

#[test]
fn port_that_is_none_is_refused() {
    for port in [
        "", "80x", "x", " 80", "80 ", "+80", "-1", "0x50", "8 0", "٨٠", "80\n",
    ] {
        assert_refused(
            &["-a", "127.0.0.1", "-p", port],
            "plain digits; give a number from 0",
        );
    }
    for port in ["65536", "18446744073709551616", "99999999999999999999999"] {
        assert_refused(
            &["-a", "127.0.0.1", "-p", port],
            "out of range; give a number from 0",
        );
    }
}

#[test]
fn address_that_is_none_is_refused() {
    for address in [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "127.0.0.1x",
        "127.0.0.1 ",
        " 127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        ":::",
        "1::2::3",
        "*",
    ] {
        assert_refused(
            &["-a", address, "-p", "0"],
            "not a complete IPv4 or IPv6 address",
        );
    }
    for (address, expected) in [
        ("::1%", "only a link-local"),
        (
            "::1%lo",
            "only a link-local IPv6 address belongs to an interface; remove %lo",
        ),
        ("127.0.0.1%lo", "only a link-local"),
        ("fe80::1", "say which, as in fe80::1%eth0"),
        ("fe80::1%", "no interface"),
        ("fe80::1%0", "no interface"),
        ("fe80::1%no such one", "there is no interface"),
        ("fe80::1%lo%lo", "there is no interface"),
    ] {
        assert_refused(&["-a", address, "-p", "0"], expected);
    }
    for address in ["224.0.0.1", "ff02::1", "255.255.255.255"] {
        assert_refused(&["-a", address, "-p", "0"], "group address");
    }
}

#[test]
fn half_a_listener_is_refused() {
    assert_line_refused("-a 127.0.0.1", "-a without -p");
    assert_line_refused("-p 80", "-p without -a");
    assert_line_refused("-t x", "nothing to serve");
    assert_refused::<&str>(&[], "nothing to serve");
}

#[test]
fn backlog_and_idle_timeout_out_of_range_are_refused() {
    for count in ["0", "2147483648", "18446744073709551616"] {
        assert_refused(&["-a", "::", "-p", "0", "-b", count], "-b");
    }
    for count in ["", "-1", "many", "1.5"] {
        assert_refused(&["-a", "::", "-p", "0", "-b", count], "plain digits");
    }
    for seconds in ["0", "604801"] {
        assert_refused(&["-a", "::", "-p", "0", "-i", seconds], "out of range");
    }
    assert_refused(&["-a", "::", "-p", "0", "-i", "10s"], "plain digits");
}

#[test]
fn path_that_no_socket_can_have_is_refused() {
    for (path, expected) in [
        ("", "empty"),
        ("/", "directory"),
        ("/tmp", "directory"),
        ("x/", "directory"),
        (".", "directory"),
        ("..", "directory"),
        ("x/..", "directory"),
        (&"x".repeat(108), "108 bytes"),
        (&"x".repeat(4096), "4096 bytes"),
        (&"ä".repeat(54), "108 bytes"),
    ] {
        assert_refused(&["-a", "::", "-p", "0", "-t", path], expected);
        assert_refused(&["-T", path], expected);
    }
    for path in ["", "x/", "."] {
        assert_refused(&["-a", "::", "-p", "0", "-P", path], "-P");
    }
}

#[test]
fn takeover_with_what_comes_from_the_donor_is_refused() {
    for (option, value) in [
        ("-a", "::"),
        ("-p", "0"),
        ("-b", "1"),
        ("-i", "1"),
        ("-t", "x"),
        ("-t", "y"),
    ] {
        assert_refused(&["-T", "x", option, value], &format!("{option} with -T"));
        assert_refused(&[option, value, "-T", "x"], &format!("{option} with -T"));
    }
}

#[test]
fn deadline_that_is_none_is_refused() {
    for (deadline, expected) in [
        ("", "has no \"=\""),
        ("freeze", "has no \"=\""),
        ("nap=10", "there is no such step"),
        ("Freeze=10", "there is no such step"),
        ("=10", "there is no such step"),
        ("freeze=", "plain digits"),
        ("freeze=1s", "plain digits"),
        ("freeze=0", "out of range"),
        ("freeze=3600001", "out of range"),
    ] {
        assert_refused(&["-a", "::", "-p", "0", "--deadline", deadline], expected);
    }
    assert_line_refused(
        "-a :: -p 0 --deadline freeze=1 --deadline hello=1 --deadline freeze=1",
        "has a deadline already",
    );
}

#[test]
fn log_that_goes_nowhere_is_refused() {
    assert_line_refused(
        "-a :: -p 0 -d -G",
        "-d with -G: the daemon would log nowhere",
    );
    assert_line_refused("-a :: -p 0 -G -S daemon", "-S with -G");
    for facility in ["", "kern", "mail", "LOCAL0", "local8", "8", "-1"] {
        assert_refused(
            &["-a", "::", "-p", "0", "-S", facility],
            "not a facility for services",
        );
    }
}

#[test]
fn refusal_leaves_a_named_socket_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let socket = UnixListener::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    assert_refused(
        &[OsStr::new("-T"), path.as_os_str(), OsStr::new("-b1")],
        "-b with -T",
    );
    assert!(socket.accept().is_err(), "the socket was connected to");
    assert!(path.exists());
}

#[test]
fn help_and_version_go_to_stdout() {
    for (option, expected) in [
        ("-h", "Usage: socket-takeover"),
        ("--help", "Usage: socket-takeover"),
        ("-V", concat!("socket-takeover ", env!("CARGO_PKG_VERSION"))),
        ("--version", "socket-takeover "),
    ] {
        let (output, made) = run(&[option]);
        assert_eq!(output.status.code(), Some(0), "{option}");
        assert!(output.stderr.is_empty(), "{option}");
        assert_eq!(made, 0);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.starts_with(expected), "{option}: {stdout}");
        assert!(
            stdout.lines().all(|line| line.chars().count() <= 80),
            "{option}: {stdout}"
        );
    }
}

#[test]
fn refusal_to_a_full_stderr_keeps_its_exit_code() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert!((&full).write(b"x").is_err());
    let status = Command::new(env!("CARGO_BIN_EXE_socket-takeover"))
        .arg("--no-such-option")
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn help_to_a_full_stdout_fails() {
    let status = Command::new(env!("CARGO_BIN_EXE_socket-takeover"))
        .arg("--help")
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
