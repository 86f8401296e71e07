//! A small generator. Every run prints its seed, and `SEED=…` in the environment repeats it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one, and any point of its
/// sequence can be had without the ones before it.
#[derive(Debug, Clone)]
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number within `range`, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the bytes of stream `key` from `position` on into `out`.
pub fn fill(key: u64, position: u64, out: &mut [u8]) {
    let word = |number: u64| mix(key.wrapping_add(number.wrapping_mul(STEP))).to_le_bytes();
    let (mut number, within) = (position / 8, (position % 8) as usize);
    let (head, rest) = out.split_at_mut(out.len().min((8 - within) % 8));
    if !head.is_empty() {
        head.copy_from_slice(&word(number)[within..][..head.len()]);
        number += 1;
    }
    for (part, number) in rest.chunks_mut(8).zip(number..) {
        part.copy_from_slice(&word(number)[..part.len()]);
    }
}

/// The seed of this run, printed: that of `SEED`, else a new one.
pub fn seed() -> u64 {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    if super::is_heard() {
        println!("SEED={seed}");
    }
    seed
}
