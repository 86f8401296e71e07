use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, socket};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use super::*;

fn record(kind: ItemKind, fd: &impl AsFd) -> Descriptor<'static> {
    Descriptor {
        id: 1,
        kind,
        name: "item",
        cookie: cookie(fd.as_fd()),
        local: None,
        peer: None,
        links: Vec::new(),
        state_version: 1,
        has_fd: true,
    }
}

/// In words, as the other side is told.
fn check(fd: BorrowedFd<'_>, about: &Descriptor<'_>) -> Result<PeerState, String> {
    super::check(fd, about).map_err(|why| why.to_string())
}

fn can_travel(fd: BorrowedFd<'_>) -> Result<(), String> {
    super::can_travel(fd).map_err(|why| why.to_string())
}

fn verdict(kind: ItemKind, fd: &impl AsFd) -> Result<PeerState, String> {
    check(fd.as_fd(), &record(kind, fd))
}

fn udp() -> (UdpSocket, Descriptor<'static>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let local = socket.local_addr().ok();
    let record = Descriptor {
        local,
        ..record(ItemKind::Udp, &socket)
    };
    (socket, record)
}

fn eventfd() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap()
}

fn memfd() -> OwnedFd {
    memfd_create("table", MFdFlags::MFD_CLOEXEC).unwrap()
}

#[test]
fn udp_socket_as_recorded_is_taken() {
    let (socket, record) = udp();
    assert_eq!(check(socket.as_fd(), &record), Ok(PeerState::Alive));
}

#[test]
fn udp_socket_with_another_address_is_refused() {
    let (socket, mut record) = udp();
    record.local = Some("127.0.0.1:9".parse().unwrap());
    assert!(
        check(socket.as_fd(), &record)
            .unwrap_err()
            .contains("recorded")
    );
    record.local = None;
    assert!(check(socket.as_fd(), &record).is_err());
}

#[test]
fn udp_socket_for_another_is_refused() {
    let ((one, _), (_, other)) = (udp(), udp());
    assert!(check(one.as_fd(), &other).unwrap_err().contains("cookie"));
}

#[test]
fn blocking_udp_socket_is_refused() {
    let (socket, record) = udp();
    socket.set_nonblocking(false).unwrap();
    assert!(
        check(socket.as_fd(), &record)
            .unwrap_err()
            .contains("O_NONBLOCK")
    );
}

#[test]
fn files_are_told_apart() {
    let timer = TimerFd::new(
        ClockId::CLOCK_MONOTONIC,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )
    .unwrap();
    let event = eventfd();
    let memory = memfd();
    assert_eq!(verdict(ItemKind::Timerfd, &timer), Ok(PeerState::Alive));
    assert_eq!(verdict(ItemKind::Eventfd, &event), Ok(PeerState::Alive));
    assert_eq!(verdict(ItemKind::Memfd, &memory), Ok(PeerState::Alive));
    for wrong in [
        ItemKind::Eventfd,
        ItemKind::Memfd,
        ItemKind::Tun,
        ItemKind::Udp,
        ItemKind::Packet,
        ItemKind::BpfMap,
        ItemKind::BpfLink,
        ItemKind::Listener,
    ] {
        assert!(verdict(wrong, &timer).is_err(), "{wrong}");
    }
    assert!(verdict(ItemKind::Timerfd, &event).is_err());
}

#[test]
fn netlink_socket_is_told_from_udp() {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )
    .unwrap();
    assert_eq!(verdict(ItemKind::Netlink, &netlink), Ok(PeerState::Alive));
    assert!(verdict(ItemKind::Udp, &netlink).is_err());
    assert!(verdict(ItemKind::Raw, &netlink).is_err());
}

#[test]
fn opaque_is_anything_that_can_travel() {
    assert_eq!(
        verdict(ItemKind::Opaque, &File::open("/dev/null").unwrap()),
        Ok(PeerState::Alive)
    );
    assert_eq!(verdict(ItemKind::Opaque, &memfd()), Ok(PeerState::Alive));
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let folder = nix::fcntl::open("/", flags, nix::sys::stat::Mode::empty()).unwrap();
    assert_eq!(verdict(ItemKind::Opaque, &folder), Ok(PeerState::Alive));
}

#[test]
fn what_cannot_travel_is_refused_with_the_reason() {
    let (unix, _other) = UnixStream::pair().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let signals = SignalFd::new(&SigSet::empty()).unwrap();
    assert!(can_travel(unix.as_fd()).unwrap_err().contains("in flight"));
    assert!(
        can_travel(epoll.0.as_fd())
            .unwrap_err()
            .contains("descriptors")
    );
    assert!(can_travel(signals.as_fd()).unwrap_err().contains("signals"));
    assert!(verdict(ItemKind::Opaque, &unix).is_err());
    assert_eq!(can_travel(eventfd().as_fd()), Ok(()));
}

