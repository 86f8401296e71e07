//! One client that does exactly what it is told, when it is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use nix::sys::socket::{setsockopt, sockopt};

use super::BOUND;

/// See the file's own description.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// The next message.
    next: u32,
}

impl Client {
    pub fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("somebody listens");
        stream.set_nodelay(true).expect("it is a socket");
        stream
            .set_read_timeout(Some(BOUND))
            .expect("it is a socket");
        Client { stream, next: 1 }
    }

    pub fn say(&mut self) {
        self.stream
            .write_all(&self.next.to_be_bytes())
            .expect("it is open");
        self.next += 1;
    }

    /// Reads the answer to the last message.
    #[track_caller]
    pub fn hear(&mut self) {
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(u32::from_be_bytes(answer), self.next - 1);
    }

    /// A message, and its answer.
    #[track_caller]
    pub fn talk(&mut self) {
        self.say();
        self.hear();
    }

    /// Says that it will say no more (FIN).
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
    }

    /// Resets the connection (RST).
    pub fn reset(self) {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.stream, sockopt::Linger, &at_once).expect("it is a socket");
    }

    /// Waits for the end, with nothing in front of it. True if it is an orderly one.
    #[track_caller]
    pub fn ended(mut self) -> bool {
        match self.stream.read(&mut [0; 4]) {
            Ok(0) => true,
            Ok(_) => panic!("bytes that nobody asked for"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("not ended: {error}"),
        }
    }
}
