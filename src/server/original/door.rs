//! The way to the original's Unix socket: whatever happens to PATH meanwhile, it leads to the
//! file that was looked at.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use socket_takeover::takeover::TakeoverPath;
use socket_takeover::takeover::internal::path::other_listener;
use socket_takeover::takeover::internal::procfs;

/// See the file's own description.
pub(super) struct Door(OwnedFd);

impl Door {
    /// Looks at PATH; who listens there feels nothing.
    pub(super) fn open(path: &TakeoverPath) -> io::Result<Option<Door>> {
        Ok(other_listener(path)?.map(Door))
    }

    /// The socket's file, opened with O_PATH.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Connects: the order to hand over, which cannot be undone. It never waits: a Unix socket
    /// connects at once, or says EAGAIN.
    pub(super) fn call(&self) -> io::Result<OwnedFd> {
        self.dial().map_err(procfs::explain)
    }

    fn dial(&self) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let address = UnixAddr::new(address.as_str())?;
        loop {
            match socket::connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map(|()| socket),
            }
        }
    }
}
