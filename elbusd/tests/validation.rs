//! The plugin `validate` in a broker with sockets: codes and log of refused messages, schemas that cannot be
//! used, schemas that change, and documents made to cost time or stack.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, rpc};
use std::time::{Duration, Instant};
use support::{
    daemon::{BOTH, Daemon, folder, run_to_end},
    field, names, plugin, plugin_source,
    wire::Frame,
};

const OK: u8 = 0x01;
const BAD_DATA: u8 = 0x72;
const OTHER: u8 = 0x74;

const SENSOR: &str =
    r#"{"type":"object","required":["value"],"properties":{"value":{"type":"number","maximum":100}}}"#;
const TREE: &str = r##"{"anyOf":[{"type":"integer"},{"properties":{"a":{"$ref":"#"}},"required":["x"]},
    {"properties":{"a":{"$ref":"#"}},"required":["y"]},{"type":"array","items":{"$ref":"#"},"uniqueItems":true}]}"##;

/// Returns a configuration with rules for publications below `s`, for calls, and for the topic `tree`.
fn config(origin: &str) -> String {
    let source = |name: &str| plugin_source(origin, name);
    format!(
        "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n\
         [[plugin]]\nname = \"check\"\n{}\n\
         [[plugin.config.rule]]\nfilters = [\"s/#\"]\nschema = \"sensor.json\"\n\
         [[plugin.config.rule]]\nnames = [\"plc.*\"]\nmethod = \"set\"\nschema = \"sensor.json\"\n\
         [[plugin.config.rule]]\nfilters = [\"tree\"]\nschema = \"tree.json\"\n",
        source("unix"),
        source("rpc"),
        source("validate"),
    )
}

