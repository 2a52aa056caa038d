//! Calls and methods of blocking clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{
    Bytes, Call, CallOptions, Error, Notification, Qos, RpcError,
    blocking::{Client, Router, RpcHandler},
};
use std::{
    sync::{
        Arc, Barrier,
        mpsc::{Sender, channel},
    },
    thread,
};
use support::{BrokerKind, TEST_TIMEOUT, TestBroker, broker_kinds};

fn broker() -> TestBroker {
    TestBroker::start(BrokerKind::Elbus)
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
            "panic" => panic!("panics on purpose"),
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
    // each of the two calls needs the other one to complete
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
    assert!(matches!(items[..], [Err(Error::Rpc(_))]), "an error ends the iterator: {items:?}");
    assert!(client.cursor::<u64>("a", "zero", &(), "next").is_err());
}
