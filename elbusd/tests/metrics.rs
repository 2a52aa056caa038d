//! The plugin metrics in a broker with sockets: what is counted, and which clients are served.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, rpc};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};
use support::{
    daemon::{Daemon, refused_config},
    field,
    http::{Answer, connect, exchange, get, scrape, scrape_text},
    load::Load,
    plugin, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

/// Returns a configuration with two transports, RPC and the plugin.
fn config(metrics: &str, more: &str) -> String {
    format!(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = {{ path = "bus.sock", queue_bytes = 100000, stall_seconds = 20.0, timeout_seconds = 25.0 }}
        [[plugin]]
        name = "network"
        library = "elbus_tcp"
        config = {{ bind = "127.0.0.1:0" }}
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        [[plugin]]
        name = "metrics"
        library = "elbus_metrics"
        [plugin.config]
        bind = "127.0.0.1:0"
        cache_seconds = 0
        {metrics}
        {more}
        "#
    )
}

fn start(metrics: &str, more: &str) -> Daemon {
    Daemon::start_config(&config(metrics, more))
}

/// Waits until the value of a sample is this.
fn wait_for(daemon: &Daemon, name: &str, value: f64) {
    wait_until(&format!("{name} is {value}"), || scrape(daemon).value(name) == value);
}

#[test]
fn traffic_is_counted_for_the_broker_and_for_each_transport() {
    let daemon = start("", "");
    let network = daemon.addresses().into_iter().find(|address| address.starts_with("tcp:")).unwrap();
    let (mut a, mut b) = (daemon.client("a"), Wire::connect(&daemon, &network, "b"));
    let secondary = daemon.client("a%%1");
    for _ in 0..10 {
        assert_eq!(a.send("b", b"0123456789"), 0x01);
    }
    b.frame();
    let text = scrape_text(&daemon);
    assert!(
        text.ends_with("# EOF\n") && text.contains("elbus_broker_info{name=\"elbus\",version="),
        "{text}"
    );
    let samples = scrape(&daemon);
    for (name, expected) in [
        ("elbus_received_frames_total", 10.0),
        ("elbus_plugin_received_frames_total{plugin=\"local\"}", 10.0),
        ("elbus_plugin_sent_frames_total{plugin=\"network\"}", 10.0),
        ("elbus_plugin_sent_bytes_total{plugin=\"network\"}", 120.0),
        ("elbus_clients{plugin=\"local\",kind=\"primary\"}", 1.0),
        ("elbus_clients{plugin=\"local\",kind=\"secondary\"}", 1.0),
        ("elbus_clients{plugin=\"network\",kind=\"primary\"}", 1.0),
        ("elbus_registrations_total{plugin=\"local\"}", 2.0),
        ("elbus_plugin_state{plugin=\"rpc\",state=\"started\"}", 1.0),
        ("elbus_plugin_state{plugin=\"rpc\",state=\"failed\"}", 0.0),
        ("elbus_plugin_info{plugin=\"local\",library=\"elbus-unix\"}", 1.0),
        ("elbus_full_receivers", 0.0),
    ] {
        assert_eq!(samples.value(name), expected, "{name}\n{text}");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(samples.value(name) > 0.0, "{name}\n{text}");
    }
    assert!(!text.contains("client=\""), "no series for each client:\n{text}");
    // what departed clients have sent stays
    drop((a, secondary));
    // a secondary leaves with its primary, or by itself
    wait_until("both have left", || {
        scrape(&daemon).of("elbus_disconnections_total").map(|(_, count)| count).sum::<f64>() == 2.0
    });
    let samples = scrape(&daemon);
    assert_eq!(samples.value("elbus_plugin_received_frames_total{plugin=\"local\"}"), 10.0);
    assert_eq!(samples.value("elbus_clients{plugin=\"local\",kind=\"primary\"}"), 0.0);
}

#[test]
fn disconnections_have_reasons_and_reconnections_are_counted() {
    let daemon = start("", "");
    let mut admin = daemon.client("admin");
    let mut kicked = daemon.client("kicked");
    admin.control("client.kick", &[("name", "kicked")]).unwrap();
    kicked.wait_closed();
    drop(daemon.client("again"));
    wait_for(&daemon, "elbus_disconnections_total{plugin=\"local\",reason=\"kicked\"}", 1.0);
    wait_for(&daemon, "elbus_disconnections_total{plugin=\"local\",reason=\"closed\"}", 1.0);
    let _again = daemon.client("again");
    wait_for(&daemon, "elbus_reconnections_total", 1.0);
    let mut wrong = daemon.client("wrong");
    wrong.write(&[0xFF; 64]);
    wrong.wait_closed();
    wait_for(&daemon, "elbus_disconnections_total{plugin=\"local\",reason=\"protocol\"}", 1.0);
    assert_eq!(daemon_refuses(&daemon, "again"), 0x76);
    wait_for(&daemon, "elbus_refused_registrations_total{reason=\"busy\"}", 1.0);
    admin.control("plugin.stop", &[("name", "network")]).unwrap();
    wait_for(&daemon, "elbus_plugin_state{plugin=\"network\",state=\"stopped\"}", 1.0);
    assert_eq!(get(&daemon, "/readyz").status, 200, "an administrator has stopped it");
}

/// Returns the code by which the broker refuses a name.
fn daemon_refuses(daemon: &Daemon, name: &str) -> u8 {
    Wire::raw(daemon, &daemon.address()).greet(name.as_bytes())
}

#[test]
fn full_receivers_and_the_time_for_which_they_hold_senders_are_shown() {
    let daemon = start("", "");
    let mut slow = daemon.client("slow");
    let mut sender = daemon.client("sender");
    let flood = std::thread::spawn(move || {
        sender.write(&numbered_frames(Op::Message, Qos::NO, "slow", 20_000, 1000));
        sender
    });
    wait_for(&daemon, "elbus_full_receivers", 1.0);
    wait_for(&daemon, "elbus_held_senders", 1.0);
    let held = |name: &str| scrape(&daemon).value(name);
    wait_until("time is counted while the sender is held", || {
        held("elbus_held_seconds_total") > 0.2
            && held("elbus_receiver_held_seconds_total{client=\"slow\"}") > 0.2
    });
    assert!(held("elbus_plugin_queued_bytes{plugin=\"local\"}") >= 100_000.0);
    assert!(held("elbus_queued_bytes") >= 100_000.0);
    for _ in 0..20_000 {
        slow.frame();
    }
    drop(flood.join().unwrap());
    wait_for(&daemon, "elbus_full_receivers", 0.0);
    wait_for(&daemon, "elbus_held_senders", 0.0);
    let total = held("elbus_held_seconds_total");
    assert!(total > 0.2 && total < 60.0, "{total}");
    assert_eq!(held("elbus_held_seconds_total"), total, "nobody is held any more");
}

#[test]
fn refusals_and_denials_are_counted_by_kind() {
    let rules = r#"
        [[plugin]]
        name = "access"
        library = "elbus_acl"
        [[plugin.config.client]]
        name = "*"
        publish = ["allow open/#"]
        send = ["allow *"]
    "#;
    let daemon = start("", rules);
    let mut client = daemon.client("client");
    for topic in ["secret/a", "secret/b", "open/a"] {
        client.acked(Op::Publish, topic, b"x");
    }
    assert_eq!(client.filters(Op::Subscribe, &["secret/#"]), 0x79);
    let samples = scrape(&daemon);
    for (action, count) in [("publish", 2.0), ("subscribe", 1.0), ("send", 0.0), ("call", 0.0)] {
        let name = format!("elbus_denials_total{{action=\"{action}\"}}");
        assert_eq!(samples.value(&name), count, "{name}");
    }
    // beyond twice its limit, real-time messages are refused
    let _slow = daemon.client("slow");
    client.write(&numbered_frames(Op::Message, Qos::REALTIME, "slow", 1500, 1000));
    wait_until("messages are refused", || {
        scrape(&daemon).value("elbus_refused_messages_total{reason=\"queue_full\"}") > 0.0
    });
}

#[test]
fn hooks_have_durations() {
    let hook = r#"
        [[plugin]]
        name = "range"
        library = "range_check"
        [plugin.config]
        filters = ["sensors/#"]
        min = 0.0
        max = 100.0
    "#;
    let daemon = start("", hook);
    let mut client = daemon.client("client");
    assert_eq!(client.acked(Op::Publish, "sensors/a", b"5"), 0x01);
    assert_eq!(client.acked(Op::Publish, "other", b"5"), 0x01);
    let samples = scrape(&daemon);
    let labels = "{plugin=\"range\",hook=\"interceptor\"}";
    assert_eq!(samples.value(&format!("elbus_hook_duration_seconds_count{labels}")), 1.0);
    assert!(samples.value(&format!("elbus_hook_duration_seconds_sum{labels}")) > 0.0);
    let last = "elbus_hook_duration_seconds_bucket{le=\"+Inf\",plugin=\"range\",hook=\"interceptor\"}";
    assert_eq!(samples.value(last), 1.0);
}

#[test]
fn clients_topics_and_methods_get_series_only_on_request_and_up_to_a_limit() {
    let settings = "clients = ['plant.*']\nmax_clients = 2\ntopics = ['sensors/#']\nmax_topics = 1\n\
        rpc = true\nmethods = ['get']\ncall_seconds = 0.2";
    let daemon = start(settings, "");
    let (mut caller, mut callee) = (daemon.client("plant.a\"b\\c"), daemon.client("plant.callee"));
    let (_third, _other) = (daemon.client("plant.third"), daemon.client("other"));
    for topic in ["sensors/a", "sensors/a", "sensors/b", "other"] {
        caller.acked(Op::Publish, topic, b"12345");
    }
    let mut answer = |call: &[u8], answer: Option<&[u8]>| {
        caller.request(Op::Message, Qos::NO, "plant.callee", "", call);
        let Frame::Data(_, sender, ..) = callee.frame() else { panic!("a call") };
        if let Some(answer) = answer {
            callee.request(Op::Message, Qos::NO, &sender, "", answer);
            caller.frame();
        }
    };
    answer(&rpc::encode_request(1, "get", b"").unwrap(), Some(&rpc::encode_reply(1, b"")));
    answer(&rpc::encode_request(2, "get", b"").unwrap(), Some(&rpc::encode_error(2, -1, b"")));
    answer(&rpc::encode_request(3, "set", b"").unwrap(), Some(&rpc::encode_reply(3, b"")));
    answer(&rpc::encode_request(4, "get", b"").unwrap(), None);
    wait_for(&daemon, "elbus_rpc_unanswered_total{method=\"get\"}", 1.0);
    let samples = scrape(&daemon);
    for (name, expected) in [
        ("elbus_rpc_duration_seconds_count{method=\"get\"}", 2.0),
        ("elbus_rpc_duration_seconds_count{method=\"\"}", 1.0),
        ("elbus_rpc_errors_total{method=\"get\"}", 1.0),
        ("elbus_topic_messages_total{topic=\"sensors/a\"}", 2.0),
        ("elbus_topic_bytes_total{topic=\"sensors/a\"}", 10.0),
        ("elbus_metrics_series_limit{kind=\"topic\"}", 1.0),
        ("elbus_metrics_omitted_series{kind=\"topic\"}", 1.0),
        ("elbus_metrics_series_limit{kind=\"client\"}", 2.0),
        ("elbus_metrics_omitted_series{kind=\"client\"}", 1.0),
        // four publications and four calls
        ("elbus_client_received_frames_total{client=\"plant.a\\\"b\\\\c\"}", 8.0),
        ("elbus_client_queued_bytes{client=\"plant.callee\"}", 0.0),
    ] {
        assert_eq!(samples.0.get(name), Some(&expected), "{name}\n{samples:#?}");
    }
    let series = |name| samples.of(name).count();
    assert_eq!((series("elbus_topic_messages_total"), series("elbus_client_sent_frames_total")), (1, 2));
}

#[test]
fn health_readiness_and_other_requests() {
    let failing = "[[plugin]]\nname = \"faulty\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n\
        config = { panic_in = \"method\" }";
    let daemon = start("allowed_hosts = ['metrics.plant']", failing);
    for path in ["/healthz", "/readyz", "/metrics", "/", "/metrics?x=1"] {
        assert_eq!(get(&daemon, path).status, 200, "{path}");
    }
    let answer = get(&daemon, "/metrics");
    let head = answer.head.to_lowercase();
    for header in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let send = |request: &str| exchange(connect(&daemon), request);
    let with_host = |host: &str| send(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(get(&daemon, "/other").status, 404);
    assert_eq!(get(&daemon, "/metrics/../etc/passwd").status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let Answer { status, head, .. } =
            send(&format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(status == 405 && head.to_lowercase().contains("allow: get, head"), "{method}: {head}");
    }
    let head_only = send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(
        head_only.status == 200 && head_only.body.is_empty() && head_only.head.contains("content-length: ")
    );
    assert_eq!(send("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    // a page of another site, by a name that leads here
    assert_eq!(with_host("evil.example").status, 421);
    assert_eq!(with_host("metrics.plant:9464").status, 200);
    assert!(send("nonsense\r\n\r\n").status == 400);

    let mut client = daemon.client("client");
    let panics = client.call(".broker", "faulty.try", b"");
    assert!(panics.is_err(), "{panics:?}");
    wait_for(&daemon, "elbus_plugin_state{plugin=\"faulty\",state=\"failed\"}", 1.0);
    let Answer { status, body, .. } = get(&daemon, "/readyz");
    assert_eq!((status, &*body), (503, "not ready: plugin \"faulty\" is failed\n"));
    assert_eq!(get(&daemon, "/healthz").status, 200);
}

#[test]
fn a_unix_socket_is_served() {
    let text =
        config("", "").replace("bind = \"127.0.0.1:0\"\n        cache", "bind = \"./m.sock\"\n        cache");
    let daemon = Daemon::start_config(&text);
    let stream = UnixStream::connect(daemon.path("m.sock")).unwrap();
    let answer = exchange(stream, "GET /metrics HTTP/1.1\r\nHost: anything\r\n\r\n");
    assert!(answer.status == 200 && answer.body.ends_with("# EOF\n"), "{answer:?}");
    let path = daemon.path("m.sock");
    let (status, log) = daemon.stop();
    assert!(status.success() && !path.exists(), "{log}");
}

/// A scrape that meets a reload or the end of the broker has a whole answer or none.
#[test]
fn scrapes_during_reloads_and_a_stop_are_answered_whole_or_not_at_all() {
    let text =
        config("", "").replace("bind = \"127.0.0.1:0\"\n        cache", "bind = \"./m.sock\"\n        cache");
    let daemon = Daemon::start_config(&text);
    let mut operator = daemon.client("operator");
    let path = daemon.path("m.sock");
    let done = std::sync::atomic::AtomicBool::new(false);
    let ask = |path: &std::path::Path| {
        let mut bytes = Vec::new();
        let Ok(mut stream) = UnixStream::connect(path) else { return None };
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let read = sent.and_then(|()| stream.read_to_end(&mut bytes));
        if let Err(error) = &read {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "a scrape hangs");
        }
        let text = String::from_utf8(bytes).unwrap();
        let is_whole = text.starts_with("HTTP/1.1 200 ") && text.ends_with("# EOF\n");
        let is_refused = text.starts_with("HTTP/1.1 503 ");
        assert!(is_whole || is_refused || text.is_empty(), "{text}");
        Some(is_whole)
    };
    // also if an assertion fails
    struct Ends<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        let scrapes: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut whole = 0;
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        whole += u32::from(ask(&path) == Some(true));
                    }
                    whole
                })
            })
            .collect();
        for _ in 0..support::rounds(10, 200) {
            operator.control("plugin.reload", &[("name", "metrics")]).unwrap();
            wait_until("it is served again", || ask(&path) == Some(true));
        }
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        drop(ends);
        let whole: Vec<_> = scrapes.into_iter().map(|scrape| scrape.join().unwrap()).collect();
        assert!(whole.iter().all(|count| *count > 0), "{whole:?}");
    });
}

