//! The lock that each process takes before it puts a name at PATH, and the process that has it.
//!
//! It is flock(2) on the file PATH.lock, which stays: unlinking it would let two processes lock
//! two files of one name. A cleaner of old files may remove it all the same, so a lock counts
//! only if its file still has the name once it is locked.
//!
//! It is only ever tried for: a process that a signal has stopped could hold it for ever. An
//! operator has to know which one that is. The kernel tells it in `/proc/locks` (proc(5)): the
//! process that *took* the lock. A flock belongs to the open file, so it outlives that process
//! if one that it started has inherited the descriptor.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process;

use nix::errno::Errno;
#[allow(deprecated)]
use nix::fcntl::flock;
use nix::fcntl::{FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::geteuid;

use super::folder::{Folder, Inode, inode, inode_of, stat_of};
use super::identity::is_trusted;
use super::offer::PublishError;
use super::path::{MODE, set_mode};

/// The lock on PATH.lock; dropped, it is free.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// Who took it: a child of its has a copy, and is not to give it up.
    owner: u32,
}

/// The process that took the lock on PATH.lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program (proc_pid_comm(5)). None if it has ended, or has closed the file:
    /// then a process that it started has inherited the descriptor, and the lock with it.
    pub command: Option<String>,
}

/// How often a lock file may lose its name under us before we give up.
const ROUNDS: usize = 8;

impl Lock {
    /// Takes the lock on `name`.lock, or says who has it.
    pub(super) fn take(folder: &Folder, name: &OsStr) -> Result<Lock, PublishError> {
        let mut file_name = name.to_owned();
        file_name.push(".lock");
        for _ in 0..ROUNDS {
            let file = open(folder, &file_name).map_err(|error| named(&file_name, error))?;
            let found = fstat(&file)?;
            if !is_trusted(found.st_uid) {
                // In a folder of everybody anybody may have made it, to lock it for ever.
                let what = format!("{} belongs to uid {}", file_name.display(), found.st_uid);
                return Err(PublishError::Os(io::Error::other(what)));
            }
            let inode = inode(&found);
            // Not nix's `Flock`: it panics if unlocking fails, and here that would be an owner with
            // all its peers.
            #[allow(deprecated)]
            match flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock) {
                Ok(()) if inode_of(folder, &file_name)? == Some(inode) => {
                    let owner = process::id();
                    let file = File::from(file);
                    return Ok(Lock { file, owner });
                }
                Ok(()) => {}
                Err(Errno::EAGAIN) => {
                    let holder = Holder::of(inode);
                    return Err(PublishError::Locked { holder });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(named(&file_name, Errno::ESTALE))
    }
}

impl Drop for Lock {
    /// Closing unlocks too, but only when the last copy of the descriptor is closed. A process that
    /// was just forked has one until its exec(2).
    fn drop(&mut self) {
        #[allow(deprecated)]
        if self.owner == process::id()
            && let Err(error) = flock(self.file.as_raw_fd(), FlockArg::UnlockNonblock)
        {
            log::debug!("PATH.lock: {error}");
        }
    }
}

fn open(folder: &Folder, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || openat(folder, name, flags, MODE);
    let file = match open() {
        // One that was made under a umask that takes our own rights away.
        Err(Errno::EACCES) if let Some(inode) = unreadable(folder, name) => {
            set_mode(folder, name, inode)?;
            open()
        }
        opened => opened,
    }?;
    let found = fstat(&file)?;
    if found.st_uid == geteuid().as_raw() && Mode::from_bits_truncate(found.st_mode) != MODE {
        fchmod(&file, MODE)?; // open(2) takes the umask off.
    }
    Ok(file)
}

/// A regular file of our own.
fn unreadable(folder: &Folder, name: &OsStr) -> Option<Inode> {
    let found = stat_of(folder, name).ok()??;
    let is_file = found.st_mode & libc::S_IFMT == libc::S_IFREG;
    let is_ours = found.st_uid == geteuid().as_raw();
    (is_file && is_ours).then_some(inode(&found))
}

fn named(file: &OsStr, error: impl Into<io::Error>) -> PublishError {
    let error = error.into();
    let what = format!("{}: {error}", file.display());
    PublishError::Os(io::Error::new(error.kind(), what))
}

impl Holder {
    /// Who took the lock on this file; None if the kernel does not show it here.
    fn of(inode: Inode) -> Option<Holder> {
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let pid = taken_by(&locks, inode)?;
        let has_it = has_open(pid, inode).unwrap_or(true);
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        let command = command.filter(|_| has_it);
        Some(Holder {
            pid,
            command: command.map(|name| name.trim_end().to_owned()),
        })
    }
}

/// The process id in the line of `/proc/locks` that is about this file:
/// `1: FLOCK  ADVISORY  WRITE 3548 00:19:1132 0 EOF`. A line with `->` is of one who waits.
fn taken_by(locks: &str, (device, number): Inode) -> Option<u32> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let exact = format!("{major:02x}:{minor:02x}:{number}");
    let of_number = format!(":{number}");
    let lines: Vec<(&str, u32)> = locks
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "FLOCK", _, _, pid, file, ..] = words[..] else {
                return None;
            };
            Some((file, pid.parse().ok().filter(|pid| *pid > 0)?))
        })
        .collect();
    let pid_of = |(_, pid): &(&str, u32)| *pid;
    let found = lines.iter().find(|(file, _)| *file == exact).map(pid_of);
    // stat(2) and this table name different devices on a file system with subvolumes (btrfs).
    found.or_else(|| {
        let mut alike = lines.iter().filter(|(file, _)| file.ends_with(&of_number));
        alike.next().map(pid_of).filter(|_| alike.next().is_none())
    })
}

