use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// A session as the service drives it, over a peer that takes as much as it likes.
#[derive(Default)]
struct Service {
    session: Session,
    echoed: Vec<u8>,
}

impl Service {
    /// One read that brings `input`, and a write of which the peer takes `accepts` bytes.
    fn read(&mut self, input: &[u8], accepts: usize) {
        assert!(self.session.may_read());
        let mut room = vec![0; MAX_OUTPUT];
        let start = self.session.begin(&mut room);
        let end = start + input.len();
        room[start..end].copy_from_slice(input);
        let whole = self.session.take_in(&room[..end]);
        let taken = whole.min(accepts);
        self.echoed.extend_from_slice(&room[..taken]);
        self.session.queue(&room[taken..whole]);
    }

    /// The peer has room for `accepts` bytes of the output.
    fn write(&mut self, accepts: usize) {
        let taken = self.session.output().len().min(accepts);
        self.echoed
            .extend_from_slice(&self.session.output()[..taken]);
        self.session.sent(taken);
    }
}

fn saved(session: &Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.save(&mut bytes);
    bytes
}

fn restored(session: &Session) -> Session {
    Session::restore(STATE_VERSION, &saved(session)).unwrap()
}

/// A session with every field in use: two messages, three bytes of a third, output.
fn busy() -> Session {
    let mut session = Session::new();
    let bytes = [0, 0, 0, 1, 0, 0, 0, 2, 7, 8, 9];
    let whole = session.take_in(&bytes);
    session.queue(&bytes[1..whole]);
    session
}

#[test]
fn new_session_is_silent_and_small() {
    let session = Session::new();
    assert_eq!(session.last(), None);
    assert!(session.may_read() && !session.is_unfinished() && !session.is_finished());
    assert!(size_of::<Session>() <= 32);
}

#[test]
fn idle_session_after_output_owns_no_heap() {
    let mut session = busy();
    session.sent(3);
    assert!(!session.may_read());
    session.sent(4);
    assert!(session.may_read() && session.output.is_none());
}

#[test]
fn message_in_single_bytes_counts_once_whole() {
    let mut service = Service::default();
    for byte in [0, 0, 1] {
        service.read(&[byte], MAX_OUTPUT);
        assert_eq!(service.session.messages(), 0);
        assert!(service.session.is_unfinished());
    }
    service.read(&[2], MAX_OUTPUT);
    assert_eq!(service.session.last(), Some(0x0102));
    assert_eq!(service.echoed, [0, 0, 1, 2]);
}

#[test]
fn zero_as_first_message_is_a_last_one() {
    let mut service = Service::default();
    service.read(&[0; 4], 4);
    assert_eq!(service.session.last(), Some(0));
}

#[test]
fn end_of_stream_drops_half_a_message_and_waits_for_output() {
    let mut session = busy();
    session.set_read_closed();
    assert!(!session.is_unfinished() && !session.is_finished());
    session.sent(7);
    assert!(session.is_finished());
}

#[test]
fn read_of_full_buffer_nothing_taken_is_the_most_output() {
    let mut service = Service::default();
    service.read(&vec![1; MAX_OUTPUT], 0);
    assert_eq!(service.session.output().len(), MAX_OUTPUT);
    service.write(1);
    service.session.queue(&[1]);
    assert_eq!(service.session.output().len(), MAX_OUTPUT);
}

#[test]
#[should_panic(expected = "at most")]
fn output_beyond_its_limit_is_a_mistake() {
    let mut session = Session::new();
    session.queue(&vec![0; MAX_OUTPUT]);
    session.queue(&[0]);
}

#[test]
#[should_panic(expected = "8 bytes sent of 7")]
fn more_sent_than_owed_is_a_mistake() {
    busy().sent(8);
}

#[test]
fn saved_state_has_its_golden_bytes() {
    let mut expected = vec![2, 0, 0, 0, 0, 0, 0, 0]; // messages
    expected.extend([2, 0, 0, 0]); // last
    expected.push(0); // flags
    expected.extend([3, 7, 8, 9]); // unfinished
    expected.extend([0, 0, 1, 0, 0, 0, 2]); // output
    assert_eq!(saved(&busy()), expected);

    let mut closed = Session::new();
    closed.set_read_closed();
    assert_eq!(saved(&closed)[12], READ_CLOSED);
    assert!(restored(&closed).is_finished());
}

#[test]
fn restore_of_what_no_session_saved_is_refused() {
    let good = saved(&busy());
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Session::restore(STATE_VERSION, &bytes).unwrap_err()
    };
    assert_eq!(with(12, 2), RestoreError::Value("flags"));
    assert_eq!(with(13, 4), RestoreError::Value("unfinished length"));
    assert_eq!(with(13, 255), RestoreError::Value("unfinished length"));
    assert_eq!(with(13, 2), RestoreError::Value("padding"));
    assert_eq!(with(0, 1), RestoreError::Value("more output than messages"));
    assert!(matches!(with(0, 0), RestoreError::Value(_)));
    assert!(matches!(with(12, READ_CLOSED), RestoreError::Value(_)));

    for version in [0, STATE_VERSION + 1, u16::MAX] {
        let error = Session::restore(version, &good).unwrap_err();
        assert_eq!(error, RestoreError::Version(version));
    }
    for length in 0..17 {
        let error = Session::restore(STATE_VERSION, &good[..length]).unwrap_err();
        assert_eq!(error, RestoreError::Truncated);
    }
}

