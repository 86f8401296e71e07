//! Any number of clients on one thread, while the test goes on with its own.
//!
//! ```text
//!   test: Peers::connect, echoes, say, fill … ── Order ──▶ crowd.rs: epoll, ticks
//!                 waits, at most BOUND        ◀── Verdict ── when its goal is reached
//! ```
//!
//! Every method that names something to be reached returns when it is. A client that fails
//! is a fault of the verdict, and no goal waits for it any longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::crowd::Crowd;
use super::{BOUND, Kind, Verdict};

/// See the file's own description. Dropped without [`Peers::finish`] it just ends.
#[derive(Debug)]
pub struct Peers {
    orders: Sender<(Order, Sender<Verdict>)>,
    waker: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the crowd is to do, and what for it answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// So many more, until all are connected.
    Add(Kind, usize),
    /// Until each client that expects answers has so many bytes more than now.
    Echo(u64),
    /// So many bytes from each half-sent client, until they are sent.
    Say(u64),
    /// Until each unread client is stuck.
    Fill,
    /// Unread clients read from now on.
    Read,
    /// So many of a kind end themselves, by RST if true; until they have.
    Leave(Kind, usize, bool),
    /// Talking clients say nothing new, until all is back; unless true.
    Talk(bool),
    /// Each completes its message, gets everything and ends.
    Finish,
    /// The server may end any of them from now on, all answers first.
    MayEnd,
    /// Until the server has ended them all.
    Farewell,
    /// What there is to tell so far.
    Look,
}

impl Peers {
    /// Connects so many of each kind, and returns when all are.
    ///
    /// # Panics
    /// If that takes longer than [`BOUND`].
    pub fn connect(to: SocketAddr, seed: u64, kinds: &[(Kind, usize)]) -> Peers {
        let waker = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let waker = Arc::new(waker.expect("an eventfd"));
        let (orders, inbox) = channel();
        let crowd = Crowd::new(to, seed, Arc::clone(&waker), inbox).expect("an epoll set");
        let peers = Peers {
            orders,
            waker,
            thread: Some(thread::spawn(|| crowd.run())),
        };
        for (kind, count) in kinds {
            peers.add(*kind, *count);
        }
        peers
    }

    /// So many more of a kind; returns when they are connected.
    pub fn add(&self, kind: Kind, count: usize) {
        self.order(Order::Add(kind, count));
    }

    /// Waits until each talking, pipelining and churning client has had so many bytes more:
    /// a service that serves everybody.
    pub fn echoes(&self, bytes: u64) {
        self.order(Order::Echo(bytes));
    }

    /// Has each half-sent client send so many bytes more; returns when they are sent.
    pub fn say(&self, bytes: u64) {
        self.order(Order::Say(bytes));
    }

    /// Waits until the buffers at both ends of each unread client are full.
    pub fn fill(&self) {
        self.order(Order::Fill);
    }

    /// Has the unread clients read.
    pub fn read(&self) {
        self.order(Order::Read);
    }

    /// Has so many of a kind end themselves, by FIN; returns when they have got the answers
    /// to all they had sent.
    pub fn leave(&self, kind: Kind, count: usize) {
        self.order(Order::Leave(kind, count, false));
    }

    /// Has so many of a kind reset their connections.
    pub fn reset(&self, kind: Kind, count: usize) {
        self.order(Order::Leave(kind, count, true));
    }

    /// Has the talking clients fall silent; returns when each has its last answer.
    pub fn hush(&self) {
        self.order(Order::Talk(false));
    }

    /// Has them talk again.
    pub fn talk(&self) {
        self.order(Order::Talk(true));
    }

    /// Has each client complete its message, get everything back and end.
    pub fn finish(self) -> Verdict {
        self.order(Order::Finish)
    }

    /// It is no fault any more if the server ends a connection after it has given all
    /// answers.
    pub fn may_end(&self) {
        self.order(Order::MayEnd);
    }

    /// Waits until the server has ended every connection, each after all its answers.
    pub fn farewell(self) -> Verdict {
        self.may_end();
        self.order(Order::Farewell)
    }

    /// What there is to tell so far.
    pub fn verdict(&self) -> Verdict {
        self.order(Order::Look)
    }

    fn order(&self, order: Order) -> Verdict {
        let (reply, answer) = channel();
        self.orders
            .send((order, reply))
            .expect("the clients' thread runs");
        self.waker.write(1).expect("an eventfd can be written");
        match answer.recv_timeout(BOUND) {
            Ok(verdict) => verdict,
            Err(error) => panic!("clients: {order:?} not reached: {error}"),
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        drop(std::mem::replace(&mut self.orders, channel().0));
        let _ = self.waker.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
