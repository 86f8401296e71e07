//! Conversations over TCP, each on a thread of its own: round after round, every byte checked.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::Progress;
use crate::support::BOUND;

/// See the file's own description. Dropped without [`Exchange::finish`] it just ends.
#[derive(Debug)]
pub struct Exchange {
    pub progress: Progress,
    threads: Vec<JoinHandle<()>>,
}

impl Exchange {
    /// So many connections to `to`. `round` does one round of one of them, of which it gets
    /// the connection's number and the round's; `last` ends it.
    pub fn start<R, L>(to: SocketAddr, connections: u64, round: R, last: L) -> Exchange
    where
        R: Fn(&mut TcpStream, u64, u64) -> io::Result<()> + Send + Sync + 'static,
        L: Fn(&mut TcpStream, u64) -> io::Result<()> + Send + Sync + 'static,
    {
        let progress = Progress::default();
        let talk = Arc::new((round, last));
        let threads = (0..connections).map(|number| {
            let (talk, progress) = (Arc::clone(&talk), progress.clone());
            thread::spawn(move || {
                let (round, last) = &*talk;
                if let Err(error) = converse(to, number, &progress, round, last) {
                    progress.fault(format!("connection {number}: {error}"));
                }
            })
        });
        Exchange {
            threads: threads.collect(),
            progress,
        }
    }

    /// Lets each connection complete its round and end; returns how many rounds there were.
    ///
    /// # Panics
    /// If anything went wrong.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.progress.stop();
        for thread in self.threads.drain(..) {
            thread.join().expect("the load does not panic");
        }
        self.progress.assert_flawless();
        self.progress.answered()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.progress.stop();
    }
}

fn converse(
    to: SocketAddr,
    number: u64,
    progress: &Progress,
    round: impl Fn(&mut TcpStream, u64, u64) -> io::Result<()>,
    last: impl Fn(&mut TcpStream, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut stream = connect(to)?;
    for count in 0.. {
        if progress.is_stopping() {
            break;
        }
        round(&mut stream, number, count)?;
        progress.add(1);
    }
    last(&mut stream, number)
}

/// A connection on which nothing waits for longer than [`BOUND`].
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    Ok(stream)
}
