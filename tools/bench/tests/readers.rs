//! Figures that nobody reads are not measured: one line, exit code 1, no panic.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

#[test]
fn measurement_that_nobody_reads_ends_in_order() {
    for what in ["--help", "dispatch", "timers"] {
        let (nobody, _) = UnixStream::pair().unwrap();
        let mut bench = Command::new(env!("CARGO_BIN_EXE_takeover-bench"));
        let output = bench
            .arg(what)
            .stdout(OwnedFd::from(nobody))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
        assert!(stderr.starts_with("takeover-bench: "), "{what}: {stderr}");
    }
}
