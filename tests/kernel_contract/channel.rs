//! Records and descriptors over a connected Unix socket.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, getsockopt, recv, recvmsg,
    sendmsg, setsockopt, socketpair, sockopt,
};
use nix::unistd::geteuid;
use socket_takeover::sys;
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::scm::{self, Received};

use crate::role::{Actor, given, say, stay};
use crate::skip;
use crate::support::{BOUND, wait_readable};

pub(crate) fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, kind, None, flags).expect("a socket pair")
}

/// A descriptor that nobody else has, so that its copies in this process can be counted.
fn mark() -> OwnedFd {
    let (read, _) = nix::unistd::pipe().expect("a pipe");
    read
}

/// How many descriptors of this process lead to the same as `fd`.
fn copies(fd: &OwnedFd) -> usize {
    let wanted = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("it is open");
    let entries = fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| *link == wanted).count()
}

fn send_one(socket: &OwnedFd, bytes: &[u8], fd: &OwnedFd) {
    scm::send(socket.as_fd(), bytes, &[fd.as_fd()]).expect("there is room");
}

/// What a receive says: bytes and descriptors, or the error.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Record(usize, usize),
    Error(Option<i32>),
}

fn receive(socket: &OwnedFd) -> Got {
    assert!(wait_readable(socket, BOUND).expect("it can be polled"));
    let mut fds = Vec::new();
    match scm::recv(socket.as_fd(), &mut [0; 64], &mut fds) {
        Ok(received) => Got::Record(received.len, fds.len()),
        Err(error) => Got::Error(error.raw_os_error()),
    }
}

/// Sends a record with a descriptor and waits to be killed.
pub(crate) fn sender() {
    let socket = given();
    // Its own end would keep the channel open while it is in flight.
    send_one(&socket, b"word", &mark());
    say("ready");
    stay();
}

/// What is left for the reader of one that said a word and was killed, with or without a
/// record of the reader's unread.
fn after_death(kind: SockType, unread: bool) -> (OwnedFd, Vec<Got>) {
    let (ours, theirs) = pair(kind);
    if unread {
        scm::send(ours.as_fd(), b"unread", &[]).expect("there is room");
    }
    let mut sender = Actor::start("sender", theirs);
    sender.wait_ready();
    sender.kill();
    sender.wait();
    let got = (0..3).map(|_| receive(&ours)).collect();
    (ours, got)
}

const WORD: Got = Got::Record(4, 1);
const END: Got = Got::Record(0, 0);
const RESET: Got = Got::Error(Some(libc::ECONNRESET));

/// Stands on it: a donor that dies after END is claimed from.
#[test]
fn k01_record_and_descriptor_outlive_a_killed_sender() {
    for kind in [SockType::SeqPacket, SockType::Stream] {
        let (_, got) = after_death(kind, false);
        assert_eq!(got, [WORD, END, END], "{kind:?}");
    }
}

/// Stands on it: the channel reads on after ECONNRESET, up to 0.
#[test]
fn k02_reset_comes_before_the_records_that_are_queued() {
    let (_, got) = after_death(SockType::SeqPacket, true);
    assert_eq!(got, [RESET, WORD, END], "SEQPACKET");
    let (_, got) = after_death(SockType::Stream, true);
    assert_eq!(got, [WORD, RESET, END], "STREAM");
}

/// Stands on it: a failed send judges nothing, what the other side said can still be read.
#[test]
fn k03_send_after_death_fails_and_leaves_what_is_queued() {
    for (unread, first) in [(false, libc::EPIPE), (true, libc::ECONNRESET)] {
        let (ours, theirs) = pair(SockType::SeqPacket);
        if unread {
            scm::send(ours.as_fd(), b"unread", &[]).expect("there is room");
        }
        send_one(&theirs, b"word", &mark());
        drop(theirs);
        let send = || scm::send(ours.as_fd(), b"late", &[]).expect_err("nobody is there");
        assert_eq!(send().raw_os_error(), Some(first), "unread: {unread}");
        assert_eq!(send().raw_os_error(), Some(libc::EPIPE), "unread: {unread}");
        assert_eq!(receive(&ours), WORD);
        assert_eq!(receive(&ours), END);
    }
}

