//! The rules of a client's queue, with a clock that the test sets.

use super::*;
use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos, config::Overflow};
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
        let notifier = bench.notifier("reader");
        bench.inbox.set_notifier(notifier);
        bench
    }

    fn accept_from(&mut self, sender: &str, qos: Qos, bytes: usize) -> Accepted {
        let payload = vec![1; bytes];
        let payloads = [Payload::from(&*payload)];
        let mut encoding = Encoding::new();
        let run = Run::new(FrameKind::Message, qos, sender, "", &payloads, None, &mut encoding);
        self.inbox.accept(&run, OwnedRun::new(&run), &self.limits, || self.now)
    }

    fn accept(&mut self, bytes: usize) -> Accepted {
        self.accept_from("s", Qos::NO, bytes)
    }

    /// Reads without waiting; returns the number of runs, and whether more can follow.
    fn read(&mut self) -> (usize, bool) {
        self.read_or_wait(false)
    }

    fn read_or_wait(&mut self, waits: bool) -> (usize, bool) {
        let mut into = RunBatch::default();
        let (open, notifiers) = self.inbox.read(&mut into, waits, &self.limits, || self.now);
        notifiers.iter().for_each(Notifier::notify);
        (into.len(), open)
    }

    fn notifier(&self, name: &'static str) -> Notifier {
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
    assert_eq!(
        bench.accept(900_000),
        Accepted { delivery: DeliveryStatus::TAKEN, follow_up: FollowUp::Nothing }
    );
    let notifier = bench.notifier("early");
    assert!(bench.inbox.when_drained(notifier).is_some());
    for _ in 0..4 {
        bench.accept(60_000);
    }
    assert_eq!(
        bench.accept(240_000),
        Accepted { delivery: DeliveryStatus::FULL, follow_up: FollowUp::Nothing }
    );
    let notifier = bench.notifier("sender");
    assert!(bench.inbox.when_drained(notifier).is_none());
    assert_eq!(bench.read(), (1, true), "at most READ_BYTES per read, half a million is left");
    assert_eq!(bench.woken(), [""; 0]);
    assert_eq!(bench.read(), (2, true));
    assert_eq!(bench.read(), (2, true), "a quarter is left");
    assert_eq!(bench.woken(), ["sender"]);
    assert_eq!(bench.read(), (1, true));
    assert_eq!(bench.inbox.queued(), Queued::default());
}

#[test]
fn realtime_and_broker_messages_are_accepted_up_to_twice_the_limit() {
    for (sender, qos) in [("s", Qos::REALTIME), (BROKER_NAME, Qos::NO)] {
        let mut bench = Bench::new(Overflow::Block);
        assert_eq!(bench.accept(9_000).delivery, DeliveryStatus::TAKEN);
        for _ in 0..2 {
            let taken = bench.accept_from(sender, qos, 4_000);
            assert_eq!(taken, Accepted { delivery: DeliveryStatus::TAKEN, follow_up: FollowUp::Nothing });
        }
        let taken = bench.accept_from(sender, qos, 4_000);
        assert_eq!(taken.delivery, DeliveryStatus::REFUSED);
        assert!(matches!(taken.follow_up, FollowUp::LogRefused { refused: 1, .. }));
        assert_eq!(
            bench.accept_from(sender, qos, 4_000).follow_up,
            FollowUp::Nothing,
            "logged once per interval"
        );
        bench.now += LOG_INTERVAL;
        assert!(matches!(
            bench.accept_from(sender, qos, 4_000).follow_up,
            FollowUp::LogRefused { refused: 2, .. }
        ));
        assert_eq!(bench.accept(10).delivery, DeliveryStatus::FULL, "others wait and lose nothing");
    }
}

#[test]
fn an_empty_queue_accepts_a_run_of_any_size() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::Disconnect] {
        let mut bench = Bench::new(overflow);
        assert!(bench.accept(100 * LIMIT).delivery.is_taken());
        assert_eq!(bench.read(), (1, true));
        assert!(bench.accept_from("s", Qos::REALTIME, 100 * LIMIT).delivery.is_taken());
    }
}

#[test]
fn drop_newest_refuses_and_disconnect_closes() {
    let mut bench = Bench::new(Overflow::DropNewest);
    bench.accept(9_000);
    assert_eq!(bench.accept(2_000).delivery, DeliveryStatus::REFUSED);
    assert!(bench.accept(100).delivery.is_taken(), "a run within the limit is accepted");
    assert!(bench.accept_from("s", Qos::REALTIME, 2_000).delivery.is_taken());
    let mut bench = Bench::new(Overflow::Disconnect);
    bench.accept(9_000);
    bench.read();
    bench.accept(9_000);
    bench.inbox.reader_waits = true;
    let taken = bench.accept(2_000);
    assert_eq!(taken.delivery, DeliveryStatus::CLOSED);
    let (was_open, notifiers) = bench.inbox.close();
    assert!(!was_open && notifiers.len() == 1, "closed by itself; the watch thread calls the notifiers");
    assert!(matches!(taken.follow_up, FollowUp::Disconnect { bytes } if bytes > 9_000));
}

