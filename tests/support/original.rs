//! The original C program, played from its description.
//!
//! Kept is what makes it hard to take over: a blocked thread for each peer, which reads on until
//! it has answered one more message; a main thread that stays in accept(2) whatever happens, and
//! ends the process when that fails; a channel for one call, answered at once with a count and
//! an array of blocking descriptors, and no state. It lets go of peers one by one, every 100 ms
//! those that have said something, and closes its listener after the last.
//!
//! It is a process of its own: the test binary runs itself with [`PLAY`] in its environment, so
//! a test binary that wants one calls [`play_if_asked`] first of all.

use std::env;
use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, socket};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use socket_takeover::takeover::internal::scm;

use super::{BOUND, Server, Stage, wait_readable};

/// Where the original that is played offers its takeover.
const PLAY: &str = "PLAY_ORIGINAL";
/// The test that does so where the usual harness wants a name; other binaries look at none.
pub const PLAYED: &str = "original::the_original_is_played";
/// What it adds to each message that it answers; the original adds nothing.
const ADDS: &str = "PLAY_ORIGINAL_ADDS";
/// Where it listens; 127.0.0.1 unless this says otherwise.
const LISTENS: &str = "PLAY_ORIGINAL_LISTENS";

/// Whether its listener is in a network namespace of its own.
const APART: &str = "PLAY_ORIGINAL_APART";

const GOES_ON: u8 = 0;
const ASKED_TO_HOLD: u8 = 1;
const HOLDS: u8 = 2;

impl Stage {
    /// The original, offering its takeover at PATH; it serves when this returns.
    pub fn original(&self) -> Server {
        self.original_as(|command| command)
    }

    /// The same, with its command changed before.
    pub fn original_as(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> Server {
        let own = env::current_exe().expect("a test binary");
        let mut command = Command::new(own);
        command
            .args(["--exact", PLAYED, "--nocapture"])
            .env(PLAY, self.path());
        let server = Server::spawn(change(&mut command));
        server.wait_line("Starting TCP server on ");
        server.wait_line("Starting Takeover channel on ");
        server
    }
}

/// Another name for its PATH, as its user might have given it.
pub fn at<'a>(command: &'a mut Command, path: &Path) -> &'a mut Command {
    command.env(PLAY, path)
}

/// One that is no echo server.
pub fn that_adds_one(command: &mut Command) -> &mut Command {
    command.env(ADDS, "1")
}

/// One whose listener is in a network namespace that nothing else of it is in.
pub fn listening_apart(command: &mut Command) -> &mut Command {
    command.env(APART, "1")
}

/// One that listens elsewhere.
pub fn on<'a>(command: &'a mut Command, ip: &str) -> &'a mut Command {
    command.env(LISTENS, ip)
}

/// Plays it for the rest of the process's life, if that is what the process is there for.
pub fn play_if_asked() {
    if let Some(path) = env::var_os(PLAY) {
        let adds = env::var(ADDS).map_or(0, |text| text.parse().unwrap());
        let ip = env::var(LISTENS).map_or(Ipv4Addr::LOCALHOST.into(), |text| text.parse().unwrap());
        play(path.into(), ip, adds);
    }
}

struct Peer {
    stream: TcpStream,
    takeover: AtomicU8,
}

type Peers = Arc<Mutex<Vec<Arc<Peer>>>>;

fn play(path: PathBuf, ip: IpAddr, adds: u8) -> ! {
    let bind = move || TcpListener::bind((ip, 0)).expect("a port");
    let listener = match env::var_os(APART) {
        // It is that of the thread alone, and sockets stay where they were made.
        Some(_) => thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            bind()
        })
        .join()
        .expect("a listener"),
        None => bind(),
    };
    let (number, port) = (listener.as_raw_fd(), listener.local_addr().unwrap().port());
    eprintln!("Starting TCP server on [{ip}]:{port} (fd:{number})");
    let peers = Peers::default();
    let known = Arc::clone(&peers);
    thread::spawn(move || channel(&path, number, &known));
    while let Ok((stream, _)) = listener.accept() {
        let takeover = AtomicU8::new(GOES_ON);
        let peer = Arc::new(Peer { stream, takeover });
        peers.lock().unwrap().push(Arc::clone(&peer));
        let known = Arc::clone(&peers);
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || serve(&peer, &known, adds))
            .expect("a thread");
    }
    eprintln!("Error accepting connection");
    exit(0);
}

fn serve(peer: &Arc<Peer>, known: &Peers, adds: u8) {
    let mut message = [0; 4];
    while peer.takeover.load(Ordering::SeqCst) == GOES_ON {
        let answered = (&peer.stream).read_exact(&mut message).and_then(|()| {
            message[3] = message[3].wrapping_add(adds);
            (&peer.stream).write_all(&message)
        });
        if answered.is_err() {
            known
                .lock()
                .unwrap()
                .retain(|other| !Arc::ptr_eq(other, peer));
            return;
        }
    }
    peer.takeover.store(HOLDS, Ordering::SeqCst);
}

fn channel(path: &Path, listener: RawFd, peers: &Peers) {
    let offer = UnixListener::bind(path).expect("PATH");
    eprintln!("Starting Takeover channel on [{}]", path.display());
    let (call, _) = offer.accept().expect("a caller");
    eprintln!("Accepting connection from Takeover channel");
    drop(offer);
    let mut fds = vec![listener];
    for peer in peers.lock().unwrap().iter() {
        peer.takeover.store(ASKED_TO_HOLD, Ordering::SeqCst);
        fds.push(peer.stream.as_raw_fd());
    }
    eprintln!("Current fd_array of {}", fds.len());
    let count = i32::try_from(fds.len()).unwrap().to_ne_bytes();
    let sent = sendmsg::<UnixAddr>(
        call.as_raw_fd(),
        &[IoSlice::new(&count)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    if let Err(error) = sent {
        eprintln!("Error sendmsg {error} over domain socket");
    }
    loop {
        let mut peers = peers.lock().unwrap();
        peers.retain(|peer| peer.takeover.load(Ordering::SeqCst) != HOLDS);
        if peers.is_empty() {
            break;
        }
        drop(peers);
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!("Tcp peers released...");
    nix::unistd::close(listener).expect("it is open");
}

/// What a taker gets that does nothing but call: listener and peers, blocking, and shared with
/// the threads of the original.
pub fn call(path: &Path) -> Vec<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let channel = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
    let address = UnixAddr::new(path).expect("a PATH");
    connect(channel.as_raw_fd(), &address).expect("it listens");
    assert!(wait_readable(&channel, BOUND).unwrap(), "no fd_array");
    let (mut count, mut fds) = ([0; 4], Vec::new());
    scm::recv(std::os::fd::AsFd::as_fd(&channel), &mut count, &mut fds).expect("an fd_array");
    assert_eq!(usize::try_from(i32::from_ne_bytes(count)), Ok(fds.len()));
    fds
}

/// Goes on as a taker that simply starts to read, with what it got by [`call`]: a thread for
/// each peer, as the original's own successor has. To the end of the test.
pub fn read_on(fds: Vec<OwnedFd>) {
    for fd in fds.into_iter().skip(1) {
        thread::spawn(move || {
            let mut stream = TcpStream::from(fd);
            let mut message = [0; 4];
            while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
        });
    }
}
