//! The floor: an echo server that does nothing else.
//!
//! One thread, edge-triggered, one read and one write an event: the system calls that no
//! event-driven server can do without, and no bookkeeping around them. It is no example of
//! a server: a client that does not read loses its connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const LISTENER: u64 = u64::MAX;

/// Serves until the process is killed, on a port that it names on stderr first.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    eprintln!("[127.0.0.1]:{}", listener.local_addr()?.port());

    // By descriptor number, which is what the kernel gives back.
    let mut peers: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); 1024];
    let mut room = [0; 64 * 1024];
    loop {
        for event in wait(&epoll, &mut events)? {
            if event.data() == LISTENER {
                let (peer, _) = listener.accept()?;
                peer.set_nonblocking(true)?;
                peer.set_nodelay(true)?;
                let number = peer.as_raw_fd() as usize;
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                epoll.add(&peer, EpollEvent::new(flags, number as u64))?;
                peers.resize_with(peers.len().max(number + 1), || None);
                peers[number] = Some(peer);
                continue;
            }
            let place = &mut peers[event.data() as usize];
            if let Some(peer) = place
                && !echo(peer, &mut room)
            {
                *place = None;
            }
        }
    }
}

/// Waits for at least one event.
pub(crate) fn wait<'a>(
    epoll: &Epoll,
    events: &'a mut [EpollEvent],
) -> io::Result<&'a [EpollEvent]> {
    loop {
        match epoll.wait(events, EpollTimeout::NONE) {
            Ok(ready) => return Ok(&events[..ready]),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the connection goes on.
fn echo(peer: &mut TcpStream, room: &mut [u8]) -> bool {
    loop {
        let read = match peer.read(room) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if peer.write_all(&room[..read]).is_err() {
            return false;
        }
        if read < room.len() {
            return true;
        }
    }
}
