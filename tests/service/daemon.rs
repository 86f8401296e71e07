//! What the real binary does before it becomes a daemon: whatever is wrong with the pid file
//! is said on the terminal, by exit code 1, and nothing is left behind.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn start(pid_file: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_socket-takeover"))
        .args(["-a", "127.0.0.1", "-p", "0", "-P"])
        .arg(pid_file)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn assert_refused(pid_file: &Path, expected: &str) {
    for more in [&[][..], &["-d"]] {
        let output = start(pid_file, more);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("socket-takeover: pid file "), "{stderr}");
        assert!(stderr.contains(expected), "{expected} not in {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn held_pid_file_names_its_owner() {
    let folder = folder();
    let path = folder.path().join("pid");
    fs::write(&path, "     12345\n").unwrap();
    let held = File::options().write(true).open(&path).unwrap();
    #[allow(deprecated)]
    nix::fcntl::flock(held.as_raw_fd(), nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert_refused(&path, "process 12345 holds it");
    assert_eq!(fs::read_to_string(&path).unwrap(), "     12345\n");
}

#[test]
fn file_with_other_content_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("precious");
    fs::write(&path, "precious\n").unwrap();
    assert_refused(&path, "other content");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious\n");
}

#[test]
fn file_of_another_user_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("pid");
    fs::write(&path, "         1\n").unwrap();
    if chown(&path, Some(12_345), None).is_err() {
        return println!("skipped: needs root to give a file away");
    }
    assert_refused(&path, "it belongs to uid 12345");
    assert_eq!(fs::read_to_string(&path).unwrap(), "         1\n");
}

#[test]
fn symbolic_link_is_not_followed() {
    let folder = folder();
    let path = folder.path().join("pid");
    symlink(folder.path().join("target"), &path).unwrap();
    assert_refused(&path, "symbolic link");
    assert!(!folder.path().join("target").exists());
}

#[test]
fn unusable_folder_is_said_before_the_fork() {
    assert_refused(
        &folder().path().join("missing/pid"),
        "No such file or directory",
    );
    assert_refused(folder().path(), "Is a directory");
}
