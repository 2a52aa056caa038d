//! Publications: to interested nodes only, one hop, with subscription options and retained values.

use elbus_protocol::{FrameKind, Op};
use std::time::Duration;

use crate::{
    network::{NatsServer, Options, has_nats_server, node, nodes, wait_for_filters, wait_for_nodes},
    support::{
        wait_until,
        wire::{Frame, Wire},
    },
};

fn publication(client: &mut Wire) -> (String, String, Vec<u8>) {
    let Frame::Data(FrameKind::Publish, sender, topic, payload, _) = client.frame() else {
        panic!("no publication")
    };
    (sender, topic, payload)
}

#[test]
fn a_publication_reaches_each_interested_node_once_and_goes_no_further() {
    if !has_nats_server("topics") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press, saw] = nodes(["mill", "press", "saw"], &server);
    let (mut at_mill, mut at_press, mut at_saw) = (mill.client("m"), press.client("p"), saw.client("s"));
    at_press.subscribe(&["sensors/#"]);
    at_saw.subscribe(&["sensors/+", "$latest/sensors/boiler"]);
    wait_for_filters(&mill, "press", 1);
    wait_for_filters(&mill, "saw", 2);
    wait_for_filters(&press, "saw", 2);
    for number in 0..100u8 {
        assert_eq!(at_mill.acked(Op::Publish, "sensors/boiler", &[number]), 0x01);
    }
    for number in 0..100u8 {
        let expected = ("@mill.m".to_owned(), "sensors/boiler".to_owned(), vec![number]);
        assert_eq!(publication(&mut at_press), expected);
        assert_eq!(publication(&mut at_saw), expected, "a second hop would repeat some");
    }
    // nobody else is interested: nothing leaves the node
    assert_eq!(at_press.acked(Op::Publish, "other", b"x"), 0x01);
    assert_eq!(at_press.acked(Op::Publish, "sensors/end", b"end"), 0x01);
    assert_eq!(publication(&mut at_saw).0, "@press.p");
    assert_eq!(publication(&mut at_press).0, "p", "its own");

    // interest ends with the subscription and with its client
    assert_eq!(at_saw.filters(Op::Unsubscribe, &["sensors/+", "$latest/sensors/boiler"]), 0x01);
    wait_for_filters(&mill, "saw", 0);
    drop(at_press);
    wait_for_filters(&mill, "press", 0);
}

#[test]
fn subscriptions_of_before_the_bridge_count_and_those_with_options_hold_at_the_far_side() {
    if !has_nats_server("options") {
        return;
    }
    let server = NatsServer::start();
    let mill = node("mill", &[server.url()], &Options::default());
    // the node starts, and its clients subscribe, before it is linked
    let press = node("press", &["nats://127.0.0.1:1".to_owned(), server.url()], &Options::default());
    let (mut one, mut other) = (press.client("one"), press.client("other"));
    one.subscribe(&["$share/g/jobs/#"]);
    other.subscribe(&["$share/g/jobs/#"]);
    wait_for_nodes(&mill, 1);
    wait_for_filters(&mill, "press", 1);
    let mut at_mill = mill.client("m");
    for number in 0..100u8 {
        assert_eq!(at_mill.acked(Op::Publish, "jobs/a", &[number]), 0x01);
    }
    let mut got = [vec![], vec![]];
    wait_until("each job has gone to one of the two", || {
        for (client, got) in [&mut one, &mut other].into_iter().zip(&mut got) {
            while let Some(frame) = client.frame_within(Duration::from_millis(10)) {
                got.push(frame.payload()[0]);
            }
        }
        got.iter().map(Vec::len).sum::<usize>() >= 100
    });
    let [mut all, more] = got;
    assert!(!all.is_empty() && !more.is_empty(), "{all:?} {more:?}");
    all.extend(more);
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_late_subscriber_of_another_node_gets_retained_values_through_the_bridge() {
    if !has_nats_server("retained values") {
        return;
    }
    let server = NatsServer::start();
    let more = "[[plugin]]\nname = 'retained'\nlibrary = 'elbus_retain'\nconfig = { topic = [{ filter = 'sensors/#' }] }\n";
    let options = Options { more, ..Options::default() };
    let mill = node("mill", &[server.url()], &options);
    let press = node("press", &[server.url()], &Options::default());
    wait_for_nodes(&mill, 1);
    wait_for_nodes(&press, 1);
    let mut at_mill = mill.client("m");
    for topic in ["sensors/a", "sensors/b"] {
        assert_eq!(at_mill.acked(Op::Publish, topic, topic.as_bytes()), 0x01);
    }
    let mut late = press.client("late");
    late.subscribe(&["sensors/#"]);
    let mut got = [publication(&mut late).1, publication(&mut late).1];
    got.sort();
    assert_eq!(got, ["sensors/a", "sensors/b"]);
}
