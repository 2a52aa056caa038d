//! Memory that receivers use for waiting senders: bounded by the number of registered clients, and a sender
//! waits for a limited number of receivers at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_plugin_api::{DeliveryStatus, Notifier, Op};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{Peer, broker};

/// Returns a receiver that is and stays full.
fn full(broker: &elbus_broker::Broker, sender: &mut Peer, name: &str) -> Peer {
    let receiver = Peer::new(broker, name);
    receiver.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
    assert!(sender.blocking(Op::Message, name, "").is_congested());
    receiver
}

#[test]
fn a_receiver_that_never_drains_keeps_no_notifiers_of_senders_that_left() {
    let broker = broker();
    let _receiver = full(&broker, &mut Peer::new(&broker, "first"), "full");
    // each notifier holds a reference
    let kept = Arc::new(());
    let woken = Arc::new(AtomicUsize::new(0));
    let mut stays = Peer::new(&broker, "stays");
    assert!(stays.blocking(Op::Message, "full", "").is_blocked());
    let counter = woken.clone();
    stays.client.when_ready(Notifier::new(move || _ = counter.fetch_add(1, Ordering::SeqCst)));
    for number in 0..5000 {
        let mut sender = Peer::new(&broker, &number.to_string());
        assert!(sender.blocking(Op::Message, "full", "").is_blocked());
        let kept = kept.clone();
        sender.client.when_ready(Notifier::new(move || _ = &kept));
    }
    assert!(Arc::strong_count(&kept) < 1100, "{} of 5000 notifiers are kept", Arc::strong_count(&kept));
    assert_eq!(woken.load(Ordering::SeqCst), 1, "a registered sender is woken, and waits again");
    assert!(stays.blocking(Op::Message, "full", "").is_blocked());
}

#[test]
fn a_sender_waits_for_a_limited_number_of_receivers_until_all_have_drained() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let receivers: Vec<_> =
        (0..3000).map(|number| full(&broker, &mut sender, &format!("full.{number}"))).collect();
    let mut rounds = 0;
    while sender.blocking(Op::Broadcast, "full.*", "").is_blocked() {
        rounds += 1;
        sender.client.when_ready(Notifier::new(|| ()));
        let drained = receivers.iter().flat_map(|receiver| receiver.record.drained.lock().unwrap().pop());
        drained.take(1000).for_each(|notifier| notifier.notify());
        assert!(rounds < 10);
    }
    assert_eq!(rounds, 3);
}
