//! Clients of other nodes of a bridged bus, as a plugin registers them: what reaches them, which rules match
//! them, and which methods show them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Call, ClientInfo, Code, Locality,
    access::{AccessRules, ClientRules, Identity, Verdict},
};
use rmpv::Value;
use support::{Peer, broker};

fn of_node(node: &str) -> ClientInfo {
    ClientInfo::new("nats", Locality::Remote).with_node(node)
}

fn call(broker: &Broker, method: &str, params: Value) -> Value {
    let mut bytes = vec![];
    if !params.is_nil() {
        rmpv::encode::write_value(&mut bytes, &params).unwrap();
    }
    let result = broker.host().call(&Call::by_broker(method, &bytes)).unwrap();
    rmpv::decode::read_value(&mut &result[..]).unwrap()
}

fn of<'v>(map: &'v Value, key: &str) -> &'v Value {
    &map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key)).unwrap().1
}

fn listed(broker: &Broker, params: Value) -> Vec<String> {
    let list = call(broker, "client.list", params);
    let clients = of(&list, "clients").as_array().unwrap().clone();
    clients.iter().map(|client| of(client, "name").as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_mask_that_begins_with_a_wildcard_does_not_leave_the_node() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "plant.pump");
    let remote = Peer::of(&broker, "@mill.plant.pump", of_node("mill")).unwrap();
    let local = Peer::new(&broker, "@mill.plant.saw");
    for (mask, reaches, remotely) in [
        ("*", 2, false),
        ("?.plant.*", 1, false),
        ("?.?.?", 1, false),
        ("@mill.*", 2, true),
        ("@mill.?.pump", 1, true),
        ("@mill.plant.pump", 1, true),
    ] {
        assert_eq!(sender.broadcast(mask, b"x"), reaches, "{mask}");
        assert_eq!(!remote.take().is_empty(), remotely, "{mask}");
    }
    assert!(!local.take().is_empty());
    assert_eq!(sender.send("@mill.plant.pump", b"x"), Code::Ok);
    assert_eq!(remote.take().len(), 1);
}

#[test]
fn lists_leave_clients_of_other_nodes_out_unless_all_are_requested() {
    let broker = broker();
    let (_local, _remote) = (Peer::new(&broker, "a"), Peer::of(&broker, "@mill.a", of_node("mill")).unwrap());
    assert_eq!(listed(&broker, Value::Nil), ["a"]);
    let params = |all| Value::Map(vec![("filter".into(), "a$".into()), ("all".into(), Value::Boolean(all))]);
    assert_eq!(listed(&broker, params(false)), ["a"]);
    assert_eq!(listed(&broker, params(true)), ["@mill.a", "a"]);
    let info = |name: &str| call(&broker, "client.info", Value::Map(vec![("name".into(), name.into())]));
    assert_eq!(of(&info("@mill.a"), "node").as_str(), Some("mill"));
    assert!(of(&info("a"), "node").is_nil());
}

#[test]
fn rules_match_clients_of_other_nodes_by_their_node_only() {
    let broker = broker();
    let node = |node: &str| Identity { node: Some(node.to_owned()), ..Identity::default() };
    let by_address = Identity { address: Some("0.0.0.0/0".parse().unwrap()), ..Identity::default() };
    let table = |name: &str, who| ClientRules { name: name.to_owned(), who, ..ClientRules::default() };
    let clients = vec![
        table("@mill.*", vec![node("mill")]),
        table("@press.*", vec![by_address, Identity::default()]),
        table("@saw.*", vec![]),
    ];
    let rules = AccessRules { default: Verdict::Deny, clients, ..AccessRules::default() };
    broker.host().set_access_rules(&rules).unwrap();
    let from = |source: &str| ClientInfo::new("tcp", Locality::Remote).with_source(source);
    for (name, info, expected) in [
        ("@mill.a", of_node("mill"), None),
        ("@mill.b", of_node("press"), Some(Code::AccessDenied)),
        ("@mill.c", from("10.0.0.1:5"), Some(Code::AccessDenied)),
        ("@mill.d", from("10.0.0.1:5").with_token("mill"), Some(Code::AccessDenied)),
        ("@press.a", of_node("press"), Some(Code::AccessDenied)),
        ("@press.b", of_node("press").with_source("10.0.0.1:5"), Some(Code::AccessDenied)),
        ("@press.c", from("10.0.0.1:5"), None),
        ("@saw.a", of_node("saw"), None),
    ] {
        assert_eq!(Peer::of(&broker, name, info).err(), expected, "{name}");
    }
}

#[test]
fn a_secondary_of_another_node_needs_the_node_of_its_primary() {
    let broker = broker();
    let _primary = Peer::of(&broker, "@mill.a", of_node("mill")).unwrap();
    assert!(Peer::of(&broker, "@mill.a%%1", of_node("mill")).is_ok());
    assert_eq!(Peer::of(&broker, "@mill.a%%2", of_node("press")).err(), Some(Code::AccessDenied));
    assert_eq!(Peer::try_new(&broker, "@mill.a%%3").err(), Some(Code::AccessDenied));
}
