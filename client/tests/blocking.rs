//! The blocking client in programs without tokio and in async tasks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{
    CallOptions, ConnectionEvent, Error, Frame, FrameKind, Options, Qos, Reconnect,
    blocking::{Client, Frames, Router},
};
use std::{
    sync::{Arc, Barrier, mpsc::channel},
    thread,
    time::Duration,
};
use support::{BrokerKind, TEST_TIMEOUT, TestBroker, broker_kinds};

fn broker() -> TestBroker {
    TestBroker::start(BrokerKind::Elbus)
}

fn text(frame: &Frame) -> &str {
    std::str::from_utf8(frame.payload()).unwrap()
}

#[test]
fn every_operation_is_delivered_with_its_kind() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        let (a, _) = Client::connect(broker.path(), "test.a").unwrap();
        let (b, mut frames) = Client::builder("test.b").queue_bytes(1 << 20).connect(broker.path()).unwrap();
        b.add_filters(["t/+", "x/#", "gone"]).unwrap();
        b.remove_filters("gone").unwrap();
        b.exclude(["x/secret", "x/open"]).unwrap();
        b.unexclude("x/open").unwrap();
        for qos in [Qos::NO, Qos::PROCESSED, Qos::REALTIME, Qos::REALTIME_PROCESSED] {
            a.send("test.b", "one", qos).unwrap();
            a.broadcast("test.*", "two", qos).unwrap();
            a.publish("t/1", "three", qos).unwrap();
            a.publish("gone", "never", qos).unwrap();
            a.publish("x/secret", "never", qos).unwrap();
            a.publish_for("x/open", "test.c", "never", qos).unwrap();
            a.publish_for("x/open", "test.b", "four", qos).unwrap();
            let got: Vec<_> = (&mut frames).take(4).collect();
            let got: Vec<_> = got.iter().map(|f| (f.kind(), f.topic(), text(f))).collect();
            let expected = [
                (FrameKind::Message, "", "one"),
                (FrameKind::Broadcast, "", "two"),
                (FrameKind::Publish, "t/1", "three"),
                (FrameKind::Publish, "x/open", "four"),
            ];
            assert_eq!(got, expected, "{kind:?} {qos:?}");
        }
        let unknown = a.send("nobody", "", Qos::PROCESSED);
        assert!(matches!(unknown, Err(Error::NotRegistered { target, .. }) if target == "nobody"));
        a.ping().unwrap();
        assert!(a.round_trip().unwrap() > Duration::ZERO);
        assert!(a.is_connected() && a.connected().is_ok() && a.stats().frames_sent >= 28);
        assert_eq!((frames.client().name(), frames.missed()), ("test.b", 0));
    }
}

#[test]
fn connection_failures_are_typed() {
    let broker = broker();
    let missing = Client::connect(broker.path().with_extension("none"), "a");
    assert!(matches!(missing, Err(Error::NoBroker { .. })));
    assert!(matches!(Client::connect("no address", "a"), Err(Error::BadAddress { .. })));
    let (client, _frames) = Client::connect(broker.path(), "a").unwrap();
    assert!(matches!(Client::connect(broker.path(), "a"), Err(Error::NameTaken { .. })));
    let (second, mut frames) = client.secondary().unwrap();
    client.send(second.name(), "hello", Qos::NO).unwrap();
    assert_eq!(frames.next().unwrap().primary_sender(), "a");
}

