//! The sockets of a process, from outside: `/proc/PID/fd`, and for each a look at a copy of it
//! (pidfd_getfd(2)) or, where we may not have one, `/proc/PID/net/tcp` (proc(5)).
//!
//! The original has one TCP listener, one connection a client, all on the listener's port, and
//! nothing else of TCP. A process that has anything else is not the original.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

use socket_takeover::sys;
use socket_takeover::takeover::internal::descriptor::tcp::{self as validate, LISTEN};

use super::process::Process;

/// A socket in a process's descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    /// Its number there.
    pub(super) number: i32,
    /// The kernel's number for it, the same in every process.
    pub(super) inode: u64,
}

/// A row of the kernel's table of TCP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: u8,
}

/// What the original has of TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) listener: SocketAddr,
    pub(super) listener_inode: u64,
    /// Where each of its clients is.
    pub(super) peers: Vec<SocketAddr>,
    /// How many sockets it has, of whatever kind.
    pub(super) sockets: usize,
}

/// All sockets of a process.
pub(super) fn sockets(pid: u32) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let (Some(number), Some(inode)) = (number, socket_inode(&entry.path())) {
            found.push(Socket { number, inode });
        }
    }
    Ok(found)
}

/// Counts; a process that is not like the original is an error, in words.
pub(super) fn census(process: &Process) -> io::Result<Result<Census, &'static str>> {
    let sockets = sockets(process.pid)?;
    let rows = match looked_at(process, &sockets)? {
        Some(rows) => rows,
        None => tcp_table(process.pid)?,
    };
    Ok(judge(&sockets, &rows))
}

/// None if we may not look.
fn looked_at(process: &Process, sockets: &[Socket]) -> io::Result<Option<HashMap<u64, Row>>> {
    let mut rows = HashMap::new();
    for socket in sockets {
        let fd = match process.fetch(socket.number) {
            Ok(fd) => fd,
            Err(error) => match Unfetched::of(&error) {
                Unfetched::Closed => continue,
                Unfetched::Forbidden => return Ok(None),
                Unfetched::Short => return Err(error),
            },
        };
        if let Ok(state) = sys::tcp_state(&fd)
            && let Ok((local, remote)) = validate::addresses(fd.as_fd())
            && let Some(remote) = remote.or((state == LISTEN).then_some(local))
        {
            let row = Row {
                local,
                remote,
                state,
            };
            rows.insert(socket.inode, row);
        }
    }
    Ok(Some(rows))
}

/// Why pidfd_getfd(2) has given no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfetched {
    /// The process has closed it, or has died.
    Closed,
    /// We are short of descriptors, or the kernel is of memory.
    Short,
    /// It is not for us: no right to trace, a kernel before 5.6, or a reason that is not known
    /// here, such as a security module's own. What can be done without copies is done then.
    Forbidden,
}

impl Unfetched {
    pub(super) fn of(error: &io::Error) -> Unfetched {
        match error.raw_os_error() {
            Some(libc::EBADF | libc::ESRCH) => Unfetched::Closed,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Unfetched::Short,
            _ => Unfetched::Forbidden,
        }
    }
}

/// The TCP sockets that a process can see, by inode. The kernel walks its whole hash table for
/// it, which takes most of a second where that is large: nothing for a freeze.
pub(super) fn tcp_table(pid: u32) -> io::Result<HashMap<u64, Row>> {
    let mut rows = parse(&fs::read_to_string(format!("/proc/{pid}/net/tcp"))?);
    match fs::read_to_string(format!("/proc/{pid}/net/tcp6")) {
        Ok(text) => rows.extend(parse(&text)),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(rows)
}

/// The inode behind a link in `/proc/PID/fd`, if it is that of a socket.
pub(super) fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    let inode = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    inode.parse().ok()
}

