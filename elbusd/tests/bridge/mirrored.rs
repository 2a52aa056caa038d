//! Mirrored topics: plain NATS programs and clients of the bus, in both directions, and what does not fit.

use elbus_protocol::{FrameKind, Op, Qos};
use std::{io::Write, net::TcpStream, time::Duration};

use crate::{
    link_proxy::LinkProxy,
    nats_program::{MIRRORING, MIRRORS, Program, figure, mirrored, wait_for_drops},
    network::{
        NatsServer, Options, has_nats_server, node, wait_for_client, wait_for_filters, wait_for_nodes,
    },
    support::{
        wait_until,
        wire::{Frame, Wire, numbered_frames},
    },
};

#[test]
fn programs_of_nats_and_clients_of_the_bus_share_mirrored_topics_without_loops() {
    if !has_nats_server("mirror") {
        return;
    }
    let server = NatsServer::start();
    let options = Options { bridge: Some(MIRRORING), ..Options::default() };
    let (mill, press) = (node("mill", &[server.url()], &options), node("press", &[server.url()], &options));
    wait_for_nodes(&mill, 1);
    wait_for_nodes(&press, 1);
    mill.wait_for_log(MIRRORS);
    press.wait_for_log(MIRRORS);
    let mut program = Program::connect(&server, "sensors.>");
    let (mut at_mill, mut at_press) = (mill.client("m"), press.client("p"));
    at_mill.subscribe(&["sensors/#"]);
    at_press.subscribe(&["sensors/#"]);
    wait_for_filters(&mill, "press", 1);
    wait_for_filters(&press, "mill", 1);

    // from NATS: each node publishes it to its own clients, once
    program.publish("sensors.boiler//1.temperature", "71.5");
    assert_eq!(program.next().1, "71.5", "its own");
    for client in [&mut at_mill, &mut at_press] {
        let Frame::Data(kind, sender, topic, payload, _) = client.frame() else { panic!("nothing") };
        assert_eq!((kind, &*sender, &*topic), (FrameKind::Publish, "@nats", "sensors/boiler.1/temperature"));
        assert_eq!(payload, b"71.5");
    }
    // what claims to come from a bridge of this bus is ignored
    program.publish_as_bridge("sensors.fake", "plant", "x");
    assert_eq!(program.next().1, "x", "its own");

    // to NATS: once, although two nodes mirror the topic
    assert_eq!(at_mill.acked(Op::Publish, "sensors/a b", b"20.5"), 0x01);
    assert_eq!(program.next(), ("sensors.a%20b".to_owned(), "20.5".to_owned()));
    program.publish("sensors.end", "end");
    assert_eq!(program.next(), ("sensors.end".to_owned(), "end".to_owned()), "nothing is repeated");
    // the two ways to the other node are not ordered
    for (client, sender) in [(&mut at_mill, "m"), (&mut at_press, "@mill.m")] {
        let mut senders = [sender_of(client), sender_of(client)];
        senders.sort();
        assert_eq!(senders, if sender < "@nats" { [sender, "@nats"] } else { ["@nats", sender] });
        assert_eq!(client.frame_within(Duration::from_millis(200)), None);
    }
}

#[test]
fn what_several_filters_mirror_arrives_once() {
    if !has_nats_server("overlapping mirrors") {
        return;
    }
    let server = NatsServer::start();
    let options = Options {
        bridge: Some(
            "mirror = ['sensors/boiler', 'sensors/+', 'sensors/pump/+', 'sensors/+/1', 'sensors/+']\n",
        ),
        ..Options::default()
    };
    let mill = node("mill", &[server.url()], &options);
    mill.wait_for_log(MIRRORS);
    let mut client = mill.client("m");
    client.subscribe(&["sensors/#"]);
    let mut program = Program::connect(&server, "sensors.>");
    for (subject, payload) in [("sensors.boiler", "1"), ("sensors.pump", "2"), ("sensors.pump.1", "3")] {
        program.publish(subject, payload);
        assert_eq!(program.next().1, payload, "its own");
        let Frame::Data(_, sender, _, received, _) = client.frame() else { panic!("nothing") };
        assert_eq!((&*sender, received), ("@nats", payload.as_bytes().to_vec()));
    }
    assert_eq!(client.acked(Op::Publish, "sensors/pump", b"4"), 0x01);
    assert_eq!(program.next(), ("sensors.pump".to_owned(), "4".to_owned()));
    program.publish("sensors.end", "end");
    assert_eq!(program.next(), ("sensors.end".to_owned(), "end".to_owned()), "nothing is repeated");
    let mut received = [client.frame(), client.frame()].map(|frame| match frame {
        Frame::Data(_, _, _, payload, _) => payload,
        frame => panic!("{frame:?}"),
    });
    received.sort();
    assert_eq!(received, [b"4".to_vec(), b"end".to_vec()]);
    assert_eq!(client.frame_within(Duration::from_millis(200)), None);
}

