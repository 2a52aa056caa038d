//! Access rules in a broker: which clients are admitted, which operations are denied, and how new rules
//! affect registered clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Call, ClientInfo, Code, Credentials, Locality, Op, SinkLimits,
    access::{AccessRules, ClientRules, Identity, Rule, Verdict},
    config::Limit,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use support::{Peer, broker};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn clients(name: &str) -> ClientRules {
    ClientRules { name: name.to_owned(), ..ClientRules::default() }
}

fn set(broker: &Broker, default: Verdict, clients: Vec<ClientRules>) {
    let rules = AccessRules { default, clients, user_names: vec![(7, "plc".to_owned())] };
    broker.host().set_access_rules(&rules).unwrap();
}

fn of_user(uid: u32) -> ClientInfo {
    let credentials = Credentials { pid: 0, uid, gid: 100 + uid };
    ClientInfo::new("local_ipc", Locality::SameHost).with_credentials(credentials)
}

fn peer(broker: &Broker, name: &str, uid: u32) -> Peer {
    Peer::of(broker, name, of_user(uid)).unwrap_or_else(|code| panic!("{name} refused: {code}"))
}

fn refusal(broker: &Broker, name: &str, info: ClientInfo) -> Option<Code> {
    Peer::of(broker, name, info).err()
}

#[derive(Deserialize)]
struct Answer {
    allowed: bool,
    why: String,
    rule: Option<String>,
    place: Option<String>,
    recipients: Vec<String>,
}

fn explain(broker: &Broker, action: &str, name: &str, target: &str) -> Answer {
    let params = BTreeMap::from([("action", action), ("name", name), ("target", target)]);
    let params = rmp_serde::to_vec_named(&params).unwrap();
    let call = Call::by_broker("explain", &params);
    rmp_serde::from_slice(&broker.host().call(&call).unwrap()).unwrap()
}

#[test]
fn only_clients_with_a_required_identity_are_admitted() {
    let broker = broker();
    let who = vec![
        Identity { uid: Some(7), ..Identity::default() },
        Identity { group: Some((200, vec![9])), ..Identity::default() },
        Identity { address: Some("10.0.0.0/8".parse().unwrap()), ..Identity::default() },
        Identity { certificate: Some("{name}".to_owned()), ..Identity::default() },
        Identity { unit: Some("plc.service".to_owned()), ..Identity::default() },
        Identity { token: Some("line*.{name}".to_owned()), ..Identity::default() },
    ];
    set(&broker, Verdict::Allow, vec![ClientRules { who, ..clients("plc.*") }]);
    let from = |source: &str| ClientInfo::default().with_source(source);
    let of_unit = |uid, unit: &str| of_user(uid).with_unit(unit);
    let certified = |name: &str| ClientInfo::default().with_certificate_names(vec![name.to_owned()]);
    for (name, info, expected) in [
        ("plc.1", of_user(7), None),
        ("plc.1", of_user(8), Some(Code::AccessDenied)),
        ("plc.1", of_user(9), None),
        ("plc.1", of_user(100), None),
        ("plc.1", from("10.9.8.7:1"), None),
        ("plc.1", from("[::ffff:10.9.8.7]:1"), None),
        ("plc.1", from("11.0.0.1:1"), Some(Code::AccessDenied)),
        ("plc.1", of_unit(8, "plc.service"), None),
        ("plc.1", of_unit(8, "user@8.service"), Some(Code::AccessDenied)),
        ("plc.1", certified("plc.1"), None),
        ("plc.1", certified("plc.2"), Some(Code::AccessDenied)),
        ("plc.1", ClientInfo::default().with_token("line7.plc.1"), None),
        ("plc.1", ClientInfo::default().with_token("line7.plc.2"), Some(Code::AccessDenied)),
        ("plc.1", ClientInfo::default().with_token("plc.1"), Some(Code::AccessDenied)),
        // a name in a certificate is no token
        ("plc.1", certified("line7.plc.1"), Some(Code::AccessDenied)),
        ("plc.1", ClientInfo::default(), Some(Code::AccessDenied)),
        ("plc", ClientInfo::default(), None),
        ("other", of_user(8), None),
        ("plc.1", ClientInfo::new("", Locality::InProcess), None),
        // the kind is for display only
        ("plc.1", ClientInfo::new("internal", Locality::Remote), Some(Code::AccessDenied)),
    ] {
        assert_eq!(refusal(&broker, name, info.clone()), expected, "{name} {info:?}");
    }
    let primary = peer(&broker, "plc.1", 7);
    assert_eq!(
        refusal(&broker, "plc.1%%1", of_user(8)),
        Some(Code::AccessDenied),
        "its secondaries are denied too"
    );
    assert_eq!(refusal(&broker, "plc.1%%1", of_user(7)), None);
    drop(primary);
}

