//! Signals as a source: only those asked for, and no handler.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys;

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalInfo {
    /// Its number, as in signal(7).
    pub signo: i32,
    /// The process that sent it; 0 if the kernel did.
    pub pid: u32,
}

/// A source that reads signals instead of being interrupted by them (signalfd(2)).
///
/// The signals are blocked in the calling thread. So make this before other threads start;
/// otherwise a signal to the process may go to one of those. When it is dropped it unblocks what it
/// has blocked itself, which is why it stays in its thread. A process that is started meanwhile
/// inherits the blocked signals (signal(7)), unless [`Signals::unblock_in`] is called for it.
///
/// Several signals of one number that arrive before one is read count as one.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// What was not blocked before.
    blocked: SigSet,
    in_thread: PhantomData<*const ()>,
}

impl Signals {
    /// Asks for the signals with these numbers.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no standard signal, and for `SIGKILL` and `SIGSTOP`,
    /// which no process can receive. `EMFILE`, `ENFILE` or `ENOMEM`. The mask is then as before.
    pub fn new(numbers: &[i32]) -> io::Result<Signals> {
        let mut wanted = SigSet::empty();
        for &number in numbers {
            match Signal::try_from(number) {
                Ok(Signal::SIGKILL | Signal::SIGSTOP) | Err(_) => {
                    let reason = format!("signal {number} cannot be received");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
                }
                Ok(signal) => wanted.add(signal),
            }
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&wanted, flags)?;
        let before = wanted.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let mut blocked = SigSet::empty();
        for signal in wanted.iter().filter(|&signal| !before.contains(signal)) {
            blocked.add(signal);
        }
        Ok(Signals {
            fd,
            blocked,
            in_thread: PhantomData,
        })
    }

    /// Gives the process that `command` starts the mask from before. Otherwise nobody could end
    /// that process by one of these signals.
    pub fn unblock_in(&self, command: &mut Command) {
        sys::unblock_signals_in(command, self.blocked);
    }

    /// The next signal that has arrived, or `None`.
    ///
    /// # Errors
    /// What read(2) says, which for a signalfd is nothing.
    pub fn read(&mut self) -> io::Result<Option<SignalInfo>> {
        let info = self.fd.read_signal()?;
        Ok(info.map(|info| SignalInfo {
            // Signal numbers end at 64.
            signo: info.ssi_signo as i32,
            pid: info.ssi_pid,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // It fails only for an invalid argument, which a set of signals is not.
        let _ = self.blocked.thread_unblock();
    }
}
