//! Taking over from the original C program (github.com/acassen/socket-takeover), which knows
//! nothing of the protocol of ours.
//!
//! What it does: at PATH it listens for SOCK_STREAM, for one call. It answers the call at once
//! with one native `int`, a count, and an array of so many descriptors, the listener first, and
//! asks for no reply. Each peer has a thread, which goes on until it has answered one more
//! message; its main thread stays in accept(2). So whoever simply starts to read from what has
//! arrived shares every stream with a thread that may already have half a message in its buffer.
//!
//! ```text
//!   find ─▶ count ─▶ anchor ─▶ stop, fetch ──▶ call ─▶ receive ─▶ ┌ stop, fetch ─▶ compare ┐ ─▶ kill
//!   nothing is touched                       │ no way back        └─── continue, wait ◀────┘
//! ```
//!
//! - *find, count*: whose socket it is, and what else it has; refused is who is not like the
//!   original, and who has its clients in another network namespace: what listens on its port
//!   here would be a stranger.
//! - *anchor*: one more client, whose message it answers if it is the original, and who then says
//!   nothing: a peer that it has still to serve keeps it from ending too early.
//! - *fetch*: a copy of each of its sockets, with pidfd_getfd(2), if we may trace it (ptrace(2)).
//!   Its array is prepared without a lock: a client that ends just then, or one more than it has
//!   room for, and nothing is sent. Then it lets its peers go all the same, and whoever has no
//!   copy has lost them. With copies neither that nor a client accepted after the call matters.
//!   Without the right to trace it, [`MAX_PEERS`] is the limit, and later clients are lost.
//! - *call*: the order to hand over. It makes threads stop reading after one more message.
//! - *compare*: no thread of it has a message inside if as many bytes were read from each peer
//!   as were written to it ([`positions`](socket_takeover::takeover::Positions)).
//! - *kill*: only with everything even, or with nobody who gets on. Peers that are uneven then have
//!   lost bytes with a thread's buffer: they are ended by a reset, and named.
//!
//! | file | |
//! |---|---|
//! | `door.rs` | the way to its Unix socket, and the call |
//! | `find.rs` | PATH to process, without a call |
//! | `sock_diag.rs` | the Unix sockets that listen, from the kernel |
//! | `census.rs` | its sockets |
//! | `anchor.rs` | a connection of our own |
//! | `process.rs` | stop, continue, kill |
//! | `held.rs` | what we have of it |
//! | `settle.rs` | when it may be killed: pure |
//! | `obstacle.rs` | why it was not taken over |
//!
//! Invariants:
//! - before the call nothing is changed but one more client for a moment;
//! - the process is not left stopped, unless we are killed;
//! - nothing is read, written or set on what arrived before it is dead, since O_NONBLOCK is one
//!   flag for both;
//! - a peer is served at a message boundary or not at all.

mod anchor;
mod census;
mod door;
mod find;
mod held;
mod obstacle;
mod process;
mod settle;
mod sock_diag;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use socket_takeover::event::RESERVE;
use socket_takeover::event::Time;
use socket_takeover::takeover::internal::limits;
use socket_takeover::takeover::internal::{identity, scm};
use socket_takeover::takeover::{Deadlines, Report, TakeoverPath, Times};

use anchor::Anchor;
use census::{Census, census};
use door::Door;
use held::Held;
pub use obstacle::Obstacle;
use process::Process;
use settle::{Decision, Look, decide};

/// Peers that the original can hand over by itself: its own successor has room for so many.
pub const MAX_PEERS: usize = 251;

/// How long its threads may take to stop. One that waits for a disk may take a while.
const STOP: Duration = Duration::from_secs(10);
/// After the call nobody waits longer than this and `freeze`, whoever gets on.
const LAST: Duration = Duration::from_secs(60);
/// How long its threads may take to come to rest before the call. They never do where clients talk
/// all the time; the one that matters has had its turn by then.
const REST: Duration = Duration::from_millis(100);
/// The pauses between two looks while it goes on.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(16);
/// How long it goes on at most before it is stopped for a look that counts.
const UNSTOPPED: Duration = Duration::from_millis(100);
/// How long to wait for an array of what we have already.
const REDUNDANT: Duration = Duration::from_millis(20);

/// What the original had, in one hand.
#[derive(Debug)]
pub struct Taken {
    /// Its listener, O_NONBLOCK.
    pub listener: TcpListener,
    /// Its peers, each at a message boundary, O_NONBLOCK, and where they are.
    pub peers: Vec<(TcpStream, SocketAddr)>,
    /// Peers whose message was lost with a thread's buffer: they were ended.
    pub ended: Vec<SocketAddr>,
    /// Peers that it had accepted since the call and that were out of our reach: they ended
    /// with it.
    pub lost: Vec<SocketAddr>,
    /// Who it was, and how long it took; the freeze begins with the call.
    pub report: Report,
}

