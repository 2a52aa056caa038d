//! Replays: a plugin that keeps publications delivers them to new subscribers, once and in order with those
//! that are published meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Code, DeliveryStatus, FrameKind, Host, Notifier, Op,
    hooks::{
        EarlierPublication, Hook, HookScope, InterceptedFrame, InterceptedRun, Interceptor, OnFailure,
        Replay, Replayed, SubscriptionChange, Verdict,
    },
};
use elbus_protocol::topic;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
};
use support::{Peer, broker};

/// Sender, payload and mark of the last publication, by topic.
type Kept = Arc<Mutex<BTreeMap<String, (String, Vec<u8>, u64)>>>;

/// Keeps the last publication of each topic under `k/`.
struct Store {
    host: Host,
    kept: Kept,
}

impl Interceptor for Store {
    fn intercept(&self, _: &InterceptedFrame<'_>) -> Verdict {
        Verdict::Continue
    }

    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        let mut kept = self.kept.lock().unwrap();
        for index in 0..run.len() {
            let Some(frame) = run.frame(index).filter(|frame| frame.op() == Op::Publish) else { return };
            let mark = self.host.next_mark();
            let value = (frame.sender().to_owned(), frame.payload().to_vec(), mark);
            kept.insert(frame.target().to_owned(), value);
            run.set_mark(index, mark);
        }
    }
}

/// A subscription to replay to.
struct Job {
    filters: Vec<String>,
    replay: Replay,
}

struct Retention {
    kept: Kept,
    jobs: mpsc::Receiver<Job>,
    _hooks: (Hook, Hook),
}

impl Retention {
    fn new(broker: &Broker) -> Self {
        let (kept, host) = (Kept::default(), broker.host().clone());
        let keeper = Store { host: host.clone(), kept: kept.clone() };
        let scope = HookScope::new().publications(["k/#"]);
        let interceptor = host.add_interceptor(&scope, OnFailure::Open, keeper).unwrap();
        let (sender, jobs) = mpsc::channel();
        let listener =
            host.add_subscription_listener(move |change: &SubscriptionChange<'_>, replay: Option<Replay>| {
                if let Some(replay) = replay {
                    let filters = change.filters().map(str::to_owned).collect();
                    _ = sender.send(Job { filters, replay });
                }
            });
        Retention { kept, jobs, _hooks: (interceptor, listener.unwrap()) }
    }

    /// Replays to a subscriber; returns what became of each kept publication that its filters match.
    fn replay(&self, job: &Job) -> Vec<Replayed> {
        let topics: Vec<_> = self.kept.lock().unwrap().keys().cloned().collect();
        let topics =
            topics.iter().filter(|name| job.filters.iter().any(|filter| topic::matches(filter, name)));
        let mut all = vec![];
        for name in topics {
            loop {
                // what is current now
                let (sender, payload, mark) = self.kept.lock().unwrap()[name].clone();
                let replayed = job.replay.send(&EarlierPublication::new(&sender, name, &payload, mark));
                if replayed == Replayed::Wait {
                    let (notifier, ready) = mpsc::channel();
                    job.replay.when_ready(Notifier::new(move || _ = notifier.send(())));
                    ready.recv().unwrap();
                    continue;
                }
                all.push(replayed);
                break;
            }
        }
        job.replay.flush();
        all
    }

    fn replay_next(&self) -> Vec<Replayed> {
        self.replay(&self.jobs.recv().unwrap())
    }
}

#[test]
fn a_new_subscriber_gets_what_was_kept_from_its_sender_and_then_what_follows() {
    let broker = broker();
    let retention = Retention::new(&broker);
    let (mut sender, mut panel) = (Peer::new(&broker, "s"), Peer::new(&broker, "panel"));
    for payload in [b"1", b"2"] {
        assert_eq!(sender.publish("k/a", payload), 0);
    }
    sender.publish("k/b", b"3");
    sender.publish("u", b"not kept");
    panel.subscribe(&["k/+", "u"]);
    assert_eq!(retention.replay_next(), [Replayed::Sent; 2]);
    let of = |topic: &str, payload: &[u8]| {
        (FrameKind::Publish, "s".to_owned(), topic.to_owned(), payload.to_vec())
    };
    assert_eq!(panel.take(), [of("k/a", b"2"), of("k/b", b"3")]);
    sender.publish("k/a", b"4");
    sender.publish("u", b"5");
    sender.mixed(&[(Op::Publish, "k/b", b"6"), (Op::Publish, "u", b"7"), (Op::Message, "panel", b"8")]);
    assert_eq!(panel.payloads(), ["4", "5", "6", "7", "8"]);
}