/// Whether a process has this file open; None if we may not look, or if it is gone.
fn has_open(pid: u32, inode: Inode) -> Option<bool> {
    let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(open.any(|entry| {
        let found = entry.and_then(|entry| fs::metadata(entry.path()));
        found.is_ok_and(|found| (found.dev(), found.ino()) == inode)
    }))
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            _ if self.pid == process::id() => out.write_str(
                "this process itself, which was started with a descriptor of it; start it \
                 without a lock on that file",
            ),
            Some(command) => write!(
                out,
                "pid {} ({command}): wait until that is done, or end it",
                self.pid
            ),
            None => write!(
                out,
                "a descriptor of pid {}, which has ended and left it to a process that it \
                 started: end that one, fuser(1) names it",
                self.pid
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::takeover::os::path::TakeoverPath;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 08:02:131 0 EOF
2: FLOCK  ADVISORY  WRITE 12 00:19:131 0 EOF
3: FLOCK  ADVISORY  WRITE 13 08:02:131 0 EOF
3: -> FLOCK  ADVISORY  WRITE 14 08:02:131 0 EOF
4: FLOCK  ADVISORY  WRITE 15 00:2c:7131 0 EOF
5: FLOCK  ADVISORY  WRITE 0 00:2c:99 0 EOF
6: LEASE  ACTIVE    READ  16 08:02:132 0 EOF
";

    fn file(major: u32, minor: u32, number: u64) -> Inode {
        (libc::makedev(major, minor), number)
    }

    #[test]
    fn lock_that_is_dropped_is_free_though_somebody_has_a_copy_of_its_descriptor() {
        let place = tempfile::tempdir().unwrap();
        let folder = TakeoverPath::new(place.path().join("x")).unwrap();
        let folder = folder.open_directory().unwrap();
        let lock = Lock::take(&folder, OsStr::new("x")).unwrap();
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(&folder, OsStr::new("x")).unwrap();
        drop(copy);
    }

    #[test]
    fn holder_is_read_off_the_kernels_table_by_device_and_number() {
        assert_eq!(taken_by(LOCKS, file(8, 2, 131)), Some(13));
        assert_eq!(taken_by(LOCKS, file(0, 0x19, 131)), Some(12));
        assert_eq!(taken_by(LOCKS, file(8, 2, 132)), None, "a lease");
        assert_eq!(taken_by(LOCKS, file(0, 0x2c, 99)), None, "not to be seen");
        assert_eq!(taken_by("", file(8, 2, 131)), None);
    }

    #[test]
    fn file_of_another_device_number_is_found_if_it_is_the_only_one() {
        assert_eq!(
            taken_by(LOCKS, file(0, 0x50, 7131)),
            Some(15),
            "a subvolume"
        );
        assert_eq!(taken_by(LOCKS, file(0, 0x50, 131)), None, "one of two");
    }
}
