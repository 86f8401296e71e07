//! PATH: where donor and taker meet.
//!
//! A file name proves nothing. So PATH is opened first, without following a symbolic link; then
//! it is asked what it is and whose, and the connection is made through that very descriptor
//! (`path/entry.rs`): no other file can come in between. The process that listens there is asked
//! for its credentials after that, since a file may belong to one user and be served by another.
//!
//! What connect(2) with SOCK_SEQPACKET says, and what it means:
//!
//! | answer | meaning |
//! |---|---|
//! | connected | a donor lives |
//! | EAGAIN | a donor lives, its backlog is full |
//! | EPROTOTYPE | something lives that is not SEQPACKET: a listener of another protocol, or a datagram socket |
//! | ECONNREFUSED | nobody has this socket any more: the file is stale |
//!
//! Nothing here connects as SOCK_STREAM: there are programs that take such a connection for the
//! order to hand over and quit. A probe does no more to a donor than a caller that hangs up at once.
//! Needs `/proc`.

mod entry;
mod name;

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::channel::Channel;
use super::folder::Folder;
use super::identity::{Identity, IdentityError};
use entry::Entry;

pub(super) use entry::{MODE, set_mode};
pub use name::{MAX_PATH, PathError, TakeoverPath};

/// What is at a PATH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nothing.
    Free,
    /// A socket that nobody listens on any more.
    Stale,
    /// A donor.
    Alive,
    /// A live listener of another protocol: of SOCK_STREAM.
    OtherProtocol,
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
    /// No donor is there. What is there instead: nothing, a stale socket, or something that is
    /// no socket, somebody else's or of another protocol.
    NoDonor(Probe),
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
    probe_in(&path.open_directory()?, &path.name)
}

/// Connects to the donor at PATH. Both checks of its identity are done: who owns PATH, and
/// who listens there.
///
/// # Errors
/// Why not; nothing was handed over then.
pub fn connect(path: &TakeoverPath) -> Result<(Channel, Identity), ConnectError> {
    let socket = match path.open_directory() {
        Ok(folder) => connect_in(&folder, &path.name)?,
        Err(Errno::ENOENT) => return Err(ConnectError::NoDonor(Probe::Free)),
        Err(error) => return Err(error.into()),
    };
    let donor = Identity::of(&socket).map_err(|error| match error {
        IdentityError::Untrusted { uid, .. } => ConnectError::NoDonor(Probe::Foreign { uid }),
        IdentityError::Os(error) => ConnectError::Other(error),
    })?;
    Ok((Channel::new(socket), donor))
}

/// The file of a live listener of another protocol at PATH, opened with O_PATH: whatever happens
/// to the name meanwhile, it leads to what was looked at. None if something else is there. The
/// process that listens feels nothing.
///
/// # Errors
/// As [`probe`].
pub fn other_listener(path: &TakeoverPath) -> io::Result<Option<OwnedFd>> {
    let folder = path.open_directory()?;
    let Some(entry) = Entry::open(&folder, &path.name)? else {
        return Ok(None);
    };
    match entry.connect() {
        Err(ConnectError::NoDonor(Probe::OtherProtocol)) => Ok(Some(entry.into_file())),
        Err(ConnectError::Other(error)) => Err(error),
        Ok(_) | Err(ConnectError::NoDonor(_) | ConnectError::Busy) => Ok(None),
    }
}

/// What is under a name of a folder, without disturbing it.
pub(super) fn probe_in(folder: &Folder, name: &OsStr) -> io::Result<Probe> {
    match connect_in(folder, name) {
        Ok(_) | Err(ConnectError::Busy) => Ok(Probe::Alive),
        Err(ConnectError::NoDonor(found)) => Ok(found),
        Err(ConnectError::Other(error)) => Err(error),
    }
}

/// What is in the way of a socket under a name, if anything is. Nobody is called for it: a
/// process that listens there feels nothing.
pub(super) fn peek(folder: &Folder, name: &OsStr) -> nix::Result<Option<Probe>> {
    let entry = Entry::open(folder, name)?;
    Ok(entry.and_then(|entry| entry.obstacle()))
}

/// Connects to what is under a name, until the answer is about what is there now.
///
/// A successor may rename its socket over the one that was opened here, and its donor leave,
/// before the call: then a file refuses that is not at PATH any more. So a refusal counts only
/// from a file that is still there on a second look. Each further round takes one more
/// successor, so it ends.
fn connect_in(folder: &Folder, name: &OsStr) -> Result<OwnedFd, ConnectError> {
    // Held open, as only that keeps its number from being another file's.
    let mut refused: Option<Entry> = None;
    loop {
        let Some(entry) = Entry::open(folder, name)? else {
            return Err(ConnectError::NoDonor(Probe::Free));
        };
        let called = entry.connect();
        let is_refused = matches!(called, Err(ConnectError::NoDonor(Probe::Stale)));
        let is_same = refused.is_some_and(|before| before.inode == entry.inode);
        if !is_refused || is_same {
            return called;
        }
        refused = Some(entry);
    }
}

impl From<Errno> for ConnectError {
    fn from(error: Errno) -> Self {
        ConnectError::Other(error.into())
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Free => out.write_str("does not exist"),
            Probe::Stale => out.write_str("is a socket that nobody listens on any more"),
            Probe::Alive => out.write_str("is offered by a running process"),
            Probe::OtherProtocol => out.write_str("is a running process's SOCK_STREAM socket"),
            Probe::NotASocket(kind) => write!(out, "is {kind}, not a takeover socket"),
            Probe::Foreign { uid } => write!(out, "belongs to uid {uid}"),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NoDonor(found) => match found {
                Probe::Free => out.write_str("there is no such file"),
                Probe::Stale => out.write_str("nobody listens there any more"),
                Probe::Foreign { .. } => {
                    write!(out, "{found}, trusted are only root and our own user")
                }
                Probe::OtherProtocol => out.write_str("speaks SOCK_STREAM, not SOCK_SEQPACKET"),
                Probe::NotASocket(_) | Probe::Alive => found.fmt(out),
            },
            ConnectError::Busy => out.write_str("its queue of callers is full"),
            ConnectError::Other(error) => write!(out, "cannot be connected to: {error}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConnectError::Other(error) => Some(error),
            ConnectError::NoDonor(_) | ConnectError::Busy => None,
        }
    }
}
