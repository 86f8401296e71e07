//! The original C program taken over: every client keeps its connection, and what cannot be
//! taken over is left as it was.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::original::{self, that_adds_one};
use crate::support::{BOUND, Kind, Peers, Server, Stage, need, seed};
use crate::support::{can_copy, copy_program};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, chown, geteuid};
use socket_takeover::sys::{pidfd_getfd, pidfd_open, unread_bytes};

/// Somebody who is neither root nor us.
const STRANGER: u32 = 12_345;
/// Longer than any machine needs; what waits for it is ended by the test.
const PATIENT: [&str; 2] = ["--deadline", "freeze=60000"];

#[test]
fn the_original_is_played() {
    original::play_if_asked();
}

/// Replaces the original; it has been killed when this returns.
#[must_use = "dropped, it ends"]
#[track_caller]
fn upgrade(stage: &Stage, old: &mut Server, options: &[&str]) -> Server {
    let taker = stage.take_over(options);
    is_upgraded(old, &taker);
    taker
}

#[track_caller]
fn is_upgraded(old: &mut Server, taker: &Server) {
    taker.wait_line("Serving on ");
    assert_eq!(old.wait_exit(), 128 + libc::SIGKILL, "the original's end");
    assert_eq!(taker.address(), old.address());
}

/// An attempt that has touched nothing; returns what it said last.
#[track_caller]
fn is_refused(mut taker: Server, old: &mut Server, peers: &Peers, code: i32) -> String {
    assert_eq!(taker.wait_exit(), code, "the taker's exit code");
    assert_eq!(old.log().count("Accepting connection from Takeover"), 0);
    assert!(old.is_running());
    peers.echoes(8);
    taker.log().lines().pop().unwrap_or_default()
}

/// A client that says parts of messages.
struct Halves(TcpStream);

impl Halves {
    /// It has said the first half of a message, and a thread of the original has read it.
    fn at(old: &Server) -> Halves {
        let mut stream = TcpStream::connect(old.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        // Its thread runs once it has answered.
        stream.write_all(&[9; 4]).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(&[1, 2]).unwrap();
        // Nothing tells that the thread has read it; there are no unread bytes then.
        let served = served_end(old, stream.local_addr().unwrap());
        while unread_bytes(&served).unwrap() > 0 {
            std::thread::yield_now();
        }
        Halves(stream)
    }

    fn complete(&mut self) {
        self.0.write_all(&[3, 4]).unwrap();
    }

    #[track_caller]
    fn hears(&mut self, expected: [u8; 4]) {
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, expected);
    }

    #[track_caller]
    fn ends_by_reset(mut self) {
        let error = self.0.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// A copy of the original's end of a connection, which it has accepted (pidfd_getfd(2)).
fn served_end(old: &Server, client: SocketAddr) -> TcpStream {
    let pidfd = pidfd_open(old.pid()).unwrap();
    let copy = |(number, _)| {
        let copy = match pidfd_getfd(pidfd.as_fd(), number) {
            // It was closed since: a client that churns.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => return None,
            copy => copy.expect("our own child may be traced"),
        };
        Some(TcpStream::from(copy)).filter(|copy| copy.peer_addr().is_ok_and(|at| at == client))
    };
    let mut sockets = old.fds();
    sockets.retain(|(_, target)| target.starts_with("socket:"));
    sockets.into_iter().find_map(copy).expect("it has accepted")
}

/// So many peers of all kinds, replaced twice: by ours, and ours by ours.
fn peers_survive(kinds: &[(Kind, usize)]) {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), kinds);
    peers.echoes(8);
    // Each session is where its socket is, or the next takeover does not come about.
    let options = [PATIENT[0], PATIENT[1], "--check-positions"];
    let mut taker = upgrade(&stage, &mut old, &options);
    peers.echoes(64);
    let mut next = stage.replace(&mut taker, &["--check-positions"]);
    peers.echoes(8);
    peers.finish().assert_flawless();
    assert!(next.is_running());
}

#[test]
fn no_peer_at_all_listener_is_taken_over() {
    peers_survive(&[]);
}

#[test]
fn single_peer_is_taken_over_silent_or_talking() {
    peers_survive(&[(Kind::Idle, 1)]);
    peers_survive(&[(Kind::Talking, 1)]);
    peers_survive(&[(Kind::Pipelining, 1)]);
}

#[test]
fn forty_silent_talking_and_pipelining_peers_are_taken_over() {
    peers_survive(&[
        (Kind::Idle, 14),
        (Kind::Talking, 13),
        (Kind::Pipelining, 13),
    ]);
}

