//! Connections to a server under test, and to nothing else.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpStream};

/// A connection to this port of our own machine.
pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    refuse_itself(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)
}

/// The stream, unless it is connected to itself, which echoes as well as any server: where
/// nobody listens at a port of the ephemeral range, connect(2) may pick that port for our end.
pub(crate) fn refuse_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        let why = "the server has gone: a connection came back to itself";
        return Err(io::Error::new(ErrorKind::ConnectionRefused, why));
    }
    Ok(stream)
}
