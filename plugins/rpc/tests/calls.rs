//! Calls delivered to `.broker`, and the replies expected from it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{BUSY, Bench, LONG};
use elbus_plugin_api::{Call, Code, DeliveryStatus, FrameKind, Method, testing::FakeHost};
use elbus_protocol::rpc::{self, RpcFrame};
use elbus_rpc::Rpc;
use std::sync::mpsc;

#[test]
fn the_plugin_registers_as_an_internal_client() {
    let bench = Bench::new();
    let info = bench.fake.client_info(".broker").unwrap();
    assert!(info.internal);
    assert_eq!((info.kind.as_str(), info.source, info.port), ("internal", None, None));
    bench.rpc.stop(LONG);
    assert!(bench.fake.clients().is_empty());
    let refusing = FakeHost::new();
    refusing.refuse_names(Some(Code::Busy));
    let error = refusing.create::<Rpc>("rpc", "").unwrap().start().unwrap_err();
    assert_eq!(error.message, "cannot register .broker: busy");
}

#[test]
fn every_reply_of_section_7_is_sent() {
    let bench = Bench::new();
    let table: [(Vec<u8>, RpcFrame<'_>); 6] = [
        (
            rpc::encode_request(1, "test", b"").unwrap(),
            RpcFrame::Reply { call_id: 1, result: &[0x81, 0xA2, 0x6F, 0x6B, 0xC3] },
        ),
        (
            rpc::encode_request(2, "benchmark.test", b"a\0b").unwrap(),
            RpcFrame::Reply { call_id: 2, result: b"a\0b" },
        ),
        (
            rpc::encode_request(3, "no.such", b"").unwrap(),
            RpcFrame::Error { call_id: 3, code: -32601, data: b"" },
        ),
        (rpc::encode_request(4, "", b"x").unwrap(), RpcFrame::Error { call_id: 4, code: -32601, data: b"" }),
        (
            b"\x01\x05\0\0\0\xFF\xFE\0".to_vec(),
            RpcFrame::Error { call_id: 5, code: -32114, data: b"method not UTF-8" },
        ),
        (
            rpc::encode_request(u32::MAX, "client.list", b"[").unwrap(),
            RpcFrame::Error { call_id: u32::MAX, code: -32700, data: b"bad filter" },
        ),
    ];
    for (request, _) in &table {
        assert_eq!(bench.deliver("a.b", &[request]), DeliveryStatus::DIRTY);
    }
    let replies = bench.replies();
    let replies: Vec<_> = replies.iter().map(|reply| rpc::decode_rpc(reply).unwrap()).collect();
    assert_eq!(replies, table.map(|(_, reply)| reply));
}

#[test]
fn a_query_without_a_reply_is_not_run() {
    let bench = Bench::new();
    let (called, calls) = mpsc::channel();
    for (name, query, slow) in [("query", true, false), ("slow.query", true, true), ("change", false, false)]
    {
        let mut method = Method::new(name);
        (method.query, method.slow) = (query, slow);
        let called = called.clone();
        let handler = move |call: &Call<'_>| {
            called.send(call.method.to_owned()).unwrap();
            Ok(vec![])
        };
        bench.host.add_method(&method, handler).unwrap();
    }
    for id in [0, 0, 7] {
        for name in ["query", "slow.query", "change"] {
            bench.call(id, name, b"");
        }
    }
    assert_eq!(bench.wait_for_replies(3).len(), 3);
    let mut calls: Vec<_> = calls.try_iter().collect();
    calls.sort();
    assert_eq!(calls, ["change", "change", "change", "query", "slow.query"]);
}