#[test]
fn what_a_client_has_or_does_not_want_is_not_replayed() {
    let broker = broker();
    let retention = Retention::new(&broker);
    let (mut sender, mut panel) = (Peer::new(&broker, "s"), Peer::new(&broker, "panel"));
    sender.publish("k/a", b"1");
    sender.publish("k/b", b"2");
    // already subscribed by another filter
    panel.subscribe(&["k/a"]);
    assert_eq!((retention.replay_next(), panel.payloads()), (vec![Replayed::Sent], vec!["1".to_owned()]));
    panel.subscribe(&["k/#"]);
    assert_eq!(retention.replay_next(), [Replayed::Skipped, Replayed::Sent]);
    assert_eq!(panel.payloads(), ["2"]);
    // nothing new
    panel.subscribe(&["k/#"]);
    assert!(retention.jobs.try_recv().is_err());
    // received live, excluded and unsubscribed meanwhile
    let mut other = Peer::new(&broker, "other");
    other.subscribe(&["k/a", "k/b", "k/#"]);
    let job = retention.jobs.recv().unwrap();
    sender.publish("k/a", b"3");
    other.filters(Op::Exclude, &["k/b"]);
    assert_eq!(retention.replay(&job), [Replayed::Skipped; 2]);
    assert_eq!(other.payloads(), ["3"]);
    other.filters(Op::Unexclude, &["k/b"]);
    other.filters(Op::Unsubscribe, &["k/b", "k/#"]);
    assert_eq!(retention.replay(&job), [Replayed::Skipped; 2]);
    drop(other);
    assert_eq!(retention.replay(&job), [Replayed::Ended; 2]);
}

#[test]
fn a_client_that_subscribes_again_gets_what_is_kept_again() {
    let broker = broker();
    let retention = Retention::new(&broker);
    let (mut sender, mut panel) = (Peer::new(&broker, "s"), Peer::new(&broker, "panel"));
    sender.publish("k/a", b"1");
    panel.subscribe(&["k/#"]);
    assert_eq!(retention.replay_next(), [Replayed::Sent]);
    for payload in ["1", "2", "2"] {
        if payload == "2" {
            sender.publish("k/a", b"2");
        }
        panel.filters(Op::Unsubscribe, &["k/#"]);
        panel.subscribe(&["k/#"]);
        assert_eq!(retention.replay_next(), [Replayed::Sent], "{payload}");
        assert_eq!(panel.payloads().last().map(String::as_str), Some(payload));
    }
}

#[test]
fn subscriptions_with_options_get_what_was_kept_unless_they_share() {
    let broker = broker();
    let retention = Retention::new(&broker);
    let mut sender = Peer::new(&broker, "s");
    sender.publish("k/a", b"1");
    for (filter, expected) in
        [("$lossy/k/#", 1), ("$latest/k/#", 1), ("$every/1000/k/#", 1), ("$share/g/k/#", 0)]
    {
        let mut panel = Peer::new(&broker, "panel");
        panel.subscribe(&[filter]);
        match retention.jobs.try_recv() {
            Ok(job) => assert_eq!(retention.replay(&job), [Replayed::Sent], "{filter}"),
            Err(_) => assert_eq!(expected, 0, "{filter}"),
        }
        assert_eq!(panel.payloads().len(), expected, "{filter}");
    }
}

#[test]
fn a_replay_waits_for_the_client() {
    // values that wait apart from the queue are limited too
    ["k/#", "$latest/k/#"].into_iter().for_each(replay_that_waits);
}

fn replay_that_waits(filter: &str) {
    let broker = broker();
    let retention = Retention::new(&broker);
    let (mut sender, mut panel) = (Peer::new(&broker, "s"), Peer::new(&broker, "panel"));
    for number in 0..10 {
        sender.publish(&format!("k/{number}"), &[number; 40_000]);
    }
    panel.subscribe(&[filter]);
    let job = retention.jobs.recv().unwrap();
    let (payload, mut sent) = ([0; 40_000], 0);
    let send = |number: u64| {
        job.replay.send(&EarlierPublication::new("s", &format!("k/{number}"), &payload, number + 1))
    };
    while send(sent) == Replayed::Sent {
        sent += 1;
    }
    assert_eq!((sent, send(sent)), (2, Replayed::Wait), "64 KiB at once: {filter}");
    job.replay.when_ready(Notifier::new(|| ()));
    assert_eq!(send(sent), Replayed::Sent);
    // a full client takes nothing
    panel.record.answer.store(DeliveryStatus::FULL.bits(), SeqCst);
    sender.send("panel", b"x");
    job.replay.when_ready(Notifier::new(|| ()));
    assert_eq!(send(sent + 1), Replayed::Wait);
}