fn judge(sockets: &[Socket], table: &HashMap<u64, Row>) -> Result<Census, &'static str> {
    // A descriptor may stand for a socket twice; a socket without a row is none of TCP, or dead.
    let rows: HashMap<u64, Row> = sockets
        .iter()
        .filter_map(|socket| Some((socket.inode, *table.get(&socket.inode)?)))
        .collect();
    let mut listeners = rows.iter().filter(|(_, row)| row.state == LISTEN);
    let Some((inode, listener)) = listeners.next() else {
        return Err("it has no TCP listener");
    };
    if listeners.next().is_some() {
        return Err("it has more than one TCP listener");
    }
    let peers = rows.values().filter(|row| row.state != LISTEN);
    if peers
        .clone()
        .any(|row| row.local.port() != listener.local.port())
    {
        return Err("it has TCP connections that its listener did not accept");
    }
    Ok(Census {
        listener: listener.local,
        listener_inode: *inode,
        peers: peers.map(|row| row.remote).collect(),
        sockets: sockets.len(),
    })
}

fn parse(text: &str) -> HashMap<u64, Row> {
    let row = |line: &str| {
        // sl local remote st queues timer retransmits uid timeout inode …
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let inode = words.nth(5)?.parse().ok()?;
        let row = Row {
            local,
            remote,
            state,
        };
        Some((inode, row))
    };
    // Connections that nobody has accepted yet are all inode 0.
    let rows = text.lines().skip(1).filter_map(row);
    rows.filter(|(inode, _)| *inode != 0).collect()
}

/// `0100007F:04D2`, or four times as long: words of 32 bits as the machine has them, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..host.len()).step_by(8) {
        let word = u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 4]>::try_from(&*bytes) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn row(local: &str, remote: &str, state: u8) -> Row {
        Row {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
        }
    }

    fn socket(inode: u64) -> Socket {
        let number = inode as i32;
        Socket { number, inode }
    }

    #[test]
    fn original_is_told_from_what_is_none() {
        let listening = row("127.0.0.1:7", "0.0.0.0:0", LISTEN);
        let peer = row("127.0.0.1:7", "127.0.0.9:1000", 1);
        let table = HashMap::from([
            (1, listening),
            (2, peer),
            (3, row("127.0.0.1:8", "0.0.0.0:0", LISTEN)),
            (4, row("127.0.0.1:50000", "127.0.0.1:80", 1)),
        ]);
        let judged = |inodes: &[u64]| {
            let sockets: Vec<_> = inodes.iter().map(|inode| socket(*inode)).collect();
            judge(&sockets, &table)
        };
        let found = judged(&[1, 2, 2, 99]).unwrap();
        assert_eq!(found.listener, listening.local);
        assert_eq!(found.listener_inode, 1);
        assert_eq!(found.peers, [peer.remote]);
        assert_eq!(judged(&[1]).unwrap().peers, []);
        assert_eq!(judged(&[2]), Err("it has no TCP listener"));
        assert_eq!(judged(&[1, 3]), Err("it has more than one TCP listener"));
        assert!(judged(&[1, 2, 4]).is_err());
    }

    #[test]
    fn socket_that_cannot_be_had_is_closed_only_if_the_kernel_says_so() {
        for number in 1..4096 {
            let why = Unfetched::of(&io::Error::from_raw_os_error(number));
            let is_closed = [libc::EBADF, libc::ESRCH].contains(&number);
            assert_eq!(why == Unfetched::Closed, is_closed, "{number}");
        }
        for forbidden in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
            let why = Unfetched::of(&io::Error::from_raw_os_error(forbidden));
            assert_eq!(why, Unfetched::Forbidden);
        }
    }

    #[test]
    fn own_sockets_of_both_families_are_found_either_way() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else {
                println!("skipped {ip}: this machine has no such address");
                continue;
            };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let (served, remote) = listener.accept().unwrap();
            let sockets = sockets(std::process::id()).unwrap();
            let process = Process::open(std::process::id()).unwrap();
            let table = tcp_table(process.pid).unwrap();
            // A process may always trace itself.
            for rows in [table, looked_at(&process, &sockets).unwrap().unwrap()] {
                let row_of = |number: i32| {
                    let socket = sockets.iter().find(|socket| socket.number == number);
                    rows[&socket.unwrap().inode]
                };
                assert_eq!(row_of(listener.as_raw_fd()).state, LISTEN);
                assert_eq!(row_of(listener.as_raw_fd()).local, local);
                let found = row_of(served.as_raw_fd());
                assert_eq!((found.local, found.remote, found.state), (local, remote, 1));
                assert_eq!(row_of(client.as_raw_fd()).remote, local);
            }
        }
    }
}
