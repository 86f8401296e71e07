//! Waking a reactor from other threads.
//!
//! A thread that wakes the reactor writes to an eventfd (eventfd(2)). The eventfd is never read: every write makes a new edge,
//! whatever the count (epoll(7)), and at one write a turn the count would take 10¹³ years to
//! overflow. A flag in front of it saves system calls: only the first thread that wakes before the
//! reactor has come round makes one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Cx, Handle, Next, Spec};

/// Wakes a reactor from any thread; see [`Cx::waker`]. Its copies wake the same callback.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

/// The reactor's end of a [`Waker`].
#[derive(Debug)]
pub struct WakeSource(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    event: EventFd,
    /// Set by a wake, cleared when the reactor hears it.
    rung: AtomicBool,
}

impl Waker {
    /// Makes the reactor call the callback soon, at least once from now on. The callback sees
    /// whatever this thread wrote before. Calls that come before the callback has run count as one.
    /// Without a reactor this does nothing.
    pub fn wake(&self) {
        // Even if it is rung already, the exchange makes what was written before visible to
        // whoever hears it next.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // It fails only if the count is used up, see above.
            let _ = self.0.event.write(1);
        }
    }
}

impl AsFd for WakeSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl<S> Cx<S> {
    /// Calls `callback` in the reactor's thread whenever a [`Waker`] was used since the last call.
    /// [`Next`] is as for any source. It is a [local](super::Class::Local) source: during a hold it
    /// waits, and the wake is not lost. Use the handle to [remove](Cx::remove) it.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, or `ENOSPC` at the limit of watches.
    pub fn waker<F>(
        &mut self,
        name: &'static str,
        mut callback: F,
    ) -> io::Result<(Handle<WakeSource>, Waker)>
    where
        F: FnMut(&mut S, &mut Cx<S>) -> io::Result<Next> + 'static,
    {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(Bell {
            event: EventFd::from_value_and_flags(0, flags)?,
            rung: AtomicBool::new(false),
        });
        let source = WakeSource(Arc::clone(&bell));
        let handle = self.add(
            Spec::local(name),
            source,
            move |source, state, cx, event| {
                // Silenced before the callback looks at anything: what comes after rings anew.
                let rung = source.0.rung.swap(false, Ordering::AcqRel);
                if rung || event.is_resumed() {
                    callback(state, cx)
                } else {
                    Ok(Next::Keep)
                }
            },
        )?;
        Ok((handle, Waker(bell)))
    }
}