#[test]
fn a_large_reply_that_exceeds_the_queue_budget_is_an_error() {
    let bench = Bench::over(FakeHost::with_queue_budget(1_000_000));
    let params = vec![7; 200_000];
    bench.call(1, "benchmark.test", &params);
    let mut queue = bench.fake.queue_budget().reserve();
    queue.resize(900_000);
    bench.method("slow.large", true, |_| Ok(vec![8; 200_000]));
    bench.call(2, "benchmark.test", &params);
    bench.call(3, "benchmark.test", b"small");
    bench.call(4, "slow.large", b"");
    bench.wait_for_replies(4);
    drop(queue);
    bench.call(5, "benchmark.test", &params);
    let replies = bench.replies();
    let text = "no room for a reply of 200000 bytes: 900000 bytes are queued, \
                the limit is 1000000 (max_queued_bytes)";
    let seen: Vec<_> = replies
        .iter()
        .map(|reply| match rpc::decode_rpc(reply) {
            Ok(RpcFrame::Reply { call_id, result }) => (call_id, result.len()),
            Ok(RpcFrame::Error { call_id, code: BUSY, data }) => {
                assert_eq!(String::from_utf8_lossy(data), text);
                (call_id, 0)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [(1, 200_000), (2, 0), (3, 5), (4, 0), (5, 200_000)]);
}

#[test]
fn a_run_of_calls_is_answered_by_a_run_in_order() {
    let bench = Bench::new();
    let mut requests: Vec<Vec<u8>> = (1..=300u32)
        .map(|n| rpc::encode_request(n, "benchmark.test", &vec![7; n as usize * 5]).unwrap())
        .collect();
    requests.insert(100, rpc::encode_request(1000, "benchmark.test", &vec![8; 100_000]).unwrap());
    requests.insert(200, b"no rpc".to_vec());
    requests.insert(250, rpc::encode_request(0, "benchmark.test", b"").unwrap());
    let payloads: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
    bench.deliver("a.b", &payloads);
    let ids: Vec<u32> = bench
        .replies()
        .iter()
        .map(|reply| match rpc::decode_rpc(reply) {
            Ok(RpcFrame::Reply { call_id, result }) => {
                let bytes = if call_id == 1000 { 100_000 } else { call_id as usize * 5 };
                assert_eq!(result.len(), bytes);
                call_id
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let mut expected: Vec<u32> = (1..=300).collect();
    expected.insert(100, 1000);
    assert_eq!(ids, expected);
    assert!(bench.fake.requests().len() < 20, "replies are sent as runs");
}

#[test]
fn frames_that_are_not_calls_are_accepted_and_ignored() {
    let bench = Bench::new();
    for payload in
        [b"".as_slice(), b"hello", b"\0note", b"\x11\x01\0\0\0x", b"\x12\x01\0\0\0\0\0", b"\x01\x01"]
    {
        assert_eq!(bench.deliver("a.b", &[payload]), DeliveryStatus::TAKEN);
    }
    let request = rpc::encode_request(1, "test", b"").unwrap();
    for kind in [FrameKind::Broadcast, FrameKind::Publish] {
        assert_eq!(bench.fake.deliver(".broker", kind, "a.b", "", &[&request]), Some(DeliveryStatus::TAKEN));
    }
    assert!(bench.fake.requests().is_empty());
}

#[test]
fn a_call_with_id_0_runs_and_gets_no_reply() {
    let bench = Bench::new();
    let (quick, params) = mpsc::channel();
    let slow = quick.clone();
    bench.method("quick", false, move |call| {
        quick.send(call.params.to_vec()).unwrap();
        Ok(vec![1])
    });
    bench.method("slow", true, move |call| {
        slow.send(call.params.to_vec()).unwrap();
        Ok(vec![1])
    });
    assert_eq!(bench.call(0, "quick", b"q"), DeliveryStatus::TAKEN);
    assert_eq!(params.recv_timeout(LONG).unwrap(), b"q");
    bench.call(0, "slow", b"s");
    assert_eq!(params.recv_timeout(LONG).unwrap(), b"s");
    bench.call(0, "no.such", b"");
    bench.call(5, "test", b"");
    assert_eq!(bench.wait_for_replies(1).len(), 1);
}

#[test]
fn system_clients_get_no_reply() {
    let bench = Bench::new();
    let (send, callers) = mpsc::channel();
    bench.method("who", false, move |call| {
        send.send(call.caller.to_owned()).unwrap();
        Ok(Vec::new())
    });
    let request = rpc::encode_request(1, "who", b"").unwrap();
    assert_eq!(bench.deliver(".broker", &[&request]), DeliveryStatus::TAKEN);
    assert_eq!(callers.recv_timeout(LONG).unwrap(), ".broker");
    assert!(bench.fake.requests().is_empty());
}

#[test]
fn a_slow_method_may_stop_the_plugin_itself() {
    let bench = Bench::new();
    let rpc = bench.rpc.clone();
    bench.method("plugin.stop", true, move |_| {
        // as the broker does: in another thread, and waits for it
        let rpc = rpc.clone();
        std::thread::spawn(move || rpc.stop(LONG)).join().unwrap();
        Ok(b"stopped".to_vec())
    });
    bench.call(1, "plugin.stop", b"");
    let replies = bench.wait_for_replies(1);
    assert_eq!(rpc::decode_rpc(&replies[0]), Ok(RpcFrame::Reply { call_id: 1, result: b"stopped" }));
    assert!(bench.fake.clients().is_empty());
}

#[test]
fn a_method_in_progress_is_answered_after_the_stop() {
    let bench = Bench::new();
    let (started, entered) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    bench.method("slow", true, move |_| {
        started.send(()).unwrap();
        let _ = gate.lock().recv_timeout(LONG);
        Ok(Vec::new())
    });
    bench.call(1, "slow", b"");
    entered.recv_timeout(LONG).unwrap();
    bench.call(2, "slow", b""); // queued, then dropped
    bench.rpc.stop(LONG);
    assert!(bench.fake.clients().is_empty());
    open.send(()).unwrap();
    assert_eq!(bench.wait_for_replies(1).len(), 1);
}

#[test]
fn calls_of_many_threads_are_all_answered() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let bench = &bench;
            scope.spawn(move || {
                for n in 1..=500 {
                    // the first caller gets `DIRTY` and flushes for the others
                    assert!(bench.call(thread * 1000 + n, "benchmark.test", b"x").is_taken());
                }
            });
        }
    });
    let mut ids: Vec<u32> = bench
        .replies()
        .iter()
        .map(|reply| u32::from_le_bytes([reply[1], reply[2], reply[3], reply[4]]))
        .collect();
    for thread in 0..8 {
        let of_one = ids.iter().filter(|id| **id / 1000 == thread);
        assert!(of_one.is_sorted(), "replies of one caller's thread keep their order");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4000);
}