/// Stands on it: the 250 descriptors of a record.
#[test]
fn k04_record_takes_253_descriptors() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    let send = |count: usize| {
        let fds = vec![ours.as_raw_fd(); count];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(
            ours.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &control,
            MsgFlags::MSG_DONTWAIT,
            None,
        )
    };
    assert_eq!(send(253), Ok(1));
    assert_eq!(send(254), Err(Errno::EINVAL));
    assert_eq!(receive(&theirs), Got::Record(1, 253));
}

/// Stands on it: records of 64 KiB at most, far below what is refused for its size.
#[test]
fn k05_record_is_bounded_by_the_send_buffer() {
    let (ours, _theirs) = pair(SockType::SeqPacket);
    let room = getsockopt(&ours, sockopt::SndBuf).expect("a socket");
    let longest = vec![0; room - 32];
    scm::send(ours.as_fd(), &longest, &[]).expect("32 less than the buffer fits");
    let (ours, _theirs) = pair(SockType::SeqPacket);
    let refused = scm::send(ours.as_fd(), &vec![0; room - 31], &[]);
    let refused = refused.expect_err("one more does not");
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
    assert!(room > 2 * 65_536, "two records of ours fit: {room}");
}

/// Stands on it: at most four batches wait for their ACK, and all find room.
#[test]
fn k06_records_with_all_their_descriptors_block_only_after_many() {
    if !geteuid().is_root() {
        return skip("without privilege the limit of descriptors in flight comes first");
    }
    let (ours, _theirs) = pair(SockType::SeqPacket);
    let fds = vec![ours.as_fd(); 253];
    let record = [0; 1024];
    let mut fit = 0;
    let error = loop {
        match scm::send(ours.as_fd(), &record, &fds) {
            Ok(()) => fit += 1,
            Err(error) => break error,
        }
    };
    println!("{fit} records fit");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    assert!((16..1000).contains(&fit), "{fit} records fit");
}

/// Stands on it: the channel sends no empty record, and calls one with a descriptor broken.
#[test]
fn k07_empty_record_with_a_descriptor_looks_like_the_end() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    send_one(&ours, b"", &ours);
    assert_eq!(receive(&theirs), Got::Record(0, 1));
    let (ours, theirs) = pair(SockType::Stream);
    send_one(&ours, b"", &ours);
    let arrived = wait_readable(&theirs, std::time::Duration::ZERO).expect("it can be polled");
    assert!(!arrived, "a stream does not send it at all");
}

/// Receives with a control buffer of `room` bytes and leaves the descriptors where they are.
fn receive_raw(socket: &OwnedFd, room: usize, flags: MsgFlags) -> MsgFlags {
    let mut control = vec![0; room];
    let mut bytes = [0; 8];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
    got.expect("a record is there").flags
}

/// Stands on it: one control buffer for 253 descriptors, and every descriptor is owned first.
#[test]
fn k08_control_buffer_rounded_up_installs_one_more() {
    let one_exactly = cmsg_space!(std::os::fd::RawFd).capacity() - 4;
    for (room, installed) in [(one_exactly + 4, 2), (one_exactly, 1)] {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let mark = mark();
        scm::send(ours.as_fd(), b"x", &[mark.as_fd(); 3]).expect("there is room");
        let flags = receive_raw(&theirs, room, MsgFlags::empty());
        assert!(flags.contains(MsgFlags::MSG_CTRUNC));
        assert_eq!(copies(&mark), 1 + installed, "room for {room} bytes");
    }
}

/// Stands on it: a record that has lost descriptors is broken, and those that came are closed.
#[test]
fn k09_receiver_at_its_limit_gets_fewer_descriptors_and_no_error() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    scm::send(ours.as_fd(), b"x", &[ours.as_fd(); 50]).expect("there is room");
    let mut receiver = Actor::start("short of slots", theirs);
    assert_eq!(receiver.found().as_deref(), Some("11 true"));
}

