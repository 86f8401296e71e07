//! A process whose log is read, and that is killed when it is no longer needed.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// See the file's own description.
pub(crate) struct Process {
    child: Child,
    /// Its log, line by line.
    lines: Receiver<String>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Process, Box<dyn Error>> {
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| {
            let program = command.get_program().display();
            format!("{program}: {error} (it is built by: cargo build --release)")
        })?;
        let log = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Ok(Process { child, lines })
    }

    /// The next line with this in it.
    pub(crate) fn line(&self, part: &str) -> Result<String, Box<dyn Error>> {
        let mut last = String::new();
        for line in &self.lines {
            if line.contains(part) {
                return Ok(line);
            }
            last = line;
        }
        Err(format!("a process has ended before it said {part:?}; its last line: {last}").into())
    }
}

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port that a line names.
pub(crate) fn port_in(line: &str) -> Result<u16, Box<dyn Error>> {
    let (_, rest) = line.split_once("[127.0.0.1]:").ok_or("no port")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    Ok(digits.unwrap_or_default().parse()?)
}
