//! Lock, content and name, each against what could go wrong with it.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

/// A failed test must not leave its threads running.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    fn holding(content: &str) -> Self {
        let place = Self::new();
        fs::write(place.path(), content).unwrap();
        place
    }

    fn open(&self) -> Result<PidFile, PidFileError> {
        PidFile::open(&self.path())
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

fn ours() -> String {
    format!("{:10}\n", process::id())
}

#[test]
fn fresh_file_holds_our_pid_in_fixed_width() {
    let place = Place::new();
    let pid_file = place.open().unwrap();
    assert_eq!(place.content(), ours());
    assert_eq!(place.content().len() as u64, CONTENT_BYTES);
    assert_eq!(pid_file.path(), place.path());
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o133, 0, "{mode:o}");
}

#[test]
fn relative_name_is_kept_as_an_absolute_one() {
    let place = Place::new();
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", place.path().strip_prefix("/").unwrap().display());
    let pid_file = PidFile::open(Path::new(&relative)).unwrap();
    assert!(pid_file.path().is_absolute());
    pid_file.remove().unwrap();
    assert!(!place.path().exists());
}

#[test]
fn stale_content_is_written_over() {
    for content in [
        "",
        "1\n",
        "4194304",
        "         1\n",
        "         1\n\n\n",
        " 12 \n",
    ] {
        let place = Place::holding(content);
        place.open().unwrap();
        assert_eq!(place.content(), ours(), "after {content:?}");
    }
}

#[test]
fn held_file_names_its_owner_and_is_not_written() {
    let place = Place::new();
    let first = place.open().unwrap();
    fs::write(place.path(), "     12345\n").unwrap();
    match place.open() {
        Err(PidFileError::Held {
            owner: Some(12345), ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(place.content(), "     12345\n");
    fs::write(place.path(), "").unwrap();
    assert!(matches!(
        place.open(),
        Err(PidFileError::Held { owner: None, .. })
    ));
    drop(first);
    place.open().unwrap();
}

#[test]
fn what_is_no_pid_file_is_left_alone() {
    let long = "1".repeat(40);
    for content in [
        "root:x:0:0:",
        "12a",
        "-1\n",
        "1 2\n",
        "99999999999\n",
        &long,
        "\u{fffd}",
    ] {
        let place = Place::holding(content);
        let error = place.open().unwrap_err();
        assert!(
            matches!(error, PidFileError::Foreign { .. }),
            "{content:?}: {error}"
        );
        assert_eq!(place.content(), content);
    }
    let place = Place::new();
    fs::write(place.path(), [0xff, b'1']).unwrap();
    assert!(matches!(place.open(), Err(PidFileError::Foreign { .. })));
}

#[test]
fn symbolic_link_is_not_followed() {
    let place = Place::new();
    let target = place.folder.path().join("target");
    symlink(&target, place.path()).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("a symbolic link"), "{error}");
    assert!(!target.exists());
}

#[test]
fn fifo_directory_and_missing_folder_are_errors() {
    let place = Place::new();
    mkfifo(&place.path(), Mode::S_IRWXU).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");

    let error = PidFile::open(place.folder.path()).unwrap_err();
    assert!(matches!(error, PidFileError::Io { .. }), "{error}");
    let error = PidFile::open(&place.folder.path().join("missing/pid")).unwrap_err();
    assert!(matches!(error, PidFileError::Io { .. }), "{error}");
}

#[test]
fn errors_are_one_line_with_a_remedy() {
    let place = Place::new();
    let _held = place.open().unwrap();
    for error in [
        place.open().unwrap_err(),
        PidFile::open(Path::new("/no/such\nfolder")).unwrap_err(),
        PidFile::open(Path::new("/dev/null")).unwrap_err(),
    ] {
        let line = error.to_string();
        assert!(!line.contains('\n') && line.contains("; "), "{line:?}");
    }
}

#[test]
fn adopted_lock_outlives_the_donor() {
    let place = Place::new();
    let donor = place.open().unwrap();
    let passed = donor.as_fd().try_clone_to_owned().unwrap();
    let taker = PidFile::adopt(passed, &place.path()).unwrap();
    donor.forget();
    assert!(matches!(place.open(), Err(PidFileError::Held { .. })));
    assert!(place.path().exists());

    fs::write(place.path(), "     12345\n").unwrap();
    taker.write().unwrap();
    assert_eq!(place.content(), ours());
    taker.remove().unwrap();
    assert!(!place.path().exists());
}

#[test]
fn adopted_descriptor_without_the_lock_is_refused() {
    let place = Place::new();
    let _owner = place.open().unwrap();
    let other = File::options()
        .read(true)
        .write(true)
        .open(place.path())
        .unwrap();
    let error = PidFile::adopt(other.into(), &place.path()).unwrap_err();
    assert!(matches!(error, PidFileError::Held { .. }), "{error}");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = PidFile::adopt(socket.into(), &place.path()).unwrap_err();
    assert!(matches!(error, PidFileError::Foreign { .. }), "{error}");
}

#[test]
fn name_that_became_another_files_is_not_removed() {
    let place = Place::new();
    let pid_file = place.open().unwrap();
    fs::remove_file(place.path()).unwrap();
    fs::write(place.path(), "someone else's").unwrap();
    pid_file.remove().unwrap();
    assert_eq!(place.content(), "someone else's");
}

#[test]
fn name_that_is_gone_is_no_error() {
    let place = Place::new();
    let pid_file = place.open().unwrap();
    fs::remove_file(place.path()).unwrap();
    pid_file.remove().unwrap();
}

#[test]
fn name_that_is_gone_is_made_again_with_lock_and_content() {
    let place = Place::new();
    let mut pid_file = place.open().unwrap();
    assert!(!pid_file.renew().unwrap());
    fs::remove_file(place.path()).unwrap();
    assert!(pid_file.renew().unwrap());
    assert_eq!(place.content(), ours());
    assert!(matches!(place.open(), Err(PidFileError::Held { .. })));
    pid_file.remove().unwrap();
    assert!(!place.path().exists());
}

#[test]
fn name_that_became_another_files_is_not_made_again() {
    let place = Place::new();
    let mut pid_file = place.open().unwrap();
    fs::remove_file(place.path()).unwrap();
    fs::write(place.path(), "someone else's").unwrap();
    let error = pid_file.renew().unwrap_err().to_string();
    assert!(error.contains("another file by now"), "{error}");
    assert_eq!(place.content(), "someone else's");
}

#[test]
fn file_of_another_user_is_neither_opened_nor_adopted() {
    let place = Place::holding("         1\n");
    if std::os::unix::fs::chown(place.path(), Some(12_345), None).is_err() {
        return println!("skipped: needs root to give a file away");
    }
    let error = place.open().unwrap_err();
    assert!(matches!(error, PidFileError::Owner { uid: 12_345, .. }));
    let line = error.to_string();
    assert!(line.contains("uid 12345") && line.contains("; remove it"));
    let file = File::options().read(true).write(true).open(place.path());
    let error = PidFile::adopt(file.unwrap().into(), &place.path()).unwrap_err();
    assert!(matches!(error, PidFileError::Owner { .. }), "{error}");
    assert_eq!(place.content(), "         1\n");
}

#[test]
fn file_on_a_disk_is_written_beside_the_loop() {
    let place = Place::holding("         1\n");
    let pid_file = place.open().unwrap();
    pid_file.file.write_all_at(b"         2", 0).unwrap();
    match pid_file.write_aside() {
        // A slow machine: it comes all the same.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            while place.content() != ours() {
                thread::yield_now();
            }
        }
        written => written.unwrap(),
    }
    assert_eq!(place.content(), ours());
}

