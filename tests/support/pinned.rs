//! A real process of the service, held right behind one record of the takeover.
//!
//! The test traces it (ptrace(2)) and lets it run from system call to system call. On the way
//! out of sendmsg(2) and recvmsg(2), which the service uses for the channel alone, it reads the
//! record's header in the other process's memory. Held there, the process has the record and
//! has done nothing about it yet; to everybody else it is stopped. On the way into sendmsg(2)
//! it is about to send: killed there, it never has. Unlike a proxy between the two, all this
//! leaves the channel, and with it the identity of both ends, as they are.
//!
//! Tracing belongs to a thread: use and drop a [`Pinned`] on the thread that made it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use socket_takeover::proto::records::Kind;
use socket_takeover::proto::wire::{HEADER, Header};

use super::Server;

/// A record that went through the held process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Sending(Kind),
    Sent(Kind),
    Received(Kind),
}

/// Steps that follow each other, and how often each has to happen.
pub type Steps = &'static [(Step, usize)];

/// Where a taker can be before its claim. Up to DRAINED the donor serves, from then on nobody
/// does.
pub const MOMENTS: [(&str, Steps); 10] = [
    ("Hello", &[(Step::Sent(Kind::Hello), 1)]),
    (
        "Receive, nothing yet",
        &[(Step::Received(Kind::Welcome), 1)],
    ),
    ("Receive, items", &[(Step::Received(Kind::Items), 1)]),
    ("Receive, first batch", &[(Step::Received(Kind::State), 1)]),
    ("Receive, first ACK", &[(Step::Sent(Kind::Ack), 1)]),
    ("Receive, second batch", &[(Step::Received(Kind::Items), 2)]),
    ("Receive, PREPARE", &[(Step::Received(Kind::Prepare), 1)]),
    ("Settle", &[(Step::Sent(Kind::Drained), 1)]),
    (
        "Settle, final array",
        &[
            (Step::Received(Kind::Prepare), 1),
            (Step::Sent(Kind::Drained), 1),
            (Step::Received(Kind::State), 1),
        ],
    ),
    ("Validate, Claim", &[(Step::Received(Kind::End), 1)]),
];

/// See the file's own description.
#[derive(Debug)]
pub struct Pinned {
    server: Server,
    /// The system call under way: its number and what its message is.
    call: Option<(libc::c_long, u64)>,
    /// Number of the next record in each direction: tells a record from what an earlier one
    /// has left in the buffer.
    sent: u32,
    received: u32,
}

impl Pinned {
    /// Starts a taker that is held before it does anything.
    pub fn take_over(path: &Path, more: &[&str]) -> Pinned {
        // Tracing resumes it, so nothing else has to.
        Pinned::hold(Server::take_over_stopped(path, more))
    }

    /// Holds a running process.
    pub fn hold(server: Server) -> Pinned {
        let pinned = Pinned {
            server,
            call: None,
            sent: 0,
            received: 0,
        };
        ptrace::seize(pinned.pid(), Options::PTRACE_O_TRACESYSGOOD).expect("a child may be traced");
        ptrace::interrupt(pinned.pid()).expect("it is traced");
        pinned.await_stop();
        pinned
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Lets it run until `step` has happened `nth` times from here on.
    ///
    /// # Panics
    /// If it ends before.
    pub fn run_to(&mut self, step: Step, nth: usize) {
        let mut left = nth;
        while left > 0 {
            let next = self.next_step();
            let next = next.unwrap_or_else(|| panic!("it has ended before {step:?} ({nth})"));
            left -= usize::from(next == step);
        }
    }

    /// Lets it run until the next record has gone through; `None` if it has ended.
    pub fn next_step(&mut self) -> Option<Step> {
        let mut signal = None;
        loop {
            match ptrace::syscall(self.pid(), signal.take()) {
                Ok(()) => {}
                Err(Errno::ESRCH) => return None,
                Err(error) => panic!("ptrace: {error}"),
            }
            match self.await_stop()? {
                WaitStatus::PtraceSyscall(_) => {
                    if let Some(step) = self.system_call() {
                        return Some(step);
                    }
                }
                // The stop it came with; all others are its own business.
                WaitStatus::Stopped(_, Signal::SIGSTOP) | WaitStatus::PtraceEvent(..) => {}
                WaitStatus::Stopped(_, other) => signal = Some(other),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets it go on as if nothing had been.
    pub fn release(self) -> Server {
        // It may be that it stopped before it was traced: a stop that tracing only hides.
        self.server.go_on();
        ptrace::detach(self.pid(), None).expect("it is held");
        self.server
    }

    /// Leaves it held for ever; only a kill ends it.
    pub fn into_server(self) -> Server {
        self.server
    }

    /// Kills it where it is.
    pub fn kill(self) -> Server {
        self.server.signal(Signal::SIGKILL);
        self.server
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.pid().cast_signed())
    }

    /// `None` if it has ended; its exit code is left for the [`Server`].
    fn await_stop(&self) -> Option<WaitStatus> {
        let id = Id::Pid(self.pid());
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        match waitid(id, peek).expect("it is our child") {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => None,
            _ => Some(waitpid(self.pid(), None).expect("it is our child")),
        }
    }

    /// What the system call means at whose entry or exit it is held.
    fn system_call(&mut self) -> Option<Step> {
        let info = ptrace::syscall_info(self.pid()).expect("it is held");
        let enters = info.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        if enters {
            self.call = self.arguments();
        }
        let (number, message) = self.call?;
        let header = self.header(message)?;
        let kind = Kind::from_code(header.kind)?;
        match (number, enters) {
            (libc::SYS_sendmsg, true) if header.sequence == self.sent => Some(Step::Sending(kind)),
            (libc::SYS_sendmsg, false) if header.sequence == self.sent => {
                self.sent += 1;
                Some(Step::Sent(kind))
            }
            (libc::SYS_recvmsg, false) if header.sequence == self.received => {
                self.received += 1;
                Some(Step::Received(kind))
            }
            _ => None,
        }
    }

    /// Number and second argument of the call that it is about to make, if it is one of ours
    /// (proc_pid_syscall(5)).
    fn arguments(&self) -> Option<(libc::c_long, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/syscall", self.pid())).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let message = words.nth(1)?.strip_prefix("0x")?;
        let message = u64::from_str_radix(message, 16).ok()?;
        matches!(number, libc::SYS_sendmsg | libc::SYS_recvmsg).then_some((number, message))
    }

    /// The record's header, by way of the msghdr and its first iovec (recvmsg(2)).
    fn header(&self, message: u64) -> Option<Header> {
        const MSG_IOV: u64 = 16;
        let memory = File::open(format!("/proc/{}/mem", self.pid())).ok()?;
        let word = |at: u64| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, at).ok()?;
            Some(u64::from_ne_bytes(word))
        };
        let bytes = word(word(message + MSG_IOV)?)?;
        let mut header = [0; HEADER];
        memory.read_exact_at(&mut header, bytes).ok()?;
        Header::read(&header).ok()
    }
}
