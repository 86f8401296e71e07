//! The process id in a file that is locked for as long as the service lives.
//!
//! ```text
//!   open: lock, then write ──→ held ──→ remove   (stopped: the name goes, then the lock)
//!   adopt: of a donor      ──↗ │  ↑ ──→ forget   (handed over: name and lock live on)
//!                              └──┘ renew        (the name has gone: it is made again)
//! ```
//!
//! Invariants
//! - The lock is a flock(2): it belongs to the open file description, so it survives the
//!   forks of daemonizing and travels with the descriptor to a successor. There is no
//!   moment without a holder.
//! - Once the file is locked it is never empty and never names a dead owner. Its content has a
//!   fixed width, and the process that opens it writes over it in place, at once.
//! - Only a regular file that is empty or holds a pid is ever written to. A name is removed only
//!   while it is the name of our file.
//! - The file belongs to root or our own user. Any other owner could write to it, or lock it, at
//!   any moment of the service's life.
//! - No disk is waited for while the service serves: see [`PidFile::write_aside`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[allow(deprecated)]
use nix::fcntl::{FlockArg, flock};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use socket_takeover::takeover::internal::identity::is_trusted;

use super::aside;

mod error;
#[cfg(test)]
mod tests;

pub use error::PidFileError;

/// The content: ten columns hold every pid, and a line end.
const CONTENT_BYTES: u64 = 11;

/// How often to start over when the name changes hands meanwhile. Each time, that takes a service
/// that stops at that very moment.
const OPEN_TRIES: u32 = 10;

/// How long the loop waits for a disk, once in a takeover. So the file normally names the new owner
/// before the old one leaves, on a busy machine too.
const LONGEST: Duration = Duration::from_millis(100);

/// A locked pid file. Dropping it closes the file and keeps the name. Call [`remove`] or [`forget`]
/// instead.
///
/// [`remove`]: PidFile::remove
/// [`forget`]: PidFile::forget
#[derive(Debug)]
pub struct PidFile {
    file: Arc<File>,
    /// A thread is writing it.
    in_hand: Arc<AtomicBool>,
    path: PathBuf,
}

