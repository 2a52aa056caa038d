//! Models of what threads do to the router at the same time: shuttle runs each in many orders, and what must
//! hold is looked at in all of them. Built with `--cfg elbus_model` only, see `.ci/models`.

mod mixed;
mod name_waits;
mod replays;
mod send_queue;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use elbus_plugin_api::{
    ClientInfo, Code, DeliveryStatus, Dispatch, EventKind, MixedRun, Op, Payload, Qos, Queued, Request, Run,
    SinkLimits,
    abi::{
        NotifierObject, RawClient, RawEvent, RawListener, RawListener_TO, RawNotifier, RawNotifier_TO,
        RawSink, RawSink_TO,
    },
    access::{AccessRules, ClientRules, Verdict},
};
use shuttle::{Config, Runner, scheduler::RandomScheduler, thread};
use std::sync::{
    Arc, Mutex as Plain,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};
use std::time::{Duration, Instant};

use super::{HoldSettings, Router, RouterSettings, sender::Sender};
use crate::access::RuleSetter;
use crate::settings::BrokerSettings;

/// Orders that each model is run in, unless `ELBUS_MODEL_ORDERS` says otherwise.
const ORDERS: usize = 2000;

/// Runs `model` in many orders; panics in the first that does not hold, and says how to have it again.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("ELBUS_MODEL_ORDERS").ok().and_then(|text| text.parse().ok());
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    Runner::new(RandomScheduler::new(orders.unwrap_or(ORDERS)), config).run(model);
}

/// What came to a sink. Plain locks: no thread is switched while one is held.
#[derive(Default)]
struct Record {
    got: Plain<Vec<Vec<u8>>>,
    closed: AtomicUsize,
    full: AtomicBool,
    waiting: Plain<Vec<NotifierObject>>,
}

impl Record {
    /// Takes what it is sent from now on without complaint, and tells those who wait for that.
    fn drain(&self) {
        self.full.store(false, SeqCst);
        thread::yield_now();
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        waiting.into_iter().for_each(|notifier| notifier.notify());
    }

    fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

struct Recording(Arc<Record>);

impl RawSink for Recording {
    fn deliver(&self, run: &mut Run<'_>) -> u8 {
        thread::yield_now();
        if self.0.closed.load(SeqCst) > 0 {
            return DeliveryStatus::CLOSED.bits();
        }
        self.0.got.lock().unwrap().extend(run.payloads().iter().map(|payload| payload.to_vec()));
        let full = self.0.full.load(SeqCst);
        (if full { DeliveryStatus::TAKEN | DeliveryStatus::FULL } else { DeliveryStatus::TAKEN }).bits()
    }
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> u8 {
        thread::yield_now();
        if self.0.closed.load(SeqCst) > 0 {
            return DeliveryStatus::CLOSED.bits();
        }
        self.0.got.lock().unwrap().extend(run.frames().map(|frame| frame.payload().to_vec()));
        DeliveryStatus::TAKEN.bits()
    }
    fn flush(&self) {}
    fn when_drained(&self, notifier: NotifierObject) {
        thread::yield_now();
        let mut waiting = self.0.waiting.lock().unwrap();
        if self.0.full.load(SeqCst) {
            return waiting.push(notifier);
        }
        drop(waiting);
        notifier.notify();
    }
    fn close(&self, _: RStr<'_>) {
        self.0.closed.fetch_add(1, SeqCst);
    }
    fn queued(&self) -> Queued {
        Queued::default()
    }
    fn limit(&self, _: &SinkLimits) {}
}

/// The kinds and subjects of events, as they are told.
#[derive(Clone, Default)]
struct EventRecord(Arc<Plain<Vec<(bool, String)>>>);

impl RawListener for EventRecord {
    fn on_event(&self, event: &RawEvent<'_>) {
        thread::yield_now();
        let came = event.kind == EventKind::ClientRegistered as u32;
        self.0.lock().unwrap().push((came, event.subject.as_str().to_owned()));
    }
}

fn router(force_register: bool) -> (Arc<Router>, EventRecord) {
    let router =
        Router::new(RouterSettings { force_register, ..RouterSettings::of(&BrokerSettings::default()) });
    let events = EventRecord::default();
    router.events.add_listener(1, RawListener_TO::from_value(events.clone(), TD_Opaque));
    (router, events)
}

fn register(router: &Arc<Router>, name: &str) -> Result<(Sender, Arc<Record>), Code> {
    let record = Arc::<Record>::default();
    let sink = RawSink_TO::from_value(Recording(record.clone()), TD_Opaque);
    let client = router.register(name, ClientInfo::default(), 1, sink)?;
    Ok((Sender::new(router.clone(), Some(client)), record))
}

fn dispatch(sender: &mut Sender, op: Op, target: &str, payloads: &[u8]) -> Dispatch {
    let payloads: Vec<_> = payloads.iter().map(|byte| vec![*byte]).collect();
    let payloads: Vec<_> = payloads.iter().map(|bytes| Payload::from(&bytes[..])).collect();
    sender.dispatch(&Request::new(op, Qos::PROCESSED, target, &payloads))
}

#[test]
fn every_event_is_dispatched_once_and_in_the_order_of_the_changes() {
    explore(|| {
        let (router, events) = router(false);
        let come_and_go = |router: Arc<Router>, name: &'static str| {
            thread::spawn(move || {
                for _ in 0..2 {
                    drop(register(&router, name).unwrap());
                }
            })
        };
        let threads = [come_and_go(router.clone(), "a"), come_and_go(router.clone(), "b")];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let events = events.0.lock().unwrap();
        for name in ["a", "b"] {
            let of_name: Vec<_> =
                events.iter().filter(|(_, subject)| subject == name).map(|(came, _)| *came).collect();
            assert_eq!(of_name, [true, false, true, false], "{name}");
        }
    });
}

