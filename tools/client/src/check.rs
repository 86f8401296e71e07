//! What came back against what was sent: a pure classifier, one for each connection.
//!
//! The server echoes the counter that was sent, so the expected stream is known without
//! storing it. What arrives is cut into words of four bytes. A word is the number nearest
//! to the expected one (numbers wrap after 2³² messages), if that number was ever sent:
//!
//! | the number is                 | finding                                             |
//! |-------------------------------|-----------------------------------------------------|
//! | the expected one              | [`Finding::InOrder`]                                |
//! | a later one                   | [`Finding::Skipped`]: those before it are *missing* |
//! | a missing one                 | [`Finding::Late`]: it was reordered                 |
//! | another smaller one           | [`Finding::Doubled`]: it was answered already       |
//! | none: the bytes match nothing | [`Finding::Corrupted`], once a run                  |
//!
//! Reordered is what comes after a larger number (RFC 4737, section 3), so a message that
//! is overtaken counts, not the one that overtakes. What is missing when the connection ends is *lost*; so is what was never answered.
//!
//! One fault must stay one finding, also when it shifts the stream by a byte and every word
//! after it looks wrong. An unexpected word is therefore judged with the bytes after it, up
//! to [`LOOKAHEAD`] in all:
//! - the word after it is its successor, or the expected number: it is believed at once;
//! - a reading shifted by 1 to 7 bytes meets two consecutive numbers: what lies before them
//!   is a damaged run. (Two aligned words *a*, *b* never look consecutive when shifted,
//!   unless *a* = *b*: their difference is multiplied by a power of 256.) Without a shift
//!   only a number far ahead is overruled, and only by the two that come after the expected
//!   one: then it stands where the expected one should be;
//! - nothing of that: a number that fits is believed, any other word is damaged.
//!
//! Damaged bytes destroy the answer to as many messages as they are words long, rounded up,
//! if so many are missing at that place: these count as *damaged* instead of lost.
//!
//! Invariants: findings depend on the bytes alone, not on how they were cut into reads; and
//! after [`Checker::finish`], sent = in order + late + damaged + lost.

use std::collections::VecDeque;
use std::ops::Range;

use crate::message::{WORD, encode, whole_in};

/// The furthest shift at which a lost stream is looked for.
const MAX_SHIFT: usize = 2 * WORD - 1;
/// Bytes that decide about any unexpected word: the furthest shift and two words.
pub const LOOKAHEAD: usize = MAX_SHIFT + 2 * WORD;
/// Gaps that are remembered, so that a server that answers every other message does not
/// fill the memory. An answer into a forgotten gap counts as doubled.
const MAX_GAPS: usize = 1024;

/// One thing seen in the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// `count` messages from `first` on were answered in turn.
    InOrder {
        /// Number of the first of them.
        first: u64,
        /// How many, at least 1.
        count: u64,
    },
    /// A larger number came, these are missing for now.
    Skipped {
        /// Number of the first one missing.
        first: u64,
        /// How many, at least 1.
        count: u64,
    },
    /// A missing number came after all.
    Late {
        /// The number.
        number: u64,
    },
    /// A number that was answered already came again.
    Doubled {
        /// The number.
        number: u64,
    },
    /// A run of bytes that match nothing has ended.
    Corrupted {
        /// The number that was expected where the run began.
        expected: u64,
        /// Length of the run.
        bytes: u64,
        /// Messages from `expected` on whose answers it destroyed.
        damaged: u64,
    },
}

/// The state of one connection's answers.
#[derive(Debug, Default)]
pub struct Checker {
    /// The expected number: all below are answered, damaged or missing.
    next: u64,
    missing: VecDeque<Range<u64>>,
    forgotten: u64,
    /// Length of the damaged run that has not ended yet.
    run: u64,
    /// Bytes that could not be judged yet, fewer than [`LOOKAHEAD`].
    tail: Vec<u8>,
}

enum Judgement {
    /// More bytes are needed.
    Wait,
    /// The word at the head is this number.
    Number(u64),
    /// So many bytes at the head match nothing.
    Damaged(usize),
}

