//! How long quiet peers wait for an answer while another sends without end.
//!
//! The quiet ones send a message each at fixed times, spread evenly; an answer's latency counts
//! from the time at which its message was due, so that a stall counts for all whom it meets.
//! The firehose writes whatever the kernel takes and reads whatever comes. One thread is all of
//! them, quiet ones first, so that its own share of a latency is one pass: a write and a read
//! of the firehose at most, the same beside every server.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use takeover_say::say;

use crate::cli::Options;
use crate::echo::order;
use crate::figures::{median, quantile};
use crate::reach;
use crate::ready::wait_until;
use crate::servers::Server;
use crate::subject::Subject;

/// How many peers are quiet, and how often each of them sends.
const QUIET: usize = 100;
const EVERY: Duration = Duration::from_millis(20);
/// What the firehose writes or reads at once.
const CHUNK: usize = 64 * 1024;
/// Before the measurement: the firehose has filled what there is to fill.
const WARM_UP: Duration = Duration::from_millis(200);
/// A peer that gets no answer for so long ends the measurement.
const LOST: Duration = Duration::from_secs(20);

/// What one server has shown, over all rounds.
#[derive(Default)]
struct Shown {
    /// Microseconds, of each answer.
    latencies: Vec<f64>,
    /// Mebibytes a second that came back to the firehose, of each round.
    rates: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn table(options: &Options) -> Result<(), Box<dyn Error>> {
    let rounds = options.pairs;
    say!(
        "Answers to {QUIET} quiet peers that send every {} ms, in µs from when each message was \
         due, over {rounds} rounds;\nwhat the firehose got back meanwhile (median).\n",
        EVERY.as_millis(),
    )?;
    let mut alone: [Shown; Server::ALL.len()] = Default::default();
    let mut beside: [Shown; Server::ALL.len()] = Default::default();
    for round in 0..rounds {
        for which in order(Server::ALL.len(), round) {
            let server = Server::ALL[which];
            measure(server, false, options, &mut alone[which])?;
            measure(server, true, options, &mut beside[which])?;
        }
    }
    say!("| | alone p50 | p99 | max | beside a firehose p50 | p99 | max | firehose MiB/s |")?;
    say!("|---|---|---|---|---|---|---|---|")?;
    for ((server, alone), beside) in Server::ALL.iter().zip(&alone).zip(&beside) {
        let mut line = format!("| {} |", server.name());
        for shown in [alone, beside] {
            for of_a_thousand in [500, 990, 1000] {
                line += &format!(" {:.0} |", quantile(&shown.latencies, of_a_thousand));
            }
        }
        say!("{line} {:.0} |", median(&beside.rates))?;
    }
    Ok(())
}

/// One round with one server, with or without a firehose.
fn measure(
    server: Server,
    is_beside: bool,
    options: &Options,
    shown: &mut Shown,
) -> Result<(), Box<dyn Error>> {
    let subject = Subject::start(server, options)?;
    let mut crowd = Crowd::connect(subject.port)?;
    let mut firehose = is_beside
        .then(|| Firehose::connect(subject.port))
        .transpose()?;
    crowd.run(WARM_UP, firehose.as_mut())?;
    crowd.latencies.clear();
    let before = firehose.as_ref().map_or(0, |firehose| firehose.returned);
    let began = Instant::now();
    crowd.run(options.length, firehose.as_mut())?;
    let seconds = began.elapsed().as_secs_f64();
    let after = firehose.as_ref().map_or(0, |firehose| firehose.returned);
    shown
        .rates
        .push((after - before) as f64 / seconds / 1024.0 / 1024.0);
    shown.latencies.append(&mut crowd.latencies);
    Ok(())
}

/// The quiet peers.
struct Crowd {
    epoll: Epoll,
    peers: Vec<Peer>,
    /// When the next message is due, and its number.
    next: (Instant, u32),
    outstanding: usize,
    latencies: Vec<f64>,
}

struct Peer {
    stream: TcpStream,
    /// When each message was due whose answer has not come, and its number; oldest first.
    outstanding: VecDeque<(Instant, u32)>,
    /// The part of an answer that has come.
    received: Vec<u8>,
}

impl Crowd {
    fn connect(port: u16) -> io::Result<Crowd> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut peers = Vec::with_capacity(QUIET);
        for number in 0..QUIET {
            let stream = connect(port)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(&stream, EpollEvent::new(flags, number as u64))?;
            peers.push(Peer {
                stream,
                outstanding: VecDeque::new(),
                received: Vec::new(),
            });
        }
        Ok(Crowd {
            epoll,
            peers,
            next: (Instant::now(), 0),
            outstanding: 0,
            latencies: Vec::new(),
        })
    }

