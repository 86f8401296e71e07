use std::fs::File;
use std::io::{Read, Write, pipe};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::setsockopt;

use super::*;
use crate::proto::records::ItemKind;
use crate::takeover::os::descriptor::{check, cookie};

const LOOPBACK: &str = "127.0.0.1:0";

fn tcp_peer(
    fd: BorrowedFd<'_>,
    local: SocketAddr,
    peer: SocketAddr,
    cookie: u64,
) -> Result<PeerState, Invalid> {
    let about = Descriptor {
        peer: Some(peer),
        ..record(ItemKind::TcpPeer, local, cookie)
    };
    check(fd, &about)
}

fn tcp_listener(fd: BorrowedFd<'_>, local: SocketAddr, cookie: u64) -> Result<PeerState, Invalid> {
    check(fd, &record(ItemKind::Listener, local, cookie))
}

fn record(kind: ItemKind, local: SocketAddr, cookie: u64) -> Descriptor<'static> {
    Descriptor {
        id: 1,
        kind,
        name: "socket",
        cookie,
        local: Some(local),
        peer: None,
        links: Vec::new(),
        state_version: 1,
        has_fd: true,
    }
}

/// An accepted connection with its record, and the client's end.
struct Peer {
    socket: TcpStream,
    client: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    cookie: u64,
}

impl Peer {
    fn connected() -> Peer {
        Peer::connected_to(LOOPBACK)
    }

    fn connected_to(address: &str) -> Peer {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (local, remote) = addresses(socket.as_fd()).unwrap();
        Peer {
            cookie: cookie(socket.as_fd()),
            remote: remote.unwrap(),
            local,
            socket,
            client,
        }
    }

    /// The client goes away with an RST, which has arrived on return.
    fn reset(self) -> Reset {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.client, sockopt::Linger, &linger).unwrap();
        drop(self.client);
        await_event(&self.socket, PollFlags::POLLHUP);
        Reset {
            socket: self.socket,
            local: self.local,
            remote: self.remote,
            cookie: self.cookie,
        }
    }

    fn check(&self) -> Result<PeerState, Invalid> {
        tcp_peer(self.socket.as_fd(), self.local, self.remote, self.cookie)
    }
}

struct Reset {
    socket: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    cookie: u64,
}

fn await_event(socket: &impl AsFd, event: PollFlags) {
    let mut wanted = [PollFd::new(socket.as_fd(), event)];
    assert_eq!(poll(&mut wanted, PollTimeout::from(10_000u16)).unwrap(), 1);
}

#[test]
fn connected_peer_is_alive() {
    for address in [LOOPBACK, "[::1]:0"] {
        let peer = Peer::connected_to(address);
        assert_eq!(peer.check().unwrap(), PeerState::Alive);
    }
}

#[test]
fn half_closed_peer_is_alive() {
    use std::net::Shutdown;
    let peer = Peer::connected();
    peer.client.shutdown(Shutdown::Write).unwrap();
    await_event(&peer.socket, PollFlags::POLLIN);
    assert_eq!(peer.check().unwrap(), PeerState::Alive);
    let peer = Peer::connected();
    peer.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.check().unwrap(), PeerState::Alive);
}

#[test]
fn peer_closed_from_both_sides_is_dead() {
    use std::net::Shutdown;
    let peer = Peer::connected();
    peer.socket.shutdown(Shutdown::Write).unwrap();
    peer.client.shutdown(Shutdown::Write).unwrap();
    await_event(&peer.socket, PollFlags::POLLHUP);
    assert_eq!(peer.check().unwrap(), PeerState::Dead);
}

#[test]
fn reset_peer_is_dead_and_its_error_is_left_for_the_owner() {
    let Reset {
        mut socket,
        local,
        remote,
        cookie,
    } = Peer::connected().reset();
    let state = tcp_peer(socket.as_fd(), local, remote, cookie).unwrap();
    assert_eq!(state, PeerState::Dead);
    assert_eq!(addresses(socket.as_fd()).unwrap().1, None);
    let error = socket.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn validation_changes_nothing() {
    let mut peer = Peer::connected();
    peer.client.write_all(b"waiting").unwrap();
    await_event(&peer.socket, PollFlags::POLLIN);
    let flags = fcntl(&peer.socket, FcntlArg::F_GETFL).unwrap();
    peer.check().unwrap();
    assert_eq!(fcntl(&peer.socket, FcntlArg::F_GETFL).unwrap(), flags);
    let mut read = [0; 7];
    peer.socket.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"waiting");
}

#[test]
fn peer_with_another_peers_record_is_refused() {
    let (one, two) = (Peer::connected(), Peer::connected());
    let fd = one.socket.as_fd();
    let by_cookie = tcp_peer(fd, one.local, one.remote, two.cookie);
    assert!(matches!(by_cookie, Err(Invalid::Cookie { .. })));
    let by_local = tcp_peer(fd, two.local, one.remote, one.cookie);
    assert!(matches!(by_local, Err(Invalid::Local { .. })));
    let by_peer = tcp_peer(fd, one.local, two.remote, one.cookie);
    assert!(matches!(by_peer, Err(Invalid::Peer { .. })));
}

