//! One record, of any bytes.

use socket_takeover::proto::assembly::Assembly;
use socket_takeover::proto::records::{self, Record};
use socket_takeover::proto::wire::{MAX_RECORD, MAX_STATE};

/// The first byte is the number of descriptors, the rest the record. Returns whether it is one.
///
/// # Panics
/// If the decoder contradicts itself: a record that does not say the same when it is encoded
/// again, an error without a text, or more memory held than came in.
pub fn decode(data: &[u8]) -> bool {
    let Some((&fds, bytes)) = data.split_first() else {
        return false;
    };
    let fds = usize::from(fds);
    let (header, record) = match records::decode(bytes, fds) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    assert!(bytes.len() <= MAX_RECORD && header.length as usize == bytes.len());
    assert_eq!(record.fds(), fds);
    let mut again = Vec::new();
    records::encode(&record, header.is_last(), &mut again).expect("what was read can be written");
    assert!(again.len() <= bytes.len(), "only extensions are left out");
    let (second, same) = records::decode(&again, fds).expect("what was written can be read");
    assert_eq!(same, record);
    assert_eq!(second.is_last(), header.is_last());
    match &record {
        Record::State(parts) => {
            let mut assembly = Assembly::new();
            for part in parts {
                match assembly.add(&part) {
                    Ok(Some(state)) => assert!(state.bytes.len() <= MAX_STATE),
                    Ok(None) => assert_eq!(assembly.unfinished(), Some(part.id)),
                    Err(_) => assert_eq!(assembly.unfinished(), None),
                }
            }
        }
        Record::Items(items) => {
            let with_fd = items.iter().filter(|item| item.has_fd).count();
            assert_eq!(with_fd, fds);
            assert_eq!(items.iter().count(), items.len());
        }
        Record::Closed(ids) => assert_eq!(ids.iter().count(), ids.len()),
        Record::Ack(ack) => assert_eq!(ack.declined.iter().count(), ack.declined.len()),
        Record::Welcome(_)
        | Record::Refuse(_)
        | Record::Prepare
        | Record::End(_)
        | Record::Abort(_)
        | Record::Hello(_)
        | Record::Drained
        | Record::Fail(_)
        | Record::Active => {}
    }
    true
}