#[test]
fn each_action_has_its_rules_and_the_first_that_matches_decides() {
    let broker = broker();
    let mut other = peer(&broker, "other", 1);
    other.subscribe(&["#"]);
    set(
        &broker,
        Verdict::Deny,
        vec![
            ClientRules {
                send: rules(&["deny other.secret", "allow other", "allow other.*", "allow {name}.twin"]),
                broadcast: rules(&["allow other.*"]),
                publish: rules(&["deny plc/x/#", "allow plc/{user}/#", "allow plc/+"]),
                subscribe: rules(&["deny secret/#", "allow #"]),
                ..clients("a.*")
            },
            ClientRules { subscribe: rules(&["allow #"]), ..clients("other.*") },
            ClientRules { subscribe: rules(&["allow #"]), ..clients("other") },
        ],
    );
    let (mut a, _secret) = (peer(&broker, "a.b", 7), peer(&broker, "other.secret", 1));
    for (target, code) in [
        ("other", Code::Ok),
        ("other.secret", Code::AccessDenied),
        ("other.none", Code::NotRegistered),
        ("a.b.twin", Code::NotRegistered),
        ("a.b", Code::AccessDenied),
        ("nobody", Code::AccessDenied),
        (".broker", Code::NotRegistered),
    ] {
        assert_eq!(a.send(target, b"1"), code, "{target}");
        assert_eq!(a.send(target, b"1"), code, "{target}, cached");
    }
    assert_eq!(other.payloads(), ["1", "1"]);
    let mut code = |op, target: &str| {
        let code = a.dispatch(op, elbus_plugin_api::Qos::PROCESSED, target, "", &[b"2"]).code();
        assert_eq!(a.dispatch(op, elbus_plugin_api::Qos::PROCESSED, target, "", &[b"2"]).code(), code);
        code
    };
    for (mask, expected) in [
        ("other.*", Code::Ok),
        ("other.?", Code::Ok),
        ("*", Code::AccessDenied),
        ("other", Code::AccessDenied),
    ] {
        assert_eq!(code(Op::Broadcast, mask), expected, "{mask}");
    }
    for (topic, expected) in [
        ("plc/plc/x", Code::Ok),
        ("plc/x", Code::Ok),
        ("plc/x/y", Code::AccessDenied),
        ("plc/other/x", Code::AccessDenied),
        ("else", Code::AccessDenied),
        (".broker/info", Code::AccessDenied),
    ] {
        assert_eq!(code(Op::Publish, topic), expected, "{topic}");
        assert_eq!(code(Op::PublishFor, topic), expected, "{topic}");
    }
    for (filters, expected) in [
        (&["a/+"][..], Code::Ok),
        (&["secret/x"], Code::AccessDenied),
        (&["#"], Code::AccessDenied),
        (&["+/x"], Code::AccessDenied),
        (&["fine", "secret/x"], Code::AccessDenied),
    ] {
        assert_eq!(a.filters(Op::Subscribe, filters), expected, "{filters:?}");
    }
    assert_eq!(a.filters(Op::Exclude, &["#"]), Code::Ok, "exclusions need no permission");
    assert_eq!(other.publish("fine", b""), 0, "no rule allows the publication");
    other.take();
}