#[test]
fn receiving_returns_a_frame_a_timeout_or_the_end_of_the_client() {
    let broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    let mut subscription = client.subscribe("t").unwrap();
    let mut events = client.events();
    let (short, long) = (Duration::from_millis(1), TEST_TIMEOUT);
    assert!(matches!(frames.next_timeout(short), Err(Error::Timeout { after, .. }) if after == short));
    assert!(matches!(subscription.next_timeout(short), Err(Error::Timeout { .. })));
    assert!(matches!(events.next_timeout(short), Err(Error::Timeout { .. })));
    assert!(frames.try_next().is_none() && subscription.try_next().is_none());

    client.send("a", "one", Qos::NO).unwrap();
    client.publish("t", "two", Qos::NO).unwrap();
    assert_eq!(text(&frames.next_timeout(long).unwrap()), "one");
    assert_eq!(text(&subscription.next_timeout(long).unwrap()), "two");

    client.send("a", "last", Qos::PROCESSED).unwrap();
    client.close().unwrap();
    assert_eq!(text(&frames.next_timeout(long).unwrap()), "last");
    assert!(matches!(frames.next_timeout(long), Err(Error::Closed)) && frames.next().is_none());
    assert!(matches!(subscription.next_timeout(long), Err(Error::Closed)) && subscription.next().is_none());
    assert_eq!(events.next_timeout(long).unwrap(), ConnectionEvent::Closed);
    assert!(matches!(events.next_timeout(long), Err(Error::Closed)) && events.next().is_none());
    assert!(matches!(client.send("a", "", Qos::NO), Err(Error::Closed)));
}

#[test]
fn a_waiting_thread_wakes_when_the_broker_ends() {
    let mut broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    let waiting = thread::spawn(move || {
        frames.by_ref().for_each(drop); // the broker can announce its stop
        frames.next_timeout(TEST_TIMEOUT)
    });
    broker.kill();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Disconnected { .. })));
    assert!(matches!(client.connected(), Err(Error::Disconnected { .. })));
}

#[test]
fn a_lost_connection_is_restored() {
    let mut broker = broker();
    let builder = Client::builder("a").reconnect(Reconnect::backoff());
    let (client, frames) = builder.connect(broker.path()).unwrap();
    client.add_filters("t").unwrap();
    let mut events = client.events();
    broker.kill();
    assert!(matches!(events.next().unwrap(), ConnectionEvent::Disconnected { .. }));
    broker.restart();
    assert!(events.any(|event| event == ConnectionEvent::Connected));
    client.connected().unwrap();
    client.round_trip().unwrap();
    client.publish("t", "again", Qos::PROCESSED).unwrap();
    let mut publications = frames.filter(|frame| frame.topic() == "t");
    assert_eq!(text(&publications.next().unwrap()), "again");
}

#[test]
fn iterators_end_when_the_client_is_closed() {
    let broker = broker();
    let (client, frames) = Client::connect(broker.path(), "a").unwrap();
    let subscription = client.subscribe(vec!["t/#"]).unwrap();
    let sum = |frames: &mut dyn Iterator<Item = Frame>| {
        frames.map(|frame| text(&frame).parse::<u32>().unwrap()).sum::<u32>()
    };
    let messages = thread::spawn(move || sum(&mut { frames }));
    let publications = thread::spawn(move || sum(&mut { subscription }));
    for number in 1..=100 {
        client.send("a", number.to_string(), Qos::NO).unwrap();
        client.publish("t/x", (number * 2).to_string(), Qos::NO).unwrap();
    }
    client.round_trip().unwrap();
    client.close().unwrap();
    assert_eq!((messages.join().unwrap(), publications.join().unwrap()), (5050, 10_100));
}

#[test]
fn an_ended_subscription_receives_nothing() {
    let broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    let subscription = client.subscribe("t").unwrap();
    assert_eq!(subscription.missed(), 0);
    subscription.unsubscribe().unwrap();
    let mut latest = client.subscribe(Options::latest().of("l")).unwrap();
    client.publish("l", "7", Qos::PROCESSED).unwrap();
    assert_eq!((text(&latest.next().unwrap()), latest.missed()), ("7", 0));
    let malformed = client.subscribe_with(Options::key("g", 0).of("l"), |_| ());
    assert!(matches!(malformed, Err(Error::BadOptions { .. })), "{malformed:?}");
    client.publish("t", "", Qos::PROCESSED).unwrap();
    client.send("a", "last", Qos::PROCESSED).unwrap();
    assert_eq!(text(&frames.next().unwrap()), "last");
}

