//! Why a connection could not be made, or goes no further: whose trouble that is.
//!
//! A measuring tool that takes its own want of ports for a server that refuses is worse than
//! none. Only an answer that the network can give is the server's; whatever else a system call
//! says is about this machine.
//!
//! | errno | whose |
//! |---|---|
//! | what a peer or a router answers (tcp(7), ICMP by ip(7)), or that none did | the server's |
//! | no port, descriptor or memory; a local rule; any other | this machine's |

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;

use nix::errno::Errno;

/// See the file's own description.
#[derive(Debug)]
pub enum Cause {
    /// The server's, or that of the network up to it.
    Server(io::Error),
    /// This machine's: what is short, and what helps.
    Client(String),
    /// No address of this machine was asked for as a source.
    Source(IpAddr),
}

impl Cause {
    /// By what connect(2) said, at once or later (`SO_ERROR`).
    #[must_use]
    pub fn of(error: io::Error) -> Cause {
        let Some(code) = error.raw_os_error() else {
            return Cause::Server(error);
        };
        match Errno::from_raw(code) {
            Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::ECONNABORTED
            // It was reset, and somebody has asked for the error before.
            | Errno::ENOTCONN
            | Errno::EPIPE
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENONET
            // ICMP: protocol unreachable, source route failed (`icmp_err_convert`).
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP => Cause::Server(error),
            errno => Cause::client(errno),
        }
    }

    /// By what a call said that only this machine answers: epoll_ctl(2).
    #[must_use]
    pub fn own(error: io::Error) -> Cause {
        match error.raw_os_error() {
            Some(code) => Cause::client(Errno::from_raw(code)),
            None => Cause::Client(error.to_string()),
        }
    }

    /// The same for socket(2), setsockopt(2) and bind(2).
    #[must_use]
    pub fn client(errno: Errno) -> Cause {
        let (what, remedy) = match errno {
            // EADDRINUSE: from bind(2), where it has to pick the port.
            Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => (
                "no free local port",
                "use more addresses (--sources, --source) or widen \
                 net.ipv4.ip_local_port_range",
            ),
            Errno::EMFILE => (
                "no free descriptor in this process",
                "raise the limit (ulimit -n) or start several clients",
            ),
            Errno::ENFILE => ("no free descriptor in the system", "raise fs.file-max"),
            Errno::ENOBUFS | Errno::ENOMEM => (
                "no memory for a socket",
                "lower -c, or see net.ipv4.tcp_mem and the memory limit",
            ),
            Errno::EPERM | Errno::EACCES => (
                "this machine forbids it",
                "see its packet filter and security modules",
            ),
            other => (other.desc(), "see what is wrong with this machine"),
        };
        Cause::Client(format!("{what}; {remedy}"))
    }

    /// A connection that came back to the socket that began it. If nobody listens at a port of
    /// the ephemeral range, connect(2) may pick that very port, and two SYNs that cross make a
    /// connection (RFC 9293, 3.5), also of one socket with itself.
    #[must_use]
    pub fn itself() -> Cause {
        let what = "nobody listens there: the connection came back to this client";
        Cause::Server(io::Error::new(ErrorKind::ConnectionRefused, what))
    }
}

/// Whether a call on an open connection failed for want of memory alone, so that the same may
/// succeed a moment later and says nothing of the server.
#[must_use]
pub fn is_want_of_memory(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOBUFS | Errno::ENOMEM))
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Server(error) => error.fmt(f),
            Cause::Client(what) => f.write_str(what),
            Cause::Source(address) => write!(
                f,
                "source address {address} is none of this machine's; give others with --source"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno) -> Cause {
        Cause::of(errno.into())
    }

    #[test]
    fn answers_of_the_network_are_the_servers() {
        for errno in [
            Errno::ECONNREFUSED,
            Errno::ETIMEDOUT,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
        ] {
            assert!(matches!(of(errno), Cause::Server(_)), "{errno}");
        }
        let late = Cause::of(ErrorKind::TimedOut.into());
        assert!(matches!(late, Cause::Server(_)));
    }

    #[test]
    fn want_on_this_machine_is_its_own_and_names_the_remedy() {
        for (errno, remedy) in [
            (Errno::EADDRNOTAVAIL, "--sources"),
            (Errno::EADDRNOTAVAIL, "net.ipv4.ip_local_port_range"),
            (Errno::EADDRINUSE, "net.ipv4.ip_local_port_range"),
            (Errno::EMFILE, "ulimit -n"),
            (Errno::ENFILE, "fs.file-max"),
            (Errno::ENOBUFS, "net.ipv4.tcp_mem"),
            (Errno::ENOMEM, "net.ipv4.tcp_mem"),
            (Errno::EPERM, "packet filter"),
        ] {
            let Cause::Client(line) = of(errno) else {
                panic!("{errno}");
            };
            assert!(line.contains(remedy) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn answer_that_nobody_foresaw_is_not_blamed_on_the_server() {
        for errno in [Errno::EIO, Errno::ENOSYS, Errno::EINVAL] {
            assert!(matches!(of(errno), Cause::Client(_)), "{errno}");
        }
    }
}
