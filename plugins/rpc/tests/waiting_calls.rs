//! Queued calls of slow methods: limits per client and identity, the order of turns, and calls of clients
//! that have left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{BUSY, Bench, LONG};
use elbus_plugin_api::{Call, Code, DeliveryStatus, Method, testing::FakeHost};
use elbus_protocol::rpc::{self, RpcFrame};
use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread::ThreadId,
};

/// A call in progress.
struct Entered {
    caller: String,
    id: u64,
    params: Vec<u8>,
    thread: ThreadId,
}

/// A test bench with a method `slow`, which returns its parameters once it is unblocked.
struct SlowMethod {
    bench: Bench,
    entered: Receiver<Entered>,
    /// Unblocks the method when dropped.
    closed: Option<Sender<()>>,
}

impl SlowMethod {
    fn closed() -> Self {
        Self::answering(0)
    }

    /// Creates a method that returns this number of bytes instead of its parameters, unless it is 0.
    fn answering(bytes: usize) -> Self {
        let bench = Bench::new();
        let ((enter, entered), (closed, opening)) = (mpsc::channel(), mpsc::channel());
        let opening = parking_lot::Mutex::new(opening);
        bench.method("slow", true, move |call| {
            let (caller, params) = (call.caller.to_owned(), call.params.to_vec());
            let thread = std::thread::current().id();
            _ = enter.send(Entered { caller, id: call.caller_id, params: params.clone(), thread });
            _ = opening.lock().recv();
            Ok(if bytes == 0 { params } else { vec![0; bytes] })
        });
        SlowMethod { bench, entered, closed: Some(closed) }
    }

    fn open(&mut self) {
        self.closed = None;
    }

    /// Waits for the next call to start.
    fn next(&self) -> Entered {
        self.entered.recv_timeout(LONG).unwrap()
    }

    /// Calls `slow` as any client.
    fn call(&self, sender: &str, call_id: u32) -> DeliveryStatus {
        self.bench.deliver(sender, &[&rpc::encode_request(call_id, "slow", b"").unwrap()])
    }
}

#[test]
fn slow_methods_run_one_at_a_time_in_a_thread_with_limits() {
    let mut slow = SlowMethod::closed();
    slow.bench.call(1, "slow", b"one");
    assert_ne!(slow.next().thread, std::thread::current().id());
    // the worker is in the first call; queues as many behind it as one client may have
    for n in 0..64 {
        assert_eq!(slow.bench.call(100 + n, "slow", b""), DeliveryStatus::TAKEN);
    }
    assert_eq!(slow.bench.call(2, "slow", b""), DeliveryStatus::DIRTY, "refused at once");
    slow.bench.call(3, "test", b"");
    let replies = slow.bench.replies();
    let refused = rpc::decode_rpc(&replies[0]).unwrap();
    let text = b"64 calls of this client are queued, the limit is 64";
    assert_eq!(refused, RpcFrame::Error { call_id: 2, code: BUSY, data: text });
    assert!(matches!(rpc::decode_rpc(&replies[1]), Ok(RpcFrame::Reply { call_id: 3, .. })));
    slow.open();
    let replies = slow.bench.wait_for_replies(2 + 65);
    assert_eq!(rpc::decode_rpc(&replies[2]), Ok(RpcFrame::Reply { call_id: 1, result: b"one" }));
    assert_eq!(rpc::decode_rpc(&replies[66]), Ok(RpcFrame::Reply { call_id: 163, result: b"" }));
}

#[test]
fn a_denied_slow_call_is_not_queued() {
    let mut slow = SlowMethod::closed();
    slow.open();
    slow.bench.fake.deny_calls(Some(Code::AccessDenied));
    slow.bench.call(1, "slow", b"");
    let error = RpcFrame::Error { call_id: 1, code: Code::AccessDenied.rpc_code(), data: b"denied" };
    assert_eq!(rpc::decode_rpc(&slow.bench.replies()[0]), Ok(error));
    slow.bench.fake.deny_calls(None);
    slow.bench.call(2, "slow", b"");
    assert_eq!(slow.next().id, slow.bench.fake.id_of("a.b"), "the call carries the registration");
    assert!(slow.entered.try_recv().is_err());
}

