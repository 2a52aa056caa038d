//! Secondary clients: which clients may register one, which rules apply to them, and where they are listed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Call, ClientInfo, Code, Credentials, Locality, Op, Qos,
    access::{AccessRules, ClientRules, Verdict},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use support::{Peer, broker};

fn from(source: &str) -> ClientInfo {
    ClientInfo::new("tcp", Locality::Remote).with_source(source)
}

fn of_user(uid: u32) -> ClientInfo {
    let credentials = Credentials { pid: 1, uid, gid: 1 };
    ClientInfo::new("local_ipc", Locality::Remote).with_credentials(credentials)
}

fn certified(source: &str, names: &[&str]) -> ClientInfo {
    from(source).with_certificate_names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn internal() -> ClientInfo {
    ClientInfo::new("internal", Locality::Remote)
}

fn set(broker: &Broker, clients: Vec<ClientRules>) {
    let rules = AccessRules { default: Verdict::Allow, clients, user_names: vec![] };
    broker.host().set_access_rules(&rules).unwrap();
}

/// With and without access rules, a suffix gives no access to another client's name.
#[test]
fn a_secondary_must_have_the_identity_of_its_primary() {
    let cases = [
        ("the same user", of_user(7), of_user(7), true),
        ("another user", of_user(7), of_user(8), false),
        ("root", of_user(7), of_user(0), false),
        ("the same address", from("10.0.0.1:1"), from("10.0.0.1:2"), true),
        ("another address", from("10.0.0.1:1"), from("10.0.0.2:1"), false),
        ("a user for an address", from("127.0.0.1:1"), of_user(7), false),
        ("an address for a user", of_user(7), from("127.0.0.1:1"), false),
        ("its certificate", certified("10.0.0.1:1", &["a", "b"]), certified("10.0.0.2:1", &["a", "b"]), true),
        ("another certificate", certified("10.0.0.1:1", &["a"]), certified("10.0.0.1:1", &["b"]), false),
        (
            "a part of its certificate",
            certified("10.0.0.1:1", &["a", "b"]),
            certified("10.0.0.1:1", &["a"]),
            false,
        ),
        ("no certificate", certified("10.0.0.1:1", &["a"]), from("10.0.0.1:1"), false),
        ("a certificate for none", from("10.0.0.1:1"), certified("10.0.0.1:1", &["a"]), false),
        ("in the program, both", internal(), internal(), true),
        ("in the program, the secondary", of_user(7), internal(), false),
        ("in the program, the primary", internal(), of_user(7), false),
        ("nothing known, another kind", ClientInfo::new("x", Locality::Remote), internal(), false),
    ];
    for has_rules in [false, true] {
        for (what, primary, secondary, allowed) in &cases {
            let broker = broker();
            if has_rules {
                set(&broker, vec![]);
            }
            let primary = Peer::of(&broker, "target", primary.clone()).unwrap();
            for name in ["target%%x", "target%%", "target%%x%%y", "target%%x.y"] {
                let registered = Peer::of(&broker, name, secondary.clone());
                let expected = if *allowed { None } else { Some(Code::AccessDenied) };
                assert_eq!(registered.err(), expected, "{what}: {name}");
            }
            assert_eq!(primary.closed(), [""; 0], "{what}: the primary is not affected");
            let own = Peer::of(&broker, "other", secondary.clone()).unwrap();
            assert!(
                Peer::of(&broker, "other%%x", secondary.clone()).is_ok(),
                "{what}: a secondary of its own primary"
            );
            drop(own);
        }
    }
}

#[test]
fn a_secondary_without_its_primary_is_never_registered() {
    let broker = broker();
    assert_eq!(Peer::of(&broker, "a%%x", of_user(7)).err(), Some(Code::NotRegistered));
    drop(Peer::of(&broker, "a", of_user(7)).unwrap());
    assert_eq!(Peer::of(&broker, "a%%x", of_user(7)).err(), Some(Code::NotRegistered));
}

/// Rules name primaries. For each mask: the acknowledgement, and the recipients.
#[test]
fn no_broadcast_bypasses_a_rule_by_the_name_of_a_secondary() {
    let rule = |text: &str| text.parse().unwrap();
    let names =
        ["target", "target%%0", "target%%x.y", "a.target", "a.target%%0", "b", "b%%x.y", "b.y", "?", "?%%0"];
    for (rules, mask, expected) in [
        (&["deny target"][..], "target%%0", None),
        (&["deny target"], "target%%x.*", None),
        (&["deny target"], "target%%x.?", None),
        (&["deny target"], "*", None),
        (&["deny target"], "?", None),
        (&["deny target"], "?.y", Some(&["b%%x.y", "b.y"][..])),
        (&["deny target"], "?.*", Some(&["a.target", "a.target%%0", "b%%x.y", "b.y"])),
        (&["deny target"], "b%%x.y", Some(&["b%%x.y"])),
        (&["deny a.?"], "a.target%%0", None),
        (&["deny a.*"], "?.target%%0", None),
        (&["deny a.*", "allow *"], "?.?", None),
        (&["deny a.target"], "b.?", Some(&["b.y"])),
        (&["allow b", "deny *"], "b%%x.y", Some(&["b%%x.y"])),
        (&["allow b", "deny *"], "b%%x.*", Some(&["b%%x.y"])),
        (&["allow ?.y", "deny *"], "?.y", Some(&["b.y"])),
        (&["allow b.y", "deny *"], "b%%x.y", None),
        (&["deny b"], "?%%0", Some(&["?%%0"])),
        (&["allow {?}", "deny *"], "?%%0", Some(&["?%%0"])),
        (&["deny {?}"], "?%%0", None),
        (&["allow b"], "none%%0", Some(&[])),
    ] {
        let broker = broker();
        let peers: Vec<_> = names.iter().map(|name| Peer::of(&broker, name, of_user(7)).unwrap()).collect();
        let broadcast = rules.iter().map(|text| rule(text)).collect();
        let tables = vec![ClientRules { name: "sender".to_owned(), broadcast, ..ClientRules::default() }];
        set(&broker, tables);
        let mut sender = Peer::of(&broker, "sender", of_user(7)).unwrap();
        for _ in 0..2 {
            let code = sender.dispatch(Op::Broadcast, Qos::PROCESSED, mask, "", &[b"x"]).code();
            let got = peers.iter().filter(|peer| !peer.take().is_empty()).map(|peer| &*peer.name);
            let got: Vec<_> = got.collect();
            match expected {
                None => assert_eq!((code, got), (Code::AccessDenied, vec![]), "{rules:?} {mask}"),
                Some(names) => assert_eq!((code, &*got), (Code::Ok, names), "{rules:?} {mask}"),
            }
        }
    }
}

#[test]
fn the_secondaries_of_a_client_can_be_listed() {
    #[derive(Deserialize)]
    struct Details {
        secondaries: Vec<String>,
    }
    let broker = broker();
    let names = ["a", "a%%1", "a%%0", "a.b", "ab", "ab%%0"];
    let _peers: Vec<_> = names.iter().map(|name| Peer::of(&broker, name, of_user(7)).unwrap()).collect();
    let of = |name: &str| {
        let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", name)])).unwrap();
        let call = Call { caller: ".broker", caller_id: 0, method: "client.info", params: &params };
        rmp_serde::from_slice::<Details>(&broker.host().call(&call).unwrap()).unwrap().secondaries
    };
    assert_eq!(of("a"), ["a%%0", "a%%1"]);
    assert_eq!((of("a.b"), of("a%%0")), (vec![], vec![]));
}
