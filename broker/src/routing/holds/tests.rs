//! Tests of holds: which senders are held, charged and released.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use elbus_plugin_api::{
    Queued, Run, SinkLimits,
    abi::{NotifierObject, RawNotifier, RawNotifier_TO, RawSink, RawSink_TO},
};

use super::*;
use crate::{
    client_origin::ClientOrigin,
    routing::registered_client::blocked_senders::{OTHERS_PER_CHECK, OtherRecipients},
};

/// Has always so much in its queue; counts how often it was asked.
struct Queue {
    bytes: u64,
    asked: Arc<AtomicUsize>,
}

impl RawSink for Queue {
    fn deliver(&self, _: &mut Run<'_>) -> u8 {
        0
    }
    fn flush(&self) {}
    fn when_drained(&self, _: NotifierObject) {}
    fn close(&self, _: RStr<'_>) {}
    fn queued(&self) -> Queued {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Queued { frames: 0, bytes: self.bytes }
    }
    fn limit(&self, _: &SinkLimits) {}
}

fn member(name: &str, bytes: u64, asked: &Arc<AtomicUsize>) -> Arc<RegisteredClient> {
    let sink = RawSink_TO::from_value(Queue { bytes, asked: asked.clone() }, TD_Opaque);
    Arc::new(RegisteredClient::new(name.into(), ClientOrigin::default(), 1, sink, None))
}

/// Holds a sender that sends to these as well.
fn hold(
    receiver: &Arc<RegisteredClient>,
    holds: &Holds,
    sender: &str,
    others: &[Arc<RegisteredClient>],
    woken: &Arc<AtomicUsize>,
) {
    let keys = ClientKeys::of(sender, &ClientOrigin::default());
    let targets = others.iter().map(Arc::downgrade).collect();
    let others = OtherRecipients { targets, routes: Vec::new(), own: 0, keys, spent: holds.spent_for(keys) };
    let notifier = RawNotifier_TO::from_ptr(RArc::new(Counting(woken.clone())), TD_Opaque);
    receiver.hold(holds, notifier, Some(others));
}

#[derive(Clone)]
struct Counting(Arc<AtomicUsize>);

impl RawNotifier for Counting {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_check_of_held_senders_is_bounded_and_reaches_every_receiver_in_turn() {
    const LOOKS: u32 = 60;
    let (holds, asked, woken) = (Arc::<Holds>::default(), Arc::default(), Arc::default());
    let mut others: Vec<_> = (0..100).map(|number| member(&format!("busy{number}"), 1, &asked)).collect();
    others.push(member("idle", 0, &asked));
    let full: Vec<_> = (0..30).map(|number| member(&format!("full{number}"), 1, &asked)).collect();
    for receiver in &full {
        receiver.fill(&holds);
        for sender in 0..4 {
            hold(receiver, &holds, &format!("{sender}"), &others, &woken);
        }
    }
    let begun = Instant::now();
    for check in 0..LOOKS {
        let before = asked.load(Ordering::Relaxed);
        let now = begun + check * CHECK_INTERVAL;
        assert!(holds.check(now).is_some_and(|next| next >= now + CHECK_INTERVAL));
        let asked = asked.load(Ordering::Relaxed) - before;
        // each of those that hold is asked as well
        assert!(asked > 100 && asked <= RECEIVERS_PER_CHECK + 2 * OTHERS_PER_CHECK + full.len(), "{asked}");
    }
    // a round takes six looks
    for receiver in &full {
        let used = holds.used(receiver);
        assert!(used > (LOOKS - 20) * CHECK_INTERVAL && used <= LOOKS * CHECK_INTERVAL, "{used:?}");
    }
    assert_eq!(woken.load(Ordering::Relaxed), 0);
}

#[test]
fn only_the_sender_whose_budget_is_spent_goes_on() {
    let (holds, asked) = (Arc::<Holds>::default(), Arc::default());
    let (receiver, idle, busy) =
        (member("receiver", 1, &asked), member("idle", 0, &asked), member("busy", 1, &asked));
    receiver.fill(&holds);
    let [flooder, sender] = [Arc::default(), Arc::default()];
    hold(&receiver, &holds, "flooder", std::slice::from_ref(&idle), &flooder);
    hold(&receiver, &holds, "sender", std::slice::from_ref(&busy), &sender);
    let begun = Instant::now();
    for check in 0..20 {
        holds.check(begun + check * MAX_CHARGE);
    }
    assert_eq!((flooder.load(Ordering::Relaxed), sender.load(Ordering::Relaxed)), (1, 0));
    let spent_for = |name: &str| holds.spent_for(ClientKeys::of(name, &ClientOrigin::default()));
    assert!(holds.is_spent_for(&spent_for("flooder"), &receiver) && holds.is_spent(&receiver));
    assert!(!holds.is_spent_for(&spent_for("sender"), &receiver));
    hold(&receiver, &holds, "flooder", std::slice::from_ref(&receiver), &flooder);
    assert_eq!(flooder.load(Ordering::Relaxed), 2, "at once");
    receiver.drained();
    assert_eq!(sender.load(Ordering::Relaxed), 1);
    assert!(!holds.any());
}
