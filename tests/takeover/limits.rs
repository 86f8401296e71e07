//! Limits of either side: descriptors, buffers, queues, epoll watches, memory. A takeover is
//! refused or rolled back, with the remedy in the log, or it succeeds; the clients see nothing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::apart::test_name;
use crate::support::apart::{Program, STRANGER, as_user};
use crate::support::can_copy;
use crate::support::pinned::{Pinned, Step};
use crate::support::side::FakeTaker;
use crate::support::{Client, Fault, Kind as Peer, Scene, Server, Stage, apart, need};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket_takeover::event::RESERVE;
use socket_takeover::proto::records::Kind;
use socket_takeover::takeover::internal::channel::{Channel, Sent};

/// A successor that can hold `nofile` descriptors.
fn limited_taker(stage: &Stage, nofile: usize) -> Server {
    let path: OsString = stage.path().into();
    Server::start_limited(nofile, &["-G".into(), "-T".into(), path])
}

/// What a refused taker says it lacks.
fn shortfall(taker: &mut Server) -> usize {
    assert_eq!(taker.wait_exit(), 75);
    let line = taker.wait_line("raise its limit of open files (ulimit -n) by ");
    let (_, more) = line.split_once("(ulimit -n) by ").unwrap();
    more.split_once(' ').unwrap().0.parse().unwrap()
}

/// The figure in the refusal is exact: with one less it is refused again, with it the takeover
/// succeeds, and the one after that as well.
#[test]
fn taker_limit_below_at_and_above_what_is_needed() {
    let mut scene = Scene::new(&[]);
    let enough = 90 + shortfall(&mut limited_taker(&scene.stage, 90));
    println!("RLIMIT_NOFILE of {enough} for {} peers", Scene::PEERS);
    assert_eq!(shortfall(&mut limited_taker(&scene.stage, enough - 1)), 1);
    // Nothing was sent, let alone held.
    assert_eq!(scene.donor.log().count("Current fd_array"), 0);
    assert_eq!(scene.donor.log().count("we serve on"), 0);
    scene.is_as_before();

    let mut at = limited_taker(&scene.stage, enough);
    at.wait_line("Serving on ");
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.peers.echoes(4);
    // It has more peers than it would accept: a new one waits for the next owner.
    let mut late = Client::connect(at.address());
    late.say();
    at.wait_line("no more peers are accepted");
    let above = limited_taker(&scene.stage, enough + RESERVE);
    above.wait_line("Serving on ");
    assert_eq!(at.wait_exit(), 0);
    late.hear();
    drop(late);
    scene.peers.echoes(4);
    scene.donor = above;
    scene.end();
}

/// What it keeps in reserve is enough to be taken over, by one that may hold no more.
#[test]
fn donor_at_its_limit_is_taken_over() {
    const NOFILE: usize = 200;
    const FULL: usize = NOFILE - RESERVE;
    const MORE: usize = 20;
    let stage = Stage::new();
    let path: OsString = stage.path().into();
    let mut args: Vec<OsString> = ["-G", "-a", "127.0.0.1", "-p", "0", "-t"]
        .map(OsString::from)
        .into();
    args.push(path);
    let mut donor = Server::start_limited(NOFILE, &args);
    let kinds = [(Peer::Talking, FULL)];
    donor.wait_line("Starting Takeover channel on");
    let address = donor.address();
    let mut scene = Scene::of(stage, donor, &kinds);
    let mut late: Vec<Client> = (0..MORE).map(|_| Client::connect(address)).collect();
    late.iter_mut().for_each(Client::say);
    scene.donor.wait_line("no more peers are accepted");
    scene.peers.echoes(4);
    assert!(scene.donor.fds().len() < FULL + 20, "the reserve is free");
    assert_eq!(scene.fds, scene.donor.fds());

    donor = limited_taker(&scene.stage, NOFILE);
    donor.wait_line("Serving on ");
    assert_eq!(scene.donor.wait_exit(), 0);
    assert_eq!(scene.donor.log().count("no more peers"), 1);
    scene.donor = donor;
    scene.peers.echoes(4);
    let last = scene.stage.replace(&mut scene.donor, &[]);
    late.iter_mut().for_each(Client::hear);
    scene.donor = last;
    scene.end();
}

/// A copy of the donor's end of the channel: whatever it has opened since.
fn donors_channel(scene: &Scene) -> OwnedFd {
    let is_new = |fd: &&(i32, String)| fd.1.starts_with("socket:") && !scene.fds.contains(fd);
    scene.donor.wait_fds(|fds| fds.iter().any(|fd| is_new(&fd)));
    let fds = scene.donor.fds();
    let (number, _) = fds.iter().find(is_new).expect("one has come");
    let pid = Pid::from_raw(scene.donor.pid().cast_signed()).expect("a process");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    pidfd_getfd(pidfd, *number, PidfdGetfdFlags::empty()).expect("it is our child")
}

