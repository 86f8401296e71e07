use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use super::*;

/// A process that has nothing to do with any pid file.
struct Stranger(Child);

impl Stranger {
    fn new() -> Stranger {
        Stranger(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("shard.pid")
    }

    /// A pid file with this in it, whose lock nobody holds.
    fn left(&self, content: &str) -> std::path::PathBuf {
        fs::write(self.file(), content).unwrap();
        self.file()
    }

    /// A process that holds the lock, and whose number is not in the file.
    fn locker(&self) -> Stranger {
        let mut locker = Stranger(
            Command::new("flock")
                .arg("--no-fork")
                .arg(self.file())
                .args(["sh", "-c", "echo locked; exec sleep 600"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = [0; 7];
        let stdout = locker.0.stdout.as_mut().unwrap();
        io::Read::read_exact(stdout, &mut line).unwrap();
        locker
    }
}

#[track_caller]
fn nobody(file: &Path, why: &str) {
    match Owner::of(file) {
        Err(NoOwner::Nobody(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn number_of_a_living_process_without_the_lock_is_nobody() {
    let (place, stranger) = (Place::new(), Stranger::new());
    let file = place.left(&format!("{:10}\n", stranger.0.id()));
    nobody(&file, "stale");
    nobody(&file, &stranger.0.id().to_string());
}

#[test]
fn lock_held_by_another_than_the_file_names_is_nobody() {
    let (place, stranger) = (Place::new(), Stranger::new());
    let file = place.left(&format!("{:10}\n", stranger.0.id()));
    let _locker = place.locker();
    nobody(&file, "stale");
}

#[test]
fn holder_of_the_lock_is_found_told_and_waited_for() {
    let place = Place::new();
    place.left("");
    let mut locker = place.locker();
    let file = place.left(&format!("{:10}\n", locker.0.id()));
    let owner = Owner::of(&file).unwrap();
    assert_eq!(owner.pid(), locker.0.id());
    assert!(!owner.has_ended_within(Duration::ZERO).unwrap());
    owner.tell_to_stop().unwrap();
    assert!(owner.has_ended_within(Duration::from_secs(60)).unwrap());
    // Not collected yet: a zombie serves nobody.
    nobody(&file, "stale");
    assert_eq!(locker.0.wait().unwrap().signal(), Some(15));
    owner.tell_to_stop().unwrap();
    nobody(&file, "stale");
}

#[test]
fn content_that_is_no_process_number_is_nobody() {
    let place = Place::new();
    for content in [
        "",
        "0\n",
        "-1\n",
        "-4711\n",
        "sshd\n",
        "1 2\n",
        "4294967297\n",
        "99999999999999999999",
        "1\n                                      ",
        "\u{0}\u{0}",
    ] {
        nobody(&place.left(content), "no process number");
    }
}

#[test]
fn file_that_is_no_file_is_nobody_and_keeps_nobody_waiting() {
    let place = Place::new();
    nobody(&place.file(), "is not there");
    // Of a process that does hold it.
    let elsewhere = Place::new();
    elsewhere.left("");
    let locker = elsewhere.locker();
    let real = elsewhere.left(&format!("{}\n", locker.0.id()));
    symlink(&real, place.file()).unwrap();
    nobody(&place.file(), "symbolic link");
    fs::remove_file(place.file()).unwrap();
    let fifo = Command::new("mkfifo").arg(place.file()).status().unwrap();
    assert!(fifo.success());
    nobody(&place.file(), "no regular file");
    fs::remove_file(place.file()).unwrap();
    fs::create_dir(place.file()).unwrap();
    nobody(&place.file(), "no regular file");
}

#[test]
fn file_of_another_user_is_nobody() {
    if !geteuid().is_root() {
        println!("skipped: needs root to give a file away");
        return;
    }
    let place = Place::new();
    place.left("");
    let locker = place.locker();
    let file = place.left(&format!("{}\n", locker.0.id()));
    chown(&file, Some(12345), None).unwrap();
    nobody(&file, "user 12345");
}

#[test]
fn lock_is_found_without_taking_it_where_proc_tells() {
    let place = Place::new();
    place.left("");
    let locker = place.locker();
    let file = File::open(place.left(&format!("{}\n", locker.0.id()))).unwrap();
    assert!(is_locked(&file).unwrap());
    let pid = Pid::from_raw(locker.0.id().cast_signed()).unwrap();
    let info = fs::read_dir(format!("/proc/{}/fdinfo", pid.as_raw_nonzero())).unwrap();
    let shown = info
        .flatten()
        .any(|fd| fs::read_to_string(fd.path()).is_ok_and(|info| info.lines().any(is_flock)));
    assert!(shown, "this kernel does not show locks");
    drop(locker);
    assert!(!is_locked(&file).unwrap());
}
