//! All that could be in the way of publishing, found before it must not fail any more.
//!
//! | in the way | found by |
//! |---|---|
//! | another process publishes at PATH | the lock, which is kept |
//! | the folder was moved, or removed and made anew | the folder that PATH leads to now |
//! | our temporary name was removed | the file that has the name now |
//! | a read-only file system, no right to write | faccessat(2) |
//! | a sticky folder with another user's socket at PATH | both owners (unlink(2), EPERM) |
//! | something at PATH that may not be replaced | a look at it |

use std::io;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::{Offer, PublishError, Replace};
use crate::takeover::os::folder::{inode_of, stat_of};
use crate::takeover::os::path::{Probe, peek, probe_in};

impl Offer {
    /// Takes the lock on PATH.lock and keeps it until this offer is published or dropped, and
    /// looks for all that could be in the way of [`Offer::publish`] with [`Replace::Live`]: what is
    /// left for that is a rename(2). For a taker, before anybody is held. Once done, calling again
    /// changes nothing.
    ///
    /// Meanwhile nobody else can publish at PATH; the donor's offer stays there and answers.
    ///
    /// # Errors
    /// What is in the way; nothing is locked then, and it can be tried again.
    pub fn reserve(&mut self) -> Result<(), PublishError> {
        if self.published || self.reserved.is_some() {
            return Ok(());
        }
        let lock = self.lock()?;
        self.check_folder()?;
        self.check_name(Replace::Live)?;
        self.reserved = Some(lock);
        Ok(())
    }

    /// Whether a rename within the folder can work: it is still the one that PATH leads to, our
    /// temporary name is in it, and we may write there (which says EROFS, too).
    fn check_folder(&self) -> Result<(), PublishError> {
        if self.folder.moved(&self.path.directory)?.is_some() {
            let what = "its folder was moved away, or removed and made anew";
            return Err(PublishError::Os(io::Error::other(what)));
        }
        if inode_of(&self.folder, &self.name)? != Some(self.inode) {
            let what = format!("{} was removed", self.name.display());
            return Err(PublishError::Os(io::Error::other(what)));
        }
        let writable = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(&self.folder, ".", writable, AtFlags::AT_EACCESS)?;
        // In a folder with the sticky bit only a file's owner, the folder's and root may replace
        // it (unlink(2), EPERM).
        let folder = self.folder.stat()?;
        let user = geteuid();
        let is_restricted = folder.st_mode & libc::S_ISVTX != 0
            && !user.is_root()
            && folder.st_uid != user.as_raw();
        if is_restricted
            && let Some(there) = stat_of(&self.folder, &self.path.name)?
            && there.st_uid != user.as_raw()
        {
            return Err(Errno::EPERM.into());
        }
        Ok(())
    }

    /// Whether what is at PATH may be replaced.
    pub(super) fn check_name(&self, replace: Replace) -> Result<(), PublishError> {
        let (folder, name) = (&self.folder, &self.path.name);
        let obstacle = match replace {
            Replace::Stale => match probe_in(folder, name)? {
                Probe::Free | Probe::Stale => None,
                taken => Some(taken),
            },
            // The process that listens there has just been taken over: no need to call it again.
            Replace::Live => peek(folder, name)?,
        };
        obstacle.map_or(Ok(()), |taken| Err(PublishError::Taken(taken)))
    }
}
