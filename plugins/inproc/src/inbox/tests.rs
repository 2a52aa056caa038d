//! What the queue of a client does, one rule at a time, with a clock that the test turns.

use super::*;
use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos};
use parking_lot::Mutex;
use std::sync::Arc;

const LIMIT: usize = 10_000;
const STALL: Duration = Duration::from_secs(4);

struct Bench {
    inbox: Inbox,
    limits: Limits,
    now: Instant,
    woken: Arc<Mutex<Vec<&'static str>>>,
}

impl Bench {
    fn new(overflow: Overflow) -> Self {
        let limits = Limits { queue_bytes: LIMIT, stall: STALL, overflow };
        let mut bench = Bench { inbox: Inbox::default(), limits, now: Instant::now(), woken: Arc::default() };
        let bell = bench.wake("reader");
        bench.inbox.set_notifier(bell);
        bench
    }

    fn take_from(&mut self, sender: &str, qos: Qos, bytes: usize) -> Taken {
        let payload = vec![1; bytes];
        let payloads = [Payload::from(&*payload)];
        let mut encoding = Encoding::new();
        let run = Run::new(FrameKind::Message, qos, sender, "", &payloads, None, &mut encoding);
        self.inbox.take(&run, OwnedRun::new(&run), &self.limits, || self.now)
    }

    fn take(&mut self, bytes: usize) -> Taken {
        self.take_from("s", Qos::NO, bytes)
    }

    /// How many runs were given, and whether more may follow.
    fn give(&mut self) -> (usize, bool) {
        self.give_to(false)
    }

    fn give_to(&mut self, waits: bool) -> (usize, bool) {
        let mut into = RunBatch::default();
        let (open, notifiers) = self.inbox.give(&mut into, waits, &self.limits, || self.now);
        notifiers.iter().for_each(Notifier::notify);
        (into.len(), open)
    }

    fn wake(&self, name: &'static str) -> Notifier {
        let woken = self.woken.clone();
        Notifier::new(move || woken.lock().push(name))
    }

    fn woken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.woken.lock())
    }
}

#[test]
fn senders_are_held_above_the_limit_until_a_quarter_is_left() {
    let mut bench = Bench::new(Overflow::Block);
    bench.limits.queue_bytes = 1_000_000;
    assert_eq!(bench.take(900_000), Taken { delivery: DeliveryStatus::TAKEN, then: Then::Nothing });
    let notifier = bench.wake("early");
    assert!(bench.inbox.when_drained(notifier).is_some());
    for _ in 0..4 {
        bench.take(60_000);
    }
    assert_eq!(bench.take(240_000), Taken { delivery: DeliveryStatus::FULL, then: Then::Nothing });
    let notifier = bench.wake("sender");
    assert!(bench.inbox.when_drained(notifier).is_none());
    assert_eq!(bench.give(), (1, true), "so much at once: half a million is left");
    assert_eq!(bench.woken(), [""; 0]);
    assert_eq!(bench.give(), (2, true));
    assert_eq!(bench.give(), (2, true), "a quarter is left");
    assert_eq!(bench.woken(), ["sender"]);
    assert_eq!(bench.give(), (1, true));
    assert_eq!(bench.inbox.queued(), Queued::default());
}

#[test]
fn real_time_and_the_broker_go_up_to_twice_and_hold_nobody() {
    for (sender, qos) in [("s", Qos::REALTIME), (BROKER_NAME, Qos::NO)] {
        let mut bench = Bench::new(Overflow::Block);
        assert_eq!(bench.take(9_000).delivery, DeliveryStatus::TAKEN);
        for _ in 0..2 {
            let taken = bench.take_from(sender, qos, 4_000);
            assert_eq!(taken, Taken { delivery: DeliveryStatus::TAKEN, then: Then::Nothing });
        }
        let taken = bench.take_from(sender, qos, 4_000);
        assert_eq!(taken.delivery, DeliveryStatus::REFUSED);
        assert!(matches!(taken.then, Then::Tell { refused: 1, .. }));
        assert_eq!(bench.take_from(sender, qos, 4_000).then, Then::Nothing, "the log is spared");
        bench.now += TELL_EVERY;
        assert!(matches!(bench.take_from(sender, qos, 4_000).then, Then::Tell { refused: 2, .. }));
        assert_eq!(bench.take(10).delivery, DeliveryStatus::FULL, "others wait, and lose nothing");
    }
}

#[test]
fn an_empty_queue_takes_anything() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::Disconnect] {
        let mut bench = Bench::new(overflow);
        assert!(bench.take(100 * LIMIT).delivery.is_taken());
        assert_eq!(bench.give(), (1, true));
        assert!(bench.take_from("s", Qos::REALTIME, 100 * LIMIT).delivery.is_taken());
    }
}

