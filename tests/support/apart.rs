//! A part of a test that needs a process, a user or a network of its own.
//!
//! The test binary runs once more, for one test alone. Where the machine does not allow it
//! (only root may become another user) the test says that it was skipped, and why.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::geteuid;

/// In the environment of a part: what is to be played.
const PART: &str = "TEST_PART";
/// And where.
const PATH: &str = "TEST_PATH";

/// The full name of a test of this module, as the harness of its binary knows it.
macro_rules! test_name {
    ($test:expr) => {
        match module_path!().split_once("::") {
            Some((_, module)) => format!("{module}::{}", $test),
            None => $test.to_owned(),
        }
    };
}
pub(crate) use test_name;

/// This test binary, to be run again by anybody.
#[derive(Debug)]
pub struct Program(File);

impl Program {
    pub fn this() -> Program {
        let exe = std::env::current_exe().expect("this runs");
        Program::at(&exe)
    }

    /// By descriptor, as the way to the program may be barred for other users.
    pub fn at(file: &Path) -> Program {
        let file = File::open(file).expect("it is there");
        // For the program that is run by one that is run.
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("it is open");
        Program(file)
    }

    pub fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Plays `part` at `path`, by the test of this [full name](test_name); `before` is a program,
    /// and its arguments, that runs it.
    pub fn part(&self, before: &[&str], test: &str, part: &str, path: &Path) -> Command {
        let mut words: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        words.push(self.name());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--exact", test, "--nocapture"])
            .env(PART, part)
            .env(PATH, path)
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }
}

/// Which part this process plays, and where; none if it is the test itself.
pub fn played() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(PART).ok()?, std::env::var_os(PATH)?.into()))
}

/// A user that nothing on a system belongs to.
pub const STRANGER: u32 = 12345;

/// As another user, who belongs to nobody's groups.
pub fn as_user(command: &mut Command, uid: u32) -> &mut Command {
    command.uid(uid).gid(uid)
}

/// Whether this test can play another user.
pub fn is_root() -> bool {
    if !geteuid().is_root() {
        eprintln!("skipped: needs root to play another user");
    }
    geteuid().is_root()
}

/// Opens a folder for everybody: to look into (0o755), or to write to (0o777).
pub fn open_folder(of: &Path, mode: u32) {
    let folder = of.parent().expect("it is in a folder");
    fs::set_permissions(folder, Permissions::from_mode(mode)).expect("it is ours");
}

/// True in a network of our own with these settings (sysctl(8)). Outside of it this runs
/// the test of this [full name](test_name) once more, inside, and is false.
///
/// # Panics
/// If the test fails inside.
pub fn in_own_network(test: &str, settings: &[&str]) -> bool {
    let mut script = "ip link set lo up".to_owned();
    for setting in settings {
        script.push_str(&format!(" && sysctl -q -w '{setting}'"));
    }
    inside(test, "--net", "ip link set lo up", &script)
}

/// The same with mounts of our own, which nobody else sees and which end with the test.
pub fn in_own_mounts(test: &str) -> bool {
    inside(test, "--mount", "mount -t tmpfs none /mnt", "true")
}

/// True inside; outside it runs the test inside if `probe` can be run there, `script` first.
fn inside(test: &str, space: &str, probe: &str, script: &str) -> bool {
    if std::env::var(PART).is_ok_and(|part| part == test) {
        return true;
    }
    let alone: &[&str] = match geteuid().is_root() {
        true => &[space],
        false => &["--user", "--map-root-user", space],
    };
    let mut command = Command::new("unshare");
    let allowed = command.args(alone).args(["sh", "-c", probe]);
    if !allowed.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot have a namespace and run {probe:?} in it");
        return false;
    }
    let inside = Command::new("unshare")
        .args(alone)
        .args(["sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this runs"))
        .args(["--exact", test, "--nocapture"])
        .env(PART, test)
        .status();
    assert!(inside.expect("unshare(1) runs").success(), "inside");
    false
}