#[test]
fn a_contested_name_has_one_owner_and_all_others_are_disconnected() {
    explore(|| {
        let (router, events) = router(true);
        let (mut witness, _) = register(&router, "witness").unwrap();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let router = router.clone();
                thread::spawn(move || register(&router, "n").unwrap())
            })
            .collect();
        let mut acknowledged = 0;
        for number in 0..3 {
            acknowledged +=
                usize::from(dispatch(&mut witness, Op::Message, "n", &[number]).code() == Code::Ok);
        }
        let owners: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(router.client_count(), 2);
        let closed: usize = owners.iter().map(|(_, record)| record.closed.load(SeqCst)).sum();
        assert_eq!(closed, 1, "the first of them, once");
        let got: usize = owners.iter().map(|(_, record)| record.count()).sum();
        assert_eq!(got, acknowledged, "what was acknowledged has come to one of them");
        // who has left is gone when the next one comes, also to those who only hear of it
        let of_name = events
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, subject)| subject == "n")
            .map(|t| t.0)
            .collect::<Vec<_>>();
        assert_eq!(of_name, [true, false, true]);
    });
}

#[test]
fn cached_routes_are_invalidated_by_subscriptions_and_registrations() {
    explore(|| {
        let (router, _) = router(false);
        let (mut sender, _) = register(&router, "sender").unwrap();
        let changing = {
            let router = router.clone();
            thread::spawn(move || {
                let (mut client, record) = register(&router, "late").unwrap();
                assert_eq!(dispatch(&mut client, Op::Subscribe, "t", &[]).code(), Code::Ok);
                (client, record)
            })
        };
        for _ in 0..2 {
            dispatch(&mut sender, Op::Publish, "t", &[1]);
            dispatch(&mut sender, Op::Broadcast, "late", &[1]);
        }
        let (_client, record) = changing.join().unwrap();
        let before = record.count();
        dispatch(&mut sender, Op::Publish, "t", &[2]);
        dispatch(&mut sender, Op::Broadcast, "late", &[2]);
        assert_eq!(record.count(), before + 2, "both routes know it");
    });
}

#[derive(Clone)]
struct CountingWake(Arc<AtomicUsize>);

