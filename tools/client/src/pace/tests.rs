use super::*;

const SECOND: u64 = 1_000 * MILLISECOND;
const OPEN: Rhythm = Rhythm {
    interval: Some(100 * MILLISECOND),
    depth: 2,
    split: false,
};
const CLOSED: Rhythm = Rhythm {
    interval: None,
    ..OPEN
};

fn pace(role: Role, rhythm: Rhythm) -> Pace {
    let mut pace = Pace::new(role, rhythm, 0, fastrand::Rng::with_seed(5));
    pace.start(SECOND);
    pace
}

fn message(due: u64, late: Option<u64>) -> Step {
    Step::Write(Piece {
        bytes: 4,
        completes: true,
        due: Some(due),
        late,
    })
}

fn piece(step: Step) -> Piece {
    match step {
        Step::Write(piece) => piece,
        other => panic!("{other:?}"),
    }
}

#[test]
fn silent_before_start() {
    let mut pace = Pace::new(Role::Steady, OPEN, 7, fastrand::Rng::with_seed(5));
    assert_eq!(pace.step(SECOND, 0), Step::Wait(None));
    pace.start(SECOND);
    assert_eq!(pace.step(SECOND, 0), Step::Wait(Some(SECOND + 7)));
}

#[test]
fn open_loop_keeps_its_times() {
    let mut pace = pace(Role::Steady, OPEN);
    assert_eq!(pace.step(SECOND, 0), message(SECOND, Some(0)));
    let next = SECOND + 100 * MILLISECOND;
    assert_eq!(pace.step(SECOND, 1), Step::Wait(Some(next)));
    assert_eq!(pace.step(next + 3, 0), message(next, Some(3)));
}

#[test]
fn depth_reached_holds_messages_back_but_keeps_their_due_times() {
    let mut pace = pace(Role::Steady, OPEN);
    let now = SECOND + 250 * MILLISECOND;
    assert_eq!(pace.step(now, 2), Step::Wait(None));
    // Three are due; none of them is late by our own fault.
    for (sent, due) in [0, 100, 200].into_iter().enumerate() {
        let due = SECOND + due * MILLISECOND;
        assert_eq!(pace.step(now, sent.min(1) as u64), message(due, None));
    }
    let next = SECOND + 300 * MILLISECOND;
    assert_eq!(pace.step(now, 0), Step::Wait(Some(next)));
    assert_eq!(pace.step(next + 1, 0), message(next, Some(1)));
}

#[test]
fn closed_loop_sends_whenever_there_is_room() {
    let mut pace = pace(Role::Steady, CLOSED);
    assert_eq!(pace.step(SECOND, 0), message(SECOND, None));
    assert_eq!(pace.step(SECOND, 1), message(SECOND, None));
    assert_eq!(pace.step(SECOND, 2), Step::Wait(None));
    assert_eq!(pace.step(SECOND + 5, 1), message(SECOND + 5, None));
}

#[test]
fn idle_is_silent_until_stopped_then_sends_one_message_that_counts_for_no_time() {
    let mut pace = pace(Role::Idle, CLOSED);
    assert_eq!(pace.step(100 * SECOND, 0), Step::Wait(None));
    pace.stop();
    pace.stop();
    let probe = Piece {
        bytes: 4,
        completes: true,
        due: None,
        late: None,
    };
    assert_eq!(pace.step(100 * SECOND, 0), Step::Write(probe));
    assert_eq!(pace.step(100 * SECOND, 1), Step::Wait(None));
}

#[test]
fn half_pauses_within_each_message_and_counts_from_its_rest() {
    let mut pace = pace(Role::Half, OPEN);
    let mut now = SECOND;
    for _ in 0..20 {
        let first = piece(pace.step(now, 0));
        assert!((1..4).contains(&first.bytes) && !first.completes);
        let Step::Wait(Some(at)) = pace.step(now, 0) else {
            panic!()
        };
        assert!(HALF_PAUSE.contains(&(at - now)));
        let rest = piece(pace.step(at + 1, 0));
        assert_eq!((rest.bytes, rest.completes), (4 - first.bytes, true));
        assert_eq!(rest.due, Some(at));
        now = at + 1;
    }
}

#[test]
fn split_sends_single_bytes_and_half_still_pauses_in_between() {
    for role in [Role::Steady, Role::Half] {
        let mut pace = pace(
            role,
            Rhythm {
                split: true,
                ..CLOSED
            },
        );
        let (mut now, mut longest) = (SECOND, 0);
        for byte in 0..40 {
            let piece = loop {
                match pace.step(now, 0) {
                    Step::Wait(Some(at)) => {
                        longest = longest.max(at - now);
                        now = at;
                    }
                    step => break piece(step),
                }
            };
            assert_eq!((piece.bytes, piece.completes), (1, byte % 4 == 3));
        }
        assert_eq!(longest >= HALF_PAUSE.start, role == Role::Half);
    }
}

#[test]
fn unread_fills_until_nothing_goes_out_then_reads_until_all_is_answered() {
    let mut pace = pace(Role::Unread, OPEN);
    let start = SECOND + READING_TURN.end;
    assert_eq!(pace.step(start, 0), Step::Fill(start + FULL_AFTER));
    assert!(!pace.reads());
    pace.wrote(start + 5);
    let full = start + 5 + FULL_AFTER;
    assert_eq!(pace.step(full - 1, 900), Step::Fill(full));
    assert_eq!(pace.step(full, 900), Step::Wait(None));
    assert!(pace.reads());
    assert_eq!(pace.step(full + 1, 1), Step::Wait(None));
    assert_eq!(pace.step(full + 2, 0), message(full + 2, Some(0)));
}

#[test]
fn unread_that_filled_enough_reads_on() {
    let mut pace = pace(Role::Unread, CLOSED);
    assert!(matches!(pace.step(9 * SECOND, 0), Step::Fill(_)));
    pace.filled();
    assert!(pace.reads());
    assert_eq!(pace.step(9 * SECOND, 1), Step::Wait(None));
}

#[test]
fn stopped_within_a_message_finishes_it_and_no_other() {
    let mut pace = pace(Role::Half, OPEN);
    let first = piece(pace.step(SECOND, 0));
    pace.stop();
    let rest = piece(pace.step(SECOND, 0));
    assert_eq!((rest.bytes, rest.completes), (4 - first.bytes, true));
    assert_eq!(pace.step(9 * SECOND, 1), Step::Wait(None));
}

#[test]
fn stopped_while_not_reading_reads_again() {
    let mut pace = pace(Role::Unread, OPEN);
    assert!(matches!(pace.step(9 * SECOND, 0), Step::Fill(_)));
    pace.stop();
    assert!(pace.reads());
    assert_eq!(pace.step(9 * SECOND, 4), Step::Wait(None));
}
