//! PATH: where donor and taker meet.
//!
//! A file name proves nothing. Who looks at PATH opens it first, without following a symbolic
//! link, then asks what it is and whose, and connects through that very descriptor
//! (`/proc/self/fd/N`): no other file can come in between. What listens there is asked for
//! its credentials after that, since the owner of a file need not be who listens.
//!
//! What connect(2) with SOCK_SEQPACKET says, and what it means:
//!
//! | answer | meaning |
//! |---|---|
//! | connected | a donor lives |
//! | EAGAIN | a donor lives, its backlog is full |
//! | EPROTOTYPE | something lives that is not SEQPACKET: the original program, or a datagram socket |
//! | ECONNREFUSED | nobody has this socket any more: the file is stale |
//!
//! The original program takes a connection of SOCK_STREAM for the order to hand over and quit.
//! So nothing here connects that way, but for `StreamDoor::call`, which is there to give the
//! order. Looking does no more to a donor than a caller who hangs up at once. Needs `/proc`.

mod folder;
mod lock;
mod offer;
mod path;
mod standing;

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::channel::Channel;
use super::identity::{self, Identity, IdentityError};
use crate::procfs;
use folder::Folder;
pub(crate) use offer::Inode as FileId;
use offer::Inode;

pub use lock::Holder;
pub use offer::{Offer, PublishError, Replace};
pub use path::{MAX_PATH, PathError, TakeoverPath};
pub(crate) use standing::Standing;

/// What is at a PATH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nothing.
    Free,
    /// A socket that nobody listens on any more.
    Stale,
    /// A donor.
    Alive,
    /// The original program's socket, or another listener of SOCK_STREAM; it lives.
    Original,
    /// Something else than a takeover socket; what.
    NotASocket(&'static str),
    /// A socket of a user who is neither root nor we.
    Foreign {
        /// Its owner.
        uid: u32,
    },
}

