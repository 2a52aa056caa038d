//! The plugin with a fake broker: what the stream of a session contains, and when sessions end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{
    BROKER_NAME, Call, CallError, Code, Op, Status,
    testing::{FakeHost, FakeInstance},
};
use elbus_protocol::rpc::{encode_error, encode_notification, encode_reply, encode_request};
use rmpv::Value;
use std::time::Duration;

use crate::Monitor;

const WATCHER: &str = "watcher";
const PATIENCE: Duration = Duration::from_secs(30);

/// A started instance.
struct Fixture {
    fake: FakeHost,
    instance: FakeInstance,
}

fn field<'v>(map: &'v Value, key: &str) -> &'v Value {
    let pair = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
    pair.map_or(&Value::Nil, |(_, value)| value)
}

fn map(pairs: &[(&str, Value)]) -> Vec<u8> {
    let pairs = pairs.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect();
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Map(pairs)).unwrap();
    bytes
}

fn texts(list: &[&str]) -> Value {
    Value::Array(list.iter().map(|text| Value::from(*text)).collect())
}

impl Fixture {
    fn new(config: &str) -> Self {
        let fake = FakeHost::new();
        let instance = fake.create::<Monitor>("monitor", config).unwrap();
        instance.start().unwrap();
        Fixture { fake, instance }
    }

    fn call(&self, caller: &str, method: &str, params: &[u8]) -> Result<Value, CallError> {
        let call = Call { caller, caller_id: self.fake.id_of(caller), method, params };
        let result = self.fake.host("rpc").call(&call)?;
        Ok(rmpv::decode::read_value(&mut &*result).unwrap())
    }

    /// Starts a session; returns its id.
    fn start(&self, params: &[(&str, Value)]) -> u64 {
        field(&self.call(WATCHER, "monitor.start", &map(params)).unwrap(), "session").as_u64().unwrap()
    }

    fn renew(&self, session: u64, batch: u64) -> Result<Value, CallError> {
        let params = map(&[("session", session.into()), ("batch", batch.into())]);
        self.call(WATCHER, "monitor.renew", &params)
    }

    fn batches(&self) -> Vec<Value> {
        let requests = self.fake.requests().into_iter();
        let sent = requests.filter(|request| request.sender.starts_with(".monitor-"));
        sent.map(|request| {
            assert_eq!((request.op, &*request.target), (Op::Message, WATCHER));
            assert!(request.best_effort && request.receiver_id == self.fake.id_of(WATCHER));
            rmpv::decode::read_value(&mut &*request.payloads[0]).unwrap()
        })
        .collect()
    }

    /// Returns the records of a session once it has ended; `end` is the reason.
    fn ended(&self, end: &str) -> Vec<Value> {
        assert!(self.fake.wait_until(PATIENCE, |_| {
            self.batches().last().is_some_and(|batch| field(batch, "end").as_str() == Some(end))
        }));
        let batches = self.batches();
        let numbers: Vec<_> = batches.iter().map(|batch| field(batch, "batch").as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=batches.len() as u64).collect::<Vec<_>>());
        batches.iter().flat_map(|batch| field(batch, "records").as_array().unwrap().clone()).collect()
    }

    fn stop(&self, session: u64) -> Vec<Value> {
        self.call(WATCHER, "monitor.stop", &map(&[("session", session.into())])).unwrap();
        self.ended("stopped")
    }

    fn message(&self, sender: &str, target: &str, payload: &[u8]) {
        self.fake.observe(sender, Op::Message, target, &[payload], Code::Ok, 1);
    }
}

/// Returns a record without its time, as JSON-like text.
fn line(record: &Value) -> String {
    assert!(field(record, "time").as_u64().unwrap() > 0);
    let pairs = record.as_map().unwrap().iter().filter(|(key, _)| key.as_str() != Some("time"));
    let show = |value: &Value| match value {
        Value::Binary(bytes) => bytes.escape_ascii().to_string(),
        Value::Map(pairs) => {
            let shown = pairs.iter().map(|(key, value)| match key.as_str() {
                Some("micros") => {
                    assert!(value.is_u64());
                    "took".to_owned()
                }
                _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            });
            shown.collect::<Vec<_>>().join(" ")
        }
        other => other.as_str().map_or_else(|| other.to_string(), str::to_owned),
    };
    pairs.map(|(_, value)| show(value)).collect::<Vec<_>>().join(" | ")
}

