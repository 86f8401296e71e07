//! The server under test: a process of its own, pinned, killed at the end.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use crate::cli::Options;
use crate::machine::pin;
use crate::servers::Server;

/// A running server.
pub(crate) struct Subject {
    process: Child,
    /// Held open, so that a server which logs does not write into a broken pipe.
    output: BufReader<ChildStderr>,
    pub(crate) port: u16,
    /// Server and load have a CPU each.
    pub(crate) is_apart: bool,
}

impl Subject {
    /// Starts a server on its CPU, waits until it says where it listens, and goes to the
    /// load's CPU.
    pub(crate) fn start(server: Server, options: &Options) -> Result<Subject, Box<dyn Error>> {
        let mut command = server.command(options.service.as_deref())?;
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let is_placed = pin(options.server_cpu);
        let spawned = command.spawn();
        let is_apart = pin(options.load_cpu) && is_placed && options.server_cpu != options.load_cpu;
        let mut process = spawned.map_err(|error| {
            let program = command.get_program().display();
            format!("{program}: {error} (it is built by: cargo build --release)")
        })?;
        let output = process.stderr.take().ok_or("no stderr")?;
        let mut subject = Subject {
            process,
            output: BufReader::new(output),
            port: 0,
            is_apart,
        };
        subject.port = subject.listening()?;
        Ok(subject)
    }

    /// CPU time of all threads so far, as the scheduler counts it (proc(5), schedstat: the
    /// first number, in nanoseconds).
    pub(crate) fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().ok_or("an empty schedstat")?;
            sum += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Its own memory, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Box<dyn Error>> {
        private_memory(&self.process.id().to_string())
    }

    /// The port, from the first line that names one.
    fn listening(&mut self) -> Result<u16, Box<dyn Error>> {
        let mut said = String::new();
        loop {
            let start = said.len();
            if self.output.read_line(&mut said)? == 0 {
                return Err(format!("the server did not start: {said}").into());
            }
            let line = &said[start..];
            if let Some((_, rest)) = line.split_once("[127.0.0.1]:") {
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
                return Ok(digits.unwrap_or_default().parse()?);
            }
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It fails only if the server has gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The pages that a process has written to and shares with nobody, in bytes (proc(5),
/// smaps_rollup); the process is a number, or `self`.
pub(crate) fn private_memory(process: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"))
        .ok_or("smaps_rollup names no Private_Dirty")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}
