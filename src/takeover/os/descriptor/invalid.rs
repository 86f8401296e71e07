//! Why a descriptor is not what its record says, in words for the other side and the log.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use crate::proto::records::ItemKind;

/// Why a descriptor is not what its record says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Invalid {
    /// Not a TCP socket.
    NotTcp,
    /// Not of the recorded kind.
    Kind {
        /// That kind.
        recorded: ItemKind,
        /// What it is.
        found: String,
    },
    /// It cannot be handed over at all.
    Bound {
        /// What it is.
        name: String,
        /// Why it cannot.
        why: &'static str,
    },
    /// The record lacks an address that something of this name has.
    NoAddress(&'static str),
    /// Another socket than the one recorded.
    Cookie {
        /// The recorded cookie.
        recorded: u64,
        /// The socket's cookie.
        found: u64,
    },
    /// Its own address is not the recorded one.
    Local {
        /// The recorded address.
        recorded: SocketAddr,
        /// The socket's address.
        found: SocketAddr,
    },
    /// Its peer's address is not the recorded one.
    Peer {
        /// The recorded address.
        recorded: SocketAddr,
        /// The socket's peer.
        found: SocketAddr,
    },
    /// Reading or writing it would block (no O_NONBLOCK).
    Blocks,
    /// It raises signals in its first owner (O_ASYNC); what it is, if it is no TCP socket.
    Async(Option<String>),
    /// A child would inherit it (no FD_CLOEXEC).
    Inheritable,
    /// An upper layer such as TLS runs in the kernel; its other half does not travel.
    UpperLayer,
    /// It is under repair (TCP_REPAIR).
    Repair,
    /// It is neither connected nor a listener, whichever is recorded; the number is from
    /// `linux/tcp_states.h`.
    State(u8),
    /// The kernel did not tell.
    Os(io::Error),
}

impl From<Errno> for Invalid {
    fn from(error: Errno) -> Self {
        Invalid::Os(error.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::NotTcp => out.write_str("not a TCP socket"),
            Invalid::Kind { recorded, found } => write!(out, "not a {recorded} but {found}"),
            Invalid::Bound { name, why } => {
                write!(out, "{name} cannot be handed over: it {why}")
            }
            Invalid::NoAddress(name) => write!(out, "a {name} without address"),
            Invalid::Cookie { recorded, found } => {
                write!(out, "socket cookie {found}, recorded {recorded}")
            }
            Invalid::Local { recorded, found } => {
                write!(out, "bound to {found}, recorded {recorded}")
            }
            Invalid::Peer { recorded, found } => {
                write!(out, "connected to {found}, recorded {recorded}")
            }
            Invalid::Blocks => out.write_str("O_NONBLOCK is not set"),
            Invalid::Async(name) => {
                if let Some(name) = name {
                    write!(out, "{name}: ")?;
                }
                out.write_str(
                    "O_ASYNC is set, and its signals would go on going to its first owner; \
                     clear it (fcntl(2), F_SETFL) before a takeover",
                )
            }
            Invalid::Inheritable => out.write_str("FD_CLOEXEC is not set"),
            Invalid::UpperLayer => out.write_str("an upper layer (TLS) runs in the kernel"),
            Invalid::Repair => out.write_str("TCP_REPAIR is set"),
            Invalid::State(state) => write!(out, "TCP state {state} does not fit"),
            Invalid::Os(error) => write!(out, "cannot be examined: {error}"),
        }
    }
}

impl Error for Invalid {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Invalid::Os(error) => Some(error),
            _ => None,
        }
    }
}
