//! An offer to be taken over: a listening socket that gets the name PATH in one step.
//!
//! ```text
//!           bind                    publish                    withdraw
//!   ·  ─────────────▶ temporary ───────────────▶ published ───────────────▶ ·
//!                         │ drop                     │ drop
//!                         ▼                          ▼
//!                     unlinked                name left alone
//! ```
//!
//! All that can fail for good is done by [`Offer::bind`], under a short temporary name in the
//! same directory. Publishing is a rename(2): callers meet the old socket or the new one,
//! never a gap. It can be tried again. Who must not fail then calls [`Offer::reserve`] before:
//! it finds everything that could be in the way, and keeps the lock.
//!
//! Invariants:
//! - the file's mode is 0600 from its first moment, whatever the umask;
//! - what is replaced or removed was looked at under the lock on PATH.lock, so of two
//!   processes that find the same stale name only one takes it;
//! - a name is removed only while it is our own socket's: after a takeover PATH is the
//!   successor's, and is left alone.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstatat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, unlinkat};

use super::folder::{Folder, explained};
use super::lock::{Holder, Lock};
use super::{Channel, Entry, Probe, Sight, TakeoverPath, glance, look};
use crate::sys;

/// A socket that takers connect to.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    pub(super) path: TakeoverPath,
    pub(super) folder: Folder,
    /// The present name in `folder`.
    name: OsString,
    pub(super) inode: Inode,
    published: bool,
    /// From [`Offer::reserve`] until it is published.
    reserved: Option<Lock>,
}

/// What publishing may put our socket in the place of, beside nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// A socket that nobody listens on: for a plain start.
    Stale,
    /// Also one that a live process listens on: for a taker, who owns what was offered there.
    Live,
}

/// Why an offer is not published. It still can be.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// PATH is taken, by what.
    Taken(Probe),
    /// The lock on PATH.lock is taken: another process publishes at the same PATH just now, which
    /// takes microseconds, or is about to take over, or uses the file for something of its own.
    Locked {
        /// Who took it. None if that cannot be seen from here: it is in another PID namespace, or
        /// has ended there and left the lock to a process that it started.
        holder: Option<Holder>,
    },
    /// The system's own reason.
    Os(io::Error),
}

impl Offer {
    /// Makes a socket that listens under a temporary name beside `path`.
    ///
    /// To be called by the process that will serve it, after any fork: listen(2) notes the
    /// credentials that callers are shown.
    ///
    /// # Errors
    /// If the directory does not exist or cannot be written, or at a limit.
    pub fn bind(path: &TakeoverPath) -> io::Result<Offer> {
        Offer::bind_in(path, path.open_directory()?)
    }

    pub(super) fn bind_in(path: &TakeoverPath, folder: Folder) -> io::Result<Offer> {
        sweep(&folder);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        // bind(2) gives the file the mode that the socket has, less the umask, or as the folder's
        // default ACL has it (`net/unix/af_unix.c`).
        fchmod(&socket, MODE)?;
        let name = bind_temporary(&socket, &folder).map_err(explained)?;
        let inode = inode_of(&folder, &name)?.ok_or(Errno::ENOENT)?;
        // From here on Drop removes the temporary name if a step fails.
        let offer = Offer {
            listener: UnixListener::from(socket),
            path: path.clone(),
            folder,
            name,
            inode,
            published: false,
            reserved: None,
        };
        // Before listen, so that nobody has met another mode: until then all are refused.
        set_mode(&offer.folder, &offer.name, offer.inode)?;
        // Before listen: connections inherit the option, and it is to cover the first one.
        sys::refuse_passed_fds(&offer)?;
        socket::listen(&offer, Backlog::new(BACKLOG)?)?;
        Ok(offer)
    }

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

    /// Gives the socket its name PATH. Once done, calling again changes nothing. A lock of
    /// [`Offer::reserve`] is used, and free again whether this succeeds or not.
    ///
    /// # Errors
    /// Why not; the socket goes on listening under its temporary name.
    pub fn publish(&mut self, replace: Replace) -> Result<(), PublishError> {
        if self.published {
            return Ok(());
        }
        let _lock = match self.reserved.take() {
            Some(lock) => lock,
            None => self.lock()?,
        };
        self.check_name(replace)?;
        renameat(
            &self.folder,
            self.name.as_os_str(),
            &self.folder,
            self.path.name.as_os_str(),
        )?;
        self.name.clone_from(&self.path.name);
        self.published = true;
        Ok(())
    }

    /// Whether it was given its name; that may have been taken from it since.
    pub(crate) fn is_published(&self) -> bool {
        self.published
    }

    /// Where it is, or will be, offered.
    #[must_use]
    pub fn path(&self) -> &TakeoverPath {
        &self.path
    }

    /// The next caller, if there is one. Its identity is still to be asked for.
    ///
    /// # Errors
    /// Those of accept(2): `EMFILE` and `ENFILE` at a limit, where the caller stays queued.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(Channel::new(stream.into())))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the offer at the end of the service: PATH is removed if it is still ours.
    ///
    /// # Errors
    /// If PATH is ours and cannot be removed.
    pub fn withdraw(self) -> Result<(), PublishError> {
        self.remove_name(WAITS)
    }

    /// Ends an offer in whose place another one of ours is. In the same folder that one has the
    /// name; a folder that callers do not find any more still has this one's.
    pub(crate) fn retire(self) {
        if let Err(error) = self.remove_name(1) {
            log::debug!("{}: {error}", self.path);
        }
    }