/// Takes over from the original program that listens at `path`; it is dead when this returns.
///
/// It waits: for the anchor and the call's answer within `deadlines.hello`, then for peers whose
/// message is in a thread's buffer, as long as one of them gets on within `deadlines.freeze`.
/// `ready` comes right before the call, for all that may fail, or if there is to be none.
///
/// # Errors
/// See [`Obstacle`].
pub fn take_over<T>(
    path: &TakeoverPath,
    deadlines: &Deadlines,
    ready: impl FnOnce() -> Result<T, Obstacle>,
) -> Result<(Taken, T), Obstacle> {
    let begun = Time::now();
    let door = Door::open(path)?.ok_or(Obstacle::NoProcess)?;
    let (process, unix) = find::find(&door)?;
    let found = examine(&process)?;
    let mut held = Held::new(&process, found.listener_inode, unix)?;
    if !held.is_in_our_network()? {
        return Err(Obstacle::Apart { pid: process.pid });
    }
    is_within_limit(found.peers.len(), &held)?;
    log::info!(
        "Taking over from the original program, pid {} uid {}, at [{path}]: {} Peers, listener {}",
        process.pid,
        process.uid,
        found.peers.len(),
        found.listener,
    );
    let wanted = found.peers.len() + RESERVE;
    let free = limits::free_slots()?;
    if free < wanted {
        return Err(Obstacle::NoRoom { wanted, free });
    }
    limits::size_table(wanted)?;
    if !held.may_fetch() {
        log::warn!("we may not trace it: clients that it accepts after the call will be lost");
    }
    let anchor = anchor(&process, &found, &held, deadlines.hello)?;
    if anchor.is_some() {
        // Its thread has written the answer, and is not back at the next message maybe. Called
        // before that, it would let go of the anchor at once.
        process.comes_to_rest(REST)?;
    }
    let extra = ready()?;

    let mut times = Times {
        begun: Some(begun),
        held: Some(Time::now()),
        ..Times::default()
    };
    let stopped = process.stop(STOP)?;
    held.fetch(&process)?;
    // More may have come since. They are not looked up: that can take a second.
    let more = census::sockets(process.pid)?
        .len()
        .saturating_sub(found.sockets);
    is_within_limit(found.peers.len() + more, &held)?;
    let call = door.call()?;
    drop(stopped);
    let has_all = receive(&call, &process, &mut held, deadlines.hello);
    let Settled { unsettled, lost } = settle(&process, &mut held, deadlines.freeze, has_all)?;
    times.end = Some(Time::now());
    // Its end of the call, with what may still be in flight, is gone with it.
    drop(call);
    if !process.dies_within(deadlines.claim.max(STOP)) {
        log::warn!("pid {} was killed and is not dead yet", process.pid);
    }
    let fds = held.len() as u64;
    // It is dead: whatever fails from here on is no harmless reason any more.
    let released = held.release(&unsettled, anchor.as_ref());
    let (listener, peers, ended) = released.map_err(|why| Obstacle::Called(why.to_string()))?;
    let report = Report {
        generation: 1,
        other: process.pid,
        items: 1 + peers.len() as u64,
        fds,
        times,
        ..Report::default()
    };
    let taken = Taken {
        listener,
        peers,
        ended,
        lost,
        report,
    };
    Ok((taken, extra))
}

fn examine(process: &Process) -> Result<Census, Obstacle> {
    let pid = process.pid;
    census(process)?.map_err(|why| Obstacle::Unlike {
        pid,
        why: why.into(),
    })
}

fn is_within_limit(peers: usize, held: &Held) -> Result<(), Obstacle> {
    if peers > MAX_PEERS && !held.may_fetch() {
        return Err(Obstacle::TooManyPeers(peers));
    }
    Ok(())
}

/// None if there is no room for one more: then there are peers enough to take its place.
fn anchor(
    process: &Process,
    found: &Census,
    held: &Held,
    longest: Duration,
) -> Result<Option<Anchor>, Obstacle> {
    if found.peers.len() == MAX_PEERS && !held.may_fetch() {
        return Ok(None);
    }
    let pid = process.pid;
    match Anchor::drop_at(found.listener, longest) {
        Ok(anchor) => Ok(Some(anchor)),
        Err(error) => match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset => Err(Obstacle::Unlike {
                pid,
                why: format!("its port {} does not echo", found.listener),
            }),
            _ => Err(Obstacle::Silent(error)),
        },
    }
}