/// Few records fit, one at a time maybe: each has to wait until the one before was read.
#[test]
fn channel_buffer_at_its_minimum_is_taken_over() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let donor = stage.serve(&[]);
    let mut scene = Scene::of(stage, donor, &[(Peer::Talking, 40)]);
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Sending(Kind::Hello), 1);
    let channel = donors_channel(&scene);
    setsockopt(&channel, sockopt::SndBuf, &0).unwrap();
    println!("{} bytes", getsockopt(&channel, sockopt::SndBuf).unwrap());
    let taker = taker.release();
    taker.wait_line("Serving on ");
    // This copy is the only one left of it.
    drop(channel);
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.donor = taker;
    scene.peers.echoes(4);
    scene.end();
}

/// It was made larger when the channel came to be. Where that is undone, the log says what to do.
#[test]
fn channel_buffer_too_small_for_a_record_rolls_back() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let donor = stage.serve(&[]);
    // What waits for one who does not read is part of the state: of several one is long.
    let kinds = [(Peer::Talking, 40), (Peer::Unread, 8)];
    let scene = Scene::of(stage, donor, &kinds);
    scene.peers.fill();
    let mut taker = FakeTaker::connect(&scene.stage.path());
    let channel = donors_channel(&scene);
    setsockopt(&channel, sockopt::SndBuf, &0).unwrap();
    drop(channel);
    taker.begin();
    assert!(taker.side.await_abort());
    drop(taker);
    scene.donor.wait_line("raise net.core.wmem_max");
    scene.is_as_before();
    scene.end();
}

/// What other processes of its user have in flight counts as well (unix(7), ETOOMANYREFS); root
/// is exempt. The donor refuses for as long as that lasts.
#[test]
fn donor_of_a_user_with_too_many_descriptors_in_flight() {
    if !apart::is_root() {
        return;
    }
    let stage = Stage::new();
    let path = stage.path();
    apart::open_folder(&path, 0o777);
    let service = Program::at(Path::new(env!("CARGO_BIN_EXE_socket-takeover")));
    let start = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 300 && exec \"$0\" \"$@\"", &service.name()]);
        // A count of its own, whatever else the tests run as a stranger.
        as_user(&mut command, STRANGER + 2);
        command.args(args).arg(&path);
        Server::spawn(&mut command)
    };
    let donor = start(&["-G", "-a", "127.0.0.1", "-p", "0", "-t"]);
    donor.wait_line("Starting Takeover channel on");
    let mut scene = Scene::of(stage, donor, &[(Peer::Talking, 70)]);
    // Not even root trusts another user to give it anything.
    let mut root = scene.stage.take_over(&[]);
    assert_eq!(root.wait_exit(), 1);
    root.wait_line("belongs to uid 12347");
    let this = Program::this();
    let mut hog = this.part(&[], &test_name!("part"), "hogs", &path);
    let hog = Server::spawn(as_user(&mut hog, STRANGER + 2));
    hog.wait_line("in flight");
    let mut taker = start(&["-G", "-T"]);
    assert_eq!(taker.wait_exit(), 75);
    scene
        .donor
        .wait_line("more descriptors in flight than its limit");
    scene.is_as_before();
    drop(hog);
    let taker = start(&["-G", "-T"]);
    taker.wait_line("Serving on ");
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.peers.echoes(4);
    scene.peers.finish().assert_flawless();
}

/// Another process's part in a test.
#[test]
fn part() {
    match apart::played() {
        None => {}
        Some((part, _)) if part == "hogs" => hogs(),
        Some((part, _)) => panic!("no part {part:?}"),
    }
}

fn hogs() {
    let (near, _far) = Channel::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    for _ in 0..3 {
        let sent = near.send(b"x", &[file.as_fd(); 200]).unwrap();
        assert_eq!(sent, Sent::Done);
    }
    eprintln!("600 descriptors in flight");
    loop {
        std::thread::park(); // Until killed.
    }
}

/// The kernel's least for each TCP socket, at both ends.
#[test]
fn peers_with_the_smallest_buffers_are_taken_over() {
    let least = [
        "net.ipv4.tcp_wmem=4096 4096 4096",
        "net.ipv4.tcp_rmem=4096 4096 4096",
    ];
    if !apart::in_own_network(
        &test_name!("peers_with_the_smallest_buffers_are_taken_over"),
        &least,
    ) {
        return;
    }
    let stage = Stage::new();
    let donor = stage.serve(&[]);
    let kinds = [
        (Peer::Talking, 30),
        (Peer::Pipelining, 4),
        (Peer::HalfSent, 4),
        (Peer::Unread, 4),
    ];
    let mut scene = Scene::of(stage, donor, &kinds);
    scene.peers.say(2);
    scene.peers.fill();
    for _ in 0..3 {
        scene.donor = scene.stage.replace(&mut scene.donor, &[]);
        scene.peers.echoes(40);
    }
    scene.end();
}

