//! Retained values over real sockets: new subscribers get the last value of each topic, then what is
//! published afterwards, each once and in order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{
    FrameKind, Op, Qos,
    request::{encode_filters, encode_request},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};
use support::{
    daemon::{BOTH, Daemon, folder},
    field, plugin, plugin_source, queued_bytes, wait_until,
    wire::{Frame, Wire},
};

/// Returns a configuration with a UNIX transport, RPC, the plugin, and more.
fn config(source: &str, retain: &str, more: &str) -> String {
    format!(
        "[broker]\nplugin_dirs = [\".\"]\n\
         [[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", workers = 2, timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n\
         [[plugin]]\nname = \"retain\"\n{}\n[plugin.config]\n{retain}\n\
         [[plugin.config.topic]]\nfilter = \"k/#\"\n{more}",
        plugin_source(source, "unix"),
        plugin_source(source, "rpc"),
        plugin_source(source, "retain"),
    )
}

/// Returns topic and payload of the next publication.
fn publication(client: &mut Wire) -> (String, String) {
    let frame = client.frame();
    let Frame::Data(FrameKind::Publish, sender, topic, ..) = &frame else { panic!("{frame:?}") };
    assert_eq!(sender, "sender");
    (topic.clone(), String::from_utf8(frame.payload().to_vec()).unwrap())
}

fn publish(client: &mut Wire, topic: &str, payload: &str) {
    assert_eq!(client.acked(Op::Publish, topic, payload.as_bytes()), 0x01);
}

/// Reads `count` publications, which are of different topics.
fn values(client: &mut Wire, count: usize) -> BTreeMap<String, String> {
    let values: BTreeMap<_, _> = (0..count).map(|_| publication(client)).collect();
    assert_eq!(values.len(), count);
    values
}

fn of(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
}

/// Has a client get everything that is under way to it: what it sends to itself comes last.
fn drained(client: &mut Wire, name: &str) -> Vec<Frame> {
    client.request(Op::Message, Qos::NO, name, "", b"last");
    let mut frames = vec![];
    loop {
        match client.frame() {
            Frame::Data(FrameKind::Message, ..) => return frames,
            frame => frames.push(frame),
        }
    }
}

/// Waits until no replay runs.
fn replayed(operator: &mut Wire) {
    wait_until("the replays end", || {
        let retain = plugin(operator, "retain").unwrap();
        field(&retain, "detail").as_str().unwrap().ends_with(" 0 replays")
    });
}

#[test]
fn new_subscribers_get_the_last_values_and_then_what_follows() {
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
        for (topic, payload) in
            [("k/a", "1"), ("k/a", "2"), ("k/b", "3"), ("k/c", "4"), ("k/c", ""), ("x", "5")]
        {
            publish(&mut sender, topic, payload);
        }
        for filter in ["k/#", "#", "$latest/k/#", "$lossy/k/+", "$every/1/k/+"] {
            let mut panel = daemon.client("panel");
            panel.subscribe(&[filter]);
            assert_eq!(values(&mut panel, 2), of(&[("k/a", "2"), ("k/b", "3")]), "{filter}");
            replayed(&mut operator);
            publish(&mut sender, "k/b", "3");
            assert_eq!(publication(&mut panel), ("k/b".into(), "3".into()), "{filter}");
        }
        // a group gets what is published only, and so does the client of a limited publication
        let mut worker = daemon.client("worker");
        worker.subscribe(&["$share/g/k/#", "$key/g/1/k/#"]);
        sender.request(Op::PublishFor, Qos::NO, "k/for", "panel", b"6");
        publish(&mut sender, "k/d", "7");
        let groups: Vec<_> = drained(&mut worker, "worker");
        assert!(groups.iter().all(|frame| frame.payload() == b"7") && !groups.is_empty(), "{groups:?}");
        // a second filter brings only what the client was not subscribed to
        let mut panel = daemon.client("panel");
        panel.subscribe(&["k/a"]);
        assert_eq!(values(&mut panel, 1), of(&[("k/a", "2")]));
        replayed(&mut operator);
        panel.subscribe(&["k/#"]);
        assert_eq!(values(&mut panel, 2), of(&[("k/b", "3"), ("k/d", "7")]));
        replayed(&mut operator);
        assert!(drained(&mut panel, "panel").is_empty());
    }
}

