//! One item of every kind changes hands in one takeover, and what each is worth goes with it:
//! what is queued is read by the new owner, what is armed fires there, what is attached stays.
//!
//! In a network namespace of the test's own; it says why where it may not have one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write, pipe};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::pair::{Process, stage, turn_until};
use crate::support::{BOUND, need, wait_readable};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::uio::pread;
use nix::unistd::{read, write};
use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::sys::open_tun;
use socket_takeover::takeover::internal::scm;
use socket_takeover::takeover::{
    Application, Arrival, Description, Item, ItemKind, Moment, Rejection, SavedState, Takeover,
    kind_of,
};

/// What is carried beside the reactor without a descriptor.
const STATE: u32 = 0;
const STATE_BYTES: &[u8] = b"counted 7 of them";

/// Holds descriptors by name. Sources call nothing: who reads them is the test.
#[derive(Default)]
struct Holder {
    takeover: Takeover,
    sources: BTreeMap<String, Item>,
    /// By a number from 1 on.
    carried: Vec<(String, OwnedFd)>,
    state: Vec<u8>,
    is_owner: bool,
    is_over: bool,
}

impl Holder {
    /// Takes what epoll can watch into the reactor and carries the rest.
    fn hold(&mut self, cx: &mut Cx<Holder>, name: &str, fd: OwnedFd) -> io::Result<Item> {
        let kind = kind_of(fd.as_fd());
        if matches!(kind, ItemKind::Memfd | ItemKind::BpfMap | ItemKind::BpfLink) {
            self.carried.push((name.to_owned(), fd));
            return Ok(Item::Carried(self.carried.len() as u32));
        }
        // A name of a source lives as long as the program; there are a dozen.
        let name: &'static str = String::leak(name.to_owned());
        let item = Item::from(cx.add(Spec::item(name), fd, |_, _, _, _| Ok(Next::Keep))?);
        self.sources.insert(name.to_owned(), item);
        Ok(item)
    }

    fn fd<'a>(&'a self, cx: &'a Cx<Holder>, name: &str) -> BorrowedFd<'a> {
        if let Some((_, fd)) = self.carried.iter().find(|(known, _)| known == name) {
            return fd.as_fd();
        }
        match self.sources.get(name) {
            Some(Item::Source(id)) => cx.fd(*id).expect("it is a source"),
            _ => panic!("nothing is called {name}"),
        }
    }
}

impl Application for Holder {
    const NAME: &'static str = "holder";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.extend(STATE..=self.carried.len() as u32);
    }

    fn carried_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        let index = (number as usize).checked_sub(1)?;
        Some(self.carried[index].1.as_fd())
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Carried(STATE) => Ok(Description::new(ItemKind::State, "state", 1)),
            Item::Carried(number) => {
                let (name, fd) = &self.carried[number as usize - 1];
                Ok(Description::new(kind_of(fd.as_fd()), name.clone(), 1))
            }
            Item::Source(id) => Description::detect(cx, id, 1),
        }
    }

    fn save(&mut self, _: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        if item == Item::Carried(STATE) {
            out.extend_from_slice(STATE_BYTES);
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let Some(fd) = arrival.fd else {
            self.state = arrival.state.bytes.to_vec();
            return Ok(Item::Carried(STATE));
        };
        let found = kind_of(fd.as_fd());
        if found != arrival.kind {
            return Err(format!("{} is {found}, not {}", arrival.name, arrival.kind).into());
        }
        Ok(self.hold(cx, arrival.name, fd)?)
    }

    fn update(&mut self, _: &mut Cx<Self>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn moment(&mut self, _: &mut Cx<Self>, moment: Moment) {
        self.is_owner |= matches!(moment, Moment::Active(_));
        self.is_over |= matches!(moment, Moment::Exit);
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.expect("ip is installed").success(), "ip {words}");
}

/// A map and a link, made by somebody who has gone, and why there are none.
fn bpf_items() -> Result<[OwnedFd; 2], String> {
    need("python3");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/bpf_items.py");
    let made = Command::new("python3")
        .arg(script)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .output()
        .expect("python3 is installed");
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let mut fds = Vec::new();
    scm::recv(ours.as_fd(), &mut [0], &mut fds).map_err(|error| error.to_string())?;
    fds.try_into()
        .map_err(|fds: Vec<_>| format!("{} of 2", fds.len()))
}

/// What the kernel says of a descriptor of ours under this key (proc_pid_fdinfo(5)).
fn info(fd: BorrowedFd<'_>, key: &str) -> Option<String> {
    let all = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start_matches(':').trim().to_owned())
}