impl Checker {
    /// Takes bytes as they were read and adds to `findings` what they mean. `written` is
    /// how many bytes the connection has sent so far; it never goes back.
    pub fn push(&mut self, bytes: &[u8], written: u64, findings: &mut Vec<Finding>) {
        if self.tail.is_empty() {
            let used = self.scan(bytes, whole_in(written), false, findings);
            self.tail.extend_from_slice(&bytes[used..]);
        } else {
            self.tail.extend_from_slice(bytes);
            self.scan_tail(whole_in(written), false, findings);
        }
    }

    /// Judges what is there as if nothing followed. To be called when an answer under
    /// suspicion ([`Checker::is_undecided`]) got no company for a while: a connection that
    /// waits for that very answer would wait for ever.
    pub fn settle(&mut self, written: u64, findings: &mut Vec<Finding>) {
        let sent = whole_in(written);
        self.scan_tail(sent, true, findings);
        if self.tail.is_empty() && self.run.div_ceil(WORD as u64) >= sent - self.next {
            self.end_run(sent, findings);
        }
    }

    /// Judges everything: nothing will follow. Returns how many messages are lost.
    pub fn finish(&mut self, written: u64, findings: &mut Vec<Finding>) -> u64 {
        let sent = whole_in(written);
        self.scan_tail(sent, true, findings);
        if self.run > 0 || !self.tail_is_begun_answer(written) {
            self.run += self.tail.len() as u64;
        }
        self.tail.clear();
        self.end_run(sent, findings);
        let unanswered = sent - self.next;
        self.next = sent;
        let lost = self.missing() + self.forgotten + unanswered;
        self.missing.clear();
        self.forgotten = 0;
        lost
    }

