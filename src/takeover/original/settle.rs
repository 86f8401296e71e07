//! When the original's process may be ended: pure.
//!
//! A thread of its has a message inside exactly while it has read more of a peer than it has
//! written to it, because it echoes. So with all its threads stopped:
//!
//! | every peer | time | |
//! |---|---|---|
//! | even, or gone | | kill |
//! | one at least is uneven or unclear | left | continue: it gets on, and is looked at again |
//! | the same | up, or the process is dead | kill, and end those |
//!
//! Invariants: a peer that is not known to be even is never served; as long as there is time,
//! nobody is ended.

use crate::proto::sequence::MESSAGE;
use crate::takeover::positions::Positions;

/// One peer, seen while no thread of the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At a message boundary: all that was read was answered.
    Even,
    /// A thread has bytes of it that are not answered.
    Uneven,
    /// There is nobody to lose anything.
    Gone,
    /// It cannot be told.
    Unclear,
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
}

impl Look {
    pub(super) fn of(seen: Seen) -> Look {
        if !seen.is_connected {
            return Look::Gone;
        }
        let Some(Positions { consumed, written }) = seen.positions else {
            return Look::Unclear;
        };
        let is_even = consumed == written && written.is_multiple_of(MESSAGE as u64);
        // Its thread has read the end of the stream and left: what it had of a message can
        // never be one any more.
        let nobody_waits = seen.read_closed && !seen.is_served;
        if is_even || nobody_waits {
            Look::Even
        } else {
            Look::Uneven
        }
    }

    fn is_settled(self) -> bool {
        match self {
            Look::Even | Look::Gone => true,
            Look::Uneven | Look::Unclear => false,
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

/// `is_late`: there is no time left, or no process that could get on.
pub(super) fn decide(looks: &[Look], is_late: bool) -> Decision {
    let unsettled: Vec<usize> = (0..looks.len())
        .filter(|at| !looks[*at].is_settled())
        .collect();
    match (unsettled.is_empty(), is_late) {
        (true, _) => Decision::Kill,
        (false, false) => Decision::Continue,
        (false, true) => Decision::End(unsettled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: [Look; 4] = [Look::Even, Look::Uneven, Look::Gone, Look::Unclear];

    /// Every row of up to five peers, in time and late: 2,730 cases.
    #[test]
    fn every_combination_is_decided_for_the_clients() {
        let mut cases = 0;
        for length in 0..=5_u32 {
            for number in 0..4_usize.pow(length) {
                let looks: Vec<Look> = (0..length)
                    .map(|at| LOOKS[number / 4_usize.pow(at) % 4])
                    .collect();
                for is_late in [false, true] {
                    cases += 1;
                    let is_bad = |at: &usize| matches!(looks[*at], Look::Uneven | Look::Unclear);
                    let bad: Vec<usize> = (0..looks.len()).filter(is_bad).collect();
                    match decide(&looks, is_late) {
                        Decision::Kill => assert!(bad.is_empty(), "{looks:?}"),
                        Decision::Continue => {
                            assert!(!is_late, "{looks:?}: would wait for ever");
                            assert!(!bad.is_empty(), "{looks:?}: waits for nobody");
                        }
                        Decision::End(ended) => {
                            assert!(is_late, "{looks:?}: somebody is ended in time");
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
        for (read_closed, is_served) in flags {
            let seen = |positions, is_connected| Seen {
                positions,
                is_connected,
                read_closed,
                is_served,
            };
            let nobody_waits = read_closed && !is_served;
            for consumed in 0..=12 {
                for written in 0..=12 {
                    let even = (consumed == written && written % 4 == 0) || nobody_waits;
                    let expected = if even { Look::Even } else { Look::Uneven };
                    let at = Some(Positions { consumed, written });
                    assert_eq!(Look::of(seen(at, true)), expected, "{at:?}");
                    assert_eq!(Look::of(seen(at, false)), Look::Gone);
                }
            }
            assert_eq!(Look::of(seen(None, true)), Look::Unclear);
            assert_eq!(Look::of(seen(None, false)), Look::Gone);
        }
    }
}
