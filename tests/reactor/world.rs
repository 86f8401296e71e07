//! The state of most scenarios: what ran, and what a callback may act on.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket_takeover::event::{Cx, Event, Next, SourceId, Spec, Time, TimerId};

use crate::common::{drain, pair, poke};

/// What ran, in order, and the items with their near ends.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) ran: Vec<&'static str>,
    pub(crate) timers: Vec<TimerId>,
    pub(crate) items: Vec<SourceId>,
    pub(crate) near: Vec<UnixStream>,
}

pub(crate) type Reply = io::Result<Next>;

impl World {
    pub(crate) fn count(&self, name: &str) -> usize {
        self.ran.iter().filter(|&&ran| ran == name).count()
    }
}

/// Notes the name, or that it was a timeout.
pub(crate) fn note(
    far: &mut UnixStream,
    world: &mut World,
    cx: &mut Cx<World>,
    event: Event,
) -> Reply {
    drain(far);
    let name = cx.name(event.id()).unwrap();
    world
        .ran
        .push(if event.is_timeout() { "timeout" } else { name });
    Ok(Next::Keep)
}

pub(crate) fn add_items(cx: &mut Cx<World>, world: &mut World, count: usize) {
    for _ in 0..count {
        let (near, far) = pair();
        let item = cx.add(Spec::item("item"), far, note).unwrap();
        world.items.push(item.id());
        world.near.push(near);
    }
}

pub(crate) fn poke_all(world: &World) {
    world.near.iter().for_each(poke);
}

pub(crate) fn past() -> Time {
    Time::now() - Duration::from_secs(1)
}
