//! A system call that fails: strace(1) has the kernel answer it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Server, need};

const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");

impl Server {
    /// Starts the service with one fault. With `-D` the process that is started is the service
    /// itself, and strace a child that nobody waits for.
    pub fn start_with<A: AsRef<OsStr>>(fault: &str, args: &[A]) -> Server {
        need("strace");
        let mut command = Command::new("strace");
        command.args(["-D", "-o", "/dev/null", "-e", "signal=none", "-e"]);
        command.arg(format!("inject={fault}"));
        Server::spawn(command.arg(BINARY).args(args))
    }
}

/// A fault in a process that runs already. It ends when this is dropped.
#[derive(Debug)]
pub struct Fault(Child);

impl Fault {
    pub fn of(server: &Server, fault: &str) -> Fault {
        need("strace");
        let mut strace = Command::new("strace")
            .args(["-o", "/dev/null", "-e", "signal=none", "-e"])
            .arg(format!("inject={fault}"))
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut line = String::new();
        let mut said = BufReader::new(strace.stderr.take().expect("it is piped"));
        said.read_line(&mut line).expect("it says something");
        assert!(line.contains("attached"), "{line}");
        Fault(strace)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // SIGTERM lets strace detach; SIGKILL could leave its tracee stopped.
        let pid = Pid::from_raw(self.0.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
