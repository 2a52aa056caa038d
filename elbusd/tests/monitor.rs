//! The plugin monitor in a broker with sockets: who may monitor, what is recorded, and that nobody is held.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{FrameKind, Op, Qos, rpc};
use rmpv::Value;
use support::{
    daemon::{BOTH, Daemon},
    field,
    load::Load,
    plugin, plugin_source, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

const OK: u8 = 0x01;

/// Returns a configuration with UNIX and TCP transports, RPC and the monitor.
fn config(source: &str, settings: &str, more: &str) -> String {
    let code = |name| plugin_source(source, name);
    format!(
        "[broker]\nplugin_dirs = [\".\"]\n\
         [[plugin]]\nname = \"local\"\n{}\n\
         config = {{ path = \"bus.sock\", workers = 2, stall_seconds = 20.0, timeout_seconds = 25.0 }}\n\
         [[plugin]]\nname = \"network\"\n{}\nconfig = {{ bind = \"127.0.0.1:0\" }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n\
         [[plugin]]\nname = \"monitor\"\n{}\nconfig = {{ {settings} }}\n{more}",
        code("unix"),
        code("tcp"),
        code("rpc"),
        code("monitor"),
    )
}

/// A client that monitors.
struct Monitor {
    wire: Wire,
    session: u64,
    sender: String,
    /// The number of the last batch.
    batch: u64,
    records: u64,
    missed: u64,
    end: Option<String>,
}

fn params(pairs: &[(&str, Value)]) -> Vec<u8> {
    let pairs = pairs.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect();
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Map(pairs)).unwrap();
    bytes
}

fn get<'v>(map: &'v Value, key: &str) -> &'v Value {
    let pair = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
    pair.map_or(&Value::Nil, |(_, value)| value)
}

impl Monitor {
    fn start(mut wire: Wire, pairs: &[(&str, Value)]) -> Result<Self, (i16, String)> {
        let started = wire.call(".broker", "monitor.start", &params(pairs))?;
        let started = rmpv::decode::read_value(&mut &*started).unwrap();
        let (session, sender) = (field(&started, "session").as_u64().unwrap(), field(&started, "sender"));
        let sender = sender.as_str().unwrap().to_owned();
        Ok(Monitor { wire, session, sender, batch: 0, records: 0, missed: 0, end: None })
    }

    /// Returns the records of the next batch.
    fn next(&mut self) -> Vec<Value> {
        loop {
            let frame = self.wire.frame();
            let Frame::Data(FrameKind::Message, sender, _, payload, _) = frame else { continue };
            if sender != self.sender {
                continue;
            }
            let batch = rmpv::decode::read_value(&mut &*payload).unwrap();
            assert_eq!(field(&batch, "session").as_u64(), Some(self.session));
            let number = field(&batch, "batch").as_u64().unwrap();
            // the first ones can arrive before the reply to `monitor.start`
            assert!(self.batch == 0 || number == self.batch + 1, "{number} {}", self.batch);
            self.batch = number;
            self.end = field(&batch, "end").as_str().map(str::to_owned);
            let records = field(&batch, "records").as_array().unwrap().clone();
            let missed = |value: &Value| get(value, "missed").as_u64().unwrap_or(0);
            self.records += records.len() as u64;
            self.missed += missed(&batch) + records.iter().map(missed).sum::<u64>();
            return records;
        }
    }

    /// Returns all records up to the first for which `last` returns `true`.
    fn until(&mut self, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        while !all.last().is_some_and(&last) {
            all.extend(self.next());
        }
        all
    }

    /// Confirms what has arrived, without waiting for the reply.
    fn renew(&mut self) {
        let params = params(&[("session", self.session.into()), ("batch", self.batch.into())]);
        let call = rpc::encode_request(7, "monitor.renew", &params).unwrap();
        self.wire.request(Op::Message, Qos::NO, ".broker", "", &call);
    }
}

fn text(record: &Value, key: &str) -> String {
    get(record, key).as_str().unwrap_or("").to_owned()
}

fn is_payload(record: &Value, payload: &[u8]) -> bool {
    get(record, "payload").as_slice() == Some(payload)
}

