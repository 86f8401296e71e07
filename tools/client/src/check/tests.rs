use super::*;
use proptest::prelude::*;

const SENT: u64 = 40;

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| encode(number)).collect()
}

fn stream(numbers: Range<u64>) -> Vec<u8> {
    numbers.flat_map(encode).collect()
}

/// What a whole run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Totals {
    in_order: u64,
    late: u64,
    doubled: u64,
    runs: u64,
    bytes: u64,
    damaged: u64,
    lost: u64,
}

impl Totals {
    fn add(&mut self, findings: &[Finding]) {
        for finding in findings {
            match *finding {
                Finding::InOrder { count, .. } => self.in_order += count,
                Finding::Skipped { .. } => {}
                Finding::Late { .. } => self.late += 1,
                Finding::Doubled { .. } => self.doubled += 1,
                Finding::Corrupted { bytes, damaged, .. } => {
                    self.runs += 1;
                    self.bytes += bytes;
                    self.damaged += damaged;
                }
            }
        }
    }

    fn answered_or_not(&self) -> u64 {
        self.in_order + self.late + self.damaged + self.lost
    }
}

/// Judges `bytes` as the whole answer to `sent` messages, in reads of the given lengths.
fn judge_in_reads(bytes: &[u8], sent: u64, mut reads: impl Iterator<Item = usize>) -> Totals {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = reads.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (read, left) = rest.split_at(length);
        checker.push(read, sent * 4, &mut findings);
        rest = left;
    }
    let lost = checker.finish(sent * 4, &mut findings);
    let mut totals = Totals {
        lost,
        ..Totals::default()
    };
    totals.add(&findings);
    totals
}

fn judge(bytes: &[u8]) -> Totals {
    let whole = judge_in_reads(bytes, SENT, std::iter::empty());
    let bytewise = judge_in_reads(bytes, SENT, std::iter::repeat(1));
    assert_eq!(
        whole, bytewise,
        "findings depend on how the bytes were read"
    );
    assert_eq!(whole.answered_or_not(), SENT);
    whole
}

fn all_but(lost: u64) -> Totals {
    Totals {
        in_order: SENT - lost,
        lost,
        ..Totals::default()
    }
}

#[test]
fn whole_stream_is_in_order() {
    assert_eq!(judge(&stream(0..SENT)), all_but(0));
}

#[test]
fn nothing_answered_is_all_lost() {
    assert_eq!(judge(&[]), all_but(SENT));
}

#[test]
fn cut_stream_loses_the_rest_and_is_not_corrupt() {
    for cut in 0..4 {
        assert_eq!(judge(&stream(0..SENT)[..36 + cut]), all_but(SENT - 9));
    }
}

#[test]
fn lost_message_is_one_lost_wherever_it_was() {
    for gone in 0..SENT {
        let bytes = [stream(0..gone), stream(gone + 1..SENT)].concat();
        assert_eq!(judge(&bytes), all_but(1), "message {gone}");
    }
}

#[test]
fn lost_block_is_its_length_lost() {
    let bytes = [stream(0..10), stream(17..SENT)].concat();
    assert_eq!(judge(&bytes), all_but(7));
}

#[test]
fn doubled_message_is_one_doubled_wherever_it_was() {
    for twice in 0..SENT {
        let bytes = [stream(0..twice + 1), stream(twice..SENT)].concat();
        let want = Totals {
            doubled: 1,
            ..all_but(0)
        };
        assert_eq!(judge(&bytes), want, "message {twice}");
    }
}

#[test]
fn doubled_block_is_its_length_doubled() {
    let bytes = [stream(0..20), stream(12..SENT)].concat();
    assert_eq!(
        judge(&bytes),
        Totals {
            doubled: 8,
            ..all_but(0)
        }
    );
}

#[test]
fn loss_and_double_side_by_side_are_one_of_each() {
    let want = Totals {
        doubled: 1,
        ..all_but(1)
    };
    let double_first = [stream(0..9), words(&[8, 10]), stream(11..SENT)].concat();
    assert_eq!(judge(&double_first), want);
    let loss_first = [stream(0..9), words(&[10, 10]), stream(11..SENT)].concat();
    assert_eq!(judge(&loss_first), want);
}

#[test]
fn old_number_is_doubled() {
    let bytes = [stream(0..20), words(&[3]), stream(20..SENT)].concat();
    assert_eq!(
        judge(&bytes),
        Totals {
            doubled: 1,
            ..all_but(0)
        }
    );
}

#[test]
fn swapped_neighbours_are_one_reordered() {
    for first in 0..SENT - 1 {
        let bytes = [
            stream(0..first),
            words(&[first + 1, first]),
            stream(first + 2..SENT),
        ]
        .concat();
        let want = Totals {
            in_order: SENT - 1,
            late: 1,
            ..Totals::default()
        };
        assert_eq!(judge(&bytes), want, "messages {first} and the next");
    }
}

