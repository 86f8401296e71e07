//! Any history of a reactor: no byte is left unread, and none is read while items are held.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{pair, poke, turn};
use proptest::prelude::*;
use proptest::sample::Index;
use socket_takeover::event::{Config, Cx, Event, Interest, Next, Reactor, SourceId, Spec, Time};

#[derive(Debug, Clone)]
enum Step {
    Add,
    Send(Index, u8),
    Remove(Index),
    Interest(Index, bool),
    Deadline(Index, i8),
    ResumeLater(Index),
    Hold,
    CancelHold,
    Resume,
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Add),
        8 => (any::<Index>(), 1..12_u8).prop_map(|(which, bytes)| Step::Send(which, bytes)),
        1 => any::<Index>().prop_map(Step::Remove),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(which, both)| Step::Interest(which, both)),
        2 => (any::<Index>(), any::<i8>()).prop_map(|(which, by)| Step::Deadline(which, by)),
        1 => any::<Index>().prop_map(Step::ResumeLater),
        1 => Just(Step::Hold),
        1 => Just(Step::CancelHold),
        2 => Just(Step::Resume),
        8 => Just(Step::Turn),
    ]
}

/// What was sent to a source and read by it.
struct Peer {
    id: SourceId,
    near: UnixStream,
    sent: usize,
    read: usize,
    /// When the first of the bytes was sent that it has not read.
    waiting_since: Time,
    deadline: Time,
}

#[derive(Default)]
struct World {
    peers: Vec<Peer>,
    /// Those that were added, called or removed.
    touched: Vec<SourceId>,
}

/// Reads one byte a go, so that the budget is often used up.
fn serve(
    far: &mut UnixStream,
    world: &mut World,
    cx: &mut Cx<World>,
    event: Event,
) -> std::io::Result<Next> {
    assert!(!cx.is_held(), "an item is called while held");
    world.touched.push(event.id());
    let peer = world.peers.iter_mut().find(|it| it.id == event.id());
    let peer = peer.expect("a source that was removed is called");
    if event.is_timeout() {
        let in_time = peer.read < peer.sent && peer.waiting_since < peer.deadline;
        assert!(!in_time, "a timeout of one that was ready before");
        return Ok(Next::Keep);
    }
    for _ in 0..cx.budget() {
        match far.read(&mut [0]) {
            Ok(count) => peer.read += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
            Err(error) => return Err(error),
        }
    }
    Ok(Next::Again)
}

fn apply(reactor: &mut Reactor<World>, world: &mut World, step: Step) {
    let chosen = |which: Index, world: &World| {
        (!world.peers.is_empty()).then(|| which.index(world.peers.len()))
    };
    match step {
        Step::Add => {
            let (near, far) = pair();
            let id = reactor
                .cx()
                .add(Spec::item("peer"), far, serve)
                .unwrap()
                .id();
            world.peers.push(Peer {
                id,
                near,
                sent: 0,
                read: 0,
                waiting_since: Time::MAX,
                deadline: Time::MAX,
            });
            world.touched.push(id);
        }
        Step::Send(which, bytes) => {
            if let Some(which) = chosen(which, world) {
                let peer = &mut world.peers[which];
                (0..bytes).for_each(|_| poke(&peer.near));
                if peer.read == peer.sent {
                    peer.waiting_since = Time::now();
                }
                peer.sent += usize::from(bytes);
            }
        }
        Step::Remove(which) => {
            if let Some(which) = chosen(which, world) {
                let peer = world.peers.swap_remove(which);
                assert!(reactor.cx().remove(peer.id));
                assert!(!reactor.cx().remove(peer.id));
                world.touched.push(peer.id);
            }
        }
        Step::Interest(which, both) => {
            if let Some(which) = chosen(which, world) {
                let interest = if both { Interest::Both } else { Interest::Read };
                reactor
                    .cx()
                    .set_interest(world.peers[which].id, interest)
                    .unwrap();
            }
        }
        Step::Deadline(which, by) => {
            if let Some(which) = chosen(which, world) {
                let span = Duration::from_micros(50 * u64::from(by.unsigned_abs()));
                let now = Time::now();
                let at = if by < 0 { now - span } else { now + span };
                world.peers[which].deadline = at;
                reactor.cx().set_deadline(world.peers[which].id, Some(at));
            }
        }
        Step::ResumeLater(which) => {
            if let Some(which) = chosen(which, world) {
                reactor.cx().resume_later(world.peers[which].id);
            }
        }
        Step::Hold if reactor.cx().is_held() => {}
        Step::Hold => reactor.cx().hold(|world: &mut World, cx| {
            for peer in &world.peers {
                // The sweep has read everything, or knows that there is more.
                assert!(peer.read == peer.sent || cx.is_resuming(peer.id));
            }
        }),
        Step::CancelHold => reactor.cx().cancel_hold(),
        Step::Resume => reactor.cx().resume(),
        Step::Turn => turn(reactor, world, 1),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_every_byte_once_resumed(
        batch in 1..6_usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut reactor = Reactor::new(Config { batch, budget: 3, ..Config::default() }).unwrap();
        let mut world = World::default();
        reactor.cx().track(true);
        for step in steps {
            apply(&mut reactor, &mut world, step);
        }
        reactor.cx().resume();
        turn(&mut reactor, &mut world, 300);
        for peer in &world.peers {
            prop_assert_eq!(peer.read, peer.sent);
        }
        let mut changed = Vec::new();
        reactor.cx().changed(&mut changed);
        let count = changed.len();
        changed.sort_unstable();
        changed.dedup();
        prop_assert_eq!(changed.len(), count, "each once");
        for id in &world.touched {
            prop_assert!(changed.binary_search(id).is_ok());
        }
        prop_assert_eq!(reactor.cx().stats().faults, 0);
    }
}
