//! Limits of filters: a request is accepted as a whole or refused, and filters are removed with their client.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{
    Call, Code, Op,
    access::{AccessRules, ClientRules, Verdict},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use support::{Peer, broker};

fn broker_with(change: impl FnOnce(&mut BrokerSettings)) -> Broker {
    let mut settings = BrokerSettings::default();
    change(&mut settings);
    Broker::builder().settings(settings).start().unwrap()
}

/// Returns the topics whose publications reach the client.
fn reached(peer: &mut Peer, topics: &[&str]) -> Vec<String> {
    topics.iter().for_each(|topic| _ = peer.publish(topic, topic.as_bytes()));
    peer.payloads()
}

#[test]
fn a_request_beyond_the_limit_changes_nothing() {
    let broker = broker_with(|settings| settings.max_filters = 4);
    let mut a = Peer::new(&broker, "a");
    // one is .broker/warn
    assert_eq!(a.filters(Op::Subscribe, &["1"]), Code::Ok);
    for (op, filters) in [(Op::Subscribe, ["2", "3", "4"]), (Op::Subscribe, ["4", "+/3", "#"])] {
        assert_eq!(a.filters(op, &filters), Code::Other);
        assert_eq!(reached(&mut a, &["1", "2", "3", "4", "5/3"]), ["1"]);
    }
    assert_eq!(a.filters(Op::Subscribe, &["1", "2", "2", "1", "3", "3"]), Code::Ok, "two of them are new");
    assert_eq!(reached(&mut a, &["1", "2", "3", "4"]), ["1", "2", "3"]);
    assert_eq!(a.filters(Op::Subscribe, &["1", "3"]), Code::Ok, "none of them is new");
    assert_eq!(a.filters(Op::Exclude, &["1", "2", "3", "4", "5"]), Code::Other);
    assert_eq!(reached(&mut a, &["1", "2", "3"]), ["1", "2", "3"]);
    let long = "x".repeat(65_536);
    for op in [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude] {
        assert_eq!(a.filters(op, &["1", "2", &long]), Code::BadData);
        assert_eq!(reached(&mut a, &["1", "2", "3"]), ["1", "2", "3"], "{op:?}");
    }
    assert_eq!(a.filters(Op::Unsubscribe, &["1", "2", "3", ".broker/warn"]), Code::Ok);
    assert_eq!(a.filters(Op::Subscribe, &["5", "6", "7", "8"]), Code::Ok, "refused filters do not count");
}

#[test]
fn a_denied_request_changes_nothing() {
    let broker = broker();
    let rule = |text: &str| vec![text.parse().unwrap()];
    let rules = AccessRules {
        default: Verdict::Deny,
        clients: vec![ClientRules {
            name: "a".into(),
            subscribe: rule("allow mine/#"),
            publish: rule("allow #"),
            ..ClientRules::default()
        }],
        ..AccessRules::default()
    };
    broker.host().set_access_rules(&rules).unwrap();
    let mut a = Peer::new(&broker, "a");
    assert_eq!(a.filters(Op::Subscribe, &["mine/1", "mine/+", "yours/1"]), Code::AccessDenied);
    assert_eq!(reached(&mut a, &["mine/1", "yours/1"]), [""; 0]);
    assert_eq!(a.filters(Op::Subscribe, &["mine/1", "mine/+"]), Code::Ok);
    assert_eq!(reached(&mut a, &["mine/1", "yours/1"]), ["mine/1"]);
}

#[test]
fn complex_filters_are_accepted_as_a_whole_or_refused() {
    let broker = broker_with(|settings| settings.max_complex_segments = 8 * 60);
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let complex = |at: usize| {
        let segment = |n: usize| if n == at || n < 3 { "+" } else { "t" };
        (0..20).map(segment).collect::<Vec<_>>().join("/")
    };
    let (first, second, third, fourth) = (complex(4), complex(5), complex(6), complex(7));
    let topic = ["t"; 20].join("/");
    // one client may have three of these shapes
    let all = ["plain", &first, &second, &third, &fourth];
    assert_eq!(a.filters(Op::Subscribe, &all), Code::Other);
    assert_eq!(reached(&mut a, &["plain", &topic]), [""; 0]);
    assert_eq!(a.filters(Op::Subscribe, &[&first, &first, &second, &third]), Code::Ok);
    assert_eq!(a.filters(Op::Subscribe, &[&fourth]), Code::Other);
    assert_eq!(
        a.filters(Op::Subscribe, &[&third.replace('t', "u")]),
        Code::Ok,
        "a shape that the client has already"
    );
    assert_eq!(b.filters(Op::Subscribe, &[&fourth]), Code::Ok, "another client has its own limit");
    assert_eq!(reached(&mut a, &[&topic]), [&*topic], "once");
    assert_eq!(a.filters(Op::Unsubscribe, &[&first]), Code::Ok);
    assert_eq!(a.filters(Op::Subscribe, &[&fourth]), Code::Ok);
}

