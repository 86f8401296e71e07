//! The load: each connection keeps as many messages in flight and checks each answer.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::reach::connect;
use crate::ready::wait;
use crate::subject::Subject;

/// Bytes of a message: a big-endian counter.
const MESSAGE: usize = 4;
/// Before the measurement: connections are accepted, memory is touched.
const WARM_UP: Duration = Duration::from_millis(200);

/// One connection: messages go out in one write, and the next ones when all have come back.
struct Client {
    stream: TcpStream,
    counter: u32,
    sent: Vec<u8>,
    received: Vec<u8>,
    filled: usize,
}

/// What one measurement finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Nanoseconds of the server's CPU time a message.
    pub(crate) cost: f64,
    /// Messages that came back in a second.
    pub(crate) rate: f64,
}

/// Measures for `length`, and for longer if the machine is so slow that no message came back
/// in that time.
pub(crate) fn measure(
    subject: &Subject,
    connections: usize,
    depth: usize,
    length: Duration,
) -> Result<Measured, Box<dyn Error>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut client = Client::connect(subject.port, depth)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&client.stream, EpollEvent::new(flags, number as u64))?;
        client.send()?;
        clients.push(client);
    }
    run(&epoll, &mut clients, WARM_UP)?;
    let (began, before) = (Instant::now(), subject.cpu()?);
    let messages = run(&epoll, &mut clients, length)? as f64;
    Ok(Measured {
        cost: (subject.cpu()? - before).as_nanos() as f64 / messages,
        rate: messages / began.elapsed().as_secs_f64(),
    })
}

/// Goes on for `length`; how many messages have come back.
fn run(epoll: &Epoll, clients: &mut [Client], length: Duration) -> Result<u64, Box<dyn Error>> {
    let start = Instant::now();
    let mut events = [EpollEvent::empty(); 256];
    let mut messages = 0;
    while start.elapsed() < length || messages == 0 {
        for event in wait(epoll, &mut events)? {
            messages += clients[event.data() as usize].go_on()?;
        }
    }
    Ok(messages)
}

impl Client {
    fn connect(port: u16, depth: usize) -> io::Result<Client> {
        let stream = connect(port)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            counter: 0,
            sent: Vec::with_capacity(depth * MESSAGE),
            received: vec![0; depth * MESSAGE],
            filled: 0,
        })
    }

    /// The next messages. They are few, and nothing else is under way: there is room.
    fn send(&mut self) -> io::Result<()> {
        self.sent.clear();
        for _ in 0..self.received.len() / MESSAGE {
            self.sent.extend_from_slice(&self.counter.to_be_bytes());
            self.counter = self.counter.wrapping_add(1);
        }
        self.filled = 0;
        self.stream.write_all(&self.sent)
    }

    /// Takes what has come; how many messages were completed by that.
    fn go_on(&mut self) -> Result<u64, Box<dyn Error>> {
        while self.filled < self.received.len() {
            match self.stream.read(&mut self.received[self.filled..]) {
                Ok(0) => return Err("the server has ended a connection".into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
        if self.received != self.sent {
            return Err("an answer is not what was sent".into());
        }
        self.send()?;
        Ok((self.received.len() / MESSAGE) as u64)
    }
}
