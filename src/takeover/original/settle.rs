//! When the original's process may be ended: pure.
//!
//! A thread of its has a message inside exactly while it has read more of a peer than it has
//! written to it, because it echoes. So with all its threads stopped:
//!
//! | peers | |
//! |---|---|
//! | all are even, or gone | kill |
//! | one at least gets on: it is uneven, and was elsewhere a moment ago | continue, look again |
//! | the uneven ones are all stuck: their clients say no more, or do not read | kill, and end those |
//! | the last moment has come, or the process is dead | kill, and end the uneven ones |
//!
//! What is stuck is a matter of the peer, not of the clock alone: on a machine with much else to
//! do a thread may wait long for its turn, and its client is not to be ended for that.
//!
//! Invariants: a peer that is not known to be even is never served; nobody is ended while
//! another one gets on, before the last moment.

use std::time::Duration;

use crate::proto::sequence::MESSAGE;
use crate::takeover::os::positions::Positions;

/// One peer, seen while no thread of the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At a message boundary: all that was read was answered.
    Even,
    /// There is nobody to lose anything.
    Gone,
    /// A thread has bytes of it that are not answered, or that cannot be told.
    Moving,
    /// The same, and nothing has changed about it for long enough.
    Stuck,
}

/// What is known of a peer while no thread of the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where its thread is in the two streams, if that can be told.
    pub(super) positions: Option<Positions>,
    /// It has not been reset, nor ended on both sides.
    pub(super) is_connected: bool,
    /// It sends no more.
    pub(super) read_closed: bool,
    /// The process still has it open.
    pub(super) is_served: bool,
    /// How long its positions have been these.
    pub(super) unmoved: Duration,
}

impl Look {
    /// `patience`: how long a peer may be within a message without getting on.
    pub(super) fn of(seen: Seen, patience: Duration) -> Look {
        if !seen.is_connected {
            return Look::Gone;
        }
        let is_even = seen.positions.is_some_and(|at| {
            at.consumed == at.written && at.written.is_multiple_of(MESSAGE as u64)
        });
        // Its thread has read the end of the stream and left: what it had of a message can
        // never be one any more.
        let nobody_waits = seen.read_closed && !seen.is_served;
        if is_even || nobody_waits {
            Look::Even
        } else if seen.unmoved < patience {
            Look::Moving
        } else {
            Look::Stuck
        }
    }
}

/// What to do with the stopped process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Let it run on, and look again.
    Continue,
    /// Kill it: nothing is lost with it.
    Kill,
    /// Kill it, and end these peers, by their place among the looks.
    End(Vec<usize>),
}

/// `is_over`: the last moment has come, or there is no process that could get on.
pub(super) fn decide(looks: &[Look], is_over: bool) -> Decision {
    let mut unsettled = Vec::new();
    let mut gets_on = false;
    for (at, look) in looks.iter().enumerate() {
        match look {
            Look::Even | Look::Gone => {}
            Look::Moving => {
                gets_on = true;
                unsettled.push(at);
            }
            Look::Stuck => unsettled.push(at),
        }
    }
    if unsettled.is_empty() {
        Decision::Kill
    } else if gets_on && !is_over {
        Decision::Continue
    } else {
        Decision::End(unsettled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: [Look; 4] = [Look::Even, Look::Gone, Look::Moving, Look::Stuck];
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Every row of up to five peers, in time and over: 2,730 cases.
    #[test]
    fn every_combination_is_decided_for_the_clients() {
        let mut cases = 0;
        for length in 0..=5_u32 {
            for number in 0..4_usize.pow(length) {
                let looks: Vec<Look> = (0..length)
                    .map(|at| LOOKS[number / 4_usize.pow(at) % 4])
                    .collect();
                let is_bad = |at: &usize| matches!(looks[*at], Look::Moving | Look::Stuck);
                let bad: Vec<usize> = (0..looks.len()).filter(is_bad).collect();
                let gets_on = looks.contains(&Look::Moving);
                for is_over in [false, true] {
                    cases += 1;
                    match decide(&looks, is_over) {
                        Decision::Kill => assert!(bad.is_empty(), "{looks:?}"),
                        Decision::Continue => {
                            assert!(!is_over, "{looks:?}: would wait for ever");
                            assert!(gets_on, "{looks:?}: waits for nobody");
                        }
                        Decision::End(ended) => {
                            assert!(is_over || !gets_on, "{looks:?}: ended too soon");
                            assert_eq!(ended, bad, "{looks:?}");
                            assert!(!ended.is_empty());
                        }
                    }
                }
            }
        }
        assert_eq!(cases, 2 * (1 + 4 + 16 + 64 + 256 + 1024));
    }

    #[test]
    fn peer_is_even_only_at_a_message_boundary() {
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let just = [
            (Duration::ZERO, Look::Moving),
            (PATIENCE - Duration::from_nanos(1), Look::Moving),
            (PATIENCE, Look::Stuck),
        ];
        for ((read_closed, is_served), (unmoved, uneven)) in flags
            .into_iter()
            .flat_map(|flag| just.map(|just| (flag, just)))
        {
            let look = |positions, is_connected| {
                let seen = Seen {
                    positions,
                    is_connected,
                    read_closed,
                    is_served,
                    unmoved,
                };
                Look::of(seen, PATIENCE)
            };
            let nobody_waits = read_closed && !is_served;
            let expected = |even| {
                if even || nobody_waits {
                    Look::Even
                } else {
                    uneven
                }
            };
            for consumed in 0..=12 {
                for written in 0..=12 {
                    let even = consumed == written && written % 4 == 0;
                    let at = Some(Positions { consumed, written });
                    assert_eq!(look(at, true), expected(even), "{at:?}");
                    assert_eq!(look(at, false), Look::Gone);
                }
            }
            assert_eq!(look(None, true), expected(false));
            assert_eq!(look(None, false), Look::Gone);
        }
    }
}
