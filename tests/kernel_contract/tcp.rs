//! TCP connections with two holders, and listeners.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use socket_takeover::sys;
use socket_takeover::takeover::internal::scm;

use crate::channel::pair;
use crate::skip;
use crate::support::{BOUND, wait_readable};

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;

/// A client, and the socket that was accepted for it.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (accepted, _) = listener.accept().expect("it is queued");
    (client, accepted)
}

/// The error, or the number of bytes, of the next read.
fn next_read(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    assert!(wait_readable(stream, BOUND).expect("it can be polled"));
    stream.read(&mut [0; 64]).map_err(|error| error.kind())
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// Stands on it: a donor leaves by close alone, with bytes unread, and no client notices.
#[test]
fn k17_close_is_seen_by_the_client_only_with_the_last_copy() {
    let (mut client, accepted) = connected();
    let other = accepted.try_clone().expect("a descriptor");
    client.write_all(b"unread").expect("it is connected");
    assert!(wait_readable(&accepted, BOUND).expect("it can be polled"));
    drop(accepted);
    assert_eq!(sys::tcp_state(&client).expect("tcp"), ESTABLISHED);
    assert!(!wait_readable(&client, Duration::ZERO).expect("it can be polled"));
    drop(other);
    assert_eq!(next_read(&client), Err(ErrorKind::ConnectionReset));
}

/// Stands on it: connections in flight live as long as one side does.
#[test]
fn k18_connection_in_flight_outlives_its_sender_and_ends_with_the_reader() {
    let (client, accepted) = connected();
    let (donor, taker) = pair(SockType::SeqPacket);
    scm::send(donor.as_fd(), b"x", &[accepted.as_fd()]).expect("there is room");
    drop((accepted, donor));
    assert_eq!(sys::tcp_state(&client).expect("tcp"), ESTABLISHED);
    assert!(!wait_readable(&client, Duration::ZERO).expect("it can be polled"));
    drop(taker);
    assert_eq!(next_read(&client), Ok(0));
}

/// Stands on it: who ends a peer shuts it down; who gives it away never does.
#[test]
fn shutdown_ends_a_connection_for_all_its_holders() {
    let (client, accepted) = connected();
    let other = accepted.try_clone().expect("a descriptor");
    accepted.shutdown(Shutdown::Both).expect("it is connected");
    assert_eq!(next_read(&client), Ok(0));
    assert_eq!(next_read(&other), Ok(0));
}

/// Stands on it: a listener that changes hands is closed, and never shut down.
#[test]
fn shutdown_of_a_listener_stops_it_for_all_its_holders() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let other = listener.try_clone().expect("a descriptor");
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)
        .expect("it listens");
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    other.set_nonblocking(true).expect("a socket");
    let error = other.accept().expect_err("nobody can call");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

/// Stands on it: before its claim a taker never asks for SO_ERROR.
#[test]
fn error_that_was_asked_for_is_gone() {
    let (client, mut accepted) = connected();
    setsockopt(
        &client,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
    .expect("a socket");
    drop(client);
    assert!(wait_readable(&accepted, BOUND).expect("it can be polled"));
    let error = getsockopt(&accepted, sockopt::SocketError).expect("a socket");
    assert_eq!(error, libc::ECONNRESET);
    let read = accepted.read(&mut [0; 8]).expect("the reset is forgotten");
    assert_eq!(read, 0, "and looks like an orderly end");
}

/// Stands on it: an abortive end does not rely on SO_LINGER while somebody else has a copy.
#[test]
fn linger_of_zero_does_nothing_while_a_copy_lives() {
    let (client, accepted) = connected();
    let other = accepted.try_clone().expect("a descriptor");
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&accepted, sockopt::Linger, &now).expect("a socket");
    drop(accepted);
    assert_eq!(sys::tcp_state(&client).expect("tcp"), ESTABLISHED);
    drop(other);
    assert_eq!(next_read(&client), Err(ErrorKind::ConnectionReset));
}

/// A listener that shares its port.
fn sharing(address: SocketAddrV4) -> TcpListener {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    setsockopt(&socket, sockopt::ReusePort, &true).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::from(address)).expect("a port");
    listen(&socket, Backlog::new(64).expect("a small one")).expect("it is bound");
    TcpListener::from(socket)
}

