//! Whose socket PATH is, found out without a call: for the original program any connection is
//! the order to hand over.
//!
//! ```text
//!   PATH ── device, inode ◀── stat ── /proc/PID/{root,cwd}/name        is it this one?
//!                                          ▲             ▲
//!   /proc/net/unix: listening, SOCK_STREAM ┴ name, socket's inode ── /proc/PID/fd: who has it?
//! ```
//!
//! `/proc/net/unix` shows the name that was bound, perhaps a relative one, so it is looked up
//! from where its process is. Whoever alone has the listening socket is the only one who can
//! accept a call.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Obstacle;
use super::census::{self, socket_inode};
use super::process::Process;
use crate::takeover::identity;
use crate::takeover::rendezvous::{StreamDoor, TakeoverPath};

/// The process that would accept a call at PATH, and its listening Unix socket.
pub(super) fn find(path: &TakeoverPath, door: &StreamDoor) -> Result<(Process, u64), Obstacle> {
    let file = door.file()?;
    let bound = listeners(&fs::read("/proc/net/unix")?);
    let alike = |name: &Path| name.file_name() == path.as_path().file_name();
    let candidates: Vec<_> = bound.iter().filter(|(_, name)| alike(name)).collect();
    let wanted: HashSet<u64> = candidates.iter().map(|(inode, _)| *inode).collect();

    let mut found = Vec::new();
    for (pid, inode) in holders(&wanted)? {
        let is_path = |(_, name): &&&(u64, PathBuf)| is_file(pid, name, file);
        let mut names = candidates.iter().filter(|(other, _)| *other == inode);
        if names.find(is_path).is_some() {
            found.push((pid, inode));
        }
    }
    let [(pid, inode)] = found[..] else {
        return Err(match found.is_empty() {
            true => Obstacle::NoProcess,
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

/// Inode and bound name of each Unix socket that listens for SOCK_STREAM (proc(5)).
fn listeners(table: &[u8]) -> Vec<(u64, PathBuf)> {
    /// __SO_ACCEPTCON, `linux/net.h`.
    const LISTENS: u64 = 0x10000;
    const STREAM: u64 = 1;
    let mut found = Vec::new();
    for line in table.split(|byte| *byte == b'\n').skip(1) {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut rest = line;
        let words = [(); 7].map(|()| word(&mut rest));
        let [.., flags, kind, _, inode] = words;
        // One blank, and everything behind it.
        let name = rest.get(1..).unwrap_or_default();
        if let (Some(flags), Some(STREAM), Some(inode)) =
            (number(flags, 16), number(kind, 16), number(inode, 10))
            && flags & LISTENS != 0
            && !name.is_empty()
            && !name.starts_with(b"@")
        {
            found.push((inode, PathBuf::from(OsStr::from_bytes(name))));
        }
    }
    found
}

/// Takes a word, and the blanks before it, off a line.
fn word<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    let text = line.trim_ascii_start();
    let end = text.iter().position(|byte| *byte == b' ');
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    *line = rest;
    word
}

fn number(word: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(word).ok()?, radix).ok()
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

/// Whether the name that a process has bound leads to this file.
fn is_file(pid: u32, name: &Path, file: (u64, u64)) -> bool {
    let from = |folder: &str| {
        let path = Path::new("/proc").join(pid.to_string()).join(folder);
        fs::metadata(path.join(name.strip_prefix("/").unwrap_or(name)))
    };
    let found = if name.is_absolute() {
        from("root")
    } else {
        from("cwd")
    };
    found.is_ok_and(|found| (found.dev(), found.ino()) == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_stream_sockets_are_told_from_all_others() {
        let table = b"\
Num       RefCount Protocol Flags    Type St Inode Path
00000000e5a1: 00000002 00000000 00010000 0001 01 23450 /run/one
00000000e5a2: 00000002 00000000 00010000 0005 01 23451 /run/seqpacket
00000000e5a3: 00000003 00000000 00000000 0001 03 23452 /run/connected
00000000e5a4: 00000002 00000000 00010000 0001 01 23453 @abstract
00000000e5a5: 00000002 00000000 00010000 0001 01     7 a name with  blanks
00000000e5a6: 00000002 00000000 00010000 0001 01 23454
garbage
";
        let found = listeners(table);
        let expected = [
            (23450, PathBuf::from("/run/one")),
            (7, PathBuf::from("a name with  blanks")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn own_listener_is_found_by_a_relative_or_an_absolute_name() {
        use std::os::unix::net::UnixListener;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock et");
        let _listener = UnixListener::bind(&path).unwrap();
        let path = TakeoverPath::new(&path).unwrap();
        let door = StreamDoor::open(&path).unwrap().expect("it listens");
        let (process, _) = find(&path, &door).unwrap();
        assert_eq!(process.pid, std::process::id());
    }
}
