//! Going on for the original program: its listener and its peers become ours.

use std::fs;

use socket_takeover::event::{Cx, Time};
use socket_takeover::proto::sequence::{MESSAGE, Session};
use socket_takeover::takeover::internal::offer::Offer;
use socket_takeover::takeover::{Deadlines, Moment, Positions, Takeover, TakeoverPath};

use super::failure::StartError;
use super::listener;
use super::original::{self, Obstacle, Taken};
use super::peer::Peer;
use super::{LogAddress, Server};

impl Server {
    /// Takes over from the original program at `path`. The original is dead when this returns. Its
    /// peers are served from the next turn on, each from the next message on: none of them is
    /// within a message.
    pub(super) fn adopt_original(
        &mut self,
        cx: &mut Cx<Server>,
        path: &TakeoverPath,
        deadlines: Deadlines,
    ) -> Result<(), StartError> {
        log::info!("[{path}] is a SOCK_STREAM listener, which is how the original program offers");
        let taken = original::take_over(path, &deadlines, || match is_told_to_stop() {
            true => Err(Obstacle::Stopping),
            false => Ok(Offer::bind(path)?),
        });
        let (taken, offer) = taken.map_err(|why| StartError::Original {
            path: path.clone(),
            why,
        })?;
        let mut report = taken.report.clone();
        self.adopt_items(cx, taken)?;
        Takeover::inherit(self, cx, offer, report.generation, deadlines)?;
        cx.resume();
        report.times.decided = Some(Time::now());
        self.on_moment(cx, Moment::Owner);
        self.on_moment(cx, Moment::Active(report));
        Ok(())
    }

    fn adopt_items(&mut self, cx: &mut Cx<Server>, taken: Taken) -> Result<(), StartError> {
        let listener = listener::adopt(taken.listener);
        self.listener = Some(listener::add(listener, self, cx)?);
        for (stream, address) in taken.peers {
            let mut peer = Peer::new(stream, address);
            // As much was written to it as was read; otherwise it would not have been taken.
            if let Ok(Some(at)) = Positions::of(&peer.stream) {
                peer.session = Session::after(at.written / MESSAGE as u64);
            }
            // The original leaves small answers to Nagle's algorithm.
            let prepared = peer.stream.set_nodelay(true);
            match prepared.and_then(|()| peer.add(self, cx)) {
                Ok(_) => {
                    self.peers += 1;
                    self.counters.accepted += 1;
                }
                Err(error) => log::warn!("Peer {} was not taken: {error}", LogAddress(address)),
            }
        }
        for address in taken.ended {
            log::warn!(
                "Peer {} was ended: part of a message of its was in a thread of the original",
                LogAddress(address),
            );
        }
        for address in taken.lost {
            log::warn!(
                "Peer {} is lost: the original had accepted it since, and we may not trace it",
                LogAddress(address),
            );
        }
        Ok(())
    }
}

/// Whether SIGTERM or SIGINT has come since they are blocked. Nothing turns the reactor yet, which
/// would read them (proc_pid_status(5)).
fn is_told_to_stop() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pending = ["SigPnd:", "ShdPnd:"].into_iter().filter_map(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    let wanted = (1 << (libc::SIGTERM - 1)) | (1 << (libc::SIGINT - 1));
    pending.fold(0, |all, mask| all | mask) & wanted != 0
}
