//! The pid file of the service, as it serves on, takes over and leaves.
//!
//! Whatever is wrong with the pid file costs a warning. It never costs a takeover, or the service.
//!
//! | | |
//! |---|---|
//! | a taker without one gets the donor's | becomes ours, and names us before the donor is told to leave |
//! | that one cannot be used | left alone, a warning behind the claim; HUP looks again |
//! | a taker has one of its own | the donor's is removed |
//! | its name has gone | made again at a takeover, and by HUP |

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Server;
use crate::daemon::aside;
use crate::daemon::pidfile::{PidFile, PidFileError};

/// How long the end of the service waits for the disk.
const LONGEST: Duration = Duration::from_millis(100);

/// What a donor has handed over as its pid file.
#[derive(Debug)]
pub(super) enum Donors {
    File(PidFile),
    /// It stays where it is.
    Unusable(PathBuf, PidFileError),
}

impl Donors {
    /// `file` is none if it came in a way that this release does not know.
    pub(super) fn adopt(file: Option<OwnedFd>, path: &Path) -> Donors {
        let unknown = || PidFileError::Foreign {
            path: path.to_owned(),
            what: "handed over in a way that this release does not know",
        };
        let adopted = file
            .ok_or_else(unknown)
            .and_then(|file| PidFile::adopt(file, path));
        match adopted {
            Ok(file) => Donors::File(file),
            Err(error) => Donors::Unusable(path.to_owned(), error),
        }
    }
}

impl Server {
    /// The donor's pid file becomes ours, unless we were given one: then the donor's, which
    /// would go on naming a process that is gone, is removed.
    pub(super) fn move_into_pid_file(&mut self) {
        match (&self.pid_file, self.donors_pid_file.take()) {
            (None, Some(Donors::File(file))) => {
                self.pid_file = Some(file);
                self.renew_pid_file();
            }
            (None, Some(Donors::Unusable(path, error))) => {
                log::warn!("{error}. There is none until a HUP finds it in order");
                self.missing_pid_file = Some(path);
            }
            (Some(_), Some(Donors::File(file))) => remove(file),
            (Some(_), Some(Donors::Unusable(_, error))) => log::warn!("the donor's {error}"),
            (_, None) => {}
        }
    }

    /// Makes sure that the file is there and names this process.
    pub(super) fn renew_pid_file(&mut self) {
        let Some(file) = &mut self.pid_file else {
            return;
        };
        match file.renew() {
            Ok(true) => log::warn!(
                "pid file {:?} had been removed and is made again",
                file.path()
            ),
            Ok(false) => {
                if let Err(error) = file.write_aside() {
                    log::warn!("pid file {:?}: {error}", file.path());
                }
            }
            Err(error) => log::warn!("{error}"),
        }
    }

    /// The same, or the second try for a file that could not be used.
    pub(super) fn restore_pid_file(&mut self) {
        match self.missing_pid_file.as_deref().map(PidFile::open) {
            None => self.renew_pid_file(),
            Some(Ok(file)) => {
                log::info!("pid file {:?} is ours", file.path());
                self.pid_file = Some(file);
                self.missing_pid_file = None;
            }
            Some(Err(error)) => log::warn!("{error}"),
        }
    }

    /// The service stops.
    pub(super) fn remove_pid_file(&mut self) {
        if let Some(file) = self.pid_file.take() {
            remove(file);
        }
    }
}

/// A disk that does not answer does not hold up the end: the name is removed when it does.
fn remove(file: PidFile) {
    let path = file.path().to_owned();
    match aside::within(LONGEST, move || file.remove()) {
        Some(Ok(())) => {}
        Some(Err(error)) => log::warn!("pid file {path:?}: {error}"),
        None => log::warn!("pid file {path:?}: its disk does not answer; it may stay"),
    }
}
