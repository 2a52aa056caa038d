//! Acknowledgements, back-pressure, calls, and losses.

use super::*;
use elbus_protocol::rpc;

#[test]
fn the_result_is_what_the_far_broker_answers() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    for (completion, code) in [(1, Code::Ok), (2, Code::AccessDenied), (3, Code::NotDelivered)] {
        mill.send("io.a", ("press", "io.b"), b"x", completion);
        exchange(&mut [&mut mill, &mut press], now);
        assert!(mill.completions().is_empty(), "not before it is dispatched");
        let delivery = press.dispatches().pop().unwrap();
        assert_eq!((delivery.target(), delivery.payloads.only().as_deref()), ("io.b", Some(&b"x"[..])));
        assert!(delivery.wants_result() && delivery.sender == press.proxy("mill", "io.a"));
        press.bridge.dispatched(&delivery.ticket, None);
        exchange(&mut [&mut mill, &mut press], now);
        assert!(mill.completions().is_empty(), "not before its result is known");
        press.bridge.result(&delivery.ticket, code);
        exchange(&mut [&mut mill, &mut press], now);
        assert_eq!(mill.completions(), [(completion, code)]);
    }
}

#[test]
fn a_lost_batch_is_a_timeout_and_a_lost_result_comes_again() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    mill.outputs.clear();
    mill.send("io.a", ("press", "io.b"), b"lost", 1);
    mill.poll(now);
    assert_eq!(mill.published.len(), 1);
    mill.published.clear();
    mill.send("io.a", ("press", "io.b"), b"arrives", 2);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.completions(), [(1, Code::Timeout)]);
    assert_eq!(mill.count(ReportKind::MessagesLost), 1);
    let delivery = press.dispatches().pop().unwrap();
    press.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
    press.poll(now);
    press.published.clear();
    assert!(mill.completions().is_empty());
    pass(&mut [&mut mill, &mut press], now, 1.5);
    assert_eq!(mill.completions(), [(2, Code::Ok)]);
}

#[test]
fn a_repeated_or_late_batch_is_dropped() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    for completion in 0..3 {
        mill.send("io.a", ("press", "io.b"), &[completion as u8], completion);
        mill.poll(now);
    }
    let batches: Vec<Bytes> =
        std::mem::take(&mut mill.published).into_iter().map(|(_, bytes)| bytes).collect();
    for at in [0, 0, 2, 1, 2, 0] {
        press.bridge.received(&here(), batches[at].clone(), now);
    }
    press.poll(now);
    let payloads: Vec<_> = press.dispatches().iter().map(|run| run.payloads.only().unwrap()[0]).collect();
    assert_eq!(payloads, [0, 2]);
    assert_eq!((press.count(ReportKind::Replay), press.count(ReportKind::BatchesLost)), (4, 1));
}

#[test]
fn time_is_up_after_the_limit() {
    let (mut mill, mut press, now) = pair();
    mill.send("io.a", ("press", "io.b"), b"x", 7);
    let now = pass(&mut [&mut mill, &mut press], now, 59.0);
    assert!(mill.completions().is_empty());
    pass(&mut [&mut mill, &mut press], now, 3.0);
    assert_eq!(mill.completions(), [(7, Code::Timeout)]);
    // the result that comes too late is counted
    let delivery = press.dispatches().pop().unwrap();
    press.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.count(ReportKind::UnknownResult), 1);
}

#[test]
fn a_blocked_run_comes_again_before_later_ones_of_its_sender() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    mill.bridge.local_registered("io.other");
    for payload in 1..=3 {
        mill.send("io.a", ("press", "io.b"), &[payload], payload.into());
    }
    mill.send("io.other", ("press", "io.b"), &[9], 9);
    mill.poll(now);
    for (_, bytes) in std::mem::take(&mut mill.published) {
        press.bridge.received(&here(), bytes, now);
    }
    let mut got = Vec::new();
    while let Some(output) = press.bridge.poll_output(now) {
        let Output::Dispatch(delivery) = output else { continue };
        got.push(delivery.payloads.only().unwrap()[0]);
        match got.len() {
            1 => press.bridge.blocked(delivery),
            _ => press.bridge.dispatched(&delivery.ticket, Some(Code::Ok)),
        }
    }
    assert_eq!(got, [1, 9], "the other sender goes on");
    press.bridge.ready(press.proxy("mill", "io.a"));
    press.poll(now);
    let got: Vec<_> = press.dispatches().iter().map(|run| run.payloads.only().unwrap()[0]).collect();
    assert_eq!(got, [1, 2, 3]);
}

