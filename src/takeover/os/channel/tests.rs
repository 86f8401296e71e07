//! A leaked descriptor is found by a pipe: its write end travels, and the read end comes to
//! end of file only when every copy is closed.

use std::io::{IoSlice, PipeReader, Read, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use nix::unistd;

use super::*;

const ROOM: usize = 65536;

/// A channel, its other end, and what is needed to receive.
struct Pair {
    near: Channel,
    far: Channel,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Pair {
    fn open() -> Pair {
        let (near, far) = Channel::pair().unwrap();
        Pair {
            near,
            far,
            buffer: vec![0; ROOM],
            fds: Vec::new(),
        }
    }

    fn recv(&mut self) -> Got {
        self.near.recv(&mut self.buffer, &mut self.fds)
    }

    #[track_caller]
    fn expect(&mut self, record: &[u8]) {
        match self.recv() {
            Got::Record(len) => assert_eq!(&self.buffer[..len], record),
            other => panic!("{other:?} instead of a record"),
        }
    }

    /// Sends past the checks of `Channel::send`, as a hostile process would.
    fn forge(&self, bytes: &[u8], control: &[ControlMessage<'_>]) {
        let parts = [IoSlice::new(bytes)];
        let socket = self.far.as_fd().as_raw_fd();
        sendmsg::<()>(socket, &parts, control, MsgFlags::MSG_DONTWAIT, None).unwrap();
    }
}

#[track_caller]
fn assert_all_closed(mut end: PipeReader) {
    fcntl(&end, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    // A copy still open would make this WouldBlock.
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
}

#[test]
fn open_channel_carries_records_in_order() {
    let mut pair = Pair::open();
    assert!(matches!(pair.recv(), Got::Empty));
    for record in [&b"one"[..], b"two", &[7; ROOM]] {
        assert_eq!(pair.far.send(record, &[]).unwrap(), Sent::Done);
    }
    pair.expect(b"one");
    pair.expect(b"two");
    pair.expect(&[7; ROOM]);
    assert!(matches!(pair.recv(), Got::Empty));
}

#[test]
fn record_carries_any_number_of_fds_up_to_the_limit() {
    for count in [0, 1, 2, 3, 249, MAX_FDS] {
        let mut pair = Pair::open();
        let (end, write) = pipe().unwrap();
        let copies = vec![write.as_fd(); count];
        assert_eq!(pair.far.send(b"x", &copies).unwrap(), Sent::Done);
        drop(write);
        pair.expect(b"x");
        assert_eq!(pair.fds.len(), count);
        for fd in &pair.fds {
            let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        }
        pair.fds.clear();
        assert_all_closed(end);
    }
}

#[test]
fn too_many_fds_are_refused_before_anything_is_sent() {
    let mut pair = Pair::open();
    let far = pair.far.as_fd();
    for count in [MAX_FDS + 1, scm::SCM_MAX_FD + 1] {
        let error = pair.far.send(b"x", &vec![far; count]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert!(matches!(pair.recv(), Got::Empty));
}

#[test]
fn fds_at_the_kernels_limit_all_find_an_owner() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let copies = vec![write.as_raw_fd(); scm::SCM_MAX_FD];
    pair.forge(b"x", &[ControlMessage::ScmRights(&copies)]);
    drop(write);
    pair.expect(b"x");
    assert_eq!(pair.fds.len(), scm::SCM_MAX_FD);
    pair.fds.clear();
    assert_all_closed(end);
}

#[test]
fn fds_of_the_record_before_are_closed_by_the_next_receive() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let _ = pair.far.send(b"x", &[write.as_fd()]).unwrap();
    drop(write);
    pair.expect(b"x");
    assert!(matches!(pair.recv(), Got::Empty));
    assert_all_closed(end);
}

#[test]
fn records_of_a_closed_sender_arrive_before_the_end() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let _ = pair.far.send(b"last", &[write.as_fd()]).unwrap();
    drop(write);
    pair.far = Channel::pair().unwrap().0;
    pair.expect(b"last");
    assert_eq!(pair.fds.len(), 1);
    assert!(matches!(pair.recv(), Got::End));
    assert!(matches!(pair.recv(), Got::End));
    assert!(!pair.near.was_reset());
    assert_all_closed(end);
}

#[test]
fn records_of_a_sender_that_closed_without_reading_arrive_before_the_end() {
    let mut pair = Pair::open();
    let _ = pair.near.send(b"never read", &[]).unwrap();
    let _ = pair.far.send(b"one", &[]).unwrap();
    let _ = pair.far.send(b"two", &[]).unwrap();
    pair.far = Channel::pair().unwrap().0;
    pair.expect(b"one");
    assert!(pair.near.was_reset());
    pair.expect(b"two");
    assert!(matches!(pair.recv(), Got::End));
}

#[test]
fn failed_send_leaves_queued_records_to_be_read() {
    for unread in [false, true] {
        let mut pair = Pair::open();
        if unread {
            let _ = pair.near.send(b"never read", &[]).unwrap();
        }
        let _ = pair.far.send(b"queued", &[]).unwrap();
        pair.far = Channel::pair().unwrap().0;
        let error = pair.near.send(b"late", &[]).unwrap_err();
        let expected = if unread {
            libc::ECONNRESET
        } else {
            libc::EPIPE
        };
        assert_eq!(error.raw_os_error(), Some(expected));
        pair.expect(b"queued");
        assert!(matches!(pair.recv(), Got::End));
    }
}

#[test]
fn send_to_a_closed_channel_raises_no_signal() {
    // Blocked signals stay pending for the thread even where they are ignored.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGPIPE);
    mask.thread_block().unwrap();
    let pending = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
        let bits = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        bits & (1 << (libc::SIGPIPE - 1)) != 0
    };
    let (near, _) = Channel::pair().unwrap();
    near.send(b"late", &[]).unwrap_err();
    // SOCK_SEQPACKET raises none by itself; SOCK_STREAM must be asked not to.
    let (stream, _) = UnixStream::pair().unwrap();
    scm::send(stream.as_fd(), b"late", &[]).unwrap_err();
    assert!(!pending());
    // What it would look like otherwise.
    let (read, write) = pipe().unwrap();
    drop(read);
    unistd::write(&write, b"late").unwrap_err();
    assert!(pending());
}

#[test]
fn empty_record_is_never_sent() {
    let mut pair = Pair::open();
    let error = pair.far.send(b"", &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(matches!(pair.recv(), Got::Empty));
}

#[test]
fn empty_record_with_an_fd_is_not_taken_for_the_end() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    pair.forge(b"", &[ControlMessage::ScmRights(&[write.as_raw_fd()])]);
    drop(write);
    assert!(matches!(pair.recv(), Got::Broken(Fault::NoBytes)));
    assert_all_closed(end);
}

#[test]
fn record_longer_than_the_buffer_is_thrown_away_with_its_fds() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let _ = pair.far.send(&[1; ROOM + 1], &[write.as_fd()]).unwrap();
    let _ = pair.far.send(b"next", &[]).unwrap();
    drop(write);
    assert!(matches!(pair.recv(), Got::Broken(Fault::TooLong)));
    assert_all_closed(end);
    pair.expect(b"next");
}

#[test]
fn several_lists_of_fds_in_one_record_are_all_owned() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let list = [write.as_raw_fd(); 3];
    let control = [
        ControlMessage::ScmRights(&list),
        ControlMessage::ScmRights(&list[..2]),
    ];
    pair.forge(b"x", &control);
    drop(write);
    pair.expect(b"x");
    assert_eq!(pair.fds.len(), 5);
    pair.fds.clear();
    assert_all_closed(end);
}

