//! The far deadlines, in buckets that get wider the further away they are.
//!
//! ```text
//!   level 0   64 buckets of 1.05 ms  ┐
//!   level 1   64 buckets of 67 ms    │ a deadline lies at the highest level at which its tick
//!   level 2   64 buckets of 4.3 s    │ differs from the horizon, so all of one level come
//!    …                               │ before all of the next
//!   level 7   64 buckets of 146 y    ┘
//! ```
//! A tick is 2²⁰ ns. The horizon is the tick up to which everything has left the wheel. Moving the
//! horizon on takes whole buckets out. What is in them either lies behind the horizon, or goes back
//! in at a lower level: at most once a level, so eight times in its life at most.
//!
//! A bucket is an array of slot numbers, not a linked list. Emptying it reads its nodes
//! independently of each other, so the memory's latency is paid once and not once a node. A bucket
//! keeps its memory, so that a wheel under a steady load does not allocate.
//!
//! The price: a bucket is emptied in one go. If a million deadlines are spread over a minute, a
//! bucket of level 2 holds 70,000 of them. Emptying it takes some milliseconds, once in 4.3 s.
//!
//! Invariants:
//! - every entry's tick lies beyond the horizon;
//! - the bit of a bucket is set exactly while it holds something;
//! - the floor of a bucket is no later than any mark in it, and the earliest of them exactly
//!   unless the bucket is `blurred`.

use super::Time;

/// A tick is 2 to the power of this in nanoseconds: about what epoll_wait(2) can tell apart.
const TICK_BITS: u32 = 20;
/// A level has 2 to the power of this buckets: as many as a word has bits.
const LEVEL_BITS: u32 = 6;
const BUCKETS: usize = 1 << LEVEL_BITS;
/// What is left of 64 bits, in levels.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(LEVEL_BITS) as usize;
/// An empty bucket gives memory for more entries than this back.
const KEPT: usize = 4096;

/// A place in the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    bucket: u16,
    index: u32,
}

#[derive(Debug)]
pub(super) struct Wheel {
    /// All levels, one after the other.
    buckets: Box<[Bucket]>,
    /// Of each level, which buckets hold something.
    occupied: [u64; LEVELS],
    /// The tick up to which everything has left.
    horizon: u64,
}

#[derive(Debug, Clone)]
struct Bucket {
    /// Slots of nodes, in no order.
    entries: Vec<u32>,
    floor: Time,
    /// The one that made the floor has gone or was pushed later.
    blurred: bool,
}

/// The first bucket that holds something.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    bucket: u16,
    /// Its ticks.
    begins: u64,
    ends: u64,
    /// Nothing in it is earlier.
    pub(super) floor: Time,
    pub(super) blurred: bool,
    pub(super) len: usize,
}

impl Wheel {
    /// An empty one with its horizon at `now`.
    pub(super) fn new(now: Time) -> Wheel {
        let empty = Bucket {
            entries: Vec::new(),
            floor: Time::MAX,
            blurred: false,
        };
        Wheel {
            buckets: vec![empty; LEVELS * BUCKETS].into_boxed_slice(),
            occupied: [0; LEVELS],
            horizon: tick(now),
        }
    }

    /// Puts a slot in; `None` if the time lies behind the horizon.
    pub(super) fn insert(&mut self, at: Time, slot: u32) -> Option<Spot> {
        let tick = tick(at);
        if tick <= self.horizon {
            return None;
        }
        let level = (tick ^ self.horizon).ilog2() / LEVEL_BITS;
        let number = (tick >> (level * LEVEL_BITS)) as usize % BUCKETS;
        self.occupied[level as usize] |= 1 << number;
        let bucket = level as usize * BUCKETS + number;
        let Bucket {
            entries,
            floor,
            blurred,
        } = &mut self.buckets[bucket];
        if entries.is_empty() || at < *floor {
            (*floor, *blurred) = (at, false);
        }
        entries.push(slot);
        Some(Spot {
            bucket: bucket as u16,
            index: entries.len() as u32 - 1,
        })
    }

    /// Takes the slot at `spot` out, whose mark is `at`. Returns the slot that has got its spot.
    pub(super) fn remove(&mut self, spot: Spot, at: Time) -> Option<u32> {
        self.blur(spot, at);
        let entries = &mut self.buckets[usize::from(spot.bucket)].entries;
        entries.swap_remove(spot.index as usize);
        if entries.is_empty() {
            self.vacate(spot.bucket);
            return None;
        }
        entries.get(spot.index as usize).copied()
    }

    /// The mark `at` of this spot does not tell the time of its deadline any more.
    pub(super) fn blur(&mut self, spot: Spot, at: Time) {
        let bucket = &mut self.buckets[usize::from(spot.bucket)];
        bucket.blurred |= at == bucket.floor;
    }

    /// The bucket that holds the earliest.
    pub(super) fn first(&self) -> Option<First> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let number = self.occupied[level].trailing_zeros();
        let bucket = level * BUCKETS + number as usize;
        let (width, above) = (level as u32 * LEVEL_BITS, (level as u32 + 1) * LEVEL_BITS);
        let begins = (self.horizon >> above << above) + (u64::from(number) << width);
        let Bucket {
            entries,
            floor,
            blurred,
        } = &self.buckets[bucket];
        Some(First {
            bucket: bucket as u16,
            begins,
            ends: begins + (1 << width) - 1,
            floor: *floor,
            blurred: *blurred,
            len: entries.len(),
        })
    }

    /// Moves the horizon to `now`, but no further than the end of the first bucket that it
    /// meets. That is emptied into `out`; false if there was none.
    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<u32>) -> bool {
        let now = tick(now);
        let met = self.first().filter(|first| first.begins <= now);
        let end = met.map_or(now, |first| first.ends.min(now));
        self.horizon = self.horizon.max(end);
        if let Some(first) = met {
            self.take(first, out);
        }
        met.is_some()
    }

    /// Empties a bucket into `out`, whose memory it gets.
    pub(super) fn take(&mut self, first: First, out: &mut Vec<u32>) {
        out.clear();
        out.shrink_to(KEPT);
        std::mem::swap(out, &mut self.buckets[usize::from(first.bucket)].entries);
        self.vacate(first.bucket);
    }

    fn vacate(&mut self, bucket: u16) {
        let (level, number) = (usize::from(bucket) / BUCKETS, usize::from(bucket) % BUCKETS);
        self.occupied[level] &= !(1 << number);
    }
}

fn tick(at: Time) -> u64 {
    at.as_ns() >> TICK_BITS
}
