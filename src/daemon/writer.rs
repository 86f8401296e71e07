//! Lines to a file that may stall, without waiting for it.
//!
//! ```text
//!   push(line) ──▶ queue, ROOM bytes at most ──▶ thread ── write(2) ──▶ file
//!      no room: lost, counted                      │ error: lost, counted
//!                                                  ▼
//!              note: how many were lost here, in the file itself;  news(): for the log
//! ```
//!
//! Whatever the file is (a regular one on a disk that is frozen, a FIFO that nobody reads), only
//! the thread waits for it. It is started by the first line, so that there is none while the
//! process forks; and it holds nothing of the process but the file, see
//! [`own_table`].
//!
//! Invariants
//! - A line is whole: of one that was cut by an error the rest is lost, and the next one
//!   begins on a line of its own.
//! - Lines come in the order in which they were pushed, and what was lost is counted where it is
//!   missing.
//! - The memory that waits is bounded by [`ROOM`] and one line.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socket_takeover::sys::own_table;

use super::aside;
use pen::{Pen, Waiting};

mod pen;
#[cfg(test)]
mod tests;

/// Bytes that may wait, with what the queue itself needs for them: thousands of lines, for a
/// disk that pauses for seconds under the log of a busy service.
const ROOM: usize = 1 << 20;

/// A line that says how many others are missing at its place, line end included.
pub(super) type Note = fn(u64) -> String;

/// See the file's own description. Dropped, it lets its thread write what waits and end; the
/// descriptor stays open for the rest of the process.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    number: i32,
    note: Option<Note>,
    started: bool,
    /// Lost for want of room since the last line that was queued.
    gap: u64,
    /// Of the lost lines, as many are told; see [`Writer::news`].
    told: u64,
    warned: bool,
}

/// What is worth a line in the log.
#[derive(Debug)]
pub(super) enum News {
    /// It has begun to lose lines.
    Losing(io::Error),
    /// It takes lines again; so many were lost meanwhile.
    Back(u64),
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is a line, or there will be none any more.
    more: Condvar,
    /// What waited is written, or lost.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Entry>,
    bytes: usize,
    /// The thread has one in hand.
    busy: bool,
    closed: bool,
    lost: u64,
    /// Of the last line that was lost.
    why: Option<io::Error>,
    /// The last line before now was lost.
    losing: bool,
}

#[derive(Debug)]
struct Entry {
    /// So many were lost right before it.
    gap: u64,
    /// With its line end.
    line: Vec<u8>,
}

impl Writer {
    /// Lines to `file`, which stays open for the rest of the process. With a `note`, the file
    /// says itself how many lines are missing in it.
    pub(super) fn new(file: impl Into<OwnedFd>, note: Option<Note>) -> Writer {
        // Not owned by anything that could close it before the thread has its copy.
        Writer::to(file.into().into_raw_fd(), note)
    }

    /// The same for a descriptor that is somebody else's, such as stderr: it has to be open when
    /// the first line is pushed.
    pub(super) fn to(number: i32, note: Option<Note>) -> Writer {
        Writer {
            shared: Arc::default(),
            number,
            note,
            started: false,
            gap: 0,
            told: 0,
            warned: false,
        }
    }

    /// Queues a line, which ends with a line end; or loses and counts it.
    pub(super) fn push(&mut self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        if queue.bytes + cost(&line) > ROOM {
            self.gap += 1;
            queue.lose(io::ErrorKind::WouldBlock.into());
        } else {
            let gap = std::mem::take(&mut self.gap);
            queue.bytes += cost(&line);
            queue.lines.push_back(Entry { gap, line });
        }
        drop(queue);
        self.shared.more.notify_one();
        if !self.started {
            self.started = self.start().is_ok();
        }
    }

    /// Lines that were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.lock().is_idle()
    }

    /// Waits until nothing waits to be written, or until `end`.
    pub(super) fn flush(&self, end: Instant) {
        let longest = end.saturating_duration_since(Instant::now());
        let queue = self.shared.lock();
        let waited = self
            .shared
            .done
            .wait_timeout_while(queue, longest, |queue| !queue.is_idle());
        drop(waited);
    }

    /// What there is to tell of it, if it was not told before: one word when it begins to lose
    /// lines, and one when it is over.
    pub(super) fn news(&mut self) -> Option<News> {
        let queue = self.shared.lock();
        if !self.warned && queue.lost > self.told {
            self.warned = true;
            return queue.why.as_ref().map(|error| News::Losing(same(error)));
        }
        if self.warned && !queue.losing {
            self.warned = false;
            let lost = queue.lost - std::mem::replace(&mut self.told, queue.lost);
            return Some(News::Back(lost));
        }
        None
    }

    /// Tried again with the next line if no thread can be had; what is queued waits.
    fn start(&self) -> io::Result<()> {
        let (shared, number, note) = (Arc::clone(&self.shared), self.number, self.note);
        aside::spawn("lines", move || {
            let file = own_table(number).map(File::from);
            let mut pen = Pen::new(note);
            while let Some(entry) = shared.next() {
                let written = match &file {
                    Ok(file) => pen.write(&mut Waiting(file), &entry),
                    Err(error) => Err(same(error)),
                };
                shared.finish(written);
            }
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_one();
    }
}

impl Shared {
    /// A panic while the lock was held leaves counters behind that are right or one off: go on.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Entry> {
        let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.closed;
        let queue = self.more.wait_while(self.lock(), idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let entry = queue.lines.pop_front()?;
        queue.bytes -= cost(&entry.line);
        queue.busy = true;
        Some(entry)
    }

    fn finish(&self, written: io::Result<()>) {
        let mut queue = self.lock();
        queue.busy = false;
        match written {
            Ok(()) => queue.losing = false,
            Err(error) => queue.lose(error),
        }
        drop(queue);
        self.done.notify_all();
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.busy
    }

    fn lose(&mut self, why: io::Error) {
        self.lost += 1;
        self.why = Some(why);
        self.losing = true;
    }
}

fn cost(line: &[u8]) -> usize {
    line.len() + size_of::<Entry>()
}

/// The same error once more: io::Error has no Clone.
pub(super) fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}
