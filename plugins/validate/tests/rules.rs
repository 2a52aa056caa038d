//! The rules of an instance: which messages they apply to, what they refuse, and what a reload changes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{
    Call, Code, Op, PluginError,
    hooks::Verdict,
    testing::{FakeHost, FakeInstance},
};
use elbus_protocol::rpc::{encode_notification, encode_reply, encode_request};
use elbus_validate::Validate;
use serde_json::{Value, json};
use std::{fmt::Write as _, fs, path::Path, time::Duration};
use tempfile::TempDir;

const SENSOR: &str =
    r#"{"type":"object","required":["value"],"properties":{"value":{"type":"number","maximum":100}}}"#;

/// Creates a folder with a schema `s.json`.
fn folder(schema: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.json"), schema).unwrap();
    folder
}

/// Creates an instance; `@` in the configuration is the folder.
fn create(fake: &FakeHost, folder: &Path, config: &str) -> Result<FakeInstance, PluginError> {
    fake.create::<Validate>("check", &config.replace('@', &folder.to_string_lossy()))
}

fn start(fake: &FakeHost, folder: &Path, config: &str) -> FakeInstance {
    let instance = create(fake, folder, config).unwrap();
    instance.start().unwrap();
    instance
}

/// Returns which payloads pass.
fn pass(fake: &FakeHost, op: Op, target: &str, payloads: &[&[u8]]) -> Vec<bool> {
    let passes = |verdict: Verdict| match verdict {
        Verdict::Continue => true,
        Verdict::Reject(Code::BadData) => false,
        other => panic!("{other:?}"),
    };
    fake.intercept("sender", op, target, payloads).into_iter().map(passes).collect()
}

fn passes(fake: &FakeHost, op: Op, target: &str, payload: &[u8]) -> bool {
    pass(fake, op, target, &[payload]) == [true]
}

fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

fn refused(fake: &FakeHost) -> Vec<u64> {
    #[derive(serde::Deserialize)]
    struct Stats {
        refused: Vec<u64>,
    }
    rmp_serde::from_slice::<Stats>(&fake.host("caller").call(&Call::by_broker("check.stats", &[])).unwrap())
        .unwrap()
        .refused
}

#[test]
fn publications_must_match_the_schema_of_their_topic() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    let instance = start(&fake, folder.path(), "[[rule]]\nfilters = ['s/#']\nschema = '@/s.json'");
    let payloads: [&[u8]; 6] =
        [br#"{"value":20}"#, br#"{"value":101}"#, b"{}", b"hello", b"", br#" {"value":-1.5,"unit":"C"} "#];
    let expected = [true, false, false, false, false, true];
    assert_eq!(pass(&fake, Op::Publish, "s/boiler", &payloads), expected);
    assert_eq!(pass(&fake, Op::PublishFor, "s/boiler", &payloads), expected);
    assert!(passes(&fake, Op::Publish, "t", b"hello") && passes(&fake, Op::Message, "s", b"hello"));
    assert_eq!(refused(&fake), [8]);
    assert_eq!(instance.status().detail, "1 rules, 8 messages refused");
    instance.stop(Duration::ZERO);
    assert!(passes(&fake, Op::Publish, "s/boiler", b"hello"));
}

#[test]
fn formats_are_checked_in_messages_and_in_broadcasts_that_can_reach_a_name() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    let config = "[[rule]]\nnames = ['j.*']\nformat = 'json'\n[[rule]]\nnames = ['m.*']\nformat = 'msgpack'\n\
                  [[rule]]\nnames = ['u.*']\nformat = 'utf8'";
    let _instance = start(&fake, folder.path(), config);
    let payloads: [&[u8]; 4] = [b"[1]", b"\x80", "\u{e9}".as_bytes(), b"\xc3"];
    let all = |op, target| pass(&fake, op, target, &payloads);
    assert_eq!(all(Op::Message, "j.1"), [true, false, false, false]);
    assert_eq!(all(Op::Message, "m.1"), [false, true, false, true]);
    assert_eq!(all(Op::Message, "u.1"), [true, false, true, false]);
    assert_eq!(all(Op::Message, "other"), [true; 4]);
    for (mask, expected) in [
        ("j.*", [true, false, false, false]),
        ("?.1", [false; 4]),
        ("*", [false; 4]),
        ("u.a.?", [true, false, true, false]),
        ("other.*", [true; 4]),
        ("j", [true; 4]),
    ] {
        assert_eq!(all(Op::Broadcast, mask), expected, "{mask}");
    }
    assert_eq!(all(Op::Publish, "j.1"), [true; 4]);
}