#[test]
fn listener_and_peer_are_not_taken_for_each_other() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (local, none) = addresses(listener.as_fd()).unwrap();
    assert_eq!(none, None);
    let known = cookie(listener.as_fd());
    tcp_listener(listener.as_fd(), local, known).unwrap();
    let as_peer = tcp_peer(listener.as_fd(), local, local, known);
    assert!(matches!(as_peer, Err(Invalid::State(LISTEN))));
    let elsewhere = SocketAddr::new(local.ip(), local.port() ^ 1);
    let moved = tcp_listener(listener.as_fd(), elsewhere, known);
    assert!(matches!(moved, Err(Invalid::Local { .. })));

    let peer = Peer::connected();
    let as_listener = tcp_listener(peer.socket.as_fd(), peer.local, peer.cookie);
    assert!(matches!(as_listener, Err(Invalid::State(ESTABLISHED))));
}

#[test]
fn fd_that_is_no_tcp_socket_is_refused() {
    let anywhere: SocketAddr = LOOPBACK.parse().unwrap();
    let path_only = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open("/proc/self/status");
    let mut odd: Vec<(&str, OwnedFd)> = vec![
        ("directory", File::open("/proc/self").unwrap().into()),
        (
            "file in /proc",
            File::open("/proc/self/status").unwrap().into(),
        ),
        ("O_PATH", path_only.unwrap().into()),
        ("pipe", pipe().unwrap().0.into()),
        ("Unix socket", UnixStream::pair().unwrap().0.into()),
        ("UDP", UdpSocket::bind(LOOPBACK).unwrap().into()),
        ("epoll", Epoll::new(EpollCreateFlags::empty()).unwrap().0),
        ("eventfd", EventFd::new().unwrap().into()),
    ];
    odd.extend(odd_internet_sockets());
    for (kind, fd) in odd {
        // Its own cookie, so that nothing but its kind can be wrong.
        let known = cookie(fd.as_fd());
        let result = tcp_peer(fd.as_fd(), anywhere, anywhere, known);
        assert!(matches!(result, Err(Invalid::NotTcp)), "{kind}: {result:?}");
    }
}

/// Sockets that look much like TCP, as far as this system lets us have them.
fn odd_internet_sockets() -> Vec<(&'static str, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    // Needs CAP_NET_RAW.
    let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Tcp);
    let mptcp = sys::mptcp_socket();
    [("raw TCP", raw.ok()), ("MPTCP", mptcp.ok())]
        .into_iter()
        .filter_map(|(kind, fd)| Some((kind, fd?)))
        .collect()
}

#[test]
fn unconnected_tcp_socket_is_refused_as_a_listener_and_dead_as_a_peer() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fresh = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let (local, _) = addresses(fresh.as_fd()).unwrap();
    let known = cookie(fresh.as_fd());
    let as_listener = tcp_listener(fresh.as_fd(), local, known);
    assert!(matches!(as_listener, Err(Invalid::State(CLOSE))));
    let as_peer = tcp_peer(fresh.as_fd(), local, local, known);
    assert_eq!(as_peer.unwrap(), PeerState::Dead);
}

#[test]
fn blocking_peer_is_refused_and_not_repaired() {
    let peer = Peer::connected();
    peer.socket.set_nonblocking(false).unwrap();
    assert!(matches!(peer.check(), Err(Invalid::Blocks)));
    let flags = OFlag::from_bits_retain(fcntl(&peer.socket, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
}

#[test]
fn peer_that_raises_signals_is_refused() {
    let peer = Peer::connected();
    let flags = OFlag::O_NONBLOCK | OFlag::O_ASYNC;
    fcntl(&peer.socket, FcntlArg::F_SETFL(flags)).unwrap();
    assert!(matches!(peer.check(), Err(Invalid::Async(None))));
}

#[test]
fn inheritable_peer_is_refused() {
    let peer = Peer::connected();
    fcntl(&peer.socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    assert!(matches!(peer.check(), Err(Invalid::Inheritable)));
}

#[test]
fn peer_under_repair_is_refused() {
    let peer = Peer::connected();
    if let Err(error) = setsockopt(&peer.socket, sockopt::TcpRepair, &1) {
        eprintln!("skipped, TCP_REPAIR is not for us: {error}");
        return;
    }
    assert!(matches!(peer.check(), Err(Invalid::Repair)));
    setsockopt(&peer.socket, sockopt::TcpRepair, &0).unwrap();
}

#[test]
fn peer_with_an_upper_layer_is_refused() {
    let peer = Peer::connected();
    if let Err(error) = setsockopt(&peer.socket, sockopt::TcpUlp::default(), b"tls") {
        eprintln!("skipped, this kernel has no TLS: {error}");
        return;
    }
    assert!(matches!(peer.check(), Err(Invalid::UpperLayer)));
}
