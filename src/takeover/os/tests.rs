//! PATH, and offers at it, in folders of their own. What stands here is for all of them.

mod lock;
mod offer;
mod path;
mod standing;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;

use super::offer::{Offer, Replace};
use super::path::{Probe, TakeoverPath, probe};

/// A folder and the PATH `offer` in it.
struct Place {
    folder: TempDir,
    path: TakeoverPath,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = TakeoverPath::new(folder.path().join("offer")).unwrap();
        Place { folder, path }
    }

    fn publish(&self) -> Offer {
        let mut offer = Offer::bind(&self.path).unwrap();
        offer.publish(Replace::Stale).unwrap();
        offer
    }

    /// The file of a process that died without removing it.
    fn leave_stale(&self) {
        drop(self.publish());
        assert_eq!(probe(&self.path).unwrap(), Probe::Stale);
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn temporary_names(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name.starts_with(".takeover."));
        names
    }
}

fn set_age(file: &Path, age: Duration) {
    let then = SystemTime::now() - age;
    let then = TimeSpec::from(then.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let flag = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, file, &then, &then, flag).unwrap();
}
