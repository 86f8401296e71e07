//! What a takeover did and how long each part took: the same facts for an application, as a
//! log's line and as JSON.
//!
//! Donor and taker each have a report of their own. Both name the same `id`, and what both can
//! know is the same in both; a donor whose taker did not say ACTIVE knows less.

use std::fmt::{self, Write};
use std::time::Duration;

use super::core::preload::BATCH;
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
    /// Items that stay with the donor, because the taker declined them.
    pub declined: u64,
    /// Connections that had been reset before the taker had them. The taker ends them.
    pub dead: u64,
    /// The donor had died when the taker began to serve. Without the lease everything would be
    /// lost.
    pub adopted: bool,
    /// Rounds of the preload.
    pub rounds: u32,
    /// Bytes that went over the channel.
    pub bytes: u64,
    /// Descriptors passed.
    pub fds: u64,
    /// When each phase began.
    pub times: Times,
    /// Why the takeover failed; empty if it did not.
    pub failure: String,
}

/// Items of the final array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Closed by the donor after they had been sent.
    pub closed: u64,
    /// Opened after the last round of the preload.
    pub new: u64,
    /// Sent again, because their state has changed since it was sent.
    pub changed: u64,
}

/// When each phase began, as this side saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The channel was accepted, or connected.
    pub begun: Option<Time>,
    /// WELCOME was sent, or received.
    pub welcome: Option<Time>,
    /// PREPARE was sent, or received.
    pub prepare: Option<Time>,
    /// Donor: no peer is polled any more. Taker: DRAINED was sent.
    pub held: Option<Time>,
    /// END was sent, or received.
    pub end: Option<Time>,
    /// Taker: the lease was claimed, and everything that comes before the first turn is done.
    /// Donor: it learned who owns.
    pub decided: Option<Time>,
}

impl Tally {
    /// All items that went in the freeze.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.closed + self.new + self.changed
    }
}

impl Report {
    /// Whether the preload ended at one of its bounds (rounds, time, no progress) and left more than a
    /// batch. Then more items went in the freeze, which was longer for it: the donor
    /// changes faster than the channel carries.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.last.total() > BATCH as u64
    }

    /// From the hold to the moment from which somebody serves again, as far as this side can know.
    /// `None` if nobody was held.
    #[must_use]
    pub fn freeze(&self) -> Option<Duration> {
        span(self.times.held, self.times.decided)
    }

    /// How long the donor served while it told the taker everything.
    #[must_use]
    pub fn preload(&self) -> Option<Duration> {
        span(self.times.welcome, self.times.prepare)
    }

    /// From the first contact to the decision.
    #[must_use]
    pub fn whole(&self) -> Option<Duration> {
        span(self.times.begun, self.times.decided)
    }

    /// The report as one line of JSON (JSON lines), for a file that collects reports. `outcome` is
    /// [`Moment::outcome`](super::Moment::outcome). Times are nanoseconds. The times of phases are
    /// those of CLOCK_MONOTONIC. What is not known is null.
    #[must_use]
    pub fn json(&self, outcome: &str) -> String {
        let at = &self.times;
        let text = |text: &str| (!text.is_empty()).then(|| format!("\"{}\"", escaped(text)));
        let time = |at: Option<Time>| at.map(Time::as_ns);
        let length = |length: Option<Duration>| length.map(|length| length.as_nanos());
        let mut out = String::from("{");
        let _ = write!(
            out,
            "\"id\":\"{:016x}\",\"outcome\":\"{}\",\"generation\":{},\"pid\":{},\"other\":{},\
             \"items\":{{\"moved\":{},\"new\":{},\"closed\":{},\"changed\":{},\"declined\":{},\
             \"dead\":{}}},\"adopted\":{},\"rounds\":{},\"cut_short\":{},\"fds\":{},\"bytes\":{},",
            self.id,
            escaped(outcome),
            self.generation,
            std::process::id(),
            self.other,
            self.items,
            self.last.new,
            self.last.closed,
            self.last.changed,
            self.declined,
            self.dead,
            self.adopted,
            self.rounds,
            self.is_cut_short(),
            self.fds,
            self.bytes,
        );
        let _ = write!(
            out,
            "\"begun_at\":{},\"welcome_at\":{},\"prepare_at\":{},\"held_at\":{},\"end_at\":{},\
             \"decided_at\":{},\"preload_ns\":{},\"freeze_ns\":{},\"whole_ns\":{},\"failure\":{}}}",
            Json(time(at.begun)),
            Json(time(at.welcome)),
            Json(time(at.prepare)),
            Json(time(at.held)),
            Json(time(at.end)),
            Json(time(at.decided)),
            Json(length(self.preload())),
            Json(length(self.freeze())),
            Json(length(self.whole())),
            Json(text(&self.failure)),
        );
        out
    }
}

/// A value, or null.
struct Json<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// As a string in JSON has to be (RFC 8259, 7).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out
}

fn span(from: Option<Time>, to: Option<Time>) -> Option<Duration> {
    Some(to?.since(from?))
}

/// The figures in one line for a log: `key=value`, times in milliseconds.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id={:016x} generation={} items={} closed={} new={} changed={} declined={} dead={} adopted={} rounds={} cut_short={} fds={} bytes={}",
            self.id,
            self.generation,
            self.items,
            self.last.closed,
            self.last.new,
            self.last.changed,
            self.declined,
            self.dead,
            self.adopted,
            self.rounds,
            self.is_cut_short(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            id: 0xab,
            generation: 3,
            other: 7,
            items: 5,
            last: Tally {
                closed: 1,
                new: 2,
                changed: 3,
            },
            declined: 4,
            dead: 6,
            adopted: true,
            rounds: 8,
            bytes: 9,
            fds: 10,
            times: Times {
                begun: Some(Time::from_ns(1_000)),
                held: Some(Time::from_ns(5_000)),
                decided: Some(Time::from_ns(25_000)),
                ..Times::default()
            },
            failure: "it said \"no\"\n".into(),
        }
    }

    #[test]
    fn line_names_every_fact_and_the_freeze() {
        let line = report().to_string();
        for fact in ["id=00000000000000ab", "items=5", "dead=6", "adopted=true"] {
            assert!(line.contains(fact), "{line}");
        }
        assert!(line.ends_with("freeze_ms=0.020 whole_ms=0.024"), "{line}");
    }

    #[test]
    fn json_has_the_same_facts_and_null_for_what_is_not_known() {
        let pid = std::process::id();
        let expected = format!(
            "{{\"id\":\"00000000000000ab\",\"outcome\":\"left\",\"generation\":3,\"pid\":{pid},\
             \"other\":7,\"items\":{{\"moved\":5,\"new\":2,\"closed\":1,\"changed\":3,\
             \"declined\":4,\"dead\":6}},\"adopted\":true,\"rounds\":8,\"cut_short\":false,\"fds\":10,\"bytes\":9,\
             \"begun_at\":1000,\"welcome_at\":null,\"prepare_at\":null,\"held_at\":5000,\
             \"end_at\":null,\"decided_at\":25000,\"preload_ns\":null,\"freeze_ns\":20000,\
             \"whole_ns\":24000,\"failure\":\"it said \\\"no\\\"\\u000a\"}}"
        );
        assert_eq!(report().json("left"), expected);
    }
    #[test]
    fn preload_that_left_more_than_a_batch_was_cut_short() {
        let mut report = report();
        report.last.changed = BATCH as u64 - report.last.closed - report.last.new;
        assert!(!report.is_cut_short());
        report.last.changed += 1;
        assert!(report.is_cut_short());
        assert!(report.to_string().contains(" cut_short=true "));
    }
}