#[test]
fn what_tells_a_client_about_itself_is_open_unless_a_rule_denies_it() {
    let broker = broker();
    let closed =
        ClientRules { subscribe: rules(&["deny .broker/#"]), call: rules(&["deny *"]), ..clients("closed") };
    set(&broker, Verdict::Deny, vec![closed, clients("open")]);
    for (name, code) in [("open", Code::Ok), ("closed", Code::AccessDenied)] {
        let mut client = peer(&broker, name, 1);
        for filter in [".broker/missed", ".broker/warn", "$lossy/.broker/missed"] {
            assert_eq!(client.filters(Op::Subscribe, &[filter]), code, "{name} {filter}");
            assert_eq!(explain(&broker, "subscribe", name, filter).allowed, code == Code::Ok);
        }
        for filter in [".broker/+", ".broker/info"] {
            assert_eq!(client.filters(Op::Subscribe, &[filter]), Code::AccessDenied, "{name} {filter}");
        }
        assert_eq!(explain(&broker, "call", name, "features").allowed, code == Code::Ok);
        assert!(!explain(&broker, "call", name, "info").allowed);
        assert!(!explain(&broker, "publish", name, ".broker/missed").allowed);
    }
    let why = explain(&broker, "call", "open", "features").why;
    assert_eq!(why, "allowed: open to every client unless a rule denies it");
}

#[test]
fn a_denied_target_and_a_missing_one_cannot_be_distinguished() {
    let broker = broker();
    set(&broker, Verdict::Deny, vec![clients("a"), clients("b")]);
    let (mut a, b) = (peer(&broker, "a", 1), peer(&broker, "b", 1));
    assert_eq!(a.send("b", b""), Code::AccessDenied);
    drop(b);
    assert_eq!(a.send("b", b""), Code::AccessDenied);
}

#[test]
fn new_rules_apply_to_registered_clients_at_once() {
    let broker = broker();
    let (mut a, b, mut c) = (peer(&broker, "a", 1), peer(&broker, "b", 2), peer(&broker, "c", 1));
    a.subscribe(&["x/#", "y/1", "y/+/+"]);
    assert_eq!((c.send("b", b"1"), c.publish("x/1", b""), c.publish("y/1", b"")), (Code::Ok, 1, 1));

    let only_two = vec![Identity { uid: Some(2), ..Identity::default() }];
    let tables = |send: &[&str]| {
        vec![
            ClientRules { subscribe: rules(&["allow y/#"]), ..clients("a") },
            ClientRules { who: only_two.clone(), ..clients("b") },
            ClientRules { send: rules(send), publish: rules(&["allow #"]), ..clients("c") },
        ]
    };
    set(&broker, Verdict::Deny, tables(&["deny *"]));
    assert_eq!(c.send("b", b"2"), Code::AccessDenied);
    assert_eq!((c.publish("x/1", b""), c.publish("y/1", b""), c.publish("y/1/2", b"")), (0, 1, 1));
    assert_eq!(a.publish("y/1", b""), 0, "`a` may subscribe but not publish");

    set(&broker, Verdict::Deny, tables(&["allow *"]));
    assert_eq!(c.send("b", b"3"), Code::Ok);
    assert_eq!(b.payloads(), ["1", "3"]);
    assert_eq!(c.publish("x/1", b""), 0, "a removed subscription is not restored");

    set(&broker, Verdict::Deny, vec![ClientRules { send: rules(&["allow *"]), ..clients("c") }]);
    let reason = "denied: no [[client]] matches the name, and the default is deny";
    assert_eq!((a.closed(), b.closed()), (vec![reason.to_owned()], vec![reason.to_owned()]));
    assert_eq!((c.send("b", b"4"), c.closed().len()), (Code::NotRegistered, 0));
    assert_eq!(refusal(&broker, "b", of_user(2)), Some(Code::AccessDenied));
    assert!(a.dispatch(Op::Publish, elbus_plugin_api::Qos::NO, "y/1", "", &[b""]).is_gone());
}

