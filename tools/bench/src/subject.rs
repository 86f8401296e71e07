//! The server under test: a process of its own, pinned, killed at the end.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// A running server.
pub(crate) struct Subject {
    process: Child,
    /// Held open, so that a server which logs does not write into a broken pipe.
    output: BufReader<ChildStderr>,
    pub(crate) port: u16,
}

impl Subject {
    /// Starts a server on the CPU of this thread and waits until it says where it listens.
    pub(crate) fn start(command: &mut Command) -> Result<Subject, Box<dyn Error>> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(|error| {
            let program = command.get_program().display();
            format!("{program}: {error} (it is built by: cargo build --release)")
        })?;
        let output = process.stderr.take().ok_or("no stderr")?;
        let mut subject = Subject {
            process,
            output: BufReader::new(output),
            port: 0,
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

/// Pins this thread, and what it starts from here on; false if there is no such CPU for us.
pub(crate) fn pin(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .is_ok()
}