#[test]
fn a_handler_is_called_in_order_and_can_block() {
    let broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    let (sender, receiver) = channel();
    let (inner, mut count) = (client.clone(), 0);
    let handler = client
        .subscribe_with("t", move |frame| {
            count += 1; // the function is FnMut
            inner.round_trip().unwrap();
            sender.send((count, text(&frame).to_owned())).unwrap();
        })
        .unwrap();
    for number in 1..=20 {
        client.publish("t", number.to_string(), Qos::NO).unwrap();
    }
    for number in 1..=20 {
        assert_eq!(receiver.recv_timeout(TEST_TIMEOUT).unwrap(), (number, number.to_string()));
    }
    handler.stop().unwrap();
    client.publish("t", "after the stop", Qos::PROCESSED).unwrap();
    client.send("a", "last", Qos::PROCESSED).unwrap();
    assert_eq!(text(&frames.next().unwrap()), "last");
    assert!(receiver.recv().is_err(), "the function is dropped");
}

#[test]
fn a_client_is_shared_by_many_threads() {
    const THREADS: usize = 8;
    const EACH: u32 = 200;
    let broker = broker();
    let (client, frames) = Client::connect(broker.path(), "a").unwrap();
    client.serve(Router::new().method("double", |number: u32| Ok(number * 2))).unwrap();
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                for number in 0..EACH {
                    client.send("a", "x", Qos::NO).unwrap();
                    client.send("a", "x", Qos::PROCESSED).unwrap();
                    assert_eq!(client.call_as::<u32>("a", "double", &number).unwrap(), number * 2);
                }
            });
        }
    });
    client.round_trip().unwrap();
    client.close().unwrap();
    assert_eq!(frames.count(), 2 * THREADS * EACH as usize);
}

#[test]
fn in_process_clients_can_block() {
    let broker = broker();
    let host = broker.embedded().host();
    let (client, mut frames) = Client::builder("a").connect_in_process(host).unwrap();
    client.send("a", "hello", Qos::PROCESSED).unwrap();
    assert_eq!(text(&frames.next().unwrap()), "hello");
    assert_eq!(client.address(), "this process");
}

/// Calls every function that waits, and checks its result.
fn wait_with_all_functions(broker: &TestBroker) {
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    let (sender, receiver) = channel();
    let router = Router::new()
        .raw("m", |call| Ok(call.params().clone()))
        .notification(move |_| sender.send(()).unwrap())
        .cursor("numbers", "next", |()| Ok(0..3));
    let server = client.serve(router).unwrap();
    let mut subscription = client.subscribe("t").unwrap();
    let mut cursor = client.cursor::<u8>("a", "numbers", &(), "next").unwrap();
    let handler = client.subscribe_with("h", |_| ()).unwrap();
    let mut events = client.events();

    client.connected().unwrap();
    client.send("a", "1", Qos::NO).unwrap();
    client.broadcast("?", "2", Qos::PROCESSED).unwrap();
    client.add_filters("x").unwrap();
    client.publish("x", "3", Qos::REALTIME).unwrap();
    client.publish_for("x", "a", "4", Qos::PROCESSED).unwrap();
    client.exclude("x/y").unwrap();
    client.unexclude("x/y").unwrap();
    client.remove_filters("x").unwrap();
    client.ping().unwrap();
    client.round_trip().unwrap();
    assert_eq!(frames.by_ref().take(3).map(|frame| text(&frame).to_owned()).collect::<String>(), "123");
    assert_eq!(text(&frames.next_timeout(TEST_TIMEOUT).unwrap()), "4");
    client.publish("t", "5", Qos::PROCESSED).unwrap();
    client.publish("t", "6", Qos::PROCESSED).unwrap();
    assert_eq!(text(&subscription.next().unwrap()), "5");
    assert_eq!(text(&subscription.next_timeout(TEST_TIMEOUT).unwrap()), "6");
    subscription.unsubscribe().unwrap();
    assert_eq!(client.call("a", "m", "x").unwrap(), "x");
    assert_eq!(client.call_with("a", "m", "x", CallOptions::new()).unwrap(), "x");
    assert_eq!(client.call_as::<u8>("a", "m", &7).unwrap(), 7);
    client.call0("a", "m", "", Qos::NO).unwrap();
    client.notify("a", "", Qos::NO).unwrap();
    receiver.recv_timeout(TEST_TIMEOUT).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap(), 0);
    assert_eq!(cursor.block(2).unwrap(), [1, 2]);
    handler.stop().unwrap();
    server.drain().unwrap();
    let (secondary, _) = client.secondary().unwrap();
    secondary.close().unwrap();
    let (in_process, mut frames) = Client::builder("b").connect_in_process(broker.embedded().host()).unwrap();
    in_process.send("b", "7", Qos::PROCESSED).unwrap();
    assert_eq!(text(&frames.next().unwrap()), "7");
    client.close().unwrap();
    assert_eq!(events.next_timeout(TEST_TIMEOUT).unwrap(), ConnectionEvent::Closed);
    assert!(events.next().is_none());
}

