//! The original's process: stopped, looked at, continued, and at last killed.
//!
//! Everything goes through its pidfd, so no signal can hit another process. waitid(2) tells of a
//! stop only to the parent; everybody else has to look at the state of each thread
//! (proc_pid_stat(5)), since a group stop is complete only when the last one has stopped.
//!
//! Invariant: whoever is stopped here is continued when its [`Stopped`] goes, whatever happens.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use socket_takeover::sys;
use socket_takeover::takeover::internal::identity;

/// How often threads that are about to stop are looked at.
const LOOK: Duration = Duration::from_micros(500);

/// See the file's own description.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) uid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn open(pid: u32) -> io::Result<Process> {
        let pidfd = sys::pidfd_open(pid)?;
        let uid = effective_uid(pid)?;
        Ok(Process { pid, uid, pidfd })
    }

    /// Whether we may signal it.
    pub(super) fn may_be_signalled(&self) -> io::Result<()> {
        self.signal(0)
    }

    /// A copy of one of its descriptors.
    pub(super) fn fetch(&self, number: i32) -> io::Result<OwnedFd> {
        sys::pidfd_getfd(self.pidfd.as_fd(), number)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dies_within(Duration::ZERO)
    }

    /// Waits for its end, up to `longest`; whether it has come.
    pub(super) fn dies_within(&self, longest: Duration) -> bool {
        identity::ready_within(self.pidfd.as_fd(), PollFlags::POLLIN, longest)
    }

    /// Stops it, and returns once not one of its threads runs.
    ///
    /// # Errors
    /// `TimedOut` if that takes longer than `longest`, `ESRCH` if it is dead. It runs then.
    pub(super) fn stop(&self, longest: Duration) -> io::Result<Stopped<'_>> {
        let end = Instant::now() + longest;
        self.signal(libc::SIGSTOP)?;
        let stopped = Stopped(self);
        while !self.is_stopped()? {
            if Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.dies_within(LOOK) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        // The threads of a zombie do not run either.
        if self.is_dead() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(stopped)
    }

    /// Waits until not one of its threads has anything to do, or `longest`.
    pub(super) fn comes_to_rest(&self, longest: Duration) -> io::Result<bool> {
        let end = Instant::now() + longest;
        while !self.all_are(&['S', 'Z', 'X'])? {
            if Instant::now() >= end || self.dies_within(LOOK) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_stopped(&self) -> io::Result<bool> {
        self.all_are(&['T', 'Z', 'X'])
    }

    /// Whether each of its threads is in one of these states.
    fn all_are(&self, states: &[char]) -> io::Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let stat = match fs::read_to_string(thread?.path().join("stat")) {
                Ok(stat) => stat,
                // One that ends meanwhile does not run either (proc(5)).
                Err(error) if is_gone(&error) => continue,
                // Whether it runs is not known then, and must not be guessed.
                Err(error) => return Err(error),
            };
            if !state(&stat).is_some_and(|state| states.contains(&state)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn signal(&self, signal: i32) -> io::Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal)
    }
}

/// It stands still while this lives.
#[derive(Debug)]
pub(super) struct Stopped<'a>(&'a Process);

impl Stopped<'_> {
    /// Kills it where it stands: none of its threads runs again.
    pub(super) fn kill(self) -> io::Result<()> {
        self.0.signal(libc::SIGKILL)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // One that is dead by now need not go on.
        let _ = self.0.signal(libc::SIGCONT);
    }
}

/// The thread of a file in `/proc` has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The state in a line of `stat`: behind the name, which is in brackets and may hold any.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

fn effective_uid(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system (proc_pid_status(5)).
    let uid = uids.and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok());
    uid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
        }

        fn state(&self) -> char {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            state(&stat).unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn state_is_found_behind_any_name() {
        assert_eq!(state("7 (cat) S 1 7"), Some('S'));
        assert_eq!(state("7 (a) T (b) R) T 1 7"), Some('T'));
        assert_eq!(state("7 ()"), None);
    }

    #[test]
    fn process_stands_still_until_the_guard_goes() {
        let sleeper = Sleeper::new();
        let process = Process::open(sleeper.0.id()).unwrap();
        let stopped = process.stop(LONG).unwrap();
        assert_eq!(sleeper.state(), 'T');
        drop(stopped);
        let end = Instant::now() + LONG;
        while sleeper.state() == 'T' {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
        assert!(!process.is_dead());
    }

    #[test]
    fn process_that_sleeps_is_at_rest_and_one_that_computes_is_not() {
        let sleeper = Sleeper::new();
        let process = Process::open(sleeper.0.id()).unwrap();
        assert!(process.comes_to_rest(LONG).unwrap());
        let busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        let busy = Sleeper(busy.unwrap());
        let process = Process::open(busy.0.id()).unwrap();
        assert!(!process.comes_to_rest(Duration::from_millis(20)).unwrap());
    }

    #[test]
    fn stopped_process_is_killed_where_it_stands() {
        let sleeper = Sleeper::new();
        let process = Process::open(sleeper.0.id()).unwrap();
        process.stop(LONG).unwrap().kill().unwrap();
        assert!(process.dies_within(LONG));
        let error = process.stop(LONG).unwrap_err();
        // A zombie can be signalled until it is collected.
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
