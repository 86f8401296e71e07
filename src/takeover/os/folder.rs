//! The folder of PATH: the one that was opened, and the one that callers find.
//!
//! Both are the same until the folder is removed and made anew, moved away, or reached through a
//! symbolic link that now leads elsewhere. Callers look the name up, so the one that the name
//! leads to *now* is what counts. There is one exception: a process that has changed its root
//! since (chroot(2), pivot_root(2)) would look the name up in another tree than its callers. For
//! that one the opened folder is what counts, whatever the name leads to.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, stat};
use nix::sys::statfs::fstatfs;

use super::identity;

/// A file, whatever its name: device and number.
pub(crate) type Inode = (u64, u64);

/// A folder that is held open, so that names in it can be used whatever becomes of its own.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// The process's root when it was opened.
    root: Option<Inode>,
    is_remote: bool,
}

impl Folder {
    pub(super) fn open(path: &Path) -> nix::Result<Folder> {
        Ok(Folder::from(open_fd(path)?))
    }

    fn from(fd: OwnedFd) -> Folder {
        let (root, is_remote) = (root(), is_remote(&fd));
        Folder {
            fd,
            root,
            is_remote,
        }
    }

    /// The folder in which callers look for a name, if it is another one than this.
    ///
    /// # Errors
    /// `ENOENT` if the name leads nowhere; it cannot be looked up.
    pub(super) fn moved(&self, path: &Path) -> nix::Result<Option<Folder>> {
        if self.root != root() {
            return Ok(None);
        }
        let found = open_fd(path)?;
        let is_this = inode(&fstat(&found)?) == inode(&self.stat()?);
        Ok((!is_this).then(|| Folder::from(found)))
    }

    /// Whether another machine, or a process, stands behind its file system: then even a look at
    /// a name can wait for ever.
    pub(super) fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Whether users beside root and us could put other files in the place of ours.
    pub(super) fn is_exposed(&self) -> nix::Result<bool> {
        Ok(is_exposed(&self.stat()?))
    }

    pub(super) fn try_clone(&self) -> io::Result<Folder> {
        let fd = self.fd.try_clone()?;
        Ok(Folder { fd, ..*self })
    }

    pub(super) fn stat(&self) -> nix::Result<FileStat> {
        fstat(&self.fd)
    }

    /// A name of this folder that fits wherever a path is wanted, however long the folder's is.
    pub(super) fn path_to(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd())
    }
}

fn open_fd(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

fn is_remote(folder: &OwnedFd) -> bool {
    // statfs(2) has the numbers; `linux/magic.h` those that are missing there.
    const REMOTE: [i64; 9] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xfe53_4d42, // SMB2
        0xff53_4d42, // CIFS
        0x6573_5546, // FUSE
        0x00c3_6400, // Ceph
        0x0102_1997, // 9P
        0x5346_414f, // AFS
        0x7375_7245, // Coda
    ];
    #[allow(clippy::useless_conversion, reason = "its width differs by machine")]
    let found = fstatfs(folder).map(|found| i64::from(found.filesystem_type().0));
    // Where it has 32 bits its sign is extended.
    found.is_ok_and(|found| REMOTE.contains(&(found & 0xffff_ffff)))
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// See [`Folder::is_exposed`].
pub(super) fn is_exposed(folder: &FileStat) -> bool {
    const EVERYBODY_WRITES: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    !identity::is_trusted(folder.st_uid)
        || folder.st_mode & (EVERYBODY_WRITES | STICKY) == EVERYBODY_WRITES
}

fn root() -> Option<Inode> {
    stat("/").ok().map(|found| inode(&found))
}

pub(super) fn inode(found: &FileStat) -> Inode {
    (found.st_dev, found.st_ino)
}

/// The file that a name of a folder leads to; None if it leads nowhere.
pub(super) fn inode_of(folder: impl AsFd, name: &OsStr) -> nix::Result<Option<Inode>> {
    Ok(stat_of(folder, name)?.map(|found| inode(&found)))
}

/// As [`inode_of`], with all that is to be known of it.
pub(super) fn stat_of(folder: impl AsFd, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