    /// Removes the name if it is PATH and ours, for which the lock is tried so many times.
    fn remove_name(&self, tries: u32) -> Result<(), PublishError> {
        if !self.published {
            return Ok(()); // Drop removes the temporary name.
        }
        for attempt in 0..tries {
            if inode_of(&self.folder, &self.name)? != Some(self.inode) {
                return Ok(()); // It is a successor's by now.
            }
            if attempt > 0 {
                thread::sleep(WAIT);
            }
            match self.lock() {
                Ok(_lock) => return Ok(self.unlink()?),
                // Whoever publishes puts another socket in place of ours. A taker that had the
                // lock from its reservation gives it up: it has just lost its donor.
                Err(PublishError::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(()) // A stale name, at worst, which the next start replaces.
    }

    fn lock(&self) -> Result<Lock, PublishError> {
        Lock::take(&self.folder, &self.path.name)
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
    fn check_name(&self, replace: Replace) -> Result<(), PublishError> {
        let (folder, name) = (&self.folder, &self.path.name);
        let obstacle = match replace {
            Replace::Stale => match Probe::from(look(folder, name)?) {
                Probe::Free | Probe::Stale => None,
                taken => Some(taken),
            },
            // Who listens there has just been taken over, and need not be called once more.
            Replace::Live => glance(folder, name)?,
        };
        obstacle.map_or(Ok(()), |taken| Err(PublishError::Taken(taken)))
    }

    fn unlink(&self) -> nix::Result<()> {
        // The number cannot be another file's: our socket holds on to its inode.
        if inode_of(&self.folder, &self.name)? != Some(self.inode) {
            return Ok(());
        }
        unlinkat(
            &self.folder,
            self.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )
    }
}

impl AsFd for Offer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = self.unlink()
        {
            log::warn!(
                "{} stays in {}: {error}",
                self.name.display(),
                self.path.directory.display()
            );
        }
    }
}

/// Of PATH and PATH.lock: nobody else's business.
pub(super) const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A file, whatever its name: device and number.
pub(crate) type Inode = (u64, u64);

/// Callers that may wait while one takeover is under way. They are told BUSY in turn.
const BACKLOG: i32 = 16;
/// Temporary names that one process may have, or may find taken, in a directory.
const NAMES: u32 = 64;
const PREFIX: &str = ".takeover.";
/// How often, and how long each time, a service that ends waits for the lock on PATH.lock.
const WAITS: u32 = 20;
const WAIT: Duration = Duration::from_millis(5);
/// No process needs so long from bind to listen, where its socket would seem stale.
const SETTLED: Duration = Duration::from_secs(60);

/// Binds to a name of our own. It is short, so that it fits into a sockaddr_un behind the
/// folder's descriptor however long PATH is.
fn bind_temporary(socket: &OwnedFd, folder: &Folder) -> nix::Result<OsString> {
    for number in 0..NAMES {
        let name = format!("{PREFIX}{}.{number}", process::id());
        let address = UnixAddr::new(folder.path_to(&name).as_str())?;
        match socket::bind(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(name.into()),
            Err(Errno::EADDRINUSE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EADDRINUSE)
}

/// Gives a file of ours [`MODE`], if it has another one. By a descriptor: in a folder of everybody
/// another file may have come to have the name.
pub(super) fn set_mode(folder: &Folder, name: &OsStr, inode: Inode) -> io::Result<()> {
    let Some(entry) = Entry::open(folder, name)? else {
        return Err(Errno::ENOENT.into());
    };
    if entry.inode == inode && entry.mode != MODE {
        let path = format!("/proc/self/fd/{}", entry.file.as_raw_fd());
        fchmodat(AT_FDCWD, path.as_str(), MODE, FchmodatFlags::FollowSymlink).map_err(explained)?;
    }
    Ok(())
}

/// Removes temporary names whose processes were killed before they could. Best effort: what
/// stays does no harm.
fn sweep(folder: &Folder) {
    let Ok(entries) = fs::read_dir(folder.path_to("")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && is_settled(&entry)
            && let Ok(Sight::Refuses) = look(folder, &name)
        {
            let _ = unlinkat(folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn is_settled(entry: &DirEntry) -> bool {
    let made = entry.metadata().and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > SETTLED))
}

pub(super) fn inode_of(folder: impl AsFd, name: &OsStr) -> nix::Result<Option<Inode>> {
    Ok(stat_of(folder, name)?.map(|found| (found.st_dev, found.st_ino)))
}

pub(super) fn stat_of(folder: impl AsFd, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<Errno> for PublishError {
    fn from(error: Errno) -> Self {
        PublishError::Os(error.into())
    }
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        PublishError::Os(error)
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Taken(by) => by.fmt(out),
            PublishError::Locked {
                holder: Some(holder),
            } => write!(out, "PATH.lock is locked by {holder}"),
            PublishError::Locked { holder: None } => out.write_str(
                "PATH.lock is locked by a process that cannot be seen from here (another PID \
                 namespace): wait until that is done, or find it with fuser(1) on the host",
            ),
            PublishError::Os(error) => write!(out, "cannot be published: {error}"),
        }
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PublishError::Os(error) => Some(error),
            PublishError::Taken(_) | PublishError::Locked { .. } => None,
        }
    }
}