/// The array, and whether it has everybody. Without it, or with too little in it, what is fetched
/// has to do.
fn receive(call: &OwnedFd, process: &Process, held: &mut Held, longest: Duration) -> bool {
    let longest = match held.may_fetch() {
        true => REDUNDANT,
        false => longest,
    };
    if !identity::ready_within(call.as_fd(), PollFlags::POLLIN, longest) {
        log::info!("pid {} has sent no fd_array", process.pid);
        return false;
    }
    let mut fds = Vec::new();
    let mut bytes = [0; size_of::<i32>()];
    let mut has_all = false;
    match scm::recv(call.as_fd(), &mut bytes, &mut fds) {
        Ok(received) => {
            let count = match received.len {
                4 => i32::from_ne_bytes(bytes),
                _ => -1,
            };
            has_all = !received.fds_lost && usize::try_from(count) == Ok(fds.len());
            if !has_all {
                let lost = if received.fds_lost {
                    ", some were lost"
                } else {
                    ""
                };
                log::warn!("fd_array of {count} has {} descriptors{lost}", fds.len());
            }
            log::info!("Received fd_array of {} descriptors", fds.len());
        }
        Err(error) => log::warn!("fd_array: {error}"),
    }
    held.add(fds);
    has_all
}

/// What the process was killed with.
struct Settled {
    /// The inodes of those peers that are to be ended.
    unsettled: Vec<u64>,
    /// Peers of which we have no copy.
    lost: Vec<SocketAddr>,
}

/// Waits until the process may be killed, and kills it.
///
/// A client that it has accepted between our copies and its array is in the array alone. Every
/// 100 ms it lets go of those that have spoken. So without the array everybody is fetched at once.
fn settle(
    process: &Process,
    held: &mut Held,
    patience: Duration,
    has_all: bool,
) -> Result<Settled, Obstacle> {
    let end = Instant::now() + patience + LAST;
    let mut longest = UNSTOPPED;
    let mut looks = 0;
    loop {
        if has_all || looks > 0 {
            await_quiet(process, held, patience, longest);
        }
        looks += 1;
        let begun = Instant::now();
        let stopped = match process.stop(STOP) {
            Ok(stopped) => Some(stopped),
            Err(_) if process.is_dead() => None,
            Err(error) => {
                longest = try_again(&error, "it cannot be stopped", begun, end)?;
                continue;
            }
        };
        let mut has_left = stopped.is_none();
        if !has_left && let Err(error) = held.fetch(process) {
            if !process.is_dead() {
                drop(stopped);
                longest = try_again(&error, "its descriptors", begun, end)?;
                continue;
            }
            has_left = true;
        }
        if !held.has_listener() {
            let why = match held.may_fetch() {
                _ if has_left => "it has died",
                true => "it has closed its listener",
                false => "it has sent no listener, and we may not trace it",
            };
            return Err(Obstacle::Called(why.into()));
        }
        let (inodes, seen) = held.look(patience);
        let is_over = has_left || Instant::now() >= end;
        let unsettled = match decide(&seen, is_over) {
            Decision::Continue => {
                drop(stopped);
                if looks == 1 {
                    tell_of(&seen, patience);
                }
                // It has more of the time than its being looked at.
                longest = UNSTOPPED.max(begun.elapsed() * 2);
                continue;
            }
            Decision::Kill => Vec::new(),
            Decision::End(which) => which.into_iter().map(|at| inodes[at]).collect(),
        };
        let lost = held.out_of_reach();
        if let Some(stopped) = stopped {
            // One that somebody else has killed is just as dead.
            let _ = stopped.kill();
        }
        log::info!(
            "pid {} is ended: {} of {} Peers are at a message boundary, after {looks} looks",
            process.pid,
            seen.len() - unsettled.len(),
            seen.len(),
        );
        return Ok(Settled { unsettled, lost });
    }
}

/// There is no way back any more, so what has failed once is tried until the last moment; how long
/// it goes on in between.
fn try_again(
    error: &io::Error,
    what: &str,
    begun: Instant,
    end: Instant,
) -> Result<Duration, Obstacle> {
    if Instant::now() >= end {
        return Err(Obstacle::Called(format!("{what}: {error}")));
    }
    log::warn!("the original: {what}: {error}; tried again");
    Ok(UNSTOPPED.max(begun.elapsed() * 2))
}

/// Lets it go on until it seems to have come to rest, or `longest`. Stopping it while its threads
/// are at work would cost each of them a turn, and proves nothing.
fn await_quiet(process: &Process, held: &mut Held, patience: Duration, longest: Duration) {
    let end = Instant::now() + longest;
    let mut pause = SHORTEST;
    while decide(&held.look(patience).1, false) == Decision::Continue
        && Instant::now() < end
        && !process.dies_within(pause)
    {
        pause = (pause * 2).min(LONGEST);
    }
}

fn tell_of(seen: &[Look], patience: Duration) {
    let is_within = |look: &&Look| matches!(look, Look::Moving | Look::Stuck);
    log::info!(
        "{} of {} Peers are within a message: it goes on, until none of them gets on for {} ms",
        seen.iter().filter(is_within).count(),
        seen.len(),
        patience.as_millis(),
    );
}