fn start(origin: &str) -> Daemon {
    let home = folder();
    for (name, text) in [("sensor.json", SENSOR), ("tree.json", TREE), ("broker.toml", &config(origin))] {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    Daemon::start_in(home, &["--config", "broker.toml"])
}

#[test]
fn invalid_publications_and_calls_are_refused_counted_and_logged_once_per_client() {
    for origin in BOTH {
        let daemon = start(origin);
        let (mut sender, mut plc) = (daemon.client("sender"), daemon.client("plc.1"));
        plc.subscribe(&["s/#"]);
        for round in 0..10 {
            assert_eq!(sender.acked(Op::Publish, "s/boiler", br#"{"value":"warm"}"#), BAD_DATA);
            let good = format!("{{\"value\":{round}}}");
            assert_eq!(sender.acked(Op::Publish, "s/boiler", good.as_bytes()), OK);
            let frame = plc.frame();
            assert!(matches!(&frame, Frame::Data(..)) && frame.payload() == good.as_bytes(), "{frame:?}");
        }
        // {"value": 1} and {"value": 101}
        let call = |params: &[u8]| rpc::encode_request(1, "set", params).unwrap();
        let (good, bad) = (call(b"\x81\xa5value\x01"), call(b"\x81\xa5value\x65"));
        for (op, target) in [(Op::Message, "plc.1"), (Op::Broadcast, "plc.*"), (Op::Broadcast, "*")] {
            assert_eq!(sender.acked(op, target, &bad), BAD_DATA, "{target}");
        }
        assert_eq!(sender.acked(Op::Message, "plc.1", &good), OK);
        assert_eq!(plc.frame().payload(), good);
        assert_eq!(sender.acked(Op::Message, "sender", &bad), OK, "the rule is for other names");

        let mut other = daemon.client("other");
        assert_eq!(other.acked(Op::Publish, "s/boiler", b"[]"), BAD_DATA);
        let stats = other.control("check.stats", &[]).unwrap();
        let refused: Vec<_> =
            field(&stats, "refused").as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(refused, [11, 3, 0]);
        let detail = field(&plugin(&mut other, "check").unwrap(), "detail").as_str().unwrap().to_owned();
        assert_eq!(detail, "3 rules, 14 messages refused");
        let (_, log) = daemon.stop();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("message refused: invalid data")).collect();
        assert_eq!(lines.len(), 3, "{log}");
        for (line, expected) in lines.iter().zip([
            ["client=\"sender\"", "target=\"s/boiler\"", "rule=0", "(/properties/value/type of the schema)"],
            ["client=\"sender\"", "target=\"plc.1\"", "rule=1", "(/properties/value/maximum of the schema)"],
            ["client=\"other\"", "target=\"s/boiler\"", "rule=0", "object"],
        ]) {
            assert!(
                expected.iter().all(|text| line.contains(text)) && !line.contains("warm"),
                "{line}\n{expected:?}"
            );
        }
    }
}

#[test]
fn schemas_that_are_missing_invalid_or_huge_are_errors_with_file_line_and_key() {
    let home = folder();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("invalid.json", "{\n  \"type\": strin\n}");
    write("unknown.json", r#"{"type":"strin"}"#);
    write("remote.json", r#"{"$ref":"http://127.0.0.1:1/s.json"}"#);
    write("outside.json", r#"{"$ref":"file:///etc/passwd"}"#);
    write("pattern.json", r#"{"pattern":"(a*)*\\1"}"#);
    write("deep.json", &"{\"not\":".repeat(100_000));
    std::fs::File::create(home.path().join("huge.json")).unwrap().set_len(1 << 40).unwrap();
    for (file, expected) in [
        ("none.json", "cannot read \"none.json\": No such file or directory"),
        (".", "cannot read \".\": it must be a regular file"),
        ("invalid.json", "\"invalid.json\" is not JSON: expected value at line 2 column 11"),
        ("unknown.json", "\"unknown.json\" is not a usable schema: \"strin\""),
        ("remote.json", "references must stay within the file"),
        ("outside.json", "references must stay within the file"),
        ("pattern.json", "\"pattern.json\" is not a usable schema"),
        ("deep.json", "\"deep.json\" is not JSON: nested deeper than 64 levels"),
        ("huge.json", "\"huge.json\" is longer than 1048576 bytes"),
    ] {
        let text = format!(
            "[[plugin]]\nname = \"check\"\nbuiltin = \"validate\"\n[[plugin.config.rule]]\nfilters = [\"a\"]\n\
             format = \"json\"\n[[plugin.config.rule]]\nfilters = [\"s/#\"]\nschema = \"{file}\"\n"
        );
        write("broker.toml", &text);
        for arguments in [&["--config", "broker.toml"][..], &["--config", "broker.toml", "--check"]] {
            let refused = run_to_end(home.path(), arguments);
            let place = format!("broker.toml:9: plugin \"check\": rule[1].schema = \"{file}\": ");
            let stderr = &refused.stderr;
            assert!(
                !refused.status.success() && stderr.contains(&place) && stderr.contains(expected),
                "{stderr}"
            );
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
    }
}

#[test]
fn a_reload_reads_changed_schemas_and_keeps_the_previous_ones_if_one_is_bad() {
    let daemon = start("library");
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    let publish = |sender: &mut support::wire::Wire, value: u32| {
        sender.acked(Op::Publish, "s/boiler", format!("{{\"value\":{value}}}").as_bytes())
    };
    assert_eq!((publish(&mut sender, 100), publish(&mut sender, 150)), (OK, BAD_DATA));
    std::fs::write(daemon.path("sensor.json"), SENSOR.replace("100", "150")).unwrap();
    operator.control("config.reload", &[]).unwrap();
    assert_eq!((publish(&mut sender, 150), publish(&mut sender, 151)), (OK, BAD_DATA));
    for bad in ["{", "{\"type\":\"strin\"}"] {
        std::fs::write(daemon.path("sensor.json"), bad).unwrap();
        let errors = names(&operator.control("config.reload", &[]).unwrap(), "errors");
        let expected = "plugin \"check\" could not read its files again: rule[0].schema = \"sensor.json\": ";
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
        assert_eq!((publish(&mut sender, 150), publish(&mut sender, 151)), (OK, BAD_DATA));
    }
    daemon.wait_for_log("could not read its files again");
}

#[test]
fn nothing_passes_while_the_plugin_is_stopped() {
    let daemon = start("library");
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    operator.control("plugin.stop", &[("name", "check")]).unwrap();
    assert_eq!(sender.acked(Op::Publish, "s/boiler", br#"{"value":1}"#), OTHER);
    assert_eq!(sender.acked(Op::Publish, "free", b"x"), OK);
    operator.control("plugin.start", &[("name", "check")]).unwrap();
    assert_eq!(sender.acked(Op::Publish, "s/boiler", br#"{"value":1}"#), OK);
}

/// Documents within the limits of a message, made to cost as much as possible.
#[test]
fn hostile_documents_cost_little_time_and_no_stack() {
    let daemon = start("builtin");
    let mut sender = daemon.client("sender");
    let open = |text: &str, levels: usize| text.repeat(levels);
    let nested = |levels: usize| format!("{}1{}", open("{\"a\":", levels), open("}", levels));
    let documents = [
        open("[", 1 << 20),
        open("{\"a\":", 200_000),
        nested(60),
        nested(64),
        nested(65),
        format!("[{}0]", open("0,", 500_000)),
        format!("[{}{{}}]", open("{},", 9_000)),
        format!("[{}0]", (0..9_990).fold(String::new(), |text, at| format!("{text}{at},"))),
        format!("{{{}\"z\":1}}", (0..60_000).fold(String::new(), |text, at| format!("{text}\"{at}\":0,"))),
        format!("\"{}\"", open("\\u0061", 170_000)),
        format!("\"{}", open("\\", 1 << 20)),
        open("9", 1 << 20),
        format!("1e{}", open("9", 1_000)),
        format!("0.{}1", open("0", 1 << 19)),
        open(" ", 1 << 20),
        open("\u{feff}", 1000),
    ];
    for document in &documents {
        let began = Instant::now();
        for topic in ["tree", "s/boiler"] {
            let code = sender.acked(Op::Publish, topic, document.as_bytes());
            assert!([OK, BAD_DATA].contains(&code), "{code:x}");
        }
        let took = began.elapsed();
        // generous: a debug build beside other tests; exponential time would be years
        assert!(took < Duration::from_secs(10), "{took:?}: {:.40}", document);
    }
    for params in [open("\u{0}", 1 << 20), open("\u{1}", 1000)] {
        assert_eq!(
            sender.acked(Op::Message, "plc.1", &[b"\x01\0\0\0\0set\0", params.as_bytes()].concat()),
            BAD_DATA
        );
    }
    for head in [
        &b"\x91"[..],
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ] {
        let params = head.repeat(100_000);
        assert_eq!(
            sender.acked(Op::Message, "plc.1", &[b"\x01\0\0\0\0set\0", &params[..]].concat()),
            BAD_DATA
        );
    }
    sender.request(Op::Publish, Qos::NO, "s/boiler", "", &[b'['; 1 << 20]);
    assert_eq!(sender.acked(Op::Publish, "s/boiler", br#"{"value":1}"#), OK);
    assert!(daemon.memory() < 400 << 20, "{}", daemon.memory());
}
