//! A single-threaded event loop and a live takeover: a running daemon hands its listener, every
//! connection, its state and its timers to a successor in one atomic step, and no client notices.
//!
//! # Why
//! A daemon that is restarted loses its connections and everything that was said on them. If only
//! the listener is passed on, only later clients are saved. Here everything moves: sockets with
//! their queues, bytes that were read and not yet understood, the application's state, and its
//! deadlines. Either all of it changes hands at once, or nothing has happened and the old process
//! serves on. For that the loop has to know at any moment who may act on a descriptor. This is why
//! loop and takeover come together.
//!
//! # A first loop
//! ```
//! use socket_takeover::event::{Class, Config, Reactor};
//! use std::time::Duration;
//!
//! let mut reactor = Reactor::new(Config::default())?;
//! let soon = reactor.cx().now() + Duration::from_millis(2);
//! reactor.cx().timer(Class::Item, "soon", soon, |calls: &mut u32, cx| {
//!     *calls += 1;
//!     cx.stop();
//!     None // and not again
//! });
//! let mut calls = 0; // the application's state, which every callback gets
//! reactor.run(&mut calls)?;
//! assert_eq!(calls, 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | to learn | read |
//! |---|---|
//! | what a word means | [Words](#words) |
//! | a loop with a socket, and all its verbs | [`event`](event#a-first-loop) |
//! | who owns a source, and what a handle is | [`event`, Ownership](event#ownership) |
//! | what runs before what | [`event`, A turn](event#a-turn), [Edges](event#edges) |
//! | what is promised, each promise with its test | [`event`, The contract](event#the-contract) |
//! | how to take sources out, one or all | [`event`, Taking sources out](event#taking-sources-out) |
//! | how to run it inside of a loop that you have | [`event`, In another loop](event#in-another-loop), [`takeover`, A loop of your own](takeover#a-loop-of-your-own) |
//! | a whole daemon that can be taken over | [`takeover`](takeover#what-you-do) |
//! | what becomes of your own state | [`takeover`, Your own state](takeover#your-own-state), [Output that waits](takeover#output-that-waits) |
//! | how two releases work together | [`takeover`, Versions of state](takeover#versions-of-state) |
//! | who starts the successor, and what each exit code means | [`takeover`, In production](takeover#in-production) |
//!
//! # To depend on it
//! By path, or by `git`:
//!
//! ```toml
//! [dependencies]
//! socket-takeover = { path = "../socket-takeover", default-features = false }
//! ```
//!
//! | feature | default | |
//! |---|---|---|
//! | `daemon` | yes | what the service program needs (getopts, syslog); nothing in this library needs it |
//! | `failpoints` | no | for tests: an environment variable makes a process die, stop or panic in the middle of a takeover |
//!
//! It brings mio, nix, slab, libc and log. It needs Rust 1.88, Linux and a mounted `/proc`. A
//! takeover needs Linux 5.3 or later, because it identifies the other process by a pidfd; an older
//! kernel is refused at the start. How the tests are run on other
//! kernels is told in `docs/kernels.md`:
//!
//! | before Linux | |
//! |---|---|
//! | 6.16 | descriptors that a caller at PATH sends are received and closed at once; later kernels refuse them (`SO_PASSRIGHTS`) |
//! | 6.5 | the pidfd is opened by process id, and then checked to be the right one. There is none for a process in another pid namespace: its death is judged by the channel and by deadlines, and a taker that hangs there cannot be killed. A lease that is a semaphore (eventfd(2)) is not told from a right one; it is read in the same way. Neither is there a pidfd for one that has hung up before it was opened |
//! | 6.2 | open descriptors are counted by a list of `/proc/self/fd`, in place of its size |
//! | 5.14 | a taker in another network namespace is not noticed, and so not refused (`SO_NETNS_COOKIE`) |
//! | 5.6 | the service takes over the original C program without copies of its sockets (`pidfd_getfd`) |
//! | 5.4 | there is no [`event::Child`] (`waitid`, `P_PIDFD`) |
//!
//! Where these pages say *logged*, the line goes to the `log` crate. It is lost unless the
//! application has set a logger. Names under `docs/`, `examples/` and `tests/` are files of the
//! repository.
//!
//! # Words
//! One word for each thing, in code, log and docs.
//!
//! *The two processes*
//!
//! | word | meaning |
//! |---|---|
//! | donor | the running process; it hands everything over |
//! | taker | the process that takes over. Once it owns it is the *new owner*, and the donor of the next takeover. *Successor* is the same process, as an operator sees it |
//! | owner | the one process that may do I/O on the items |
//! | orphan | a donor whose new owner died before it had said that it serves: the donor owns again, ends its copies of the connections, and serves new clients |
//! | generation | how many takeovers there were since the cold start |
//!
//! *What moves*
//!
//! | word | meaning |
//! |---|---|
//! | item | anything that is handed over: a descriptor with its state, or state alone |
//! | listener | an item: the socket that accepts connections |
//! | peer | an item: one connection of a client |
//! | state | the bytes that the application saves for one item |
//! | changed (dirty) | the item's state may differ from what the taker was last told |
//! | decline | the taker does not take an item, because it does not know its kind or state version; the donor keeps the item and serves it to its end (*drain*) |
//!
//! *Between the two*
//!
//! | word | meaning |
//! |---|---|
//! | PATH | the name of the Unix socket at which the owner offers a takeover; the process that changes PATH locks PATH.lock |
//! | channel | the connection between donor and taker: a Unix socket of type SOCK_SEQPACKET |
//! | record | one message on the channel |
//! | batch | the records up to one that asks for an acknowledgement (ACK) |
//! | lease | an eventfd that both hold, one for each attempt; the side that reads its 1 owns the items |
//! | grant, claim, revoke | the donor writes the 1; the taker reads it; the donor reads it back |
//!
//! *Phases and steps, in their order*
//!
//! | word | meaning |
//! |---|---|
//! | AcceptChannel | the donor checks who calls and what the caller can do |
//! | preload | the donor serves, and sends every item with its state; then, in rounds, what has changed |
//! | HoldPeers | the donor asks the taker to empty its epoll set (PREPARE), and waits for DRAINED |
//! | LastTurn | the donor serves one more complete turn |
//! | hold | the donor stops serving its items: it no longer polls them |
//! | freeze | the time in which nobody serves: from the hold to the first turn of the new owner, or to the resume |
//! | SendFdArray | the donor sends the *final array*: what was closed, opened or changed since the preload |
//! | ReadLease | after the grant something looks wrong: the donor reads the lease to learn who owns |
//! | resume | the donor serves its items again, after a failed attempt (*rollback*) |
//! | AwaitActive | the taker owns and has not yet said so; the donor stays held until it hears ACTIVE, or knows that the owner is dead |
//! | Release | the donor closes its copies of what was handed over, and exits |
//!
//! *The reactor*
//!
//! | word | meaning |
//! |---|---|
//! | source | a descriptor with its callback, owned by the reactor |
//! | turn | one pass of the loop: wait, timers, callbacks, deferred calls |
//! | edge | the kernel reports that something *became* ready, and does so once (epoll(7), `EPOLLET`) |
//! | budget | how often a callback may read or write before others have their turn |
//! | resume queue | the sources that have used up their budget and go on in the next turn |
//! | run | a mark on an item's state: the new owner calls the item once without waiting for an event |
//!
//! # Rooms
//! ```text
//!   the service (binary): server, cli, daemon
//!        │            │             │
//!        ▼            ▼             ▼
//!   takeover ──▶   event         proto        takeover::core: no socket, clock or descriptor
//!        │            │             │
//!        └────────────┴──▶ sys      └── no I/O
//! ```
//!
//! | room | knows | does not know |
//! |---|---|---|
//! | [`event`] | descriptors, time | any protocol |
//! | `proto` | bytes | I/O, the reactor |
//! | [`takeover`] | both of them | what an application's items mean |
//! | [`sys`] | the kernel's calls that have no safe wrapper | everything else |
//!
//! Each room's own page has a table of its files. `tests/architecture` checks the arrows.
//! `unsafe` is in [`sys`] and in `takeover/os/scm.rs`, and nowhere else.

pub mod event;
#[doc(hidden)]
pub mod procfs;
#[doc(hidden)] // for the service, the tools and the tests: an application needs none of it
pub mod proto;
pub mod sys;
pub mod takeover;