#[test]
fn two_servers_that_answer_at_once_only_reorder() {
    // One holds 5, 6, 7, 9, 10, the other 8, 11, 12 and is faster.
    let bytes = [
        stream(0..5),
        words(&[8, 11, 12, 5, 6, 7, 9, 10]),
        stream(13..SENT),
    ]
    .concat();
    let want = Totals {
        in_order: SENT - 5,
        late: 5,
        ..Totals::default()
    };
    assert_eq!(judge(&bytes), want);
}

#[test]
fn scattered_order_loses_nothing() {
    let bytes = [words(&[1, 3, 0, 2, 7, 5, 4, 6]), stream(8..SENT)].concat();
    let totals = judge(&bytes);
    assert_eq!((totals.lost, totals.doubled, totals.runs), (0, 0, 0));
    assert!(totals.late > 0);
}

#[test]
fn flipped_bit_is_one_damaged_message_wherever_it_was() {
    // The last messages have no two answers after them that could prove what a number that
    // fits stands for; they are judged by themselves.
    for message in 0..SENT - 2 {
        for bit in 0..32 {
            let mut bytes = stream(0..SENT);
            bytes[message as usize * 4 + bit / 8] ^= 0x80 >> (bit % 8);
            let want = Totals {
                in_order: SENT - 1,
                runs: 1,
                bytes: 4,
                damaged: 1,
                ..Totals::default()
            };
            let got = judge(&bytes);
            // One that turns into the number after it or an older one cannot be told
            // from that number having come twice or out of turn.
            if got != want {
                let wrong =
                    u32::from_be_bytes(bytes[message as usize * 4..][..4].try_into().unwrap());
                assert!(
                    u64::from(wrong) < SENT,
                    "message {message} bit {bit}: {got:?}"
                );
                assert!(
                    got.lost <= 1 && got.doubled <= 1 && got.late <= 1,
                    "{message} {bit}: {got:?}"
                );
            }
        }
    }
}

#[test]
fn missing_byte_damages_one_message_wherever_it_was() {
    for at in 0..SENT as usize * 4 {
        let mut bytes = stream(0..SENT);
        bytes.remove(at);
        let totals = judge(&bytes);
        assert_eq!(totals.lost + totals.damaged, 1, "byte {at}: {totals:?}");
        assert_eq!(
            (totals.late, totals.doubled),
            (0, 0),
            "byte {at}: {totals:?}"
        );
        assert_eq!(totals.in_order, SENT - 1, "byte {at}: {totals:?}");
    }
}

#[test]
fn inserted_byte_is_one_run_wherever_it_was() {
    for at in 0..=SENT as usize * 4 {
        for byte in [0, 1, 0x2a, 0xff] {
            let mut bytes = stream(0..SENT);
            bytes.insert(at, byte);
            let totals = judge(&bytes);
            assert_eq!(totals.runs, 1, "byte {byte} at {at}: {totals:?}");
            assert!(totals.bytes <= 5, "byte {byte} at {at}: {totals:?}");
            assert!(
                totals.damaged + totals.lost <= 1,
                "byte {byte} at {at}: {totals:?}"
            );
            // A 1 after three zeros is a number that fits. At the beginning 1, 0 follow,
            // which is a swap to any reader, and at the end nothing does.
            if byte != 1 || (4..SENT as usize * 4 - 4).contains(&at) {
                let wrong = totals.lost + totals.late + totals.doubled;
                assert_eq!(wrong, 0, "byte {byte} at {at}: {totals:?}");
            }
        }
    }
}

#[test]
fn foreign_bytes_are_one_run_and_damage_nothing() {
    let bytes = [
        stream(0..9),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        stream(9..SENT),
    ]
    .concat();
    assert_eq!(
        judge(&bytes),
        Totals {
            runs: 1,
            bytes: 28,
            ..all_but(0)
        }
    );
}

#[test]
fn damage_pays_only_for_as_many_words_as_it_has() {
    let bytes = [stream(0..9), vec![0xff; 8], stream(14..SENT)].concat();
    let want = Totals {
        in_order: SENT - 5,
        runs: 1,
        bytes: 8,
        damaged: 2,
        lost: 3,
        ..Totals::default()
    };
    assert_eq!(judge(&bytes), want);
}

#[test]
fn answer_to_a_message_never_sent_is_corrupt() {
    let bytes = [stream(0..SENT), words(&[SENT])].concat();
    assert_eq!(
        judge(&bytes),
        Totals {
            runs: 1,
            bytes: 4,
            ..all_but(0)
        }
    );
}

#[test]
fn two_messages_glued_from_halves_are_damage_not_loss_of_all() {
    // 0x0000_0009 and 0x0000_000a answered by two readers with two bytes each.
    let mut bytes = stream(0..SENT);
    bytes[36..44].copy_from_slice(&[0, 0, 0, 0, 0, 9, 0, 10]);
    let totals = judge(&bytes);
    assert_eq!(totals.in_order, SENT - 2, "{totals:?}");
    assert!(totals.runs >= 1 || totals.doubled >= 1);
}