#[track_caller]
fn read_some(fd: BorrowedFd<'_>) -> Vec<u8> {
    assert!(wait_readable(fd, BOUND).unwrap(), "nothing to read");
    let mut room = [0; 4096];
    let count = read(fd, &mut room).expect("there is something to read");
    room[..count].to_vec()
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn special(family: AddressFamily, protocol: SockProtocol) -> OwnedFd {
    let kind = match family {
        AddressFamily::Packet => SockType::Datagram,
        _ => SockType::Raw,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, kind, flags, protocol).expect("root may have it")
}

/// Whether one of the frames that wait there ends like this.
fn has_frame(fd: BorrowedFd<'_>, end: &[u8]) -> bool {
    // All of them came over lo before this is asked.
    let mut room = [0; 4096];
    while let Ok(count) = read(fd, &mut room) {
        if room[..count].ends_with(end) {
            return true;
        }
    }
    false
}

#[test]
fn items_of_every_kind_move_with_what_they_hold() {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace of one's own: {error}");
        return;
    }
    need("ip");
    ip("link set lo up");
    let (_folder, path) = stage();
    let mut donor = Process::donor(&path, Holder::default());
    let mut put = |name: &str, fd: OwnedFd| {
        let Process { reactor, app } = &mut donor;
        app.hold(reactor.cx(), name, fd).unwrap();
    };

    // Each holds something that only the socket, the file or the kernel knows.
    let packet = special(AddressFamily::Packet, SockProtocol::EthAll);
    let raw = special(AddressFamily::Inet, SockProtocol::Udp);
    let (bound, connected, stranger) = (udp(), udp(), udp());
    let bound_at = bound.local_addr().unwrap();
    connected.connect(stranger.local_addr().unwrap()).unwrap();
    stranger.connect(connected.local_addr().unwrap()).unwrap();
    for word in [&b"one"[..], b"two", b"three"] {
        udp().send_to(word, bound_at).unwrap();
    }
    stranger.send(b"to the connected one").unwrap();

    let netlink = special(AddressFamily::Netlink, SockProtocol::NetlinkRoute);
    let links_group = 1; // RTMGRP_LINK, rtnetlink(7)
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, links_group)).unwrap();
    ip("link add other type veth peer name notable"); // told of first

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listens_at = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(listens_at).unwrap();
    assert!(wait_readable(&listener, BOUND).unwrap());
    let (peer, _) = listener.accept().unwrap();
    peer.set_nonblocking(true).unwrap();
    client.write_all(b"half a mess").unwrap();
    let waiting = TcpStream::connect(listens_at).unwrap();

    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).unwrap();
    let soon = Expiration::OneShot(Duration::from_millis(20).into());
    timer.set(soon, TimerSetTimeFlags::empty()).unwrap();
    let event = EventFd::from_value_and_flags(3, EfdFlags::EFD_NONBLOCK).unwrap();
    let memory = memfd_create("table", MFdFlags::MFD_CLOEXEC).unwrap();
    write(&memory, b"large").unwrap();
    let (pipe_end, mut pipe_start) = pipe().unwrap();
    pipe_start.write_all(b"opaque").unwrap();

    put("packet", packet);
    put("raw", raw);
    put("udp, bound", bound.into());
    put("udp, connected", connected.into());
    put("netlink", netlink);
    put("listener", listener.into());
    put("peer", peer.into());
    put("timer", OwnedFd::from(timer));
    put("event", event.into());
    put("memory", memory);
    put("pipe", pipe_end.into());
    let tun = open_tun("moving");
    match &tun {
        Ok(_) => {}
        Err(error) => println!("without a tun device: {error}"),
    }
    let has_tun = tun.is_ok();
    if let Ok(tun) = tun {
        put("tun", tun.into());
    }
    let bpf = bpf_items();
    if let Err(why) = &bpf {
        println!("without BPF: {why}");
    }
    let bpf = bpf.ok().map(|[map, link]| {
        let ids = [info(map.as_fd(), "map_id"), info(link.as_fd(), "link_id")];
        put("map", map);
        put("link", link);
        ids
    });

    let mut taker = Process::taker(&path, Holder::default());
    turn_until(&mut donor, &mut taker, |donor, taker| {
        donor.is_over && taker.is_owner
    });
    drop(donor);

    let Process { mut reactor, app } = taker;
    let cx: &Cx<Holder> = reactor.cx();
    let fd = |name: &str| app.fd(cx, name);
    assert_eq!(app.state, STATE_BYTES);
    for word in ["one", "two", "three"] {
        assert_eq!(read_some(fd("udp, bound")), word.as_bytes());
    }
    assert_eq!(read_some(fd("udp, connected")), b"to the connected one");
    assert!(has_frame(fd("packet"), b"three"), "no such frame");
    assert!(has_frame(fd("raw"), b"three"), "no such packet");
    let news = read_some(fd("netlink"));
    assert!(
        news.windows(7).any(|part| part == b"notable"),
        "of another link"
    );
    assert_eq!(read_some(fd("peer")), b"half a mess");
    assert!(wait_readable(fd("listener"), BOUND).unwrap());
    drop(waiting);
    assert_eq!(read_some(fd("timer")), 1_u64.to_ne_bytes());
    assert_eq!(read_some(fd("event")), 3_u64.to_ne_bytes());
    assert_eq!(read_some(fd("pipe")), b"opaque");
    let mut room = [0; 5];
    pread(fd("memory"), &mut room, 0).unwrap();
    assert_eq!(&room, b"large");
    if has_tun {
        ip("link set moving up"); // it is there as long as somebody holds the device
    }
    if let Some([map, link]) = bpf {
        assert_eq!(info(fd("map"), "map_id"), map);
        assert_eq!(info(fd("link"), "link_id"), link);
        let attached_to = info(fd("link"), "ifindex");
        assert_eq!(attached_to.as_deref(), Some("1"), "the program is off lo");
    }
}
