//! Calls delivered to `.broker`, replies expected from it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use elbus_plugin_api::{
    Call, CallError, Code, Delivery, FrameKind, Host, Method, Op,
    fake::{FakeHost, FakeInstance},
};
use elbus_protocol::rpc::{self, RpcFrame};
use elbus_rpc::Rpc;
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

const LONG: Duration = Duration::from_secs(30);
const BUSY: i16 = -32118;

struct Bench {
    fake: FakeHost,
    rpc: Arc<FakeInstance>,
    host: Host,
}

impl Bench {
    fn new() -> Self {
        let fake = FakeHost::new();
        let rpc = fake.create::<Rpc>("rpc", "").unwrap();
        rpc.start().unwrap();
        rpc.serve();
        let host = fake.host("test");
        let bench = Bench { fake, rpc: Arc::new(rpc), host };
        bench.method("test", false, |_| Ok(vec![0x81, 0xA2, 0x6F, 0x6B, 0xC3]));
        bench.method("benchmark.test", false, |call| Ok(call.params.to_vec()));
        bench.method("client.list", false, |_| Err(CallError::new(rpc::PARSE_ERROR, "bad filter")));
        bench
    }

    fn method(
        &self,
        name: &str,
        slow: bool,
        f: impl Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static,
    ) {
        self.host.add_method(&Method { name, slow, ..Default::default() }, f).unwrap();
    }

    fn deliver(&self, sender: &str, payloads: &[&[u8]]) -> Delivery {
        self.fake.deliver(".broker", FrameKind::Message, sender, "", payloads).unwrap()
    }

    fn call(&self, call_id: u32, method: &str, params: &[u8]) -> Delivery {
        self.deliver("a.b", &[&rpc::encode_request(call_id, method, params).unwrap()])
    }

    /// The replies to `a.b` so far, as payloads.
    fn replies(&self) -> Vec<Vec<u8>> {
        let requests = self.fake.requests();
        for request in &requests {
            assert_eq!((request.sender.as_str(), request.op), (".broker", Op::Message));
            assert_eq!(request.target, "a.b");
        }
        requests.into_iter().flat_map(|request| request.payloads).collect()
    }

    fn wait_for_replies(&self, count: usize) -> Vec<Vec<u8>> {
        assert!(self.fake.wait_until(LONG, |_| self.replies().len() >= count));
        self.replies()
    }
}

#[test]
fn it_is_registered_as_a_part_of_the_broker() {
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
fn every_answer_of_section_7() {
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
        assert_eq!(bench.deliver("a.b", &[request]), Delivery::DIRTY);
    }
    let replies = bench.replies();
    let replies: Vec<_> = replies.iter().map(|reply| rpc::decode_rpc(reply).unwrap()).collect();
    assert_eq!(replies, table.map(|(_, reply)| reply));
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
    assert!(bench.fake.requests().len() < 20, "replies go as runs");
}

#[test]
fn what_is_no_call_is_taken_and_ignored() {
    let bench = Bench::new();
    for payload in
        [b"".as_slice(), b"hello", b"\0note", b"\x11\x01\0\0\0x", b"\x12\x01\0\0\0\0\0", b"\x01\x01"]
    {
        assert_eq!(bench.deliver("a.b", &[payload]), Delivery::TAKEN);
    }
    let request = rpc::encode_request(1, "test", b"").unwrap();
    for kind in [FrameKind::Broadcast, FrameKind::Publish] {
        assert_eq!(bench.fake.deliver(".broker", kind, "a.b", "", &[&request]), Some(Delivery::TAKEN));
    }
    assert!(bench.fake.requests().is_empty());
}

#[test]
fn call_id_0_is_called_and_not_answered() {
    let bench = Bench::new();
    let (tell, told) = mpsc::channel();
    let slowly = tell.clone();
    bench.method("quick", false, move |call| {
        tell.send(call.params.to_vec()).unwrap();
        Ok(vec![1])
    });
    bench.method("slow", true, move |call| {
        slowly.send(call.params.to_vec()).unwrap();
        Ok(vec![1])
    });
    assert_eq!(bench.call(0, "quick", b"q"), Delivery::TAKEN);
    assert_eq!(told.recv_timeout(LONG).unwrap(), b"q");
    bench.call(0, "slow", b"s");
    assert_eq!(told.recv_timeout(LONG).unwrap(), b"s");
    bench.call(0, "no.such", b"");
    bench.call(5, "test", b"");
    assert_eq!(bench.wait_for_replies(1).len(), 1);
}

#[test]
fn the_brokers_own_speakers_get_no_reply() {
    let bench = Bench::new();
    let (tell, told) = mpsc::channel();
    bench.method("who", false, move |call| {
        tell.send(call.caller.to_owned()).unwrap();
        Ok(Vec::new())
    });
    let request = rpc::encode_request(1, "who", b"").unwrap();
    assert_eq!(bench.deliver(".broker", &[&request]), Delivery::TAKEN);
    assert_eq!(told.recv_timeout(LONG).unwrap(), ".broker");
    assert!(bench.fake.requests().is_empty());
}

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
fn a_slow_method_may_stop_the_plugin_itself() {
    let bench = Bench::new();
    let rpc = bench.rpc.clone();
    bench.method("plugin.stop", true, move |_| {
        // as the broker does: elsewhere, and waiting for it
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
fn a_method_under_way_is_answered_after_the_stop() {
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
    bench.call(2, "slow", b""); // waits, and is forgotten
    bench.rpc.stop(LONG);
    assert!(bench.fake.clients().is_empty());
    open.send(()).unwrap();
    assert_eq!(bench.wait_for_replies(1).len(), 1);
}

#[test]
fn many_threads_call_at_once() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let bench = &bench;
            scope.spawn(move || {
                for n in 1..=500 {
                    // dirty to one of them, who flushes for the others
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
