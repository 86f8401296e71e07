//! The temporary name that a socket has until it is published.

use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, UnixAddr};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::takeover::os::folder::Folder;
use crate::takeover::os::path::{Probe, probe_in};

/// Temporary names that one process may have, or may find taken, in a directory.
const NAMES: u32 = 64;
const PREFIX: &str = ".takeover.";
/// No process needs so long from bind to listen, where its socket would seem stale.
const SETTLED: Duration = Duration::from_secs(60);

/// Binds to a name of our own. It is short, so that it fits into a sockaddr_un behind the
/// folder's descriptor however long PATH is.
pub(super) fn bind(socket: &OwnedFd, folder: &Folder) -> nix::Result<OsString> {
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

/// Removes temporary names whose processes were killed before they could. Best effort: what
/// stays does no harm.
pub(super) fn sweep(folder: &Folder) {
    let Ok(entries) = fs::read_dir(folder.path_to("")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && is_settled(&entry)
            && let Ok(Probe::Stale) = probe_in(folder, &name)
        {
            let _ = unlinkat(folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn is_settled(entry: &DirEntry) -> bool {
    let made = entry.metadata().and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > SETTLED))
}
