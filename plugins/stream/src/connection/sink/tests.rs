//! What the queue of a connection takes, refuses and sends.

use super::*;
use crate::{
    settings::StreamSettings,
    testing::{Pair, with_mixed_run, with_run},
};
use elbus_plugin_api::{Qos, SHARE_FROM_BYTES, SharedBytes, config::Overflow};
use std::{
    io::Read,
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};

const FRAME: usize = 8; // what a message from "s" has around its payload

fn settings(overflow: Overflow, queue_bytes: usize) -> StreamSettings {
    StreamSettings { overflow, queue_bytes, ..StreamSettings::default() }
}

/// Fills the socket, so that what follows stays in the queue.
fn fill(pair: &Pair) -> usize {
    let mut sent = 0;
    while !pair.connection.is_blocked() {
        pair.connection.send(&[9; 50_000]);
        sent += 50_000;
    }
    sent
}

fn deliver(pair: &Pair, qos: Qos, len: usize) -> DeliveryStatus {
    with_run(qos, &vec![1; len], None, |run| pair.connection.deliver(run))
}

#[test]
fn several_runs_need_one_flush() {
    let mut pair = Pair::new(StreamSettings::default());
    assert_eq!(deliver(&pair, Qos::NO, 3), DeliveryStatus::DIRTY);
    assert_eq!(deliver(&pair, Qos::NO, 3), DeliveryStatus::TAKEN);
    assert_eq!(pair.connection.acknowledge(&[1], 1), DeliveryStatus::TAKEN);
    assert_eq!(ConnectionSink(pair.connection.clone()).queued(), Queued { frames: 3, bytes: 28 });
    pair.connection.flush();
    assert!(pair.connection.lock().queue.is_empty());
    let mut bytes = [0; 28];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..11], *b"\x12\x05\0\0\0\0s\0\x01\x01\x01");
    assert_eq!(bytes[22..], [0xFE, 1, 0, 0, 0, 1]);
    assert_eq!(deliver(&pair, Qos::NO, 3), DeliveryStatus::DIRTY);
}

fn deliver_mixed(pair: &Pair, pauses: bool) -> DeliveryStatus {
    with_mixed_run(b"\x01", &[0, 2], pauses, |run| pair.connection.deliver_mixed(run))
}

const MIXED: &[u8] = b"\x12\x03\0\0\0\0s\0\x01\x01\x05\0\0\0\0s\0t\0\x01";

#[test]
fn an_empty_queue_is_reported_once_it_is_empty() {
    let mut pair = Pair::new(StreamSettings::default());
    let count = Arc::new(AtomicUsize::new(0));
    let when_empty = |pair: &Pair| {
        let count = count.clone();
        let notifier = Notifier::new(move || _ = count.fetch_add(1, Ordering::SeqCst));
        ConnectionSink(pair.connection.clone()).when_empty(notifier);
    };
    when_empty(&pair);
    assert_eq!(count.load(Ordering::SeqCst), 1, "it is empty");
    assert_eq!(deliver(&pair, Qos::NO, 3), DeliveryStatus::DIRTY);
    when_empty(&pair);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    pair.connection.flush();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    pair.peer.read_exact(&mut [0; FRAME + 3]).unwrap();

    // also while senders wait for the same queue, which go on before it is empty
    let sent = fill(&pair);
    let drained = Arc::new(AtomicUsize::new(0));
    let flag = drained.clone();
    deliver(&pair, Qos::NO, 9 << 20);
    let notifier = Notifier::new(move || _ = flag.fetch_add(1, Ordering::SeqCst));
    ConnectionSink(pair.connection.clone()).when_drained(notifier);
    when_empty(&pair);
    let mut left = sent + FRAME + (9 << 20);
    let mut buffer = vec![0; 65536];
    while left > 0 {
        let empty = count.load(Ordering::SeqCst) - 2; // read first: the other can only be ahead of it
        assert!(drained.load(Ordering::SeqCst) >= empty);
        left -= pair.peer.read(&mut buffer).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(10);
    while count.load(Ordering::SeqCst) < 3 && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!((count.load(Ordering::SeqCst), drained.load(Ordering::SeqCst)), (3, 1));
    deliver(&pair, Qos::NO, 3);
    when_empty(&pair);
    pair.connection.close(CloseReason::Closed("test".into()));
    assert_eq!(count.load(Ordering::SeqCst), 4, "closed");
}

#[test]
fn a_mixed_run_is_queued_as_its_frames() {
    let mut pair = Pair::new(StreamSettings::default());
    assert_eq!(deliver_mixed(&pair, false), DeliveryStatus::DIRTY);
    assert_eq!(ConnectionSink(pair.connection.clone()).queued(), Queued { frames: 2, bytes: 20 });
    pair.connection.flush();
    let mut bytes = [0; 20];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, MIXED);
}