fn v4(listener: &TcpListener) -> SocketAddrV4 {
    match listener.local_addr().expect("bound") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

/// Stands on it: the listener itself is handed over, with all that queues at it.
#[test]
fn k21_closing_one_of_two_listeners_loses_what_queued_there_unless_it_is_shared() {
    if sysctl("tcp_migrate_req").is_some_and(|migrates| migrates != "0") {
        return skip("net.ipv4.tcp_migrate_req moves what queues");
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let first = sharing(any);
    let address = v4(&first);
    let second = sharing(address);
    let call = || TcpStream::connect(address).expect("they listen");
    let clients: Vec<_> = (0..40).map(|_| call()).collect();
    drop(first);
    second.set_nonblocking(true).expect("a socket");
    let accepted = std::iter::from_fn(|| second.accept().ok()).count();
    assert!((1..40).contains(&accepted), "{accepted} of 40 were left");
    println!("{accepted} of 40 were left with a port that is shared");
    drop(clients);

    let first = TcpListener::bind(SocketAddr::V4(any)).expect("a port");
    let second = first.try_clone().expect("a descriptor");
    let address = v4(&first);
    let clients: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(address).expect("it listens"))
        .collect();
    drop(first);
    second.set_nonblocking(true).expect("a socket");
    let accepted = std::iter::from_fn(|| second.accept().ok()).count();
    assert_eq!(accepted, 40, "with a listener that is shared");
    drop(clients);
}

/// Stands on it: whoever connects in a freeze waits in the backlog, and beyond it in SYN_SENT;
/// nobody is refused.
#[test]
fn k22_full_backlog_makes_callers_wait_and_refuses_nobody() {
    if sysctl("tcp_abort_on_overflow").is_some_and(|aborts| aborts != "0") {
        return skip("net.ipv4.tcp_abort_on_overflow is set");
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = || socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    let listener = made();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
    listen(&listener, Backlog::new(8).expect("a small one")).expect("it is bound");
    let listener = TcpListener::from(listener);
    let address = SockaddrIn::from(v4(&listener));
    let clients: Vec<OwnedFd> = (0..12).map(|_| made()).collect();
    let states: Vec<u8> = clients
        .iter()
        .map(|client| {
            let calling = connect(client.as_raw_fd(), &address);
            assert_eq!(calling, Err(Errno::EINPROGRESS));
            // Over loopback the answer, if there is one, is here before connect(2) returns.
            sys::tcp_state(client).expect("tcp")
        })
        .collect();
    let wanted = [[ESTABLISHED; 9].as_slice(), &[SYN_SENT; 3]].concat();
    assert_eq!(states, wanted);
}

/// Stands on it: what is no connected TCP socket is refused by options that only read.
#[test]
fn k26_odd_descriptors_are_told_apart_by_getsockopt() {
    let folder = File::open("/").expect("a folder");
    let proc = File::open("/proc/self/status").expect("procfs");
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll set");
    let event = EventFd::new().expect("an eventfd");
    let path = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open("/");
    let path = path.expect("a folder");
    let kind = |fd: &dyn AsFd| getsockopt(&fd.as_fd(), sockopt::SockType);
    let no_sockets: [&dyn AsFd; 4] = [&folder, &proc, &epoll.0, &event];
    for fd in no_sockets {
        assert_eq!(kind(fd), Err(Errno::ENOTSOCK));
    }
    assert_eq!(kind(&path), Err(Errno::EBADF));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (unix, _other) = pair(SockType::Stream);
    let (_client, tcp) = connected();
    assert_eq!(kind(&udp), Ok(SockType::Datagram));
    assert_eq!(kind(&unix), Ok(SockType::Stream));
    let protocol = |fd: &dyn AsFd| sys::socket_protocol(fd.as_fd()).expect("a socket");
    assert_eq!(protocol(&udp), libc::IPPROTO_UDP);
    assert_eq!(protocol(&unix), 0);
    assert_eq!(protocol(&tcp), libc::IPPROTO_TCP);
}
