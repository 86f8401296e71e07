use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send, setsockopt};

use super::*;
use crate::takeover::os::descriptor::tcp::{LISTEN, SYN_SENT};

fn at(consumed: u64, written: u64) -> Positions {
    Positions { consumed, written }
}

/// What the kernel counts of a connection whose owner is at `at`, in each of the states.
fn progress(state: u8, at: Positions, queues: Queues) -> TcpProgress {
    let own_fin = matches!(state, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING);
    let peers_fin = matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING);
    TcpProgress {
        state,
        received: at.consumed + u64::from(queues.unread) + u64::from(peers_fin),
        acknowledged: at.written + u64::from(own_fin) - u64::from(queues.unsent),
    }
}

#[test]
fn every_state_with_and_without_queues_says_where_its_owner_is() {
    let told = at(1 << 40, 1 << 41);
    for state in 0..=u8::MAX {
        for (unread, unsent) in [(0, 0), (1, 0), (0, 1), (3, 5), (u32::MAX, u32::MAX)] {
            let queues = Queues { unread, unsent };
            let found = positions(progress(state, told, queues), queues);
            let can_tell = matches!(
                state,
                ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING
            );
            assert_eq!(found, can_tell.then_some(told), "state {state}, {queues:?}");
        }
    }
    assert!(!matches!(LISTEN | SYN_SENT, ESTABLISHED));
}

#[test]
fn counts_that_contradict_each_other_say_nothing() {
    let queues = Queues {
        unread: 2,
        unsent: 0,
    };
    let little = TcpProgress {
        state: ESTABLISHED,
        received: 1,
        acknowledged: 0,
    };
    assert_eq!(positions(little, queues), None);
    let nothing = Queues {
        unread: 0,
        unsent: 0,
    };
    for state in [CLOSE_WAIT, FIN_WAIT1] {
        let none = TcpProgress { state, ..little };
        let none = TcpProgress {
            received: 0,
            ..none
        };
        assert_eq!(positions(none, nothing), None, "a FIN that was not counted");
    }
}

/// The mutants: a state that is off by one byte, in either stream and direction.
#[test]
fn state_that_is_off_by_one_byte_is_found_out() {
    let found = at(10, 20);
    for inline in [true, false] {
        assert_eq!(judge(found, Some(found), inline), Check::Agree);
        assert_eq!(judge(found, None, inline), Check::Unknown);
        for (consumed, written) in [
            (11, 20),
            (10, 19),
            (10, 21),
            (9, 21),
            (9, 19),
            (11, 19),
            (11, 21),
        ] {
            let verdict = judge(at(consumed, written), Some(found), inline);
            assert_eq!(
                verdict,
                Check::Differ { found },
                "{consumed}, {written}, {inline}"
            );
        }
    }
    // Only a byte that may have been an urgent one is let pass.
    let behind = at(9, 20);
    assert_eq!(judge(behind, Some(found), true), Check::Differ { found });
    assert_eq!(judge(behind, Some(found), false), Check::Unknown);
}

/// A connection as its acceptor has it, and the client's end.
fn pair(inline: bool) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    setsockopt(&listener, sockopt::OobInline, &inline).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let (socket, _) = listener.accept().unwrap();
    (socket, client)
}

fn of(socket: &TcpStream) -> Option<Positions> {
    Positions::of(socket).unwrap()
}

fn await_event(socket: &TcpStream, event: PollFlags) {
    let mut wanted = [PollFd::new(socket.as_fd(), event)];
    assert_eq!(poll(&mut wanted, PollTimeout::from(10_000u16)).unwrap(), 1);
}

