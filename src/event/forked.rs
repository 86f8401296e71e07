//! In a child of fork(2): epoll sets and an alarm of our own.
//!
//! After a fork both processes have the same open files, and so the same epoll sets. What the child
//! changed would change for its parent. What the child waited for would be taken from its parent.
//! Of its own signals the child would not hear (signalfd(2), "epoll(7) semantics"). A new
//! registration reports what is ready at that moment, so no edge is lost.

use std::io;
use std::mem;

use super::cx::HANDOVER_ROOM;
use super::poller::Poller;
use super::{Class, Cx, SourceId};

impl<S> Cx<S> {
    /// Costs a look at one number where there was no fork.
    pub(super) fn renew_if_forked(&mut self) -> io::Result<()> {
        let lanes = &self.lanes;
        match lanes.item.poller.is_inherited() || lanes.handover.poller.is_inherited() {
            true => self.renew(),
            false => Ok(()),
        }
    }

    /// If it fails, nothing has changed.
    fn renew(&mut self) -> io::Result<()> {
        let mut item = Poller::new(self.config.batch)?;
        let mut handover = Poller::new(HANDOVER_ROOM)?;
        item.nest(&handover)?;
        let alarm = self.liveness.fresh_alarm(&item)?;
        for (key, slot) in self.sources.iter() {
            let poller = match slot.class {
                Class::Item | Class::Local => &item,
                Class::Handover => &handover,
            };
            poller.add(slot.fd, SourceId(key), slot.interest)?;
            self.stats.controls += 1;
        }

        item.reported = mem::take(&mut self.lanes.item.poller.reported);
        handover.reported = mem::take(&mut self.lanes.handover.poller.reported);
        self.lanes.item.poller = item;
        self.lanes.handover.poller = handover;
        self.lanes.item.silence = Default::default();
        self.lanes.handover.silence = Default::default();
        self.liveness.replace_alarm(alarm);
        self.handover_ready = true;
        Ok(())
    }
}