#[test]
fn a_request_has_limits_that_ten_thousand_plain_filters_do_not_reach() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let filters: Vec<_> =
        (0..100_000).map(|number| format!("plant/line/sensor{number}/temperature")).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    assert_eq!(a.filters(Op::Subscribe, &filters[..10_000]), Code::Ok);
    for op in [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude] {
        assert_eq!(a.filters(op, &filters[..40_000]), Code::BadData, "{op:?}");
        assert_eq!(a.filters(op, &[&*"/".repeat(60_000); 80]), Code::BadData, "{op:?}");
    }
    assert_eq!(reached(&mut a, &[filters[0], filters[9_999], filters[10_000]]), [filters[0], filters[9_999]]);
    for some in filters[10_000..99_990].chunks(32_768) {
        assert_eq!(a.filters(Op::Subscribe, some), Code::Ok);
    }
    assert_eq!(a.filters(Op::Subscribe, &filters[99_980..]), Code::Other, "max_filters");
    assert_eq!(a.filters(Op::Subscribe, &filters[90_000..99_999]), Code::Ok);
    assert_eq!(a.filters(Op::Unsubscribe, &filters[..16_384]), Code::Ok);
    assert_eq!(reached(&mut a, &[filters[16_383], filters[16_384]]), [filters[16_384]]);
}

#[test]
fn memory_of_filters_is_limited_for_one_client_and_for_all() {
    let broker = broker_with(|settings| {
        settings.filter_memory_bytes = 1_000_000;
        settings.total_filter_memory_bytes = 2_500_000;
    });
    let long = |number: usize| format!("{number}/{}", "x".repeat(50_000));
    let take = |peer: &mut Peer| {
        (0..1000).take_while(|number| peer.filters(Op::Subscribe, &[&long(*number)]) == Code::Ok).count()
    };
    let mut peers: Vec<_> = (0..4).map(|number| Peer::new(&broker, &format!("peer{number}"))).collect();
    let taken: Vec<_> = peers.iter_mut().map(take).collect();
    assert_eq!(taken, [19, 19, 11, 2], "the last client gets the minimum of every client");
    assert_eq!(peers[3].filters(Op::Subscribe, &["a", "b/+", "c/#"]), Code::Ok);
    // the memory of a client that leaves is available to others
    assert_eq!(peers[2].filters(Op::Subscribe, &[&long(500)]), Code::Other);
    peers.remove(0);
    assert_eq!(peers[1].filters(Op::Subscribe, &[&long(500)]), Code::Ok);
}

#[test]
fn the_filters_of_a_client_that_leaves_are_removed() {
    let broker = broker();
    let mut stays = Peer::new(&broker, "stays");
    stays.subscribe(&["t/5", "t/+/deep/#"]);
    for turn in 0..3 {
        let mut leaves = Peer::new(&broker, "leaves");
        for part in 0..3 {
            let filters: Vec<_> = (0..1000).map(|number| format!("t/{}", part * 1000 + number)).collect();
            leaves.subscribe(&filters.iter().map(String::as_str).collect::<Vec<_>>());
            leaves.filters(Op::Exclude, &filters.iter().map(|f| &f[2..]).collect::<Vec<_>>());
        }
        assert_eq!((stays.publish("t/5", b"x"), stays.publish("t/6", b"x")), (2, 1), "{turn}");
        drop(leaves);
        assert_eq!((stays.publish("t/5", b"x"), stays.publish("t/6", b"x")), (1, 0), "{turn}");
        let mut next = Peer::new(&broker, "next");
        assert_eq!(
            reached(&mut next, &["t/5", "t/6"]),
            [""; 0],
            "a new client gets no filters of the previous one"
        );
    }
}

#[derive(Deserialize, Debug, PartialEq, Eq)]
struct Details {
    subscriptions: Vec<String>,
    subscription_count: u64,
    exclusions: Vec<String>,
    exclusion_count: u64,
}

fn details(broker: &Broker, name: &str) -> Details {
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", name)])).unwrap();
    rmp_serde::from_slice(&broker.host().call(&Call::by_broker("client.info", &params)).unwrap()).unwrap()
}

#[test]
fn the_filters_of_a_client_can_be_listed() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let _other = Peer::new(&broker, "other");
    let own = ["b/#", "#", "", "a/+/c", "/", "$latest/x"];
    assert_eq!(a.filters(Op::Subscribe, &own), Code::Ok);
    assert_eq!(a.filters(Op::Exclude, &["b/secret", "#"]), Code::Ok);
    let listed = details(&broker, "a");
    assert_eq!(listed.subscriptions, ["", "#", ".broker/warn", "/", "a/+/c", "b/#"]);
    assert_eq!(listed.exclusions, ["#", "b/secret"]);
    assert_eq!((listed.subscription_count, listed.exclusion_count), (6, 2));
    let listed = details(&broker, "other");
    assert_eq!((listed.subscriptions, listed.exclusions), (vec![".broker/warn".to_owned()], vec![]));
}

#[test]
fn the_list_of_filters_is_bounded() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let many: Vec<_> = (0..3000).map(|number| format!("t/{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(a.filters(Op::Subscribe, &many), Code::Ok);
    let long: Vec<_> = (0..20).map(|number| format!("{number}/{}", "x".repeat(60_000))).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    assert_eq!(a.filters(Op::Exclude, &long), Code::Ok);
    let listed = details(&broker, "a");
    assert_eq!((listed.subscriptions.len(), listed.subscription_count), (1000, 3001));
    assert_eq!((listed.exclusions.len(), listed.exclusion_count), (2, 20));
}