#[test]
fn a_full_receiver_holds_its_own_senders_and_not_the_link() {
    let (mut mill, mut press, mut now) = pair();
    press.bridge.local_registered("io.c");
    exchange(&mut [&mut mill, &mut press], now);
    let payload = vec![0; 60_000];
    let mut sent = 0;
    // the receiver does not take anything: its runs are not dispatched
    while let Pushed::Taken { is_full: false, .. } = mill.send("io.a", ("press", "io.b"), &payload, 1) {
        sent += 1;
        now = pass(&mut [&mut mill, &mut press], now, 0.03);
    }
    assert!((17..19).contains(&sent), "1 MiB is in flight: {sent}");
    let (slow, fast) = (mill.proxy("press", "io.b"), mill.proxy("press", "io.c"));
    assert!(mill.outbox("press").is_full(Some(slow)) && !mill.outbox("press").is_full(Some(fast)));
    let now = pass(&mut [&mut mill, &mut press], now, 1.0);
    let status = &mill.bridge.nodes(now)[0];
    assert_eq!((status.queued_bytes, status.in_flight_bytes), (0, 0), "credit has returned");
    mill.outputs.clear();
    for delivery in press.dispatches() {
        press.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
    }
    pass(&mut [&mut mill, &mut press], now, 0.1);
    let drained = mill.take(|output| match output {
        Output::Drained { proxy, .. } => Some(proxy),
        _ => None,
    });
    assert_eq!(drained, [Some(slow)]);
}

#[test]
fn in_flight_is_a_timeout_later_is_not_registered() {
    let (mut mill, press, now) = pair();
    mill.outputs.clear();
    mill.send("io.a", ("press", "io.b"), b"x", 1);
    mill.poll(now);
    mill.bridge.lost(now);
    mill.send("io.a", ("press", "io.b"), b"y", 2);
    let outbox = mill.outbox("press");
    let to = To::Client(mill.proxy("press", "io.b"));
    drop(press);
    pass(&mut [&mut mill], now, 3.5);
    let mut completions = mill.completions();
    completions.sort_unstable_by_key(|(completion, _)| *completion);
    assert_eq!(completions, [(1, Code::Timeout), (2, Code::NotRegistered)]);
    let run = OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender: "io.a", to };
    assert_eq!(outbox.push(&run, [&b"z"[..]].into_iter(), || Some(3)), Pushed::Closed);
}

#[test]
fn callers_of_a_lost_node_get_an_error_reply() {
    let (mut mill, mut press, now) = pair();
    let callee = mill.proxy("press", "io.b");
    for id in 1..=2 {
        mill.send("io.a", ("press", "io.b"), &rpc::encode_request(id, "m", b"").unwrap(), id);
    }
    exchange(&mut [&mut mill, &mut press], now);
    for delivery in press.dispatches() {
        press.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
    }
    // one call is answered
    press.send("io.b", ("mill", "io.a"), &rpc::encode_reply(1, b""), 1);
    exchange(&mut [&mut mill, &mut press], now);
    mill.outputs.clear();
    pass(&mut [&mut mill], now, 3.5);
    let mut was_removed = false;
    let errors = mill.take(|output| match output {
        Output::ReplyError { caller, callee, call_id } => {
            assert!(!was_removed, "the callee is still registered");
            Some((caller.to_string(), callee, call_id))
        }
        Output::RemoveProxy { .. } => {
            was_removed = true;
            None
        }
        _ => None,
    });
    assert_eq!(errors, [("io.a".to_owned(), callee, 2)]);
}