#[test]
fn everything_is_recorded_with_its_result() {
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let mut monitor = Monitor::start(daemon.client("watcher"), &[]).unwrap();
        let mut local = daemon.client("local");
        let mut remote = Wire::connect(&daemon, &daemon.addresses()[1], "remote");
        remote.subscribe(&["t/#"]);
        assert_eq!(local.acked(Op::Publish, "t/x", b"one"), OK);
        assert_eq!(remote.send("local", b"two"), OK);
        assert_eq!(local.send("nobody", b"three"), 0x71);
        assert_eq!(remote.acked(Op::Broadcast, "*", b"four"), OK);
        local.call(".broker", "test", b"").unwrap();
        assert_eq!(local.control("no.method", &[]).unwrap_err().0, -32601);
        assert_eq!(local.send("remote", b"last"), OK);
        let line = |record: &Value| {
            let (sender, target, rpc) = (text(record, "sender"), text(record, "target"), get(record, "rpc"));
            let code = get(record, "code").as_u64().unwrap();
            let what = match rpc {
                Value::Nil => String::from_utf8(get(record, "payload").as_slice().unwrap().to_vec()).unwrap(),
                rpc => {
                    // every reply has its call and its duration
                    let took = get(rpc, "micros").as_u64();
                    assert_eq!(took.is_some(), text(rpc, "kind") != "call", "{record}");
                    assert!(took.unwrap_or(0) < 30_000_000, "{record}");
                    format!("{} {} {}", text(rpc, "kind"), text(rpc, "method"), get(rpc, "error"))
                }
            };
            format!("{} {sender} {target} {code} {} {what}", text(record, "op"), get(record, "recipients"))
        };
        let records = monitor.until(|record| is_payload(record, b"last"));
        let mut lines: Vec<_> = records.iter().map(line).collect();
        let expected = [
            "publish local t/x 1 1 one",
            "message remote local 1 1 two",
            "message local nobody 113 0 three",
            "broadcast remote * 1 3 four",
            "message local .broker 1 1 call test nil",
            "message .broker local 1 1 reply test nil",
            "message local .broker 1 1 call no.method nil",
            "message .broker local 1 1 error no.method -32601",
            "message local remote 1 1 last",
        ];
        // the broker replies in another thread than that of the client
        lines.sort_by_key(|line| expected.iter().position(|expected| expected == line));
        assert_eq!(lines, expected, "{source}");
        let status = plugin(&mut local, "monitor").unwrap();
        assert_eq!(field(&status, "detail").as_str(), Some("1 client monitors"));
    }
}

#[test]
fn only_local_administrators_and_clients_that_rules_allow_can_monitor() {
    let daemon = Daemon::start_config(&config("library", "", ""));
    let remote = Wire::connect(&daemon, &daemon.addresses()[1], "remote");
    let (code, why) = Monitor::start(remote, &[]).err().unwrap();
    assert_eq!(code, -32000 - 0x79);
    assert!(why.contains("remote_admin"), "{why}");

    let rules = |of_watcher: &str| {
        format!(
            "[[plugin]]\nname = \"access\"\nlibrary = \"elbus_acl\"\n\
             [[plugin.config.client]]\nname = \"watcher\"\ncall = [\"{of_watcher}\"]\n\
             [[plugin.config.client]]\nname = \"other\"\npublish = [\"allow #\"]\ncall = [\"allow plugin.*\"]\n\
             [[plugin.config.client]]\nname = \"operator\"\ncall = [\"allow *\"]\n"
        )
    };
    let daemon = Daemon::start_config(&config("library", "", &rules("allow monitor.*")));
    let (code, why) = Monitor::start(daemon.client("other"), &[]).err().unwrap();
    assert_eq!(code, -32000 - 0x79);
    assert!(why.contains("do not allow other to call monitor.start"), "{why}");
    // it may not read a topic, nor be sent anything: the right to monitor is enough
    let mut monitor = Monitor::start(daemon.client("watcher"), &[]).unwrap();
    let mut other = daemon.client("other");
    assert_eq!(other.acked(Op::Publish, "t", b"x"), OK);
    assert_eq!(other.send("watcher", b"denied"), 0x79);
    let records = monitor.until(|record| is_payload(record, b"denied"));
    assert_eq!(get(records.last().unwrap(), "code").as_u64(), Some(0x79), "what is denied is recorded");
    // what rules do not allow any more ends
    std::fs::write(daemon.path("broker.toml"), config("library", "", &rules("deny monitor.*"))).unwrap();
    daemon.client("operator").control("config.reload", &[]).unwrap();
    while monitor.end.is_none() {
        monitor.next();
    }
    assert_eq!(monitor.end.as_deref(), Some("the client is not allowed to monitor any more"));
}

