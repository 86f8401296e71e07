//! What a sweep comes to: how many were moved, and how long nobody served each of them.

use std::fmt;
use std::time::Duration;

use crate::roll::Outcome;

/// See the file's own description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    moved: usize,
    refused: usize,
    not_tried: usize,
    items: u64,
    /// One for each that was moved, the shortest first.
    freezes: Vec<Duration>,
}

impl Summary {
    /// Of these outcomes.
    #[must_use]
    pub fn of(outcomes: &[Outcome]) -> Summary {
        let mut summary = Summary {
            moved: 0,
            refused: 0,
            not_tried: 0,
            items: 0,
            freezes: Vec::new(),
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Moved(moved) => {
                    summary.moved += 1;
                    summary.items += moved.items;
                    summary.freezes.push(moved.freeze);
                }
                Outcome::Refused(_) => summary.refused += 1,
                Outcome::NotTried => summary.not_tried += 1,
            }
        }
        summary.freezes.sort_unstable();
        summary
    }

    /// Items that were moved, over all shards.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// The freeze that so many of a hundred shards did not exceed; `None` if none was moved.
    #[must_use]
    pub fn freeze(&self, of_a_hundred: usize) -> Option<Duration> {
        let rank = (self.freezes.len() * of_a_hundred).div_ceil(100);
        self.freezes.get(rank.saturating_sub(1)).copied()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replaced, {} items", self.moved, self.items)?;
        if self.refused + self.not_tried > 0 {
            write!(
                f,
                "; {} refused, {} not tried",
                self.refused, self.not_tried
            )?;
        }
        for (name, of_a_hundred) in [("freeze min", 0), ("p50", 50), ("p99", 99), ("max", 100)] {
            if let Some(freeze) = self.freeze(of_a_hundred) {
                write!(f, "; {name} {:.3} ms", freeze.as_secs_f64() * 1e3)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Moved, Refused};

    fn moved(freeze: u64) -> Outcome {
        Outcome::Moved(Moved {
            items: 10,
            freeze: Duration::from_micros(freeze),
            whole: Duration::from_millis(5),
            generation: 1,
        })
    }

    #[test]
    fn sweep_that_was_refused_counts_what_was_not_tried() {
        let refused = Outcome::Refused(Refused {
            code: Some(75),
            why: String::new(),
        });
        let summary = Summary::of(&[moved(30), refused, Outcome::NotTried]);
        let line = summary.to_string();
        assert!(
            line.starts_with("1 replaced, 10 items; 1 refused, 1 not tried"),
            "{line}"
        );
    }

    #[test]
    fn freezes_are_ranked() {
        let outcomes: Vec<_> = (1..=200).rev().map(moved).collect();
        let summary = Summary::of(&outcomes);
        assert_eq!(summary.freeze(50), Some(Duration::from_micros(100)));
        assert_eq!(summary.freeze(100), Some(Duration::from_micros(200)));
        assert_eq!(summary.freeze(0), Some(Duration::from_micros(1)));
        assert_eq!(summary.items(), 2000);
        assert_eq!(Summary::of(&[]).freeze(50), None);
    }
}
