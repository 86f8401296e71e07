//! One system call of a running process that fails, or that it does not live to make.
//!
//! strace(1) does it (`-e inject`): it counts the calls of each name from when it is attached,
//! and puts an error, a result or a signal in the place of the one that is named. SIGKILL comes
//! before the call, SIGSTOP after it. What it did is in its output, so that a test need not
//! guess whether the call came at all.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

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

/// See the file's own description. It ends when this is dropped.
#[derive(Debug)]
pub struct Fault {
    strace: Child,
    /// Kept open: strace has a last word, too.
    _said: BufReader<ChildStderr>,
}

impl Fault {
    /// From now on in `server`. `fault` is as `-e inject=` takes it.
    pub fn of(server: &Server, fault: &str) -> Fault {
        let inject = format!("inject={fault}");
        Fault::strace(server, &["-e", &inject], Path::new("/dev/null"))
    }

    /// The same, with the calls named in `calls` written to `trace`: one a line, at once, with
    /// `(INJECTED)` at the end of one that was put in the place of a call. Those that are not
    /// named are not counted either, so the one that is to fail has to be among them.
    pub fn traced(server: &Server, fault: &str, calls: &str, trace: &Path) -> Fault {
        let inject = format!("inject={fault}");
        let calls = format!("trace={calls}");
        Fault::strace(server, &["-e", &calls, "-e", &inject], trace)
    }

    /// No fault: all calls are written to `trace`.
    pub fn none(server: &Server, trace: &Path) -> Fault {
        Fault::strace(server, &[], trace)
    }

    fn strace(server: &Server, rules: &[&str], trace: &Path) -> Fault {
        need("strace");
        let mut strace = Command::new("strace")
            .arg("-o")
            .arg(trace)
            .args(["-e", "signal=none"])
            .args(rules)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut line = String::new();
        let mut said = BufReader::new(strace.stderr.take().expect("it is piped"));
        said.read_line(&mut line).expect("it says something");
        assert!(line.contains("attached"), "{line}");
        Fault {
            strace,
            _said: said,
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // SIGTERM lets strace detach; SIGKILL could leave its tracee stopped.
        let pid = Pid::from_raw(self.strace.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.strace.wait();
    }
}

/// The lines of a trace so far.
pub fn lines(trace: &Path) -> Vec<String> {
    let text = fs::read(trace).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}