#[test]
fn descriptors_bound_to_a_process_or_its_memory_are_refused_by_either_side() {
    let kvm = File::open("/dev/kvm");
    let made = [
        ("userfaultfd", sys::userfaultfd()),
        ("AF_XDP", sys::any_socket(libc::AF_XDP, libc::SOCK_RAW, 0)),
        ("kvm-vm", kvm.and_then(|kvm| sys::virtual_machine(&kvm))),
    ];
    for (name, made) in made {
        match made {
            Ok(fd) => {
                let why = can_travel(fd.as_fd()).unwrap_err();
                assert!(why.contains(name) && why.contains("memory"), "{why}");
                assert_eq!(verdict(ItemKind::Opaque, &fd), Err(why));
            }
            Err(error) => println!("{name}: skipped, {error}"),
        }
    }
}

/// Devices that not every machine has, by the names that the kernel gives them.
#[test]
fn names_of_what_is_bound_are_known() {
    let refused = |name: &str| refuse(&Nature::File(name.into()), OFlag::empty()).is_err();
    for name in [
        "anon_inode:[io_uring]",
        "anon_inode:kvm-vm",
        "anon_inode:kvm-vcpu:3",
        "anon_inode:[kvm-gmem]",
        "/dev/vhost-net",
        "/dev/vhost-vsock",
        "/dev/vhost-vdpa-0",
        "/dev/vfio/vfio",
        "/dev/vfio/26",
        "/dev/vfio/devices/vfio0",
        "anon_inode:[vfio-device]",
        "/dev/iommu",
        "/dev/infiniband/uverbs0",
        "/dev/binderfs/binder",
        "/dev/sgx_enclave",
    ] {
        assert!(refused(name), "{name}");
    }
    for name in [
        "/dev/kvm",
        "/dev/userfaultfd",
        "/dev/net/tun",
        "/dev/fuse",
        "/dev/null",
        "anon_inode:[pidfd]",
        "anon_inode:inotify",
        "anon_inode:[fanotify]",
        "anon_inode:[perf_event]",
        "anon_inode:bpf-map",
        "/srv/dev/vhost-net",
    ] {
        assert!(!refused(name), "{name}");
    }
}

#[test]
fn signals_that_stay_with_the_first_owner_are_refused_for_every_kind() {
    let (udp, udps) = udp();
    let (reader, _writer) = std::io::pipe().unwrap();
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )
    .unwrap();
    let netlinks = record(ItemKind::Netlink, &netlink);
    let pipes = record(ItemKind::Opaque, &reader);
    let all = [
        (udp.as_fd(), udps),
        (netlink.as_fd(), netlinks),
        (reader.as_fd(), pipes),
    ];
    for (fd, record) in all {
        let before = flags(fd).unwrap();
        assert_eq!(can_travel(fd), Ok(()));
        fcntl(fd, FcntlArg::F_SETFL(before | OFlag::O_ASYNC)).unwrap();
        let why = can_travel(fd).unwrap_err();
        assert!(
            why.contains("O_ASYNC is set") && why.contains("F_SETFL"),
            "{why}"
        );
        assert_eq!(check(fd, &record), Err(why));
        fcntl(fd, FcntlArg::F_SETFL(before)).unwrap();
        assert_eq!(can_travel(fd), Ok(()));
    }
}

/// A kind without a row would be taken for whatever the application says that it is.
#[test]
fn every_kind_has_a_row() {
    let known = (1..).map(ItemKind::from_code);
    for kind in known.take_while(|kind| !matches!(kind, ItemKind::Other(_))) {
        assert!(KINDS.iter().any(|row| row.kind == kind), "{kind}");
    }
}

#[test]
fn kind_is_found_for_what_has_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(kind_of(listener.as_fd()), ItemKind::Listener);
    assert_eq!(kind_of(client.as_fd()), ItemKind::TcpPeer);
    assert_eq!(kind_of(udp().0.as_fd()), ItemKind::Udp);
    assert_eq!(kind_of(eventfd().as_fd()), ItemKind::Eventfd);
    assert_eq!(kind_of(memfd().as_fd()), ItemKind::Memfd);
    let flags = TimerFlags::TFD_NONBLOCK;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).unwrap();
    assert_eq!(kind_of(timer.as_fd()), ItemKind::Timerfd);
    let (unix, _other) = UnixStream::pair().unwrap();
    assert_eq!(kind_of(unix.as_fd()), ItemKind::Opaque);
}

/// Multipath TCP answers TCP_INFO as TCP does, and is refused as TCP.
#[test]
fn multipath_tcp_socket_is_opaque_and_found_to_be_so() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let made = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        Some(ipproto::MPTCP),
    );
    let Ok(listener) = made else {
        return eprintln!("skipped: this kernel has no multipath TCP");
    };
    crate::sys::listen(&listener, 1).unwrap();
    assert_eq!(kind_of(listener.as_fd()), ItemKind::Opaque);
    assert_eq!(verdict(ItemKind::Opaque, &listener), Ok(PeerState::Alive));
}