#[test]
fn only_outstanding_answer_damaged_is_decided_when_settled() {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    checker.push(&[0xff; 4], 4, &mut findings);
    assert!(findings.is_empty() && checker.is_undecided());
    checker.settle(4, &mut findings);
    let want = Finding::Corrupted {
        expected: 0,
        bytes: 4,
        damaged: 1,
    };
    assert_eq!(findings, [want]);
    assert_eq!(checker.next(), 1);
    assert!(!checker.is_undecided());
}

#[test]
fn last_number_after_a_gap_is_believed_when_settled() {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    checker.push(&encode(1), 8, &mut findings);
    assert!(checker.is_undecided());
    checker.settle(8, &mut findings);
    let want = [
        Finding::Skipped { first: 0, count: 1 },
        Finding::InOrder { first: 1, count: 1 },
    ];
    assert_eq!(findings, want);
    assert_eq!(checker.missing(), 1);
    checker.push(&encode(0), 8, &mut findings);
    checker.settle(8, &mut findings);
    assert_eq!(findings.last(), Some(&Finding::Late { number: 0 }));
    assert_eq!(checker.missing(), 0);
}

#[test]
fn part_of_an_answer_is_not_suspicious() {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    checker.push(&[0, 0], 4, &mut findings);
    assert!(!checker.is_undecided());
    checker.settle(4, &mut findings);
    checker.push(&[0, 0], 4, &mut findings);
    assert_eq!(findings, [Finding::InOrder { first: 0, count: 1 }]);
}

#[test]
fn echo_of_a_message_not_wholly_sent_is_fine() {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    checker.push(&[0, 0, 0], 3, &mut findings);
    assert_eq!(checker.finish(3, &mut findings), 0);
    assert!(findings.is_empty());
}

#[test]
fn more_bytes_than_were_sent_are_corrupt_even_if_they_look_right() {
    let mut checker = Checker::default();
    let mut findings = Vec::new();
    checker.push(&[0, 0, 0], 2, &mut findings);
    assert_eq!(checker.finish(2, &mut findings), 0);
    assert!(matches!(
        findings[..],
        [Finding::Corrupted {
            bytes: 3,
            damaged: 0,
            ..
        }]
    ));
}

#[test]
fn counter_that_wraps_goes_on_in_order() {
    let edge = u64::from(u32::MAX);
    let mut checker = Checker {
        next: edge - 1,
        ..Checker::default()
    };
    let mut findings = Vec::new();
    let bytes = stream(edge - 1..edge + 3);
    checker.push(&bytes, (edge + 3) * 4, &mut findings);
    assert_eq!(
        findings,
        [Finding::InOrder {
            first: edge - 1,
            count: 4
        }]
    );
}

#[test]
fn every_other_answer_keeps_memory_bounded_and_counts_all_lost() {
    let sent = 10_000;
    let odd: Vec<u64> = (0..sent).filter(|number| number % 2 == 1).collect();
    let totals = judge_in_reads(&words(&odd), sent, std::iter::empty());
    assert_eq!((totals.in_order, totals.lost), (sent / 2, sent / 2));
}

proptest! {
    /// Whatever a server does: the result is the same for every cut into reads, and every
    /// message is accounted for exactly once.
    #[test]
    fn any_answer_in_any_reads_adds_up(
        picks in proptest::collection::vec((0u64..SENT + 4, 0u8..16, any::<u8>()), 0..60),
        reads in proptest::collection::vec(1usize..9, 0..200),
    ) {
        let mut bytes = Vec::new();
        for (number, fault, byte) in picks {
            match fault {
                0 => bytes.push(byte),
                1 => bytes.extend_from_slice(&encode(number)[1..]),
                2 => { bytes.pop(); }
                _ => bytes.extend_from_slice(&encode(number)),
            }
        }
        let whole = judge_in_reads(&bytes, SENT, std::iter::empty());
        let cut = judge_in_reads(&bytes, SENT, reads.into_iter());
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(whole.answered_or_not(), SENT);
    }

    /// Messages lost and doubled at random places are counted exactly.
    #[test]
    fn random_losses_and_doubles_are_counted_exactly(
        fates in proptest::collection::vec(0u8..8, 300),
    ) {
        let mut bytes = Vec::new();
        let (mut lost, mut doubled) = (0, 0);
        for (number, fate) in fates.iter().enumerate() {
            match fate {
                0 => lost += 1,
                1 => { doubled += 1; bytes.extend(words(&[number as u64; 2])); }
                _ => bytes.extend(encode(number as u64)),
            }
        }
        let totals = judge_in_reads(&bytes, fates.len() as u64, std::iter::empty());
        prop_assert_eq!((totals.lost, totals.doubled, totals.late, totals.runs), (lost, doubled, 0, 0));
    }
}