#[test]
fn new_rules_remove_the_denied_ones_of_many_filters() {
    let broker = broker();
    let (mut a, mut b) = (peer(&broker, "a", 1), peer(&broker, "b", 2));
    let filters: Vec<_> = (0..1000)
        .map(|number| match number % 3 {
            0 => format!("t/{number}"),
            1 => format!("u/{number}/#"),
            _ => format!("v/+/{number}"),
        })
        .collect();
    a.subscribe(&filters.iter().map(String::as_str).collect::<Vec<_>>());
    let topic_of = |number: usize| match number % 3 {
        0 => format!("t/{number}"),
        1 => format!("u/{number}/x"),
        _ => format!("v/x/{number}"),
    };
    let denied = [0, 255, 256, 257, 300, 511, 512, 700, 701, 999];
    let deny = |number: &usize| format!("deny {}", filters[*number]);
    let subscribe: Vec<Rule> =
        denied.iter().map(|number| deny(number).parse().unwrap()).chain(rules(&["allow #"])).collect();
    let tables = vec![
        ClientRules { subscribe, ..clients("a") },
        ClientRules { publish: rules(&["allow #"]), ..clients("b") },
    ];
    set(&broker, Verdict::Deny, tables);
    for number in 0..1000 {
        let expected = u32::from(!denied.contains(&number));
        assert_eq!(b.publish(&topic_of(number), b""), expected, "{number}");
    }
}

#[test]
fn filters_that_take_too_many_comparisons_are_refused_or_removed() {
    let broker = broker();
    // each client has different rules
    let different: Vec<_> = (0..999).map(|number| format!("deny {{name}}-{number}/x")).collect();
    let with = |last: &'static str| {
        let texts = different.iter().map(String::as_str).chain([last]).collect::<Vec<_>>();
        let b = ClientRules { publish: rules(&["allow #"]), ..clients("b") };
        vec![ClientRules { subscribe: rules(&texts), ..clients("a") }, b]
    };
    set(&broker, Verdict::Deny, with("allow #"));
    let (mut a, mut b) = (peer(&broker, "a", 1), peer(&broker, "b", 2));
    let filters: Vec<_> = (0..8000).map(|number| format!("t{number}")).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    assert_eq!(
        a.filters(Op::Subscribe, &filters[..5000]),
        Code::Other,
        "either all filters are added or none"
    );
    assert_eq!((b.publish("t0", b""), b.publish("t4999", b"")), (0, 0));
    for part in filters.chunks(4000) {
        assert_eq!(a.filters(Op::Subscribe, part), Code::Ok);
    }
    // filters that cannot be checked are not allowed
    let reached = |b: &mut Peer| filters.iter().filter(|topic| b.publish(topic, b"") == 1).count();
    assert_eq!(reached(&mut b), 8000);
    set(&broker, Verdict::Deny, with("allow +"));
    let left = reached(&mut b);
    assert!((4000..5000).contains(&left), "{left}");
    // without such rules there is no limit of comparisons
    set(&broker, Verdict::Deny, with("allow +").split_off(1));
    let plain: Vec<_> =
        (0..999).map(|number| format!("deny r{number}/x/+/y")).chain(["allow #".into()]).collect();
    let plain = rules(&plain.iter().map(String::as_str).collect::<Vec<_>>());
    set(&broker, Verdict::Deny, vec![ClientRules { subscribe: plain, ..clients("c") }]);
    let mut c = peer(&broker, "c", 3);
    let filters: Vec<_> = (0..30_000).map(|number| format!("+/{number}/y")).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    assert_eq!(c.filters(Op::Subscribe, &filters), Code::Ok);
}

#[test]
fn denials_are_counted_for_each_client_and_action() {
    #[derive(Deserialize)]
    struct Details {
        denied: BTreeMap<String, u64>,
    }
    let broker = broker();
    set(&broker, Verdict::Deny, vec![clients("a")]);
    let mut a = peer(&broker, "a", 1);
    for _ in 0..3 {
        a.send("b", b"");
    }
    a.dispatch(Op::Publish, elbus_plugin_api::Qos::NO, "t", "", &[b"1", b"2"]);
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", "a")])).unwrap();
    let id = a.client.id();
    let ask =
        |caller, caller_id, method| broker.host().call(&Call { caller, caller_id, method, params: &params });
    assert_eq!(ask("a", id, "client.info").unwrap_err().code, Code::AccessDenied.rpc_code());
    assert_eq!(ask("a", id, "no.such").unwrap_err().code, Code::AccessDenied.rpc_code());
    let details: Details = rmp_serde::from_slice(&ask(".broker", 0, "client.info").unwrap()).unwrap();
    let counts = [("send", 3), ("publish", 2), ("call", 2)];
    assert_eq!(details.denied, counts.map(|(kind, count)| (kind.to_owned(), count)).into());
}