#[test]
fn parameters_of_a_method_must_match_its_schema() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    let config = "[[rule]]\nnames = ['plant.*']\nmethod = 'set'\nschema = '@/s.json'\n\
                  [[rule]]\nnames = ['plant.*']\nmethod = '*'\nformat = 'msgpack'\n\
                  [[rule]]\nnames = ['text.*']\nmethod = 'set'\nformat = 'json'\nschema = '@/s.json'";
    let _instance = start(&fake, folder.path(), config);
    let sends = |target: &str, payload: &[u8]| {
        let sent = passes(&fake, Op::Message, target, payload);
        assert_eq!(passes(&fake, Op::Broadcast, "*", payload), sent, "a broadcast reaches the same names");
        sent
    };
    let call = |method: &str, params: &[u8]| encode_request(7, method, params).unwrap();
    let (good, bad) = (msgpack(&json!({"value": 1})), msgpack(&json!({"value": "1"})));
    assert!(passes(&fake, Op::Message, "plant.1", &call("set", &good)));
    assert!(!sends("plant.1", &call("set", &bad)) && !sends("plant.1", &call("set", b"")));
    assert!(passes(&fake, Op::Message, "plant.1", &call("get", &bad)));
    assert!(sends("plant.1", &call("get", b"")));
    assert!(!sends("plant.1", &call("get", b"\xc1")) && !sends("plant.1", &call("set", br#"{"value":1}"#)));
    assert!(sends("plant.1", &encode_reply(7, b"\xc1")) && sends("plant.1", &encode_notification(b"\xc1")));
    assert!(sends("plant.1", b"\xc1") && sends("plant.1", b""));
    // what a lenient callee could take for a call
    assert!(!sends("plant.1", b"\x01\0\0\0\0set") && !sends("plant.1", b"\x01"));
    assert!(passes(&fake, Op::Message, "text.1", &call("set", br#"{"value":1}"#)));
    assert!(!sends("text.1", &call("set", &good)));
}

#[test]
fn all_rules_that_apply_must_pass_and_refusals_are_counted_by_rule() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    fs::write(folder.path().join("unit.json"), r#"{"required":["unit"]}"#).unwrap();
    let config = "[[rule]]\nfilters = ['s/#']\nschema = '@/s.json'\n[[rule]]\nfilters = ['s/+']\nschema = '@/unit.json'\n\
                  [[rule]]\nfilters = ['#']\nformat = 'utf8'";
    let instance = start(&fake, folder.path(), config);
    let payloads: [&[u8]; 3] = [br#"{"value":1,"unit":"C"}"#, br#"{"value":1}"#, br#"{"unit":"C"}"#];
    assert_eq!(pass(&fake, Op::Publish, "s/a", &payloads), [true, false, false]);
    assert_eq!(pass(&fake, Op::Publish, "s/a/b", &payloads), [true, true, false]);
    assert!(!passes(&fake, Op::Publish, "other", b"\xff"));
    assert_eq!(refused(&fake), [2, 1, 1]);
    assert_eq!(instance.status().detail, "3 rules, 4 messages refused");
}

#[test]
fn messages_are_limited_in_bytes_and_values() {
    let (fake, folder) = (FakeHost::new(), folder("{}"));
    let config = "max_bytes = 20\nmax_values = 4\n[[rule]]\nfilters = ['s/#']\nschema = '@/s.json'\n\
                  [[rule]]\nfilters = ['j']\nformat = 'json'";
    let _instance = start(&fake, folder.path(), config);
    let passes = |topic: &str, text: &str| passes(&fake, Op::Publish, topic, text.as_bytes());
    assert!(passes("s/a", "[1,2,3]") && !passes("s/a", "[1,2,3,4]"));
    assert!(
        passes("j", "[1,2,3,4]")
            && passes("j", "\"234567890123456789\"")
            && !passes("j", "\"2345678901234567890\"")
    );
    assert!(passes("free", &"x".repeat(1000)));
}

#[test]
fn a_refresh_reads_changed_schemas_and_keeps_those_that_are_replaced_by_bad_ones() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    let instance = start(&fake, folder.path(), "[[rule]]\nfilters = ['s']\nschema = '@/s.json'");
    let passes = |text: &str| passes(&fake, Op::Publish, "s", text.as_bytes());
    assert!(!passes(r#"{"value":200}"#));
    instance.refresh().unwrap();
    assert!(!passes(r#"{"value":200}"#));
    let path = folder.path().join("s.json");
    fs::write(&path, SENSOR.replace("100", "200")).unwrap();
    instance.refresh().unwrap();
    assert!(passes(r#"{"value":200}"#) && !passes(r#"{"value":201}"#));
    assert_eq!(refused(&fake), [3], "the counters go on");
    for bad in ["{", "{\"type\":\"strin\"}"] {
        fs::write(&path, bad).unwrap();
        let error = instance.refresh().unwrap_err();
        assert_eq!(error.key, "rule[0].schema");
        assert!(passes(r#"{"value":200}"#) && !passes(r#"{"value":201}"#));
    }
    fs::remove_file(&path).unwrap();
    assert!(instance.refresh().unwrap_err().message.contains("No such file"));
    assert!(!passes(r#"{"value":201}"#));
}

#[test]
fn invalid_tables_are_errors_of_their_keys() {
    let (fake, folder) = (FakeHost::new(), folder(SENSOR));
    let filters = |count: usize| {
        (0..count).fold("[[rule]]\nformat = 'json'\nfilters = [".to_owned(), |mut text, at| {
            let _ = write!(text, "'t/{at}',");
            text
        }) + "]"
    };
    let json = "[[rule]]\nfilters = ['a']\nformat = 'json'\n";
    for (config, key, expected) in [
        ("", "", "missing key `rule`: expected at least one [[plugin.config.rule]]"),
        (&json.repeat(65), "rule", "65 rules; the limit is 64"),
        (&filters(65), "rule", "65 different filters and names in all rules; the limit is 64"),
        (&format!("max_bytes = 0\n{json}"), "max_bytes", "0 is not at least 1"),
        (&format!("max_values = 0\n{json}"), "max_values", "0 is not at least 1"),
        (
            "[[rule]]\nformat = 'json'",
            "rule[0]",
            "missing key `filters` (publications) or `names` (messages)",
        ),
        (&format!("{json}[[rule]]\nfilters = ['a']"), "rule[1]", "missing key `schema` or `format`"),
        (
            "[[rule]]\nfilters = ['a', 'b#']\nformat = 'json'",
            "rule[0].filters[1]",
            "\"#\" in \"b#\" is not a wildcard",
        ),
        (
            "[[rule]]\nfilters = ['$share/g/a']\nformat = 'json'",
            "rule[0].filters[0]",
            "write the filter alone",
        ),
        ("[[rule]]\nfilters = ['a', '.broker/#']\nformat = 'json'", "rule[0].filters[1]", "not checked"),
        ("[[rule]]\nnames = ['.broker']\nformat = 'json'", "rule[0].names[0]", "not checked"),
        ("[[rule]]\nnames = ['plc*']\nformat = 'json'", "rule[0].names[0]", "write \"plc.*\""),
        ("[[rule]]\nfilters = ['a']\nformat = 'xml'", "rule[0].format", "expected one of"),
        ("[[rule]]\nfilters = ['a']\nschem = 'x'", "rule[0].schem", "unknown"),
        (
            "[[rule]]\nfilters = ['a']\nformat = 'utf8'\nschema = 'x'",
            "rule[0].format",
            "json or msgpack, not utf8",
        ),
        (
            "[[rule]]\nfilters = ['a']\nmethod = 'set'\nformat = 'json'",
            "rule[0].filters",
            "publications are not calls",
        ),
        (
            "[[rule]]\nnames = ['a']\nmethod = ''\nformat = 'json'",
            "rule[0].method",
            "expected the name of a method",
        ),
        ("[[rule]]\nfilters = ['a']\nschema = '@/none.json'", "rule[0].schema", "none.json\": No such file"),
    ] {
        let error = create(&fake, folder.path(), config).map(drop).unwrap_err();
        assert_eq!(error.key, key, "{config}: {error}");
        assert!(error.message.contains(expected), "{config}: {error}");
    }
    assert!(create(&fake, folder.path(), &filters(64)).is_ok());
}