#[test]
fn nothing_is_sent_while_any_mixed_run_pauses() {
    let mut pair = Pair::new(StreamSettings::default());
    pair.peer.set_nonblocking(true).unwrap();
    let is_silent = |pair: &mut Pair| pair.peer.read(&mut [0; 9]).is_err();
    assert_eq!(deliver_mixed(&pair, true), DeliveryStatus::DIRTY);
    assert_eq!(deliver_mixed(&pair, true), DeliveryStatus::TAKEN);
    pair.connection.flush();
    deliver(&pair, Qos::REALTIME, 1);
    pair.connection.flush();
    pair.connection.resume_sending();
    assert!(is_silent(&mut pair), "one pause is left");
    pair.connection.resume_sending();
    let mut bytes = [0; 49];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..40], [MIXED, MIXED].concat(), "sent at the end of the pause");
    deliver_mixed(&pair, true);
    pair.connection.resume_sending();
    assert!(is_silent(&mut pair), "the end of a pause is no flush");
    pair.connection.flush();
    pair.peer.read_exact(&mut bytes[..20]).unwrap();
}

#[test]
fn pauses_that_overlap_end() {
    let mut pair = Pair::new(StreamSettings::default());
    let mut taken = 0;
    assert!(deliver_mixed(&pair, true).is_taken());
    pair.connection.flush();
    loop {
        taken += 1;
        let delivery = deliver_mixed(&pair, true);
        pair.connection.resume_sending();
        if delivery == DeliveryStatus::REFUSED {
            break;
        }
    }
    let mut bytes = vec![0; taken * MIXED.len()];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert!(deliver_mixed(&pair, true).is_taken(), "the next pause begins");
}

#[test]
fn a_client_is_not_stalled_in_a_pause() {
    let pair = Pair::new(settings(Overflow::Block, 1 << 30));
    fill(&pair);
    deliver_mixed(&pair, true);
    let later = Instant::now() + Duration::from_secs(60);
    (0..9).for_each(|_| pair.connection.retry_write(later, Duration::from_secs(4), 2));
    assert!(!pair.connection.is_closed());
    pair.connection.resume_sending();
    (0..9).for_each(|_| pair.connection.retry_write(later, Duration::from_secs(4), 2));
    assert!(pair.connection.is_closed(), "the socket is full");
}

#[test]
fn a_pause_whose_sender_hangs_ends_after_a_timeout() {
    // housekeeping looks every half timeout, or at each tick if the socket is full
    let mut pair = Pair::new(StreamSettings::default());
    pair.peer.set_nonblocking(true).unwrap();
    deliver_mixed(&pair, true);
    pair.connection.flush();
    pair.connection.send_nop();
    deliver_mixed(&pair, true);
    pair.connection.send_nop();
    assert!(pair.peer.read(&mut [0; 9]).is_err(), "the second pause is younger");
    pair.connection.send_nop();
    let mut bytes = [0; 40];
    pair.peer.set_nonblocking(false).unwrap();
    pair.peer.read_exact(&mut bytes).unwrap();
    (0..2).for_each(|_| pair.connection.resume_sending());
    assert!(pair.connection.lock().pauses == 0 && deliver_mixed(&pair, true).is_taken());
    pair.connection.resume_sending();
    pair.connection.flush();
    pair.peer.read_exact(&mut bytes[..20]).unwrap();
    assert_eq!(bytes[..20], *MIXED);

    let pair = Pair::new(settings(Overflow::Block, 1 << 30));
    fill(&pair);
    deliver_mixed(&pair, true);
    let retry = || pair.connection.retry_write(Instant::now(), Duration::from_secs(3600), u32::MAX);
    (0..15).for_each(|_| retry());
    assert_eq!(pair.connection.lock().pauses, 1);
    retry();
    assert_eq!(pair.connection.lock().pauses, 0);
}

