//! What epoll tells, and when it tells it again.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use socket_takeover::sys;

fn set() -> Epoll {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set")
}

fn edge(number: u64) -> EpollEvent {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(flags, number)
}

/// What a wait tells that does not wait.
fn told(set: &Epoll, room: usize) -> Vec<u64> {
    let mut events = vec![EpollEvent::empty(); room];
    let count = set.wait(&mut events, EpollTimeout::ZERO).expect("a set");
    events[..count].iter().map(EpollEvent::data).collect()
}

/// Stands on it: a donor lets go of its connections by closing the epoll set as a whole, and
/// deregisters before it closes.
#[test]
#[allow(
    deprecated,
    reason = "the safe call takes no descriptor that is closed already"
)]
fn k19_closed_descriptor_goes_on_firing_while_a_copy_lives() {
    use nix::sys::epoll::{EpollOp, epoll_create1, epoll_ctl};
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    // High up, where nobody else's descriptors come while it is closed.
    let number = fcntl(&ours, FcntlArg::F_DUPFD_CLOEXEC(900)).expect("a descriptor");
    let set = epoll_create1(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set");
    epoll_ctl(set, EpollOp::EpollCtlAdd, number, &mut edge(7)).expect("it is new");
    nix::unistd::close(number).expect("it is open");
    let told = || {
        let mut events = [EpollEvent::empty(); 4];
        let count = nix::sys::epoll::epoll_wait(set, &mut events, 0).expect("a set");
        events[..count]
            .iter()
            .map(EpollEvent::data)
            .collect::<Vec<_>>()
    };
    theirs.write_all(b"x").expect("it is connected");
    assert_eq!(told(), [7], "a closed descriptor is told of");
    let removed = epoll_ctl(set, EpollOp::EpollCtlDel, number, None);
    assert_eq!(removed, Err(Errno::EBADF));
    theirs.write_all(b"x").expect("it is connected");
    assert_eq!(told(), [7], "and cannot be removed");
    drop(ours);
    assert_eq!(told(), [0; 0], "it ends with the last copy");
    nix::unistd::close(set).expect("it is open");
}

/// The same, ended by closing the set.
#[test]
fn k19_set_that_is_closed_as_a_whole_leaves_nothing() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let copy = ours.try_clone().expect("a descriptor");
    let first = set();
    first.add(&ours, edge(1)).expect("it is new");
    drop((first, ours));
    let second = set();
    second.add(&copy, edge(2)).expect("it is new to this one");
    (&theirs).write_all(b"x").expect("it is connected");
    assert_eq!(told(&second, 4), [2]);
}

/// Stands on it: a rollback only polls again; a taker's registration reports what is there.
#[test]
fn k20_edge_waits_for_the_poll_and_is_told_anew_by_add_and_modify() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let first = set();
    first.add(&ours, edge(1)).expect("it is new");
    theirs.write_all(b"x").expect("it is connected");
    let second = set();
    second.add(&ours, edge(2)).expect("it is new to this one");
    assert_eq!(told(&second, 4), [2], "readable when it was added");
    assert_eq!(told(&first, 4), [1], "kept while nobody polled");
    assert_eq!(told(&first, 4), [0; 0], "and told once");
    first.modify(&ours, &mut edge(3)).expect("it is there");
    assert_eq!(told(&first, 4), [3], "told again");
}

/// Stands on it: a taker that settles takes its own edges away, and not the donor's.
#[test]
fn two_sets_have_edges_of_their_own() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let (donor, taker) = (set(), set());
    donor.add(&ours, edge(1)).expect("it is new");
    taker.add(&ours, edge(2)).expect("it is new to this one");
    theirs.write_all(b"x").expect("it is connected");
    assert_eq!(told(&taker, 4), [2]);
    assert_eq!(told(&donor, 4), [1]);
    theirs.write_all(b"x").expect("it is connected");
    assert_eq!(told(&taker, 4), [2], "what comes later is an edge again");
}

/// Stands on it: deadlines are judged only after a wait that returned fewer events than it had
/// room for.
#[test]
fn full_batch_makes_the_rest_look_silent() {
    let set = set();
    let pairs: Vec<_> = (0..5)
        .map(|_| UnixStream::pair().expect("a pair"))
        .collect();
    for (number, (ours, theirs)) in pairs.iter().enumerate() {
        set.add(ours, edge(number as u64)).expect("it is new");
        (&*theirs).write_all(b"x").expect("it is connected");
    }
    let batches: Vec<_> = (0..3).map(|_| told(&set, 2).len()).collect();
    assert_eq!(batches, [2, 2, 1]);
}

/// Stands on it: after a short read nothing more is read, unless the event said closed.
#[test]
fn data_and_its_end_can_be_one_edge() {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    let set = set();
    set.add(&ours, edge(1)).expect("it is new");
    theirs.write_all(b"x").expect("it is connected");
    theirs.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(told(&set, 4), [1]);
    assert_eq!(ours.read(&mut [0; 8]).expect("it is there"), 1);
    assert_eq!(told(&set, 4), [0; 0], "the end has no edge of its own");
    assert_eq!(ours.read(&mut [0; 8]).expect("it is there"), 0);
}

/// Stands on it: only pollable items are registered, and only sockets have a cookie.
#[test]
fn files_cannot_be_polled_and_have_no_cookie() {
    let file: OwnedFd = tempfile::tempfile().expect("a temporary file").into();
    let memory = memfd_create("x", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    for fd in [file, memory] {
        assert_eq!(set().add(&fd, edge(1)), Err(Errno::EPERM));
        let error = sys::socket_cookie(fd.as_fd()).expect_err("no socket");
        assert_eq!(
            error.raw_os_error(),
            Some(libc::ENOTSOCK),
            "{}",
            fd.as_raw_fd()
        );
    }
}