#[test]
fn as_many_peers_as_the_original_can_hand_over_are_taken_over() {
    for count in [250, 251] {
        peers_survive(&[(Kind::Idle, count - 200), (Kind::Talking, 200)]);
    }
}

#[test]
fn one_peer_more_than_it_can_hand_over_is_refused_untouched() {
    let stage = Stage::new();
    let mut old = stage.original();
    let kinds = [(Kind::Idle, 152), (Kind::Talking, 100)];
    let peers = Peers::connect(old.address(), seed(), &kinds);
    peers.echoes(8);
    let without_trace_right = || take_over_with(&stage, NO_TRACE);
    let why = is_refused(without_trace_right(), &mut old, &peers, 75);
    assert!(why.contains("it has 252 Peers"), "{why}");
    // With one less it can be had.
    peers.leave(Kind::Idle, 1);
    old.wait_fds(|fds| fds.iter().filter(|fd| fd.1.starts_with("socket:")).count() == 253);
    let taker = without_trace_right();
    is_upgraded(&mut old, &taker);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn more_peers_than_it_can_hand_over_are_fetched_one_by_one() {
    if !can_copy() {
        return;
    }
    for count in [252, 253, 400] {
        peers_survive(&[(Kind::Idle, count - 200), (Kind::Talking, 200)]);
    }
}

#[test]
fn half_message_in_a_thread_is_waited_for() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 20), (Kind::Talking, 10)],
    );
    peers.echoes(8);
    let mut halves: Vec<Halves> = (0..10).map(|_| Halves::at(&old)).collect();
    let taker = stage.take_over(&PATIENT);
    taker.wait_line("Peers are within a message");
    for half in &mut halves {
        half.complete();
    }
    is_upgraded(&mut old, &taker);
    for half in &mut halves {
        half.hears([1, 2, 3, 4]);
        half.complete();
        half.complete();
        half.hears([3, 4, 3, 4]);
    }
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn half_message_never_completed_its_client_alone_is_ended_and_named() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 20), (Kind::Talking, 10)],
    );
    peers.echoes(8);
    let half = Halves::at(&old);
    let port = half.0.local_addr().unwrap().port();
    let taker = upgrade(&stage, &mut old, &["--deadline", "freeze=300"]);
    taker.wait_line(&format!("Peer [127.0.0.1]:{port} was ended"));
    assert_eq!(taker.log().count("was ended"), 1);
    half.ends_by_reset();
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn clients_that_come_during_and_after_are_taken_over() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let kinds = [(Kind::Idle, 10), (Kind::Talking, 10), (Kind::Churning, 5)];
    let peers = Peers::connect(old.address(), seed(), &kinds);
    peers.echoes(64);
    let mut half = Halves::at(&old);
    let taker = stage.take_over(&PATIENT);
    taker.wait_line("Peers are within a message");
    // The original accepts and serves them, though it has handed over its listener.
    let late = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 10), (Kind::Talking, 10)],
    );
    late.echoes(8);
    half.complete();
    is_upgraded(&mut old, &taker);
    half.hears([1, 2, 3, 4]);
    peers.add(Kind::Talking, 10);
    peers.echoes(64);
    late.echoes(8);
    peers.finish().assert_flawless();
    late.finish().assert_flawless();
}

#[test]
fn last_peer_has_spoken_next_client_is_not_lost() {
    if !can_copy() {
        return;
    }
    // The original would close its listener now, and end with the next client.
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Churning, 8)]);
    peers.echoes(32);
    let _taker = upgrade(&stage, &mut old, &PATIENT);
    peers.echoes(32);
    peers.finish().assert_flawless();
}

#[test]
fn client_without_trace_right_is_lost_and_named() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 5), (Kind::Talking, 5)],
    );
    peers.echoes(8);
    let mut half = Halves::at(&old);
    let taker = take_over_with(&stage, NO_TRACE);
    taker.wait_line("Peers are within a message");
    let mut late = TcpStream::connect(old.address()).unwrap();
    late.set_read_timeout(Some(BOUND)).unwrap();
    // It has answered, so it has accepted.
    late.write_all(&[7; 4]).unwrap();
    late.read_exact(&mut [0; 4]).unwrap();
    half.complete();
    is_upgraded(&mut old, &taker);
    let port = late.local_addr().unwrap().port();
    taker.wait_line(&format!("Peer [127.0.0.1]:{port} is lost"));
    assert_eq!(taker.log().count("is lost"), 1);
    assert!(matches!(late.read(&mut [0; 4]), Ok(0) | Err(_)));
    half.hears([1, 2, 3, 4]);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

