//! The clients of [`super::Peers`], on their own thread.
//!
//! One turn: sockets that are ready, a tick if it is time, new orders, new connections, and
//! an answer to every order whose goal is reached.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::Verdict;
use super::peer::{After, Kind, Peer, State};
use super::peers::Order;
use super::random::Random;

/// How often a talking client says something.
const TICK: Duration = Duration::from_millis(10);
/// A client whose socket has taken nothing for so long is stuck: the buffers at both ends
/// are full. There is nothing that would say so.
const STUCK: Duration = Duration::from_millis(250);
/// Connections that are being made at the same time.
const WAVE: usize = 500;
/// The waker's place among the clients.
const WAKER: u64 = u64::MAX;

/// What an order waits for.
#[derive(Debug)]
enum Goal {
    /// These clients are connected, or have failed.
    Connected,
    /// Each of these clients has received so much, or is gone.
    Received(HashMap<usize, u64>),
    /// The half-sent clients have sent what they were told to.
    Said,
    Stuck,
    Silent,
    /// These clients are gone.
    Gone(Vec<usize>),
    Nothing,
}

/// See the file's own description.
pub(super) struct Crowd {
    to: SocketAddr,
    random: Random,
    epoll: Epoll,
    waker: Arc<EventFd>,
    inbox: Receiver<(Order, Sender<Verdict>)>,
    /// The place of a client that is gone stays empty.
    peers: Vec<Option<Peer>>,
    /// Received by those who came and went at each place.
    before: Vec<u64>,
    /// Still to be connected.
    waiting: Vec<Kind>,
    connecting: usize,
    goals: Vec<(Goal, Sender<Verdict>)>,
    verdict: Verdict,
    talking: bool,
    /// Churning clients do not come back.
    finishing: bool,
    /// The server may end them now.
    farewell: bool,
}

impl Crowd {
    pub(super) fn new(
        to: SocketAddr,
        seed: u64,
        waker: Arc<EventFd>,
        inbox: Receiver<(Order, Sender<Verdict>)>,
    ) -> io::Result<Crowd> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(waker.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        Ok(Crowd {
            to,
            random: Random::new(seed),
            epoll,
            waker,
            inbox,
            peers: Vec::new(),
            before: Vec::new(),
            waiting: Vec::new(),
            connecting: 0,
            goals: Vec::new(),
            verdict: Verdict::default(),
            talking: true,
            finishing: false,
            farewell: false,
        })
    }