#[test]
fn backlog_longer_than_somaxconn_is_warned_of() {
    let test = "backlog_longer_than_somaxconn_is_warned_of";
    if !apart::in_own_network(&test_name!(test), &["net.core.somaxconn=8"]) {
        return;
    }
    let stage = Stage::new();
    let donor = stage.serve(&["-b", "100"]);
    donor.wait_line("no more than 8 clients can wait to be accepted, not 100; raise net.core");
    // They come faster than eight can be accepted, and some have to knock again.
    let scene = Scene::of(stage, donor, &[(Peer::Talking, 40)]);
    scene.end();
    let stage = Stage::new();
    let fitting = stage.serve(&["-b", "8"]);
    assert_eq!(fitting.log().count("can wait to be accepted"), 0);
}

/// The limit is the whole machine's (`fs.epoll.max_user_watches`), so the kernel is only made
/// to say that it is reached.
#[test]
fn taker_without_epoll_watches_gives_up() {
    let scene = Scene::new(&[]);
    let path = scene.stage.path();
    let args = ["-G", "-T", path.to_str().unwrap()];
    // It watches signals, channel and the like first, the items later.
    let mut taker = Server::start_with("epoll_ctl:error=ENOSPC:when=20+", &args);
    assert_eq!(taker.wait_exit(), 75);
    taker.wait_line("raise fs.epoll.max_user_watches");
    let line = scene.donor.wait_line("takeover failed, we serve on");
    assert!(line.contains("raise fs.epoll.max_user_watches"), "{line}");
    assert!(!line.contains("prepare_ms="), "never held: {line}");
    scene.is_as_before();
    scene.end();
}

/// One client a try is lost, and the log is told once; the others wait.
#[test]
fn donor_without_epoll_watches_accepts_later() {
    const CLIENTS: usize = 100;
    let scene = Scene::new(&[]);
    let fault = Fault::of(&scene.donor, "epoll_ctl:error=ENOSPC");
    let address = scene.donor.address();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(address)).collect();
    let line = scene.donor.wait_line("no more peers are accepted");
    assert!(line.contains("raise fs.epoll.max_user_watches"), "{line}");
    scene.peers.echoes(40);
    drop(fault);
    // Some of the first are lost; whoever is answered at last has stood behind them.
    let mut last = clients.pop().expect("the last");
    last.talk();
    drop((last, clients));
    let lines = scene.donor.log().lines();
    assert_eq!(scene.donor.log().count("no more peers"), 1, "{lines:#?}");
    assert!(lines.len() < 8, "{lines:#?}");
    scene.is_as_before();
    scene.end();
}

/// A control group with next to no memory, for processes that have what they need already.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Option<Group> {
        let name = format!("{name}.{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let (folder, limit) = if v1.join("memory.limit_in_bytes").exists() {
            (v1.join(name), "memory.limit_in_bytes")
        } else {
            (v2.join(name), "memory.max")
        };
        let made = fs::create_dir(&folder)
            .map(|()| Group(folder.clone()))
            .and_then(|group| fs::write(folder.join(limit), "65536").map(|()| group));
        made.map_err(|error| eprintln!("skipped: no memory group at {folder:?}: {error}"))
            .ok()
    }

    fn take_in(&self, server: &Server) {
        fs::write(self.0.join("cgroup.procs"), server.pid().to_string()).expect("it is ours");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A taker that has its first items, of very many.
fn taker_of_many() -> (Scene, Pinned) {
    const MORE: usize = 2000;
    let mut scene = Scene::new(&[]);
    scene.peers.add(Peer::Idle, MORE);
    scene.donor.wait_accepted(Scene::PEERS + MORE);
    scene.fds = scene.donor.fds();
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Received(Kind::Items), 1);
    (scene, taker)
}

#[test]
fn taker_out_of_memory_is_killed_and_leaves_the_donor() {
    let Some(group) = Group::new("takeover-limits") else {
        return;
    };
    let (scene, taker) = taker_of_many();
    group.take_in(taker.server());
    let mut taker = taker.release();
    assert_eq!(taker.wait_exit(), 128 + libc::SIGKILL);
    scene.donor.wait_line("takeover failed, we serve on");
    scene.is_as_before();
    scene.end();
}

#[test]
fn taker_out_of_address_space_aborts_and_leaves_the_donor() {
    need("prlimit");
    let (scene, taker) = taker_of_many();
    let pid = taker.server().pid().to_string();
    let done = Command::new("prlimit")
        .args(["--pid", &pid, "--as=1"])
        .status();
    assert!(done.unwrap().success());
    let mut taker = taker.release();
    assert_eq!(taker.wait_exit(), 128 + libc::SIGABRT);
    scene.donor.wait_line("takeover failed, we serve on");
    scene.is_as_before();
    scene.end();
}
