//! Becoming a daemon: the terminal gets its prompt back when the service serves, and the exit code
//! tells the truth about the start.
//!
//! The steps are those of daemon(7) for SysV daemons. The first is to let go of what was inherited:
//! a pipe whose end somebody waits for, a lock on a numbered descriptor, the signal mask. Otherwise
//! the process that started us would wait for as long as the daemon lives. There are two forks. The
//! first makes a session of our own possible. The second leaves that session's leader behind, so
//! that no terminal that is opened later can become ours.
//!
//! ```text
//!   parent ── fork ──→ leader: setsid ── fork ──→ daemon: umask, /, stdin and stdout
//!     │                  exit                       │  starts up, stderr still open
//!     │ ←───────────────── one byte: the exit code ─┤  report(code)
//!   exits with it                                   │  stderr to /dev/null
//!     or with 1, if the pipe ends without a byte    ↓  serves
//! ```
//!
//! Invariants
//! - It comes before any thread, channel or socket of the service. A fork copies the pid file's
//!   lock, the report, and nothing else.
//! - Beyond stderr the daemon holds what the service has opened, and nothing that it inherited.
//! - The parent never exits 0 for a daemon that does not serve.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process;

use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use socket_takeover::sys::{Fork, close_inherited_fds, fork_alone};

/// The exit code of the parent whose daemon died without a word.
const DIED: u8 = 1;

/// The daemon's duty to tell the process on the terminal how the start went. If it is dropped
/// without a report, it tells that the start failed.
#[derive(Debug)]
#[must_use = "the parent waits for the report"]
pub struct Readiness {
    pipe: File,
    keep_stderr: bool,
}

/// Turns this process into a daemon. Only the daemon returns from it: the calling process
/// waits for the report and exits with its code.
///
/// The daemon's working directory is `/`, so that it keeps no file system busy. Its umask is 027,
/// no signal is blocked, it has no terminal, and it has no descriptor that this process has
/// inherited. With `keep_stderr` stderr stays open for ever. Otherwise it stays open until the
/// report, so that an error before it can be read where it was caused.
///
/// # Errors
/// If the process has a second thread, or if a system call fails. In the leader and in the daemon
/// the caller has to print the error; the parent then exits with 1.
pub fn daemonize(keep_stderr: bool) -> io::Result<Readiness> {
    close_inherited_fds();
    // Of the handlers, step 2, only "ignored" is inherited, and that does not matter to signals
    // that are blocked and read from a descriptor, as those of the service are.
    SigSet::empty().thread_set_mask()?;
    let (report, pipe) = pipe2(OFlag::O_CLOEXEC)?;
    if let Fork::Parent(leader) = fork_alone()? {
        drop(pipe);
        await_report(File::from(report), leader);
    }
    drop(report);
    setsid()?;
    if let Fork::Parent(_daemon) = fork_alone()? {
        process::exit(0);
    }
    // Files that the daemon makes are for nobody else, unless a mode of its own says so.
    umask(Mode::from_bits_truncate(0o027));
    chdir("/")?;
    let null = null()?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(Readiness {
        pipe: File::from(pipe),
        keep_stderr,
    })
}

impl Readiness {
    /// Reports the start: 0 if the service serves, otherwise the exit code that the daemon
    /// itself is about to end with. From now on stderr leads nowhere, unless it was to be
    /// kept.
    pub fn report(mut self, code: u8) {
        if !self.keep_stderr {
            // If it fails stderr stays as it is, which harms nobody but who waits for its end.
            let _ = null().and_then(|null| Ok(dup2_stderr(null)?));
        }
        // The parent may have been killed meanwhile. That ends the waiting, not the service.
        let _ = self.pipe.write_all(&[code]);
    }
}

fn await_report(mut report: File, leader: u32) -> ! {
    let mut code = [DIED];
    let said = report.read_exact(&mut code);
    if said.is_err() {
        code = [DIED];
        let _ = writeln!(
            io::stderr(),
            "socket-takeover: the daemon ended while it started; what it said is in its log"
        );
    }
    // The leader has exited by now: leave no zombie to whoever started us.
    if let Ok(leader) = i32::try_from(leader) {
        let _ = waitpid(Pid::from_raw(leader), None);
    }
    process::exit(code[0].into());
}

fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}
