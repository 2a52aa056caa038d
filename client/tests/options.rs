//! Options of topic filters: what the broker gets, which consumer gets the publications, and what the client
//! learns about those that were dropped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{
    Client, Error, Filters, OptionedFilters, Options, Overflow, Qos, Reconnect, Subscription,
    SubscriptionError,
};
use serde::Deserialize;
use std::{collections::BTreeSet, time::Duration};
use support::{
    BrokerKind, Limits, TestBroker, Transport, broker_kinds,
    fake_broker::{FakeBroker, FakeConnection, OK},
    in_time, next, wait_until,
};
use tokio::io::AsyncWriteExt;

#[derive(Deserialize)]
struct Info {
    options: Vec<Optioned>,
}

#[derive(Deserialize)]
struct Optioned {
    filter: String,
}

/// Returns the filters with options that the broker has of a client.
async fn optioned(witness: &Client, name: &str) -> Vec<String> {
    let parameters = std::collections::HashMap::from([("name", name)]);
    let info: Info = witness.call_as(".broker", "client.info", &parameters).await.unwrap();
    info.options.into_iter().map(|one| one.filter).collect()
}

async fn received(subscription: &mut Subscription) -> (String, String) {
    let frame = in_time("a publication", subscription.next()).await.unwrap();
    (frame.topic().to_owned(), String::from_utf8(frame.payload().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_with_options_reach_the_broker_and_their_publications_the_consumer() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
        let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
        let mut latest = client.subscribe(Options::latest().of("a/+")).await.unwrap();
        let mut every =
            client.subscribe(Options::every(Duration::from_millis(1)).of(["b", "b/#"])).await.unwrap();
        let mut text = client.subscribe("$lossy/c/+").await.unwrap();
        client.add_filters(Options::share("g").of("d")).await.unwrap();
        let (handled, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let handler = client
            .subscribe_with(Options::key("g", 1).lossy().of("e/#"), move |frame| {
                let sent = handled.send(frame.topic().to_owned());
                async move { sent.unwrap() }
            })
            .await
            .unwrap();
        let all =
            ["$every/1/b", "$every/1/b/#", "$key/g/1/$lossy/e/#", "$latest/a/+", "$lossy/c/+", "$share/g/d"];
        assert_eq!(optioned(&other, client.name()).await, all, "{transport:?}");
        for topic in ["a/1", "b", "c/1", "d", "e/1"] {
            other.publish(topic, topic.to_owned(), Qos::PROCESSED).await.unwrap();
        }
        assert_eq!(received(&mut latest).await.0, "a/1");
        assert_eq!(received(&mut every).await.0, "b");
        assert_eq!(received(&mut text).await.0, "c/1");
        assert_eq!(next(&mut frames).await.topic(), "d");
        assert_eq!(in_time("a call", calls.recv()).await.unwrap(), "e/1");
        latest.unsubscribe().await.unwrap();
        handler.stop().await.unwrap();
        client.remove_filters(Options::share("g").of("d")).await.unwrap();
        assert_eq!(optioned(&other, client.name()).await, ["$every/1/b", "$every/1/b/#", "$lossy/c/+"]);
        other.send(client.name(), "end", Qos::NO).await.unwrap();
        assert_eq!(
            next(&mut frames).await.payload(),
            b"end",
            "reports are not shown to a client that did not ask"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_reaches_every_subscription_with_its_filter() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let (client, _) = broker.connect(*transport, &format!("{transport:?}.a")).await;
        let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
        let mut all = [
            client.subscribe("a/+").await.unwrap(),
            client.subscribe(Options::latest().of("a/+")).await.unwrap(),
            client.subscribe(Options::lossy().of("a/#")).await.unwrap(),
            client.subscribe(("b", Options::lossy().of("a/+"))).await.unwrap(),
        ];
        other.publish("a/1", "1", Qos::NO).await.unwrap();
        for subscription in &mut all {
            assert_eq!(received(subscription).await.1, "1");
        }
        other.publish("b", "2", Qos::NO).await.unwrap();
        assert_eq!(received(&mut all[3]).await.1, "2");
        assert!(all.iter_mut().all(|subscription| subscription.try_next().is_none()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_filter_without_a_group_gets_is_no_work() {
    const JOBS: usize = 50;
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        for witness_is_subscription in [true, false] {
            let name = |suffix: &str| format!("{transport:?}.{witness_is_subscription}.{suffix}");
            let (witness, mut frames) = broker.connect(*transport, &name("witness")).await;
            let (worker, _) = broker.connect(*transport, &name("worker")).await;
            let (publisher, _) = broker.connect(*transport, &name("publisher")).await;
            // the clients of the round before can still be members of their group
            let group = || Options::share(name("workers")).of("jobs/#");
            let mut own = witness.subscribe(group()).await.unwrap();
            let mut theirs = worker.subscribe(group()).await.unwrap();
            // its group alone
            let shared = async |own: &mut Subscription| loop {
                publisher.publish("jobs/0", "shared", Qos::PROCESSED).await.unwrap();
                witness.round_trip().await.unwrap();
                if own.try_next().is_some() {
                    break;
                }
            };
            in_time("a job", shared(&mut own)).await;
            let mut all = match witness_is_subscription {
                true => Some(witness.subscribe("jobs/#").await.unwrap()),
                false => {
                    witness.add_filters("jobs/#").await.unwrap();
                    None
                }
            };
            for job in 0..JOBS {
                publisher.publish("jobs/0", job.to_string(), Qos::PROCESSED).await.unwrap();
            }
            let is_new = |payload: &Vec<u8>| payload != b"shared";
            for job in 0..JOBS {
                let (mut worked, mut seen) = (vec![], vec![]);
                while !is_new(&worked) || worked.is_empty() {
                    worked = received(&mut theirs).await.1.into_bytes();
                }
                while !is_new(&seen) || seen.is_empty() {
                    seen = match &mut all {
                        Some(all) => received(all).await.1.into_bytes(),
                        None => next(&mut frames).await.payload().to_vec(),
                    };
                }
                assert_eq!((&worked, &*seen), (&job.to_string().into_bytes(), job.to_string().as_bytes()));
            }
            while let Some(frame) = own.try_next() {
                assert_eq!(frame.payload(), b"shared", "the worker has got the others");
            }
            drop(all.take());
            witness.remove_filters("jobs/#").await.unwrap();
            in_time("a job again", shared(&mut own)).await;
        }
    }
}

#[tokio::test]
async fn malformed_options_are_refused_before_anything_is_sent() {
    let fake = FakeBroker::listen();
    let (connected, mut peer) = tokio::join!(Client::connect(fake.path(), "a"), fake.register());
    let (client, _frames) = connected.unwrap();
    let wrong = || Options::share("a/b").of("jobs/#");
    let is_refused = |result: Result<(), Error>| match result {
        Err(error @ Error::BadOptions { reason: SubscriptionError::Group, .. }) => {
            assert!(
                error.to_string().starts_with("invalid topic filter \"$share/a/b/jobs/#\": the group must")
            );
        }
        other => panic!("{other:?}"),
    };
    is_refused(client.subscribe(wrong()).await.map(drop));
    is_refused(client.subscribe(("a", wrong())).await.map(drop));
    is_refused(client.subscribe_with(wrong(), |_| async {}).await.map(drop));
    is_refused(client.add_filters(&wrong()).await);
    is_refused(client.remove_filters(wrong()).await);
    is_refused(client.exclude(wrong()).await);
    client.send("x", "", Qos::NO).await.unwrap();
    assert_eq!(peer.next_operation().await.body, b"x\0", "nothing before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_options_is_not_taken_for_one_with_them() {
    for kind in broker_kinds() {
        if kind == BrokerKind::Elbus {
            continue;
        }
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, _) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let refused = client.subscribe(Options::latest().of("a")).await;
            assert!(matches!(refused, Err(Error::NotSupported { feature: "latest", .. })), "{refused:?}");
            // a filter that is written with its options is its own topic there
            let mut text = client.subscribe("$latest/a").await.unwrap();
            client.publish("$latest/a", "1", Qos::NO).await.unwrap();
            assert_eq!(received(&mut text).await.0, "$latest/a");
        }
    }
}

/// Answers the question for features.
async fn answer_features(peer: &mut FakeConnection, result: &[u8]) {
    let asked = peer.next_operation().await;
    let (head, call) = asked.body.split_at(9);
    assert_eq!((head, &call[4..]), (&b".broker\0\x01"[..], &b"features\0"[..]));
    peer.acknowledge(&asked, OK).await;
    let reply = [&b".broker\0\x11"[..], &call[..4], result].concat();
    deliver(peer, 0x12, &reply).await;
}

async fn deliver(peer: &mut FakeConnection, kind: u8, body: &[u8]) {
    let mut head = vec![kind];
    head.extend((body.len() as u32).to_le_bytes());
    head.push(0);
    peer.stream.write_all(&[&head, body].concat()).await.unwrap();
}

#[tokio::test]
async fn features_are_asked_for_once_by_many_and_again_after_a_reconnection() {
    let fake = FakeBroker::listen();
    let builder = Client::builder("a").reconnect(Reconnect::backoff());
    let (connected, mut peer) = tokio::join!(builder.connect(fake.path()), fake.register());
    let (client, _frames) = connected.unwrap();
    let subscribe = |options: OptionedFilters| {
        let client = client.clone();
        tokio::spawn(async move { client.subscribe(options).await })
    };
    let many: Vec<_> = (0..4).map(|at| subscribe(Options::share("g").of(format!("{at}")))).collect();
    // features that are no flags, or are off, do not matter
    answer_features(&mut peer, b"\x83\xA5share\xC3\xA6latest\xC2\xA3max\x2A").await;
    let mut filters = BTreeSet::new();
    for _ in 0..4 {
        let sent = peer.next_operation().await;
        assert_eq!(sent.op(), 0x02);
        peer.acknowledge(&sent, OK).await;
        filters.extend(sent.filters());
    }
    assert_eq!(filters.len(), 4);
    let mut subscriptions = vec![];
    for one in many {
        subscriptions.push(one.await.unwrap().unwrap());
    }
    for options in [Options::latest().of("x"), Options::key("max", 1).of("x")] {
        let refused = client.subscribe(options).await;
        assert!(matches!(refused, Err(Error::NotSupported { .. })), "{refused:?}");
    }
    drop(peer);
    let mut peer = fake.register().await;
    assert_eq!(peer.next_operation().await.filters().len(), 4, "restored without a question");
    let again = subscribe(Options::share("g").of("x"));
    answer_features(&mut peer, b"\x90").await;
    let refused = again.await.unwrap();
    assert!(matches!(refused, Err(Error::NotSupported { feature: "share", .. })), "{refused:?}");
}

#[tokio::test]
async fn reports_count_for_the_consumers_of_their_filter() {
    let fake = FakeBroker::listen();
    let (connected, mut peer) = tokio::join!(Client::connect(fake.path(), "a"), fake.register());
    let (client, mut frames) = connected.unwrap();
    let acknowledge = async |peer: &mut FakeConnection| {
        let sent = peer.next_operation().await;
        peer.acknowledge(&sent, OK).await;
        sent.filters()
    };
    let subscribing = {
        let client = client.clone();
        tokio::spawn(async move {
            let deep = client.subscribe(Options::lossy().of("a/#/x")).await.unwrap();
            let plain = client.subscribe("a/1").await.unwrap();
            client.add_filters(Options::lossy().of("b")).await.unwrap();
            (deep, plain)
        })
    };
    answer_features(&mut peer, b"\x82\xA5lossy\xC3\xA6missed\xC3").await;
    for filter in [".broker/missed", "$lossy/a/#/x", "a/1", "$lossy/b"] {
        assert_eq!(acknowledge(&mut peer).await, [filter]);
    }
    let (mut deep, mut plain) = subscribing.await.unwrap();
    let report = |filter: &str, count: u8| {
        let mut body = b".broker\0.broker/missed\0\x82\xA6filter".to_vec();
        body.push(0xA0 | filter.len() as u8);
        body.extend(filter.as_bytes());
        body.extend(b"\xA5count");
        body.push(count);
        body
    };
    // the broker leaves out what follows a `#`
    deliver(&mut peer, 0x01, &report("$lossy/a/#", 3)).await;
    deliver(&mut peer, 0x01, &report("$lossy/b", 4)).await;
    deliver(&mut peer, 0x01, b".broker\0.broker/missed\0\xC1").await;
    deliver(&mut peer, 0x01, b"b\0a/1\x001").await;
    deliver(&mut peer, 0x01, b"b\0b\x002").await;
    let missed = |frame: elbus_client::Frame| (frame.topic().to_owned(), frame.missed());
    assert_eq!(missed(in_time("a", deep.next()).await.unwrap()), ("a/1".to_owned(), 3));
    assert_eq!(missed(in_time("a", plain.next()).await.unwrap()), ("a/1".to_owned(), 0));
    assert_eq!(missed(next(&mut frames).await), ("b".to_owned(), 4));
    assert_eq!((deep.missed(), plain.missed(), frames.missed()), (3, 0, 4));
    // a client that subscribes to reports itself gets them, too
    let own = tokio::spawn(async move { client.subscribe(".broker/+").await.unwrap() });
    assert_eq!(acknowledge(&mut peer).await, [".broker/+"]);
    let mut own = own.await.unwrap();
    deliver(&mut peer, 0x01, &report("$lossy/b", 4)).await;
    assert_eq!(in_time("a report", own.next()).await.unwrap().topic(), ".broker/missed");
    assert_eq!(frames.missed(), 8);
}

/// Publishes numbers to a client that has stopped reading, then counts what it gets.
async fn everything_is_received_or_missed(transport: Transport, options: OptionedFilters, topics: usize) {
    const COUNT: usize = 30_000;
    let broker =
        TestBroker::start_with(BrokerKind::Elbus, Limits { queue_bytes: Some(100_000), ..Limits::default() });
    // it reads nothing while its consumer takes nothing
    let builder =
        Client::builder("slow").queue_bytes(10_000).hold_limit(Duration::MAX).overflow(Overflow::Block);
    let (client, _) = broker.connect_with(transport, builder).await.unwrap();
    let (publisher, _) = broker.connect(transport, "publisher").await;
    let mut subscription = client.subscribe(options).await.unwrap();
    for number in 0..COUNT {
        let qos = if number % 500 == 499 { Qos::PROCESSED } else { Qos::NO };
        let topic = format!("t/{}", number % topics);
        in_time("an acknowledgement", publisher.publish(&topic, vec![7; 1000], qos)).await.unwrap();
    }
    let (mut received, mut reported) = (0, 0);
    in_time("all of them", async {
        while received + subscription.missed() < COUNT as u64 {
            if let Ok(frame) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
                received += 1;
                reported += frame.unwrap().missed();
            }
        }
    })
    .await;
    assert!(subscription.missed() > 0 && received > 0, "{received}");
    assert_eq!(received + subscription.missed(), COUNT as u64);
    // the last gap is reported by the frame behind it
    publisher.publish("t/last", "", Qos::NO).await.unwrap();
    reported += in_time("the last", subscription.next()).await.unwrap().missed();
    assert_eq!(reported, subscription.missed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_subscription_counts_what_the_broker_has_dropped() {
    for transport in [Transport::Unix, Transport::Tcp] {
        everything_is_received_or_missed(transport, Options::lossy().of("t/#"), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_values_of_too_many_topics_are_counted() {
    // each value has a topic of its own, so none is replaced
    everything_is_received_or_missed(Transport::Unix, Options::latest().of("t/#"), usize::MAX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_with_options_are_restored() {
    let mut broker = TestBroker::start(BrokerKind::Elbus);
    let builder = || Client::builder("a").reconnect(Reconnect::backoff());
    let (client, _) = broker.connect_with(Transport::Unix, builder()).await.unwrap();
    let mut subscription = client.subscribe(Options::latest().of("a")).await.unwrap();
    broker.kill();
    wait_until("the loss", || !client.is_connected()).await;
    // without a connection it cannot be checked, and is restored as any filter
    let mut other = client.subscribe(Options::lossy().of("b")).await.unwrap();
    broker.restart();
    in_time("the connection", client.connected()).await.unwrap();
    client.round_trip().await.unwrap();
    assert_eq!(optioned(&client, "a").await, ["$latest/a", "$lossy/b"]);
    client.publish("a", "1", Qos::NO).await.unwrap();
    client.publish("b", "2", Qos::NO).await.unwrap();
    assert_eq!(received(&mut subscription).await.1, "1");
    assert_eq!(received(&mut other).await.1, "2");
    assert_eq!(*Options::lossy().of("b").as_filters(), ["$lossy/b"]);
}
