//! What has become of a published name, and making it anew.
//!
//! A name can vanish while its socket lives: a cleaner of old files, a script, a runtime folder
//! that is removed and made anew with a unit. Nobody finds the socket any more then, though it
//! listens on.
//!
//! | at PATH, in the folder that callers find | [`Standing`] |
//! |---|---|
//! | our socket's own file | `Ours` |
//! | nothing, or a socket that refuses | `Gone`: to be made anew |
//! | the same, in a folder in which strangers could do what they like | `Exposed`: left |
//! | a living socket that is not ours, or no socket | `Taken`: left |
//! | no folder | `NoFolder` |

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::folder::{Folder, Inode, inode, stat_of};
use super::offer::Offer;
use super::path::{Probe, probe_in};

/// See the [file's own description](self).
#[derive(Debug)]
pub(crate) enum Standing {
    Ours,
    Gone,
    Exposed,
    /// By whom, and which file that is.
    Taken(Probe, Inode),
    /// By the one that was not to be called again.
    Spared,
    NoFolder,
    /// Its folder is on a file system on which a look could wait for ever.
    Unknown,
}

/// Where cleaners remove what is old (tmpfiles.d(5), the XDG base directories' rules).
const CLEANED: [&str; 3] = ["/tmp", "/var/tmp", "/run/user"];
/// How old a name gets in such a folder. They leave alone what is younger than 6 hours (the
/// shortest there is a rule for) to 30 days.
const OLD: Duration = Duration::from_secs(3 * 3600);

impl Offer {
    /// What has become of the name. Only a process that listens in our place is called, and not
    /// even that one if its socket's file is `spared`.
    ///
    /// # Errors
    /// If that cannot be told.
    pub(crate) fn standing(&self, spared: Option<Inode>) -> io::Result<Standing> {
        if self.folder.is_remote() {
            return Ok(Standing::Unknown);
        }
        let moved = match self.folder.moved(&self.path.directory) {
            Ok(moved) => moved,
            Err(Errno::ENOENT) => return Ok(Standing::NoFolder),
            Err(error) => return Err(error.into()),
        };
        let folder = moved.as_ref().unwrap_or(&self.folder);
        if folder.is_remote() {
            return Ok(Standing::Unknown);
        }
        let found = stat_of(folder, &self.path.name)?;
        let inode = found.as_ref().map(inode);
        if let Some(found) = &found
            && inode == Some(self.inode)
        {
            self.keep_young(folder, found);
            return Ok(Standing::Ours);
        }
        if inode.is_some() && inode == spared {
            return Ok(Standing::Spared);
        }
        Ok(match (probe_in(folder, &self.path.name)?, inode) {
            (Probe::Free | Probe::Stale, _) if folder.is_exposed()? => Standing::Exposed,
            (Probe::Free | Probe::Stale, _) => Standing::Gone,
            (by, Some(inode)) => Standing::Taken(by, inode),
            // It came this moment. Publishing looks again, under the lock.
            (_, None) => Standing::Gone,
        })
    }

    /// Another socket for the same PATH, in the folder that callers find now; not published.
    ///
    /// # Errors
    /// As [`Offer::bind`].
    pub(crate) fn renew(&self) -> io::Result<Offer> {
        let folder = match self.folder.moved(&self.path.directory)? {
            Some(folder) => folder,
            None => self.folder.try_clone()?,
        };
        Offer::bind_in(&self.path, folder)
    }

    /// Cleaners go by a file's times, which nothing sets on a socket that is only called.
    ///
    /// It is a write, which a frozen file system makes wait until it is thawed (`fsfreeze(8)`):
    /// so it is done where cleaners are at home and nowhere else, and some times a day. /run and
    /// often /tmp are a tmpfs, which cannot be frozen. What fails costs the name, at worst, and
    /// then it is made anew.
    fn keep_young(&self, folder: &Folder, found: &FileStat) {
        let is_cleaned = CLEANED
            .iter()
            .any(|top| self.path.directory.starts_with(Path::new(top)));
        if is_cleaned && age(found, SystemTime::now()) > OLD {
            let (now, flag) = (TimeSpec::UTIME_NOW, UtimensatFlags::NoFollowSymlink);
            let _ = utimensat(folder, self.path.name.as_os_str(), &now, &now, flag);
        }
    }
}

/// Since its access and its change, whichever was later.
fn age(found: &FileStat, now: SystemTime) -> Duration {
    let seconds = found.st_atime.max(found.st_mtime);
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    now.duration_since(UNIX_EPOCH + seconds).unwrap_or_default()
}
