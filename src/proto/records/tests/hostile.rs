//! Everything that the other side may get wrong, by mistake or on purpose.

use super::*;
use crate::proto::wire::{HEADER, MAX_STATE, MUST_UNDERSTAND};
use proptest::collection::vec;
use proptest::prelude::*;

/// Whatever the bytes are: an error with a text, or a record that says the same again.
fn assert_answered(bytes: &[u8], fds: usize) {
    match decode(bytes, fds) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok((header, record)) => {
            assert_eq!(record.fds(), fds);
            let mut again = Vec::new();
            encode(&record, header.is_last(), &mut again).unwrap();
            assert!(again.len() <= bytes.len(), "only extensions are dropped");
            let (second, same) = decode(&again, fds).unwrap();
            assert_eq!(same, record);
            assert_eq!(second.is_last(), header.is_last());
        }
    }
}

#[test]
fn every_prefix_is_refused() {
    for (record, fds) in one_of_each() {
        for length in 0..record.len() {
            assert!(decode(&record[..length], fds).is_err());
            // The same with a header that does not give it away.
            if length >= HEADER {
                assert!(decode(&with_true_length(record[..length].to_vec()), fds).is_err());
            }
        }
    }
}

#[test]
fn every_changed_byte_is_answered() {
    for (record, fds) in one_of_each() {
        for at in 0..record.len() {
            for change in 1..=u8::MAX {
                let mut bytes = record.clone();
                bytes[at] ^= change;
                for fds in [fds, 0, 1, 2] {
                    assert_answered(&bytes, fds);
                }
            }
        }
    }
}

#[test]
fn header_changed_is_refused_for_its_reason() {
    let prepare = encoded(&Record::Prepare);
    let with = |at: usize, value: u8| {
        let mut bytes = prepare.clone();
        bytes[at] = value;
        decode(&bytes, 0).unwrap_err()
    };
    for at in 0..4 {
        assert_eq!(with(at, 0), DecodeError::BadMagic);
    }
    assert_eq!(
        with(4, 2),
        DecodeError::Version {
            kind: 6,
            version: 2
        }
    );
    assert_eq!(
        with(5, 1),
        DecodeError::Version {
            kind: 6,
            version: 0x0101
        }
    );
    assert_eq!(with(6, 0), DecodeError::Kind(0));
    assert_eq!(with(6, 0xFF), DecodeError::Kind(0xFF));
    assert_eq!(with(7, 1), DecodeError::Value("flag"));
    assert_eq!(with(7, 2), DecodeError::Value("flag"));
}

#[test]
fn length_other_than_that_of_the_message_is_refused() {
    for (record, fds) in one_of_each() {
        let length = record.len() as u32;
        for wrong in [0, 1, 15, length - 1, length + 1, 65_536, 65_537, u32::MAX] {
            let mut bytes = record.clone();
            bytes[8..12].copy_from_slice(&wrong.to_le_bytes());
            let received = record.len();
            assert_eq!(
                decode(&bytes, fds).unwrap_err(),
                DecodeError::Length {
                    announced: wrong,
                    received
                }
            );
        }
    }
}

#[test]
fn fds_missing_or_too_many_are_refused() {
    for (record, fds) in one_of_each() {
        for wrong in [0, 1, 2, 250, 251, 253, usize::MAX] {
            if wrong != fds {
                assert_eq!(
                    decode(&record, wrong).unwrap_err(),
                    DecodeError::Fds {
                        announced: fds,
                        received: wrong
                    }
                );
            }
        }
    }
}

#[test]
fn hello_and_refuse_of_any_version_are_understood_and_nothing_else() {
    for (mut record, fds) in one_of_each() {
        let kind = record[6];
        for version in [0, 2, 0x1234, u16::MAX] {
            record[4..6].copy_from_slice(&version.to_le_bytes());
            let decoded = decode(&record, fds);
            if kind == Kind::Hello.code() || kind == Kind::Refuse.code() {
                assert_eq!(decoded.unwrap().0.version, version);
            } else {
                assert_eq!(decoded.unwrap_err(), DecodeError::Version { kind, version });
            }
            // The header says who speaks even then.
            assert_eq!(Header::read(&record).unwrap().kind, kind);
        }
    }
}

#[test]
fn unknown_kind_of_another_version_is_a_matter_of_the_version() {
    let mut record = encoded(&Record::Prepare);
    record[4] = 9;
    record[6] = 0x77;
    assert_eq!(
        decode(&record, 0).unwrap_err(),
        DecodeError::Version {
            kind: 0x77,
            version: 9
        }
    );
}

