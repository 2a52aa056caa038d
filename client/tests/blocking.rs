//! The blocking client: in programs without tokio, and its errors in programs with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::{
    Bytes, Call, CallOptions, ConnectionEvent, Error, Frame, FrameKind, Notification, Qos, Reconnect,
    RpcError,
    blocking::{Client, Frames, Router, RpcHandler},
};
use std::{
    sync::{
        Arc, Barrier,
        mpsc::{Sender, channel},
    },
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
    assert!(receiver.recv().is_err(), "the function is gone");
}

/// Returns its parameters, and reports notifications.
struct Echo(Sender<Vec<u8>>);

impl RpcHandler for Echo {
    fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        match call.method() {
            "echo" => Ok(call.params().clone()),
            "tell" => {
                assert!(!call.wants_reply());
                self.0.send(call.params().to_vec()).unwrap();
                Ok(Bytes::new())
            }
            "panic" => panic!("as it should"),
            _ => Err(RpcError::method_not_found()),
        }
    }

    fn notification(&self, notification: Notification) {
        self.0.send(notification.payload().to_vec()).unwrap();
    }
}

#[test]
fn calls_and_notifications_reach_their_handler() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        let (caller, _) = Client::connect(broker.path(), "caller").unwrap();
        let (callee, mut frames) = Client::connect(broker.path(), "callee").unwrap();
        let (sender, receiver) = channel();
        let serving = callee.serve(Echo(sender.clone())).unwrap();
        assert!(matches!(callee.serve(Echo(sender)), Err(Error::AlreadyServing)));
        assert_eq!(caller.call("callee", "echo", "hello").unwrap(), "hello");
        let options = CallOptions::new().realtime(true).timeout(TEST_TIMEOUT);
        assert_eq!(caller.call_with("callee", "echo", "now", options).unwrap(), "now");
        assert_eq!(caller.call_as::<(u8, bool)>("callee", "echo", &(7, true)).unwrap(), (7, true));
        for (method, code) in [("none", -32601), ("panic", -32603)] {
            let error = caller.call("callee", method, "").unwrap_err();
            assert!(matches!(error, Error::Rpc(RpcError { code: c, .. }) if c == code), "{error}");
        }
        assert!(matches!(caller.call("nobody", "echo", ""), Err(Error::NotRegistered { .. })));
        caller.call0("callee", "tell", "zero", Qos::PROCESSED).unwrap();
        assert_eq!(receiver.recv_timeout(TEST_TIMEOUT).unwrap(), b"zero");
        caller.notify("callee", "note", Qos::PROCESSED).unwrap();
        assert_eq!(receiver.recv_timeout(TEST_TIMEOUT).unwrap(), b"note");
        serving.stop();
        caller.notify("callee", "raw", Qos::PROCESSED).unwrap();
        assert_eq!(frames.next().unwrap().payload(), b"\0raw");
    }
}

#[test]
fn methods_call_each_other() {
    let broker = broker();
    let (a, _) = Client::connect(broker.path(), "a").unwrap();
    let (b, _) = Client::connect(broker.path(), "b").unwrap();
    // each adds one and calls the other, to the given depth
    for (client, other) in [(a.clone(), "b"), (b, "a")] {
        let asker = client.clone();
        let router = Router::new()
            .method("deep", move |depth: u32| match depth {
                0 => Ok(0),
                _ => asker
                    .call_as::<u32>(other, "deep", &(depth - 1))
                    .map(|sum| sum + 1)
                    .map_err(|error| RpcError::internal(error.to_string())),
            })
            .method_with_call("who", |call, ()| Ok(call.sender().to_owned()))
            .raw("raw", |call| Ok(call.params().clone()));
        client.serve(router).unwrap();
    }
    assert_eq!(a.call_as::<u32>("b", "deep", &20).unwrap(), 20);
    assert_eq!(a.call_as::<String>("b", "who", &()).unwrap(), "a");
    assert_eq!(a.call("b", "raw", "raw").unwrap(), "raw");
    let wrong = a.call_as::<u32>("b", "deep", "text");
    assert!(matches!(wrong, Err(Error::Rpc(RpcError { code: -32602, .. }))));
}