#[test]
fn a_writer_goes_on_after_a_pause() {
    let mut pair = Pair::new(settings(Overflow::Block, 1 << 30));
    let sent = fill(&pair);
    deliver(&pair, Qos::NO, 500_000);
    assert_eq!(deliver_mixed(&pair, true), DeliveryStatus::TAKEN);
    let mut bytes = vec![0; sent + FRAME + 500_000 + MIXED.len()];
    // the writer finds the pause when there is room, and ends
    let until = Instant::now() + Duration::from_secs(10);
    pair.peer.set_nonblocking(true).unwrap();
    let mut read = 0;
    while !pair.connection.lock().is_write_due && Instant::now() < until {
        read += pair.peer.read(&mut bytes[read..]).unwrap_or(0);
    }
    assert!(pair.connection.lock().is_write_due);
    pair.connection.resume_sending();
    pair.peer.set_nonblocking(false).unwrap();
    pair.peer.read_exact(&mut bytes[read..]).unwrap();
    assert!(bytes.ends_with(MIXED));
}

#[test]
fn a_large_payload_is_kept_not_copied() {
    let mut pair = Pair::new(StreamSettings::default());
    let shared = SharedBytes::from(vec![5; SHARE_FROM_BYTES]);
    with_run(Qos::NO, &shared, Some(&shared), |run| {
        assert_eq!(pair.connection.deliver(run), DeliveryStatus::DIRTY);
    });
    deliver(&pair, Qos::NO, 1);
    pair.connection.flush();
    let mut bytes = vec![0; FRAME + SHARE_FROM_BYTES + FRAME + 1];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert!(bytes[FRAME..].starts_with(&shared) && bytes.ends_with(b"\x12\x03\0\0\0\0s\0\x01"));
}

#[test]
fn a_long_message_needs_no_flush_while_nothing_waits() {
    let mut pair = Pair::new(StreamSettings::default());
    let mut bytes = vec![0; FRAME + 50_000];
    assert_eq!(deliver(&pair, Qos::NO, 50_000), DeliveryStatus::TAKEN);
    pair.peer.read_exact(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"\x12\x52\xC3\0\0\0s\0\x01") && bytes.ends_with(&[1]));

    assert_eq!(deliver(&pair, Qos::NO, 1), DeliveryStatus::DIRTY);
    assert_eq!(deliver(&pair, Qos::NO, 50_000), DeliveryStatus::TAKEN, "behind what waits");
    pair.connection.flush();
    pair.peer.read_exact(&mut bytes[..FRAME + 1]).unwrap();
    pair.peer.read_exact(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"\x12\x52\xC3"));

    let sent = fill(&pair);
    assert_eq!(deliver(&pair, Qos::NO, 50_000), DeliveryStatus::TAKEN, "the writer task owes the flush");
    let mut bytes = vec![0; sent + FRAME + 50_000];
    pair.peer.read_exact(&mut bytes).unwrap();
    assert!(bytes[sent..].starts_with(b"\x12\x52\xC3"));
}

#[test]
fn block_queues_everything_and_reports_a_full_queue() {
    let pair = Pair::new(settings(Overflow::Block, 1_000_000));
    assert_eq!(
        deliver(&pair, Qos::NO, 2_000_000),
        DeliveryStatus::DIRTY | DeliveryStatus::FULL,
        "alone over the limit"
    );
    pair.connection.flush();
    assert!(deliver(&pair, Qos::NO, 10).has(DeliveryStatus::FULL));
    assert_eq!(deliver(&pair, Qos::REALTIME, 10), DeliveryStatus::TAKEN, "real-time frames do not wait");
    assert_eq!(
        deliver(&pair, Qos::REALTIME, 500_000),
        DeliveryStatus::REFUSED,
        "but not beyond twice the limit"
    );
    assert_eq!(pair.connection.server.counts.refused_runs.load(Ordering::Relaxed), 1);
    assert!(pair.connection.acknowledge(&[1], 1).has(DeliveryStatus::FULL), "the client's own flood");
}