    /// Sends for `length`, and goes on until every message has its answer. It never sleeps: a
    /// wait's own wake-up would be most of a latency.
    fn run(
        &mut self,
        length: Duration,
        mut firehose: Option<&mut Firehose>,
    ) -> Result<(), Box<dyn Error>> {
        let mut events = [EpollEvent::empty(); QUIET];
        let end = Instant::now() + length;
        self.next.0 = Instant::now();
        loop {
            let now = Instant::now();
            if now < end {
                self.send_due(now)?;
            } else if self.outstanding == 0 {
                return Ok(());
            } else if now > end + LOST {
                return Err(format!("{} answers never came", self.outstanding).into());
            }
            for event in wait_until(&self.epoll, &mut events, EpollTimeout::ZERO)? {
                let answered = self.peers[event.data() as usize].receive(&mut self.latencies)?;
                self.outstanding -= answered;
            }
            if let Some(firehose) = &mut firehose {
                firehose.go_on()?;
            }
        }
    }

    fn send_due(&mut self, now: Instant) -> io::Result<()> {
        while self.next.0 <= now {
            let (due, number) = self.next;
            let peer = &mut self.peers[number as usize % QUIET];
            // Four bytes: there is room for hundreds of them.
            peer.stream.write_all(&number.to_be_bytes())?;
            peer.outstanding.push_back((due, number));
            self.outstanding += 1;
            self.next = (due + EVERY / QUIET as u32, number.wrapping_add(1));
        }
        Ok(())
    }
}

impl Peer {
    /// Takes what has come; how many answers were completed by that.
    fn receive(&mut self, latencies: &mut Vec<f64>) -> Result<usize, Box<dyn Error>> {
        let mut room = [0; 512];
        while let Some(read) = read(&mut self.stream, &mut room)? {
            self.received.extend_from_slice(&room[..read]);
        }
        let now = Instant::now();
        let answers = self.received.chunks_exact(4);
        let (count, rest) = (answers.len(), answers.remainder().len());
        for answer in answers {
            let (due, number) = self.outstanding.pop_front().ok_or("an answer to nothing")?;
            if answer != number.to_be_bytes() {
                return Err("an answer is not what was sent".into());
            }
            latencies.push((now - due).as_nanos() as f64 / 1000.0);
        }
        self.received.drain(..self.received.len() - rest);
        Ok(count)
    }
}

/// The one that never stops.
struct Firehose {
    stream: TcpStream,
    chunk: Vec<u8>,
    /// Bytes that came back.
    returned: u64,
}

impl Firehose {
    fn connect(port: u16) -> io::Result<Firehose> {
        Ok(Firehose {
            stream: connect(port)?,
            chunk: vec![0; CHUNK],
            returned: 0,
        })
    }

    fn go_on(&mut self) -> io::Result<()> {
        match self.stream.write(&self.chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Some(read) = read(&mut self.stream, &mut self.chunk)? {
            self.returned += read as u64;
        }
        Ok(())
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = reach::connect(port)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// How much has come, or none so far.
fn read(stream: &mut TcpStream, room: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(room) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