#[test]
fn foreign_control_message_breaks_the_record_and_closes_its_fds() {
    let mut pair = Pair::open();
    setsockopt(&pair.near, sockopt::PassCred, &true).unwrap();
    let (end, write) = pipe().unwrap();
    let _ = pair.far.send(b"x", &[write.as_fd(); 3]).unwrap();
    drop(write);
    assert!(matches!(pair.recv(), Got::Broken(Fault::ForeignControl)));
    assert_all_closed(end);
}

#[test]
fn ten_thousand_rejected_records_leak_no_fd() {
    let mut pair = Pair::open();
    let (end, write) = pipe().unwrap();
    let mut tiny = [0; 1];
    for _ in 0..10_000 {
        let _ = pair.far.send(b"long", &[write.as_fd(); 2]).unwrap();
        let got = pair.near.recv(&mut tiny, &mut pair.fds);
        assert!(matches!(got, Got::Broken(Fault::TooLong)));
        assert!(pair.fds.is_empty());
    }
    drop(write);
    assert_all_closed(end);
}

#[test]
fn full_channel_blocks_and_goes_on_once_read() {
    let mut pair = Pair::open();
    let record = [3; 1024];
    let mut queued = 0;
    loop {
        match pair.far.send(&record, &[]).unwrap() {
            Sent::Done => queued += 1,
            Sent::Blocked => break,
            Sent::NoBuffers => panic!("crowded without descriptors"),
        }
        assert!(queued < 100_000);
    }
    assert!(queued > 10);
    for _ in 0..queued {
        pair.expect(&record);
    }
    assert_eq!(pair.far.send(&record, &[]).unwrap(), Sent::Done);
}

#[test]
fn record_larger_than_the_smallest_send_buffer_is_an_error_and_no_stall() {
    let mut pair = Pair::open();
    setsockopt(&pair.far, sockopt::SndBuf, &0).unwrap();
    let error = pair.far.send(&[0; ROOM], &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(pair.far.send(b"short", &[]).unwrap(), Sent::Done);
    pair.expect(b"short");
}

#[test]
fn receive_from_what_is_no_socket_is_broken() {
    let (read, _write) = pipe().unwrap();
    let mut channel = Channel::new(read.into());
    let got = channel.recv(&mut [0; 4], &mut Vec::new());
    assert!(matches!(got, Got::Broken(Fault::Os(_))));
}

/// `net.core.wmem_default` may be as small as the kernel allows.
#[test]
fn send_buffer_at_its_minimum_is_enlarged() {
    let (one, other) = Channel::pair().unwrap();
    setsockopt(&one.socket, sockopt::SndBuf, &0).unwrap();
    let record = vec![1; 64 * 1024];
    let error = one.send(&record, &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    let one = Channel::new(one.socket);
    assert_eq!(one.send(&record, &[]).unwrap(), Sent::Done);
    drop(other);
}
