//! The control method `metrics`: what it counts for in-process clients, and its limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_broker::Broker;
use elbus_plugin_api::{Call, CallError, ClientInfo, Code, Departure, NullSink};
use rmpv::Value;

fn encoded(pairs: &[(&str, Value)]) -> Vec<u8> {
    let pairs = pairs.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect();
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Map(pairs)).unwrap();
    bytes
}

fn metrics(broker: &Broker, pairs: &[(&str, Value)]) -> Result<Value, CallError> {
    let params = if pairs.is_empty() { Vec::new() } else { encoded(pairs) };
    let answer = broker.host().call(&Call::by_broker("metrics", &params))?;
    Ok(rmpv::decode::read_value(&mut &*answer).unwrap())
}

/// Returns the value at a path of keys.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('/').fold(value, |value, key| {
        let found = value.as_map().unwrap().iter().find(|(other, _)| other.as_str() == Some(key));
        &found.unwrap_or_else(|| panic!("no {key} in {value}")).1
    })
}

#[test]
fn clients_are_counted_for_their_instance_and_by_the_reason_for_which_they_leave() {
    let broker = Broker::builder().start().unwrap();
    let register = |name: &str| broker.host().register(name, &ClientInfo::in_process(), NullSink);
    let (mut a, b) = (register("a").unwrap(), register("b").unwrap());
    assert_eq!(a.send("b", b"12345").result(), Ok(1));
    assert!(matches!(register("b"), Err(Code::Busy)) && matches!(register(""), Err(Code::BadData)));
    a.set_departure(Departure::Stalled);
    drop(a);
    let result = metrics(&broker, &[]).unwrap();
    let instance = &at(&result, "instances").as_array().unwrap()[0];
    assert_eq!(at(instance, "name").as_str(), Some("(the program)"));
    for (path, expected) in [
        ("primaries", 1),
        ("registered", 2),
        ("departures/stalled", 1),
        ("departures/closed", 0),
        // of the client that has left
        ("r_frames", 1),
        ("w_frames", 1),
    ] {
        assert_eq!(at(instance, path).as_u64(), Some(expected), "{path} {instance}");
    }
    for (path, expected) in [("refused_registrations/busy", 1), ("refused_registrations/invalid_name", 1)] {
        assert_eq!(at(&result, path).as_u64(), Some(expected), "{path}");
    }
    drop(b);
}

#[test]
fn clients_are_listed_only_on_request_and_up_to_a_limit() {
    let broker = Broker::builder().start().unwrap();
    let register = |name: &str| broker.host().register(name, &ClientInfo::in_process(), NullSink).unwrap();
    let _clients = ["p.c", "p.a", "p.b", "q"].map(register);
    let listed = |pairs: &[(&str, Value)]| {
        let result = metrics(&broker, pairs).unwrap();
        let clients = at(&result, "clients").as_array().unwrap();
        let names = clients.iter().map(|client| at(client, "name").as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), at(&result, "omitted_clients").as_u64().unwrap())
    };
    let masks = |masks: &[&str]| Value::Array(masks.iter().map(|mask| Value::from(*mask)).collect());
    assert_eq!(listed(&[]), (vec![], 0));
    let two = [("clients", masks(&["p.*"])), ("max_clients", 2.into())];
    assert_eq!(listed(&two), (vec!["p.a".to_owned(), "p.b".to_owned()], 1));

    let long = "x".repeat(1025);
    for (key, value, expected) in [
        ("holding", 1001.into(), "holding: 1001 exceeds the limit of 1000"),
        ("max_clients", 10_001.into(), "max_clients: 10001 exceeds the limit of 10000"),
        ("clients", masks(&["a"; 65]), "clients: masks: 65 exceeds the limit of 64"),
        ("clients", masks(&[&long]), "clients: a mask has 1025 bytes; the limit is 1024"),
        ("holding", "many".into(), "wrong msgpack marker"),
    ] {
        let error = metrics(&broker, &[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