impl RawNotifier for CountingWake {
    fn notify(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_held_sender_is_notified_once_when_all_receivers_have_drained() {
    explore(|| {
        let (router, _) = router(false);
        let (mut sender, _) = register(&router, "sender").unwrap();
        let slow: Vec<_> = ["a.1", "a.2", "a.3"].map(|name| register(&router, name).unwrap()).into();
        slow.iter().for_each(|(_, record)| record.full.store(true, SeqCst));
        assert!(dispatch(&mut sender, Op::Broadcast, "a.*", &[1]).is_congested());
        assert!(sender.end_batch());
        let draining: Vec<_> = slow
            .iter()
            .map(|(_, record)| {
                let record = record.clone();
                thread::spawn(move || record.drain())
            })
            .collect();
        let woken = Arc::<AtomicUsize>::default();
        sender.when_ready(RawNotifier_TO::from_ptr(RArc::new(CountingWake(woken.clone())), TD_Opaque));
        draining.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(woken.load(SeqCst), 1);
    });
}

/// Dispatches until it is taken, and waits in between.
fn dispatch_blocking(sender: &mut Sender, target: &str, payload: u8) {
    loop {
        let payload = [payload];
        let payloads = [Payload::from(&payload[..])];
        let request = Request::new(Op::Message, Qos::NO, target, &payloads).blocking();
        let blocked = sender.dispatch(&request).is_blocked();
        if sender.end_batch() || blocked {
            let woken = Arc::<AtomicUsize>::default();
            sender.when_ready(RawNotifier_TO::from_ptr(RArc::new(CountingWake(woken.clone())), TD_Opaque));
            while woken.load(SeqCst) == 0 {
                thread::yield_now();
            }
            assert_eq!(woken.load(SeqCst), 1);
        }
        if !blocked {
            return;
        }
    }
}

#[test]
fn a_blocked_sender_goes_on_when_its_receiver_has_drained_and_nothing_arrives_twice() {
    explore(|| {
        let (router, _) = router(false);
        let (_slow, record) = register(&router, "slow").unwrap();
        record.full.store(true, SeqCst);
        let sending = |name: &'static str, first: u8| {
            let router = router.clone();
            thread::spawn(move || {
                let (mut sender, _) = register(&router, name).unwrap();
                (first..first + 2).for_each(|number| dispatch_blocking(&mut sender, "slow", number));
            })
        };
        let threads = [sending("a", 10), sending("b", 20)];
        let draining = {
            let record = record.clone();
            thread::spawn(move || record.drain())
        };
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        draining.join().unwrap();
        let got = record.got.lock().unwrap();
        for first in [10, 20] {
            let of: Vec<_> =
                got.iter().map(|got| got[0]).filter(|got| (first..first + 2).contains(got)).collect();
            assert_eq!(of, [first, first + 1]);
        }
        assert_eq!(got.len(), 4);
        assert!(!router.holds.any(), "none is full any more");
    });
}

#[test]
fn a_held_sender_is_notified_once_when_its_receiver_drains_or_has_spent_its_budget() {
    explore(|| {
        let (router, _) = router(false);
        let budget = Duration::from_millis(1);
        router.holds.set(HoldSettings { budget, ..HoldSettings::default() });
        let (mut sender, _) = register(&router, "sender").unwrap();
        let (_other, _) = register(&router, "other").unwrap();
        let (_slow, record) = register(&router, "slow").unwrap();
        record.full.store(true, SeqCst);
        dispatch(&mut sender, Op::Message, "other", &[1]);
        assert!(dispatch(&mut sender, Op::Message, "slow", &[2]).is_congested());
        sender.end_batch();
        let checking = {
            let router = router.clone();
            let now = Instant::now();
            thread::spawn(move || {
                for seconds in 0..3 {
                    router.holds.check(now + Duration::from_secs(seconds));
                }
            })
        };
        let draining = {
            let record = record.clone();
            thread::spawn(move || record.drain())
        };
        let woken = Arc::<AtomicUsize>::default();
        sender.when_ready(RawNotifier_TO::from_ptr(RArc::new(CountingWake(woken.clone())), TD_Opaque));
        checking.join().unwrap();
        draining.join().unwrap();
        assert_eq!(woken.load(SeqCst), 1);
        assert!(!router.holds.any());
    });
}

#[test]
fn no_client_keeps_what_new_rules_deny() {
    explore(|| {
        let (router, _) = router(false);
        let (mut publisher, _) = register(&router, "publisher").unwrap();
        let (mut early, early_record) = register(&router, "early").unwrap();
        let rule = |text: &str| vec![text.parse().unwrap()];
        let rules = AccessRules {
            default: Verdict::Deny,
            clients: vec![
                ClientRules { name: "publisher".into(), publish: rule("allow t"), ..ClientRules::default() },
                ClientRules { name: "early".into(), subscribe: rule("allow u"), ..ClientRules::default() },
            ],
            ..AccessRules::default()
        };
        let changing = {
            let router = router.clone();
            thread::spawn(move || router.set_access_rules(RuleSetter::default(), rules).unwrap())
        };
        let coming = {
            let router = router.clone();
            thread::spawn(move || register(&router, "late").ok())
        };
        let subscribing = thread::spawn(move || {
            for filter in ["t", "u"] {
                dispatch(&mut early, Op::Subscribe, filter, &[]);
            }
            early
        });
        for topic in ["t", "forbidden"] {
            dispatch(&mut publisher, Op::Publish, topic, &[1]);
        }
        changing.join().unwrap();
        let late = coming.join().unwrap();
        let _early = subscribing.join().unwrap();
        let before = early_record.count();
        assert_eq!(dispatch(&mut publisher, Op::Publish, "forbidden", &[2]).code(), Code::AccessDenied);
        assert_eq!(dispatch(&mut publisher, Op::Publish, "t", &[2]).code(), Code::Ok);
        assert_eq!(early_record.count(), before, "its subscription to t has ended, or was denied");
        if let Some((mut late, record)) = late {
            assert!(dispatch(&mut late, Op::Message, "early", &[3]).is_gone());
            assert_eq!(record.closed.load(SeqCst), 1);
        }
        assert_eq!(router.client_count(), 2);
    });
}
