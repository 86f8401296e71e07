//! Which other processes are in the way, for the text of an error when the start is over anyway.
//!
//! | the start failed with | an operator wants to know |
//! |---|---|
//! | nobody offers a takeover at PATH | whether the service runs all the same: then a cold start would fail, or make two of it |
//! | the port is taken | by whom |
//!
//! All of it is read from `/proc` (proc(5)), as far as this process may look. It proves nothing and
//! decides nothing: it is a hint. A machine with very many sockets is not searched for longer than
//! [`LONGEST`].

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

/// How long a look may take.
const LONGEST: Duration = Duration::from_secs(2);
/// The most ports that are named.
const PORTS: usize = 4;

/// A process with TCP ports on which it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pid: u32,
    command: String,
    ports: Vec<u16>,
}

/// The service that was started to offer at `path`, or that has `pid_file` open. It has to live,
/// and to listen on a port.
pub(crate) fn service_of(path: &Path, pid_file: Option<&Path>) -> Option<Neighbour> {
    let pid_file = pid_file.and_then(|file| inode(file).ok());
    let listeners = listeners();
    others(Instant::now() + LONGEST)
        .filter(|proc| {
            is_started_with(&fs::read(proc.join("cmdline")).unwrap_or_default(), path)
                || pid_file.is_some_and(|file| has_open(proc, file))
        })
        .find_map(|proc| Neighbour::at(&proc, &listeners))
}

/// The process that listens on a port.
pub(crate) fn holder_of(port: u16) -> Option<Neighbour> {
    let mut listeners = listeners();
    listeners.retain(|(_, other)| *other == port);
    if listeners.is_empty() {
        return None;
    }
    others(Instant::now() + LONGEST).find_map(|proc| Neighbour::at(&proc, &listeners))
}

impl Neighbour {
    /// None if it has none of the listeners.
    fn at(proc: &Path, listeners: &HashSet<(u64, u16)>) -> Option<Neighbour> {
        let sockets: HashSet<u64> = fds(proc).filter_map(|fd| socket_inode(&fd)).collect();
        let ports = listeners
            .iter()
            .filter(|(inode, _)| sockets.contains(inode));
        let mut ports: Vec<u16> = ports.map(|(_, port)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        let command = fs::read_to_string(proc.join("comm")).unwrap_or_default();
        Some(Neighbour {
            pid: number(proc)?,
            command: command.trim_end().escape_debug().to_string(),
            ports: Some(ports).filter(|ports| !ports.is_empty())?,
        })
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pid {} ({}), which listens on port",
            self.pid, self.command
        )?;
        for (at, port) in self.ports.iter().take(PORTS).enumerate() {
            write!(f, "{} {port}", if at > 0 { "," } else { "" })?;
        }
        match self.ports.len().saturating_sub(PORTS) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The folder of each other process, until the time is up.
fn others(end: Instant) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let procs = entries.map(|entry| entry.path());
    procs
        .filter(|proc| number(proc).is_some_and(|pid| pid != process::id()))
        .take_while(move |_| Instant::now() < end)
}

fn number(proc: &Path) -> Option<u32> {
    proc.file_name()?.to_str()?.parse().ok()
}

/// Whether one of its arguments, or the value of one, is this path.
fn is_started_with(cmdline: &[u8], path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    cmdline.split(|byte| *byte == 0).any(|word| {
        let value = word.splitn(2, |byte| *byte == b'=').nth(1);
        word == path
            || value == Some(path)
            || word.strip_prefix(b"-t") == Some(path)
            || word.strip_prefix(b"-T") == Some(path)
    })
}

fn fds(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries.map(|entry| entry.path())
}

fn has_open(proc: &Path, file: (u64, u64)) -> bool {
    fds(proc).any(|fd| inode(&fd).is_ok_and(|found| found == file))
}

fn inode(file: &Path) -> std::io::Result<(u64, u64)> {
    let found = fs::metadata(file)?;
    Ok((found.dev(), found.ino()))
}

fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// Inode and port of each TCP listener of our network.
fn listeners() -> HashSet<(u64, u16)> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(listener).collect::<Vec<_>>())
        .collect()
}

/// `0: 0100007F:04D2 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 …`
fn listener(line: &str) -> Option<(u64, u16)> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = words[..] else {
        return None;
    };
    let (_, port) = local.rsplit_once(':')?;
    Some((inode.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections_in_the_kernels_table() {
        let row = "   0: 0100007F:04D2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     \
                   0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(row), Some((4711, 1234)));
        assert_eq!(listener(&row.replace(" 0A ", " 01 ")), None);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(listener(head), None);
    }

    #[test]
    fn path_is_found_in_every_form_of_the_option() {
        let path = Path::new("/run/x");
        for line in ["s\0-t\0/run/x\0", "s\0-T/run/x\0", "s\0--takeover=/run/x\0"] {
            assert!(is_started_with(line.as_bytes(), path), "{line:?}");
        }
        for line in ["s\0-t\0/run/x.lock\0", "/run/y\0", ""] {
            assert!(!is_started_with(line.as_bytes(), path), "{line:?}");
        }
    }

    #[test]
    fn ports_are_named_up_to_some() {
        let one = |ports: &[u16]| Neighbour {
            pid: 7,
            command: "echo".into(),
            ports: ports.to_vec(),
        };
        let said = "pid 7 (echo), which listens on port";
        assert_eq!(one(&[80]).to_string(), format!("{said} 80"));
        let many = one(&[1, 2, 3, 4, 5, 6]).to_string();
        assert_eq!(many, format!("{said} 1, 2, 3, 4 and 2 more"));
    }
}
