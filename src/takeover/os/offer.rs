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
//! never a gap. It can be tried again. A process that must not fail then calls
//! [`Offer::reserve`] before: it finds everything that could be in the way, and keeps the lock.
//!
//! Invariants:
//! - the file's mode is 0600 from its first moment, whatever the umask;
//! - what is replaced or removed was looked at under the lock on PATH.lock, so of two
//!   processes that find the same stale name only one takes it;
//! - a name is removed only while it is our own socket's: after a takeover PATH is the
//!   successor's, and is left alone.
//!
//! | file | |
//! |---|---|
//! | `offer/temporary.rs` | the temporary name, and those that killed processes have left |
//! | `offer/reserve.rs` | all that could be in the way of the rename |
//! | `offer/error.rs` | why an offer is not published |

mod error;
mod reserve;
mod temporary;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType};
use nix::sys::stat::fchmod;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::channel::Channel;
use super::folder::{Folder, Inode, inode_of};
use super::lock::Lock;
use super::path::{MODE, TakeoverPath, set_mode};
use crate::{procfs, sys};

pub use super::lock::Holder;
pub use error::PublishError;

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
    /// Also one that a live process listens on: for a taker, which owns what was offered there.
    Live,
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
        temporary::sweep(&folder);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        // bind(2) gives the file the mode that the socket has, less the umask, or as the folder's
        // default ACL has it (`net/unix/af_unix.c`).
        fchmod(&socket, MODE)?;
        let name = temporary::bind(&socket, &folder).map_err(procfs::explain)?;
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

/// Callers that may wait while one takeover is under way. They are told BUSY in turn.
const BACKLOG: i32 = 16;
/// How often, and how long each time, a service that ends waits for the lock on PATH.lock.
const WAITS: u32 = 20;
const WAIT: Duration = Duration::from_millis(5);
