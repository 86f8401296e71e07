//! Opening connections: descriptors for all of them, and a non-blocking connect that never
//! takes itself for a server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::cause::Cause;

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
/// What socket(2), bind(2) and connect(2) say at once, and whose trouble that is.
pub fn dial(
    target: SocketAddr,
    source: Option<IpAddr>,
    buffers: Buffers,
) -> Result<TcpStream, Cause> {
    let stream = socket_for(target, buffers).map_err(Cause::client)?;
    if let Some(source) = source {
        bind_source(&stream, source)?;
    }
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(Cause::of(errno.into())),
    }
    let stream = TcpStream::from_std(stream.into());
    // connect(2) has picked the port, so this is decided now.
    match stream.local_addr() {
        Ok(local) if is_itself(local, target) => {
            abort(stream);
            Err(Cause::itself())
        }
        _ => Ok(stream),
    }
}

fn socket_for(target: SocketAddr, buffers: Buffers) -> nix::Result<OwnedFd> {
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
    Ok(stream)
}

fn bind_source(stream: &OwnedFd, source: IpAddr) -> Result<(), Cause> {
    // The port is picked by connect, where it has to be unique only for this target (ip(7)).
    // A kernel without the option picks it here, and then has fewer of them.
    let _ = setsockopt(stream, sockopt::IpBindAddressNoPort, &true);
    let address = SockaddrStorage::from(SocketAddr::new(source, 0));
    bind(stream.as_raw_fd(), &address).map_err(|errno| match errno {
        Errno::EADDRNOTAVAIL => Cause::Source(source),
        errno => Cause::client(errno),
    })
}

/// Whether a socket with this local address that connects to `target` is connected to itself.
fn is_itself(local: SocketAddr, target: SocketAddr) -> bool {
    let (ours, theirs) = (local.ip().to_canonical(), target.ip().to_canonical());
    // The unspecified address is the one that we come from (`ip_route_output_key`).
    local.port() == target.port() && (ours == theirs || theirs.is_unspecified())
}

/// Closes a connection by a reset. An orderly end of one to itself would leave it in TIME-WAIT,
/// at the very port that a server wants to bind (RFC 9293, 3.6).
fn abort(stream: TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Without it the port is taken for a minute, and nothing can be done about that.
    let _ = setsockopt(&stream, sockopt::Linger, &at_once);
    drop(stream);
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
        let cause = dial(target, Some(source), Buffers::Automatic).unwrap_err();
        assert!(
            matches!(cause, Cause::Source(it) if it == source),
            "{cause}"
        );
        assert!(cause.to_string().contains("192.0.2.1"), "{cause}");
    }

    #[test]
    fn same_address_and_port_at_both_ends_is_a_connection_to_itself() {
        for (local, target, itself) in [
            ("127.0.0.1:40000", "127.0.0.1:40000", true),
            ("127.0.0.1:40001", "127.0.0.1:40000", false),
            ("127.0.0.2:40000", "127.0.0.1:40000", false),
            ("127.0.0.1:40000", "0.0.0.0:40000", true),
            ("[::1]:40000", "[::1]:40000", true),
            ("[::ffff:127.0.0.1]:7", "[::ffff:127.0.0.1]:7", true),
            ("[::1]:40000", "[::]:40000", true),
        ] {
            let is = is_itself(local.parse().unwrap(), target.parse().unwrap());
            assert_eq!(is, itself, "{local} to {target}");
        }
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
