//! Clients of a measurement, in a process of their own (`holder.rs`) that obeys orders.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// See the file's own description.
pub(crate) struct Clients {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    /// So many to this port; `kind` is talking or silent.
    pub(crate) fn connect(port: u16, count: usize, kind: &str) -> Result<Clients, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["hold", &port.to_string(), &count.to_string(), kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        let mut clients = Clients { process, answers };
        match clients.answer()?.as_str() {
            "ready" => Ok(clients),
            other => Err(format!("the clients say {other:?}").into()),
        }
    }

    /// A word of `holder.rs`.
    pub(crate) fn order(&mut self, order: &str) -> Result<(), Box<dyn Error>> {
        let stdin = self.process.stdin.as_mut().ok_or("no stdin")?;
        Ok(writeln!(stdin, "{order}")?)
    }

    /// What they say next.
    pub(crate) fn answer(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the clients have left".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