#[test]
fn a_call_of_a_client_that_left_is_dropped_and_replies_name_the_registration() {
    let mut slow = SlowMethod::closed();
    slow.bench.call(1, "slow", b"in progress");
    assert_eq!(slow.next().params, b"in progress");
    slow.bench.call(2, "slow", b"of one that leaves");
    let fake = slow.bench.fake.clone();
    let previous = fake.id_of("a.b");
    fake.replace_sender("a.b");
    slow.bench.call(3, "slow", b"of the next");
    slow.open();
    assert_eq!(slow.next().params, b"of the next");
    assert!(fake.wait_until(LONG, |fake| fake.requests().len() == 3));
    let receivers: Vec<u64> = fake.requests().iter().map(|request| request.receiver_id).collect();
    assert_eq!(receivers, [previous, previous, fake.id_of("a.b")]);
}

#[test]
fn administrative_calls_bypass_ordinary_ones_and_callers_take_turns() {
    let mut slow = SlowMethod::closed();
    let method = Method::new("admin").slow().admin();
    slow.bench.host.add_method(&method, |_: &Call<'_>| Ok(b"done".to_vec())).unwrap();
    (0..65).for_each(|n| _ = slow.call("flood", n + 1));
    assert_eq!(slow.next().caller, "flood");
    // the ordinary thread is blocked and the flooding client's queue is full
    slow.bench.deliver("administrator", &[&rpc::encode_request(7, "admin", b"").unwrap()]);
    let is_answered =
        |fake: &FakeHost| fake.requests().iter().any(|request| request.target == "administrator");
    assert!(slow.bench.fake.wait_until(LONG, is_answered));
    slow.call("other", 8);
    slow.open();
    assert_eq!(slow.next().caller, "flood", "a call queued before");
    assert_eq!(slow.next().caller, "other", "then the other client's turn");
}

#[test]
fn a_full_queue_makes_room_for_a_caller_with_fewer_calls() {
    let mut slow = SlowMethod::closed();
    slow.call("first", 1);
    slow.next();
    for flood in ["flood.1", "flood.2", "flood.3"] {
        (0..64).for_each(|n| assert_eq!(slow.call(flood, n + 1), DeliveryStatus::TAKEN));
    }
    assert_eq!(slow.call("other", 9), DeliveryStatus::DIRTY, "a displaced call is answered");
    let requests = slow.bench.fake.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].target.starts_with("flood."));
    let error = rpc::decode_rpc(&requests[0].payloads[0]).unwrap();
    assert!(matches!(error, RpcFrame::Error { call_id: 64, code: BUSY, .. }), "{error:?}");
    slow.open();
    let mut before = 0;
    while slow.next().caller != "other" {
        before += 1;
    }
    assert_eq!(before, 3, "one call of each flooding client");
}

#[test]
fn many_registrations_of_one_identity_do_not_delay_another() {
    const FLOOD: u32 = 300;
    let mut slow = SlowMethod::closed();
    let fake = slow.bench.fake.clone();
    let sender = |n: u32| format!("flood.{n}");
    (0..=FLOOD).for_each(|n| fake.set_identity(&sender(n), 1));
    fake.set_identity("other", 2);
    slow.call(&sender(0), 1);
    slow.next();
    let taken = (1..=FLOOD).filter(|n| slow.call(&sender(*n), 1) == DeliveryStatus::TAKEN).count();
    assert_eq!(taken, 192, "the limit of one identity");
    for call in 0..3 {
        assert_eq!(slow.call("other", 2 + call), DeliveryStatus::TAKEN, "there is room");
    }
    slow.open();
    let order: Vec<_> = (0..6).map(|_| slow.next().caller).collect();
    let of_other: Vec<_> = order.iter().map(|caller| caller == "other").collect();
    assert_eq!(of_other, [false, true, false, true, false, true], "identities take turns: {order:?}");
    let answered = |fake: &FakeHost| {
        let all = fake.requests();
        let replies = all.iter().filter(|request| request.target == "other");
        replies.flat_map(|request| &request.payloads).filter(|payload| payload[0] == 0x11).count() == 3
    };
    assert!(fake.wait_until(LONG, answered));
}

#[test]
fn calls_of_a_client_that_does_not_read_are_refused() {
    let mut slow = SlowMethod::answering(100_000);
    (1..=10).for_each(|n| _ = slow.bench.call(n, "slow", b"flood"));
    slow.bench.fake.fill_receivers(true);
    slow.open();
    let replies = slow.bench.wait_for_replies(10);
    let large = replies.iter().filter(|reply| reply.len() > 100_000).count();
    assert_eq!(large, 1, "only the first reply is sent");
    assert_eq!(slow.entered.try_iter().count(), 1);
    slow.bench.fake.fill_receivers(false);
    slow.bench.call(11, "slow", b"once it reads");
    assert_eq!(slow.next().params, b"once it reads");
}