#[test]
fn empty_messages_count_too() {
    let mut bench = Bench::new(Overflow::Block);
    let taken = (0..LIMIT).take_while(|_| bench.accept(0).delivery != DeliveryStatus::FULL).count();
    assert!((20..100).contains(&taken), "{taken}");
}

#[test]
fn a_client_that_reads_nothing_while_senders_wait_is_stalled() {
    let mut bench = Bench::new(Overflow::Block);
    bench.accept(9_000);
    bench.now += 10 * STALL;
    assert_eq!(bench.accept(2_000).follow_up, FollowUp::Watch);
    let full = bench.now;
    assert_eq!(bench.accept(100).follow_up, FollowUp::Nothing, "watched already");
    bench.now += STALL / 2;
    assert_eq!(bench.inbox.check(&bench.limits, bench.now), Health::HeldUntil(full + STALL));
    bench.now += STALL / 2;
    let health = bench.inbox.check(&bench.limits, bench.now);
    assert!(matches!(health, Health::Stalled { bytes } if bytes > 11_000));
    bench.read();
    assert_eq!(bench.inbox.check(&bench.limits, bench.now), Health::Drained);
    bench.accept(9_000);
    assert_eq!(bench.accept(2_000).follow_up, FollowUp::Watch, "watched again");
}

#[test]
fn reading_a_part_restarts_the_stall_time() {
    let mut bench = Bench::new(Overflow::Block);
    (0..10).for_each(|_| _ = bench.accept(100_000));
    bench.now += STALL - Duration::from_millis(1);
    assert_eq!(bench.read(), (1, true));
    let alive = bench.now;
    bench.now += STALL / 2;
    assert_eq!(bench.inbox.check(&bench.limits, bench.now), Health::HeldUntil(alive + STALL));
}

#[test]
fn a_batch_wakes_readers_once() {
    let mut bench = Bench::new(Overflow::Block);
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::TAKEN, "no reader waits, no flush is needed");
    assert_eq!(bench.read_or_wait(true), (1, true), "a run is queued already");
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::TAKEN);
    assert_eq!(bench.read(), (1, true));
    assert_eq!(bench.read_or_wait(false), (0, true), "the reader does not wait");
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::TAKEN);
    bench.read();
    assert_eq!(bench.read_or_wait(true), (0, true));
    assert!(bench.inbox.flush().is_none(), "the queue is empty");
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::DIRTY);
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::TAKEN, "one flush is requested already");
    bench.inbox.flush().iter().for_each(Notifier::notify);
    assert_eq!(bench.woken(), ["reader"]);
    assert!(bench.inbox.flush().is_none(), "the reader is called already");
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::TAKEN);
}

#[test]
fn a_reader_that_lost_its_message_to_another_is_woken_by_the_next() {
    let mut bench = Bench::new(Overflow::Block);
    bench.read_or_wait(true);
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::DIRTY);
    assert_eq!(bench.read(), (1, true), "read by another reader before the flush");
    assert!(bench.inbox.flush().is_none());
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::DIRTY);
    assert!(bench.inbox.flush().is_some());
}

#[test]
fn queued_messages_are_readable_after_the_close() {
    let mut bench = Bench::new(Overflow::Block);
    bench.read_or_wait(true);
    (0..2).for_each(|_| _ = bench.accept(100_000));
    let notifier = bench.notifier("sender");
    assert!(bench.inbox.when_drained(notifier).is_none());
    let (was_open, notifiers) = bench.inbox.close();
    notifiers.iter().for_each(Notifier::notify);
    assert!(was_open);
    assert_eq!(bench.woken(), ["sender", "reader"]);
    assert!(!bench.inbox.close().0);
    assert_eq!(bench.accept(1).delivery, DeliveryStatus::CLOSED);
    let notifier = bench.notifier("x");
    assert!(bench.inbox.when_drained(notifier).is_some());
    assert_eq!(bench.inbox.check(&bench.limits, bench.now + 2 * STALL), Health::Drained);
    assert_eq!(bench.read(), (1, true));
    assert_eq!(bench.read(), (1, false));
    assert_eq!(bench.read_or_wait(true), (0, false));
}
