//! A server that misbehaves on demand, and a way to run the client against it.
#![allow(dead_code)] // each test binary uses a part of it

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// What a [`Server`] does with the messages of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Echoes what it reads, as it reads it.
    Echo,
    /// Does not answer this message.
    Lose(u32),
    /// Answers this message twice.
    Double(u32),
    /// Answers this message after the next one.
    Swap(u32),
    /// Flips the highest bit of this message.
    Corrupt(u32),
    /// Answers this message with its last three bytes.
    Cut(u32),
    /// Answers this message with a byte too much before it.
    Pad(u32),
    /// Answers nothing from this message on.
    Stall(u32),
    /// Does nothing for this time before it answers this message.
    Nap(u32, Duration),
    /// Ends the connection at this message.
    Close(u32),
    /// Breaks the connection at this message.
    Reset(u32),
}

/// What was seen of one connection: the length of each read, whatever the habit.
pub(crate) type Reads = Vec<usize>;

/// A server on a port of its own, as long as the test runs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Reads>>>,
}

impl Server {
    /// Has every connection served by `habit`.
    pub(crate) fn start(habit: Habit) -> Self {
        Self::start_with(move |_| Some(habit))
    }

    /// Has the n-th connection served by `habit(n)`; `None` closes the listener, and that
    /// connection.
    pub(crate) fn start_with(habit: impl Fn(usize) -> Option<Habit> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let Some(habit) = habit(index) else { return };
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                all.lock().unwrap().push(Reads::new());
                let all = Arc::clone(&all);
                thread::spawn(move || serve(stream, habit, |n| all.lock().unwrap()[index].push(n)));
            }
        });
        Self { address, seen }
    }

    /// The reads of each connection so far.
    pub(crate) fn seen(&self) -> Vec<Reads> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, habit: Habit, mut saw: impl FnMut(usize)) {
    let mut buffer = [0; 16 * 1024];
    let mut bytes: Vec<u8> = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        saw(count);
        if habit == Habit::Echo {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
            continue;
        }
        bytes.extend_from_slice(&buffer[..count]);
        let whole = bytes.len() / 4 * 4;
        for word in bytes.drain(..whole).collect::<Vec<u8>>().chunks(4) {
            let number = u32::from_be_bytes(word.try_into().unwrap());
            let answer: Vec<u8> = match habit {
                Habit::Lose(n) if n == number => vec![],
                Habit::Double(n) if n == number => [word, word].concat(),
                Habit::Swap(n) if n == number => {
                    held = word.to_vec();
                    vec![]
                }
                Habit::Swap(n) if n + 1 == number => [word, &held].concat(),
                Habit::Corrupt(n) if n == number => {
                    vec![word[0] ^ 0x80, word[1], word[2], word[3]]
                }
                Habit::Cut(n) if n == number => word[1..].to_vec(),
                Habit::Pad(n) if n == number => [&[0xee], word].concat(),
                Habit::Stall(n) if n <= number => vec![],
                Habit::Nap(n, time) if n == number => {
                    thread::sleep(time);
                    word.to_vec()
                }
                Habit::Close(n) if n == number => {
                    // Then all that comes is read, so that the close is no reset.
                    stream.shutdown(Shutdown::Write).unwrap();
                    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
                    return;
                }
                Habit::Reset(n) if n == number => {
                    // A close with bytes unread is a reset (RFC 2525, 2.17), and once this
                    // peek returns there are some.
                    let _ = stream.peek(&mut buffer);
                    return;
                }
                _ => word.to_vec(),
            };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// The client's command line for a server.
pub(crate) fn client(address: SocketAddr, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_takeover-client"));
    command.arg("-a").arg(address.ip().to_string());
    command.arg("-p").arg(address.port().to_string());
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Verdict {
    pub(crate) fn of(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let line = stdout.lines().last().unwrap_or_default();
        Self {
            code: output.status.code().expect("the client was killed"),
            json: serde_json::from_str(line).unwrap_or(Value::Null),
            stderr: String::from_utf8(output.stderr).unwrap(),
            stdout,
        }
    }

    /// The number behind a key of the JSON verdict.
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.json[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} in {self:?}"))
    }

    /// The keys that made it fail.
    pub(crate) fn failures(&self) -> Vec<&str> {
        let list = self.json["failures"]
            .as_array()
            .unwrap_or_else(|| panic!("{self:?}"));
        list.iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// Checks what holds for every run, good or bad.
    pub(crate) fn adds_up(&self) {
        let accounted = self.count("received") + self.count("lost") + self.count("damaged");
        assert_eq!(self.count("sent"), accounted, "{self:?}");
        assert_eq!(
            self.code,
            i32::from(!self.failures().is_empty()),
            "{self:?}"
        );
    }
}

/// Runs the client with `--json` to its end.
pub(crate) fn run(address: SocketAddr, words: &str) -> Verdict {
    let output = client(address, words).arg("--json").output().unwrap();
    let verdict = Verdict::of(output);
    println!("{words}: {verdict:#?}"); // shown if the test fails: the seed is in it
    verdict
}
