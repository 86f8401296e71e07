//! The digest of the final array, which END carries.
//!
//! It guards against mistakes, not against enemies: a record that was lost, doubled, swapped or
//! damaged between the donor's encoder and the taker's decoder. The channel's identity checks keep
//! enemies out. It takes eight bytes a step. A full record of 64 KiB costs the freeze about 14 µs;
//! the usual record of a few changed states costs less than one.
//!
//! Each step is a bijection of the state (xor, multiplication by an odd number, xorshift),
//! so two arrays that differ in one word of one record never have the same digest. The
//! length of each record is hashed as well: bytes that moved across a boundary show.
//!
//! The value is part of the wire format. Changing the function needs a new wire version.

/// Start of the chain, so that leading zeros count.
const SEED: u64 = 0xCBF2_9CE4_8422_2325;
/// 2⁶⁴ divided by the golden ratio, made odd: spreads each bit upwards.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The running digest of the final array's records. It guards against mistakes, not enemies.
///
/// ```
/// use socket_takeover::proto::digest::Digest;
///
/// let mut digest = Digest::default();
/// digest.update(b"first record").update(b"second record");
/// assert_ne!(digest, *Digest::default().update(b"second record").update(b"first record"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(SEED)
    }
}

impl Digest {
    /// Adds one whole record, header and sequence number included. Add records in the order in
    /// which they are sent.
    pub fn update(&mut self, record: &[u8]) -> &mut Self {
        self.step(record.len() as u64);
        let (words, tail) = record.as_chunks();
        for word in words {
            self.step(u64::from_le_bytes(*word));
        }
        if !tail.is_empty() {
            let mut word = [0; 8];
            word[..tail.len()].copy_from_slice(tail);
            self.step(u64::from_le_bytes(word));
        }
        self
    }

    /// The digest of all records so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
    }

    fn step(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(SPREAD);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(records: &[&[u8]]) -> u64 {
        let mut digest = Digest::default();
        for record in records {
            digest.update(record);
        }
        digest.value()
    }

    #[test]
    fn known_records_have_their_golden_value() {
        assert_eq!(digest(&[]), SEED);
        assert_eq!(digest(&[b"SKTO", b"0123456789"]), 0x1804_6AF0_0439_E86D);
    }

    #[test]
    fn lost_doubled_swapped_or_rejoined_records_show() {
        let whole = digest(&[b"ab", b"cd", b"cd"]);
        assert_ne!(whole, digest(&[b"ab", b"cd"]));
        assert_ne!(whole, digest(&[b"cd", b"ab", b"cd"]));
        assert_ne!(whole, digest(&[b"a", b"bcd", b"cd"]));
        assert_ne!(digest(&[b"a"]), digest(&[b"a\0"]));
        assert_ne!(digest(&[]), digest(&[b""]));
    }

    proptest! {
        #[test]
        fn any_change_of_one_byte_shows(
            mut record in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let before = digest(&[b"x", &record, b"y"]);
            *at.get_mut(&mut record) ^= change;
            prop_assert_ne!(before, digest(&[b"x", &record, b"y"]));
        }
    }
}
