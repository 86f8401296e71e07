//! The bytes themselves: what another release, or another implementation, relies on.

use super::*;
use crate::proto::wire::{HEADER, Versions, patch_sequence, patch_version};

fn assert_bytes(record: &[u8], expected: &str) {
    let hex: String = expected.split_whitespace().collect();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(record, bytes, "{record:02x?}\n{bytes:02x?}");
}

#[test]
fn welcome_has_its_golden_bytes() {
    assert_bytes(
        &encoded(&WELCOME),
        "534b544f 0100 01 00 4f000000 00000000
         0100 0200000000000000 0300000000000000 0400000000000000 0500000000000000
         06000000 07000000 08000000 09000000 0a00000000000000 04 6563686f",
    );
}

#[test]
fn refuse_has_its_golden_bytes_for_ever() {
    assert_bytes(
        &encoded(&REFUSE),
        "534b544f 0100 02 00 19000000 00000000 0300 0100 0200 02 c3a4",
    );
}

#[test]
fn items_have_their_golden_bytes() {
    assert_bytes(
        &items(&[peer(1), bare(2)]),
        "534b544f 0100 03 01 7a000000 00000000 02000000
         0100000000000000 1e0cc00000000000 0200 0100 01 04 70656572
         04 7f000001 3412
         06 fe800000000000000000000000000001 7856 00000000 07000000
         02 0300000000000000 0400000000000000
         0200000000000000 0000000000000000 0e00 0000 00 00 00 00 00",
    );
}

#[test]
fn state_has_its_golden_bytes() {
    assert_bytes(
        &state(&[(1, true, b"state"), (2, false, b"")]),
        "534b544f 0100 04 00 3f000000 00000000 02000000
         0100000000000000 00000000 05000000 01 0500 7374617465
         0200000000000000 00000000 00000000 00 0000",
    );
}

#[test]
fn closed_has_its_golden_bytes() {
    assert_bytes(
        &closed(&[5, 6]),
        "534b544f 0100 05 01 24000000 00000000 02000000 0500000000000000 0600000000000000",
    );
}

#[test]
fn end_has_its_golden_bytes() {
    assert_bytes(
        &encoded(&END),
        "534b544f 0100 07 00 40000000 00000000 0100000000000000 0200000000000000
         0300000000000000 0400000000000000 0500000000000000 0807060504030201",
    );
}

#[test]
fn abort_has_its_golden_bytes() {
    assert_bytes(
        &encoded(&ABORT),
        "534b544f 0100 08 00 15000000 00000000 04 73746f70",
    );
}

#[test]
fn hello_has_its_golden_bytes_for_ever() {
    assert_bytes(
        &encoded(&HELLO),
        "534b544f 0100 81 00 30000000 00000000
         0100 0200 0300000000000000 0400000000000000 0500000000000000 06000000",
    );
}

#[test]
fn ack_has_its_golden_bytes() {
    assert_bytes(
        &ack(
            8,
            &[Decline {
                id: 9,
                code: DeclineCode::Linked,
            }],
        ),
        "534b544f 0100 82 00 22000000 00000000 08000000 01000000 0900000000000000 0300",
    );
}

#[test]
fn fail_has_its_golden_bytes_with_and_without_item() {
    assert_bytes(
        &encoded(&FAIL),
        "534b544f 0100 84 00 1e000000 00000000 0300 01 0700000000000000 02 6e6f",
    );
    let without = Fail {
        code: FailCode::Digest,
        item: None,
        reason: "",
    };
    assert_bytes(
        &encoded(&Record::Fail(without)),
        "534b544f 0100 84 00 14000000 00000000 0500 00 00",
    );
}

#[test]
fn records_without_body_have_their_golden_bytes() {
    let header = |kind: &str| format!("534b544f 0100 {kind} 00 10000000 00000000");
    assert_bytes(&encoded(&Record::Prepare), &header("06"));
    assert_bytes(&encoded(&Record::Drained), &header("83"));
    assert_bytes(&encoded(&Record::Active(Active::default())), &header("85"));
}

#[test]
fn sequence_patched_is_read_back_and_changes_nothing_else() {
    for (mut record, fds) in one_of_each() {
        let before = record.clone();
        assert_eq!(Header::read(&record).unwrap().sequence, 0);
        patch_sequence(&mut record, 0x1234_5678);
        assert_eq!(record[12..16], [0x78, 0x56, 0x34, 0x12]);
        let (header, decoded) = decode(&record, fds).unwrap();
        assert_eq!(header.sequence, 0x1234_5678);
        assert_eq!(decoded, decode(&before, fds).unwrap().1);
    }
}

#[test]
fn version_patched_is_that_of_the_header_and_changes_nothing_else() {
    for (record, _) in one_of_each() {
        let mut patched = record.clone();
        patch_version(&mut patched, 0x0203);
        assert_eq!(patched[4..6], [3, 2]);
        patch_version(&mut patched, 1);
        assert_eq!(patched, record);
    }
}

