//! A connection of our own to the original, made before it is told to hand over.
//!
//! It is there for two reasons:
//!
//! - A SOCK_STREAM socket may be anybody's. A process that echoes four bytes on its own port is the
//!   original. Any other is left alone before anything has happened.
//! - Once the original has let go of its last peer it closes its listener, while its main thread
//!   sleeps in accept(2) on it. That thread takes one client more, finds the listener closed,
//!   and ends the process, and with it that client. A peer that never says another word keeps
//!   it from there for as long as we need it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket_takeover::proto::sequence::MESSAGE;
use socket_takeover::takeover::internal::refuse_itself;

/// See the file's own description.
#[derive(Debug)]
pub(super) struct Anchor {
    address: SocketAddr,
    _stream: TcpStream,
}

impl Anchor {
    /// Connects, says one message and hears it; each within `longest`.
    ///
    /// # Errors
    /// `InvalidData` if the answer is another one, `ConnectionRefused` if nobody listens and the
    /// connection came back to ourselves, which would echo as well; else those of connect(2),
    /// read(2).
    pub(super) fn drop_at(listener: SocketAddr, longest: Duration) -> io::Result<Anchor> {
        let to = reachable(listener);
        let mut stream = refuse_itself(TcpStream::connect_timeout(&to, longest)?, to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(longest))?;
        let message = [0; MESSAGE];
        stream.write_all(&message)?;
        let mut answer = [1; MESSAGE];
        stream.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Anchor {
            address: stream.local_addr()?,
            _stream: stream,
        })
    }

    /// Whether this is how the other side sees it.
    pub(super) fn is(&self, peer: SocketAddr) -> bool {
        (peer.ip().to_canonical(), peer.port())
            == (self.address.ip().to_canonical(), self.address.port())
    }
}

/// Where a listener can be reached from its own machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}