#[test]
fn the_limits_of_a_mask_apply_to_its_clients() {
    let broker = broker();
    let with = |change: fn(&mut ClientRules)| {
        let mut table = ClientRules { subscribe: rules(&["allow #"]), ..clients("a.*") };
        change(&mut table);
        set(&broker, Verdict::Deny, vec![table]);
    };
    with(|table| {
        table.limits.max_clients = Limit::new(2);
        table.limits.max_filters = Limit::new(3);
        table.limits.max_filter_depth = Limit::new(2);
        table.limits.max_frame_bytes = Limit::new(1000);
    });
    let (mut first, second) = (peer(&broker, "a.1", 1), peer(&broker, "a.2", 1));
    assert_eq!(refusal(&broker, "a.3", of_user(1)), Some(Code::Busy));
    drop(second);
    let _third = peer(&broker, "a.3", 1);
    assert_eq!(first.filters(Op::Subscribe, &["x/y", "x/#"]), Code::Ok, ".broker/warn is the third");
    assert_eq!(first.filters(Op::Subscribe, &["z"]), Code::Other);
    assert_eq!(first.filters(Op::Exclude, &["a/b/c"]), Code::BadData);
    let mut limits = SinkLimits::default();
    limits.max_frame_bytes = Limit::new(1000);
    assert_eq!(*first.record.limits.lock().unwrap(), [limits]);
    with(|table| table.limits.max_frame_bytes = Limit::new(2000));
    limits.max_frame_bytes = Limit::new(2000);
    assert_eq!(first.record.limits.lock().unwrap().last(), Some(&limits));
    assert_eq!(first.filters(Op::Subscribe, &["a/b/c"]), Code::Ok);
    assert_eq!(refusal(&broker, "a.4", of_user(1)), None);
}

#[test]
fn explain_names_the_recipients_or_the_rule_that_denies() {
    let broker = broker();
    assert_eq!(explain(&broker, "send", "a", "b").why, "allowed: no access rules apply");
    let mut b = peer(&broker, "b", 1);
    b.subscribe(&["t/#"]);
    let a =
        ClientRules { send: rules(&["deny b.*", "allow b"]), publish: rules(&["allow t/+"]), ..clients("a") };
    set(&broker, Verdict::Deny, vec![ClientRules { subscribe: rules(&["allow #"]), ..clients("b") }, a]);
    let _a = peer(&broker, "a", 1);
    let answer = explain(&broker, "send", "a", "b");
    assert_eq!(
        (answer.allowed, answer.recipients, answer.rule.as_deref()),
        (true, vec!["b".to_owned()], Some("allow b"))
    );
    let answer = explain(&broker, "send", "a", "b.c");
    assert!(!answer.allowed && answer.recipients.is_empty());
    assert_eq!(answer.why, "denied by \"deny b.*\" of [[client]] \"a\"");
    assert_eq!(answer.place.as_deref(), Some("client[1].send[0] of plugin "));
    assert_eq!(explain(&broker, "publish", "a", "t/1").recipients, ["b"]);
    let answer = explain(&broker, "publish", "a", "t/1/2");
    assert_eq!(
        answer.why,
        "denied: no rule of `publish` in [[client]] \"a\" matches, and the default is deny"
    );
    let answer = explain(&broker, "subscribe", "stranger", "t");
    assert_eq!(answer.why, "denied: no [[client]] matches the name, and the default is deny");
}

#[test]
fn explain_reports_methods_that_only_administrators_can_call() {
    let broker = broker();
    let _remote = Peer::new(&broker, "remote");
    let _local = peer(&broker, "local", 1);
    for with_rules in [false, true] {
        if with_rules {
            set(&broker, Verdict::Allow, vec![ClientRules { call: rules(&["allow *"]), ..clients("*") }]);
        }
        let answer = explain(&broker, "call", "remote", "client.kick");
        assert!(!answer.allowed && answer.rule.is_none() && answer.place.is_none(), "{}", answer.why);
        assert_eq!(answer.why, "denied: client.kick is for clients of this machine only (remote_admin)");
        assert!(explain(&broker, "call", "local", "client.kick").allowed);
        assert!(explain(&broker, "call", "remote", "client.list").allowed);
    }
}
