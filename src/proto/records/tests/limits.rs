//! At, below and above each limit.

use super::*;
use crate::proto::wire::{HEADER, MAX_LINKS, MAX_NAME, MAX_REASON, MAX_STATE};

#[test]
fn items_at_the_fd_limit_are_full_but_not_for_state() {
    let mut out = Vec::new();
    let mut builder = ItemsBuilder::new(&mut out);
    assert!(builder.is_empty());
    for id in 0..MAX_FDS as u64 {
        assert_eq!(builder.push(&peer(id)), Ok(Fit::Taken));
    }
    assert_eq!(builder.push(&peer(999)), Ok(Fit::Full));
    assert_eq!(builder.push(&bare(999)), Ok(Fit::Taken));
    assert_eq!((builder.fds(), builder.len()), (MAX_FDS, MAX_FDS + 1));
    builder.finish(true);
    let (header, record) = decode(&out, MAX_FDS).unwrap();
    assert!(header.is_last());
    assert_eq!(record.fds(), MAX_FDS);
}

#[test]
fn items_beyond_the_fd_limit_are_refused_though_the_kernel_would_pass_them() {
    let mut record = items(&vec![peer(1); MAX_FDS]);
    let one_more = items(&[peer(2)]);
    record.extend(&one_more[HEADER + 4..]);
    record[HEADER..][..4].copy_from_slice(&(MAX_FDS as u32 + 1).to_le_bytes());
    let count = MAX_FDS + 1;
    assert_eq!(
        decode(&with_true_length(record), count).unwrap_err(),
        DecodeError::Fds {
            announced: count,
            received: count
        }
    );
}

#[test]
fn items_at_the_size_limit_are_full_and_whole() {
    let name = "n".repeat(MAX_NAME);
    let large = Descriptor {
        name: &name,
        links: vec![1; MAX_LINKS],
        ..peer(1)
    };
    let mut out = Vec::new();
    let mut builder = ItemsBuilder::new(&mut out);
    while builder.push(&large).unwrap() == Fit::Taken {}
    let count = builder.len();
    assert!(count < MAX_FDS);
    builder.finish(false);
    assert!(out.len() <= MAX_RECORD);
    let Record::Items(list) = decode(&out, count).unwrap().1 else {
        panic!("not items")
    };
    assert_eq!(list.len(), count);
    assert!(list.iter().all(|item| item == large));
}

#[test]
fn item_beyond_its_limits_is_an_error_and_leaves_no_trace() {
    let name = "n".repeat(MAX_NAME + 1);
    let mut out = Vec::new();
    let mut builder = ItemsBuilder::new(&mut out);
    let too_long = Descriptor {
        name: &name,
        ..peer(1)
    };
    let too_many = Descriptor {
        links: vec![1; MAX_LINKS + 1],
        ..peer(1)
    };
    let without = Descriptor {
        has_fd: false,
        ..peer(1)
    };
    let with = Descriptor {
        has_fd: true,
        ..bare(1)
    };
    for wrong in [too_long, too_many, without, with] {
        assert!(builder.push(&wrong).is_err());
    }
    builder.finish(true);
    assert_eq!(out, items(&[]));
}

#[test]
fn item_of_unknown_kind_may_have_an_fd_or_not() {
    let with = Descriptor {
        kind: ItemKind::Other(999),
        ..peer(1)
    };
    let without = Descriptor {
        kind: ItemKind::Other(999),
        ..bare(2)
    };
    let bytes = items(&[with.clone(), without.clone()]);
    let Record::Items(list) = decode(&bytes, 1).unwrap().1 else {
        panic!("not items")
    };
    assert_eq!(list.iter().collect::<Vec<_>>(), [with, without]);
}

#[test]
fn links_on_the_wire_beyond_their_limit_are_refused() {
    let mut record = items(&[bare(1)]);
    let links_at = record.len() - 1;
    record[links_at] = MAX_LINKS as u8 + 1;
    record.extend([0; (MAX_LINKS + 1) * 8]);
    let error = decode(&with_true_length(record), 0).unwrap_err();
    assert_eq!(error, DecodeError::Value("number of links"));
}

