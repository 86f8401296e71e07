//! Good conversations, which the targets start from and whose ends a test knows.

use socket_takeover::proto::records::{
    Abort, AckBuilder, Active, ClosedBuilder, Decline, DeclineCode, Descriptor, End, Fail,
    FailCode, Hello, ItemKind, ItemsBuilder, Record, Refuse, RefuseCode, StateBuilder, Unsent,
    Welcome, encode,
};
use socket_takeover::proto::wire::{MAX_VERSION, MIN_VERSION};

use crate::app::NEWEST;
use crate::script::{EVENTFD, LEASE, REPAIR, THE_LEASE, TRUE, TURN, put};

const GOOD: u8 = REPAIR | TRUE | TURN;

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, false, &mut out).expect("names are short");
    out
}

fn hello() -> Vec<u8> {
    encoded(&Record::Hello(Hello {
        min: MIN_VERSION,
        max: MAX_VERSION,
        features: 0,
        free_slots: 1000,
        now_ns: 0,
        pid: 1,
        newest_state: Some(NEWEST - 1),
        network: None,
    }))
}

fn welcome() -> Vec<u8> {
    encoded(&Record::Welcome(Welcome {
        version: MAX_VERSION,
        features: 0,
        id: 1,
        generation: 1,
        items: 4,
        preload_ms: 30_000,
        freeze_ms: 30_000,
        claim_ms: 30_000,
        pid: 1,
        now_ns: 0,
        application: "fuzzed",
    }))
}

fn items(ids: &[(u64, ItemKind, u16)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = ItemsBuilder::new(&mut out);
    for &(id, kind, state_version) in ids {
        let item = Descriptor {
            id,
            kind,
            name: "state",
            cookie: 0,
            local: None,
            peer: None,
            links: vec![id + 1],
            state_version,
            has_fd: kind != ItemKind::State,
        };
        let _ = builder.push(&item).expect("a good item");
    }
    builder.finish(false);
    out
}

fn states(ids: &[u64], length: usize, last: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let state = vec![1; length];
    let mut builder = StateBuilder::new(&mut out);
    for &id in ids {
        let mut unsent = Unsent::new(id, true, &state).expect("a small state");
        let _ = builder.push(&mut unsent);
    }
    builder.finish(last);
    out
}

fn closed(ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = ClosedBuilder::new(&mut out);
    for &id in ids {
        let _ = builder.push(id);
    }
    builder.finish(false);
    out
}

fn ack(sequence: u32, declined: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = AckBuilder::new(sequence, &mut out);
    for &id in declined {
        let code = DeclineCode::StateVersion;
        let _ = builder.push(Decline { id, code });
    }
    builder.finish();
    out
}

fn end(items: u64, closed: u64, new: u64, changed: u64) -> Vec<u8> {
    encoded(&Record::End(End {
        items,
        closed,
        new,
        changed,
        held_ns: 1,
        digest: 0,
        rounds: None,
    }))
}

/// What a donor says in a takeover that succeeds: a batch, closed items, a final array of all
/// kinds of records.
pub fn of_donor() -> Vec<u8> {
    let event = |id| (id, ItemKind::Eventfd, NEWEST);
    let mut out = Vec::new();
    put(&mut out, GOOD, THE_LEASE << 4 | 1, &welcome());
    let first = [(1, ItemKind::State, 1), event(2), event(5), event(8)];
    put(&mut out, REPAIR, EVENTFD << 4 | 3, &items(&first));
    put(&mut out, GOOD, 0, &states(&[1, 2, 5, 8], 40, true));
    put(&mut out, REPAIR, 0, &closed(&[5]));
    put(&mut out, GOOD, 0, &states(&[1], 8, true));
    put(&mut out, GOOD, 0, &encoded(&Record::Prepare));
    put(&mut out, REPAIR, 0, &closed(&[8]));
    put(&mut out, REPAIR, EVENTFD << 4 | 1, &items(&[event(11)]));
    put(&mut out, REPAIR, 0, &states(&[11, 1], 3, false));
    put(&mut out, GOOD | LEASE, 0, &end(3, 1, 1, 1));
    out
}

/// What a taker says in a takeover that succeeds, of [`ITEMS`](crate::donor::ITEMS) items: a
/// first batch, and a second one whose large state makes it several records. The numbers are
/// those that the donor gives.
pub fn of_taker(declined: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, GOOD, 0, &hello());
    put(&mut out, GOOD, 0, &ack(2, declined));
    put(&mut out, GOOD, 0, &ack(5, &[]));
    put(&mut out, GOOD, 0, &encoded(&Record::Drained));
    put(
        &mut out,
        GOOD | LEASE,
        0,
        &encoded(&Record::Active(Active::default())),
    );
    out
}

/// All that the corpora start from: the target, a name, the bytes.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let fail = encoded(&Record::Fail(Fail {
        code: FailCode::Invalid,
        item: Some(1),
        reason: "a reason",
    }));
    let refuse = encoded(&Record::Refuse(Refuse {
        code: RefuseCode::Busy,
        min: 1,
        max: 1,
        reason: "a reason",
    }));
    let abort = encoded(&Record::Abort(Abort { reason: "a reason" }));
    let declined = (1, ItemKind::Eventfd, NEWEST + 1);
    let records = [
        (1, welcome()),
        (0, refuse.clone()),
        (
            2,
            items(&[declined, (2, ItemKind::Opaque, 1), (3, ItemKind::State, 1)]),
        ),
        (0, states(&[1, 2], 100, true)),
        (0, closed(&[1, 2])),
        (0, encoded(&Record::Prepare)),
        (0, end(1, 2, 3, 4)),
        (0, abort.clone()),
        (0, hello()),
        (0, ack(7, &[1, 2])),
        (0, encoded(&Record::Drained)),
        (0, fail.clone()),
        (0, encoded(&Record::Active(Active::default()))),
    ];
    let mut all = Vec::new();
    for (fds, record) in records {
        let name = format!("kind-{:02x}", record[6]);
        let bytes = [&[fds][..], &record].concat();
        all.push(("decode_record", name, bytes));
    }
    all.push(("hear_taker", "takeover".into(), of_donor()));
    let mut refused = Vec::new();
    put(&mut refused, GOOD, 0, &refuse);
    all.push(("hear_taker", "refused".into(), refused));
    let mut declining = Vec::new();
    put(&mut declining, GOOD, THE_LEASE << 4 | 1, &welcome());
    put(
        &mut declining,
        REPAIR,
        2,
        &items(&[declined, (2, ItemKind::Eventfd, 1)]),
    );
    put(&mut declining, GOOD, 0, &states(&[1, 2], 3, true));
    put(&mut declining, GOOD, 0, &abort);
    all.push(("hear_taker", "declined".into(), declining));
    all.push(("hear_donor", "takeover".into(), of_taker(&[])));
    let mut failing = Vec::new();
    put(&mut failing, GOOD, 0, &hello());
    put(&mut failing, GOOD, 0, &ack(2, &[1, 2]));
    put(&mut failing, GOOD, 0, &fail);
    all.push(("hear_donor", "fail".into(), failing));
    all
}
