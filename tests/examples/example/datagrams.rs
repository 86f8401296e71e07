//! Requests over UDP on a thread of their own, a few under way at any time. Each is to be
//! answered once: a request without an answer is lost, an answer without a request is one too
//! many.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Progress;

/// Requests under way. Far below what a socket's buffer holds, so none is lost for want of
/// room while nobody reads.
const WINDOW: usize = 8;
/// An answer that has not come after this long is lost.
const LOST: Duration = Duration::from_secs(10);
/// How often the thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// See the file's own description. Dropped without [`Datagrams::finish`] it just ends.
#[derive(Debug)]
pub struct Datagrams {
    pub progress: Progress,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// `ask` makes the request of a number and the key that its answer will have; `key_of`
    /// checks an answer and says which.
    pub fn start(
        to: SocketAddr,
        ask: impl Fn(u64) -> (u64, Vec<u8>) + Send + 'static,
        key_of: impl Fn(&[u8]) -> Result<u64, String> + Send + 'static,
    ) -> Datagrams {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        Datagrams::through(socket, to, ask, key_of)
    }

    /// The same, through a socket of the caller's.
    pub fn through(
        socket: UdpSocket,
        to: SocketAddr,
        ask: impl Fn(u64) -> (u64, Vec<u8>) + Send + 'static,
        key_of: impl Fn(&[u8]) -> Result<u64, String> + Send + 'static,
    ) -> Datagrams {
        socket.connect(to).expect("an address to send to");
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let progress = Progress::default();
        let shared = progress.clone();
        Datagrams {
            progress,
            thread: Some(thread::spawn(move || talk(&socket, &shared, ask, key_of))),
        }
    }

    /// Waits for every answer that is owed.
    ///
    /// # Panics
    /// If one was lost, doubled or wrong.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.progress.stop();
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().expect("the load does not panic");
        self.progress.assert_flawless();
        self.progress.answered()
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.progress.stop();
    }
}

fn talk(
    socket: &UdpSocket,
    progress: &Progress,
    ask: impl Fn(u64) -> (u64, Vec<u8>),
    key_of: impl Fn(&[u8]) -> Result<u64, String>,
) {
    let mut under_way = HashMap::new();
    let mut number = 0;
    let mut datagram = [0; 2048];
    loop {
        let stopping = progress.is_stopping();
        while !stopping && under_way.len() < WINDOW {
            let (key, request) = ask(number);
            number += 1;
            under_way.insert(key, Instant::now());
            if let Err(error) = socket.send(&request) {
                progress.fault(format!("request {key} was not sent: {error}"));
            }
        }
        if stopping && under_way.is_empty() {
            // One too many would be here already, or come at once.
            if let Ok(length) = socket.recv(&mut datagram) {
                progress.fault(format!("answered twice: {:?}", &datagram[..length]));
            }
            return;
        }
        match socket.recv(&mut datagram) {
            Ok(length) => match key_of(&datagram[..length]) {
                Ok(key) if under_way.remove(&key).is_some() => progress.add(1),
                Ok(key) => progress.fault(format!("{key} was answered twice, or never asked")),
                Err(what) => progress.fault(what),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => progress.fault(format!("answers: {error}")),
        }
        let before = under_way.len();
        under_way.retain(|_, asked: &mut Instant| asked.elapsed() < LOST);
        for _ in under_way.len()..before {
            progress.fault("a request was never answered".into());
        }
    }
}
