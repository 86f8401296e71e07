//! The records as the other side may send them: right, cut, changed, at their limits.

mod golden;
mod hostile;
mod limits;
mod round_trip;

use super::*;

/// A TCP connection, with every field in use.
fn peer(id: u64) -> Descriptor<'static> {
    Descriptor {
        id,
        kind: ItemKind::TcpPeer,
        name: "peer",
        cookie: 0xC00C1E,
        local: Some("127.0.0.1:4660".parse().unwrap()),
        peer: Some("[fe80::1%7]:22136".parse().unwrap()),
        links: vec![3, 4],
        state_version: 1,
        has_fd: true,
    }
}

/// State without an fd, with every field empty.
fn bare(id: u64) -> Descriptor<'static> {
    Descriptor {
        id,
        kind: ItemKind::State,
        name: "",
        cookie: 0,
        local: None,
        peer: None,
        links: Vec::new(),
        state_version: 0,
        has_fd: false,
    }
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, false, &mut out).unwrap();
    out
}

fn items(items: &[Descriptor<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = ItemsBuilder::new(&mut out);
    for item in items {
        assert_eq!(builder.push(item), Ok(Fit::Taken));
    }
    builder.finish(true);
    out
}

fn state(states: &[(u64, bool, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = StateBuilder::new(&mut out);
    for (id, run, bytes) in states {
        let mut unsent = Unsent::new(*id, *run, bytes).unwrap();
        assert_eq!(builder.push(&mut unsent), Fit::Taken);
    }
    builder.finish(false);
    out
}

fn closed(ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = ClosedBuilder::new(&mut out);
    for id in ids {
        assert_eq!(builder.push(*id), Fit::Taken);
    }
    builder.finish(true);
    out
}

fn ack(sequence: u32, declined: &[Decline]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = AckBuilder::new(sequence, &mut out);
    for decline in declined {
        assert_eq!(builder.push(*decline), Fit::Taken);
    }
    builder.finish();
    out
}

const WELCOME: Record<'static> = Record::Welcome(Welcome {
    version: 1,
    features: 2,
    id: 3,
    generation: 4,
    items: 5,
    preload_ms: 6,
    freeze_ms: 7,
    claim_ms: 8,
    pid: 9,
    now_ns: 10,
    application: "echo",
});
const REFUSE: Record<'static> = Record::Refuse(Refuse {
    code: RefuseCode::Slots,
    min: 1,
    max: 2,
    reason: "ä",
});
const END: Record<'static> = Record::End(End {
    items: 1,
    closed: 2,
    new: 3,
    changed: 4,
    held_ns: 5,
    digest: 0x0102_0304_0506_0708,
    rounds: None,
});
const ABORT: Record<'static> = Record::Abort(Abort { reason: "stop" });
const HELLO: Record<'static> = Record::Hello(Hello {
    min: 1,
    max: 2,
    features: 3,
    free_slots: 4,
    now_ns: 5,
    pid: 6,
    newest_state: None,
    network: None,
});
const FAIL: Record<'static> = Record::Fail(Fail {
    code: FailCode::Invalid,
    item: Some(7),
    reason: "no",
});

/// One record of every kind, each with its number of fds.
fn one_of_each() -> Vec<(Vec<u8>, usize)> {
    let decline = Decline {
        id: 9,
        code: DeclineCode::Linked,
    };
    let records = vec![
        (encoded(&WELCOME), 1),
        (encoded(&REFUSE), 0),
        (items(&[peer(1), bare(2)]), 1),
        (state(&[(1, true, b"state"), (2, false, b"")]), 0),
        (closed(&[5, 6]), 0),
        (encoded(&Record::Prepare), 0),
        (encoded(&END), 0),
        (encoded(&ABORT), 0),
        (encoded(&HELLO), 0),
        (ack(8, &[decline]), 0),
        (encoded(&Record::Drained), 0),
        (encoded(&FAIL), 0),
        (encoded(&Record::Active(Active::default())), 0),
    ];
    let codes: Vec<u8> = records.iter().map(|(record, _)| record[6]).collect();
    assert_eq!(
        codes,
        Kind::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>(),
        "a kind is missing"
    );
    records
}

/// Changes the length in a record's header to what it is.
fn with_true_length(mut record: Vec<u8>) -> Vec<u8> {
    let length = record.len() as u32;
    record[8..12].copy_from_slice(&length.to_le_bytes());
    record
}