#[test]
fn changes_are_reported_in_order() {
    let broker = broker();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    let listener = move |change: &SubscriptionChange<'_>, replay: Option<Replay>| {
        let filters: Vec<_> = change.filters().collect();
        let line =
            format!("{:?} {} {:?} {}", change.event().unwrap(), change.client(), filters, replay.is_some());
        seen.lock().unwrap().push(line);
    };
    let hook = broker.host().add_subscription_listener(listener).unwrap();
    let second = broker.host().add_subscription_listener(|_: &SubscriptionChange<'_>, _: Option<Replay>| ());
    assert!(
        second.unwrap_err().to_string().contains("is the subscription listener, of which a broker has one")
    );
    let mut peer = Peer::new(&broker, "p");
    peer.subscribe(&["a", "$latest/b"]);
    peer.subscribe(&["a", "$share/g/c"]);
    assert_eq!(peer.filters(Op::Subscribe, &["$share/g"]), Code::BadData);
    peer.filters(Op::Unsubscribe, &["a", "x"]);
    peer.filters(Op::Exclude, &["d"]);
    peer.filters(Op::Unexclude, &["d"]);
    drop(peer);
    let expected = [
        r#"Subscribed p ["a", "b"] true"#,
        r#"Subscribed p ["c"] false"#,
        r#"Unsubscribed p ["a"] false"#,
        r#"Excluded p ["d"] false"#,
        r#"Unexcluded p ["d"] false"#,
        "Left p [] false",
    ];
    assert_eq!(*changes.lock().unwrap(), expected);
    drop(hook);
    Peer::new(&broker, "q").subscribe(&["a"]);
    assert_eq!(changes.lock().unwrap().len(), expected.len());
}

/// Stops the publishers, also if the test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Publishers count up at full speed; clients subscribe meanwhile. From its first number of a topic on, each
/// client must get every number once and in order.
#[test]
fn snapshot_and_live_traffic_meet_exactly_once() {
    const PUBLISHERS: usize = 2;
    const TOPICS: usize = 8;
    let broker = broker();
    let retention = Retention::new(&broker);
    let (stop, rounds) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; PUBLISHERS]);
    let published = || rounds.each_ref().map(|rounds| rounds.load(SeqCst));
    // more of each publisher
    let has_more = |before: [u64; PUBLISHERS], more| {
        published().iter().zip(before).all(|(now, before)| *now >= before + more)
    };
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let mut sender = Peer::new(&broker, &format!("s{publisher}"));
            let (stop, rounds) = (&stop, &rounds[publisher]);
            scope.spawn(move || {
                let mut number = 0_u64;
                // the first half is published by both
                let topic = |topic| {
                    if topic < TOPICS / 2 {
                        format!("k/all/{topic}")
                    } else {
                        format!("k/{publisher}/{topic}")
                    }
                };
                let topics: Vec<_> = (0..TOPICS).map(topic).collect();
                while !stop.load(SeqCst) {
                    let numbers = [number + 1, number + 2];
                    number += 2;
                    if publisher == 0 {
                        for (number, topic) in numbers.iter().flat_map(|n| topics.iter().map(move |t| (n, t)))
                        {
                            sender.publish(topic, &number.to_le_bytes());
                        }
                    } else {
                        // a mixed run, in which each topic is twice
                        let payloads = numbers.map(u64::to_le_bytes);
                        let topics = topics.iter().map(String::as_str);
                        let frames: Vec<_> = payloads
                            .iter()
                            .flat_map(|payload| {
                                topics.clone().map(move |topic| (Op::Publish, topic, &payload[..]))
                            })
                            .collect();
                        sender.mixed(&frames);
                    }
                    rounds.fetch_add(1, SeqCst);
                }
            });
        }
        let _stops = Stops(&stop);
        while retention.kept.lock().unwrap().len() < PUBLISHERS * TOPICS / 2 + TOPICS / 2 {
            std::thread::yield_now();
        }
        let filters = ["k/#", "k/+/3", "$lossy/k/#"];
        for client in 0..60 {
            let mut panel = Peer::new(&broker, &format!("panel{client}"));
            panel.record.takes_mixed.store(client % 3 == 0, SeqCst);
            let start = published();
            panel.subscribe(&[filters[client % filters.len()]]);
            let job = retention.jobs.recv().unwrap();
            // some live publications first, sometimes
            while client % 2 == 1 && !has_more(start, 3) {
                std::thread::yield_now();
            }
            retention.replay(&job);
            let replayed = published();
            while !has_more(replayed, 4) {
                std::thread::yield_now();
            }
            drop(job);
            let mut last = BTreeMap::new();
            let got = panel.take();
            for (_, sender, topic, payload) in &got {
                let number = u64::from_le_bytes(payload[..].try_into().unwrap());
                if let Some(before) = last.insert((sender.clone(), topic.clone()), number) {
                    assert_eq!(number, before + 1, "client {client}: {topic} after {before}");
                }
            }
            let topics = if client % filters.len() == 1 { 1 } else { TOPICS };
            assert_eq!(last.len(), topics * PUBLISHERS, "client {client}");
        }
    });
}
