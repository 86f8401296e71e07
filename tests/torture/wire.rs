//! What either side of a takeover may be told by the other: its whole conversation, with each
//! record spoilt in every way, said to a real process.
//!
//! | spoilt | how often, in full |
//! |---|---|
//! | missing, doubled, changed places with the next | once each, with the number in its turn and without |
//! | cut short | at every length |
//! | a byte changed | each of them, all its bits and one |
//! | its length | 0, 1, one less, one more, the most and one more, 2³² − 1 |
//! | descriptors | one less, one more, two more |
//!
//! Whether a changed record is one is asked of the decoder, whose own tests
//! (`proto/records/tests`) try all 255 changes of each byte: a record that is none must end the
//! attempt; one that still is one may do so, or say something else that is allowed. The short
//! form takes every so many of the cuts and changes, others with each seed, since a taker is a
//! process for each; all the rest is done in full.
//!
//! | file | |
//! |---|---|
//! | `wire/at_donor.rs` | a donor with clients, its taker played |
//! | `wire/at_taker.rs` | takers, their donor played |

mod at_donor;
mod at_taker;

use std::collections::BTreeMap;

use socket_takeover::proto::records;
use socket_takeover::proto::wire::{HEADER, MAX_RECORD, patch_sequence};

use crate::options::Options;
use crate::support::Random;

/// Of the cuts and changes, the short form does one in so many.
const DONOR_SPREAD: usize = 5;
const TAKER_SPREAD: usize = 29;

/// One way to spoil a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spoil {
    Missing,
    /// Said twice; true if the second has a number of its own.
    Doubled(bool),
    /// Said behind the one that follows; true if each has the number of its place.
    Swapped(bool),
    Cut(usize),
    Changed(usize, u8),
    Length(Length),
    /// So many descriptors more.
    Fds(isize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Is(u32),
    Off(i32),
}

/// What is said in place of one record.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) bytes: Vec<u8>,
    /// Descriptors more or less than belong to it.
    pub(crate) fds: isize,
}

impl Spoil {
    /// Every way to spoil a record of `length` bytes; of the cuts and changes each of them, or
    /// one in `spread`.
    pub(crate) fn all(length: usize, spread: usize, random: &mut Random) -> Vec<Spoil> {
        let mut all = vec![
            Spoil::Missing,
            Spoil::Doubled(false),
            Spoil::Doubled(true),
            Spoil::Swapped(false),
            Spoil::Swapped(true),
            Spoil::Fds(-1),
            Spoil::Fds(1),
            Spoil::Fds(2),
        ];
        let most = MAX_RECORD as u32;
        for is in [0, 1, HEADER as u32, most, most + 1, u32::MAX] {
            if is as usize != length {
                all.push(Spoil::Length(Length::Is(is)));
            }
        }
        all.extend([-1, 1].map(|off| Spoil::Length(Length::Off(off))));
        let mut spread_out = Vec::new();
        spread_out.extend((1..length).map(Spoil::Cut));
        for at in 0..length {
            let bit = 1 << random.within(0..8);
            spread_out.extend([0xFF, bit].map(|with| Spoil::Changed(at, with)));
        }
        let first = random.within(0..spread as u64) as usize;
        all.extend(spread_out.into_iter().skip(first).step_by(spread));
        all
    }

    /// What is said in place of `good`, which has its number, and of `next`, which has none,
    /// and whether none of it may be taken for good.
    pub(crate) fn of(self, good: &[u8], next: Option<&[u8]>) -> (Vec<Said>, bool) {
        let number = u32::from_le_bytes(good[12..16].try_into().unwrap());
        let plain = |bytes: Vec<u8>| Said { bytes, fds: 0 };
        let numbered = |bytes: &[u8], number: u32| {
            let mut bytes = bytes.to_vec();
            patch_sequence(&mut bytes, number);
            plain(bytes)
        };
        let mut bytes = good.to_vec();
        match self {
            Spoil::Missing => match next {
                Some(next) => (vec![numbered(next, number)], true),
                None => (Vec::new(), false),
            },
            Spoil::Doubled(own) => {
                let second = number + u32::from(own);
                (vec![plain(bytes), numbered(good, second)], !own)
            }
            Spoil::Swapped(own) => match next {
                Some(next) if own => (
                    vec![numbered(next, number), numbered(good, number + 1)],
                    true,
                ),
                Some(next) => (vec![numbered(next, number + 1), plain(bytes)], true),
                None => (Vec::new(), false),
            },
            Spoil::Cut(length) => {
                bytes.truncate(length);
                (vec![plain(bytes)], true)
            }
            Spoil::Changed(at, with) => {
                bytes[at] ^= with;
                let renumbered = (12..16).contains(&at);
                (vec![plain(bytes)], renumbered)
            }
            Spoil::Length(length) => {
                let length = match length {
                    Length::Is(length) => length,
                    Length::Off(off) => (good.len() as u32).wrapping_add_signed(off),
                };
                bytes[8..12].copy_from_slice(&length.to_le_bytes());
                (vec![plain(bytes)], true)
            }
            Spoil::Fds(fds) => (vec![Said { bytes, fds }], true),
        }
    }

    /// The word of the table.
    fn name(self) -> &'static str {
        match self {
            Spoil::Missing => "missing",
            Spoil::Doubled(_) => "doubled",
            Spoil::Swapped(_) => "swapped",
            Spoil::Cut(_) => "cut short",
            Spoil::Changed(..) => "byte changed",
            Spoil::Length(_) => "length",
            Spoil::Fds(_) => "descriptors",
        }
    }
}

/// Whether the decoder takes it for a record that came with so many descriptors.
pub(crate) fn is_record(bytes: &[u8], fds: usize) -> bool {
    records::decode(bytes, fds).is_ok()
}

/// How often what was tried, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<(String, &'static str, &'static str), usize>);

impl Table {
    pub(crate) fn count(&mut self, record: &str, spoil: Spoil, outcome: &'static str) {
        let key = (record.to_owned(), spoil.name(), outcome);
        *self.0.entry(key).or_default() += 1;
    }

    fn print(&self, to: &str) {
        show!("said to a {to}:");
        for ((record, spoil, outcome), count) in &self.0 {
            show!("  {record:<22} {spoil:<13} {outcome:<22} {count:>6}");
        }
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let spread = |short: usize| if options.short { short } else { 1 };
    if options.wants("donor") {
        let table = at_donor::run(options, spread(DONOR_SPREAD))?;
        table.print("donor");
        show!("{} in all, and the donor serves as before", table.total());
    }
    if options.wants("taker") {
        let table = at_taker::run(options, spread(TAKER_SPREAD))?;
        table.print("taker");
        show!("{} in all, and no taker owned by mistake", table.total());
    }
    Ok(())
}