#[test]
fn real_connection_is_followed_to_its_end() {
    let (mut socket, mut client) = pair(true);
    assert_eq!(of(&socket), Some(at(0, 0)));
    assert_eq!(of(&client), Some(at(0, 1)), "its SYN");
    client.write_all(b"12345").unwrap();
    await_event(&socket, PollFlags::POLLIN);
    assert_eq!(of(&socket), Some(at(0, 0)), "what waits was not consumed");
    socket.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(of(&socket), Some(at(2, 0)));
    socket.write_all(b"answer").unwrap();
    assert_eq!(of(&socket), Some(at(2, 6)));
    client.shutdown(Shutdown::Write).unwrap();
    while sys::tcp_state(&socket).unwrap() == ESTABLISHED {
        std::thread::yield_now();
    }
    assert_eq!(of(&socket), Some(at(2, 6)), "a FIN is no byte");
    socket.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(of(&socket), Some(at(5, 6)), "nor is one that was read");
    socket.shutdown(Shutdown::Write).unwrap();
    // LAST_ACK until it is acknowledged, then CLOSE, which cannot tell.
    assert!(matches!(
        of(&socket),
        None | Some(Positions {
            consumed: 5,
            written: 6
        })
    ));
}

#[test]
fn own_end_first_with_all_buffers_full() {
    let (mut socket, mut client) = pair(true);
    socket.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match socket.write(&[7; 64 * 1024]) {
            Ok(length) => written += length as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(
        of(&socket),
        Some(at(0, written)),
        "the client's window is closed"
    );
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(of(&socket), Some(at(0, written)), "FIN_WAIT1");
    client.write_all(b"after").unwrap();
    await_event(&socket, PollFlags::POLLIN);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len() as u64, written);
    assert_eq!(of(&socket), Some(at(0, written)), "FIN_WAIT2");
    socket.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(of(&socket), Some(at(5, written)));
}

#[test]
fn reset_connection_cannot_tell() {
    let (socket, client) = pair(true);
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&client, sockopt::Linger, &now).unwrap();
    drop(client);
    await_event(&socket, PollFlags::POLLHUP);
    assert_eq!(of(&socket), None);
    let verdict = check(socket.as_fd(), at(7, 7)).unwrap();
    assert_eq!(verdict, Check::Unknown);
}

#[test]
fn urgent_byte_is_a_byte_like_any_other_only_inline() {
    for inline in [true, false] {
        let (mut socket, mut client) = pair(inline);
        client.write_all(b"ab").unwrap();
        send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        client.write_all(b"cd").unwrap();
        await_event(&socket, PollFlags::POLLPRI);
        let mut consumed = 0;
        let expected = if inline { 5 } else { 4 };
        while consumed < expected {
            let verdict = check(socket.as_fd(), at(consumed, 0)).unwrap();
            let lost = check(socket.as_fd(), at(consumed + 2, 0)).unwrap();
            if inline {
                assert_eq!(verdict, Check::Agree, "{consumed}");
                assert!(matches!(lost, Check::Differ { .. }), "{consumed}");
            } else {
                assert_eq!(verdict, Check::Unknown, "{consumed}");
            }
            consumed += socket.read(&mut [0; 16]).unwrap() as u64;
        }
        let verdict = check(socket.as_fd(), at(consumed, 0)).unwrap();
        let can_tell = if inline { Check::Agree } else { Check::Unknown };
        assert_eq!((consumed, verdict), (expected, can_tell));
    }
}

#[test]
fn data_that_arrives_all_the_time_makes_no_false_alarm() {
    let (mut socket, mut client) = pair(true);
    let writing = std::thread::spawn(move || {
        let mut room = [0; 4096];
        for _ in 0..2_000 {
            client.write_all(&[7; 700]).unwrap();
            // What comes back is an ACK and data of its own.
            let _ = client.read(&mut room).unwrap();
        }
        client
    });
    let (mut read, mut written, mut told) = (0, 0, 0_u32);
    let mut room = [0; 4096];
    while read < 2_000 * 700 {
        if let Some(found) = of(&socket) {
            assert_eq!(found, at(read, written));
            told += 1;
        }
        let length = socket.read(&mut room).unwrap();
        read += length as u64;
        written += socket.write(&room[..length / 2]).unwrap() as u64;
    }
    drop(writing.join().unwrap());
    assert!(told > 100, "{told}");
}

#[test]
fn what_is_no_connection_has_no_positions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(Positions::of(&listener).is_err());
    assert!(Positions::of(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    assert!(Positions::of(std::fs::File::open("/dev/null").unwrap()).is_err());
}