#[test]
fn forgotten_file_keeps_its_name() {
    let place = Place::new();
    place.open().unwrap().forget();
    assert_eq!(place.content(), ours());
}

#[test]
fn open_while_others_start_and_stop_never_holds_a_removed_file() {
    let place = Place::new();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    if let Ok(other) = place.open() {
                        other.remove().unwrap();
                    }
                }
            });
        }
        let _the_others_end = SetWhenDropped(&enough);
        let (mut tries, mut held) = (0, 0);
        // However the threads are scheduled: each has its turns.
        while tries < 5_000 || held < 100 {
            tries += 1;
            // Held by one of the others, or ours: then by its name, not by a removed file.
            if let Ok(pid_file) = place.open() {
                assert_eq!(pid_file.name(), Name::Ours);
                assert_eq!(place.content(), ours());
                assert!(matches!(place.open(), Err(PidFileError::Held { .. })));
                pid_file.remove().unwrap();
                held += 1;
            }
        }
    });
}

#[test]
fn reader_of_a_rewritten_file_always_sees_a_pid() {
    let place = Place::new();
    let pid_file = place.open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000 {
                pid_file.write().unwrap();
            }
        });
        for _ in 0..5_000 {
            assert_eq!(place.content(), ours());
        }
    });
}

#[test]
fn file_without_write_permission_is_an_error() {
    let place = Place::holding("");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write anyway; then there is nothing to see.
    if File::options()
        .append(true)
        .open(place.path())
        .and_then(|mut file| file.flush())
        .is_err()
    {
        assert!(matches!(place.open(), Err(PidFileError::Io { .. })));
    }
}
