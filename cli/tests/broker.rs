//! `elbus broker`, `elbus client` and `elbus plugin`: their output as text and as JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::Bus;

#[test]
fn info_test_and_stats_are_printed() {
    let bus = Bus::start();
    assert_eq!(bus.output(&["broker", "test"]), "ok\n");
    assert_eq!(bus.json(&["broker", "test"]), [json!({"ok": true})]);

    let info = bus.output(&["broker", "info"]);
    assert!(info.starts_with("author   ELBUS\nversion  "), "{info}");
    assert_eq!(bus.json(&["broker", "info"])[0]["author"], "ELBUS");

    let stats = bus.output(&["broker", "stats"]);
    let titles: Vec<_> = stats.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(titles, ["uptime", "frames in", "bytes in", "frames out", "bytes out"]);
    assert!(stats.lines().nth(2).unwrap().ends_with(" B"), "{stats}");
    assert!(bus.json(&["broker", "stats"])[0]["r_frames"].as_u64().unwrap() >= 4);
}

#[test]
fn clients_are_a_table_sorted_by_name() {
    let bus = Bus::start();
    let _connected = (bus.client("plant.b"), bus.client("plant.a"), bus.client("console"));
    let table = bus.output(&["-n", "me", "broker", "clients"]);
    let lines: Vec<_> = table.lines().collect();
    let names: Vec<_> = lines.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["NAME", ".broker", "console", "me", "plant.a", "plant.b"]);
    let kind = lines[0].find("KIND").unwrap();
    for line in &lines[1..] {
        let kind = line[kind..].split_whitespace().next().unwrap();
        assert_eq!(kind, if line.starts_with(".broker") { "internal" } else { "local_ipc" }, "{table}");
        assert!(!line.contains("\x1b"), "no colours in a pipe");
    }

    for command in ["clients", "client.list"] {
        let plant = bus.json(&["broker", command, "--filter", r"^plant\."]);
        assert_eq!(plant.len(), 2);
        assert_eq!((&plant[0]["name"], &plant[1]["name"]), (&json!("plant.a"), &json!("plant.b")));
        assert_eq!((&plant[0]["source"], &plant[0]["instances"]), (&json!(null), &json!(1)));
    }
    assert_eq!(bus.output(&["broker", "clients", "--filter", "nobody"]).lines().count(), 1);
    assert_eq!(bus.json(&["broker", "clients", "--all", "--filter", r"^plant\."]).len(), 2);
    let failure = bus.failure(1, &["broker", "clients", "--filter", "["]);
    assert!(failure.starts_with("error -32700: regex parse error"), "{failure}");
}

#[test]
fn one_client_is_described_and_disconnected() {
    let bus = Bus::start();
    let (target, mut frames) = bus.client("target");
    let info = bus.output(&["client", "info", "target"]);
    assert!(
        info.starts_with("name              target\nkind              local_ipc\nqueue             0 B\n"),
        "{info}"
    );
    assert!(info.contains(&format!("pid               {}\n", std::process::id())), "{info}");
    assert_eq!(bus.json(&["client", "info", "target"])[0]["pid"], std::process::id());

    assert_eq!(bus.output(&["client", "kick", "target"]), "target is disconnected\n");
    assert!(bus.runtime.block_on(frames.next()).is_none());
    drop(target);
    let failure = bus.failure(1, &["client", "kick", "target"]);
    assert_eq!(failure, "error -32113: no client \"target\" is registered");

    let _again = bus.client("target");
    assert_eq!(bus.output(&["-q", "client", "kick", "target"]), "");
    let _again = bus.client("target");
    assert_eq!(bus.json(&["client", "kick", "target"]), [json!({"ok": true})]);
}

