//! Child processes as sources: each one by a descriptor of its own. No other child is ever waited
//! for.
//!
//! A pidfd (pidfd_open(2)) becomes readable when its process has ended. waitid(2) with `P_PIDFD`
//! collects exactly that process. `SIGCHLD` and waitpid(-1) stay with the code that uses them: the
//! children of another library are not taken from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{self, ExitStatus};

use super::{AddError, Cx, Handle, Next, Spec};
use crate::sys;

/// A running child process, to be [added](Cx::child) to a reactor.
///
/// If it is dropped, it leaves its process alone: the process goes on. Once the process has ended
/// it remains a zombie until somebody collects it, or until the parent ends.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    pid: u32,
}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It has exited, or a signal has ended it.
    Status(ExitStatus),
    /// It has ended, and somebody else has collected its status: a waitpid(-1) elsewhere in this
    /// process, or the kernel, because `SIGCHLD` is ignored (waitpid(2), "NOTES"). The same is told
    /// if the status cannot be had for an unforeseen reason, which is logged.
    Collected,
}

impl Child {
    /// A process that std has started. Take its pipes out as usual. From here on its exit belongs
    /// to this value: std's `wait` fails, and std's `kill` may hit another process that got the
    /// same number. Use [`Child::signal`].
    ///
    /// # Errors
    /// As [`Child::from_pid`]: in particular if it was waited for already.
    pub fn of(child: &process::Child) -> io::Result<Child> {
        Child::from_pid(child.id())
    }

    /// The child with this process id. It must not have been waited for: otherwise the number may
    /// be that of another child by now.
    ///
    /// # Errors
    /// `ESRCH` if there is no such process, `ECHILD` if it is no child of this one, `EMFILE`.
    pub fn from_pid(pid: u32) -> io::Result<Child> {
        let pidfd = sys::pidfd_open(pid)?;
        sys::wait_pidfd(pidfd.as_fd(), sys::Collect::No)?;
        Ok(Child { pidfd, pid })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to this process, and never to another one.
    ///
    /// # Errors
    /// `ESRCH` if it has ended and was collected. `EINVAL` if the number is no signal. `EPERM` if
    /// it has changed its user since.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), number)
    }

    /// How it has ended; `None` while it runs.
    fn exit(&self) -> io::Result<Option<Exit>> {
        match sys::wait_pidfd(self.pidfd.as_fd(), sys::Collect::Yes) {
            Ok(status) => Ok(status.map(Exit::Status)),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(Some(Exit::Collected)),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl<S> Cx<S> {
    /// Calls `then` once `child` has ended, tells how it has ended, and drops it. It is a
    /// [local](super::Class::Local) source, so its end is not reported during a hold. [`Cx::take`]
    /// gives it back while it runs; [`Cx::get`] lends it, to be [signalled](Child::signal). Its
    /// deadline has no effect: use a timer.
    ///
    /// # Errors
    /// What epoll_ctl(2) says, together with the child; see [`AddError`].
    pub fn child(
        &mut self,
        name: &'static str,
        child: Child,
        then: impl FnOnce(&mut S, &mut Cx<S>, Exit) + 'static,
    ) -> Result<Handle<Child>, AddError<Child>> {
        let mut then = Some(then);
        self.add(Spec::local(name), child, move |child, state, cx, event| {
            let exit = match child.exit() {
                Ok(Some(exit)) => exit,
                // A pidfd is readable once its process has ended, whatever waitid(2) says: whoever
                // waits for that end must not wait for ever.
                Err(error) if event.is_readable() => {
                    log::warn!(
                        "{name}: how pid {} has ended is not told: {error}",
                        child.pid
                    );
                    Exit::Collected
                }
                Ok(None) | Err(_) => return Ok(Next::Keep),
            };
            if let Some(then) = then.take() {
                then(state, cx, exit);
            }
            Ok(Next::End)
        })
    }
}