impl PidFile {
    /// Opens or makes the file, locks it, and writes the calling process's id.
    ///
    /// # Errors
    /// See [`PidFileError`]; nothing was written then.
    pub fn open(path: &Path) -> Result<Self, PidFileError> {
        let failed = |error| PidFileError::Io {
            path: path.to_owned(),
            error,
        };
        // A daemon leaves its working directory, and a successor may have another one.
        let path = &std::path::absolute(path).map_err(failed)?;
        for _ in 0..OPEN_TRIES {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
            // With O_CREAT an open waits for a frozen file system even if there is nothing to
            // make, and a taker only looks at the donor's file.
            let file = match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    options.create(true).open(path)
                }
                opened => opened,
            };
            let file = match file {
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                    return Err(foreign(path, "a symbolic link"));
                }
                other => other.map_err(failed)?,
            };
            let pid_file = Self::locked(file, path)?;
            // A service that just stopped may have removed the name between open and lock.
            if pid_file.name() == Name::Ours {
                pid_file.write().map_err(failed)?;
                return Ok(pid_file);
            }
        }
        Err(failed(io::ErrorKind::Interrupted.into()))
    }

    /// Takes the pid file over from a donor: `file` is its descriptor, still locked, and `path` its
    /// name. Call [`write`](PidFile::write) once the takeover is done.
    ///
    /// # Errors
    /// `Held` if the lock is held elsewhere, and not through `file`; see [`PidFileError`].
    pub fn adopt(file: OwnedFd, path: &Path) -> Result<Self, PidFileError> {
        Self::locked(File::from(file), path)
    }

    /// Writes the calling process's id over what is there, in one write.
    ///
    /// # Errors
    /// What pwrite(2) says.
    pub fn write(&self) -> io::Result<()> {
        write(&self.file)
    }

    /// Writes the process's id while the service serves. A file in memory, such as one below /run,
    /// is written at once; any other one is written by a thread.
    ///
    /// # Errors
    /// What pwrite(2) says. `TimedOut` if the disk does not answer soon; the file is then written
    /// when it does.
    pub fn write_aside(&self) -> io::Result<()> {
        if fstatfs(&*self.file).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC) {
            return self.write();
        }
        let (file, in_hand) = (Arc::clone(&self.file), Arc::clone(&self.in_hand));
        in_hand.store(true, Ordering::Release);
        let work = move || {
            let written = write(&file);
            in_hand.store(false, Ordering::Release);
            written
        };
        aside::within(LONGEST, work).unwrap_or_else(|| {
            let what = "its disk does not answer; it is written when that does";
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        })
    }

    /// Whether writing it waits for no disk.
    pub fn is_idle(&self) -> bool {
        !self.in_hand.load(Ordering::Acquire)
    }

    /// Makes the file again, locked and written, if somebody has removed its name. Says whether it
    /// did.
    ///
    /// # Errors
    /// If it cannot be made. `Foreign` if the name belongs to another file by now, which is left
    /// alone. This file stays as it is.
    pub fn renew(&mut self) -> Result<bool, PidFileError> {
        match self.name() {
            Name::Ours => Ok(false),
            Name::Gone => {
                *self = Self::open(&self.path)?;
                Ok(true)
            }
            Name::Anothers => Err(foreign(&self.path, "another file by now")),
        }
    }

    /// The name of the file, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The service stops: removes the name, unless it has become that of another file, and then
    /// gives up the lock.
    ///
    /// # Errors
    /// What unlink(2) says. The lock is given up nevertheless.
    pub fn remove(self) -> io::Result<()> {
        if self.name() == Name::Ours {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    /// The service was handed over: closes this process's descriptor only. Name and lock belong to
    /// the successor now.
    pub fn forget(self) {}

    fn locked(file: File, path: &Path) -> Result<Self, PidFileError> {
        let failed = |error| PidFileError::Io {
            path: path.to_owned(),
            error,
        };
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(foreign(path, "no regular file"));
        }
        // Before its lock or content is believed: its owner may have made both up.
        if !is_trusted(about.uid()) {
            return Err(PidFileError::Owner {
                path: path.to_owned(),
                uid: about.uid(),
            });
        }
        // nix's `Flock` unlocks when it is dropped, which would take the lock away from the
        // daemon and from the successor, who hold the same description.
        #[allow(deprecated)]
        let lock = flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock);
        let content = content(&file).map_err(failed)?;
        match (lock, content) {
            (Ok(()), Content::Empty | Content::Pid(_)) => Ok(Self {
                file: Arc::new(file),
                in_hand: Arc::default(),
                path: path.to_owned(),
            }),
            (Ok(()), Content::Other) => Err(foreign(path, "a file with other content")),
            (Err(nix::Error::EWOULDBLOCK), content) => {
                let owner = match content {
                    Content::Pid(pid) => Some(pid),
                    Content::Empty | Content::Other => None,
                };
                Err(PidFileError::Held {
                    path: path.to_owned(),
                    owner,
                })
            }
            (Err(error), _) => Err(failed(error.into())),
        }
    }

    fn name(&self) -> Name {
        let identity = |about: &fs::Metadata| (about.dev(), about.ino());
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) if identity(&ours) == identity(&named) => Name::Ours,
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Name::Gone,
            _ => Name::Anothers,
        }
    }
}

/// Whose name it is.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Ours,
    Gone,
    /// Or it cannot be told.
    Anothers,
}

fn write(file: &File) -> io::Result<()> {
    let content = format!("{:10}\n", process::id());
    file.write_all_at(content.as_bytes(), 0)?;
    // Somebody else may have written a longer one.
    if file.metadata()?.len() > CONTENT_BYTES {
        file.set_len(CONTENT_BYTES)?;
    }
    Ok(())
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Empty,
    Pid(u32),
    Other,
}

fn content(file: &File) -> io::Result<Content> {
    let mut bytes = [0; 32];
    let length = file.read_at(&mut bytes, 0)?;
    let text = str::from_utf8(&bytes[..length]).unwrap_or("?").trim();
    Ok(match text.parse() {
        _ if length == bytes.len() => Content::Other,
        _ if text.is_empty() => Content::Empty,
        Ok(pid) => Content::Pid(pid),
        Err(_) => Content::Other,
    })
}

fn foreign(path: &Path, what: &'static str) -> PidFileError {
    PidFileError::Foreign {
        path: path.to_owned(),
        what,
    }
}