#[test]
fn closed_and_ack_full_leave_the_rest() {
    let mut out = Vec::new();
    let mut builder = ClosedBuilder::new(&mut out);
    let taken = (0..)
        .take_while(|id| builder.push(*id) == Fit::Taken)
        .count();
    builder.finish(false);
    assert_eq!(taken, (MAX_RECORD - HEADER - 4) / 8);
    let Record::Closed(ids) = decode(&out, 0).unwrap().1 else {
        panic!("not closed")
    };
    assert!(ids.iter().eq(0..taken as u64));

    let mut builder = AckBuilder::new(1, &mut out);
    let decline = Decline {
        id: 1,
        code: DeclineCode::Kind,
    };
    let taken = (0..)
        .take_while(|_: &usize| builder.push(decline) == Fit::Taken)
        .count();
    builder.finish();
    assert_eq!(taken, (MAX_RECORD - HEADER - 8) / 10);
    assert!(decode(&out, 0).is_ok());
}

#[test]
fn record_at_the_size_limit_is_taken_and_beyond_it_refused() {
    let mut record = state(&[]);
    let overhead = 8 + 4 + 4 + 1 + 2;
    let most = MAX_RECORD - record.len() - overhead;
    record = state(&[(1, false, &vec![7; most])]);
    assert_eq!(record.len(), MAX_RECORD);
    assert!(decode(&record, 0).is_ok());
    record.extend([1, 0, 0, 0]); // an extension that would be skipped
    let received = MAX_RECORD + 4;
    assert_eq!(
        decode(&with_true_length(record), 0).unwrap_err(),
        DecodeError::Length {
            announced: received as u32,
            received
        }
    );
}

#[test]
fn state_beyond_its_limit_cannot_be_sent() {
    assert!(Unsent::new(1, false, &vec![0; MAX_STATE]).is_ok());
    assert!(Unsent::new(1, false, &vec![0; MAX_STATE + 1]).is_err());
}

#[test]
fn state_pushed_again_is_not_sent_twice() {
    let mut out = Vec::new();
    let mut builder = StateBuilder::new(&mut out);
    let mut unsent = Unsent::new(1, false, b"state").unwrap();
    assert_eq!(builder.push(&mut unsent), Fit::Taken);
    assert_eq!(builder.push(&mut unsent), Fit::Taken);
    builder.finish(false);
    assert_eq!(out, state(&[(1, false, b"state")]));
}

#[test]
fn application_beyond_its_limit_leaves_no_record() {
    let name = "n".repeat(MAX_NAME + 1);
    let Record::Welcome(welcome) = WELCOME else {
        panic!("not a welcome")
    };
    let with = |application| {
        Record::Welcome(Welcome {
            application,
            ..welcome
        })
    };
    let mut out = vec![1, 2, 3];
    let error = encode(&with(&name), false, &mut out).unwrap_err();
    assert!(matches!(
        error,
        EncodeError::TooLong {
            length: 256,
            most: 255,
            ..
        }
    ));
    assert!(out.is_empty());
    assert!(decode(&encoded(&with(&name[1..])), 1).is_ok());
}

#[test]
fn reason_is_cut_between_characters() {
    let reason = |text: &str| {
        let bytes = encoded(&Record::Abort(Abort { reason: text }));
        let Record::Abort(abort) = decode(&bytes, 0).unwrap().1 else {
            panic!("not an abort")
        };
        abort.reason.to_owned()
    };
    let fits = "r".repeat(MAX_REASON);
    assert_eq!(reason(&fits), fits);
    assert_eq!(reason(&format!("{fits}r")), fits);
    assert_eq!(reason(&format!("{}€", &fits[1..])), fits[1..]);
    assert_eq!(
        reason(&format!("{}€", &fits[3..])),
        format!("{}€", &fits[3..])
    );
}

#[test]
fn reason_on_the_wire_beyond_its_limit_is_refused() {
    let mut record = encoded(&Record::Abort(Abort { reason: "" }));
    record[HEADER] = MAX_REASON as u8 + 1;
    record.extend([b'r'; MAX_REASON + 1]);
    let error = decode(&with_true_length(record), 0).unwrap_err();
    assert_eq!(error, DecodeError::Value("length of a reason"));
}