#[test]
fn last_is_asked_for_by_batches_only() {
    for (bytes, fds) in one_of_each() {
        let (_, record) = decode(&bytes, fds).unwrap();
        let mut out = Vec::new();
        encode(&record, true, &mut out).unwrap();
        let (header, _) = decode(&out, fds).unwrap();
        let batch = matches!(record.kind(), Kind::Items | Kind::State | Kind::Closed);
        assert_eq!(header.is_last(), batch, "{record:?}");
    }
}

#[test]
fn speaker_of_each_kind_is_known() {
    let takers = [
        Kind::Hello,
        Kind::Ack,
        Kind::Drained,
        Kind::Fail,
        Kind::Active,
    ];
    for kind in Kind::ALL.iter().copied() {
        assert_eq!(kind.is_from_taker(), takers.contains(&kind), "{kind:?}");
    }
}

/// Every pair of ranges, upside down ones too: the answer is the highest that is in both.
#[test]
fn version_ranges_meet_at_the_highest_common_one() {
    let versions = [0, 1, 2, 3, 4, 5, u16::MAX];
    let mut ranges = Vec::new();
    for min in versions {
        ranges.extend(versions.map(|max| Versions { min, max }));
    }
    for ours in &ranges {
        for theirs in &ranges {
            let both = |version: &u16| ours.contain(*version) && theirs.contain(*version);
            let highest = versions.into_iter().filter(both).max();
            assert_eq!(ours.common(*theirs), highest, "{ours:?} {theirs:?}");
            assert_eq!(theirs.common(*ours), highest, "whoever is the donor");
        }
    }
}

#[test]
fn hello_says_what_state_it_reads_behind_the_bytes_that_never_change() {
    let Record::Hello(hello) = HELLO else {
        unreachable!("it is one");
    };
    let newest_state = Some(0x0203);
    let record = encoded(&Record::Hello(Hello {
        newest_state,
        ..hello
    }));
    assert_bytes(
        &record,
        "534b544f 0100 81 00 36000000 00000000
         0100 0200 0300000000000000 0400000000000000 0500000000000000 06000000
         0100 0200 0302",
    );
    // To a release that does not know it, it is the same HELLO.
    assert_eq!(record[HEADER..][..32], encoded(&HELLO)[HEADER..]);
    let Record::Hello(read) = decode(&record, 0).unwrap().1 else {
        panic!("not HELLO");
    };
    assert_eq!(read.newest_state, newest_state);
    for wrong in [&[1, 0, 2, 0, 1, 0][..], &[1, 0, 1, 0, 1], &[1, 0, 0, 0]] {
        let mut twice = record.clone();
        twice.extend(wrong);
        assert_eq!(
            decode(&with_true_length(twice), 0).unwrap_err(),
            DecodeError::Value("newest state version")
        );
    }
}

#[test]
fn hello_says_which_network_it_is_in_behind_the_bytes_that_never_change() {
    let Record::Hello(hello) = HELLO else {
        unreachable!("it is one");
    };
    let network = Some(0x0102_0304_0506_0708);
    let record = encoded(&Record::Hello(Hello { network, ..hello }));
    assert_bytes(
        &record,
        "534b544f 0100 81 00 3c000000 00000000
         0100 0200 0300000000000000 0400000000000000 0500000000000000 06000000
         0200 0800 0807060504030201",
    );
    assert_eq!(record[HEADER..][..32], encoded(&HELLO)[HEADER..]);
    let Record::Hello(read) = decode(&record, 0).unwrap().1 else {
        panic!("not HELLO");
    };
    assert_eq!(read.network, network);
    let mut twice = record;
    twice.extend([2, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        decode(&with_true_length(twice), 0).unwrap_err(),
        DecodeError::Value("network namespace")
    );
}

#[test]
fn codes_keep_what_they_do_not_know() {
    for code in 0..=u16::MAX {
        assert_eq!(RefuseCode::from_code(code).code(), code);
        assert_eq!(FailCode::from_code(code).code(), code);
        assert_eq!(DeclineCode::from_code(code).code(), code);
        assert_eq!(ItemKind::from_code(code).code(), code);
    }
    assert_eq!(RefuseCode::from_code(999).to_string(), "code 999");
    assert_eq!(ItemKind::from_code(2).to_string(), "tcp peer");
}

#[test]
fn end_and_active_say_more_behind_the_bytes_that_never_change() {
    let Record::End(end) = END else {
        unreachable!("it is one");
    };
    let rounds = Some(0x0102_0304);
    let record = encoded(&Record::End(End { rounds, ..end }));
    assert_eq!(record[HEADER..][..48], encoded(&END)[HEADER..]);
    assert_bytes(&record[HEADER + 48..], "0100 0400 04030201");

    let outcome = Some(Served {
        since_ns: 5,
        dead: 6,
    });
    let record = encoded(&Record::Active(Active { outcome }));
    assert_bytes(
        &record,
        "534b544f 0100 85 00 24000000 00000000 0100 1000 0500000000000000 0600000000000000",
    );
    let cut = with_true_length([&record[..HEADER], &[1, 0, 1, 0, 9]].concat());
    assert_eq!(
        decode(&cut, 0).unwrap_err(),
        DecodeError::Value("what was served")
    );
}
