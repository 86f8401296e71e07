//! The floor: an echo server that does nothing else.
//!
//! One thread, edge-triggered, one read and one write an event: the system calls that no
//! event-driven server can do without, and no bookkeeping around them. It is no example of
//! a server: it knows no limit, and whoever sends without end is served without end.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::ROOM;
use super::exchange::{After, exchange};
use crate::ready::wait;

const LISTENER: u64 = u64::MAX;

struct Peer {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// Serves until the process is killed.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;

    // By descriptor number, which is what the kernel gives back.
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = [EpollEvent::empty(); 1024];
    let mut room = vec![0; ROOM];
    loop {
        for event in wait(&epoll, &mut events)? {
            if event.data() == LISTENER {
                accept(listener, &epoll, &mut peers)?;
                continue;
            }
            let number = event.data();
            let place = &mut peers[number as usize];
            if let Some(peer) = place
                && !go_on(peer, number, &epoll, &mut room)?
            {
                *place = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, peers: &mut Vec<Option<Peer>>) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let number = stream.as_raw_fd() as usize;
    epoll.add(&stream, interest(number as u64, false))?;
    if peers.len() <= number {
        peers.resize_with(number + 1, || None);
    }
    let unsent = Vec::new();
    peers[number] = Some(Peer { stream, unsent });
    Ok(())
}

/// Whether the connection goes on.
fn go_on(peer: &mut Peer, number: u64, epoll: &Epoll, room: &mut [u8]) -> io::Result<bool> {
    let was_blocked = !peer.unsent.is_empty();
    let after = loop {
        match exchange(&peer.stream, &mut peer.unsent, room) {
            After::More => {}
            after => break after,
        }
    };
    let is_blocked = after == After::Blocked;
    if is_blocked != was_blocked && after != After::Ended {
        epoll.modify(&peer.stream, &mut interest(number, is_blocked))?;
    }
    Ok(after != After::Ended)
}

fn interest(number: u64, is_blocked: bool) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    flags.set(EpollFlags::EPOLLOUT, is_blocked);
    EpollEvent::new(flags, number)
}