#[test]
fn blocking_functions_work_in_async_tasks() {
    let broker = broker();
    let current_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
    current_thread.block_on(async { wait_with_all_functions(&broker) });
    tokio::task::LocalSet::new().block_on(&current_thread, async { wait_with_all_functions(&broker) });
    let multi_thread = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let broker = Arc::new(broker);
    let of_task = broker.clone();
    multi_thread.block_on(multi_thread.spawn(async move { wait_with_all_functions(&of_task) })).unwrap();
}

#[test]
fn clients_can_be_dropped_in_async_tasks() {
    let broker = broker();
    let (probe, _) = Client::connect(broker.path(), "probe").unwrap();
    let connect = || -> (Client, Frames) { Client::connect(broker.path(), "a").unwrap() };
    let (client, frames) = connect();
    let subscription = client.subscribe("t").unwrap();
    client.subscribe_with("h", |_| ()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop((client, frames, subscription)) });
    // the name becomes free
    while probe.send("a", "", Qos::PROCESSED).is_ok() {
        thread::yield_now();
    }
    let (client, _) = connect();
    client.close().unwrap();
    connect();
}

#[test]
fn a_handler_that_panics_is_counted_and_called_with_the_next_frame() {
    let broker = broker();
    let (client, _frames) = Client::connect(broker.path(), "a").unwrap();
    let (sender, receiver) = channel();
    let handler = move |frame: Frame| {
        assert!(text(&frame) != "panic", "panics on purpose");
        sender.send(text(&frame).to_owned()).unwrap();
    };
    client.subscribe_with("t", handler).unwrap();
    for text in ["one", "panic", "two"] {
        client.publish("t", text, Qos::PROCESSED).unwrap();
    }
    for text in ["one", "two"] {
        assert_eq!(receiver.recv_timeout(TEST_TIMEOUT).unwrap(), text);
    }
    assert_eq!(client.stats().handler_panics, 1);
}

#[test]
fn a_client_that_does_not_read_its_frames_stays_connected() {
    let broker = broker();
    let receiver = Client::builder("a").queue_bytes(20_000).hold_limit(Duration::from_millis(200));
    let (receiver, mut frames) = receiver.connect(broker.path()).unwrap();
    let (sender, _) = Client::connect(broker.path(), "b").unwrap();
    for _ in 0..3000 {
        sender.send("a", vec![0; 10_000], Qos::NO).unwrap();
    }
    sender.send("a", "end", Qos::PROCESSED).unwrap();
    receiver.publish("t", "x", Qos::PROCESSED).unwrap();
    assert!(receiver.is_connected());
    while receiver.stats().frames_received < 3001 {
        thread::yield_now();
    }
    let received = std::iter::from_fn(|| frames.try_next()).count() as u64;
    assert!(frames.missed() > 0 && received + frames.missed() == 3001);
}

#[test]
fn a_refused_filter_removes_no_earlier_one() {
    let broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    client.add_filters("t").unwrap();
    let refused = client.add_filters(["t", &"x/".repeat(40_000)]);
    assert!(refused.is_err());
    client.publish("t", "still", Qos::PROCESSED).unwrap();
    assert_eq!(text(&frames.next_timeout(TEST_TIMEOUT).unwrap()), "still");
}
