//! Waiting on an epoll set: what the floor, the loads and the bare dispatch have in common.

use std::io;

use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

/// Waits for at least one event.
pub(crate) fn wait<'a>(
    epoll: &Epoll,
    events: &'a mut [EpollEvent],
) -> io::Result<&'a [EpollEvent]> {
    wait_until(epoll, events, EpollTimeout::NONE)
}

/// Waits for at least one event, or until the time is up.
pub(crate) fn wait_until<'a>(
    epoll: &Epoll,
    events: &'a mut [EpollEvent],
    timeout: EpollTimeout,
) -> io::Result<&'a [EpollEvent]> {
    loop {
        match epoll.wait(events, timeout) {
            Ok(ready) => return Ok(&events[..ready]),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
