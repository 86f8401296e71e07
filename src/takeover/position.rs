//! How far a TCP connection has been read and written, told by the kernel alone.
//!
//! ```text
//!   received ──────────────────────────────┐        written ─────────────────────┐
//!   [ consumed by read(2) ┊ unread: SIOCINQ ]        [ acknowledged ┊ SIOCOUTQ    ]
//! ```
//!
//! Both numbers count from the connection's first byte, so they mean the same in every process
//! that holds the socket, whoever has moved them. Each is the sum of two readings; data or an
//! acknowledgement in between would be counted twice or not at all. So the counters are read
//! around the queues, and a reading counts only if they have not moved.
//!
//! A FIN takes a number of its own in TCP's sequence (RFC 9293, 3.4) and is no byte: neither the
//! peer's is part of `consumed`, nor ours of `written`.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::validate::{CLOSE, CLOSE_WAIT, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK};
use crate::sys::{self, TcpCounts};

/// How far a connection has been read and written since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Bytes that were read from it.
    pub consumed: u64,
    /// Bytes that were written to it.
    pub written: u64,
}

/// What a look at a connection gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It is there.
    At {
        /// How far it has come.
        position: Position,
        /// Its peer sends no more (FIN).
        read_closed: bool,
    },
    /// It has been reset, or closed from both sides: its counters mean nothing any more.
    Dead,
    /// It cannot be told: the connection does not keep still, or urgent data is pending, which
    /// the length of the queue leaves out (tcp(7)).
    Unsteady,
}

/// Readings that may fail before a connection counts as unsteady.
const TRIES: usize = 16;

/// Looks at a connection; it is not changed by it.
///
/// # Errors
/// As [`sys::tcp_counts`].
pub fn read(socket: impl AsFd) -> io::Result<Reading> {
    let socket = socket.as_fd();
    let mut before = sys::tcp_counts(socket)?;
    for _ in 0..TRIES {
        let unread = sys::unread_bytes(socket)?;
        let unsent = sys::unsent_bytes(socket)?;
        if is_urgent(socket)? {
            return Ok(Reading::Unsteady);
        }
        let after = sys::tcp_counts(socket)?;
        if before == after {
            return Ok(reading(after, unread, unsent));
        }
        before = after;
    }
    Ok(Reading::Unsteady)
}

fn reading(counts: TcpCounts, unread: u32, unsent: u32) -> Reading {
    let TcpCounts {
        state,
        acked,
        received,
    } = counts;
    if state == CLOSE {
        return Reading::Dead;
    }
    let read_closed = matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING);
    let write_closed = matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK);
    let consumed = received.wrapping_sub(u64::from(unread) + u64::from(read_closed));
    let written = (acked + u64::from(unsent)).wrapping_sub(u64::from(write_closed));
    Reading::At {
        position: Position { consumed, written },
        read_closed,
    }
}

fn is_urgent(socket: impl AsFd) -> io::Result<bool> {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLPRI)];
    poll(&mut wanted, PollTimeout::ZERO)?;
    let found = wanted[0].revents().unwrap_or(PollFlags::empty());
    Ok(found.contains(PollFlags::POLLPRI))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};

    use super::*;

    /// Client and served end of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn at(consumed: u64, written: u64, read_closed: bool) -> Reading {
        let position = Position { consumed, written };
        Reading::At {
            position,
            read_closed,
        }
    }

    /// Looks until it is as expected: what is on its way over the loopback arrives.
    #[track_caller]
    fn expect(socket: &TcpStream, expected: Reading) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let found = read(socket).unwrap();
            if found == expected {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "{found:?}, not {expected:?}"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn bytes_count_when_they_are_read_and_when_they_are_written() {
        let (mut client, mut served) = connection();
        expect(&served, at(0, 0, false));
        client.write_all(&[1; 10]).unwrap();
        let mut some = [0; 4];
        served.read_exact(&mut some).unwrap();
        expect(&served, at(4, 0, false));
        served.write_all(&[2; 7]).unwrap();
        expect(&served, at(4, 7, false));
        // Nobody reads them, nor acknowledges them beyond the client's window.
        served.set_nonblocking(true).unwrap();
        let mut written = 7;
        while let Ok(length) = served.write(&[3; 65536]) {
            written += length as u64;
        }
        expect(&served, at(4, written, false));
        expect(&client, at(0, 10, false));
    }

    #[test]
    fn fin_is_no_byte_in_either_direction() {
        let (mut client, mut served) = connection();
        client.write_all(&[1; 6]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        expect(&served, at(0, 0, true));
        served.read_to_end(&mut Vec::new()).unwrap();
        expect(&served, at(6, 0, true));
        expect(&client, at(0, 6, false));
        served.write_all(&[2; 3]).unwrap();
        served.shutdown(Shutdown::Write).unwrap();
        // Both are closed; the client has not read, and its FIN was first.
        client.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        expect(&served, Reading::Dead);
    }

    #[test]
    fn own_fin_before_the_peers_is_no_byte() {
        let (_client, mut served) = connection();
        served.write_all(&[2; 3]).unwrap();
        served.shutdown(Shutdown::Write).unwrap();
        expect(&served, at(0, 3, false));
    }

    #[test]
    fn reset_connection_is_dead() {
        let (client, served) = connection();
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&client, sockopt::Linger, &now).unwrap();
        drop(client);
        expect(&served, Reading::Dead);
    }

    #[test]
    fn urgent_data_is_not_judged() {
        use std::os::fd::AsRawFd;
        let (client, served) = connection();
        send(client.as_raw_fd(), &[1], MsgFlags::MSG_OOB).unwrap();
        expect(&served, Reading::Unsteady);
    }

    #[test]
    fn position_is_the_same_while_bytes_come_and_go() {
        let (mut client, mut served) = connection();
        let writer = std::thread::spawn(move || {
            for _ in 0..2000 {
                client.write_all(&[1; 1000]).unwrap();
            }
            client
        });
        let mut consumed = 0;
        let mut room = [0; 3000];
        while consumed < 2_000_000 {
            consumed += served.read(&mut room).unwrap() as u64;
            match read(&served).unwrap() {
                Reading::At { position, .. } => assert_eq!(position.consumed, consumed),
                Reading::Unsteady => {}
                Reading::Dead => panic!("dead"),
            }
        }
        drop(writer.join().unwrap());
    }
}