#[test]
fn every_operation_is_recorded_and_rpc_is_decoded() {
    let bus = Fixture::new("");
    let session = bus.start(&[]);
    let host = &bus.fake;
    host.observe("a", Op::Publish, "t/x", &[b"1", b"2"], Code::Ok, 3);
    host.observe("a", Op::Broadcast, "b.*", &[b""], Code::Ok, 0);
    bus.message("a", "b", b"text");
    bus.message("a", "b", &encode_notification(b"note"));
    bus.message("a", "b", &encode_request(7, "add", b"\x93").unwrap());
    bus.message("b", "a", &encode_reply(7, b"\x05"));
    bus.message("a", "b", &encode_request(8, "sub", b"").unwrap());
    bus.message("b", "a", &encode_error(8, -32601, b"no sub"));
    let call = encode_request(9, "lost", b"").unwrap();
    host.observe("a", Op::Message, "gone", &[&call], Code::NotRegistered, 0);
    bus.message("b", "a", &encode_reply(100, b"unknown"));
    bus.message("b", "a", b"\x11\x01");
    let lines: Vec<_> = bus.stop(session).iter().map(line).collect();
    let expected = [
        "publish | false | a | t/x | 1 | 3 | 1 | 1",
        "publish | false | a | t/x | 1 | 3 | 1 | 2",
        "broadcast | false | a | b.* | 1 | 0 | 0 | ",
        "message | false | a | b | 1 | 1 | 4 | text",
        "message | false | a | b | 1 | 1 | 5 | notification | note",
        r"message | false | a | b | 1 | 1 | 10 | call 7 add | \x93",
        r"message | false | b | a | 1 | 1 | 6 | reply 7 add took | \x05",
        "message | false | a | b | 1 | 1 | 9 | call 8 sub | ",
        "message | false | b | a | 1 | 1 | 13 | error 8 sub -32601 took | no sub",
        "message | false | a | gone | 113 | 0 | 10 | call 9 lost | ",
        r"message | false | b | a | 1 | 1 | 2 | \x11\x01",
        "message | false | b | a | 1 | 1 | 12 | reply 100 | unknown",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_reply_observed_before_its_call_is_matched() {
    let bus = Fixture::new("");
    let session = bus.start(&[("rpc", true.into())]);
    bus.message("b", "a", &encode_reply(7, b"\x05"));
    bus.message("a", "b", b"text");
    bus.message("a", "b", &encode_request(7, "add", b"").unwrap());
    let lines: Vec<_> = bus.stop(session).iter().map(line).collect();
    let expected = [
        "message | false | a | b | 1 | 1 | 9 | call 7 add | ",
        r"message | false | b | a | 1 | 1 | 6 | reply 7 add took | \x05",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn calls_that_are_not_answered_are_reported() {
    let bus = Fixture::new("call_seconds = 0.1");
    bus.start(&[]);
    bus.message("a", "b", &encode_request(7, "add", b"").unwrap());
    let last = || field(bus.batches().last()?, "records").as_array()?.last().map(line);
    let expected = "message | false | a | b | 0 | 0 | unanswered 7 add took | ";
    assert!(bus.fake.wait_until(PATIENCE, |_| last().as_deref() == Some(expected)), "{:?}", last());
}

#[test]
fn what_a_session_causes_is_not_recorded() {
    let bus = Fixture::new("");
    let session = bus.start(&[]);
    // the reply to monitor.start, whose call was not observed; renewals; what other sessions send
    bus.message(BROKER_NAME, WATCHER, &encode_reply(1, b"\x80"));
    for client in [WATCHER, "other"] {
        bus.message(client, BROKER_NAME, &encode_request(2, "monitor.renew", b"\x80").unwrap());
        bus.message(BROKER_NAME, client, &encode_reply(2, b"\x80"));
    }
    bus.message(".monitor-99", "other", b"batch");
    bus.message(WATCHER, BROKER_NAME, &encode_request(3, "monitor.stop", b"\x80").unwrap());
    // anything else of a monitoring client is
    bus.message(WATCHER, BROKER_NAME, &encode_request(4, "info", b"").unwrap());
    bus.message(BROKER_NAME, WATCHER, &encode_reply(4, b"\x80"));
    bus.message("other", BROKER_NAME, &encode_request(5, "monitor.start", b"").unwrap());
    let kinds: Vec<_> = bus.stop(session).iter().map(line_of_rpc).collect();
    assert_eq!(kinds, ["call 4 info", "reply 4 info", "call 5 monitor.start"]);
}

fn line_of_rpc(record: &Value) -> String {
    let rpc = field(record, "rpc");
    let text = |key| field(rpc, key).as_str().unwrap().to_owned();
    format!("{} {} {}", text("kind"), field(rpc, "id"), text("method"))
}

#[test]
fn filters_select_topics_clients_and_rpc() {
    let call = encode_request(1, "m", b"").unwrap();
    /// Parameters, and sender and target of the records.
    type Case<'a> = (&'a [(&'a str, Value)], &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        (&[("topics", texts(&["t/#", "u"]))], &["a t/x", "c u"]),
        (&[("clients", texts(&["a"]))], &["a t/x", "a b", "c a", "a m.*"]),
        (&[("clients", texts(&["a"])), ("topics", texts(&["t/#", "u"]))], &["a t/x"]),
        (&[("rpc", true.into())], &["c a"]),
        (&[("rpc", true.into()), ("clients", texts(&["b.*"]))], &[]),
    ];
    for (params, expected) in cases {
        let bus = Fixture::new("");
        let session = bus.start(params);
        for (sender, op, target, payload) in [
            ("a", Op::Publish, "t/x", &b"x"[..]),
            ("c", Op::Publish, "u", b"x"),
            ("a", Op::Message, "b", b"x"),
            ("c", Op::Message, "a", &call),
            ("c", Op::Broadcast, "a", b"x"),
            ("a", Op::Broadcast, "m.*", b"x"),
        ] {
            bus.fake.observe(sender, op, target, &[payload], Code::Ok, 1);
        }
        let text = |record: &Value, key| field(record, key).as_str().unwrap().to_owned();
        let mut seen: Vec<_> = bus
            .stop(session)
            .iter()
            .map(|record| format!("{} {}", text(record, "sender"), text(record, "target")))
            .collect();
        let mut expected = expected.to_vec();
        seen.sort_unstable();
        expected.sort_unstable();
        assert_eq!(seen, expected, "{params:?}");
    }
}

#[test]
fn payloads_are_cut() {
    for (asked, shown) in [(None, 4096), (Some(5), 5), (Some(0), 0), (Some(1 << 30), 10_000)] {
        let bus = Fixture::new("max_payload_bytes = 10000");
        let params: Vec<_> = asked.map(|bytes: u64| ("payload_bytes", bytes.into())).into_iter().collect();
        let session = bus.start(&params);
        bus.message("a", "b", &[b'x'; 20_000]);
        let record = &bus.stop(session)[0];
        assert_eq!(field(record, "payload").as_slice().unwrap().len(), shown);
        assert_eq!(field(record, "omitted").as_u64(), Some(20_000 - shown as u64));
        assert_eq!(field(record, "bytes").as_u64(), Some(20_000));
    }
}

/// Returns what the batches contain and report as missed.
fn totals(batches: &[Value]) -> (u64, u64) {
    let missed = |value: &Value| field(value, "missed").as_u64().unwrap_or(0);
    let records = batches.iter().flat_map(|batch| field(batch, "records").as_array().unwrap());
    let (mut count, mut sum) = (0, batches.iter().map(missed).sum());
    for record in records {
        count += 1;
        sum += missed(record);
    }
    (count, sum)
}

#[test]
fn a_client_that_confirms_nothing_gets_no_more_than_its_window() {
    let bus = Fixture::new("window_bytes = 65536");
    let session = bus.start(&[]);
    let mut sent = 0;
    let listed = || {
        let list = bus.call(WATCHER, "monitor.list", b"").unwrap();
        let session = field(&list, "sessions").as_array().unwrap()[0].clone();
        (field(&session, "records").as_u64().unwrap(), field(&session, "missed").as_u64().unwrap())
    };
    for round in 0..3 {
        for _ in 0..500 {
            bus.message("a", "b", &[b'x'; 1000]);
            sent += 1;
        }
        assert!(bus.fake.wait_until(PATIENCE, |_| {
            let (records, missed) = listed();
            records + missed == sent
        }));
        let bytes: usize = bus.fake.requests().iter().map(|request| request.payloads.concat().len()).sum();
        assert!((round + 1) * 32_000 < bytes && bytes < (round + 1) * 70_000 + 10_000, "{bytes}");
        // once the client has room, it learns at once what it has missed
        bus.renew(session, bus.batches().len() as u64).unwrap();
        assert!(bus.fake.wait_until(PATIENCE, |_| {
            let (records, missed) = totals(&bus.batches());
            records + missed == sent
        }));
        bus.renew(session, bus.batches().len() as u64).unwrap();
    }
    let (records, missed) = totals(&bus.batches());
    assert!(records > 100 && missed > 1000, "{records} {missed}");
    assert_eq!(listed(), (records, missed));
}

#[test]
fn what_the_observer_misses_is_reported() {
    let bus = Fixture::new("queue_bytes = 65536");
    let session = bus.start(&[]);
    let large = vec![0; 70_000];
    for _ in 0..3 {
        bus.message("a", "b", b"small");
        bus.message("a", "b", &large);
        bus.message("a", "b", &large);
    }
    assert!(bus.fake.wait_until(PATIENCE, |_| totals(&bus.batches()) == (3, 6)));
    bus.message("a", "b", b"small");
    bus.stop(session);
    assert_eq!(totals(&bus.batches()), (4, 6));
}

#[test]
fn sessions_end_with_their_lease_their_rights_and_their_client() {
    let bus = Fixture::new("lease_seconds = 1");
    bus.start(&[]);
    bus.ended("the client has not called monitor.renew within lease_seconds");

    let bus = Fixture::new("");
    let session = bus.start(&[]);
    bus.renew(session, 0).unwrap();
    bus.fake.deny_calls(Some(Code::AccessDenied));
    bus.ended("the client is not allowed to monitor any more");
    bus.fake.deny_calls(None);
    assert!(
        bus.fake.wait_until(PATIENCE, |_| bus.instance.status() == Status::with_detail("nobody monitors"))
    );
    assert_eq!(bus.renew(session, 0).unwrap_err().code, -32001);

    let bus = Fixture::new("");
    bus.start(&[]);
    bus.fake.answer_with(Some(Code::NotRegistered));
    bus.message("a", "b", b"x");
    assert!(bus.fake.wait_until(PATIENCE, |fake| fake.clients().is_empty()), "its sender is unregistered");
    assert_eq!(bus.batches().len(), 1);
}

#[test]
fn a_plugin_that_stops_sends_everything_first() {
    let bus = Fixture::new("");
    bus.start(&[]);
    bus.message("a", "b", b"x");
    bus.instance.stop(PATIENCE);
    assert_eq!(bus.ended("the plugin monitor stops").len(), 1);
    assert!(bus.fake.clients().is_empty() && bus.fake.failures().is_empty());
    let error = bus.call(WATCHER, "monitor.start", b"").unwrap_err();
    assert_eq!(error.to_string(), "the plugin monitor stops");
}

#[test]
fn sessions_are_limited_and_belong_to_their_client() {
    let bus = Fixture::new("max_sessions = 2");
    let session = bus.start(&[]);
    bus.start(&[]);
    assert_eq!(bus.instance.status().detail, "2 clients monitor");
    let error = bus.call("third", "monitor.start", b"").unwrap_err();
    assert_eq!(error.code, Code::Busy.rpc_code());
    assert!(error.text.contains("2 clients monitor already") && error.text.contains("max_sessions"));
    let params = map(&[("session", session.into())]);
    for method in ["monitor.renew", "monitor.stop"] {
        assert_eq!(bus.call("third", method, &params).unwrap_err().code, -32001);
    }
    // an invalid call takes no place
    let error = |params: &[(&str, Value)]| bus.call(WATCHER, "monitor.start", &map(params)).unwrap_err().text;
    bus.stop(session);
    assert!(bus.fake.wait_until(PATIENCE, |_| bus.instance.status().detail == "1 client monitors"));
    for _ in 0..3 {
        assert!(error(&[("topics", texts(&[""]))]).contains("topics: \"\" matches nothing"));
        assert!(error(&[("clients", texts(&["a\0"]))]).contains("clients: \"a\\0\" matches nothing"));
        assert!(error(&[("clients", texts(&["a"; 65]))]).contains("clients: 65 entries; the limit is 64"));
        assert!(error(&[("topics", texts(&[&"a".repeat(1025)]))]).contains("1025 bytes; the limit is 1024"));
        assert!(error(&[("topics", texts(&["a"])), ("rpc", true.into())]).contains("exclude each other"));
        assert!(error(&[("rpc", 5.into())]).contains("expected {topics"));
    }
    bus.start(&[]);
    let of_broker = bus.fake.host("fifo").call(&Call::by_broker("monitor.start", b""));
    assert!(of_broker.unwrap_err().text.contains("only a client of the bus"));
}

#[test]
fn values_out_of_range_are_refused() {
    for (config, expected) in [
        ("max_sessions = 0", "max_sessions: 0 is not between 1 and 32"),
        ("window_bytes = 1", "window_bytes: 1 is not between 65536 and 67108864"),
        ("lease_seconds = 0", "lease_seconds: 0 is not between 1 and 3600"),
    ] {
        let error = FakeHost::new().create::<Monitor>("monitor", config).err().unwrap().to_string();
        assert_eq!(error, expected);
    }
}
