//! Access rules over real sockets: what denied clients receive, and what the log reports.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos};
use std::time::{Duration, Instant};
use support::{
    daemon::{BOTH, Daemon, refused_config},
    plugin_source, wait_until,
    wire::Wire,
};

const DENIED: u8 = 0x79;
const TAKEN: u8 = 0x01;

fn config(code: &str, rules: &str) -> String {
    let plugin = |name: &str| plugin_source(code, name);
    format!(
        "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"network\"\n{}\nconfig = {{ bind = \"127.0.0.1:0\" }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n[[plugin]]\nname = \"access\"\n{}\n{rules}",
        plugin("unix"),
        plugin("tcp"),
        plugin("rpc"),
        plugin("acl"),
    )
}

#[test]
fn rules_restrict_names_by_user() {
    let me = rustix::process::getuid().as_raw();
    for code in BOTH {
        let rules = format!(
            "[plugin.config]\ndefault = \"deny\"\n\
             [[plugin.config.client]]\nname = \"plc.*\"\nwho = [{{ user = {me} }}]\n\
             [[plugin.config.client]]\nname = \"hmi.*\"\nwho = [{{ user = {} }}]\n",
            me + 1
        );
        let daemon = Daemon::start_config(&config(code, &rules));
        let addresses = daemon.addresses();
        let answer = |address: &str, name: &str| Wire::raw(&daemon, address).greet(name.as_bytes());
        assert_eq!(answer(&addresses[0], "plc.1"), TAKEN);
        assert_eq!(answer(&addresses[1], "plc.2"), DENIED, "the client has no user id");
        assert_eq!(answer(&addresses[0], "hmi.1"), DENIED);
        assert_eq!(answer(&addresses[0], "hmi.1"), DENIED);
        assert_eq!(answer(&addresses[0], "other"), DENIED);
        daemon.wait_for_log("no [[client]] matches the name, and the default is deny");
        let log = daemon.log();
        assert!(log.contains("client does not match `who` of [[client]] \"hmi.*\" (broker.toml:"), "{log}");
        assert_eq!(log.matches("client=\"hmi.1\"").count(), 1, "once, not for each attempt: {log}");
    }
}

#[test]
fn denied_frames_are_acknowledged_each_and_logged_once_per_kind() {
    let rules = "[plugin.config]\n[[plugin.config.client]]\nname = \"*\"\n\
                 send = [\"allow b\"]\npublish = [\"deny x/secret\", \"allow x/#\"]\nsubscribe = [\"allow x/+\"]\n\
                 call = [\"allow test\", \"allow explain\", \"allow client.*\"]\n";
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, rules));
        for (index, address) in daemon.addresses().into_iter().enumerate() {
            let mut a = Wire::connect(&daemon, &address, &format!("a{index}"));
            let mut b = Wire::connect(&daemon, &address, "b");
            assert_eq!(b.filters(Op::Subscribe, &["x/secret"]), TAKEN);
            assert_eq!(b.filters(Op::Subscribe, &["x/#"]), DENIED);
            for _ in 0..3 {
                assert_eq!(a.send("c", b"denied"), DENIED);
                assert_eq!(a.acked(Op::Publish, "x/secret", b"denied"), DENIED);
                assert_eq!(a.acked(Op::Broadcast, "*", b"denied"), DENIED);
                assert_eq!(a.send("b", b"1"), TAKEN);
                assert_eq!(b.frame().payload(), b"1", "no denied frame arrives");
            }
            assert!(a.call(".broker", "test", b"").is_ok());
            assert_eq!(a.call(".broker", "info", b"").unwrap_err().0, -32121);
            let reply = a
                .control("explain", &[("action", "publish"), ("name", "b"), ("target", "x/secret")])
                .unwrap();
            let keys = reply.as_map().unwrap();
            let value = |key: &str| keys.iter().find(|(k, _)| k.as_str() == Some(key)).unwrap().1.clone();
            assert_eq!(
                (value("allowed").as_bool(), value("rule").as_str()),
                (Some(false), Some("deny x/secret"))
            );
            let mine = || daemon.log().matches(&format!("client=\"a{index}\"")).count();
            wait_until("four lines", || mine() >= 4);
            assert_eq!(mine(), 4, "send, publish, broadcast, call: {}", daemon.log());
        }
    }
}