#[test]
fn a_monitoring_client_that_reads_nothing_holds_nobody_and_learns_exactly_what_it_missed() {
    let daemon = Daemon::start_config(&config("library", "", ""));
    let mut monitor = Monitor::start(daemon.client("watcher"), &[("payload_bytes", 1000.into())]).unwrap();
    let (mut sender, mut receiver) = (daemon.client("sender"), daemon.client("receiver"));
    receiver.subscribe(&["t"]);
    let (runs, frames) = (100, 200);
    for _ in 0..runs {
        sender.write(&numbered_frames(Op::Publish, Qos::NO, "t", frames, 1000));
        // it reads everything, so that nobody but the watcher is slow
        for _ in 0..frames {
            assert!(matches!(receiver.frame(), Frame::Data(FrameKind::Publish, ..)));
        }
        // a broadcast reaches the watcher too
        assert_eq!(sender.acked(Op::Broadcast, "watcher", b"all"), OK);
    }
    let sent = u64::from(runs * (frames + 1));
    let mut operator = daemon.client("operator");
    let queued = support::queued_bytes(&mut operator);
    assert!(queued < 3 << 20, "{queued} bytes are queued for a client that reads nothing");
    let held = operator.control("client.info", &[("name", "watcher")]).unwrap();
    assert_eq!(field(&held, "held_seconds").as_f64(), Some(0.0), "{held}");
    // calls of the operator are observed as well
    let mut extra = 0;
    while monitor.records + monitor.missed < sent + extra {
        for record in monitor.next() {
            let (sender, target) = (text(&record, "sender"), text(&record, "target"));
            extra += u64::from(sender == "operator" || target == "operator");
        }
        monitor.renew();
    }
    assert!(monitor.records >= 500, "{}", monitor.records);
    assert!(monitor.missed >= 10_000, "{}", monitor.missed);
    // what was missed before this one is reported before it
    assert_eq!(sender.acked(Op::Publish, "t", b"before"), OK);
    monitor.until(|record| is_payload(record, b"before"));
    monitor.renew();
    // from here on it misses nothing
    let missed = monitor.missed;
    assert_eq!(sender.acked(Op::Publish, "t", b"after"), OK);
    monitor.until(|record| is_payload(record, b"after"));
    assert!(monitor.missed - missed <= 4, "{} {missed}", monitor.missed);
}

#[test]
fn monitors_do_not_observe_each_other() {
    let daemon = Daemon::start_config(&config("library", "", ""));
    let mut first = Monitor::start(daemon.client("first"), &[]).unwrap();
    let mut second = Monitor::start(daemon.client("second"), &[]).unwrap();
    let mut sender = daemon.client("sender");
    for round in 0..50_u32 {
        assert_eq!(sender.acked(Op::Publish, "t", &round.to_le_bytes()), OK);
        for monitor in [&mut first, &mut second] {
            monitor.until(|record| is_payload(record, &round.to_le_bytes()));
            monitor.renew();
        }
    }
    // each has its 50 records, and `first` has seen how `second` began
    assert!(second.records == 50 && first.records <= 52, "{} {}", first.records, second.records);
    assert_eq!(first.missed + second.missed, 0);
}

#[test]
fn sessions_end_with_their_plugin_and_with_their_client() {
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let mut operator = daemon.client("operator");
        let mut sender = daemon.client("sender");
        for (method, reason) in
            [("plugin.reload", "the plugin monitor stops"), ("plugin.stop", "the plugin monitor stops")]
        {
            let mut monitor = Monitor::start(daemon.client("watcher"), &[]).unwrap();
            assert_eq!(sender.acked(Op::Publish, "t", b"before"), OK);
            operator.control(method, &[("name", "monitor")]).unwrap();
            let mut found = false;
            while monitor.end.is_none() {
                found |= monitor.next().iter().any(|record| is_payload(record, b"before"));
            }
            assert!(found && monitor.end.as_deref() == Some(reason), "{method}: {:?}", monitor.end);
            assert_eq!(monitor.wire.control("monitor.list", &[]).is_ok(), method == "plugin.reload");
        }
        operator.control("plugin.start", &[("name", "monitor")]).unwrap();
        let monitor = Monitor::start(daemon.client("watcher"), &[]).unwrap();
        drop(monitor);
        wait_until("the session ends with its client", || {
            let list = operator.control("monitor.list", &[]).unwrap();
            field(&list, "sessions").as_array().unwrap().is_empty()
        });
        daemon.wait_for_log("client has stopped monitoring");
    }
}

#[test]
fn monitoring_begins_and_ends_under_load_and_nothing_is_lost() {
    let daemon = Daemon::start_config(&config("library", "queue_bytes = 65536", ""));
    let load = Load::start(&daemon);
    for round in 0..support::rounds(6, 200) {
        let filter: &[(&str, Value)] = match round % 3 {
            0 => &[],
            1 => &[("rpc", true.into())],
            _ => &[("clients", Value::Array(vec!["load.*".into()]))],
        };
        let mut monitor = Monitor::start(daemon.client("watcher"), filter).unwrap();
        load.wait_for_more();
        if round % 3 != 1 {
            monitor.next();
        }
        if round % 2 == 0 {
            let params = params(&[("session", monitor.session.into())]);
            monitor.wire.call(".broker", "monitor.stop", &params).unwrap();
        }
    }
    let counts = load.stop();
    assert!(counts.acknowledged > 0, "{counts:?}");
}
