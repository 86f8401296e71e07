//! Whose socket PATH is, found out without a call: for the original program any connection is
//! the order to hand over.
//!
//! ```text
//!   PATH ── device, inode ──▶ sock_diag: who listens, bound to that file? ── socket's inode
//!                                                                                │
//!                                                       who has it? ◀── /proc/PID/fd
//! ```
//!
//! Whoever alone has the listening socket is the only one who can accept a call. Nothing that
//! another user could choose has a part in it: no name, and no link.
//!
//! A Unix socket is reached through its file from any network namespace, and told of in its own
//! alone. One in another namespace has its clients there, where we cannot talk to it: it is
//! looked for, as far as we may go there, to be named.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::Obstacle;
use super::census::{self, socket_inode};
use super::process::Process;
use super::sock_diag::{self, File, Listener};
use crate::takeover::os::identity;
use crate::takeover::os::path::StreamDoor;

/// The process that would accept a call through `door`, and its listening Unix socket.
pub(super) fn find(door: &StreamDoor) -> Result<(Process, u64), Obstacle> {
    let file = File::of(door.file())?;
    let found = holders(&bound_to(file).map_err(Obstacle::Untold)?)?;
    let [(pid, inode)] = found[..] else {
        return Err(match found.is_empty() {
            true => elsewhere(file)?.map_or(Obstacle::NoProcess, |pid| Obstacle::Apart { pid }),
            false => Obstacle::Shared(found.len()),
        });
    };
    let process = Process::open(pid)?;
    // The number may have become another process's before the pidfd was opened.
    if !census::sockets(pid)?.iter().any(|held| held.inode == inode) {
        return Err(Obstacle::NoProcess);
    }
    if !identity::is_trusted(process.uid) {
        return Err(Obstacle::Foreign {
            pid,
            uid: process.uid,
        });
    }
    process
        .may_be_signalled()
        .map_err(|why| Obstacle::NotPermitted { pid, why })?;
    Ok((process, inode))
}

/// The sockets that listen where this file is.
fn bound_to(file: File) -> io::Result<HashSet<u64>> {
    Ok(choose(&sock_diag::listeners()?, file))
}

/// Of two that seem to be bound to one file, that of a stranger is bound to another: the file is
/// not his.
fn choose(all: &[Listener], file: File) -> HashSet<u64> {
    let mut wanted: Vec<&Listener> = all.iter().filter(|it| it.file == Some(file)).collect();
    if wanted.len() > 1 {
        wanted.retain(|found| found.owner.is_none_or(identity::is_trusted));
    }
    wanted.iter().map(|found| found.socket).collect()
}

/// A process that listens there in another network namespace, if we find one.
fn elsewhere(file: File) -> io::Result<Option<u32>> {
    let ours = namespace(Path::new("/proc/self"))?;
    let mut seen = HashSet::from([ours]);
    for entry in fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        // What is no process, or one that we may not look at, has none.
        let Ok(theirs) = namespace(&process) else {
            continue;
        };
        if seen.insert(theirs)
            && let Ok(namespace) = fs::File::open(process.join("ns/net"))
            // Only the thread moves there, and it ends with the question.
            && let Ok(Ok(wanted)) = thread::spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                bound_to(file)
            })
            .join()
            && let [(pid, _), ..] = holders(&wanted)?[..]
        {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn namespace(process: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(process.join("ns/net"))?;
    Ok((found.dev(), found.ino()))
}

/// Who has one of these sockets open, as far as we may look.
fn holders(wanted: &HashSet<u64>) -> io::Result<Vec<(u32, u64)>> {
    let mut found = HashSet::new();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            if let Some(inode) = socket_inode(&fd.path())
                && wanted.contains(&inode)
            {
                found.insert((pid, inode));
            }
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::takeover::os::path::TakeoverPath;

    #[test]
    fn stranger_whose_file_has_the_same_number_elsewhere_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::open(folder.path()).unwrap();
        let file = File::of(file.as_fd()).unwrap();
        let listener = |socket, owner| Listener {
            socket,
            file: Some(file),
            owner,
        };
        let us = nix::unistd::geteuid().as_raw();
        let (ours, theirs) = (listener(1, Some(us)), listener(2, Some(us + 12345)));
        let unknown = listener(3, None);
        let elsewhere = Listener { file: None, ..ours };
        assert_eq!(choose(&[ours, theirs, elsewhere], file), HashSet::from([1]));
        assert_eq!(choose(&[ours, unknown], file), HashSet::from([1, 3]));
        assert_eq!(choose(&[theirs], file), HashSet::from([2]));
    }

    fn found_at(path: &Path) -> Result<u32, Obstacle> {
        let path = TakeoverPath::new(path).unwrap();
        let door = StreamDoor::open(&path).unwrap().expect("it listens");
        find(&door).map(|(process, _)| process.pid)
    }

    #[test]
    fn own_listener_is_found_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock et");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(found_at(&path).unwrap(), std::process::id());
        let other = folder.path().join("other name");
        fs::rename(&path, &other).unwrap();
        assert_eq!(found_at(&other).unwrap(), std::process::id());
    }

    /// Another socket, in a folder whose name goes on as a line of `/proc/net/unix`, and one in
    /// whose place a link was put since.
    #[test]
    fn name_that_pretends_to_be_another_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();

        let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
        let (unix, stream) = (
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
        );
        let forger: OwnedFd = nix::sys::socket::socket(unix, stream, flags, None).unwrap();
        let inode = nix::sys::stat::fstat(&forger).unwrap().st_ino;
        let line = format!("a\n0: 2 0 10000 1 1 {inode} {}", path.display());
        let forged = folder.path().join(line);
        fs::create_dir_all(forged.parent().unwrap()).unwrap();
        let address = nix::sys::socket::UnixAddr::new(&forged).unwrap();
        nix::sys::socket::bind(forger.as_raw_fd(), &address).unwrap();
        nix::sys::socket::listen(&forger, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();

        fs::create_dir(folder.path().join("b")).unwrap();
        let linked = folder.path().join("b/socket");
        let _linked = UnixListener::bind(&linked).unwrap();
        fs::remove_file(&linked).unwrap();
        std::os::unix::fs::symlink(&path, &linked).unwrap();

        assert_eq!(found_at(&path).unwrap(), std::process::id());
        let door = StreamDoor::open(&TakeoverPath::new(&path).unwrap());
        let file = File::of(door.unwrap().unwrap().file()).unwrap();
        assert_eq!(bound_to(file).unwrap().len(), 1);
    }
}
