//! What a takeover did and how long each part took: the facts for logs and callers.

use std::fmt;
use std::time::Duration;

use crate::event::Time;

/// One takeover, or one attempt, as one side saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The donor's number for the attempt; both sides name the same.
    pub id: u64,
    /// How many takeovers there have been since a cold start, this one included.
    pub generation: u64,
    /// Process id of the other side, for reading only: it may have been reused since.
    pub other: u32,
    /// Items that the taker holds copies of.
    pub items: u64,
    /// Items of the final array: closed since the preload, new, changed.
    pub last: Tally,
    /// Items that stay with the donor.
    pub declined: u64,
    /// Rounds of the preload.
    pub rounds: u32,
    /// Bytes and descriptors that went over the channel.
    pub bytes: u64,
    /// Descriptors passed.
    pub fds: u64,
    /// When each phase began.
    pub times: Times,
    /// Why it did not come about; empty if it did.
    pub failure: String,
}

/// Items of the final array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Closed by the donor after they had been sent.
    pub closed: u64,
    /// Opened after the preload's last round.
    pub new: u64,
    /// Whose state has changed since it was sent.
    pub changed: u64,
}

/// When each phase began, as this side saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The channel was accepted, or connected.
    pub begun: Option<Time>,
    /// WELCOME.
    pub welcome: Option<Time>,
    /// PREPARE.
    pub prepare: Option<Time>,
    /// Donor: no peer is polled any more. Taker: DRAINED was sent.
    pub held: Option<Time>,
    /// END.
    pub end: Option<Time>,
    /// Taker: the lease was claimed, and all that is left to do before the first turn is
    /// done. Donor: it learned who owns.
    pub decided: Option<Time>,
}

impl Report {
    /// From the hold to the moment from which somebody serves again, as far as this side
    /// can know; `None` if nobody was held.
    #[must_use]
    pub fn freeze(&self) -> Option<Duration> {
        span(self.times.held, self.times.decided)
    }

    /// How long we served while the taker was told everything.
    #[must_use]
    pub fn preload(&self) -> Option<Duration> {
        span(self.times.welcome, self.times.prepare)
    }

    /// From the first contact to the decision.
    #[must_use]
    pub fn whole(&self) -> Option<Duration> {
        span(self.times.begun, self.times.decided)
    }
}

fn span(from: Option<Time>, to: Option<Time>) -> Option<Duration> {
    Some(to?.since(from?))
}

/// The one line of figures for a log: `key=value`, times in milliseconds.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id={:016x} generation={} items={} closed={} new={} changed={} declined={} rounds={} fds={} bytes={}",
            self.id,
            self.generation,
            self.items,
            self.last.closed,
            self.last.new,
            self.last.changed,
            self.declined,
            self.rounds,
            self.fds,
            self.bytes,
        )?;
        let steps = [
            ("preload", self.preload()),
            ("prepare", span(self.times.prepare, self.times.held)),
            ("array", span(self.times.held, self.times.end)),
            ("decide", span(self.times.end, self.times.decided)),
            ("freeze", self.freeze()),
            ("whole", self.whole()),
        ];
        for (name, took) in steps {
            if let Some(took) = took {
                write!(f, " {name}_ms={:.3}", took.as_secs_f64() * 1e3)?;
            }
        }
        Ok(())
    }
}
