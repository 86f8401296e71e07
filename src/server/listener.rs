//! The service's listener: what it adds to the library's [`Acceptor`].
//!
//! The acceptor keeps the limit and the reserve, and comes back from pauses and from a shutdown.
//! Here are the option that peers inherit, the peer that is made of each connection, and the lines
//! of the log.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket_takeover::event::{AcceptChange, Accepting, Acceptor, Cx, Handle, RESERVE};

use super::peer::Peer;
use super::{LogAddress, Server};

/// Binds and listens.
pub(crate) fn bind(address: SocketAddr, backlog: i32) -> io::Result<Acceptor> {
    let binding = Acceptor::at(address).backlog(backlog);
    binding.prepare(keep_urgent_inline).listen()
}

/// One that was handed over. It is only looked at.
pub(crate) fn adopt(socket: TcpListener) -> Acceptor {
    Acceptor::from(socket).prepare(keep_urgent_inline)
}

/// Every peer inherits it. An urgent byte is then a byte like any other (RFC 6093, section 6);
/// else the kernel takes it out of the stream, and nobody can tell how many bytes a peer has sent.
fn keep_urgent_inline(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::OobInline, &true)?)
}

/// Gives the listener to the reactor.
pub(crate) fn add(
    listener: Acceptor,
    server: &Server,
    cx: &mut Cx<Server>,
) -> io::Result<Handle<Acceptor>> {
    cx.on_accepting(tell);
    let limited = listener.limit(server.most_peers);
    Ok(limited.add(cx, "listener", welcome)?)
}

/// The descriptor's number, for log lines.
pub(crate) fn number(listener: &Acceptor) -> i32 {
    listener.as_fd().as_raw_fd()
}

/// How many peers there may be under a descriptor limit of `nofile`.
pub(crate) fn most_peers(nofile: usize) -> usize {
    nofile.saturating_sub(RESERVE)
}

/// Why the listener is nothing that a successor could use, if it is not.
pub(crate) fn obstacle(listener: &Acceptor) -> Option<String> {
    let (address, why) = listener.broken()?;
    Some(format!("cannot listen on {}: {why}", LogAddress(address)))
}

/// Adds a peer that was accepted.
///
/// # Errors
/// If the reactor cannot watch it: the next peer would fare no better.
fn welcome(
    server: &mut Server,
    cx: &mut Cx<Server>,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<()> {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!("Peer {} was not taken: {error}", LogAddress(address));
        return Ok(());
    }
    let peer = Peer::new(stream, address);
    let name = log::log_enabled!(log::Level::Debug).then(|| peer.to_string());
    peer.add(server, cx)?;
    server.peers += 1;
    server.counters.accepted += 1;
    if let Some(name) = name {
        log::debug!("Accepting connection from {name}");
    }
    Ok(())
}

/// What the log says of pauses, which is for peers.
fn tell(server: &mut Server, _: &mut Cx<Server>, news: &Accepting<'_>) {
    if let AcceptChange::Mended { .. } = news.change {
        server.listener = Some(news.listener);
    }
    if news.is_quiet {
        return;
    }
    let peers = server.peers;
    match &news.change {
        AcceptChange::AtLimit { .. } => log::warn!(
            "no more peers are accepted: {peers} are connected and {RESERVE} descriptors are \
             kept in reserve; raise the limit of open files (ulimit -n)"
        ),
        AcceptChange::BackOff {
            error,
            unforeseen: None,
        } => log::warn!("no more peers are accepted: {error}"),
        AcceptChange::BackOff {
            error,
            unforeseen: Some(nth),
        } => log::warn!(
            "no more peers are accepted: {error}, which is tried again (unforeseen, {nth} so far)"
        ),
        AcceptChange::Broken { address, error } => log::error!(
            "no more peers are accepted: somebody has shut the listener down, and it cannot \
             listen on {} again: {error}; free the port. It is tried on, and {peers} Peers are \
             served on",
            LogAddress(*address),
        ),
        AcceptChange::Mended { address } => log::warn!(
            "somebody has shut the listener down: it listens on {} again; clients that were \
             waiting to be accepted are lost",
            LogAddress(*address),
        ),
        AcceptChange::Open => log::info!("peers are accepted again"),
        _ => log::warn!("{news}"),
    }
}

/// The kernel cuts each backlog down to this, without a word (listen(2)).
pub(crate) fn longest_backlog() -> Option<i32> {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    limit.trim().parse().ok()
}
