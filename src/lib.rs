//! A single-threaded event loop and a live takeover: a running daemon hands its listener,
//! every connection, its state and its timers to a successor in one atomic step, and no
//! client notices.
//!
//! # Why
//! A daemon that is restarted loses its connections and all that was said on them. Passing on
//! the listener saves later clients only. Here everything goes: sockets with their queues, the
//! bytes that were read and not understood, the state of the application, its deadlines. All of
//! it changes hands at once, or nothing has happened and the old process serves on. For that one
//! loop has to know at any moment who may act on a descriptor, so loop and takeover come
//! together.
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
//! | a loop with a socket, and all its verbs | [`event`](event#a-first-loop) |
//! | who owns a source, and what a handle is | [`event`, Ownership](event#ownership) |
//! | what runs before what | [`event`, A turn](event#a-turn), [Edges](event#edges) |
//! | what is promised, each line with its test | [`event`, The contract](event#the-contract) |
//! | how to take sources out, one or all | [`event`, Taking sources out](event#taking-sources-out) |
//! | how to run it inside of a loop that you have | [`event`, In another loop](event#in-another-loop), [`takeover`, A loop of your own](takeover#a-loop-of-your-own) |
//! | a whole daemon that can be taken over | [`takeover`](takeover#what-you-do) |
//! | what becomes of your own state | [`takeover`, Your own state](takeover#your-own-state), [Output that waits](takeover#output-that-waits) |
//! | how two releases meet | [`takeover`, Versions of state](takeover#versions-of-state) |
//! | who starts the successor, and what its exit code asks for | [`takeover`, In production](takeover#in-production) |
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
//! | `daemon` | yes | what the service program needs (getopts, syslog); nothing in this library does |
//! | `failpoints` | no | for tests: an environment variable makes a process die, stop or panic in the midst of a takeover |
//!
//! It brings mio, nix, slab, libc and log. It needs Rust 1.88, Linux and a mounted `/proc`. The
//! kernel has to be 5.3 or later for a takeover, which identifies the other process by a pidfd:
//!
//! | before Linux | |
//! |---|---|
//! | 6.16 | descriptors that a caller at PATH sends are received, and closed at once; later the kernel refuses them (`SO_PASSRIGHTS`) |
//! | 6.5 | the pidfd is opened by process id, and found to be the right one; from another pid namespace there is none: a death there is judged by the channel and by deadlines, and a taker that hangs cannot be killed |
//! | 5.6 | the service takes over the original C program without copies of its sockets (`pidfd_getfd`) |
//! | 5.4 | there is no [`event::Child`] (`waitid`, `P_PIDFD`) |
//!
//! What is said here to be *logged* goes to the `log` crate: nobody sees it unless the
//! application has set a logger. Names under `docs/`, `examples/` and `tests/` are files of the
//! repository.
//!
//! # Rooms
//! ```text
//!   the service (binary): server, cli, daemon
//!        │            │             │
//!        ▼            ▼             ▼
//!   takeover ──▶   event         proto        donor, taker and ledger: no room below them
//!        │            │             │         (no socket, clock or descriptor)
//!        └────────────┴──▶ sys      └── no I/O
//! ```
//!
//! | room | knows | does not know |
//! |---|---|---|
//! | [`event`] | descriptors, time | any protocol |
//! | [`proto`] | bytes | I/O, the reactor |
//! | [`takeover`] | both, by its drivers | what an application's items mean |
//! | [`sys`] | the kernel's calls without a safe wrapper | everything else |
//!
//! The arrows are kept by `tests/architecture.rs`. `unsafe` is in [`sys`] and in
//! `takeover/os/scm.rs`, nowhere else.

pub mod event;
#[doc(hidden)]
pub mod procfs;
pub mod proto;
pub mod sys;
pub mod takeover;