#[test]
fn a_client_that_is_not_exported_gets_replies_and_nothing_else() {
    let (mut mill, mut press, now) = pair();
    press.send("hidden", ("mill", "io.a"), b"hello", 1);
    exchange(&mut [&mut mill, &mut press], now);
    let delivery = mill.dispatches().pop().unwrap();
    let proxy = mill.bridge.proxies.get(delivery.sender).unwrap();
    assert_eq!((&*proxy.local, proxy.is_listed), ("@press.hidden", false));
    mill.send("io.a", ("press", "hidden"), b"reply", 2);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(press.dispatches().pop().unwrap().target(), "hidden");
    // the other way round it is not a target before it has sent
    let id = mill.bridge.peers["press"].link.as_ref().unwrap().proxies["hidden"];
    mill.outbox("press").open(id, "secret".into());
    mill.outbox("press").open(ProxyId(99), "secret".into());
    let run =
        OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender: "io.a", to: To::Client(ProxyId(99)) };
    mill.outbox("press").push(&run, [&b"x"[..]].into_iter(), || Some(3));
    exchange(&mut [&mut mill, &mut press], now);
    assert!(press.dispatches().is_empty());
    exchange(&mut [&mut mill, &mut press], now);
    assert!(mill.completions().contains(&(3, Code::NotRegistered)));
    assert_eq!(press.count(ReportKind::NotExported), 1);
}

#[test]
fn a_short_interruption_loses_only_what_was_in_flight() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    mill.outputs.clear();
    mill.send("io.a", ("press", "io.b"), b"lost with the connection", 1);
    mill.poll(now);
    mill.published.clear();
    mill.bridge.lost(now);
    let later = now + seconds(1.5);
    mill.send("io.a", ("press", "io.b"), b"waits", 2);
    mill.bridge.connected(later);
    exchange(&mut [&mut mill, &mut press], later);
    for delivery in press.dispatches() {
        press.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
    }
    pass(&mut [&mut mill, &mut press], later, 0.5);
    assert_eq!(mill.completions(), [(1, Code::Timeout), (2, Code::Ok)]);
    assert!(mill.is_up("press"));
}

#[test]
fn a_client_whose_registration_the_broker_ends_while_it_is_held_can_send_once_it_is_registered_again() {
    let (mut mill, mut press, now) = pair();
    for completion in 1..=2 {
        mill.send("io.a", ("press", "io.b"), b"x", completion);
    }
    exchange(&mut [&mut mill, &mut press], now);
    let runs = press.dispatches();
    let proxy = runs[0].sender;
    runs.into_iter().rev().for_each(|run| press.bridge.blocked(run));
    press.bridge.proxy_refused(proxy);
    let now = pass(&mut [&mut mill, &mut press], now, 0.1);
    let mut completions = mill.completions();
    completions.sort_unstable_by_key(|(completion, _)| *completion);
    assert_eq!(completions, [(1, Code::NotDelivered), (2, Code::NotDelivered)]);
    assert_eq!(press.bridge.nodes(now)[0].parked_bytes, 0);
    press.outputs.clear();
    press.bridge.local_left("@mill.io.a");
    press.poll(now);
    let registered = press.take(|output| matches!(output, Output::RegisterProxy { .. }).then_some(()));
    assert_eq!(registered.len(), 1);
    mill.send("io.a", ("press", "io.b"), b"y", 3);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(press.dispatches().len(), 1);
}

#[test]
fn what_concerns_the_broker_is_carried_out_while_the_engine_takes_no_more() {
    let (mut mill, mut press, now) = pair();
    mill.send("io.a", ("press", "io.b"), b"x", 1);
    mill.poll(now);
    press.send("io.b", ("mill", "io.a"), b"y", 2);
    for (_, bytes) in std::mem::take(&mut mill.published) {
        press.bridge.received(&here(), bytes, now);
    }
    let mut dispatched = 0;
    while let Some(output) = press.bridge.poll_other_output(now) {
        assert!(!matches!(output, Output::Publish { .. }), "no batch");
        dispatched += usize::from(matches!(output, Output::Dispatch(_)));
    }
    assert_eq!(dispatched, 1);
    press.poll(now);
    assert_eq!(press.published.len(), 1, "the batch is published later");
}
