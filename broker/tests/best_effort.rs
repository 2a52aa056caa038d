//! Publications that never wait: full clients are skipped, and reported once their queue has drained.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_plugin_api::{Client, DeliveryStatus, Event, EventKind, Op, Payload, Qos, Request};
use std::{
    sync::{Mutex, atomic::Ordering, mpsc},
    time::Duration,
};
use support::{Peer, broker};

/// Publishes to `t`; returns the number of recipients.
fn publish(client: &mut Client, text: &str) -> u32 {
    let payloads = [Payload::from(text.as_bytes())];
    let dispatched = client.dispatch(&Request::new(Op::Publish, Qos::NO, "t", &payloads).best_effort());
    assert!(!dispatched.is_congested() && !client.end_batch(), "it never waits");
    dispatched.reached()
}

fn drain(peer: &Peer) {
    peer.record.answer.store(0, Ordering::SeqCst);
    let drained = std::mem::take(&mut *peer.record.drained.lock().unwrap());
    drained.into_iter().for_each(|notifier| notifier.notify());
}

#[test]
fn a_full_client_is_skipped_and_reported_once_when_it_has_drained() {
    for status in [DeliveryStatus::FULL, DeliveryStatus::REFUSED] {
        let broker = broker();
        let (report, reports) = mpsc::channel();
        let report = Mutex::new(report);
        broker.host().add_listener(move |event: &Event<'_>| {
            if event.kind == EventKind::PublicationsMissed {
                _ = report.lock().unwrap().send(event.subject.to_owned());
            }
        });
        let (mut slow, mut fast) = (Peer::new(&broker, "slow"), Peer::new(&broker, "fast"));
        slow.subscribe(&["t"]);
        fast.subscribe(&["t"]);
        let mut speaker = broker.host().system_client();
        assert_eq!(publish(&mut speaker, "0"), 2);
        slow.record.answer.store(status.bits(), Ordering::SeqCst);
        let passes_limit = u32::from(status == DeliveryStatus::FULL);
        assert_eq!(publish(&mut speaker, "1"), 1 + passes_limit, "the message that fills the queue");
        for text in ["2", "3", "4"] {
            assert_eq!(publish(&mut speaker, text), 1, "{text}");
        }
        assert!(reports.try_recv().is_err(), "the queue has not drained");
        drain(&slow);
        assert_eq!(reports.recv_timeout(Duration::from_secs(30)).unwrap(), "slow");
        assert_eq!(publish(&mut speaker, "5"), 2);
        assert_eq!(fast.payloads(), ["0", "1", "2", "3", "4", "5"]);
        let taken = if passes_limit == 1 { vec!["0", "1", "5"] } else { vec!["0", "5"] };
        assert_eq!(slow.payloads(), taken);
        drop(broker);
        assert!(reports.try_recv().is_err(), "one report for all missed publications");
    }
}

#[test]
fn a_client_that_leaves_is_not_reported() {
    let broker = broker();
    let (report, reports) = mpsc::channel();
    let report = Mutex::new(report);
    broker.host().add_listener(move |event: &Event<'_>| {
        _ = report.lock().unwrap().send(event.kind);
    });
    let mut slow = Peer::new(&broker, "slow");
    slow.subscribe(&["t"]);
    slow.record.answer.store(DeliveryStatus::REFUSED.bits(), Ordering::SeqCst);
    assert_eq!(publish(&mut broker.host().system_client(), "x"), 0);
    let record = slow.record.clone();
    drop(slow);
    let drained = std::mem::take(&mut *record.drained.lock().unwrap());
    drained.into_iter().for_each(|notifier| notifier.notify());
    drop(broker);
    assert!(reports.try_iter().all(|kind| kind != EventKind::PublicationsMissed));
}