/// A security module has errors of its own.
#[test]
fn copies_refused_for_an_unforeseen_reason_are_done_without() {
    for answer in ["EACCES", "EOPNOTSUPP"] {
        let stage = Stage::new();
        let mut old = stage.original();
        let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 5)]);
        peers.echoes(8);
        let taker = take_over_with(&stage, &format!("pidfd_getfd:error={answer}"));
        is_upgraded(&mut old, &taker);
        taker.wait_line("we may not trace it");
        peers.echoes(8);
        peers.finish().assert_flawless();
    }
}

/// After the call there is no way back: to give up would be to lose them all.
#[test]
fn stop_that_fails_once_after_the_call_is_tried_again() {
    let stage = Stage::new();
    let mut old = stage.original();
    let kinds = [(Kind::Idle, 5), (Kind::Talking, 5)];
    let peers = Peers::connect(old.address(), seed(), &kinds);
    peers.echoes(8);
    // 1 asks whether it may be signalled, 2 and 3 stop and continue it for the call.
    let taker = take_over_with(&stage, "pidfd_send_signal:error=EIO:when=4");
    taker.wait_line("it cannot be stopped: Input/output error");
    is_upgraded(&mut old, &taker);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn array_that_does_not_arrive_is_fetched_one_by_one() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 9), (Kind::Talking, 9)],
    );
    peers.echoes(8);
    let taker = take_over_with(&stage, NO_ARRAY);
    is_upgraded(&mut old, &taker);
    taker.wait_line("fd_array: ");
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn neither_array_nor_trace_right_is_a_failure_and_the_original_runs_on() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Idle, 5)]);
    let mut taker = take_over_with(&stage, NEITHER);
    assert_eq!(taker.wait_exit(), 1);
    let why = taker.log().lines().pop().unwrap();
    assert!(
        why.contains("it lets its Peers go: it has sent no listener"),
        "{why}"
    );
    // It is not left stopped: each silent peer still gets the one answer that it may have.
    assert!(old.is_running());
    peers.finish().assert_flawless();
}

/// pidfd_getfd(2) fails as it does where Yama keeps all but parents and root from tracing.
const NO_TRACE: &str = "pidfd_getfd:error=EPERM";
const NO_ARRAY: &str = "recvmsg:error=EIO";
const NEITHER: &str = "pidfd_getfd,recvmsg:error=EPERM";

/// A taker one of whose system calls fails.
fn take_over_with(stage: &Stage, fault: &str) -> Server {
    let path = stage.path();
    let words = ["-G", "-T", path.to_str().unwrap(), PATIENT[0], PATIENT[1]];
    Server::start_with(fault, &words)
}

#[test]
fn path_that_was_given_relative_is_found() {
    let stage = Stage::new();
    let path = stage.path();
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let mut old =
        stage.original_as(|command| original::at(command, name.as_ref()).current_dir(folder));
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    peers.echoes(8);
    let _taker = upgrade(&stage, &mut old, &PATIENT);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn listeners_of_both_families_and_for_all_addresses_are_taken_over() {
    for ip in ["0.0.0.0", "::", "::1"] {
        if ip.contains(':') && TcpListener::bind((ip, 0)).is_err() {
            println!("skipped {ip}: this machine has no such address");
            continue;
        }
        let stage = Stage::new();
        let mut old = stage.original_as(|command| original::on(command, ip));
        let peers = Peers::connect(
            old.address(),
            seed(),
            &[(Kind::Idle, 3), (Kind::Talking, 3)],
        );
        peers.echoes(8);
        let _taker = upgrade(&stage, &mut old, &PATIENT);
        peers.echoes(8);
        peers.finish().assert_flawless();
    }
}

#[test]
fn path_of_an_original_that_is_gone_has_no_donor() {
    let stage = Stage::new();
    let mut old = stage.original();
    old.signal(Signal::SIGKILL);
    old.wait_exit();
    assert!(stage.path().exists());
    assert_eq!(stage.take_over(&[]).wait_exit(), 69);
}

#[test]
fn plain_start_over_a_live_original_is_refused_untouched() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    let why = is_refused(stage.start(&[]), &mut old, &peers, 1);
    assert!(why.contains("SOCK_STREAM"), "{why}");
}