#[test]
fn wrong_tables_are_refused_with_their_place() {
    let refused = |settings: &str| {
        let text = format!(
            "[[plugin]]\nname = \"metrics\"\nlibrary = \"elbus_metrics\"\n[plugin.config]\n{settings}\n"
        );
        refused_config(&text)
    };
    for (settings, expected) in [
        (
            "bind = \"0.0.0.0:9464\"",
            "broker.toml:5: plugin \"metrics\": bind = \"0.0.0.0:9464\": 0.0.0.0:9464 is not a loopback address",
        ),
        ("bind = \"127.0.0.1:0\"\nmax_client = 1", "max_client = 1: unknown key; known are "),
        (
            "bind = \"127.0.0.1:0\"\nmax_clients = 0",
            "broker.toml:6: plugin \"metrics\": max_clients = 0: 0 is not between 1 and 10000",
        ),
        ("", "missing key `bind`"),
    ] {
        let message = refused(settings);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_flood_of_scrapes_is_answered_from_one() {
    let text = config("", "").replace("cache_seconds = 0", "cache_seconds = 60");
    let daemon = Daemon::start_config(&text);
    let first = scrape_text(&daemon);
    let _client = daemon.client("client");
    let floods: Vec<_> = std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..20).map(|_| scrape_text(&daemon)).collect::<Vec<_>>()))
            .collect();
        scrapes.into_iter().flat_map(|scrape| scrape.join().unwrap()).collect()
    });
    assert!(
        floods.len() == 160 && floods.iter().all(|text| *text == first),
        "the first answer is sent again"
    );
}

