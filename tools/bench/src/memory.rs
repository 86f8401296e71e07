//! How much memory a process holds for each idle connection, and for each armed timer.
//!
//! Counted are pages that the process has written to and shares with nobody: its heap, with
//! what the allocator adds and rounds, and not what the kernel keeps for a socket (about 5 KB a
//! TCP end, the same for every server). Each connection has sent one message and got its answer
//! before it fell silent, so that whatever is made at first use has been made.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use takeover_say::say;

use crate::cli::Options;
use crate::reach::refuse_itself;
use crate::servers::Server;
use crate::subject::{Subject, private_memory};
use crate::timers;

/// 127.0.0.1 to this: the kernel looks for a free port by trying, which takes long when many of
/// an address are in use.
const SOURCES: usize = 4;
/// Descriptors that stay for everything else, here and in the servers.
const RESERVE: usize = 100;
/// Open before the first look: what is made once has been made.
const WARM_UP: usize = 16;
/// How many timers are armed, and how many of them in one go.
const TIMERS: usize = 1_000_000;
const AT_ONCE: u32 = 1000;

/// Measures and prints.
pub(crate) fn table(options: &Options, open_files: usize) -> Result<(), Box<dyn Error>> {
    let most = open_files.saturating_sub(RESERVE + WARM_UP).max(1);
    let connections = options.connections.min(most);
    say!("User memory in bytes: private, written to, without the kernel's.\n")?;
    if connections < options.connections {
        say!("The limit of open files allows {connections} connections.\n")?;
    }
    say!("| | each of {connections} idle connections | each of {TIMERS} armed timers |")?;
    say!("|---|---|---|")?;
    for server in Server::ALL {
        let connection = idle_connection(server, connections, options)?;
        let timer = if server.has_timers() {
            format!("{:.0}", armed_timer(server)?)
        } else {
            "–".into()
        };
        say!("| {} | {connection:.0} | {timer} |", server.name())?;
    }
    Ok(())
}

/// Arms so many timers as `server` does, and prints what each of them holds, in bytes.
pub(crate) fn armed(server: Server, count: usize) -> Result<(), Box<dyn Error>> {
    let each = match server {
        Server::Tokio => arm::<timers::Tokio>(count)?,
        _ => arm::<timers::Ours>(count)?,
    };
    say!("{each}")?;
    Ok(())
}

/// Bytes that the server holds for each.
fn idle_connection(
    server: Server,
    connections: usize,
    options: &Options,
) -> Result<f64, Box<dyn Error>> {
    let subject = Subject::start(server, options)?;
    let mut open = Vec::with_capacity(WARM_UP + connections);
    for number in 0..WARM_UP {
        open.push(used_connection(subject.port, number, true)?);
    }
    let before = subject.memory()?;
    for number in 0..connections {
        open.push(used_connection(subject.port, number, true)?);
    }
    let grown = subject.memory()?.saturating_sub(before);
    Ok(grown as f64 / connections as f64)
}

/// A connection from one of the source addresses that has got one answer, if it talks.
pub(crate) fn used_connection(
    port: u16,
    number: usize,
    talks: bool,
) -> Result<TcpStream, Box<dyn Error>> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // The port is chosen when it is known where to: one may be used for several targets.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let source = Ipv4Addr::new(127, 0, 0, 1 + (number % SOURCES) as u8);
    let from = SocketAddrV4::new(source, 0);
    bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = refuse_itself(TcpStream::from(socket))?;
    if !talks {
        return Ok(stream);
    }
    let (sent, mut received) = (*b"once", [0; 4]);
    stream.write_all(&sent)?;
    stream.read_exact(&mut received)?;
    if received != sent {
        return Err("an answer is not what was sent".into());
    }
    Ok(stream)
}

/// Bytes that a process of its own holds for each.
fn armed_timer(server: Server) -> Result<f64, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let count = TIMERS.to_string();
    let output = command.args(["armed", server.name(), &count]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The handle by which a timer is known later is part of what it holds.
fn arm<T: timers::Subject>(count: usize) -> Result<f64, Box<dyn Error>> {
    let afters: Vec<Duration> = (0..AT_ONCE)
        .map(|number| Duration::from_secs(60) + Duration::from_millis(37) * number)
        .collect();
    let mut subject = T::new();
    subject.add(&afters);
    let before = private_memory("self")?;
    let rounds = count.div_ceil(afters.len());
    for _ in 0..rounds {
        subject.add(&afters);
    }
    let grown = private_memory("self")?.saturating_sub(before);
    Ok(grown as f64 / (rounds * afters.len()) as f64)
}