/// Why there is no connection to a donor.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody is there; why.
    Nobody(&'static str),
    /// PATH is something else; what.
    NotASocket(&'static str),
    /// PATH, or who listens there, belongs to a user who is neither root nor we.
    Foreign {
        /// That user.
        uid: u32,
    },
    /// The original program listens there, or another one with SOCK_STREAM.
    Original,
    /// The donor's backlog is full: too many callers at a time. Retry is safe.
    Busy,
    /// The system's own reason.
    Other(io::Error),
}

/// What is at PATH, without disturbing it.
///
/// # Errors
/// If that cannot be told: no such directory, no permission.
pub fn probe(path: &TakeoverPath) -> io::Result<Probe> {
    let folder = path.open_directory()?;
    Ok(look(&folder, &path.name)?.into())
}

/// Connects to the donor at PATH. Both checks of its identity are done: who owns PATH, and
/// who listens there.
///
/// # Errors
/// Why not; nothing was handed over then.
pub fn connect(path: &TakeoverPath) -> Result<(Channel, Identity), ConnectError> {
    let sight = match path.open_directory() {
        Ok(folder) => look(&folder, &path.name).map_err(ConnectError::Other)?,
        Err(Errno::ENOENT) => Sight::Nothing,
        Err(error) => return Err(ConnectError::Other(error.into())),
    };
    let socket = match sight {
        Sight::Answers(socket) => socket,
        Sight::Nothing => return Err(ConnectError::Nobody("there is no such file")),
        Sight::Refuses => return Err(ConnectError::Nobody("nobody listens there any more")),
        Sight::BacklogFull => return Err(ConnectError::Busy),
        Sight::Stream => return Err(ConnectError::Original),
        Sight::NotASocket(kind) => return Err(ConnectError::NotASocket(kind)),
        Sight::Foreign { uid } => return Err(ConnectError::Foreign { uid }),
    };
    let donor = Identity::of(&socket).map_err(|error| match error {
        IdentityError::Untrusted { uid, .. } => ConnectError::Foreign { uid },
        IdentityError::Os(error) => ConnectError::Other(error),
    })?;
    Ok((Channel::new(socket), donor))
}

/// The way to a live listener of SOCK_STREAM at PATH: whatever happens to the name meanwhile, it
/// leads to the file that was looked at.
pub(super) struct StreamDoor(Entry);

impl StreamDoor {
    /// Looks at PATH; who listens there feels nothing.
    pub(super) fn open(path: &TakeoverPath) -> io::Result<Option<StreamDoor>> {
        let folder = path.open_directory()?;
        let Some(entry) = Entry::open(&folder, &path.name)? else {
            return Ok(None);
        };
        Ok(matches!(entry.call()?, Sight::Stream).then_some(StreamDoor(entry)))
    }

    /// The socket's file, opened with O_PATH.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    /// Connects. For the original program this is the order to hand over: it cannot be undone.
    pub(super) fn call(&self) -> io::Result<OwnedFd> {
        self.0.dial(SockType::Stream).map_err(procfs::explain)
    }
}

/// A directory entry, and what a call to it gives.
enum Sight {
    Nothing,
    NotASocket(&'static str),
    Foreign {
        uid: u32,
    },
    Refuses,
    BacklogFull,
    Stream,
    /// The connected socket.
    Answers(OwnedFd),
}

/// Looks at a name until the answer is about what is there now.
///
/// A successor may rename its socket over the one that was opened here, and its donor leave,
/// before the call: then a file refuses that is not at PATH any more. So a refusal counts only
/// from a file that is still there on a second look. Each further round takes one more
/// successor, so it ends.
fn look(folder: &Folder, name: &OsStr) -> io::Result<Sight> {
    // Held open, as only that keeps its number from being another file's.
    let mut refused: Option<Entry> = None;
    loop {
        let Some(entry) = Entry::open(folder, name)? else {
            return Ok(Sight::Nothing);
        };
        let sight = entry.call()?;
        let is_same = refused.is_some_and(|before| before.inode == entry.inode);
        if !matches!(sight, Sight::Refuses) || is_same {
            return Ok(sight);
        }
        refused = Some(entry);
    }
}

/// Looks at a name without a call: what is in the way of a socket there, if anything is. The
/// one who listens, if somebody does, feels nothing.
fn glance(folder: &Folder, name: &OsStr) -> nix::Result<Option<Probe>> {
    let entry = Entry::open(folder, name)?;
    Ok(entry.and_then(|entry| entry.obstacle()).map(Probe::from))
}

/// A file of any kind, opened with O_PATH.
struct Entry {
    file: OwnedFd,
    inode: Inode,
    kind: SFlag,
    mode: Mode,
    owner: u32,
}

impl Entry {
    fn open(folder: &Folder, name: &OsStr) -> nix::Result<Option<Entry>> {
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

    fn call(&self) -> io::Result<Sight> {
        let called = self.obstacle().map_or_else(|| self.call_socket(), Ok);
        called.map_err(procfs::explain)
    }

    /// What keeps it from being a socket that may be called.
    fn obstacle(&self) -> Option<Sight> {
        let kind = match self.kind {
            SFlag::S_IFSOCK if identity::is_trusted(self.owner) => return None,
            SFlag::S_IFSOCK => return Some(Sight::Foreign { uid: self.owner }),
            SFlag::S_IFREG => "a regular file",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFIFO => "a FIFO",
            _ => "a device",
        };
        Some(Sight::NotASocket(kind))
    }

    fn call_socket(&self) -> nix::Result<Sight> {
        match self.dial(SockType::SeqPacket) {
            Ok(socket) => Ok(Sight::Answers(socket)),
            Err(Errno::ECONNREFUSED) => Ok(Sight::Refuses),
            Err(Errno::EAGAIN) => Ok(Sight::BacklogFull),
            // Connecting a datagram socket has no effect on the other side, whatever it is.
            Err(Errno::EPROTOTYPE) => match self.dial(SockType::Datagram) {
                Err(Errno::EPROTOTYPE) => Ok(Sight::Stream),
                Err(Errno::ECONNREFUSED) => Ok(Sight::Refuses),
                Err(error) => Err(error),
                Ok(_) => Ok(Sight::NotASocket("a datagram socket")),
            },
            Err(error) => Err(error),
        }
    }

    /// Never waits: a Unix socket connects at once, or says EAGAIN.
    fn dial(&self, kind: SockType) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, kind, flags, None)?;
        let address = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let address = UnixAddr::new(address.as_str())?;
        loop {
            match socket::connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map(|()| socket),
            }
        }
    }
}

impl From<Sight> for Probe {
    fn from(sight: Sight) -> Self {
        match sight {
            Sight::Nothing => Probe::Free,
            Sight::Refuses => Probe::Stale,
            Sight::Answers(_) | Sight::BacklogFull => Probe::Alive,
            Sight::Stream => Probe::Original,
            Sight::NotASocket(kind) => Probe::NotASocket(kind),
            Sight::Foreign { uid } => Probe::Foreign { uid },
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Free => out.write_str("does not exist"),
            Probe::Stale => out.write_str("is a socket that nobody listens on any more"),
            Probe::Alive => out.write_str("is offered by a running process"),
            Probe::Original => out.write_str("is a running process's SOCK_STREAM socket"),
            Probe::NotASocket(kind) => write!(out, "is {kind}, not a takeover socket"),
            Probe::Foreign { uid } => write!(out, "belongs to uid {uid}"),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Nobody(why) => out.write_str(why),
            ConnectError::NotASocket(kind) => write!(out, "is {kind}, not a takeover socket"),
            ConnectError::Foreign { uid } => write!(
                out,
                "belongs to uid {uid}, trusted are only root and our own user"
            ),
            ConnectError::Original => out.write_str("speaks SOCK_STREAM, not SOCK_SEQPACKET"),
            ConnectError::Busy => out.write_str("its queue of callers is full"),
            ConnectError::Other(error) => write!(out, "cannot be connected to: {error}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConnectError::Other(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