#[test]
fn plugins_are_listed_stopped_and_started() {
    let bus = Bus::start();
    let table = bus.output(&["plugin", "list"]);
    let names: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["NAME", "announce", "local", "rpc", "tcp"]);
    assert!(table.contains(&bus.address()), "{table}");

    let state = |name: &str| {
        let plugins = bus.json(&["plugin", "list"]);
        plugins.iter().find(|plugin| plugin["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let serving = state("announce");
    assert_eq!(bus.output(&["plugin", "stop", "announce"]), "announce is stopped\n");
    assert_eq!(state("announce"), "stopped");
    assert_eq!(bus.output(&["plugin", "start", "announce"]), "announce is started\n");
    assert_eq!(state("announce"), serving);
    assert_eq!(bus.output(&["plugin", "reload", "announce"]), "announce is reloaded\n");
    let failure = bus.failure(1, &["plugin", "stop", "nothing"]);
    assert!(failure.starts_with("error -32113: no plugin \"nothing\"; the plugins are "), "{failure}");
}

#[test]
fn the_transport_of_the_command_itself_can_be_reloaded_and_stopped() {
    let bus = Bus::start();
    for _ in 0..5 {
        assert_eq!(bus.output(&["plugin", "reload", "local"]), "local is reloaded\n");
    }
    let stopped = bus.output(&["plugin", "stop", "local"]);
    assert!(stopped.starts_with("local is stopped"), "{stopped}");
    assert!(bus.failure(1, &["broker", "test"]).starts_with("error: no broker at"));
}

#[test]
fn errors_are_json_objects_with_json_output() {
    let bus = Bus::start();
    let error = |code, arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&bus.failure(code, arguments)).unwrap()
    };
    let failure = error(1, &["--json", "plugin", "stop", "nothing"]);
    assert_eq!((&failure["error"]["code"], &failure["error"]["exit_code"]), (&json!(-32113), &json!(1)));
    let failure = error(2, &["--json", "send", "--nothing"]);
    assert!(failure["error"]["message"].as_str().unwrap().contains("--nothing"), "{failure}");
}

#[test]
fn addresses_can_be_urls_with_blanks_around_them() {
    let bus = Bus::start();
    let unix =
        format!(" unix://{} ", bus.broker().plugins()[0].status.addresses[0].trim_start_matches("unix:"));
    let tcp = format!("tcp://{}", bus.tcp_address());
    for address in [&unix, &tcp] {
        assert_eq!(bus.output(&["--addr", address, "broker", "test"]), "ok\n", "{address}");
    }
}

#[test]
fn nodes_of_all_buses_are_listed() {
    let bus = Bus::start();
    let failure = bus.failure(1, &["broker", "nodes"]);
    assert!(failure.contains("this broker has no method broker.nodes"), "{failure}");
    // the first bridge of a broker can be gone
    for (method, of, nodes) in
        [("broker.nodes.line", "line", &["saw", "mill"][..]), ("broker.nodes", "plant", &["press"])]
    {
        let method = elbus_plugin_api::Method::new(method);
        let nodes: Vec<_> =
            nodes.iter().map(|name| json!({"name": name, "bus": of, "state": "up"})).collect();
        let list = rmp_serde::to_vec_named(&json!({ "nodes": nodes })).unwrap();
        let handler = move |_: &elbus_plugin_api::Call<'_>| Ok(list.clone());
        bus.broker().host().add_method(&method, handler).unwrap();
        let listed = bus.json(&["broker", "nodes"]);
        let names: Vec<_> = listed.iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(names, if of == "line" { &["mill", "saw"][..] } else { &["mill", "press", "saw"] });
    }
    let table = bus.output(&["broker", "nodes"]);
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let expected =
        [["NODE", "BUS", "STATE"], ["mill", "line", "up"], ["press", "plant", "up"], ["saw", "line", "up"]];
    assert_eq!(lines, expected, "{table}");
}