#[test]
fn reloaded_rules_apply_to_all_clients_once_the_reload_has_answered() {
    let table = |code: &str, rules: &str| config(code, &format!("[plugin.config]\n{rules}"));
    let open = "default = \"allow\"\n";
    let some = "[[plugin.config.client]]\nname = \"a\"\nsend = [\"deny b\", \"allow *\"]\ncall = [\"allow *\"]\n\
                [[plugin.config.client]]\nname = \"b\"\nsubscribe = [\"allow y/#\"]\n";
    for code in BOTH {
        let daemon = Daemon::start_config(&table(code, open));
        let (mut a, mut b, mut c) = (daemon.client("a"), daemon.client("b"), daemon.client("c"));
        b.subscribe(&["x/#", "y/#"]);
        assert_eq!((a.send("b", b"1"), c.send("b", b"2")), (TAKEN, TAKEN));
        assert_eq!((b.frame().payload(), b.frame().payload()), (&b"1"[..], &b"2"[..]));
        let mut reload = |text: &str| {
            std::fs::write(daemon.path("broker.toml"), text).unwrap();
            a.control("config.reload", &[]).map(|reply| reply.to_string())
        };

        let reply = reload(&table(code, "[[plugin.config.client]]\n")).unwrap_err().1;
        assert!(reply.contains("missing key `name`"), "{reply}");
        assert_eq!(c.send("b", b"3"), TAKEN, "nothing has changed");

        let reply = reload(&table(code, some)).unwrap();
        assert!(reply.contains("\"restarted\": [\"access\"]"), "{reply}");
        c.wait_closed();
        assert_eq!(a.send("b", b"4"), DENIED);
        let reply =
            a.control("explain", &[("action", "send"), ("name", "a"), ("target", "b")]).unwrap().to_string();
        let text = std::fs::read_to_string(daemon.path("broker.toml")).unwrap();
        let line = 1 + text.lines().position(|line| line.starts_with("send = ")).unwrap();
        assert!(reply.contains(&format!("broker.toml:{line}")), "{reply}");

        // without the plugin, everything is allowed again
        std::fs::write(
            daemon.path("broker.toml"),
            table(code, "").split("[[plugin]]\nname = \"access\"").next().unwrap(),
        )
        .unwrap();
        a.control("config.reload", &[]).unwrap();
        assert_eq!((a.send("b", b"5"), a.acked(Op::Publish, "x/1", b"6")), (TAKEN, TAKEN));
        assert_eq!(a.acked(Op::Publish, "y/1", b"7"), TAKEN);
        let got: Vec<_> = (0..3).map(|_| b.frame().payload().to_vec()).collect();
        assert_eq!(got, [b"3", b"5", b"7"], "the subscription to x/# has ended");
        daemon.wait_for_log("access rules removed");
    }
}

#[test]
fn rules_stay_when_their_plugin_is_stopped() {
    let rules = "[plugin.config]\n[[plugin.config.client]]\nname = \"a\"\ncall = [\"allow *\"]\n";
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, rules));
        let mut a = daemon.client("a");
        a.control("plugin.stop", &[("name", "access")]).unwrap();
        assert_eq!(a.send("a", b""), DENIED);
        assert_eq!(Wire::raw(&daemon, &daemon.address()).greet(b"b"), DENIED);
        a.control("plugin.start", &[("name", "access")]).unwrap();
        assert_eq!(a.send("a", b""), DENIED);
    }
}

