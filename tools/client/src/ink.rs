//! Lines to a file, written while the load goes on, whatever the file does.
//!
//! ```text
//!   open: a thread opens it and writes the first line; not done within PATIENCE: refused
//!   line ──▶ queue, QUEUE lines at most ──▶ thread ── write(2) ──▶ file
//!              full: lost, counted            error: the end of the file
//!   finish: waits for the thread, PATIENCE at most
//! ```
//!
//! A disk that stalls, or a FIFO whose reader hangs, would otherwise hold up the load, and be
//! measured as a gap of the server's.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::thread;
use std::time::Duration;

/// Lines that may wait: those of half a minute, and less than a MiB.
const QUEUE: usize = 4_096;
/// How long a file is waited for before and behind the load.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the file's own description.
#[derive(Debug)]
pub struct Ink {
    /// Until the first line after the load has begun: a second thread would make each growth of
    /// the descriptor table wait while the connections are made (`fs/file.c`, `expand_fdtable`).
    file: Option<File>,
    lines: Option<SyncSender<String>>,
    done: Option<Receiver<io::Result<()>>>,
    lost: u64,
}

impl Ink {
    /// A file that begins with this line.
    ///
    /// # Errors
    /// Those of making the file and of the write; `TimedOut` if that takes too long.
    pub fn open(path: &Path, first: String) -> io::Result<Ink> {
        let (tell, told) = channel();
        let path = path.to_owned();
        thread::Builder::new().spawn(move || {
            let opened = File::create(path).and_then(|mut file| {
                file.write_all(first.as_bytes())?;
                Ok(file)
            });
            // Nobody waits any more if it took too long.
            let _ = tell.send(opened);
        })?;
        let file = wait(&told, "nobody reads it, or its disk does not answer")?;
        Ok(Ink {
            file: Some(file),
            lines: None,
            done: None,
            lost: 0,
        })
    }

    /// A line, with its end.
    pub fn line(&mut self, line: String) {
        if let Some(file) = self.file.take() {
            self.start(file);
        }
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            // What ended the thread is told by it.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) => {}
            Some(Err(TrySendError::Full(_))) | None => self.lost += 1,
        }
    }

    /// Nothing follows.
    ///
    /// # Errors
    /// What went wrong first with the file, or how many lines it did not take.
    pub fn finish(mut self) -> io::Result<()> {
        self.lines = None;
        if let Some(done) = &self.done {
            wait(done, "its reader or disk hangs, its end is missing")?;
        }
        match self.lost {
            0 => Ok(()),
            lost => Err(io::Error::other(format!("{lost} lines were not taken"))),
        }
    }

    /// Without a thread lines are lost.
    fn start(&mut self, mut file: File) {
        let (lines, queue) = sync_channel::<String>(QUEUE);
        let (tell, done) = channel();
        let spawned = thread::Builder::new().spawn(move || {
            let mut queue = queue.into_iter();
            let written = queue.try_for_each(|line| file.write_all(line.as_bytes()));
            let _ = tell.send(written);
        });
        if spawned.is_ok() {
            (self.lines, self.done) = (Some(lines), Some(done));
        }
    }
}

fn wait<T>(told: &Receiver<io::Result<T>>, why: &str) -> io::Result<T> {
    match told.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(io::Error::new(ErrorKind::TimedOut, why))
        }
    }
}
