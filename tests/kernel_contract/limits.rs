//! What runs out, and what fails then.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::unistd::geteuid;
use socket_takeover::sys;
use socket_takeover::takeover::internal::scm;

use crate::channel::{count_received, pair};
use crate::role::{Actor, for_everybody, given, say};
use crate::skip;

/// A user that nothing else runs as.
fn nobody_else() -> u32 {
    1_000_000 + std::process::id()
}

fn limit_descriptors(soft: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it exists");
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard).expect("it may be lowered");
}

/// Opens descriptors until there is no more room.
fn fill_table() -> Vec<File> {
    limit_descriptors(64);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Has 11 descriptors left and receives 50.
pub(crate) fn short_of_slots() {
    let socket = given();
    let mut files = fill_table();
    files.truncate(files.len() - 11);
    let (count, lost) = count_received(&socket);
    say(&format!("{count} {lost}"));
}

/// Sends descriptors that nobody receives until the kernel refuses more, in batches of 50.
fn fill(fd: BorrowedFd<'_>) -> (usize, Option<i32>, Vec<(OwnedFd, OwnedFd)>) {
    let mut sent = 0;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let refused = scm::send(ours.as_fd(), b"x", &[fd; 50]).err();
        pairs.push((ours, theirs));
        if let Some(error) = refused {
            return (sent, error.raw_os_error(), pairs);
        }
        sent += 50;
    }
    (sent, None, pairs)
}

/// Without privilege, and with a limit of 300.
pub(crate) fn unprivileged() {
    limit_descriptors(300);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (sent, error, pairs) = fill(listener.as_fd());
    say(&format!("{sent} {error:?}"));
    // Who does not read, and is not dead, holds up all others of its user.
    let mut byte = [0; 1];
    let _ = nix::unistd::read(std::io::stdin(), &mut byte);
    drop(pairs);
    let (ours, _theirs) = pair(SockType::SeqPacket);
    let again = scm::send(ours.as_fd(), b"x", &[listener.as_fd(); 50]);
    say(&format!("{}", again.is_ok()));
}

/// Stands on it: an ACK for each batch, four of them outstanding at most; and a taker that does
/// not go away is killed, since its unread copies would hold up the next one.
#[test]
fn k13_descriptors_in_flight_are_counted_for_the_user() {
    if !geteuid().is_root() {
        return skip("it takes root to become another user");
    }
    let start = |stdin: OwnedFd| {
        let mut command = Command::new(for_everybody());
        Actor::start_by(
            command.uid(nobody_else()),
            "unprivileged",
            Stdio::from(stdin),
        )
    };
    let (first_end, first_in) = pair(SockType::Stream);
    let mut first = start(first_in);
    // Checked before it is added: the batch that goes beyond the limit is still taken.
    let refused = format!("{:?}", Some(libc::ETOOMANYREFS));
    let found = first.found().expect("it has tried");
    let (sent, error) = found.split_once(' ').expect("two words");
    assert_eq!(error, refused);
    let sent: usize = sent.parse().expect("a number");
    assert!(
        (300..=450).contains(&sent),
        "{sent} in flight at a limit of 300"
    );
    let (_second_end, second_in) = pair(SockType::Stream);
    let mut second = start(second_in);
    let refused = format!("0 {refused}");
    assert_eq!(
        second.found(),
        Some(refused),
        "another process of the same user"
    );
    drop(first_end);
    assert_eq!(
        first.found().as_deref(),
        Some("true"),
        "when the reader's end is closed"
    );
}

/// Uses up its descriptors and tries what a takeover needs.
pub(crate) fn full() {
    let socket = given();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let _files = fill_table();
    let pid = std::process::id();
    let errno = |error: std::io::Error| error.raw_os_error();
    let all = [
        listener.accept().err().and_then(errno),
        EventFd::new().err().map(|error| error as i32),
        memfd_create("x", MFdFlags::empty())
            .err()
            .map(|error| error as i32),
        sys::pidfd_open(pid).err().and_then(errno),
        match getsockopt(&socket, sockopt::PeerPidfd) {
            // Before Linux 6.5 a pidfd is had by process id alone.
            Err(Errno::ENOPROTOOPT) => Some(Errno::EMFILE as i32),
            other => other.err().map(|error| error as i32),
        },
    ];
    say(&format!("{all:?}"));
}

/// Stands on it: 64 descriptors are kept back from the peers.
#[test]
fn at_the_descriptor_limit_all_that_a_takeover_needs_fails() {
    let (_ours, theirs) = pair(SockType::SeqPacket);
    let mut full = Actor::start("full", theirs);
    let emfile = Some(Errno::EMFILE as i32);
    assert_eq!(full.found(), Some(format!("{:?}", [emfile; 5])));
}