/// Each publisher counts up its topics at full speed.
fn count_up(sender: &mut Wire, topics: usize, stop: &AtomicBool) {
    let mut number = 0_u32;
    while !stop.load(SeqCst) {
        let mut out = Vec::new();
        for _ in 0..8 {
            number += 1;
            for topic in 0..topics {
                let (topic, payload) = (format!("k/{topic}"), number.to_le_bytes());
                encode_request(&mut out, number, Op::Publish, Qos::NO, &topic, "", &payload).unwrap();
            }
        }
        encode_request(&mut out, number, Op::Publish, Qos::PROCESSED, "end", "", b"").unwrap();
        sender.write(&out);
        assert_eq!(sender.expect_ack(number), 0x01);
    }
}

/// Stops the publishers, also if the test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn subscribers_that_join_fast_publishers_get_each_value_once_and_in_order() {
    const PUBLISHERS: usize = 2;
    const TOPICS: usize = 8;
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let mut sender = daemon.client(&format!("sender.{publisher}"));
                let stop = &stop;
                scope.spawn(move || count_up(&mut sender, TOPICS, stop));
            }
            let _stops = Stops(&stop);
            let filters = ["k/#", "k/+", "$lossy/#"];
            for client in 0..30 {
                let mut panel = daemon.client("panel");
                panel.subscribe(&[filters[client % filters.len()]]);
                let mut last = BTreeMap::new();
                let mut seen = 0;
                // until each publisher had its turn
                while seen < 2000 || last.len() < PUBLISHERS * TOPICS {
                    let frame = panel.frame();
                    let Frame::Data(_, sender, topic, payload, _) = frame else { continue };
                    if topic == "end" {
                        continue;
                    }
                    let number = u32::from_le_bytes(payload[..].try_into().unwrap());
                    if let Some(before) = last.insert((sender.clone(), topic.clone()), number) {
                        // a lossy reader can miss some
                        let is_next = number == before + 1 || (client % 3 == 2 && number > before);
                        assert!(is_next, "client {client}: {number} after {before} at {topic} of {sender}");
                    }
                    seen += 1;
                }
            }
        });
    }
}

#[test]
fn a_slow_subscriber_delays_nobody_and_gets_current_values() {
    const TOPICS: usize = 4000;
    let daemon = Daemon::start_config(&config("builtin", "", ""));
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    let payload = |version: usize| format!("{version} {}", "x".repeat(1000));
    let all = |sender: &mut Wire, version: usize| {
        for topic in 0..TOPICS {
            sender.request(Op::Publish, Qos::NO, &format!("k/{topic}"), "", payload(version).as_bytes());
        }
        publish(sender, "end", "");
    };
    all(&mut sender, 1);
    let mut slow = daemon.client("slow");
    slow.subscribe(&["$latest/k/#"]);
    let detail = |operator: &mut Wire| {
        field(&plugin(operator, "retain").unwrap(), "detail").as_str().unwrap().to_owned()
    };
    assert!(detail(&mut operator).contains("4000 topics"), "{}", detail(&mut operator));
    // another subscriber gets its values meanwhile
    let mut fast = daemon.client("fast");
    fast.subscribe(&["k/7"]);
    assert_eq!(publication(&mut fast).1, payload(1));
    assert!(queued_bytes(&mut operator) < 2 << 20, "{}", queued_bytes(&mut operator));
    all(&mut sender, 2);
    let (mut last, mut count) = (BTreeMap::new(), 0);
    while last.len() < TOPICS || last.values().any(|version| *version != "2") {
        let (topic, payload) = publication(&mut slow);
        let version = if payload.starts_with('2') { "2" } else { "1" };
        let before = last.insert(topic.clone(), version);
        assert!(before.is_none_or(|before| before < version), "{topic}: {version} after {before:?}");
        count += 1;
    }
    assert!(count <= 2 * TOPICS);
    replayed(&mut operator);
}

#[test]
fn a_slow_reader_of_newest_values_gets_more_topics_than_can_wait_for_it() {
    const TOPICS: usize = 12_000;
    let daemon = Daemon::start_config(&config("builtin", "", ""));
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    for topic in 0..TOPICS {
        sender.request(Op::Publish, Qos::NO, &format!("k/{topic}"), "", &[b'x'; 200]);
    }
    publish(&mut sender, "end", "");
    let mut slow = daemon.client("slow");
    slow.subscribe(&["$latest/k/#"]);
    // it reads nothing until its queue has something
    wait_until("the replay waits", || queued_bytes(&mut operator) > 0);
    assert_eq!(values(&mut slow, TOPICS).len(), TOPICS);
    replayed(&mut operator);
    let info = operator.control("client.info", &[("name", "slow")]).unwrap();
    assert_eq!(field(&field(&info, "options")[0], "missed").as_u64(), Some(0));
}

