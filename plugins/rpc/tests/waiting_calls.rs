//! Calls that wait for a thread: who may have how many, whose turn it is, and what becomes of those whose client has left.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bench;

use bench::{BUSY, Bench, LONG};
use elbus_plugin_api::{Call, Code, Delivery, Method, fake::FakeHost};
use elbus_protocol::rpc::{self, RpcFrame};
use std::sync::{Arc, mpsc};

#[test]
fn slow_methods_run_one_at_a_time_elsewhere_and_are_bounded() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let behind = gate.clone();
    bench.method("slow", true, move |call| {
        started.send(std::thread::current().id()).unwrap();
        drop(behind.lock());
        Ok(call.params.to_vec())
    });
    let closed = gate.lock();
    bench.call(1, "slow", b"one");
    assert_ne!(entered.recv_timeout(LONG).unwrap(), std::thread::current().id());
    // the worker is inside the first; as many wait behind it as one client may have
    for n in 0..64 {
        assert_eq!(bench.call(100 + n, "slow", b""), Delivery::TAKEN);
    }
    assert_eq!(bench.call(2, "slow", b""), Delivery::DIRTY, "refused at once");
    bench.call(3, "test", b"");
    let replies = bench.replies();
    let refused = rpc::decode_rpc(&replies[0]).unwrap();
    let text = b"64 calls of this client are waiting, the limit is 64";
    assert_eq!(refused, RpcFrame::Error { call_id: 2, code: BUSY, data: text });
    assert!(matches!(rpc::decode_rpc(&replies[1]), Ok(RpcFrame::Reply { call_id: 3, .. })));
    drop(closed);
    let replies = bench.wait_for_replies(2 + 65);
    assert_eq!(rpc::decode_rpc(&replies[2]), Ok(RpcFrame::Reply { call_id: 1, result: b"one" }));
    assert_eq!(rpc::decode_rpc(&replies[66]), Ok(RpcFrame::Reply { call_id: 163, result: b"" }));
}

#[test]
fn a_denied_slow_call_is_not_queued() {
    let bench = Bench::new();
    let (tell, told) = mpsc::channel();
    bench.method("slow", true, move |call| {
        tell.send(call.caller_id).unwrap();
        Ok(Vec::new())
    });
    bench.fake.deny_calls(Some(Code::AccessDenied));
    bench.call(1, "slow", b"");
    let error = RpcFrame::Error { call_id: 1, code: Code::AccessDenied.rpc_code(), data: b"denied" };
    assert_eq!(rpc::decode_rpc(&bench.replies()[0]), Ok(error));
    bench.fake.deny_calls(None);
    bench.call(2, "slow", b"");
    assert_eq!(
        told.recv_timeout(LONG).unwrap(),
        bench.fake.id_of("a.b"),
        "the call carries the registration"
    );
    assert!(told.try_recv().is_err());
}

#[test]
fn a_call_whose_client_has_left_is_dropped_and_its_reply_names_the_registration() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let behind = gate.clone();
    bench.method("slow", true, move |call| {
        started.send(call.params.to_vec()).unwrap();
        drop(behind.lock());
        Ok(Vec::new())
    });
    let closed = gate.lock();
    bench.call(1, "slow", b"under way");
    assert_eq!(entered.recv_timeout(LONG).unwrap(), b"under way");
    bench.call(2, "slow", b"of one that leaves");
    let former = bench.fake.id_of("a.b");
    bench.fake.replace_sender("a.b");
    bench.call(3, "slow", b"of the next");
    drop(closed);
    assert_eq!(entered.recv_timeout(LONG).unwrap(), b"of the next");
    assert!(bench.fake.wait_until(LONG, |fake| fake.requests().len() == 3));
    let receivers: Vec<u64> = bench.fake.requests().iter().map(|request| request.receiver_id).collect();
    assert_eq!(receivers, [former, former, bench.fake.id_of("a.b")]);
}

#[test]
fn an_administrator_waits_for_no_ordinary_call_and_callers_take_turns() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let behind = gate.clone();
    bench.method("slow", true, move |call| {
        started.send(call.caller.to_owned()).unwrap();
        drop(behind.lock());
        Ok(Vec::new())
    });
    let method = Method { name: "admin", slow: true, admin: true, ..Default::default() };
    bench.host.add_method(&method, |_: &Call<'_>| Ok(b"done".to_vec())).unwrap();
    let call = |sender: &str, call_id, method: &str| {
        bench.deliver(sender, &[&rpc::encode_request(call_id, method, b"").unwrap()])
    };
    let closed = gate.lock();
    (0..65).for_each(|n| _ = call("flood", n + 1, "slow"));
    assert_eq!(entered.recv_timeout(LONG).unwrap(), "flood");
    // the ordinary lane is blocked and the queue of the flood full
    call("administrator", 7, "admin");
    let is_answered =
        |fake: &FakeHost| fake.requests().iter().any(|request| request.target == "administrator");
    assert!(bench.fake.wait_until(LONG, is_answered));
    call("innocent", 8, "slow");
    drop(closed);
    assert_eq!(entered.recv_timeout(LONG).unwrap(), "flood", "one that was there before");
    assert_eq!(entered.recv_timeout(LONG).unwrap(), "innocent", "then it is its turn");
}

#[test]
fn a_full_queue_makes_room_for_a_caller_with_fewer_calls() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let behind = gate.clone();
    bench.method("slow", true, move |call| {
        started.send(call.caller.to_owned()).unwrap();
        drop(behind.lock());
        Ok(Vec::new())
    });
    let closed = gate.lock();
    let call =
        |sender: &str, call_id| bench.deliver(sender, &[&rpc::encode_request(call_id, "slow", b"").unwrap()]);
    call("first", 1);
    entered.recv_timeout(LONG).unwrap();
    for flood in ["flood.1", "flood.2", "flood.3", "flood.4"] {
        (0..64).for_each(|n| assert_eq!(call(flood, n + 1), Delivery::TAKEN));
    }
    assert_eq!(call("innocent", 9), Delivery::DIRTY, "one of a flood is told");
    let requests = bench.fake.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].target.starts_with("flood."));
    let told = rpc::decode_rpc(&requests[0].payloads[0]).unwrap();
    assert!(matches!(told, RpcFrame::Error { call_id: 64, code: BUSY, .. }), "{told:?}");
    drop(closed);
    let mut before = 0;
    while entered.recv_timeout(LONG).unwrap() != "innocent" {
        before += 1;
    }
    assert_eq!(before, 4, "one of each flood");
}

#[test]
fn calls_of_a_client_that_does_not_read_are_not_carried_out() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let behind = gate.clone();
    bench.method("slow", true, move |call| {
        started.send(call.params.to_vec()).unwrap();
        drop(behind.lock());
        Ok(vec![0; 100_000])
    });
    let closed = gate.lock();
    (1..=10).for_each(|n| _ = bench.call(n, "slow", b"flood"));
    bench.fake.fill_receivers(true);
    drop(closed);
    let replies = bench.wait_for_replies(10);
    let large = replies.iter().filter(|reply| reply.len() > 100_000).count();
    assert_eq!(large, 1, "the first showed that nothing is read");
    assert_eq!(entered.try_iter().count(), 1);
    bench.fake.fill_receivers(false);
    bench.call(11, "slow", b"once it reads");
    assert_eq!(entered.recv_timeout(LONG).unwrap(), b"once it reads");
}
