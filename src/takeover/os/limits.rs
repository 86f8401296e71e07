//! How many descriptors this process may hold, and room for them made ahead of time.
//!
//! Call these before a takeover, best before anything else. The kernel grows a process's descriptor
//! table by doubling it. If the process has a second thread, each doubling waits for an RCU grace
//! period (`fs/file.c`, `expand_fdtable`): receiving 10,000 descriptors then takes 90 ms instead of
//! 5. Growing the table once, early, takes microseconds.

use std::fs::{self, File};
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd;

use crate::procfs;

/// RLIMIT_NOFILE: a descriptor's number is always below it (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// The limit that the kernel enforces.
    pub soft: usize,
    /// What `soft` can be raised to.
    pub hard: usize,
}

/// Raises the soft limit to the hard one, and returns the limit that is in force then. The hard
/// limit is left alone: a successor inherits it and could not raise it again.
///
/// If the kernel refuses, because `fs.nr_open` has been set below the hard limit since, the old
/// limit stays.
#[must_use]
pub fn raise_nofile() -> FileLimits {
    let (soft, hard) = nofile();
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("RLIMIT_NOFILE stays at {soft} instead of {hard}: {error}");
    }
    let (soft, hard) = nofile();
    FileLimits {
        soft: clamp(soft),
        hard: clamp(hard),
    }
}

/// How many descriptors this process can still open, [`RESERVE`](crate::event::RESERVE) included.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn free_slots() -> io::Result<usize> {
    Ok(soft_limit().saturating_sub(open_fds()?))
}

/// Makes room in the descriptor table for `slots` descriptors more than are open now, as far as the
/// limit allows. A table never shrinks, so one call lasts for the life of the process.
///
/// # Errors
/// `ENOMEM`, or `EMFILE` if the table is full already.
pub fn size_table(slots: usize) -> io::Result<()> {
    let limit = soft_limit();
    let highest = open_fds()?
        .saturating_add(slots)
        .min(limit)
        .saturating_sub(1);
    let highest = i32::try_from(highest).map_err(|_| io::ErrorKind::InvalidInput)?;
    let any = File::open("/dev/null")?;
    match fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(highest)) {
        Ok(copy) => Ok(unistd::close(copy)?),
        // Taken, and so is all above it: the table is as large as it can be.
        Err(Errno::EMFILE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Soft and hard limit.
fn nofile() -> (rlim_t, rlim_t) {
    // It cannot fail for a resource that exists; 1024 is what every system grants.
    getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024))
}

fn soft_limit() -> usize {
    clamp(nofile().0)
}

fn clamp(limit: rlim_t) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn open_fds() -> io::Result<usize> {
    // Since Linux 6.2 the folder's size is the number of open descriptors.
    let size = fs::metadata("/proc/self/fd")
        .map_err(procfs::explain)?
        .len();
    if size > 0 {
        return Ok(usize::try_from(size).unwrap_or(usize::MAX));
    }
    match fs::read_dir("/proc/self/fd") {
        // One of the entries is that of the listing itself.
        Ok(entries) => Ok(entries.count().saturating_sub(1)),
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => Ok(soft_limit()),
        Err(error) => Err(error),
    }
}
