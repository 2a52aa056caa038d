//! The order, number and time of acknowledgements that wait.

use super::*;
use crate::{connection::acknowledgement_list::MAX_FRAMES, settings::StreamSettings, testing::Pair};
use elbus_plugin_api::{Completion, Notified};
use std::{io::Read, pin::pin, sync::atomic::AtomicBool, sync::atomic::Ordering::SeqCst};

const OK: u8 = Code::Ok as u8;

/// Returns the acknowledgements that have arrived.
fn received(pair: &mut Pair) -> Vec<(u32, u8)> {
    pair.connection.flush();
    pair.peer.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 1 << 16];
    let count = pair.peer.read(&mut bytes).unwrap_or(0);
    let acks = bytes[..count].chunks(ACK_BYTES);
    acks.map(|ack| (u32::from_le_bytes([ack[1], ack[2], ack[3], ack[4]]), ack[5])).collect()
}

fn acks(op_ids: &[u32]) -> Box<[(u32, u32)]> {
    op_ids.iter().copied().zip(0..).collect()
}

#[test]
fn later_acknowledgements_wait_in_order() {
    let mut pair = Pair::new(StreamSettings::default());
    let connection = pair.connection.clone();
    connection.acknowledge(&[1], OK);
    let (first, result) = Completion::pair();
    assert_eq!(connection.acknowledge_later(acks(&[2, 3]), result), DeliveryStatus::TAKEN);
    connection.acknowledge(&[4], OK);
    let (second, result) = Completion::pair();
    connection.acknowledge_later(acks(&[5]), result);
    connection.acknowledge_each([(6, 0x72), (7, OK)].into_iter());
    assert_eq!(received(&mut pair), [(1, OK)]);
    second.complete(Code::Busy);
    assert_eq!(received(&mut pair), []);
    first.complete(Code::NotRegistered);
    assert_eq!(received(&mut pair), [(2, 0x71), (3, 0x71), (4, OK), (5, 0x76), (6, 0x72), (7, OK)]);
    assert!(!connection.expire_acknowledgements(Instant::now(), PENDING_LIMIT));
    assert!(connection.lock().acknowledgements.is_none());
    connection.acknowledge(&[8], OK);
    assert_eq!(received(&mut pair), [(8, OK)]);
}

#[test]
fn a_result_that_is_known_at_once_does_not_wait() {
    let mut pair = Pair::new(StreamSettings::default());
    let (completion, result) = Completion::pair();
    drop(completion);
    pair.connection.acknowledge_later(acks(&[1]), result);
    assert_eq!(received(&mut pair), [(1, Code::Other as u8)]);
}

#[test]
fn a_result_that_is_not_supplied_in_time_is_a_timeout_and_too_late_afterwards() {
    let mut pair = Pair::new(StreamSettings::default());
    let connection = pair.connection.clone();
    let (late, result) = Completion::pair();
    connection.acknowledge_later(acks(&[1]), result);
    let (never, result) = Completion::pair();
    connection.acknowledge_later(acks(&[2]), result);
    let now = Instant::now();
    assert!(connection.expire_acknowledgements(now, PENDING_LIMIT), "both still wait");
    assert_eq!(received(&mut pair), []);
    assert!(!connection.expire_acknowledgements(now + PENDING_LIMIT, PENDING_LIMIT));
    assert_eq!(received(&mut pair), [(1, 0x78), (2, 0x78)]);
    late.complete(Code::Ok);
    drop(never);
    assert_eq!(received(&mut pair), []);
    let (again, result) = Completion::pair();
    connection.acknowledge_later(acks(&[3]), result);
    assert_eq!(connection.server.acknowledging.lock().len(), 2, "watched again");
    again.complete(Code::Ok);
    assert_eq!(received(&mut pair), [(3, OK)]);
}

#[test]
fn the_client_is_not_read_while_too_many_wait() {
    let mut pair = Pair::new(StreamSettings::default());
    let connection = pair.connection.clone();
    let (completion, result) = Completion::pair();
    connection.acknowledge_later(acks(&[0]), result);
    let ids: Vec<_> = (1..MAX_FRAMES as u32).collect();
    assert_eq!(connection.acknowledge(&ids[1..], OK), DeliveryStatus::TAKEN);
    assert_eq!(connection.acknowledge(&ids[..1], OK), DeliveryStatus::FULL);
    let (notifier, room) = Notified::pair();
    connection.when_acknowledged(notifier);
    let waits = Arc::new(AtomicBool::new(true));
    let (done, waiting) = (waits.clone(), room);
    let task = pair.runtime.spawn(async move {
        waiting.await;
        done.store(false, SeqCst);
    });
    assert!(waits.load(SeqCst));
    completion.complete(Code::Ok);
    pair.runtime.block_on(pin!(task)).unwrap();
    assert_eq!(received(&mut pair).len(), MAX_FRAMES);
    let (notifier, room) = Notified::pair();
    connection.when_acknowledged(notifier);
    pair.runtime.block_on(room);
}

#[test]
fn a_connection_that_closes_drops_what_waits() {
    let mut pair = Pair::new(StreamSettings::default());
    let connection = pair.connection.clone();
    let (completion, result) = Completion::pair();
    connection.acknowledge_later(acks(&[1]), result.clone());
    connection.close(crate::connection::close_reason::CloseReason::Left);
    assert!(connection.lock().acknowledgements.is_none());
    assert_eq!(connection.acknowledge_later(acks(&[2]), result), DeliveryStatus::CLOSED);
    completion.complete(Code::Ok);
    assert_eq!(received(&mut pair), []);
}