#[test]
fn the_transport_enforces_the_limits_of_a_mask() {
    let limited = |limits: &str| {
        config(
            "builtin",
            &format!(
                "[plugin.config]\ndefault = \"allow\"\n[[plugin.config.client]]\nname = \"a\"\n{limits}\n"
            ),
        )
    };
    let daemon = Daemon::start_config(&limited("limits = { max_frame_bytes = 1000 }"));
    let (mut a, mut b) = (daemon.client("a"), daemon.client("b"));
    assert_eq!(a.send("b", &[7; 900]), TAKEN);
    assert_eq!(b.send("b", &[7; 2000]), TAKEN, "`b` has no limit");
    a.request(Op::Message, Qos::NO, "b", "", &[7; 2000]);
    a.wait_closed();
    daemon.wait_for_log("exceeds 1000");

    // far more than a later limit admits, while other messages are queued
    let mut a = daemon.client("a");
    for _ in 0..30 {
        let ids: Vec<_> = (0..100).map(|_| a.request(Op::Message, Qos::PROCESSED, "b", "", b"0")).collect();
        ids.into_iter().for_each(|id| assert_eq!(a.expect_ack(id), TAKEN));
    }
    // the rate is an interval, independent of the machine's speed: of 60 messages 30 are admitted at once,
    // the rest needs a second
    std::fs::write(daemon.path("broker.toml"), limited("limits = { messages_per_second = 30 }")).unwrap();
    b.control("config.reload", &[]).unwrap();
    assert_eq!(a.send("b", b"0"), TAKEN, "earlier messages do not count");
    let start = Instant::now();
    let ids: Vec<_> = (0..60).map(|_| a.request(Op::Message, Qos::PROCESSED, "b", "", b"1")).collect();
    for id in ids {
        assert_eq!(a.expect_ack(id), TAKEN, "slowed down, not refused");
    }
    let last = a.request(Op::Message, Qos::PROCESSED, "b", "", b"2");
    assert_eq!(a.expect_ack(last), TAKEN);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_transport_limits_the_filters_of_its_clients() {
    let limited = |rules: &str| {
        config("library", &format!("[plugin.config]\ndefault = \"allow\"\n{rules}"))
            .replace("\"bus.sock\"", "\"bus.sock\", max_filters = 4, max_filter_depth = 3")
    };
    let daemon = Daemon::start_config(&limited(""));
    let mut a = daemon.client("a");
    assert_eq!(a.filters(Op::Subscribe, &["a/b/c", "a/b/#", "x"]), TAKEN, ".broker/warn is the fourth");
    assert_eq!(a.filters(Op::Unsubscribe, &["x"]), TAKEN);
    assert_eq!(a.filters(Op::Subscribe, &["a/b/c/d"]), 0x72);
    assert_eq!(a.filters(Op::Exclude, &["a/b/c/#"]), 0x72);
    daemon.wait_for_log("max_filter_depth=3");
    assert_eq!(a.filters(Op::Subscribe, &["x", "y"]), 0x74);

    // the stricter limit of transport and mask applies; filters that are too deep now can still be removed
    let rules =
        "[[plugin.config.client]]\nname = \"a\"\nlimits = { max_filter_depth = 2, max_filters = 100 }\n";
    std::fs::write(daemon.path("broker.toml"), limited(rules)).unwrap();
    a.control("config.reload", &[]).unwrap();
    assert_eq!(a.filters(Op::Subscribe, &["x/y/z"]), 0x72);
    assert_eq!(a.filters(Op::Unsubscribe, &["a/b/c"]), TAKEN);
    assert_eq!(a.filters(Op::Subscribe, &["1", "2", "3"]), 0x74);
}

#[test]
fn secondaries_require_the_identity_of_their_primary() {
    for code in BOTH {
        // without rules, and with rules that allow everything
        let with = config(code, "[plugin.config]\ndefault = \"allow\"\n");
        let without = with.split("[[plugin]]\nname = \"access\"").next().unwrap();
        for text in [without, &with] {
            let daemon = Daemon::start_config(text);
            let addresses = daemon.addresses();
            let answer = |address: &str, name: &str| Wire::raw(&daemon, address).greet(name.as_bytes());
            let mut primaries: Vec<_> = addresses
                .iter()
                .map(|at| Wire::connect(&daemon, at, &format!("target.{}", &at[..3])))
                .collect();
            for (mine, other) in [(0, 1), (1, 0)] {
                let name = format!("target.{}%%x", &addresses[mine][..3]);
                assert_eq!(answer(&addresses[other], &name), DENIED, "{name}");
                assert_eq!(answer(&addresses[mine], &name), TAKEN, "{name}");
                assert_eq!(primaries[mine].send(".broker", b""), TAKEN, "the primary is not affected");
            }
            assert_eq!(answer(&addresses[0], "nobody%%x"), 0x71);
            daemon.wait_for_log("a secondary must be of the same user as its primary");
            daemon.wait_for_log("a secondary must be of the same address as its primary");
        }
    }
}

#[test]
fn names_with_a_slash_and_secondaries_do_not_bypass_rules() {
    let rules = "[plugin.config]\ndefault = \"allow\"\n[[plugin.config.client]]\nname = \"hostile/*\"\n\
                 [[plugin.config.client]]\nname = \"*\"\nbroadcast = [\"deny target\", \"allow *\"]\n\
                 publish = [\"allow {name}/#\", \"deny #\"]\n";
    let refused = refused_config(&config("builtin", rules));
    assert!(
        refused
            .contains("name = \"hostile/*\": \"*\" in \"hostile/*\" is not a wildcard: write \"hostile.*\""),
        "{refused}"
    );
    let rules = rules.replace("[[plugin.config.client]]\nname = \"hostile/*\"\n", "");
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, &rules));
        let mut target = daemon.client("target");
        let mut secondary = daemon.client("target%%x.y");
        target.subscribe(&["#"]);
        let mut hostile = daemon.client("target/x");
        assert_eq!(hostile.acked(Op::Publish, "target/x/y", b"1"), DENIED);
        for mask in ["target%%x.y", "target%%x.*", "target%%0", "*"] {
            assert_eq!(hostile.acked(Op::Broadcast, mask, b"2"), DENIED, "{mask}");
        }
        assert_eq!(
            hostile.acked(Op::Broadcast, "?.y", b"3"),
            TAKEN,
            "a mask for other clients, of which there are none"
        );
        assert_eq!(target.acked(Op::Publish, "target/x/y", b"4"), TAKEN);
        assert_eq!(hostile.send("target%%x.y", b"5"), TAKEN);
        assert_eq!((target.frame().payload(), secondary.frame().payload()), (&b"4"[..], &b"5"[..]));
    }
}
