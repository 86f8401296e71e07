//! A TCP connection with what every protocol needs: bytes that were read and not used, bytes that
//! the kernel did not take yet, and an end that waits for those bytes.
//!
//! ```text
//!            read                    the protocol                 flush
//!   kernel ────────▶ input ────────▶ takes, and adds to ▶ output ────────▶ kernel
//!                              finish: Open ─▶ Closing ─▶ Closed once all is sent (FIN)
//! ```
//!
//! Invariant: nothing is dropped. What the kernel has travels with the descriptor. What is here
//! travels by [`Stream::save`]. There is no third place between them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, sockopt,
};

use super::{Cx, Event, Interest, Next, Spec};

/// What one read takes at most.
const READ: usize = 16 * 1024;

/// A TCP connection as a source. Add it with [`Stream::spec`]. [`Stream::serve`] is for a protocol
/// of requests and answers; the other methods are for anything else.
///
/// `T` is what the protocol keeps of each connection besides. Saving it is the application's task.
#[derive(Debug)]
pub struct Stream<T = ()> {
    socket: TcpStream,
    /// What the protocol keeps.
    pub session: T,
    /// What was read and not yet taken out by the protocol.
    pub input: Vec<u8>,
    /// What is to be sent. The protocol adds to it, and only [`Stream::flush`] takes out of it.
    pub output: Vec<u8>,
    sending: Sending,
}

/// The direction in which we write, as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open = 0,
    /// To be ended once everything is sent.
    Closing = 1,
    Closed = 2,
}

impl<T: Default> Stream<T> {
    /// Begins to connect. The connection is made when the socket becomes writable. Until then
    /// reading and flushing find that there is nothing to do, so a protocol need not know.
    ///
    /// If nobody listens at a port of the ephemeral range, connect(2) may pick that very port for
    /// our end. The socket is then connected to itself (RFC 9293, 3.5: two SYNs that cross). No
    /// protocol wants that, and it would keep the port from the server that is to listen there. So
    /// such a connection is reset, and refused.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2); many of these come later, by reading. `ConnectionRefused`
    /// if it would be a connection to itself.
    pub fn connect(to: SocketAddr) -> io::Result<Stream<T>> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            // Interrupted, it goes on all the same (connect(2)).
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
                refuse_itself(TcpStream::from(fd), to).map(Stream::from)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The socket, whose connect(2) to this address has returned, unless it is connected to itself.
/// Our port is picked by that call, so this is decided by then.
///
/// # Errors
/// `ConnectionRefused`. Otherwise what getsockname(2) says.
pub fn refuse_itself(socket: TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    let ours = socket.local_addr()?;
    let (here, there) = (ours.ip().to_canonical(), to.ip().to_canonical());
    // The unspecified address is the one that we come from (`ip_route_output_key`).
    if ours.port() != to.port() || (here != there && !there.is_unspecified()) {
        return Ok(socket);
    }
    // An orderly end would leave it in TIME-WAIT, at the port of whoever is to listen there.
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    socket::setsockopt(&socket, sockopt::Linger, &at_once)?;
    let why = "nobody listens there: the connection came back to ourselves";
    Err(io::Error::new(ErrorKind::ConnectionRefused, why))
}

impl<T> Stream<T> {
    /// How to add it: as an item, watched for both directions. With edges, readiness that nobody
    /// uses costs nothing.
    #[must_use]
    pub fn spec(name: &'static str) -> Spec {
        Spec::item(name).interest(Interest::Both)
    }

    /// The socket, for its addresses and options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The whole callback of a protocol of requests and answers. `answer` is called whenever
    /// something was read. It takes what is complete out of the input, and adds to the output.
    /// Nothing is read while output waits: TCP holds up a peer that asks and does not read, and the
    /// peer costs no memory. The connection [ends](Stream::end) at the end of the stream, when a
    /// deadline has passed, or by an error of `answer`.
    ///
    /// # Errors
    /// Those of reading and writing, and those that `answer` returns.
    pub fn serve<S>(
        &mut self,
        cx: &mut Cx<S>,
        event: Event,
        mut answer: impl FnMut(&mut Stream<T>, &mut Cx<S>) -> io::Result<()>,
    ) -> io::Result<Next> {
        let served = if event.is_timeout() {
            Ok(Next::End)
        } else {
            self.exchange(cx, &mut answer)
        };
        if !matches!(served, Ok(Next::Keep | Next::Again)) {
            self.end();
        }
        served
    }

    fn exchange<S>(
        &mut self,
        cx: &mut Cx<S>,
        answer: &mut impl FnMut(&mut Stream<T>, &mut Cx<S>) -> io::Result<()>,
    ) -> io::Result<Next> {
        for _ in 0..cx.budget() {
            if !self.flush()? {
                return Ok(Next::Keep);
            }
            match self.read()? {
                Some(0) => return Ok(Next::End),
                Some(_) => answer(self, cx)?,
                None => return Ok(Next::Keep),
            }
        }
        Ok(Next::Again)
    }