    /// The expected number: all smaller ones are answered, damaged or missing.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Messages that were skipped and may still come.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Whether there is an unexpected word that waits for the bytes after it, or a damaged
    /// run that nothing has ended yet.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.tail.len() >= WORD || self.run > 0
    }

    fn scan_tail(&mut self, sent: u64, last: bool, findings: &mut Vec<Finding>) {
        let mut tail = std::mem::take(&mut self.tail);
        let used = self.scan(&tail, sent, last, findings);
        tail.drain(..used);
        tail.shrink_to(LOOKAHEAD);
        self.tail = tail;
    }

    /// Returns how many bytes were judged.
    fn scan(&mut self, bytes: &[u8], sent: u64, last: bool, findings: &mut Vec<Finding>) -> usize {
        let mut at = 0;
        loop {
            at += self.take_in_order(&bytes[at..], sent, findings);
            match self.judge(&bytes[at..], sent, last) {
                Judgement::Wait => return at,
                Judgement::Number(number) => {
                    self.take_unexpected(number, findings);
                    at += WORD;
                }
                Judgement::Damaged(bytes) => {
                    self.run += bytes as u64;
                    at += bytes;
                }
            }
        }
    }

    /// The path that everything takes when nothing is wrong. Returns the bytes taken.
    fn take_in_order(&mut self, bytes: &[u8], sent: u64, findings: &mut Vec<Finding>) -> usize {
        let words = bytes.chunks_exact(WORD);
        let count = words
            .zip(self.next..sent)
            .take_while(|(word, number)| **word == encode(*number))
            .count();
        if count > 0 {
            self.end_run(self.next, findings);
            findings.push(Finding::InOrder {
                first: self.next,
                count: count as u64,
            });
            self.next += count as u64;
        }
        count * WORD
    }

    fn take_unexpected(&mut self, number: u64, findings: &mut Vec<Finding>) {
        self.end_run(number, findings);
        if number >= self.next {
            if number > self.next {
                self.remember_gap(self.next..number);
                findings.push(Finding::Skipped {
                    first: self.next,
                    count: number - self.next,
                });
            }
            findings.push(Finding::InOrder {
                first: number,
                count: 1,
            });
            self.next = number + 1;
        } else if self.take_missing(number) {
            findings.push(Finding::Late { number });
        } else {
            findings.push(Finding::Doubled { number });
        }
    }

    /// Ends the damaged run, if there is one, before `number`: it pays for what is missing
    /// between the expected number and this one, as far as its length goes.
    fn end_run(&mut self, number: u64, findings: &mut Vec<Finding>) {
        if self.run == 0 {
            return;
        }
        let gap = number.saturating_sub(self.next);
        let damaged = gap.min(self.run.div_ceil(WORD as u64));
        findings.push(Finding::Corrupted {
            expected: self.next,
            bytes: self.run,
            damaged,
        });
        self.next += damaged;
        self.run = 0;
    }

    fn judge(&self, bytes: &[u8], sent: u64, last: bool) -> Judgement {
        let Some(head) = word_at(bytes, 0) else {
            return Judgement::Wait;
        };
        let head = self.number(head, sent);
        let follower = word_at(bytes, WORD).and_then(|word| self.number(word, sent));
        if let (Some(head), Some(follower)) = (head, follower)
            && (follower == head + 1 || follower == self.next)
        {
            return Judgement::Number(head);
        }
        for shift in 1..=MAX_SHIFT {
            let Some(first) = word_at(bytes, shift) else {
                if last { break } else { return Judgement::Wait }
            };
            let Some(first) = self.number(first, sent).filter(|&n| n >= self.next) else {
                continue;
            };
            let believed = match head {
                Some(head) if shift == WORD => head <= first || first != self.next + 1,
                _ => false,
            };
            if believed {
                continue;
            }
            match word_at(bytes, shift + WORD) {
                Some(second) if self.number(second, sent) == Some(first + 1) => {
                    return Judgement::Damaged(shift);
                }
                Some(_) => {}
                None if !last => return Judgement::Wait,
                // Nothing follows. A reading that uses the bytes up to the last one is the
                // better one, unless the unshifted reading does so too.
                None => {
                    let ends_here = bytes.len() == shift + WORD;
                    if ends_here && (head.is_none() || shift != WORD) {
                        return Judgement::Damaged(shift);
                    }
                }
            }
        }
        head.map_or(Judgement::Damaged(WORD), Judgement::Number)
    }

    /// The number that a word stands for: the one nearest to the expected number, if it was
    /// sent.
    fn number(&self, word: u32, sent: u64) -> Option<u64> {
        // Both casts cut to the low 32 bits on purpose: the difference modulo 2³², signed.
        let distance = word.wrapping_sub(self.next as u32) as i32;
        let number = self.next.checked_add_signed(i64::from(distance))?;
        (number < sent).then_some(number)
    }

    fn remember_gap(&mut self, gap: Range<u64>) {
        if self.missing.len() == MAX_GAPS
            && let Some(oldest) = self.missing.pop_front()
        {
            self.forgotten += oldest.end - oldest.start;
        }
        self.missing.push_back(gap);
    }

    /// Whether `number` was missing; it is not any more.
    fn take_missing(&mut self, number: u64) -> bool {
        // Gaps are in ascending order: each begins at an expected number.
        let index = self.missing.partition_point(|gap| gap.end <= number);
        let Some(gap) = self.missing.get_mut(index) else {
            return false;
        };
        if !gap.contains(&number) {
            return false;
        }
        let after = number + 1..gap.end;
        gap.end = number;
        if gap.is_empty() {
            self.missing.remove(index);
            if !after.is_empty() {
                self.missing.insert(index, after);
            }
        } else if !after.is_empty() {
            self.missing.insert(index + 1, after);
        }
        true
    }

    /// Whether the 0 to 3 bytes left over are the beginning of the expected answer, as far
    /// as it was sent: a server may echo before a message is whole.
    fn tail_is_begun_answer(&self, written: u64) -> bool {
        encode(self.next).starts_with(&self.tail)
            && self.next * WORD as u64 + self.tail.len() as u64 <= written
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + WORD)?;
    word.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;
