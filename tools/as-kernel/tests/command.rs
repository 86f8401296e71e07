//! The command: its exit codes, and that it acts.

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_as-kernel"));
    command.args(words).output().unwrap()
}

#[test]
fn wrong_call_is_refused() {
    for words in [&[][..], &["6"], &["six.four", "true"], &["6.4"]] {
        let refused = run(words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.starts_with("as-kernel: ") && said.contains("--help"),
            "{said}"
        );
    }
}

#[test]
fn command_runs_with_its_own_exit_code_and_knows_the_version() {
    let script = "echo $AS_KERNEL; exit 7";
    let ran = run(&["5.4", "sh", "-c", script]);
    assert_eq!(ran.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "5.4\n");
    assert_eq!(run(&["5.4", "/nonexistent"]).status.code(), Some(127));
}

/// The test plays the command as well.
#[test]
fn call_that_came_later_fails_and_came_before_works() {
    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let test = "call_that_came_later_fails_and_came_before_works";
    if let Ok(version) = std::env::var("AS_KERNEL") {
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        if version == "5.2" {
            assert_eq!(own.err(), Some(Errno::NOSYS));
        } else {
            let copied = pidfd_getfd(own.unwrap(), 0, PidfdGetfdFlags::empty());
            let there = version == "5.6";
            assert_eq!(copied.err(), (!there).then_some(Errno::NOSYS), "{version}");
        }
        return;
    }
    let exe = std::env::current_exe().unwrap();
    for version in ["5.2", "5.5", "5.6"] {
        let ran = run(&[version, exe.to_str().unwrap(), "--exact", test]);
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stdout)
        );
    }
}
