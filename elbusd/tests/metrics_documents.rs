//! The documents on metrics: docs/metrics.md, the dashboard and the alert rules name exactly what a broker
//! serves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, rpc};
use std::collections::{BTreeMap, BTreeSet};
use support::{
    daemon::Daemon,
    http::{scrape, scrape_text},
    wait_until,
    wire::numbered_frames,
};

/// A metric: type, labels and meaning.
type Metric = (String, BTreeSet<String>, String);

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the metrics in the tables of docs/metrics.md.
fn documented() -> BTreeMap<String, Metric> {
    let text = read("docs/metrics.md");
    let tables = text.split("## All metrics").nth(1).unwrap().split("## Values of labels").next().unwrap();
    let rows = tables.lines().filter(|line| line.starts_with("| `"));
    let unquoted = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("{row}") };
        let labels = labels.split(", ").filter(|label| *label != "-").map(unquoted).collect();
        (unquoted(name), (kind.to_owned(), labels, meaning.to_owned()))
    })
    .collect()
}

/// Starts a broker in which every metric has samples.
fn start() -> Daemon {
    let daemon = Daemon::start_config(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", queue_bytes = 100000, stall_seconds = 20.0, timeout_seconds = 25.0 }
        [[plugin]]
        name = "range"
        library = "range_check"
        config = { filters = ["t"], min = 0.0, max = 1.0 }
        [[plugin]]
        name = "retain"
        library = "elbus_retain"
        config = { topic = [{ filter = "r/#" }] }
        [[plugin]]
        name = "metrics"
        library = "elbus_metrics"
        [plugin.config]
        bind = "127.0.0.1:0"
        cache_seconds = 0
        clients = ["a"]
        topics = ["t"]
        rpc = true
        "#,
    );
    let (mut a, mut slow) = (daemon.client("a"), daemon.client("slow"));
    a.acked(Op::Publish, "t", b"1");
    a.acked(Op::Message, "slow", &rpc::encode_request(1, "m", b"").unwrap());
    slow.acked(Op::Message, "a", &rpc::encode_reply(1, b""));
    scrape(&daemon); // so that one was answered before
    let mut flood = a.writer();
    // until the broker ends, since the receiver reads nothing
    std::thread::spawn(move || flood.try_write(&numbered_frames(Op::Message, Qos::NO, "slow", 5000, 1000)));
    wait_until("a receiver holds a sender, and the call has ended", || {
        let samples = scrape(&daemon);
        samples.of("elbus_receiver_held_seconds_total").count() > 0
            && samples.value("elbus_rpc_duration_seconds_count{method=\"\"}") > 0.0
    });
    // the held clients leave with the broker
    std::mem::forget((a, slow));
    daemon
}

/// Returns the metrics that a broker serves, those without samples without labels.
fn served(daemon: &Daemon) -> BTreeMap<String, Metric> {
    let (text, samples) = (scrape_text(daemon), scrape(daemon));
    let help: BTreeMap<_, _> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(family, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let name = format!("{family}{suffix}");
            let sample = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            let keys = samples.0.keys().filter(|key| key.split('{').next() == Some(&sample));
            let labels: Vec<BTreeSet<String>> = keys.map(|key| label_names(key)).collect();
            assert!(!labels.is_empty(), "{name} has no samples in\n{text}");
            assert!(labels.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {labels:?}");
            (name, (kind.to_owned(), labels[0].clone(), help[family].to_owned()))
        })
        .collect()
}

/// Returns the names of labels in a sample or a selector.
fn label_names(text: &str) -> BTreeSet<String> {
    let inside = text.split('{').nth(1).and_then(|rest| rest.split('}').next()).unwrap_or_default();
    let pairs = inside.split("\",").filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split(['=', '!']).next().unwrap().trim().to_owned()).collect()
}

#[test]
fn the_document_lists_exactly_what_a_broker_serves() {
    let (documented, served) = (documented(), served(&start()));
    let names = |metrics: &BTreeMap<String, Metric>| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let (in_document, in_scrape) = (names(&documented), names(&served));
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
    let none = Vec::<String>::new();
    assert_eq!(only(&in_document, &in_scrape), none, "are served nowhere");
    assert_eq!(only(&in_scrape, &in_document), none, "are documented nowhere");
    for (name, metric) in &served {
        assert_eq!(metric, &documented[name], "{name}");
    }
}

/// Returns the names in an expression that begin as metrics do.
fn named_metrics(expression: &str) -> BTreeSet<String> {
    let unquoted = expression.split('"').step_by(2).collect::<String>();
    let words = unquoted.split(|c: char| !c.is_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("elbus_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

/// Checks that an expression uses what the document lists: names, and labels in selectors and groups.
fn check(expression: &str, documented: &BTreeMap<String, Metric>) {
    let balance = |open, close| expression.matches(open).count() == expression.matches(close).count();
    assert!(balance('(', ')') && balance('{', '}') && balance('[', ']'), "{expression}");
    let names = named_metrics(expression);
    assert!(!names.is_empty() || expression.starts_with("up{"), "{expression}");
    let mut labels: BTreeSet<String> = ["instance", "job"].map(str::to_owned).into();
    for name in &names {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let metric = documented
            .get(name)
            .or_else(|| documented.get(histogram?).filter(|(kind, ..)| kind == "histogram"));
        let (_, of_metric, _) = metric.unwrap_or_else(|| panic!("no metric {name}: {expression}"));
        labels.extend(of_metric.iter().cloned());
        labels.extend(name.ends_with("_bucket").then(|| "le".to_owned()));
    }
    let selectors = expression.split('{').skip(1).flat_map(|rest| label_names(&format!("{{{rest}")));
    let grouped = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let grouped = grouped.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned());
    for label in selectors.chain(grouped) {
        assert!(labels.contains(&label), "no label {label}: {expression}");
    }
}

/// Collects the values of a key in a JSON document.
fn values<'j>(json: &'j serde_json::Value, key: &str, found: &mut Vec<&'j str>) {
    match json {
        serde_json::Value::Object(map) => {
            found.extend(map.get(key).and_then(|value| value.as_str()));
            map.values().for_each(|value| values(value, key, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| values(value, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alert_rules_query_existing_metrics() {
    let documented = documented();
    assert!(documented.len() > 50, "{documented:?}");
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/metrics/dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    values(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 25, "{expressions:?}");
    expressions.iter().for_each(|expression| check(expression, &documented));
    let mut variables = Vec::new();
    values(&dashboard["templating"], "query", &mut variables);
    let metrics: BTreeSet<_> = variables.iter().flat_map(|query| named_metrics(query)).collect();
    assert!(!metrics.is_empty() && metrics.iter().all(|name| documented.contains_key(name)), "{variables:?}");

    let alerts = read("config/metrics/alerts.yaml");
    // an expression may be folded over several lines
    let rules: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        let expression = rule.split("expr: ").nth(1).unwrap_or_else(|| panic!("no expr: {rule}"));
        let end = expression.find("\n        for:").or_else(|| expression.find("\n        labels:")).unwrap();
        let lines = expression[..end].trim_start_matches(">-").lines().map(str::trim);
        check(lines.collect::<Vec<_>>().join(" ").trim(), &documented);
        assert!(rule.contains("severity: ") && rule.contains("summary: "), "{rule}");
        // metrics that texts name exist, too
        let annotations = rule.split("annotations:").nth(1).unwrap();
        for name in annotations.split([' ', '"', '.']).filter(|word| word.starts_with("elbus_")) {
            assert!(documented.contains_key(name), "no metric {name}: {rule}");
        }
    }
}
