//! A running process hands everything to its successor, in one atomic step.
//!
//! # Why
//! A daemon that is restarted loses its connections and what they have said so far. It also loses
//! its peers' trust: a peer that finds a counter reset takes it for a crash and drops every
//! session. A listener alone is easily passed on. Here everything moves: sockets with their queues,
//! the state of the application, and its deadlines. Either all of it changes hands, or nothing has
//! happened.
//!
//! The old process (the *donor*) serves while it sends everything to the new one (the *taker*).
//! Then nobody serves for a tenth of a millisecond, however many connections there are. In this
//! *freeze* the donor sends what has changed meanwhile, and the taker claims. `docs/takeover.md` in
//! the repository explains how this is made safe against deaths, hangs and damage on both sides.
//! The [glossary](crate#words) explains the words.
//!
//! # What you do
//! 1. Run on a [`Reactor`](crate::event::Reactor): each socket is one of its sources, added with
//!    [`Spec::item`](crate::event::Spec::item).
//! 2. Implement [`Application`] for your state: say what there is, and save and restore it.
//! 3. Start by [`Start`]: [`Start::offer`] on a cold start, [`Start::take_over`] as a successor.
//!
//! This is a whole daemon. It echoes datagrams and counts them, and the count goes on over any
//! number of takeovers:
//!
//! ```no_run
//! use socket_takeover::event::{Cx, Next, Spec};
//! use socket_takeover::takeover::{
//!     Application, Arrival, Description, Error, Exit, Item, ItemKind, Rejection, SavedState, Start,
//!     Takeover, TakeoverPath,
//! };
//! use std::io::{self, ErrorKind};
//! use std::net::UdpSocket;
//!
//! const VERSION: u16 = 1;
//! const COUNT: u32 = 0;
//!
//! #[derive(Default)]
//! struct Echo {
//!     count: u64,
//!     takeover: Takeover,
//! }
//!
//! fn main() -> Exit {
//!     run().into()
//! }
//!
//! fn run() -> Result<(), Error> {
//!     let path = TakeoverPath::new("/run/echo.takeover")?;
//!     let mut echo = Echo::default();
//!     if std::env::args().any(|word| word == "-T") {
//!         return Start::take_over(path).run(&mut echo, |_, _| Ok(()));
//!     }
//!     Start::offer(path).run(&mut echo, |_, cx| {
//!         let socket = UdpSocket::bind("127.0.0.1:7007")?;
//!         socket.set_nonblocking(true)?;
//!         add(socket, cx).map(|_| ())
//!     })
//! }
//!
//! // Opened or handed over, the socket is served in the same way.
//! fn add(socket: UdpSocket, cx: &mut Cx<Echo>) -> io::Result<Item> {
//!     let added = cx.add(Spec::item("echo"), socket, |socket, echo: &mut Echo, cx, _| {
//!         let mut datagram = [0; 2048];
//!         for _ in 0..cx.budget() {
//!             match socket.recv_from(&mut datagram) {
//!                 Ok((length, from)) => {
//!                     echo.count += 1;
//!                     // If the kernel refuses it, it is lost, as any datagram may be. "Output
//!                     // that waits" shows how to keep it.
//!                     let _ = socket.send_to(&datagram[..length], from);
//!                 }
//!                 Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
//!                 // The error was about an earlier datagram, and is over (udp(7)). To return
//!                 // it would end the source, and the daemon would run on without its socket.
//!                 Err(_) => {}
//!             }
//!         }
//!         Ok(Next::Again)
//!     })?;
//!     Ok(added.into())
//! }
//!
//! impl Application for Echo {
//!     const NAME: &'static str = "echo";
//!
//!     fn takeover(&mut self) -> &mut Takeover {
//!         &mut self.takeover
//!     }
//!
//!     fn carried(&self, out: &mut Vec<u32>) {
//!         out.push(COUNT);
//!     }
//!
//!     fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
//!         match item {
//!             Item::Source(id) => Description::source(cx, id, ItemKind::Udp, VERSION),
//!             Item::Carried(_) => Ok(Description::new(ItemKind::State, "count", VERSION)),
//!         }
//!     }
//!
//!     fn save(&mut self, _: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
//!         if item == Item::Carried(COUNT) {
//!             out.extend_from_slice(&self.count.to_le_bytes());
//!         }
//!         false
//!     }
//!
//!     fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
//!         match (arrival.name, arrival.state.version, arrival.fd) {
//!             ("echo", VERSION, Some(fd)) => Ok(add(fd.into(), cx)?),
//!             ("count", VERSION, None) => {
//!                 self.update(cx, Item::Carried(COUNT), arrival.state)?;
//!                 Ok(Item::Carried(COUNT))
//!             }
//!             (name, version, _) => Err(format!("{name:?}, version {version}").into()),
//!         }
//!     }
//!
//!     fn update(
//!         &mut self,
//!         _: &mut Cx<Self>,
//!         item: Item,
//!         state: SavedState<'_>,
//!     ) -> Result<(), String> {
//!         if item == Item::Carried(COUNT) {
//!             let count = state.bytes.try_into().map_err(|_| "no count")?;
//!             self.count = u64::from_le_bytes(count);
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! Run `echo` in one terminal and `echo -T` in another: the first one exits, and no datagram is
//! lost.
//!
//! # Your own state
//! You save whatever lives in the process and not in the kernel: bytes that were read and not yet
//! understood, answers that were not sent, protocol states, counters, deadlines. The state of one
//! connection goes with that connection, by its [`Item::Source`]. State of the whole application is
//! an item that is [carried](Application::carried) beside the reactor: it has a number of your
//! choice and the kind [`ItemKind::State`]. A descriptor that is not watched (a memfd, a locked
//! file) is carried too, and [`Application::carried_fd`] lends it.
//!
//! For a protocol on TCP, [`Stream`](crate::event::Stream) holds what was read and what is to be
//! sent, and saves and restores both.
//!
//! Nothing else travels: no closure, no timer, no child, no descriptor number. Save what they were
//! made of. A deadline is saved as its [`Time`](crate::event::Time), which is one clock for the
//! whole machine, and `restore` sets it again. A timer is saved likewise, with the carried state.
//!
//! # Output that waits
//! What the kernel did not take is state as well. In this example a UDP socket keeps one answer
//! back, asks for room while it does, and hands the answer over. Its interest does not travel, and
//! need not: `save` returns true, so the successor runs the source once, and the source asks for
//! room again if it has to.
//!
//! ```
//! # use socket_takeover::event::{Config, Cx, Event, Interest, Next, Reactor, Spec};
//! # use socket_takeover::takeover::{Application, Arrival, Description, Item, ItemKind, Rejection};
//! # use socket_takeover::takeover::{SavedState, Takeover};
//! # use std::io::{self, ErrorKind};
//! # use std::net::{SocketAddr, UdpSocket};
//! # use std::os::fd::{AsFd, BorrowedFd};
//! # use std::time::Duration;
//! # #[derive(Default)]
//! # struct Echo(Takeover);
//! struct Port {
//!     socket: UdpSocket,
//!     answer: Option<(SocketAddr, Vec<u8>)>,
//! }
//!
//! impl AsFd for Port {
//!     fn as_fd(&self) -> BorrowedFd<'_> {
//!         self.socket.as_fd()
//!     }
//! }
//!
//! fn serve(port: &mut Port, _: &mut Echo, cx: &mut Cx<Echo>, event: Event) -> io::Result<Next> {
//!     let mut datagram = [0; 2048];
//!     for _ in 0..cx.budget() {
//!         if let Some((to, answer)) = &port.answer {
//!             match port.socket.send_to(answer, to) {
//!                 Err(error) if error.kind() == ErrorKind::WouldBlock => {
//!                     cx.set_interest(event.id(), Interest::Both)?;
//!                     return Ok(Next::Keep); // room is an edge, too
//!                 }
//!                 _ => port.answer = None, // gone, or refused for good
//!             }
//!         }
//!         match port.socket.recv_from(&mut datagram) {
//!             Ok((length, from)) => port.answer = Some((from, datagram[..length].to_vec())),
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => {
//!                 cx.set_interest(event.id(), Interest::Read)?; // no system call if it is that
//!                 return Ok(Next::Keep);
//!             }
//!             Err(_) => {}
//!         }
//!     }
//!     Ok(Next::Again)
//! }
//!
//! impl Application for Echo {
//!     // …
//! #   const NAME: &'static str = "echo";
//! #   fn takeover(&mut self) -> &mut Takeover {
//! #       &mut self.0
//! #   }
//! #   fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
//! #       let Item::Source(id) = item else { return Err("nothing is carried".into()) };
//! #       Description::source(cx, id, ItemKind::Udp, 1)
//! #   }
//!     fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
//!         let Item::Source(id) = item else { return false };
//!         let Some(Port { answer: Some((to, answer)), .. }) = cx.source(id) else {
//!             return false;
//!         };
//!         out.extend_from_slice(format!("{to} ").as_bytes());
//!         out.extend_from_slice(answer);
//!         true
//!     }
//!
//!     fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
//!         let socket = arrival.fd.ok_or_else(|| "no socket".to_owned())?.into();
//!         let item = cx.add(Spec::item("echo"), Port { socket, answer: None }, serve)?.into();
//!         self.update(cx, item, arrival.state)?;
//!         Ok(item)
//!     }
//!
//!     fn update(&mut self, cx: &mut Cx<Self>, item: Item, state: SavedState<'_>) -> Result<(), String> {
//!         let Item::Source(id) = item else { return Err("nothing is carried".into()) };
//!         cx.source_mut::<Port>(id).ok_or("no port")?.answer = answer_from(state.bytes)?;
//!         Ok(())
//!     }
//! }
//! #
//! # fn answer_from(bytes: &[u8]) -> Result<Option<(SocketAddr, Vec<u8>)>, String> {
//! #     let Some(end) = bytes.iter().position(|byte| *byte == b' ') else { return Ok(None) };
//! #     let to = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
//! #     let to = to.parse().map_err(|_| "no address")?;
//! #     Ok(Some((to, bytes[end + 1..].to_vec())))
//! # }
//! #
//! # let socket = UdpSocket::bind("127.0.0.1:0")?;
//! # socket.set_nonblocking(true)?;
//! # let peer = UdpSocket::bind("127.0.0.1:0")?;
//! # peer.set_read_timeout(Some(Duration::from_secs(20)))?;
//! # let port = Port { socket: socket.try_clone()?, answer: Some((peer.local_addr()?, b"kept".into())) };
//! # let (mut donor, mut taker) = (Echo::default(), Echo::default());
//! # let mut old = Reactor::new(Config::default())?;
//! # let item = old.cx().add(Spec::item("echo"), port, serve)?.into();
//! # let mut saved = Vec::new();
//! # assert!(donor.save(old.cx(), item, &mut saved));
//! # let mut new = Reactor::new(Config::default())?;
//! # let (kind, local, peer_address, links) = (ItemKind::Udp, None, None, vec![]);
//! # let (name, fd, state) = ("echo", Some(socket.into()), SavedState { version: 1, bytes: &saved });
//! # let arrival = Arrival { kind, name, local, peer: peer_address, links, fd, state };
//! # let Item::Source(id) = taker.restore(new.cx(), arrival).unwrap() else { panic!() };
//! # assert!(new.cx().resume_later(id));
//! # new.turn(&mut taker, Some(Duration::ZERO))?;
//! # let mut bytes = [0; 4];
//! # peer.recv(&mut bytes)?;
//! # assert_eq!(&bytes, b"kept");
//! # assert!(!taker.save(new.cx(), Item::Source(id), &mut saved));
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # What arrives when
//! `restore` is called once for each item. The order is not defined, because the donor opens and
//! closes items meanwhile. An item that needs another one waits for it, say in an `Option`. Items
//! that are served only together, such as the two legs of a relay, are
//! [linked](Description::links). It is enough that one names the other: the later one finds the
//! earlier one in [`Arrival::links`].
//!
//! [`Application::arrived`] is called once, when everything that the donor had at the beginning has
//! come, and while the donor still serves. If something is missing then, maybe because an older
//! release never had it, return an error, which refuses the takeover. Items that the donor opens
//! after that still come.
//!
//! # Is it true?
//! The state of a connection can be compared with its socket. Say by [`Application::positions`] how
//! many bytes your state has read and written, and start with [`Start::check_positions`]. If `save`
//! or `restore` then loses or doubles a byte, the takeover ends before it can do harm.
//!
//! # What to do in each method
//!
//! | method | side | do | do not |
//! |---|---|---|---|
//! | [`describe`](Application::describe) | donor | name, kind, addresses, version, links; an error refuses the takeover | |
//! | [`save`](Application::save) | donor | append the state; return true if there is work that no event will announce, such as output that waits | I/O, or a lot of computing: changed items are saved during the freeze |
//! | [`restore`](Application::restore) | taker | make the source, and [`Cx::add`](crate::event::Cx::add) it with its deadline and interest; the descriptor is close-on-exec, and non-blocking as it was at the donor | I/O, `setsockopt`, `SO_ERROR`: the donor still owns the socket |
//! | [`update`](Application::update) | taker | replace the state by a later one | the same |
//! | [`arrived`](Application::arrived) | taker | refuse if something is missing | the same |
//! | [`forget`](Application::forget) | taker | drop the item, and what you know of it | `shutdown`, which would end the connection for the donor too |
//! | [`moment`](Application::moment) | both | log; on `Open` and `Active` tell whoever waits for the start; then call [`Moment::follow`], without which the process never ends | write to shared memory after `Released`: it belongs to the successor |
//!
//! The reactor sees a change if a callback ran, if [`Cx::get_mut`](crate::event::Cx::get_mut) was
//! called, or if a deadline was set. It sends such changes by itself. If you change what an item's
//! `save` writes anywhere else, say so by [`Cx::touch`](crate::event::Cx::touch). Carried items are
//! saved once at the beginning and once more at the end, so keep them small.
//!
//! # Versions of state
//! Each item has a version of what its `save` writes, so that two releases can work together in
//! either direction: to take an upgrade back, let the older release take over.
//!
//! - A new field at the end that an older release may ignore keeps the version. Let `update` accept
//!   more bytes than it knows.
//! - Any other change gets a new number, the next one over all items. `restore` keeps a branch for
//!   each number that it still reads.
//! - A successor can say which number is the newest that it reads: set
//!   [`Application::NEWEST_STATE`]. Then `describe` names, and `save` writes, the number that
//!   [`Takeover::state_version`] gives. So a release that can still write the older number can be
//!   taken back. A successor that does not say is sent the newest: release the code that reads a
//!   number before the code that writes it.
//! - Decline a connection that you cannot read ([`Rejection::Declined`]). The donor keeps it, and
//!   serves the declined ones alone until the last has ended.
//! - Anything that has no end (a port, a counter that the rest depends on) is
//!   [`Rejection::Invalid`] if you cannot read it. The takeover fails, the donor goes on, and the
//!   successor exits with 75.
//!
//! # A loop of your own
//! An application may have its own loop, its own signals, or a daemon's steps at the start. It does
//! what [`Start::run`] does, one step after the other: [`Start::reactor`], adding items if it is a
//! cold start, [`Start::begin`], turning the reactor until it is stopped, [`Takeover::outcome`].
//! [`Takeover::term`] answers SIGTERM. See `examples/nested_loop.rs` in the repository.
//!
//! # In production
//! Donor and successor are two processes of the same program, or of two releases of it, run by the
//! same user (or root). The library never starts a successor: an operator, a package's script or a
//! supervisor does. Each exit code asks for something:
//!
//! | process | [code](Error::exit_code) | meaning | to do |
//! |---|---|---|---|
//! | old one | 0 | handed over, or stopped | nothing: it must not be started again |
//! | new one | none yet | it serves, until it is stopped or taken over in its turn: 0 | |
//! | new one | 69 | nobody offers a takeover at PATH, and none has within two seconds | a cold start, if the old one does not run |
//! | new one | 75 | the old one serves on, or was too busy to answer | try again later |
//! | new one | 76 | the old one serves on, and the two releases do not fit | do not try again: install another release, or stop the old one and start cold |
//! | new one | 1 | something failed, and the line on stderr says what; if the old one has died, nobody serves | a cold start: [`Start::run`] refuses it, with nothing opened, if a process lives at PATH |
//! | any | 2 | the command line is wrong | correct it |
//!
//! A supervisor has to learn that the service runs, and in which process. The application tells it: at
//! [`Moment::Open`] after a cold start, and at [`Moment::Owner`] after a takeover, while the old process
//! still waits to leave. For systemd it sends `READY=1` at the first and `MAINPID=` at the second
//! (sd_notify(3); the unit needs `NotifyAccess=all`).
//!
//! # Examples
//!
//! | in `examples/` of the repository | shows |
//! |---|---|
//! | `gtp_path` | UDP; a counter that must not look like a restart |
//! | `diameter_watchdog` | TCP; half-read messages, unsent answers, deadlines |
//! | `tcp_relay` | linked connections, half-closed, under back-pressure |
//! | `opaque_fds` | a tun device, a timerfd, shared memory |
//! | `nested_loop` | the reactor inside another loop |
//!
//! # Inside
//! ```text
//!   start, application ──▶ session ┬─▶ core   pure state machines, and what the taker knows
//!   (items, save, restore,         │          of each item
//!    moments)                      └─▶ os     channel, lease, PATH, descriptors, limits: what
//!                                             talks to the kernel, and decides nothing
//! ```
//!
//! *What an application uses*
//!
//! | file | open it for |
//! |---|---|
//! | `application.rs` | the trait: which items there are, and how each is saved and restored |
//! | `start.rs` | a cold start, a start as successor |
//! | `moment.rs` | what an application is told, and what it usually does then |
//! | `report.rs` | phases, times and counts of one takeover |
//! | `error.rs` | why a start failed, and its exit code |
//!
//! *What decides: no socket, no clock, no descriptor*
//!
//! | file | open it for |
//! |---|---|
//! | `core/` | the states of donor and taker, and what the taker knows of each item; its page has the order to read in |
//!
//! *What joins them to the reactor, the channel and the application*
//!
//! | file | open it for |
//! |---|---|
//! | `session/` | performing what the core decides, and telling it what came of it; records sent and received; export and import of items |
//!
//! *What talks to the kernel*
//!
//! | file | open it for |
//! |---|---|
//! | `os/` | channel, lease, PATH and its lock, the other process, kinds of descriptors, limits: one thing of the kernel in each file; its page has the table |
//!
//! *Beside it*
//!
//! | file | open it for |
//! |---|---|
//! | `rate_limit.rs` | how often the log says the same thing |
//! | `failpoint.rs` | for tests, behind a feature: dying, stopping or panicking in a chosen state |
//! | `internal.rs` | what tests and tools of this project use, and no application does |

mod application;
mod core;
mod error;
mod failpoint;
#[doc(hidden)]
pub mod internal;
mod moment;
mod os;
mod rate_limit;
mod report;
mod session;
mod start;

pub use crate::proto::records::{DeclineCode, ItemKind, RefuseCode};
pub use application::{Application, Arrival, Description, Item, Rejection, SavedState};
pub use error::{Error, Exit};
pub use moment::Moment;
pub use os::descriptor::kind_of;
pub use os::path::{ConnectError, PathError, Probe, TakeoverPath, probe};
pub use os::positions::Positions;
pub use rate_limit::{RateLimit, Suppressed};
pub use report::{Report, Tally, Times};
pub use session::{Deadlines, Ending, Takeover};
pub use start::Start;
