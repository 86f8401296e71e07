//! The clients of a takeover, a process of its own: open connections, and whatever load the
//! measurement asks for, a word a line on its standard input.
//!
//! | word | does | answers |
//! |---|---|---|
//! | `touch N` | a whole message on every Nth connection, once | `done` when all are answered |
//! | `split` | a byte on every connection, once | `done` |
//! | `rate N` | N messages a second from here on, one connection after the other; 0: none | `done` |
//! | `times FROM TO` | | how long each answer took whose message was sent between these two nanoseconds of CLOCK_MONOTONIC, in ns, in one line |
//!
//! Every answer is compared with what was sent; what differs ends the process, and with it the
//! measurement.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket_takeover::event::Time;

use crate::memory::used_connection;
use crate::ready::wait_until;

const ORDERS: u64 = u64::MAX;

/// A connection: what it has under way.
struct Client {
    stream: TcpStream,
    sent: [u8; 4],
    /// Bytes sent of the message, and received of its answer.
    progress: (usize, usize),
    began: Time,
}

/// All of them.
struct Crowd {
    clients: Vec<Client>,
    epoll: Epoll,
    /// When a message was sent, and how many nanoseconds later its answer was complete.
    times: Vec<(u64, u64)>,
    under_way: usize,
    /// Nanoseconds from one message to the next, when it is due, and on which connection.
    pace: Option<u64>,
    due: u64,
    next: usize,
    counter: u32,
    /// `done` is owed once nothing is under way.
    owes: bool,
}

/// Connects so many to this port, says `ready`, and obeys until its input ends.
pub(crate) fn hold(port: u16, count: usize, talks: bool) -> Result<(), Box<dyn Error>> {
    let mut crowd = Crowd {
        clients: Vec::with_capacity(count),
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        times: Vec::new(),
        under_way: 0,
        pace: None,
        due: 0,
        next: 0,
        counter: 0,
        owes: false,
    };
    for number in 0..count {
        let stream = used_connection(port, number, talks)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number as u64);
        crowd.epoll.add(&stream, event)?;
        crowd.clients.push(Client {
            stream,
            sent: [0; 4],
            progress: (0, 0),
            began: Time::ZERO,
        });
    }
    let stdin = std::io::stdin();
    let flags = OFlag::from_bits_retain(fcntl(&stdin, FcntlArg::F_GETFL)?);
    fcntl(&stdin, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    crowd
        .epoll
        .add(&stdin, EpollEvent::new(EpollFlags::EPOLLIN, ORDERS))?;
    say("ready")?;
    crowd.run(stdin.as_fd())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

impl Crowd {
    fn run(&mut self, orders: std::os::fd::BorrowedFd<'_>) -> Result<(), Box<dyn Error>> {
        let mut events = [EpollEvent::empty(); 512];
        let mut typed = Vec::new();
        loop {
            let timeout = match self.pace {
                Some(_) => EpollTimeout::from(1_u8),
                None => EpollTimeout::NONE,
            };
            let ready: Vec<u64> = wait_until(&self.epoll, &mut events, timeout)?
                .iter()
                .map(EpollEvent::data)
                .collect();
            for data in ready {
                if data == ORDERS {
                    let mut room = [0; 256];
                    match nix::unistd::read(orders, &mut room) {
                        Ok(0) => return Ok(()),
                        Ok(count) => typed.extend_from_slice(&room[..count]),
                        Err(nix::Error::EAGAIN) => {}
                        Err(error) => return Err(error.into()),
                    }
                    while let Some(end) = typed.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = typed.drain(..=end).collect();
                        self.obey(std::str::from_utf8(&line)?.trim())?;
                    }
                } else {
                    self.answered(data as usize)?;
                }
            }
            self.keep_pace()?;
            if self.owes && self.under_way == 0 {
                self.owes = false;
                say("done")?;
            }
        }
    }

    fn obey(&mut self, order: &str) -> Result<(), Box<dyn Error>> {
        let words: Vec<&str> = order.split(' ').collect();
        let number = |at: usize| -> Result<u64, Box<dyn Error>> {
            Ok(words.get(at).ok_or("a number is missing")?.parse()?)
        };
        match words[0] {
            "touch" => {
                for client in (0..self.clients.len()).step_by(number(1)? as usize) {
                    self.send(client)?;
                }
                self.owes = true;
            }
            "split" => {
                for client in &mut self.clients {
                    // The rest of it goes out with the next message.
                    let (sent, _) = &mut client.progress;
                    if *sent == 0 && client.stream.write(&client.sent[..1])? == 1 {
                        *sent = 1;
                    }
                }
                self.owes = true;
            }
            "rate" => {
                self.pace = 1_000_000_000_u64.checked_div(number(1)?);
                self.due = Time::now().as_ns();
                self.owes = true;
            }
            "times" => {
                let within = number(1)?..number(2)?;
                let found = self.times.iter().filter(|(at, _)| within.contains(at));
                let line: Vec<String> = found.map(|(_, took)| took.to_string()).collect();
                say(&line.join(" "))?;
                self.times.clear();
            }
            other => return Err(format!("there is no order {other:?}").into()),
        }
        Ok(())
    }

    /// Sends what is due, each message counted from when it was due.
    fn keep_pace(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(pace) = self.pace else {
            return Ok(());
        };
        let now = Time::now().as_ns();
        while self.due <= now {
            let at = Time::from_ns(self.due);
            self.due += pace;
            self.next = (self.next + 1) % self.clients.len();
            let next = self.next;
            // One that still waits for an answer is passed over: it is counted when that comes.
            if self.clients[next].progress == (0, 0) || self.clients[next].progress == (1, 0) {
                self.send(next)?;
                self.clients[next].began = at;
            }
        }
        Ok(())
    }

    fn send(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let client = &mut self.clients[number];
        let (sent, received) = client.progress;
        if sent == 4 {
            return Ok(()); // its answer is under way
        }
        if sent == 0 {
            self.counter = self.counter.wrapping_add(1);
            client.sent = self.counter.to_be_bytes();
        }
        client.began = Time::now();
        client.stream.write_all(&client.sent[sent..])?;
        client.progress = (4, received);
        self.under_way += 1;
        Ok(())
    }

    fn answered(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let client = &mut self.clients[number];
        let mut room = [0; 16];
        loop {
            match client.stream.read(&mut room) {
                Ok(0) => return Err("the server has ended a connection".into()),
                Ok(count) => {
                    let (sent, received) = &mut client.progress;
                    let expected = client.sent.get(*received..*received + count);
                    if *sent != 4 || expected != Some(&room[..count]) {
                        return Err("an answer is not what was sent".into());
                    }
                    *received += count;
                    if *received == 4 {
                        client.progress = (0, 0);
                        let took = Time::now().since(client.began).as_nanos() as u64;
                        self.times.push((client.began.as_ns(), took));
                        self.under_way -= 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