/// Clients that send slowly, or huge heads, or read nothing, and thousands of connections.
#[test]
fn hostile_http_clients_cost_nobody_else_anything() {
    let daemon = start("timeout_seconds = 0.5", "");
    let load = Load::start(&daemon);
    let before = daemon.descriptors();

    let mut slow: Vec<_> = (0..20).map(|_| connect(&daemon)).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap());
    assert_eq!(get(&daemon, "/healthz").status, 200);
    wait_until("slow requests end", || {
        scrape(&daemon).value("elbus_metrics_http_connections_total{outcome=\"late\"}") >= 20.0
    });

    let mut huge = connect(&daemon);
    let mut sent = 0;
    // until the server has had enough of it
    while huge.write_all(&[b'a'; 8192]).is_ok() && sent < 10_000 {
        sent += 1;
    }
    assert!(sent < 10_000, "an endless head ends the connection");
    let many = (0..500).map(|number| format!("h{number}: x\r\n")).collect::<String>();
    let answer =
        exchange(connect(&daemon), &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"));
    assert_eq!(answer.status, 431);

    let mut connections = Vec::new();
    for number in 0..2000 {
        connections.push(connect(&daemon));
        if number % 250 == 0 {
            assert_eq!(get(&daemon, "/healthz").status, 200, "a new connection is served");
            assert!(daemon.descriptors() <= before + 64, "{}", daemon.descriptors());
        }
    }
    scrape(&daemon);
    // requests without reading the answers
    for stream in &mut connections {
        _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let mut admin = daemon.client("admin");
    wait_until("all that had a place have been served", || {
        let metrics = plugin(&mut admin, "metrics").unwrap();
        field(&metrics, "detail").as_str() == Some("0 HTTP connections")
    });
    assert!(scrape(&daemon).value("elbus_metrics_http_connections_total{outcome=\"evicted\"}") > 1000.0);
    drop((connections, slow, huge));
    load.wait_for_more();
    load.stop();
    wait_until("descriptors are closed", || daemon.descriptors() <= before + 1);
    assert!(admin.control("test", &[]).is_ok());
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}