#[test]
fn the_budget_counts_the_memory_of_a_queue_until_it_shrinks() {
    const LARGE: usize = 4 << 20;
    let mut pair = Pair::new(StreamSettings::default());
    let budget = pair.connection.server.budget.clone();
    let shared = SharedBytes::from(vec![5; LARGE]);
    with_run(Qos::NO, &shared, Some(&shared), |run| pair.connection.deliver(run));
    drop(shared);
    pair.connection.flush();
    assert!(budget.queued() >= LARGE);
    let mut taken = 0;
    while pair.connection.lock().queue.bytes() > LARGE / 8 {
        taken += pair.peer.read(&mut vec![0; LARGE / 16]).unwrap();
        pair.connection.flush();
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        if pair.connection.lock().queue.bytes() > LARGE / 3 {
            assert!(budget.queued() >= LARGE, "kept as a whole");
        }
        pair.connection.retry_write(now, hour, u32::MAX);
    }
    let waiting = pair.connection.lock().queue.bytes();
    assert!(budget.queued() < LARGE / 4 + 100, "{} bytes for {waiting}", budget.queued());
    pair.peer.read_exact(&mut vec![0; FRAME + LARGE - taken]).unwrap();
}

#[test]
fn unflushed_bytes_do_not_count_against_the_limit() {
    for overflow in [Overflow::Block, Overflow::Disconnect, Overflow::DropNewest] {
        let pair = Pair::new(settings(overflow, 1000));
        for _ in 0..20 {
            let delivery = deliver(&pair, Qos::NO, 900);
            assert!(delivery.is_taken() && !delivery.has(DeliveryStatus::FULL), "{overflow:?}");
        }
    }
}

#[test]
fn drop_newest_refuses_and_disconnect_ends() {
    let pair = Pair::new(settings(Overflow::DropNewest, 100_000));
    fill(&pair);
    let waiting = pair.connection.lock().queue.bytes();
    let rest = 100_000 - waiting.min(100_000);
    assert_eq!(deliver(&pair, Qos::NO, rest + 1), DeliveryStatus::REFUSED);
    assert_eq!(deliver(&pair, Qos::REALTIME, rest + 1), DeliveryStatus::TAKEN);

    let pair = Pair::new(settings(Overflow::Disconnect, 100_000));
    fill(&pair);
    assert_eq!(deliver(&pair, Qos::NO, 100_000), DeliveryStatus::CLOSED);
    assert_eq!(deliver(&pair, Qos::NO, 1), DeliveryStatus::CLOSED);
    let reason = pair.connection.close_reason().unwrap().to_string();
    assert!(reason.ends_with("exceed 100000 (queue_bytes, overflow = \"disconnect\")"), "{reason}");
}

#[test]
fn waiters_are_called_when_a_quarter_is_left_or_at_the_end() {
    let calls = Arc::new(AtomicUsize::new(0));
    let notifier = || {
        let calls = calls.clone();
        Notifier::new(move || {
            calls.fetch_add(1, Ordering::SeqCst);
        })
    };
    let called = |times| {
        let until = Instant::now() + Duration::from_secs(10);
        while calls.load(Ordering::SeqCst) != times && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(calls.load(Ordering::SeqCst), times);
    };
    let mut pair = Pair::new(settings(Overflow::Block, 1_000_000));
    let sink = ConnectionSink(pair.connection.clone());
    sink.when_drained(notifier());
    assert_eq!(calls.load(Ordering::SeqCst), 1, "at once");
    let sent = fill(&pair);
    deliver(&pair, Qos::NO, 1_000_000);
    sink.when_drained(notifier());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    pair.peer.read_exact(&mut vec![0; sent + FRAME + 1_000_000]).unwrap();
    called(2);
    fill(&pair);
    deliver(&pair, Qos::NO, 1_000_000);
    sink.when_drained(notifier());
    sink.close("for a test");
    called(3);
    sink.when_drained(notifier());
    called(4);
    assert_eq!(sink.queued(), Queued::default());
    assert_eq!(pair.connection.close_reason().unwrap().to_string(), "for a test");
    drop(pair.runtime);
}