#[test]
fn a_slow_method_delays_no_other_call() {
    let broker = broker();
    let (client, _) = Client::connect(broker.path(), "a").unwrap();
    let (go_on, both) = (Arc::new(Barrier::new(2)), client.clone());
    let (sender, receiver) = channel();
    let router = Router::new()
        .method("wait", move |()| Ok(go_on.wait().is_leader()))
        .notification(move |notification| sender.send(notification.payload().clone()).unwrap());
    client.serve(router).unwrap();
    // each of the two calls ends with the other's help
    let first = thread::spawn(move || both.call_as::<bool>("a", "wait", &()).unwrap());
    let second = client.call_as::<bool>("a", "wait", &()).unwrap();
    assert_ne!(first.join().unwrap(), second);
    client.notify("a", "note", Qos::NO).unwrap();
    assert_eq!(receiver.recv_timeout(TEST_TIMEOUT).unwrap(), "note");
}

#[test]
fn a_cursor_is_an_iterator() {
    let broker = broker();
    let (client, _) = Client::connect(broker.path(), "a").unwrap();
    let inner = client.clone();
    let router = Router::new().cursor("squares", "next", move |to: u64| {
        let client = inner.clone();
        Ok((0..to).map(move |n| {
            client.round_trip().unwrap(); // items can wait as well
            n * n
        }))
    });
    let router = router.method("zero", |()| Ok(0)).cursor_lifetime(TEST_TIMEOUT);
    client.serve(router).unwrap();
    let cursor = client.cursor::<u64>("a", "squares", &5, "next").unwrap();
    assert_eq!(cursor.collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 4, 9, 16]);

    let mut cursor = client.cursor::<u64>("a", "squares", &5, "next").unwrap();
    assert_eq!(cursor.block(3).unwrap(), [0, 1, 4]);
    assert_eq!(cursor.block(3).unwrap(), [9, 16]);
    assert!(cursor.block(3).unwrap().is_empty() && cursor.next().is_none());

    let cursor = client.cursor::<u64>("a", "squares", &5, "unknown").unwrap();
    let items: Vec<_> = cursor.collect();
    assert!(matches!(items[..], [Err(Error::Rpc(_))]), "an error is the end: {items:?}");
    assert!(client.cursor::<u64>("a", "zero", &(), "next").is_err());
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

#[test]
fn blocking_functions_fail_in_async_tasks() {
    let broker = broker();
    let (client, mut frames) = Client::connect(broker.path(), "a").unwrap();
    client.serve(Router::new().cursor("numbers", "next", |()| Ok(0..3))).unwrap();
    let mut subscription = client.subscribe("t").unwrap();
    let mut cursor = client.cursor::<u8>("a", "numbers", &(), "next").unwrap();
    let handler = client.subscribe_with("h", |_| ()).unwrap();
    let mut events = client.events();
    client.send("a", "waits", Qos::PROCESSED).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let refused: Vec<Result<(), Error>> = vec![
            Client::connect(broker.path(), "b").map(drop),
            Client::builder("b").connect_in_process(broker.embedded().host()).map(drop),
            client.secondary().map(drop),
            client.connected(),
            client.send("a", "", Qos::NO),
            client.broadcast("*", "", Qos::NO),
            client.publish("t", "", Qos::NO),
            client.publish_for("t", "a", "", Qos::NO),
            client.add_filters("t"),
            client.remove_filters("t"),
            client.exclude("t"),
            client.unexclude("t"),
            client.ping(),
            client.round_trip().map(drop),
            client.subscribe("t").map(drop),
            client.subscribe_with("t", |_| ()).map(drop),
            client.call("a", "m", "").map(drop),
            client.call_with("a", "m", "", CallOptions::new()).map(drop),
            client.call_as("a", "m", &()),
            client.call0("a", "m", "", Qos::NO),
            client.notify("a", "", Qos::NO),
            client.cursor::<u8>("a", "numbers", &(), "next").map(drop),
            cursor.block(1).map(drop),
            cursor.next().unwrap().map(drop),
            frames.next_timeout(TEST_TIMEOUT).map(drop),
            subscription.next_timeout(TEST_TIMEOUT).map(drop),
            events.next_timeout(TEST_TIMEOUT).map(drop),
            handler.stop(),
            client.close(),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            assert!(matches!(result, Err(Error::InAsyncContext)), "{number}: {result:?}");
        }
        assert!(frames.next().is_none() && subscription.next().is_none() && events.next().is_none());
        assert!(
            client.is_connected() && client.stats().frames_received > 0,
            "functions that do not wait work"
        );
    });
    // the failed calls have lost nothing
    let frame = frames.next().unwrap();
    assert_eq!(text(&frame), "waits");
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
        assert!(text(&frame) != "panic", "as the test wants");
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
