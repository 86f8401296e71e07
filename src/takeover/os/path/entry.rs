//! A directory entry: the file that a name leads to, opened with O_PATH, and a call to it.
//!
//! The file is opened without following a symbolic link and looked at by its descriptor, and the
//! connection goes through that descriptor too (`/proc/self/fd/N`): whatever happens to the name
//! meanwhile, all answers are about one file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};

use super::{ConnectError, Probe};
use crate::procfs;
use crate::takeover::os::folder::{Folder, Inode};
use crate::takeover::os::identity;

/// Of PATH and PATH.lock: nobody else's business.
pub(in crate::takeover::os) const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A file of any kind, opened with O_PATH.
#[derive(Debug)]
pub(super) struct Entry {
    file: OwnedFd,
    pub(super) inode: Inode,
    kind: SFlag,
    mode: Mode,
    owner: u32,
}

impl Entry {
    /// None if the name leads nowhere.
    pub(super) fn open(folder: &Folder, name: &OsStr) -> nix::Result<Option<Entry>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = fstat(&file)?;
        Ok(Some(Entry {
            file,
            inode: (found.st_dev, found.st_ino),
            kind: SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT,
            mode: Mode::from_bits_truncate(found.st_mode),
            owner: found.st_uid,
        }))
    }

    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }

    /// What keeps it from being a socket that may be called.
    pub(super) fn obstacle(&self) -> Option<Probe> {
        let kind = match self.kind {
            SFlag::S_IFSOCK if identity::is_trusted(self.owner) => return None,
            SFlag::S_IFSOCK => return Some(Probe::Foreign { uid: self.owner }),
            SFlag::S_IFREG => "a regular file",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFIFO => "a FIFO",
            _ => "a device",
        };
        Some(Probe::NotASocket(kind))
    }

    /// Connects as a taker does, if it is a socket that may be called.
    pub(super) fn connect(&self) -> Result<OwnedFd, ConnectError> {
        if let Some(found) = self.obstacle() {
            return Err(ConnectError::NoDonor(found));
        }
        let os = |error: Errno| ConnectError::Other(procfs::explain(error));
        let found = match self.connect_as(SockType::SeqPacket) {
            Ok(socket) => return Ok(socket),
            Err(Errno::EAGAIN) => return Err(ConnectError::Busy),
            Err(Errno::ECONNREFUSED) => Probe::Stale,
            // Connecting a datagram socket has no effect on the other side, whatever it is.
            Err(Errno::EPROTOTYPE) => match self.connect_as(SockType::Datagram) {
                Ok(_) => Probe::NotASocket("a datagram socket"),
                Err(Errno::EPROTOTYPE) => Probe::OtherProtocol,
                Err(Errno::ECONNREFUSED) => Probe::Stale,
                Err(error) => return Err(os(error)),
            },
            Err(error) => return Err(os(error)),
        };
        Err(ConnectError::NoDonor(found))
    }

    /// Never waits: a Unix socket connects at once, or says EAGAIN.
    pub(super) fn connect_as(&self, kind: SockType) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, kind, flags, None)?;
        let address = UnixAddr::new(self.by_descriptor().as_str())?;
        loop {
            match socket::connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map(|()| socket),
            }
        }
    }

    /// A name of this very file (proc_pid_fd(5)).
    fn by_descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Gives a file of ours [`MODE`], if it has another one. By a descriptor: in a folder of everybody
/// another file may have come to have the name.
pub(in crate::takeover::os) fn set_mode(
    folder: &Folder,
    name: &OsStr,
    inode: Inode,
) -> io::Result<()> {
    let Some(entry) = Entry::open(folder, name)? else {
        return Err(Errno::ENOENT.into());
    };
    if entry.inode == inode && entry.mode != MODE {
        let path = entry.by_descriptor();
        fchmodat(AT_FDCWD, path.as_str(), MODE, FchmodatFlags::FollowSymlink)
            .map_err(procfs::explain)?;
    }
    Ok(())
}