#[test]
fn drop_newest_refuses_and_disconnect_closes() {
    let mut bench = Bench::new(Overflow::DropNewest);
    bench.take(9_000);
    assert_eq!(bench.take(2_000).delivery, DeliveryStatus::REFUSED);
    assert!(bench.take(100).delivery.is_taken(), "what fits is taken");
    assert!(bench.take_from("s", Qos::REALTIME, 2_000).delivery.is_taken());
    let mut bench = Bench::new(Overflow::Disconnect);
    bench.take(9_000);
    bench.give();
    bench.take(9_000);
    bench.inbox.awaited = true;
    let taken = bench.take(2_000);
    assert_eq!(taken.delivery, DeliveryStatus::CLOSED);
    let (was_open, notifiers) = bench.inbox.close();
    assert!(
        !was_open && notifiers.len() == 1,
        "closed by itself, the notifiers are left to whoever sees it off"
    );
    assert!(matches!(taken.then, Then::Disconnect { bytes } if bytes > 9_000));
}

#[test]
fn empty_messages_count_too() {
    let mut bench = Bench::new(Overflow::Block);
    let taken = (0..LIMIT).take_while(|_| bench.take(0).delivery != DeliveryStatus::FULL).count();
    assert!((20..100).contains(&taken), "{taken}");
}

#[test]
fn stalled_is_who_takes_nothing_while_senders_wait() {
    let mut bench = Bench::new(Overflow::Block);
    bench.take(9_000);
    bench.now += 10 * STALL;
    assert_eq!(bench.take(2_000).then, Then::Watch);
    let full = bench.now;
    assert_eq!(bench.take(100).then, Then::Nothing, "watched already");
    bench.now += STALL / 2;
    assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::HeldUntil(full + STALL));
    bench.now += STALL / 2;
    let look = bench.inbox.look(&bench.limits, bench.now);
    assert!(matches!(look, Look::Stalled { bytes } if bytes > 11_000));
    bench.give();
    assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::Well);
    bench.take(9_000);
    assert_eq!(bench.take(2_000).then, Then::Watch, "watched anew");
}

#[test]
fn taking_a_part_is_a_sign_of_life() {
    let mut bench = Bench::new(Overflow::Block);
    (0..10).for_each(|_| _ = bench.take(100_000));
    bench.now += STALL - Duration::from_millis(1);
    assert_eq!(bench.give(), (1, true));
    let alive = bench.now;
    bench.now += STALL / 2;
    assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::HeldUntil(alive + STALL));
}

#[test]
fn readers_are_woken_once_by_a_batch() {
    let mut bench = Bench::new(Overflow::Block);
    assert_eq!(bench.take(1).delivery, DeliveryStatus::TAKEN, "nobody waits, nothing is owed");
    assert_eq!(bench.give_to(true), (1, true), "it need not wait");
    assert_eq!(bench.take(1).delivery, DeliveryStatus::TAKEN);
    assert_eq!(bench.give(), (1, true));
    assert_eq!(bench.give_to(false), (0, true), "it does not wait");
    assert_eq!(bench.take(1).delivery, DeliveryStatus::TAKEN);
    bench.give();
    assert_eq!(bench.give_to(true), (0, true));
    assert!(bench.inbox.flush().is_none(), "nothing has come");
    assert_eq!(bench.take(1).delivery, DeliveryStatus::DIRTY);
    assert_eq!(bench.take(1).delivery, DeliveryStatus::TAKEN, "one flush is owed");
    bench.inbox.flush().iter().for_each(Notifier::notify);
    assert_eq!(bench.woken(), ["reader"]);
    assert!(bench.inbox.flush().is_none(), "the reader is called already");
    assert_eq!(bench.take(1).delivery, DeliveryStatus::TAKEN);
}

#[test]
fn a_reader_whose_message_another_took_still_hears_of_the_next() {
    let mut bench = Bench::new(Overflow::Block);
    bench.give_to(true);
    assert_eq!(bench.take(1).delivery, DeliveryStatus::DIRTY);
    assert_eq!(bench.give(), (1, true), "by another reader, before the flush");
    assert!(bench.inbox.flush().is_none());
    assert_eq!(bench.take(1).delivery, DeliveryStatus::DIRTY);
    assert!(bench.inbox.flush().is_some());
}

#[test]
fn what_was_received_is_readable_after_the_close() {
    let mut bench = Bench::new(Overflow::Block);
    bench.give_to(true);
    (0..2).for_each(|_| _ = bench.take(100_000));
    let notifier = bench.wake("sender");
    assert!(bench.inbox.when_drained(notifier).is_none());
    let (was_open, notifiers) = bench.inbox.close();
    notifiers.iter().for_each(Notifier::notify);
    assert!(was_open);
    assert_eq!(bench.woken(), ["sender", "reader"]);
    assert!(!bench.inbox.close().0);
    assert_eq!(bench.take(1).delivery, DeliveryStatus::CLOSED);
    let notifier = bench.wake("x");
    assert!(bench.inbox.when_drained(notifier).is_some());
    assert_eq!(bench.inbox.look(&bench.limits, bench.now + 2 * STALL), Look::Well);
    assert_eq!(bench.give(), (1, true));
    assert_eq!(bench.give(), (1, false));
    assert_eq!(bench.give_to(true), (0, false));
}