fn with_extension(mut record: Vec<u8>, kind: u16, value: &[u8]) -> Vec<u8> {
    record.extend(kind.to_le_bytes());
    record.extend((value.len() as u16).to_le_bytes());
    record.extend(value);
    with_true_length(record)
}

/// An extension that no record has.
const UNKNOWN: u16 = 0x70;

#[test]
fn optional_extensions_are_skipped() {
    for (record, fds) in one_of_each() {
        let extended = with_extension(record.clone(), UNKNOWN, b"");
        let extended = with_extension(extended, MUST_UNDERSTAND - 1, b"value");
        assert_eq!(
            decode(&extended, fds).unwrap().1,
            decode(&record, fds).unwrap().1
        );
    }
}

#[test]
fn extension_that_must_be_understood_is_refused() {
    for (record, fds) in one_of_each() {
        let extended = with_extension(record, UNKNOWN, b"skipped");
        let extended = with_extension(extended, MUST_UNDERSTAND | 5, b"");
        let error = decode(&extended, fds).unwrap_err();
        assert_eq!(error, DecodeError::MustUnderstand(MUST_UNDERSTAND | 5));
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for (record, fds) in one_of_each() {
        for trailing in [&[0][..], &[0; 3], &[1, 0, 1, 0], &[1, 0, 0xFF, 0xFF, 0]] {
            let mut longer = record.clone();
            longer.extend(trailing);
            let error = decode(&with_true_length(longer), fds).unwrap_err();
            assert_eq!(error, DecodeError::Truncated);
        }
    }
}

#[test]
fn count_beyond_what_is_there_is_refused() {
    let lists = [
        (items(&[peer(1)]), 1, HEADER),
        (state(&[(1, false, b"x")]), 0, HEADER),
        (closed(&[1]), 0, HEADER),
        (
            ack(
                1,
                &[Decline {
                    id: 1,
                    code: DeclineCode::Kind,
                }],
            ),
            0,
            HEADER + 4,
        ),
    ];
    for (record, fds, count_at) in lists {
        for count in [2, 250, 65_536, u32::MAX] {
            let mut bytes = record.clone();
            bytes[count_at..][..4].copy_from_slice(&count.to_le_bytes());
            assert_eq!(decode(&bytes, fds).unwrap_err(), DecodeError::Truncated);
        }
    }
}

/// A STATE record with one part, of which the numbers are as given.
fn part(offset: u32, total: u32, bytes: &[u8]) -> Vec<u8> {
    let mut record = state(&[]);
    record[HEADER] = 1;
    record.extend(1u64.to_le_bytes());
    record.extend(offset.to_le_bytes());
    record.extend(total.to_le_bytes());
    record.push(0);
    record.extend((bytes.len() as u16).to_le_bytes());
    record.extend(bytes);
    with_true_length(record)
}

#[test]
fn part_outside_its_state_is_refused() {
    let most = MAX_STATE as u32;
    assert!(decode(&part(0, 2, b"ab"), 0).is_ok());
    assert!(decode(&part(most - 1, most, b"b"), 0).is_ok());
    for (offset, total, bytes) in [
        (1, 2, &b"ab"[..]),
        (2, 2, b"a"),
        (u32::MAX, 2, b"ab"),
        (0, 1, b"ab"),
        (0, 0, b"a"),
        (0, 2, b""),
        (0, most + 1, b"a"),
        (u32::MAX - 1, u32::MAX, b"a"),
        (1, 0, b"a"),
        (1, 0, b""),
    ] {
        let error = decode(&part(offset, total, bytes), 0).unwrap_err();
        assert!(
            matches!(error, DecodeError::Value(_)),
            "{offset} {total} {bytes:?}: {error}"
        );
    }
}

#[test]
fn texts_that_are_none_are_refused() {
    let mut refuse = encoded(&REFUSE);
    refuse[23] = 0xFF;
    assert_eq!(
        decode(&refuse, 0).unwrap_err(),
        DecodeError::Value("reason")
    );
    let mut welcome = encoded(&WELCOME);
    let end = welcome.len() - 1;
    welcome[end] = 0x80;
    assert_eq!(
        decode(&welcome, 1).unwrap_err(),
        DecodeError::Value("application name")
    );
}

proptest! {
    #[test]
    fn anything_is_answered(bytes in vec(any::<u8>(), 0..300), fds in 0..3usize) {
        assert_answered(&bytes, fds);
    }

    #[test]
    fn any_body_behind_a_good_header_is_answered(
        kind in 0..Kind::ALL.len(),
        body in vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..200),
        fds in 0..3usize,
    ) {
        let mut record = Vec::new();
        begin_record(Kind::ALL[kind].code(), &mut record);
        record.extend(body);
        assert_answered(&with_true_length(record), fds);
    }
}