    /// Until nobody can give orders any more.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        let mut tick = Instant::now();
        loop {
            let left = tick.saturating_duration_since(Instant::now());
            // Rounded up, or the last fraction of a millisecond is spent spinning.
            let timeout = EpollTimeout::from(left.as_micros().div_ceil(1000) as u16);
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            for event in &events[..ready] {
                if event.data() == WAKER {
                    self.waker.read().expect("an eventfd can be read");
                } else {
                    self.serve(event.data() as usize, Peer::ready);
                }
            }
            let now = Instant::now();
            if now >= tick {
                self.verdict.late = self.verdict.late.max(now - tick);
                tick = now + TICK;
                self.tick();
            }
            loop {
                match self.inbox.try_recv() {
                    Ok((order, reply)) => {
                        let goal = self.obey(order);
                        self.goals.push((goal, reply));
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.connect_some();
            self.judge_goals();
        }
    }

    /// Lets one client do something, and looks after what comes of it.
    fn serve(&mut self, at: usize, act: impl FnOnce(&mut Peer) -> io::Result<After>) {
        let Some(peer) = &mut self.peers[at] else {
            return;
        };
        let was_connecting = peer.state == State::Connecting;
        let after = act(peer);
        if was_connecting && (after.is_err() || peer.state != State::Connecting) {
            self.connecting -= 1;
            self.verdict.connections += 1;
        }
        let expected = match &after {
            Ok(After::Wait) => {
                let mut interest = EpollFlags::empty();
                interest.set(EpollFlags::EPOLLIN, peer.reading);
                interest.set(EpollFlags::EPOLLOUT, peer.wants_room());
                let mut event = EpollEvent::new(interest, at as u64);
                self.epoll
                    .modify(&peer.stream, &mut event)
                    .expect("it is in the set");
                return;
            }
            Ok(After::Over) => true,
            Err(_) => self.farewell && peer.state == State::Ended && peer.is_even(),
        };
        if let Err(error) = &after
            && !expected
        {
            self.verdict.wrong += u64::from(error.kind() == ErrorKind::InvalidData);
            self.verdict.fault(format!(
                "client {at} {:?}, {:?}, sent {}, received {}: {error}",
                peer.kind, peer.state, peer.sent, peer.received
            ));
        }
        self.retire(at);
    }

    /// One life is over; a churning client begins another.
    fn retire(&mut self, at: usize) {
        let Some(peer) = self.peers[at].take() else {
            return;
        };
        self.before[at] += peer.received;
        self.verdict.checked += peer.received;
        self.verdict.longest = self.verdict.longest.max(peer.longest);
        let comes_back = matches!(peer.kind, Kind::Churning | Kind::Resetting);
        let kind = peer.kind;
        // Closing takes it out of the epoll set.
        drop(peer);
        if comes_back && !self.finishing && self.verdict.faults == 0 {
            self.open(at, kind);
        }
    }

    fn tick(&mut self) {
        if !self.talking || self.finishing {
            return;
        }
        for at in 0..self.peers.len() {
            if self.peers[at].as_mut().is_some_and(Peer::talk) {
                self.serve(at, Peer::ready);
            }
        }
    }

    fn connect_some(&mut self) {
        while self.connecting < WAVE
            && let Some(kind) = self.waiting.pop()
        {
            self.peers.push(None);
            self.before.push(0);
            self.open(self.peers.len() - 1, kind);
        }
    }

    fn open(&mut self, at: usize, kind: Kind) {
        let key = self.random.bits();
        let opened = Peer::connect(self.to, kind, key).and_then(|peer| {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, at as u64);
            self.epoll.add(&peer.stream, event)?;
            Ok(peer)
        });
        match opened {
            Ok(peer) => {
                self.connecting += 1;
                self.peers[at] = Some(peer);
            }
            Err(error) => self.verdict.fault(format!("client {at} {kind:?}: {error}")),
        }
    }

    fn obey(&mut self, order: Order) -> Goal {
        match order {
            Order::Add(kind, count) => {
                self.waiting.extend(std::iter::repeat_n(kind, count));
                Goal::Connected
            }
            Order::Echo(bytes) => {
                let goals = self.places(|peer| {
                    matches!(
                        peer.kind,
                        Kind::Talking | Kind::Pipelining | Kind::Churning | Kind::Resetting
                    )
                });
                let goal = |at: usize| (at, self.received(at).unwrap_or(0) + bytes);
                Goal::Received(goals.into_iter().map(goal).collect())
            }
            Order::Say(bytes) => {
                for at in self.places(|peer| peer.kind == Kind::HalfSent) {
                    self.serve(at, |peer| {
                        peer.say(bytes);
                        peer.ready()
                    });
                }
                Goal::Said
            }
            Order::Fill => Goal::Stuck,
            Order::Read => {
                for at in self.places(|peer| peer.kind == Kind::Unread) {
                    self.serve(at, |peer| {
                        peer.reading = true;
                        peer.ready()
                    });
                }
                Goal::Nothing
            }
            Order::Leave(kind, count, reset) => {
                let mut places = self.places(|peer| peer.kind == kind);
                places.truncate(count);
                for at in &places {
                    self.serve(*at, |peer| peer.leave(reset));
                }
                Goal::Gone(places)
            }
            Order::Talk(talking) => {
                self.talking = talking;
                if talking { Goal::Nothing } else { Goal::Silent }
            }
            Order::Finish => {
                self.finishing = true;
                let places = self.places(|_| true);
                for at in &places {
                    self.serve(*at, |peer| {
                        peer.finish();
                        match peer.state {
                            State::Connecting => Ok(After::Wait),
                            _ => peer.ready(),
                        }
                    });
                }
                Goal::Gone(places)
            }
            Order::MayEnd => {
                self.farewell = true;
                self.finishing = true;
                Goal::Nothing
            }
            Order::Farewell => Goal::Gone(self.places(|_| true)),
            Order::Look => Goal::Nothing,
        }
    }

    fn places(&self, which: impl Fn(&Peer) -> bool) -> Vec<usize> {
        let at = |at: &usize| self.peers[*at].as_ref().is_some_and(&which);
        (0..self.peers.len()).filter(at).collect()
    }

    /// What came back at this place, whoever was there; `None` if it is empty now.
    fn received(&self, at: usize) -> Option<u64> {
        let peer = self.peers[at].as_ref()?;
        Some(self.before[at] + peer.received)
    }

    fn is_reached(&self, goal: &Goal) -> bool {
        let all = |kind: Kind, is: &dyn Fn(&Peer) -> bool| {
            let mut peers = self.peers.iter().flatten();
            peers.all(|peer| peer.kind != kind || is(peer))
        };
        match goal {
            Goal::Connected => self.waiting.is_empty() && self.connecting == 0,
            Goal::Received(goals) => goals
                .iter()
                .all(|(at, goal)| self.received(*at).is_none_or(|received| received >= *goal)),
            Goal::Said => all(Kind::HalfSent, &|peer| !peer.wants_room()),
            Goal::Stuck => all(Kind::Unread, &|peer| peer.moved.elapsed() > STUCK),
            Goal::Silent => all(Kind::Talking, &Peer::is_even),
            Goal::Gone(places) => places.iter().all(|at| self.peers[*at].is_none()),
            Goal::Nothing => true,
        }
    }

    /// The verdict, with what those who are still here have seen.
    fn so_far(&self) -> Verdict {
        let mut verdict = self.verdict.clone();
        for peer in self.peers.iter().flatten() {
            verdict.checked += peer.received;
            verdict.longest = verdict.longest.max(peer.longest);
        }
        verdict
    }

    fn judge_goals(&mut self) {
        let goals = std::mem::take(&mut self.goals);
        for (goal, reply) in goals {
            if self.is_reached(&goal) {
                // A test that has given up needs no answer.
                let _ = reply.send(self.so_far());
            } else {
                self.goals.push((goal, reply));
            }
        }
    }
}