#[test]
fn original_of_another_user_is_left_alone() {
    if !geteuid().is_root() {
        println!("skipped: needs root to play another user");
        return;
    }
    let stage = Stage::new();
    let folder = stage.path().parent().unwrap().to_owned();
    chown(&folder, Some(Uid::from_raw(STRANGER)), None).unwrap();
    // The test's own executable may be where a stranger cannot go.
    let program = stage.file("original");
    copy_program(std::env::current_exe().unwrap(), &program);
    let mut old = {
        let mut command = Command::new(&program);
        command
            .args(["--exact", original::PLAYED, "--nocapture"])
            .uid(STRANGER)
            .gid(STRANGER);
        let server = Server::spawn(original::at(&mut command, &stage.path()));
        server.wait_line("Starting Takeover channel on ");
        server
    };
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    let why = is_refused(stage.take_over(&[]), &mut old, &peers, 1);
    assert!(why.contains("belongs to uid 12345"), "{why}");
}

#[test]
fn original_of_root_is_not_touched_by_another_user() {
    if !geteuid().is_root() {
        println!("skipped: needs root to play another user");
        return;
    }
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    let folder = stage.path().parent().unwrap().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = stage.file("taker");
    copy_program(env!("CARGO_BIN_EXE_socket-takeover"), &program);
    let by_stranger = || {
        let mut command = Command::new(&program);
        command.args(["-G", "-T"]).arg(stage.path());
        Server::spawn(command.uid(STRANGER).gid(STRANGER))
    };
    let why = is_refused(by_stranger(), &mut old, &peers, 1);
    assert!(why.contains("Permission denied"), "{why}");
    // Where the mode is looser, it cannot be found.
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let why = is_refused(by_stranger(), &mut old, &peers, 75);
    assert!(why.contains("no process is found"), "{why}");
}

/// A user who may bind sockets somewhere, and knows PATH.
#[test]
fn strangers_sockets_with_forged_names_change_nothing() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    peers.echoes(4);
    let elsewhere = tempfile::tempdir().unwrap();
    let name = stage.path().file_name().unwrap().to_owned();
    // One that goes on in the next line as if it were another socket.
    let forger = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let forger = forger.unwrap();
    let inode = fstat(&forger).unwrap().st_ino;
    let line = format!("a\n0: 2 0 10000 1 1 {inode} {}", stage.path().display());
    let forged = elsewhere.path().join(line);
    fs::create_dir_all(forged.parent().unwrap()).unwrap();
    bind(forger.as_raw_fd(), &UnixAddr::new(&forged).unwrap()).unwrap();
    listen(&forger, Backlog::new(1).unwrap()).unwrap();
    // One in whose place a link to PATH was put.
    let linked = elsewhere.path().join(&name);
    let _linked = UnixListener::bind(&linked).unwrap();
    fs::remove_file(&linked).unwrap();
    symlink(stage.path(), &linked).unwrap();

    let _taker = upgrade(&stage, &mut old, &PATIENT);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn original_in_another_network_namespace_is_named_and_can_be_had_from_there() {
    if !geteuid().is_root() {
        println!("skipped: needs root for a network namespace");
        return;
    }
    let stage = Stage::new();
    let mut old = {
        let own = std::env::current_exe().unwrap();
        let script = "ip link set lo up && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(own);
        command.args(["--exact", original::PLAYED, "--nocapture"]);
        Server::spawn(original::at(&mut command, &stage.path()))
    };
    old.wait_line("Starting Takeover channel on ");
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 75);
    let pid = old.pid().to_string();
    taker.wait_line(&format!("pid {pid} runs in another network namespace"));
    taker.wait_line(&format!("nsenter -t {pid} -n"));
    assert!(old.is_running());
    assert_eq!(old.log().count("Accepting connection"), 0);

    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-n", env!("CARGO_BIN_EXE_socket-takeover")]);
    let taker = Server::spawn(command.args(["-G", "-T"]).arg(stage.path()));
    is_upgraded(&mut old, &taker);
}

/// What listens on its port in our network is somebody else, and is not even connected to.
#[test]
fn stranger_on_the_port_of_a_listener_apart_is_not_connected_to() {
    if !can_copy() {
        return;
    }
    if !geteuid().is_root() {
        println!("skipped: needs root for a network namespace");
        return;
    }
    // Who may not trace it finds no listener in any table that is to be read.
    let without_trace_right = (Some(NO_TRACE), 1, "it has no TCP listener");
    for (fault, code, why) in [(None, 75, "another network namespace"), without_trace_right] {
        let stage = Stage::new();
        let mut old = stage
            .original_as(|command| original::listening_apart(original::on(command, "127.9.8.7")));
        let stranger = TcpListener::bind(old.address()).unwrap();
        stranger.set_nonblocking(true).unwrap();
        let mut taker = match fault {
            Some(fault) => take_over_with(&stage, fault),
            None => stage.take_over(&[]),
        };
        assert_eq!(taker.wait_exit(), code);
        taker.wait_line(why);
        assert!(stranger.accept().is_err());
        assert!(old.is_running());
        assert_eq!(old.log().count("Accepting connection"), 0);
    }
}