    /// Reads once, to the end of the input. Returns how many bytes were read, 0 at the end of the
    /// stream. `None` if there are none now; an event will tell of more.
    ///
    /// # Errors
    /// Those of recv(2) that end a connection.
    pub fn read(&mut self) -> io::Result<Option<usize>> {
        let mut bytes = [0; READ];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(length) => {
                    self.input.extend_from_slice(&bytes[..length]);
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends as much as the kernel takes. Returns true if nothing is left to send. Otherwise an
    /// event will tell when to go on.
    ///
    /// # Errors
    /// Those of send(2) that end a connection.
    pub fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A shutdown would break off a connection that is being made (`inet_shutdown`).
        if self.sending == Sending::Closing && self.socket.peer_addr().is_ok() {
            self.socket.shutdown(Shutdown::Write)?;
            self.sending = Sending::Closed;
        }
        Ok(true)
    }

    /// Says that nothing more will be added to the output. The [`Stream::flush`] that sends the
    /// last of it tells the peer (FIN). Reading goes on.
    pub fn finish(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Closing;
        }
    }

    /// Whether the peer has been told that nothing more comes.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sending == Sending::Closed
    }

    /// Whether the protocol may add to the output: it is not finished, and everything in it was
    /// sent.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        self.sending == Sending::Open && self.output.is_empty()
    }

    /// Ends both directions, for every holder of the socket. A plain close would tell the peer
    /// nothing as long as a successor that has failed still has a copy.
    pub fn end(&self) {
        // One that was reset has nothing left to shut down.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Appends what the connection has beside the socket. Version 1: the sending direction (0 open,
    /// 1 closing, 2 closed), the length of the input (4 bytes, little-endian), input, output.
    /// Returns true if something is to be sent, which no event may announce.
    pub fn save(&self, out: &mut Vec<u8>) -> bool {
        out.push(self.sending as u8);
        let length = u32::try_from(self.input.len()).expect("less than 4 GiB of input");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.input);
        out.extend_from_slice(&self.output);
        !self.output.is_empty() || self.sending == Sending::Closing
    }

    /// Replaces what the connection has beside the socket by what [`Stream::save`] wrote. It does
    /// no I/O.
    ///
    /// # Errors
    /// If `save` cannot have written this. Then nothing has changed.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let damaged = || "no state of a stream".to_owned();
        let (sending, rest) = state.split_first().ok_or_else(damaged)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (input, output) = rest.split_at_checked(length).ok_or_else(damaged)?;
        self.sending = match sending {
            0 => Sending::Open,
            1 => Sending::Closing,
            2 if output.is_empty() => Sending::Closed,
            _ => return Err(damaged()),
        };
        self.input = input.to_vec();
        self.output = output.to_vec();
        Ok(())
    }
}

/// A connection that is non-blocking already: accepted by an [`Acceptor`](super::Acceptor), or
/// handed over.
impl<T: Default> From<TcpStream> for Stream<T> {
    fn from(socket: TcpStream) -> Stream<T> {
        Stream {
            socket,
            session: T::default(),
            input: Vec::new(),
            output: Vec::new(),
            sending: Sending::Open,
        }
    }
}

impl<T> AsFd for Stream<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::event::{Config, Reactor, Time};

    fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (client, Stream::from(socket))
    }

    #[test]
    fn blocked_and_half_read_is_saved_and_goes_on_elsewhere() {
        let (mut client, mut stream) = pair();
        let sent: Vec<u8> = (0..32 << 20).map(|n: u32| (n % 251) as u8).collect();
        stream.input.extend_from_slice(b"half");
        stream.output.clone_from(&sent);
        stream.finish();
        assert!(!stream.flush().unwrap(), "the kernel has room for all");
        let mut state = Vec::new();
        assert!(stream.save(&mut state));
        let mut successor = Stream::<()>::from(stream.socket.try_clone().unwrap());
        successor.restore(&state).unwrap();
        assert_eq!(successor.input, b"half");
        drop(stream);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).map(|_| all)
        });
        while !successor.flush().unwrap() {
            std::thread::yield_now();
        }
        assert!(successor.is_finished());
        assert!(reading.join().unwrap().unwrap() == sent);
        state.clear();
        assert!(!successor.save(&mut state), "nothing is left");
    }

    #[test]
    fn damaged_state_is_refused_and_changes_nothing() {
        let (_client, mut stream) = pair();
        stream.input.extend_from_slice(b"kept");
        for state in [&[][..], &[0, 1, 0], &[0, 2, 0, 0, 0, 7], &[3, 0, 0, 0, 0]] {
            assert!(stream.restore(state).is_err(), "{state:?}");
        }
        assert!(stream.restore(&[2, 0, 0, 0, 0, b'x']).is_err());
        assert_eq!(stream.input, b"kept");
        assert!(stream.wants_output());
    }

    #[test]
    fn served_until_its_deadline_and_then_ended() {
        let (mut client, stream) = pair();
        let mut reactor = Reactor::<u32>::new(Config::default()).unwrap();
        let serve = |stream: &mut Stream, calls: &mut u32, cx: &mut Cx<u32>, event| {
            stream.serve(cx, event, |stream, _| {
                *calls += 1;
                stream.output.append(&mut stream.input);
                Ok(())
            })
        };
        let handle = reactor
            .cx()
            .add(Stream::<()>::spec("echo"), stream, serve)
            .unwrap();
        client.write_all(b"ping").unwrap();
        let mut calls = 0;
        while calls == 0 {
            reactor.turn(&mut calls, None).unwrap();
        }
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
        let soon = Time::now() + Duration::from_millis(1);
        reactor.cx().set_deadline(handle.id(), Some(soon));
        while reactor.cx().contains(handle) {
            reactor.turn(&mut calls, None).unwrap();
        }
        assert_eq!(client.read(&mut back).unwrap(), 0);
    }
}
