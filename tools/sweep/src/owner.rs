//! The process that a pid file stands for: known by the lock, not by the number.
//!
//! The number outlives its process, and is some day another's. What the file says is true as
//! long as its process holds the file's lock (flock(2)), which every death gives up.
//!
//! ```text
//!   open, read N ─▶ pidfd of N ─▶ has N the file open, locked? ─▶ is the pidfd alive? ─▶ Owner
//!        ▲                              │ no
//!        └──── another number now ◀─────┴──── the same ─▶ nobody: stale
//! ```
//!
//! Invariants
//! - A number that is alive at the end was nobody else's in between, so that who holds the lock
//!   is who the pidfd stands for, and signals go by the pidfd alone.
//! - Looking takes no lock that a service which starts could meet: `/proc/N/fdinfo` tells of a
//!   lock (proc_pid_fdinfo(5)). Only where that may not be read the lock itself is tried.
//! - "Nobody" and "cannot tell" are two answers.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

/// How often to start over when the file changes hands under us, which takes a takeover each time.
const TRIES: u32 = 10;

/// A process that holds the lock of its pid file.
#[derive(Debug)]
pub struct Owner {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Why there is no [`Owner`].
#[derive(Debug)]
pub enum NoOwner {
    /// Nobody serves, for this reason.
    Nobody(String),
    /// It cannot be told.
    Unknown(io::Error),
}

impl fmt::Display for NoOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoOwner::Nobody(why) => write!(f, "nobody serves it: {why}"),
            NoOwner::Unknown(error) => write!(f, "who serves it cannot be told: {error}"),
        }
    }
}

impl std::error::Error for NoOwner {}

impl From<NoOwner> for io::Error {
    fn from(why: NoOwner) -> io::Error {
        match why {
            NoOwner::Nobody(_) => io::Error::new(ErrorKind::NotFound, why),
            NoOwner::Unknown(error) => error,
        }
    }
}

impl From<Errno> for NoOwner {
    fn from(error: Errno) -> NoOwner {
        NoOwner::Unknown(error.into())
    }
}

impl From<io::Error> for NoOwner {
    fn from(error: io::Error) -> NoOwner {
        NoOwner::Unknown(error)
    }
}

impl Owner {
    /// Who holds this pid file.
    ///
    /// # Errors
    /// `Nobody` if the file is absent, stale, no pid file, or somebody else's; `Unknown` for
    /// what the system refused.
    pub fn of(file: &Path) -> Result<Owner, NoOwner> {
        let (file, about) = open(file)?;
        let mut number = number_in(&file)?;
        for _ in 0..TRIES {
            let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
                Ok(pidfd) => Some(pidfd),
                // EINVAL: a thread's number.
                Err(Errno::SRCH | Errno::INVAL) => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(pidfd) = pidfd
                && holds(number, &file, &about)?
            {
                let owner = Owner { pid: number, pidfd };
                if !owner.has_ended_within(Duration::ZERO)? {
                    return Ok(owner);
                }
            }
            match number_in(&file)? {
                same if same == number => return Err(stale(number)),
                other => number = other,
            }
        }
        Err(NoOwner::Unknown(ErrorKind::Interrupted.into()))
    }

    /// Its number, for people.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Tells it to stop. One that has ended need not be told.
    ///
    /// # Errors
    /// `PermissionDenied` if it is not ours to end.
    pub fn tell_to_stop(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended by then. A pidfd is readable from the end on, also that of a zombie
    /// (pidfd_open(2)).
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn has_ended_within(&self, longest: Duration) -> io::Result<bool> {
        ended_within(&self.pidfd, longest)
    }
}

/// Whether the process behind a pidfd has ended by then.
pub(crate) fn ended_within(pidfd: &OwnedFd, longest: Duration) -> io::Result<bool> {
    let longest = Timespec::try_from(longest).map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&longest)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file that a service of ours, or of root's, can have made: only such a one is believed.
fn open(path: &Path) -> Result<(File, Metadata), NoOwner> {
    let nobody = |what: String| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Err(NoOwner::Nobody(format!("{} {what}", name.display())))
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return nobody("is not there".into()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => return nobody("is a symbolic link".into()),
            // A socket.
            Some(Errno::NXIO) => return nobody("is no regular file".into()),
            _ => return Err(NoOwner::Unknown(error)),
        },
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return nobody("is no regular file".into());
    }
    if ![0, geteuid().as_raw()].contains(&about.uid()) {
        let uid = about.uid();
        return nobody(format!("is user {uid}'s; run this as that user"));
    }
    Ok((file, about))
}

/// The process number that a pid file has; anything else is that of nobody, and 0 and less
/// would be whole groups to kill(2).
fn number_in(file: &File) -> Result<Pid, NoOwner> {
    let mut bytes = [0; 32];
    let length = file.read_at(&mut bytes, 0)?;
    let text = str::from_utf8(&bytes[..length]).unwrap_or("?").trim();
    let number = text.parse::<i32>().ok().filter(|number| *number > 0);
    let number = number.filter(|_| length < bytes.len());
    number
        .and_then(Pid::from_raw)
        .ok_or_else(|| NoOwner::Nobody("its pid file has no process number in it".into()))
}

/// Whether process `number` holds the lock of this file.
fn holds(number: Pid, file: &File, about: &Metadata) -> Result<bool, NoOwner> {
    if !has_proc() {
        return is_locked(file);
    }
    let process = format!("/proc/{}", number.as_raw_nonzero());
    let fds = match fs::read_dir(format!("{process}/fd")) {
        Ok(fds) => fds,
        // It may not be looked at (ptrace(2)): then the lock has to do.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return is_locked(file),
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut is_open = false;
    for fd in fds {
        let fd = match fd {
            Ok(fd) => fd,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // One that was closed meanwhile is none.
        let Ok(same) = fs::metadata(fd.path()) else {
            continue;
        };
        if (same.dev(), same.ino()) != (about.dev(), about.ino()) {
            continue;
        }
        is_open = true;
        let info = fs::read_to_string(format!("{process}/fdinfo/{}", fd.file_name().display()));
        if info.is_ok_and(|info| info.lines().any(is_flock)) {
            return Ok(true);
        }
    }
    // A kernel that shows no locks there.
    Ok(is_open && is_locked(file)?)
}

/// As in `lock: 1: FLOCK  ADVISORY  WRITE 4711 00:2a:815 0 EOF`.
fn is_flock(line: &str) -> bool {
    line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE")
}

/// Whether there is a /proc, and it counts processes as we do: one of another pid namespace has
/// other numbers (pid_namespaces(7)).
fn has_proc() -> bool {
    fs::read_link("/proc/self").is_ok_and(|ours| ours == Path::new(&process::id().to_string()))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// Whether anybody holds it, by trying for a moment.
fn is_locked(file: &File) -> Result<bool, NoOwner> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::NonBlockingUnlock)?;
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn stale(number: Pid) -> NoOwner {
    NoOwner::Nobody(format!(
        "its pid file is stale: process {}, which it names, does not hold it",
        number.as_raw_nonzero()
    ))
}

#[cfg(test)]
mod tests;
