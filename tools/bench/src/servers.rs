//! The echo servers that are compared, each a process of its own.
//!
//! All of them are one thread with 64 KiB that every connection reads into, and answer what one
//! read took with one write: what differs is what a server spends around these two calls.

mod calloop;
mod exchange;
mod floor;
mod tokio;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use takeover_say::tell;

/// One read's worth.
const ROOM: usize = 64 * 1024;

/// What can be started; the floor is what the others are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// The least: epoll, read, write.
    Floor,
    /// The product's own binary.
    Service,
    /// A task for each connection on a current-thread runtime.
    Tokio,
    /// A source for each connection.
    Calloop,
}

impl Server {
    pub(crate) const ALL: [Server; 4] = [
        Server::Floor,
        Server::Service,
        Server::Tokio,
        Server::Calloop,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Server::Floor => "floor",
            Server::Service => "service",
            Server::Tokio => "tokio",
            Server::Calloop => "calloop",
        }
    }

    /// Whether its timers are measured. The floor has none; for calloop a million would take an
    /// hour, since it looks for a free slot from the first one on.
    pub(crate) const fn has_timers(self) -> bool {
        matches!(self, Server::Service | Server::Tokio)
    }

    /// What starts it. It names its port on stderr. `service` is the product's binary; none means
    /// beside this program.
    pub(crate) fn command(self, service: Option<&Path>) -> io::Result<Command> {
        if self == Server::Service {
            let service = match service {
                Some(file) => file.to_owned(),
                None => std::env::current_exe()?.with_file_name("socket-takeover"),
            };
            let mut command = Command::new(service);
            command.args(["-a", "127.0.0.1", "-p", "0", "--no-syslog"]);
            return Ok(command);
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["subject", self.name(), "0"]);
        Ok(command)
    }

    /// Serves until the process is killed.
    pub(crate) fn serve(self, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        tell!("[127.0.0.1]:{}", listener.local_addr()?.port());
        match self {
            Server::Floor => floor::serve(&listener),
            Server::Tokio => tokio::serve(listener),
            Server::Calloop => calloop::serve(listener),
            Server::Service => Err(io::Error::other("the service is a program of its own")),
        }
    }
}