#[test]
fn a_reload_reports_changed_plugins() {
    let bus = Bus::start();
    let failure = bus.failure(1, &["broker", "reload"]);
    assert!(failure.contains("this broker has no method config.reload"), "an embedded broker: {failure}");
    let answer = std::sync::Arc::new(std::sync::Mutex::new(json!({})));
    let answers = answer.clone();
    let method = elbus_plugin_api::Method::new("config.reload");
    let handler =
        move |_: &elbus_plugin_api::Call<'_>| Ok(rmp_serde::to_vec(&*answers.lock().unwrap()).unwrap());
    bus.broker().host().add_method(&method, handler).unwrap();
    assert_eq!(bus.output(&["broker", "reload"]), "reloaded: no plugin changed\n");
    *answer.lock().unwrap() = json!({"added": ["a", "b"], "removed": [], "restarted": ["c"], "errors": []});
    assert_eq!(bus.output(&["broker", "reload"]), "reloaded: added a, b; restarted c\n");
    assert_eq!(bus.json(&["broker", "reload"])[0]["added"], json!(["a", "b"]));
    *answer.lock().unwrap() = json!({"unchanged": ["a", "b"], "refreshed": ["a", "b"]});
    let refreshed = "reloaded: no plugin changed\nrefreshed: a, b\n";
    assert_eq!(bus.output(&["broker", "reload"]), refreshed);
    assert_eq!(bus.output(&["-q", "broker", "reload"]), "");
    *answer.lock().unwrap() = json!({"errors": ["broker.toml:3: wrong"]});
    assert_eq!(bus.failure(1, &["-q", "broker", "reload"]), "error: broker.toml:3: wrong");
}

#[test]
fn remote_clients_cannot_change_the_broker() {
    let bus = Bus::start();
    let tcp = bus.tcp_address();
    assert_eq!(bus.output(&["--addr", &tcp, "broker", "test"]), "ok\n");
    let failure = bus.failure(1, &["--addr", &tcp, "plugin", "stop", "announce"]);
    assert!(failure.starts_with("error -32121: access denied: "), "{failure}");
    assert!(failure.ends_with("call it on the broker's machine, through its UNIX socket"), "{failure}");
}

#[test]
fn a_broker_without_the_rpc_plugin_is_reported() {
    let mut bus = Bus::without_broker();
    bus.start_with(|builder| builder);
    let failure = bus.failure(1, &["broker", "info"]);
    assert!(failure.starts_with("error: the broker does not answer calls"), "{failure}");
}

#[test]
fn explain_lists_the_recipients() {
    let bus = Bus::start();
    let _connected = (bus.client("plant.a"), bus.client("plant.b"));
    let text = bus.output(&["broker", "explain", "broadcast", "me", "plant.*"]);
    assert_eq!(
        text,
        "decision      allowed: no access rules apply\nrule          -\nplace         -\n\
         recipients    2\nnames         plant.a, plant.b\nwith options  -\n\
         interceptors  -\nfull queues   -\n"
    );
    assert_eq!(
        bus.json(&["broker", "explain", "send", "me", "plant.a"])[0]["recipients"],
        json!(["plant.a"])
    );
}

#[test]
fn subscriptions_with_options_are_shown() {
    let bus = Bus::start();
    let (newest, worker) = (bus.client("newest"), bus.client("worker"));
    let _newest = bus.runtime.block_on(newest.0.subscribe("$latest/line1/#")).unwrap();
    let _shared = bus.runtime.block_on(worker.0.subscribe("$share/workers/line1/+")).unwrap();
    let text = bus.output(&["broker", "explain", "publish", "me", "line1/a"]);
    assert!(
        text.contains(
            "\nwith options  client newest, filter $latest/line1/#\n\
             \x20             client worker, filter $share/workers/line1/+, group $share/workers\n"
        ),
        "a line for each: {text}"
    );
    let text = bus.output(&["client", "info", "newest"]);
    assert!(text.contains("\noverflow          block\n"), "{text}");
    assert!(text.ends_with("filter $latest/line1/#, missed 0, replaced 0, pending 0\n"), "{text}");
}
