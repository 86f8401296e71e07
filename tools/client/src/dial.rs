//! Opening connections: descriptors for all of them, and a non-blocking connect.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

/// Descriptors for what is not a connection: epoll, timer, signals, a file being written.
const SPARE_DESCRIPTORS: u64 = 16;
/// Buffers of a connection that is to fill them, in bytes: with those that the kernel would
/// grow by itself, megabytes would have to go out first.
const SMALL_BUFFER: usize = 16 * 1024;

/// How large the kernel's buffers of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// As the kernel sees fit.
    Automatic,
    /// Soon full.
    Small,
}

/// Raises the descriptor limit as far as it goes.
///
/// # Errors
/// One line if so many connections do not fit all the same.
pub fn make_room(connections: usize) -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("getrlimit: {e}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| format!("setrlimit: {e}"))?;
    // Without /proc nothing but the three standard descriptors is assumed to be open.
    let open = fs::read_dir("/proc/self/fd").map_or(3, |entries| entries.count() as u64);
    let room = hard.saturating_sub(open + SPARE_DESCRIPTORS);
    if connections as u64 > room {
        return Err(format!(
            "-c {connections} is too many: the hard limit of {hard} descriptors leaves room for \
             {room} connections; lower -c, raise it (ulimit -Hn), or start several clients"
        ));
    }
    Ok(())
}

/// Begins to connect to `target`, from `source` if given. The connection is up, or has
/// failed, when its stream is writable.
///
/// # Errors
/// What socket(2), bind(2) and connect(2) say at once; a name for the failing call is in it.
pub fn dial(target: SocketAddr, source: Option<IpAddr>, buffers: Buffers) -> io::Result<TcpStream> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(family, SockType::Stream, flags, None)?;
    // Each message is to leave at once, also behind an unacknowledged one (tcp(7)).
    setsockopt(&stream, sockopt::TcpNoDelay, &true)?;
    if buffers == Buffers::Small {
        setsockopt(&stream, sockopt::RcvBuf, &SMALL_BUFFER)?;
        setsockopt(&stream, sockopt::SndBuf, &SMALL_BUFFER)?;
    }
    if let Some(source) = source {
        bind_source(&stream, source)?;
    }
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(Errno::EADDRNOTAVAIL) => {
            let hint = "no free local port; spread the connections with --sources or --source";
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, hint));
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(TcpStream::from_std(stream.into()))
}

fn bind_source(stream: &OwnedFd, source: IpAddr) -> io::Result<()> {
    // The port is picked by connect, where it has to be unique only for this target (ip(7)).
    // A kernel without the option picks it here, and then has fewer of them.
    let _ = setsockopt(stream, sockopt::IpBindAddressNoPort, &true);
    let address = SockaddrStorage::from(SocketAddr::new(source, 0));
    bind(stream.as_raw_fd(), &address).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("source address {source}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn dialled_from_a_source_address_comes_from_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = "127.0.0.7".parse().unwrap();
        let target = listener.local_addr().unwrap();
        let _stream = dial(target, Some(source), Buffers::Small).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), source);
    }

    #[test]
    fn source_that_is_not_ours_is_named() {
        let target = "127.0.0.1:9".parse().unwrap();
        let source = "192.0.2.1".parse().unwrap();
        let error = dial(target, Some(source), Buffers::Automatic).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[test]
    fn more_connections_than_descriptors_are_refused_with_the_limit() {
        let line = make_room(usize::MAX).unwrap_err();
        assert!(
            line.contains("ulimit -Hn") && !line.contains('\n'),
            "{line}"
        );
    }
}