#[test]
fn other_program_with_a_stream_socket_is_not_called() {
    need("socat");
    let stage = Stage::new();
    let mut other = Server::spawn(
        Command::new("socat")
            .args(["-d", "-d", "-d"])
            .arg(format!("UNIX-LISTEN:{}", stage.path().display()))
            .arg("PIPE"),
    );
    other.wait_line("listening on");
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 1);
    let line = taker.log().lines().pop().unwrap();
    assert!(line.contains("it has no TCP listener"), "{line}");
    assert!(other.is_running());
    assert_eq!(other.log().count("accepting connection"), 0);
}

#[test]
fn server_that_does_not_echo_is_not_called() {
    let stage = Stage::new();
    let mut other = stage.original_as(that_adds_one);
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 1);
    let line = taker.log().lines().pop().unwrap();
    assert!(line.contains("does not echo"), "{line}");
    assert!(other.is_running());
    assert_eq!(other.log().count("Accepting connection"), 0);
}

#[test]
fn stopped_original_is_refused_untouched() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    peers.echoes(4);
    old.stop();
    let mut taker = stage.take_over(&["--deadline", "hello=100"]);
    assert_eq!(taker.wait_exit(), 75);
    assert!(
        taker
            .log()
            .lines()
            .pop()
            .unwrap()
            .contains("does not answer")
    );
    old.go_on();
    peers.echoes(8);
    // It is as good as before.
    let _taker = upgrade(&stage, &mut old, &PATIENT);
    peers.echoes(8);
    peers.finish().assert_flawless();
}

#[test]
fn term_before_the_call_leaves_the_original_untouched() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    peers.echoes(4);
    old.stop();
    let taker = stage.take_over(&["--deadline", "hello=60000"]);
    taker.wait_line("Taking over from the original program");
    taker.signal(Signal::SIGTERM);
    old.go_on();
    let why = is_refused(taker, &mut old, &peers, 75);
    assert!(why.contains("told to stop; it serves on"), "{why}");
}

#[test]
fn daemon_takes_over_and_the_command_says_so() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(
        old.address(),
        seed(),
        &[(Kind::Idle, 5), (Kind::Talking, 5)],
    );
    peers.echoes(8);
    let pid_file = stage.file("pid");
    let path = stage.path();
    let mut launcher = Server::start(&[
        "-d",
        "-l",
        "-G",
        "-P",
        pid_file.to_str().unwrap(),
        "-T",
        path.to_str().unwrap(),
        PATIENT[0],
        PATIENT[1],
    ]);
    assert_eq!(launcher.wait_exit_within(BOUND), Some(0));
    assert_eq!(old.wait_exit(), 128 + libc::SIGKILL);
    peers.echoes(8);
    let pid: u32 = fs::read_to_string(pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_ne!(pid, launcher.pid());
    // The next one takes over from the daemon, which ends it.
    let taker = stage.take_over(&[]);
    taker.wait_line("Serving on ");
    peers.echoes(8);
    peers.finish().assert_flawless();
    assert!(launcher.log().wait_end(BOUND), "the daemon has not ended");
}

#[test]
fn daemon_that_is_refused_hands_its_code_to_the_command() {
    let stage = Stage::new();
    let mut old = stage.original();
    let peers = Peers::connect(old.address(), seed(), &[(Kind::Talking, 3)]);
    old.stop();
    let path = stage.path();
    let args = ["-d", "-l", "-G", "-T", path.to_str().unwrap()];
    let mut launcher = Server::start(&[&args[..], &["--deadline", "hello=100"]].concat());
    assert_eq!(launcher.wait_exit(), 75);
    old.go_on();
    assert!(old.is_running());
    peers.echoes(8);
}

/// What all of this is for: the same scene, and a taker that simply starts to read.
#[test]
fn taker_that_simply_reads_damages_a_client() {
    if !can_copy() {
        return;
    }
    let stage = Stage::new();
    let old = stage.original();
    let mut half = Halves::at(&old);
    original::read_on(original::call(&stage.path()));
    // The half is in the original's thread, and the scheduler leaves that out for a moment.
    old.stop();
    half.complete();
    half.complete();
    // The naive taker has taken two halves for a message.
    half.hears([3, 4, 3, 4]);
    old.go_on();
}