#[test]
fn restore_of_output_at_its_limit_is_taken_and_beyond_it_refused() {
    let mut bytes = vec![0; 17];
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes.resize(17 + MAX_OUTPUT, 1);
    let session = Session::restore(STATE_VERSION, &bytes).unwrap();
    assert_eq!(session.output().len(), MAX_OUTPUT);
    bytes.push(1);
    let error = Session::restore(STATE_VERSION, &bytes).unwrap_err();
    assert_eq!(error, RestoreError::Value("output length"));
}

#[test]
fn counter_at_its_end_stays_there() {
    let mut bytes = vec![0; 17];
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut session = Session::restore(STATE_VERSION, &bytes).unwrap();
    assert_eq!(session.take_in(&[0, 0, 0, 5]), 4);
    assert_eq!((session.messages(), session.last()), (u64::MAX, Some(5)));
}

/// One thing that happens to a connection.
#[derive(Debug, Clone)]
enum Stimulus {
    /// At most so many bytes of the stream arrive, and so many of the echo are accepted.
    Read(usize, usize),
    /// The peer accepts so many bytes.
    Write(usize),
    /// The session moves to another process.
    Move,
}

fn stimulus() -> impl Strategy<Value = Stimulus> {
    prop_oneof![
        4 => (0..40usize, 0..40usize).prop_map(|(length, accepts)| Stimulus::Read(length, accepts)),
        1 => (0..9000usize, 0..9000usize).prop_map(|(length, accepts)| Stimulus::Read(length, accepts)),
        3 => (0..50usize).prop_map(Stimulus::Write),
        2 => Just(Stimulus::Move),
    ]
}

proptest! {
    #[test]
    fn any_split_back_pressure_and_moves_give_the_same_echo(
        stream in vec(any::<u8>(), 0..20_000),
        stimuli in vec(stimulus(), 0..200),
    ) {
        let mut service = Service::default();
        let mut rest = stream.as_slice();
        for stimulus in stimuli {
            match stimulus {
                Stimulus::Read(length, accepts) if service.session.may_read() => {
                    let (input, later) = rest.split_at(length.min(rest.len()));
                    service.read(input, accepts);
                    rest = later;
                }
                Stimulus::Read(..) => {}
                Stimulus::Write(accepts) => service.write(accepts),
                Stimulus::Move => service.session = restored(&service.session),
            }
            prop_assert!(service.session.output().len() <= MAX_OUTPUT);
            let read = stream.len() - rest.len();
            let accounted = service.echoed.len()
                + service.session.output().len()
                + usize::from(service.session.unfinished_length);
            prop_assert_eq!(accounted, read);
        }
        service.write(MAX_OUTPUT);
        service.read(rest, MAX_OUTPUT);
        service.session.set_read_closed();

        let whole = stream.len() / MESSAGE;
        prop_assert_eq!(&service.echoed, &stream[..whole * MESSAGE]);
        prop_assert!(service.session.is_finished());
        prop_assert_eq!(service.session.messages(), whole as u64);
        let last = stream.as_chunks::<MESSAGE>().0.last();
        prop_assert_eq!(service.session.last(), last.map(|last| u32::from_be_bytes(*last)));
    }

    #[test]
    fn restore_of_anything_is_refused_or_saves_the_same(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..64),
            // Mostly valid, so that the far checks are reached.
            (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, value)| {
                let mut bytes = saved(&busy());
                *at.get_mut(&mut bytes) = value;
                bytes
            }),
        ],
    ) {
        if let Ok(session) = Session::restore(STATE_VERSION, &bytes) {
            prop_assert_eq!(saved(&session), bytes);
        }
    }
}

#[test]
fn positions_are_what_was_read_and_written_at_every_cut() {
    let stream: Vec<u8> = (0..40).collect();
    for cut in 0..=stream.len() {
        for accepts in 0..=cut {
            let mut service = Service::default();
            service.read(&stream[..cut], accepts);
            let moved = restored(&service.session);
            for session in [&service.session, &moved] {
                assert_eq!(session.consumed(), Some(cut as u64));
                assert_eq!(session.written(), service.echoed.len() as u64);
            }
        }
    }
    let mut session = busy();
    session.set_read_closed();
    assert_eq!(session.consumed(), None);
}

#[test]
fn session_that_goes_on_for_another_program_is_where_that_was() {
    let mut session = Session::after(1 << 40);
    assert_eq!(session.consumed(), Some(1 << 42));
    assert_eq!(session.written(), 1 << 42);
    assert!(!session.is_unfinished());
    let mut saved = Vec::new();
    session.save(&mut saved);
    let restored = Session::restore(STATE_VERSION, &saved).unwrap();
    assert_eq!(restored.messages(), 1 << 40);
    assert_eq!(session.take_in(&[0, 0, 0, 7, 1]), 4);
    assert_eq!(session.messages(), (1 << 40) + 1);
    assert_eq!(session.consumed(), Some((1 << 42) + 5));
}
