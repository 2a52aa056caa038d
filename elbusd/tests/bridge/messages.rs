//! Clients of two nodes: names, messages, broadcasts, calls, and acknowledgements that are true.

use elbus_protocol::{FrameKind, Op, Qos, rpc};

use crate::{
    network::{
        NatsServer, Options, has_nats_server, node, node_list, nodes, wait_for_client, wait_for_nodes,
        wait_until_gone,
    },
    support::{
        field, wait_until,
        wire::{Frame, numbered_frames},
    },
};

#[test]
fn a_message_crosses_and_its_acknowledgement_comes_from_the_far_broker() {
    if !has_nats_server("messages") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (mut pump, mut panel) = (mill.client("plant.pump"), press.client("plant.panel"));
    wait_for_client(&press, "@mill.plant.pump");
    wait_for_client(&mill, "@press.plant.panel");
    assert_eq!(panel.send("@mill.plant.pump", b"start"), 0x01);
    let expected =
        Frame::Data(FrameKind::Message, "@press.plant.panel".into(), String::new(), b"start".to_vec(), false);
    assert_eq!(pump.frame(), expected);
    assert_eq!(pump.send("@press.plant.panel", b"started"), 0x01);
    assert_eq!(panel.frame().payload(), b"started");

    // nothing shadows a local name, and what is not there is not there
    assert_eq!(panel.send("plant.pump", b"x"), 0x71);
    assert_eq!(panel.send("@mill.nobody", b"x"), 0x71);
    assert_eq!(panel.send("@nowhere.plant.pump", b"x"), 0x71);

    // a client that leaves is gone on the other node as well
    drop(pump);
    wait_until_gone(&press, "@mill.plant.pump");
    assert_eq!(panel.send("@mill.plant.pump", b"x"), 0x71);
}

#[test]
fn order_is_kept_and_everything_arrives_once() {
    if !has_nats_server("order") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (mut to, mut from) = (mill.client("to"), press.client("from"));
    wait_for_client(&press, "@mill.to");
    const COUNT: u32 = 20_000;
    let mut writer = from.writer();
    let sending = std::thread::spawn(move || {
        writer.write(&numbered_frames(Op::Message, Qos::PROCESSED, "@mill.to", COUNT, 100));
    });
    for number in 0..COUNT {
        assert_eq!(to.frame().payload()[..4], number.to_le_bytes());
    }
    for number in 0..COUNT {
        assert_eq!(from.frame(), Frame::Ack(number, 0x01));
    }
    sending.join().unwrap();
}

#[test]
fn long_messages_cross_whole_and_do_not_hold_up_short_ones_of_others() {
    if !has_nats_server("long messages") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (mut to, mut from) = (mill.client("to"), press.client("from"));
    wait_for_client(&press, "@mill.to");
    for bytes in [0, 1, 65_535, 65_536, 65_537, 1 << 20, 5 << 20] {
        let payload: Vec<u8> = (0..bytes).map(|at: usize| (at * 7 + at / 256) as u8).collect();
        let id = from.request(Op::Message, Qos::PROCESSED, "@mill.to", "", &payload);
        assert!(to.frame().payload() == payload, "{bytes}");
        assert_eq!(from.expect_ack(id), 0x01);
    }
}

#[test]
fn broadcasts_reach_other_nodes_only_if_they_name_them() {
    if !has_nats_server("broadcasts") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (mut one, mut other, mut from) =
        (mill.client("plant.1"), mill.client("plant.2"), press.client("plant.3"));
    wait_for_client(&press, "@mill.plant.1");
    wait_for_client(&press, "@mill.plant.2");
    for mask in ["plant.*", "*", "?.plant.?"] {
        assert_eq!(from.acked(Op::Broadcast, mask, mask.as_bytes()), 0x01);
    }
    assert_eq!(from.acked(Op::Broadcast, "@mill.plant.*", b"all of the mill"), 0x01);
    for client in [&mut one, &mut other] {
        let Frame::Data(kind, sender, _, payload, _) = client.frame() else { panic!("no broadcast") };
        assert_eq!(
            (kind, &*sender, &*payload),
            (FrameKind::Broadcast, "@press.plant.3", &b"all of the mill"[..])
        );
    }
}