#[test]
fn what_cannot_be_read_on_a_mirrored_subject_does_not_end_the_links_of_nodes() {
    if !has_nats_server("unreadable mirrored message") {
        return;
    }
    let server = NatsServer::start();
    let options = Options { bridge: Some(MIRRORING), ..Options::default() };
    let (mill, press) = (node("mill", &[server.url()], &options), node("press", &[server.url()], &options));
    wait_for_nodes(&mill, 1);
    mill.wait_for_log(MIRRORS);
    press.wait_for_log(MIRRORS);
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    // a header that is not UTF-8
    let text = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB sensors.a 18 19\r\nNATS/1.0\r\na: \xff\r\n\r\nx\r\n";
    stranger.write_all(text).unwrap();
    for daemon in [&mill, &press] {
        daemon.wait_for_log("connection to NATS for mirrored topics lost");
    }
    let (mut from, mut to) = (mill.client("from"), press.client("to"));
    wait_for_client(&mill, "@press.to");
    assert_eq!(from.send("@press.to", b"x"), 0x01);
    assert_eq!(to.frame().payload(), b"x");
    // topics are mirrored again
    wait_until("both are connected again", || {
        [&mill, &press].iter().all(|daemon| daemon.log().matches(MIRRORS).count() == 2)
    });
    let mut program = Program::connect(&server, "sensors.>");
    assert_eq!(from.acked(Op::Publish, "sensors/b", b"1"), 0x01);
    assert_eq!(program.next(), ("sensors.b".to_owned(), "1".to_owned()));
    for daemon in [&mill, &press] {
        assert!(!daemon.log().contains("node lost"), "{}", daemon.log());
        assert!(!daemon.log().contains("connection to NATS lost"), "{}", daemon.log());
    }
}

fn sender_of(client: &mut Wire) -> String {
    let Frame::Data(_, sender, ..) = client.frame() else { panic!("no publication") };
    sender
}

#[test]
fn a_publication_that_nats_cannot_carry_is_counted_and_logged() {
    if !has_nats_server("mirrored topics without a subject") {
        return;
    }
    let server = NatsServer::with_config("max_payload: 250000\n");
    let mill = node("mill", &[server.url()], &Options { bridge: Some(MIRRORING), ..Options::default() });
    mill.wait_for_log(MIRRORS);
    let mut program = Program::connect(&server, "sensors.>");
    let mut client = mill.client("m");
    let long = format!("sensors/{}", "x".repeat(3000));
    assert_eq!(client.acked(Op::Publish, &long, b"x"), 0x01);
    assert_eq!(client.acked(Op::Publish, "sensors/long", &[0; 300_000]), 0x01);
    assert_eq!(client.acked(Op::Publish, "sensors/end", b"end"), 0x01);
    assert_eq!(program.next(), ("sensors.end".to_owned(), "end".to_owned()));
    wait_for_drops(&mill, "the topic is too long for a subject");
    wait_for_drops(&mill, "the payload is longer than the server accepts (max_payload)");
    wait_until("the counters are right", || {
        (mirrored(&mut client, "to_nats"), mirrored(&mut client, "dropped")) == (1, 2)
    });
}

#[test]
fn what_the_server_does_not_take_is_refused_and_counted() {
    if !has_nats_server("overflow of mirrored topics") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options { bridge: Some(MIRRORING), ..Options::default() });
    mill.wait_for_log(MIRRORS);
    let (mut client, mut witness) = (mill.client("m"), mill.client("witness"));
    proxy.freeze();
    // 90 MB: real-time messages do not hold their sender
    const COUNT: u32 = 1500;
    let mut writer = client.writer();
    let frames = numbered_frames(Op::Publish, Qos::REALTIME_PROCESSED, "sensors/a", COUNT, 60_000);
    let sending = std::thread::spawn(move || writer.write(&frames));
    let mut refused = 0;
    for number in 0..COUNT {
        match client.frame() {
            Frame::Ack(id, 0x01) => assert_eq!(id, number),
            Frame::Ack(id, 0x77) => {
                assert_eq!(id, number);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    sending.join().unwrap();
    assert!(refused > 0, "90 MB are not queued");
    wait_for_drops(&mill, "the server takes them too slowly");
    proxy.restore();
    wait_until("everything is accounted for", || {
        let dropped = mirrored(&mut witness, "dropped");
        // more are dropped if the connection was lost meanwhile
        dropped >= refused && mirrored(&mut witness, "to_nats") + dropped == u64::from(COUNT)
    });
}

#[test]
fn what_nats_programs_publish_too_fast_is_dropped_and_counted() {
    if !has_nats_server("slow receivers of NATS programs") {
        return;
    }
    let server = NatsServer::start();
    let options = Options {
        bridge: Some(MIRRORING),
        unix: ", queue_bytes = 100000, stall_seconds = 60.0, timeout_seconds = 90.0",
        more: "[broker]\nhold_budget_seconds = 60.0\nhold_window_seconds = 120.0\n",
        ..Options::default()
    };
    let mill = node("mill", &[server.url()], &options);
    mill.wait_for_log(MIRRORS);
    let (mut slow, mut witness) = (mill.client("slow"), mill.client("witness"));
    slow.subscribe(&["sensors/#"]);
    let program = Program::connect(&server, "unused");
    // 30 MB, of which some 8 MiB wait for the receiver
    const COUNT: u32 = 3000;
    program.publish_numbered("sensors.a", COUNT, 10_000);
    wait_for_drops(&mill, "local subscribers take what NATS programs publish too slowly");
    wait_until("the waiting bytes are seen", || figure(&mut witness, "parked_bytes", "") > 4 << 20);
    let mut got = vec![];
    wait_until("everything is accounted for", || {
        while let Some(frame) = slow.frame_within(Duration::from_millis(100)) {
            got.push(u32::from_le_bytes(frame.payload()[..4].try_into().unwrap()));
        }
        got.len() as u64 + mirrored(&mut witness, "dropped") == u64::from(COUNT)
    });
    assert!(got.len() > 100 && got.is_sorted_by(|one, other| one < other), "repeated or out of order");
}
