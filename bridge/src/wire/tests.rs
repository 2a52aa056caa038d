//! The example of the specification, round trips, and bytes of strangers.

use super::*;
use crate::{Key, Settings};
use elbus_protocol::{Code, Op, Qos};
use proptest::prelude::*;

fn settings() -> Settings {
    Settings::new("plant", "mill", Key::new(b"0123456789abcdef").unwrap()).unwrap()
}

/// Returns the batch of the example in docs/bridge-protocol.md.
fn documented() -> Vec<u8> {
    let text = include_str!("../../../docs/bridge-protocol.md");
    let example = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    example.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_example_of_the_specification_is_what_the_code_produces() {
    let head = RunHead {
        op: Op::Message,
        qos: Qos::PROCESSED,
        window: 7,
        reference: 9,
        sender: "plc.io",
        target: "pump1",
    };
    let mut batch = vec![0; Header::len("mill")];
    let at = begin_run(&mut batch, &head);
    append_payload(&mut batch, b"on");
    append_payload(&mut batch, b"off");
    end_run(&mut batch, at, 2);
    append_arrived(&mut batch, 4, [(3, 1)].into_iter());
    let header = Header {
        kind: BatchKind::Link,
        from_epoch: 0x1111,
        to_epoch: 0x2222,
        from_session: 5,
        to_session: 6,
        sequence: 2,
        node: "mill",
    };
    let key = BatchKey::new(&settings(), Some("press"));
    header.seal(&mut batch, &key);
    assert_eq!(batch, documented());
    let (opened, mut records) = open(&batch, &key).unwrap();
    assert_eq!(opened, header);
    let Some(Record::Run { head: decoded, count, payloads }) = next_record(&mut records) else { panic!() };
    assert_eq!((decoded, count, payloads), (head, 2, &b"\x02\0\0\0on\x03\0\0\0off"[..]));
    let Some(Record::Arrived { upto, lost }) = next_record(&mut records) else { panic!() };
    assert_eq!((upto, lost.iter().collect::<Vec<_>>()), (4, vec![(3, 1)]));
    assert!(records.is_empty());
}

#[test]
fn a_batch_verifies_for_its_destination_and_bus_alone() {
    let batch = documented();
    let other_bus = Settings::new("plant2", "mill", Key::new(b"0123456789abcdef").unwrap()).unwrap();
    let other_key = Settings::new("plant", "mill", Key::new(b"0123456789abcdeg").unwrap()).unwrap();
    for key in [
        BatchKey::new(&settings(), Some("mill")),
        BatchKey::new(&settings(), None),
        BatchKey::new(&other_bus, Some("press")),
        BatchKey::new(&other_key, Some("press")),
    ] {
        assert_eq!(open(&batch, &key), Err(BatchError::Stranger));
    }
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    let key = BatchKey::new(&settings(), Some("press"));
    let batch = documented();
    for at in 0..batch.len() {
        let mut changed = batch.clone();
        changed[at] ^= 1;
        let expected = if at == 2 { BatchError::Version { version: 0 } } else { BatchError::Stranger };
        assert_eq!(open(&changed, &key), Err(expected), "byte {at}");
        assert!(open(&batch[..at], &key).is_err());
    }
}

#[test]
fn a_header_with_a_correct_mac_is_checked() {
    let key = BatchKey::new(&settings(), None);
    let header = Header {
        kind: BatchKind::Beacon,
        from_epoch: 1,
        to_epoch: 0,
        from_session: 0,
        to_session: 0,
        sequence: 0,
        node: "mill",
    };
    for (node, epoch) in [("a.b", 1), ("", 1), ("mill", 0), ("a b", 1)] {
        let mut batch = Vec::new();
        Header { node, from_epoch: epoch, ..header }.seal(&mut batch, &key);
        assert_eq!(open(&batch, &key), Err(BatchError::Malformed), "{node:?} {epoch}");
    }
}

/// Returns records of all kinds but changes of lists.
fn records() -> Vec<Record<'static>> {
    let head = RunHead { op: Op::Publish, qos: Qos::NO, window: 0, reference: 0, sender: "a", target: "t/1" };
    vec![
        Record::Beacon { has_name: true, count: 3, contender: 9 },
        Record::Run { head, count: 1, payloads: b"\x01\0\0\0x" },
        Record::FirstPiece { transfer: 1, total: 9, head, piece: b"abc" },
        Record::NextPiece { transfer: 1, offset: 3, piece: b"def" },
        Record::DropPieces { transfer: 7 },
        Record::Ping,
        Record::Stop,
    ]
}

#[test]
fn records_survive_the_wire_and_their_beginnings_do_not() {
    let mut wire = Vec::new();
    records().iter().for_each(|record| append_record(&mut wire, record));
    append_results(&mut wire, &[(1, Code::Ok), (u64::MAX, Code::Timeout)]);
    append_windows(&mut wire, &[(5, 100)]);
    append_list(&mut wire, List::Names, 4, ListPart::Delta, [(true, "a"), (false, "b")].into_iter());
    let mut rest = &wire[..];
    for record in records() {
        assert_eq!(next_record(&mut rest), Some(record));
    }
    let Some(Record::Results(results)) = next_record(&mut rest) else { panic!() };
    assert_eq!(results.iter().collect::<Vec<_>>(), [(1, Code::Ok), (u64::MAX, Code::Timeout)]);
    let Some(Record::Windows(windows)) = next_record(&mut rest) else { panic!() };
    assert_eq!(windows.iter().collect::<Vec<_>>(), [(5, 100)]);
    let Some(Record::Names(names)) = next_record(&mut rest) else { panic!() };
    assert_eq!((names.version, names.part), (4, ListPart::Delta));
    assert_eq!(names.iter().collect::<Vec<_>>(), [(true, "a"), (false, "b")]);
    assert!(rest.is_empty());
    for end in 0..wire.len() {
        let mut rest = &wire[..end];
        while !rest.is_empty() {
            if next_record(&mut rest).is_none() {
                break;
            }
        }
    }
}

#[test]
fn malformed_records_are_refused() {
    for record in [
        // an unknown kind, a body that is too long, a ping with a body
        &b"\x99\0\0\0\0"[..],
        b"\x40\xFF\xFF\xFF\xFF",
        b"\x40\x01\0\0\0x",
        // a result with an unknown code, windows that are not whole
        b"\x20\x09\0\0\0\x01\0\0\0\0\0\0\0\x55",
        b"\x22\x0B\0\0\0\x01\0\0\0\0\0\0\0\x55\x55\x55",
        // a beacon that is neither
        b"\x01\x11\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        // a name that is not UTF-8, an unknown part
        b"\x30\x0D\0\0\0\x01\0\0\0\0\0\0\0\x04\x01\x01\0\xFF",
        b"\x30\x09\0\0\0\x01\0\0\0\0\0\0\0\x05",
        // a run without messages, a run of an operation that does not travel
        b"\x10\x17\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x10\x17\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0",
    ] {
        assert_eq!(next_record(&mut &record[..]), None, "{record:?}");
    }
}

proptest! {
    #[test]
    fn strangers_never_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let key = BatchKey::new(&settings(), None);
        prop_assert!(open(&bytes, &key).is_err());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let before = rest.len();
            match next_record(&mut rest) {
                Some(_) => prop_assert!(rest.len() < before),
                None => break,
            }
        }
    }
}
