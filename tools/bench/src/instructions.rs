//! Instructions a message, counted by callgrind: the same whatever else the machine does.
//!
//! Each server runs twice under valgrind(1), with so many messages and with more; the
//! difference, divided by how many more there were, is what a message costs in user space, its
//! share of the waits included. Kernel and caches are not in it: it is for comparing a server
//! with itself, before and after a change.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use takeover_say::say;

use crate::cli::Options;
use crate::clients::Clients;
use crate::process::{Process, port_in};
use crate::servers::Server;

/// Connections, each of which sends at the same time as all others.
const LOADS: [usize; 2] = [1, 64];
/// How often each sends, in the two runs.
const FEW: usize = 20;
const MANY: usize = 220;

/// Counts and prints.
pub(crate) fn table(options: &Options) -> Result<(), Box<dyn Error>> {
    say!("Instructions a message in user space, counted by callgrind.\n")?;
    let names: Vec<&str> = Server::ALL.iter().map(|server| server.name()).collect();
    say!("| connections | {} |", names.join(" | "))?;
    say!("|---|{}", "---|".repeat(names.len()))?;
    for connections in LOADS {
        let mut line = format!("| {connections} |");
        for server in Server::ALL {
            let few = run(server, connections, FEW, options)?;
            let many = run(server, connections, MANY, options)?;
            let messages = connections * (MANY - FEW);
            line += &format!(
                " {:.0} |",
                many.saturating_sub(few) as f64 / messages as f64
            );
        }
        say!("{line}")?;
    }
    Ok(())
}

/// Instructions of a whole run in which each connection sends so often.
fn run(
    server: Server,
    connections: usize,
    times: usize,
    options: &Options,
) -> Result<u64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let plain = server.command(options.service.as_deref())?;
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(&counts);
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(file)
        .arg(plain.get_program())
        .args(plain.get_args());
    let process = Process::start(&mut command)
        .map_err(|error| format!("{error}; install valgrind to count instructions"))?;
    let port = port_in(&process.line("[127.0.0.1]:")?)?;
    let mut clients = Clients::connect(port, connections, "talking")?;
    for _ in 0..times {
        clients.order("touch 1")?;
        clients.answer()?;
    }
    // It writes what it has counted when it ends.
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM)?;
    process.wait()?;
    drop(clients);
    let text = fs::read_to_string(&counts)?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    });
    Ok(total
        .ok_or("callgrind has counted nothing")?
        .trim()
        .parse()?)
}