#[test]
fn publications_pass_while_the_plugin_is_reloaded_and_later_values_are_kept() {
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
        publish(&mut sender, "k/a", "1");
        let mut early = daemon.client("early");
        early.subscribe(&["k/#"]);
        assert_eq!(publication(&mut early), ("k/a".into(), "1".into()));
        for method in ["plugin.reload", "plugin.stop"] {
            operator.control(method, &[("name", "retain")]).unwrap();
            publish(&mut sender, "k/b", "2");
            assert_eq!(publication(&mut early), ("k/b".into(), "2".into()));
        }
        let mut panel = daemon.client("panel");
        panel.subscribe(&["k/#"]);
        operator.control("plugin.start", &[("name", "retain")]).unwrap();
        publish(&mut sender, "k/c", "3");
        assert_eq!(publication(&mut panel), ("k/c".into(), "3".into()));
        let mut late = daemon.client("late");
        late.subscribe(&["k/#"]);
        assert_eq!(
            publication(&mut late),
            ("k/c".into(), "3".into()),
            "values in memory end with the instance"
        );
        // another table restarts the instance
        let changed = config(source, "", "max_topics = 1\n");
        std::fs::write(daemon.path("broker.toml"), changed).unwrap();
        operator.control("config.reload", &[]).unwrap();
        publish(&mut sender, "k/d", "4");
        publish(&mut sender, "k/e", "5");
        let mut limited = daemon.client("limited");
        limited.subscribe(&["k/#"]);
        assert_eq!(publication(&mut limited), ("k/d".into(), "4".into()));
        replayed(&mut operator);
        assert!(drained(&mut limited, "limited").is_empty());
        daemon.wait_for_log("value not kept");
    }
}

#[test]
fn what_other_interceptors_reject_is_not_kept() {
    let home = folder();
    let built = std::env::current_exe().unwrap();
    let library = "librange_check.so";
    std::fs::copy(built.parent().unwrap().join(library), home.path().join(library)).unwrap();
    // its name is behind that of the plugin
    let range = "[[plugin]]\nname = \"z\"\nlibrary = \"range_check\"\n\
                 config = { filters = [\"k/#\"], min = 0.0, max = 10.0 }\n";
    std::fs::write(home.path().join("broker.toml"), config("builtin", "", range)).unwrap();
    let daemon = Daemon::start_in(home, &["--config", "broker.toml"]);
    let mut sender = daemon.client("sender");
    publish(&mut sender, "k/a", "5");
    assert_eq!(sender.acked(Op::Publish, "k/a", b"50"), 0x72);
    let mut panel = daemon.client("panel");
    panel.subscribe(&["k/#"]);
    assert_eq!(publication(&mut panel), ("k/a".into(), "5".into()));
}

#[test]
fn values_are_read_and_deleted_by_calls() {
    for source in BOTH {
        let daemon = Daemon::start_config(&config(source, "", ""));
        let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
        publish(&mut sender, "k/a", "1");
        publish(&mut sender, "k/b", "2");
        let got = operator.control("retain.get", &[("topic", "k/a")]).unwrap();
        assert_eq!(got.to_string(), r#"{"topic": "k/a", "sender": "sender", "payload": "1"}"#);
        let listed = operator.control("retain.list", &[("filter", "k/+")]).unwrap();
        assert_eq!(field(&listed, "values").as_array().unwrap().len(), 2);
        operator.control("retain.delete", &[("filter", "k/#")]).unwrap();
        assert!(operator.control("retain.get", &[("topic", "k/a")]).is_err());
    }
}

#[test]
fn a_client_that_subscribes_again_and_again_delays_no_other() {
    let daemon = Daemon::start_config(&config("builtin", "replay_topics_per_second = 20000", ""));
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    for topic in 0..10_000 {
        sender.request(Op::Publish, Qos::NO, &format!("k/{topic}"), "", b"1");
    }
    publish(&mut sender, "end", "");
    let mut flood = daemon.client("flood");
    let mut reader = flood.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || while reader.frame_within(support::PATIENCE).is_some() {});
        // what is left of them when it leaves ends at the rate of its identity
        for _ in 0..1000 {
            let mut out = Vec::new();
            for op in [Op::Subscribe, Op::Unsubscribe] {
                encode_filters(&mut out, 1, op, Qos::NO, ["k/#"]).unwrap();
            }
            flood.write(&out);
            publish(&mut sender, "k/5", "2");
        }
        flood.shutdown(std::net::Shutdown::Both);
    });
    replayed(&mut operator);
}
