//! What a failed accept(2) asks for, and how long to pause.
//!
//! accept(2) passes on errors of the new socket and of security modules, and its manual page warns
//! that kernels return others than those it lists. So only an answer that is final ends a listener,
//! and only if the listener itself agrees. After any other answer it is worth trying again.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use crate::event::Time;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// The longest pause: a client waits this long at most after descriptors are free again.
const LONGEST: Duration = Duration::from_millis(640);

/// The failures of accept(2), sorted by what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFailure {
    /// Nobody is waiting: keep the listener, the next one makes an edge.
    Drained,
    /// This client has gone, or its network has failed, before it was accepted: try the next. If
    /// nothing else comes for a whole [budget](crate::event::Cx::budget), pause as for `Exhausted`.
    PeerGone,
    /// No descriptor or no memory is left, or the reason is not known here: try again
    /// later, by a deadline.
    Exhausted,
    /// The listener itself is unusable.
    Broken,
}

impl AcceptFailure {
    /// Sorts an error as accept(2) describes it, with the network errors that Linux passes on
    /// from the new socket. `Broken` is what is no descriptor, no socket or no listener;
    /// [`AcceptFailure::judge`] also asks the listener.
    pub fn of(error: &io::Error) -> AcceptFailure {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => AcceptFailure::Drained,
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => AcceptFailure::PeerGone,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL) => AcceptFailure::Broken,
            _ => AcceptFailure::Exhausted,
        }
    }

    /// As [`AcceptFailure::of`], but a listener is broken only if it does not listen
    /// (socket(7), `SO_ACCEPTCONN`): another holder of it has shut it down, or it was closed by
    /// force.
    pub fn judge(listener: impl AsFd, error: &io::Error) -> AcceptFailure {
        match AcceptFailure::of(error) {
            AcceptFailure::Broken if listens(listener) => AcceptFailure::Exhausted,
            other => other,
        }
    }

    /// Whether this is no failure that accept(2) is known for: it is worth a count and a line,
    /// for somebody to find out what it is.
    pub fn is_unforeseen(error: &io::Error) -> bool {
        match AcceptFailure::of(error) {
            AcceptFailure::Drained | AcceptFailure::PeerGone => false,
            AcceptFailure::Exhausted => !matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
            ),
            AcceptFailure::Broken => true,
        }
    }
}

/// Whether something could not be had for want of descriptors, memory or epoll watches: it may be
/// had later.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let is_known = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
    );
    // Of `ENOMEM` and `ENOSPC` the kind is left where the reactor has said it in its own words.
    is_known
        || matches!(
            error.kind(),
            ErrorKind::OutOfMemory | ErrorKind::StorageFull
        )
}

/// Whether it is a socket that listens.
pub(super) fn listens(socket: impl AsFd) -> bool {
    getsockopt(&socket, sockopt::AcceptConn) == Ok(true)
}

/// How long a listener pauses, and how often it had to.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    last: Duration,
    pauses: u64,
}

impl Backoff {
    /// When to try again: in 10 ms, then twice as long each time, up to 640 ms.
    pub fn next(&mut self, now: Time) -> Time {
        self.last = (self.last * 2).clamp(FIRST, LONGEST);
        self.pauses += 1;
        now + self.last
    }

    /// Somebody was accepted: the next pause is short again.
    pub fn reset(&mut self) {
        self.last = Duration::ZERO;
    }

    /// How many pauses there were.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn pauses_in_a_row_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let mut pauses: Vec<u128> = Vec::new();
        for _ in 0..8 {
            pauses.push(backoff.next(Time::ZERO).since(Time::ZERO).as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 640]);
        backoff.reset();
        assert_eq!(backoff.next(Time::ZERO), Time::ZERO + FIRST);
        assert_eq!(backoff.pauses(), 9);
    }

    #[test]
    fn failures_are_sorted_by_what_to_do() {
        let of = |number| AcceptFailure::of(&io::Error::from_raw_os_error(number));
        assert_eq!(of(libc::EWOULDBLOCK), AcceptFailure::Drained);
        assert_eq!(of(libc::ECONNABORTED), AcceptFailure::PeerGone);
        assert_eq!(of(libc::EMFILE), AcceptFailure::Exhausted);
        assert_eq!(of(libc::EINVAL), AcceptFailure::Broken);
    }

    /// Every number that there may ever be, and an error without one.
    #[test]
    fn nothing_but_three_answers_ends_a_listener() {
        let for_good = [libc::EBADF, libc::ENOTSOCK, libc::EINVAL];
        for number in 1..4096 {
            let error = io::Error::from_raw_os_error(number);
            let is_broken = AcceptFailure::of(&error) == AcceptFailure::Broken;
            assert_eq!(is_broken, for_good.contains(&number), "{error}");
        }
        let without = io::Error::other("a surprise");
        assert_eq!(AcceptFailure::of(&without), AcceptFailure::Exhausted);
        for (number, unforeseen) in [
            (libc::EACCES, true),
            (libc::EPROTONOSUPPORT, true),
            (libc::EINVAL, true),
            (libc::EMFILE, false),
            (libc::EPROTO, false),
            (libc::EAGAIN, false),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(AcceptFailure::is_unforeseen(&error), unforeseen, "{error}");
        }
    }

    #[test]
    fn listener_is_asked_before_it_is_called_broken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let invalid = io::Error::from_raw_os_error(libc::EINVAL);
        let judged = AcceptFailure::judge(&listener, &invalid);
        assert_eq!(judged, AcceptFailure::Exhausted);
        shutdown(listener.as_raw_fd(), Shutdown::Read).unwrap();
        let judged = AcceptFailure::judge(&listener, &invalid);
        assert_eq!(judged, AcceptFailure::Broken);
    }
}
