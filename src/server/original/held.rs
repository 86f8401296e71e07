//! What we have of the original: its listener and its peers, by the kernel's number for each.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::sys::stat::fstat;
use socket_takeover::sys;
use socket_takeover::takeover::Positions;
use socket_takeover::takeover::internal::descriptor;
use socket_takeover::takeover::internal::descriptor::tcp::{CLOSE_WAIT, CLOSING, LAST_ACK, LISTEN};

use super::anchor::Anchor;
use super::census::{self, Unfetched};
use super::process::Process;
use super::settle::{Look, Seen};

/// See the file's own description.
#[derive(Debug)]
pub(super) struct Held {
    /// The listener among the sockets.
    listener: u64,
    sockets: HashMap<u64, OwnedFd>,
    /// Sockets of its that are none of TCP.
    others: HashSet<u64>,
    /// Those of its sockets that it had open when it was looked at last.
    served: HashSet<u64>,
    may_fetch: bool,
    /// Where each peer was when it was looked at last, and since when it has been there.
    seen: HashMap<u64, (Option<Positions>, Instant)>,
}

impl Held {
    /// With the listener, if we may fetch.
    pub(super) fn new(process: &Process, listener: u64, unix: u64) -> io::Result<Held> {
        let mut held = Held {
            listener,
            sockets: HashMap::new(),
            others: HashSet::from([unix]),
            served: HashSet::new(),
            may_fetch: true,
            seen: HashMap::new(),
        };
        let sockets = census::sockets(process.pid)?;
        let listener = sockets.into_iter().find(|socket| socket.inode == listener);
        if let Some(socket) = listener {
            held.fetch_one(process, socket);
        }
        Ok(held)
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn has_listener(&self) -> bool {
        self.sockets.contains_key(&self.listener)
    }

    /// Whether its listener is where ours would be: only then do we reach it by its address.
    pub(super) fn is_in_our_network(&self) -> io::Result<bool> {
        if let Some(listener) = self.sockets.get(&self.listener) {
            let flags = SockFlag::SOCK_CLOEXEC;
            let ours = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
            match sys::network_cookie(listener) {
                Ok(theirs) => return Ok(theirs == sys::network_cookie(ours)?),
                // Before Linux 5.14.
                Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
                Err(error) => return Err(error),
            }
        }
        // Numbers of sockets are the same everywhere, and this table is that of our namespace.
        Ok(census::tcp_table(std::process::id())?.contains_key(&self.listener))
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.may_fetch
    }

    /// Descriptors that have arrived; what is no TCP socket of its is closed again.
    pub(super) fn add(&mut self, fds: Vec<OwnedFd>) {
        for fd in fds {
            if let Ok(found) = fstat(&fd) {
                self.keep(found.st_ino, fd);
            }
        }
    }

    fn keep(&mut self, inode: u64, fd: OwnedFd) {
        match sys::tcp_state(&fd) {
            // A listener beside its own is not known to be served by anybody.
            Ok(state) if state != LISTEN || inode == self.listener => {
                self.sockets.insert(inode, fd);
            }
            _ => {
                self.others.insert(inode);
            }
        }
    }

    /// Gets from the stopped process what it has and we have not.
    pub(super) fn fetch(&mut self, process: &Process) -> io::Result<()> {
        self.served.clear();
        for socket in census::sockets(process.pid)? {
            self.served.insert(socket.inode);
            let is_known =
                self.sockets.contains_key(&socket.inode) || self.others.contains(&socket.inode);
            if !is_known && self.may_fetch {
                self.fetch_one(process, socket);
            }
        }
        Ok(())
    }

    fn fetch_one(&mut self, process: &Process, socket: census::Socket) {
        match process.fetch(socket.number) {
            Ok(fd) => self.keep(socket.inode, fd),
            Err(error) => match Unfetched::of(&error) {
                Unfetched::Closed => {}
                Unfetched::Forbidden => self.may_fetch = false,
                Unfetched::Short => log::warn!("fd {} of the original: {error}", socket.number),
            },
        }
    }

    /// Looks at each peer; `patience` as in [`Look::of`].
    pub(super) fn look(&mut self, patience: Duration) -> (Vec<u64>, Vec<Look>) {
        let now = Instant::now();
        let (mut inodes, mut looks) = (Vec::new(), Vec::new());
        for (inode, fd) in &self.sockets {
            if *inode == self.listener {
                continue;
            }
            let state = sys::tcp_state(fd);
            let positions = Positions::of(fd).ok().flatten();
            let before = self.seen.entry(*inode).or_insert((positions, now));
            if before.0 != positions {
                *before = (positions, now);
            }
            let seen = Seen {
                positions,
                // One that was reset has no other side any more.
                is_connected: !matches!(descriptor::addresses(fd.as_fd()), Ok((_, None))),
                read_closed: matches!(state, Ok(CLOSE_WAIT | LAST_ACK | CLOSING)),
                is_served: self.served.contains(inode),
                unmoved: now - before.1,
            };
            inodes.push(*inode);
            looks.push(Look::of(seen, patience));
        }
        (inodes, looks)
    }

    /// The peers of the process that we have not, to be named: they end with it.
    pub(super) fn out_of_reach(&self) -> Vec<SocketAddr> {
        let is_missing =
            |inode: &&u64| !self.sockets.contains_key(inode) && !self.others.contains(inode);
        if !self.served.iter().any(|inode| is_missing(&inode)) {
            return Vec::new();
        }
        // One table for the whole network namespace, ours and its.
        let table = census::tcp_table(std::process::id()).unwrap_or_default();
        let missing = self.served.iter().filter(is_missing);
        let remote = |inode| table.get(inode).map(|row: &census::Row| row.remote);
        missing.filter_map(remote).collect()
    }

    /// Everything for its new owner, now that the process is dead. Those of `unsettled` are
    /// reset; they come last.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    pub(super) fn release(
        mut self,
        unsettled: &[u64],
        anchor: Option<&Anchor>,
    ) -> io::Result<(TcpListener, Vec<(TcpStream, SocketAddr)>, Vec<SocketAddr>)> {
        let listener = self.sockets.remove(&self.listener);
        let listener = TcpListener::from(listener.ok_or(io::ErrorKind::NotFound)?);
        listener.set_nonblocking(true)?;
        let (mut peers, mut ended) = (Vec::new(), Vec::new());
        for (inode, fd) in self.sockets {
            // Without an address it was reset, and nobody waits.
            let Ok((_, Some(address))) = descriptor::addresses(fd.as_fd()) else {
                continue;
            };
            if anchor.is_some_and(|anchor| anchor.is(address)) {
                continue;
            }
            if unsettled.contains(&inode) {
                reset(fd);
                ended.push(address);
                continue;
            }
            let stream = TcpStream::from(fd);
            // Nobody else has any of them any more: one that fails is one that is lost.
            match stream.set_nonblocking(true) {
                Ok(()) => peers.push((stream, address)),
                Err(error) => {
                    log::warn!("Peer {address}: {error}");
                    reset(stream.into());
                    ended.push(address);
                }
            }
        }
        // As they have come, which is how logs are read.
        peers.sort_by_key(|(stream, _)| stream.as_raw_fd());
        Ok((listener, peers, ended))
    }
}

/// Ends a connection whose client must not take it for complete: nobody else has it any more,
/// so the close is a reset (socket(7), SO_LINGER).
fn reset(fd: OwnedFd) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    if let Err(error) = setsockopt(&fd, sockopt::Linger, &at_once) {
        log::debug!("linger: {error}");
    }
}