/// What that receiver finds.
pub(crate) fn count_received(socket: &OwnedFd) -> (usize, bool) {
    let mut fds = Vec::new();
    let received: io::Result<Received> = scm::recv(socket.as_fd(), &mut [0; 8], &mut fds);
    (fds.len(), received.expect("no error").fds_lost)
}

/// Stands on it: nobody here sets SO_PASSCRED.
#[test]
fn k10_credentials_take_the_room_of_seven_descriptors() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    setsockopt(&theirs, sockopt::PassCred, &true).expect("a Unix socket");
    scm::send(ours.as_fd(), b"x", &[ours.as_fd(); 253]).expect("there is room");
    let mut fds = Vec::new();
    let received = scm::recv(theirs.as_fd(), &mut [0; 8], &mut fds).expect("it is there");
    assert_eq!((fds.len(), received.fds_lost), (246, true));
    assert!(received.foreign_cmsg);
}

/// Stands on it: the channel never peeks.
#[test]
fn k11_every_peek_installs_the_descriptors_again() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    let mark = mark();
    send_one(&ours, b"x", &mark);
    let room = cmsg_space!(std::os::fd::RawFd).capacity();
    for peek in 1..=3 {
        receive_raw(&theirs, room, MsgFlags::MSG_PEEK);
        assert_eq!(copies(&mark), 1 + peek);
    }
}

/// Stands on it: the channel never uses read(2) or recv(2).
#[test]
fn k12_plain_receive_closes_the_descriptors_without_a_sign() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    let mark = mark();
    send_one(&ours, b"x", &mark);
    assert_eq!(
        recv(theirs.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(1)
    );
    assert_eq!(copies(&mark), 1);
    let again = recv(theirs.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT);
    assert_eq!(again, Err(Errno::EAGAIN), "and nothing is left of them");
}

/// Stands on it: the commit point. Of a claim and a revoke exactly one gets the 1.
#[test]
fn grant_is_read_by_exactly_one_of_two_that_race() {
    for _ in 0..500 {
        let lease = Lease::new().expect("an eventfd");
        let copy = lease.as_fd().try_clone_to_owned().expect("a descriptor");
        let other = Lease::from_fd(copy).expect("it is a lease");
        lease.grant().expect("it holds 0");
        let won = std::thread::scope(|scope| {
            let claim = scope.spawn(|| other.claim().expect("it is readable"));
            let revoke = lease.revoke().expect("it is readable");
            let claim = claim.join().expect("no panic");
            [claim, revoke]
                .into_iter()
                .filter(|one| *one == Verdict::Won)
                .count()
        });
        assert_eq!(won, 1);
    }
}

/// Stands on it: the lease is no semaphore: there a second reader would win as well.
#[test]
fn eventfd_gives_its_whole_value_to_one_read_unless_it_is_a_semaphore() {
    for (flags, second) in [
        (EfdFlags::EFD_NONBLOCK, Err(Errno::EAGAIN)),
        (EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_SEMAPHORE, Ok(8)),
    ] {
        let event = EventFd::from_value_and_flags(2, flags).expect("an eventfd");
        assert_eq!(nix::unistd::read(&event, &mut [0; 8]), Ok(8));
        assert_eq!(nix::unistd::read(&event, &mut [0; 8]), second, "{flags:?}");
    }
}

/// Stands on it: an offer's socket takes no descriptors, so that nobody can push some at it.
#[test]
fn passed_descriptors_can_be_refused() {
    let (ours, theirs) = pair(SockType::SeqPacket);
    sys::refuse_passed_fds(&theirs).expect("a Unix socket");
    let fds: [BorrowedFd<'_>; 1] = [ours.as_fd()];
    match scm::send(ours.as_fd(), b"x", &fds) {
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        Ok(()) => skip("SO_PASSRIGHTS came with Linux 6.16"),
    }
}
