//! One read and one write of a connection, for the servers that are told of readiness.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The read was full: there may be more.
    More,
    /// Until there is something to read.
    Quiet,
    /// Until there is room to write what is left in `unsent`.
    Blocked,
    /// The peer has gone.
    Ended,
}

/// Reads once and answers once; what the kernel does not take goes to `unsent`, and goes out
/// before anything else is read.
pub(super) fn exchange(mut stream: &TcpStream, unsent: &mut Vec<u8>, room: &mut [u8]) -> After {
    if !unsent.is_empty() {
        match send(stream, unsent) {
            Ok(sent) => drop(unsent.drain(..sent)),
            Err(_) => return After::Ended,
        }
        if !unsent.is_empty() {
            return After::Blocked;
        }
    }
    let read = match stream.read(room) {
        Ok(0) => return After::Ended,
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return After::Quiet,
        Err(_) => return After::Ended,
    };
    match send(stream, &room[..read]) {
        Ok(sent) if sent < read => {
            unsent.extend_from_slice(&room[sent..read]);
            After::Blocked
        }
        Ok(_) if read == room.len() => After::More,
        Ok(_) => After::Quiet,
        Err(_) => After::Ended,
    }
}

/// How many bytes the kernel took until it had no more room.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