#[test]
fn calls_are_answered_across_and_secondaries_get_their_replies() {
    if !has_nats_server("calls") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let mut callee = mill.client("callee");
    let (_primary, mut secondary, mut caller) =
        (press.client("caller"), press.client("caller%%1"), press.client("other"));
    wait_for_client(&press, "@mill.callee");
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            let Frame::Data(_, sender, _, payload, _) = callee.frame() else { panic!("no call") };
            let rpc::RpcFrame::Request { call_id, params, .. } = rpc::decode_rpc(&payload).unwrap() else {
                panic!("no request")
            };
            let reply = rpc::encode_reply(call_id, &[params, b" to ", sender.as_bytes()].concat());
            assert_eq!(callee.send(&sender, &reply), 0x01, "{sender}");
        }
    });
    assert_eq!(caller.call("@mill.callee", "echo", b"a").unwrap(), b"a to @press.other");
    assert_eq!(secondary.call("@mill.callee", "echo", b"b").unwrap(), b"b to @press.caller%%1");
    answering.join().unwrap();
    // the methods of another broker are its own
    assert_eq!(caller.send("@mill..broker", b"x"), 0x71);
}

#[test]
fn only_what_is_exported_and_imported_is_seen() {
    if !has_nats_server("exports") {
        return;
    }
    let server = NatsServer::start();
    let bridge = |text: &'static str| Options { bridge: Some(text), ..Options::default() };
    let mill = node(
        "mill",
        &[server.url()],
        &bridge("export = { names = ['plant.*'] }\nimport = { names = ['@press.*'] }"),
    );
    let press = node(
        "press",
        &[server.url()],
        &bridge(
            "export = { names = ['*'] }\nimport = { names = ['@mill.plant.pump', '@mill.plant.saw as saw'] }",
        ),
    );
    wait_for_nodes(&mill, 1);
    let _clients = ["plant.pump", "plant.saw", "plant.lamp", "lathe"].map(|name| mill.client(name));
    let mut panel = press.client("panel");
    wait_for_client(&press, "@mill.plant.pump");
    wait_for_client(&press, "saw");
    assert_eq!(panel.send("saw", b"by its alias"), 0x01);
    for absent in ["@mill.plant.lamp", "@mill.lathe", "@mill.plant.saw"] {
        assert_eq!(panel.send(absent, b"x"), 0x71, "{absent}");
    }
    let mut lathe = mill.client("lathe.2");
    let list = press.client("test").control("client.list", &[]).unwrap();
    let names: Vec<_> =
        field(&list, "clients").as_array().unwrap().iter().map(|c| field(c, "name").to_string()).collect();
    assert!(!names.iter().any(|name| name.contains("@mill") || name.contains("\"saw\"")), "{names:?}");

    // a client that is not exported can send, and gets an answer
    wait_for_client(&mill, "@press.panel");
    assert_eq!(lathe.send("@press.panel", b"hello"), 0x01);
    let Frame::Data(_, sender, _, payload, _) = panel.frame() else { panic!("no message") };
    assert_eq!((&*sender, &*payload), ("@mill.lathe.2", &b"hello"[..]));
    assert_eq!(panel.send("@mill.lathe.2", b"good morning"), 0x01);
    assert_eq!(lathe.frame().payload(), b"good morning");
}

#[test]
fn nodes_are_listed_with_their_state() {
    if !has_nats_server("nodes") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (_pump, mut witness) = (press.client("plant.pump"), mill.client("witness"));
    wait_for_client(&mill, "@press.plant.pump");
    let list = node_list(&mut witness);
    assert_eq!(
        (list.len(), field(&list[0], "name").as_str(), field(&list[0], "bus").as_str()),
        (1, Some("press"), Some("plant"))
    );
    press.stop();
    wait_until("the node is lost", || {
        node_list(&mut witness).iter().all(|node| field(node, "state").as_str() == Some("lost"))
    });
    wait_until_gone(&mill, "@press.plant.pump");
}
