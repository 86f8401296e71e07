//! What was put in comes out, whatever it is and wherever it had to be cut.

use super::*;
use crate::proto::assembly::Assembly;
use crate::proto::wire::{MAX_LINKS, MAX_STATE};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

fn address() -> impl Strategy<Value = Option<SocketAddr>> {
    let v4 = any::<(u32, u16)>()
        .prop_map(|(ip, port)| SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port)));
    let v6 = any::<(u128, u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope))
    });
    prop_oneof![Just(None), v4.prop_map(Some), v6.prop_map(Some)]
}

prop_compose! {
    fn descriptor()(
        (id, cookie, kind, state_version, has_fd) in any::<(u64, u64, u16, u16, bool)>(),
        small in any::<bool>(),
        name in "\\PC{0,60}",
        local in address(),
        peer in address(),
        links in vec(any::<u64>(), 0..=MAX_LINKS),
    ) -> (String, Descriptor<'static>) {
        let kind = ItemKind::from_code(if small { kind % 16 } else { kind });
        let has_fd = kind.needs_fd().unwrap_or(has_fd);
        let item = Descriptor { id, kind, name: "", cookie, local, peer, links, state_version, has_fd };
        (name, item)
    }
}

/// Reads one record that must not carry fds.
fn decoded(record: &[u8]) -> Record<'_> {
    decode(record, 0).unwrap().1
}

proptest! {
    #[test]
    fn items_come_out_as_put(named in vec(descriptor(), 0..40)) {
        let put: Vec<_> = named
            .iter()
            .map(|(name, item)| Descriptor { name, ..item.clone() })
            .collect();
        let bytes = items(&put);
        let fds = put.iter().filter(|item| item.has_fd).count();
        let (_, record) = decode(&bytes, fds).unwrap();
        let Record::Items(list) = &record else { panic!("not items") };
        prop_assert_eq!(list.iter().len(), put.len());
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), put);
        let mut again = Vec::new();
        encode(&record, true, &mut again).unwrap();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn simple_records_come_out_as_put(
        numbers in any::<[u64; 5]>(),
        small in any::<[u32; 4]>(),
        short in any::<[u16; 3]>(),
        item in any::<Option<u64>>(),
        newest_state in any::<Option<u16>>(),
        text in "\\PC{0,50}",
    ) {
        let [a, b, c, d, e] = numbers;
        let [preload_ms, freeze_ms, claim_ms, pid] = small;
        let [min, max, code] = short;
        let reason = text.as_str();
        let welcome = Welcome {
            version: min, features: a, id: b, generation: c, items: d,
            preload_ms, freeze_ms, claim_ms, pid, now_ns: e, application: reason,
        };
        let refuse = Refuse { code: RefuseCode::from_code(code), min, max, reason };
        let network = item;
        let hello =
            Hello { min, max, features: a, free_slots: b, now_ns: c, pid, newest_state, network };
        let rounds = newest_state.map(u32::from);
        let end = End { items: a, closed: b, new: c, changed: d, held_ns: a ^ e, digest: e, rounds };
        let outcome = item.map(|dead| Served { since_ns: a, dead });
        let fail = Fail { code: FailCode::from_code(code), item, reason };
        for record in [
            Record::Welcome(welcome),
            Record::Refuse(refuse),
            Record::End(end),
            Record::Abort(Abort { reason }),
            Record::Hello(hello),
            Record::Fail(fail),
            Record::Active(Active { outcome }),
        ] {
            let bytes = encoded(&record);
            prop_assert_eq!(decode(&bytes, record.fds()).unwrap().1, record);
        }
    }

    #[test]
    fn ids_and_declines_come_out_as_put(
        ids in vec(any::<u64>(), 0..300),
        declines in vec(any::<(u64, u16)>(), 0..300),
        sequence in any::<u32>(),
    ) {
        let bytes = closed(&ids);
        let Record::Closed(list) = decoded(&bytes) else { panic!("not closed") };
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), ids);

        let declines: Vec<_> = declines
            .into_iter()
            .map(|(id, code)| Decline { id, code: DeclineCode::from_code(code) })
            .collect();
        let bytes = ack(sequence, &declines);
        let Record::Ack(ack) = decoded(&bytes) else { panic!("not an ack") };
        prop_assert_eq!(ack.sequence, sequence);
        prop_assert_eq!(ack.declined.iter().collect::<Vec<_>>(), declines);
    }

    #[test]
    fn states_of_any_size_cut_into_records_are_put_together(
        sizes in vec(prop_oneof![0..200usize, 60_000..70_000usize, 0..300_000usize], 1..8),
        seed in any::<u8>(),
    ) {
        let states: Vec<Vec<u8>> = sizes
            .iter()
            .map(|size| (0..*size).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect())
            .collect();
        let records = sent(&states);

        let mut assembly = Assembly::new();
        let mut complete = Vec::new();
        for record in &records {
            let Record::State(parts) = decoded(record) else { panic!("not state") };
            prop_assert!(!parts.is_empty());
            for part in &parts {
                if let Some(state) = assembly.add(&part).unwrap() {
                    prop_assert_eq!(state.id, complete.len() as u64);
                    prop_assert_eq!(state.run, state.id % 2 == 0);
                    complete.push(state.bytes.to_vec());
                }
            }
        }
        prop_assert_eq!(assembly.unfinished(), None);
        prop_assert_eq!(complete, states);
    }
}

/// All states in as few records as they need; the number of one is its id, even ones run.
fn sent(states: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut builder = StateBuilder::new(&mut record);
    for (id, state) in states.iter().enumerate() {
        let mut unsent = Unsent::new(id as u64, id % 2 == 0, state).unwrap();
        while builder.push(&mut unsent) == Fit::Full {
            assert!(!builder.is_empty(), "an empty record takes something");
            builder.finish(false);
            records.push(record.clone());
            builder = StateBuilder::new(&mut record);
        }
    }
    builder.finish(true);
    if record != state(&[]) {
        records.push(record);
    }
    records
}

#[test]
fn largest_state_takes_as_few_records_as_it_can() {
    let records = sent(&[vec![1; MAX_STATE]]);
    assert_eq!(records.len(), 17);
    assert!(
        records[..16]
            .iter()
            .all(|record| record.len() == MAX_RECORD)
    );
}
