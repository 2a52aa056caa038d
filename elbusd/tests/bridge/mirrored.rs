//! Mirrored topics: plain NATS programs and clients of the bus, in both directions.

use async_nats::HeaderMap;
use elbus_protocol::{FrameKind, Op};
use std::time::Duration;
use tokio::{runtime::Builder, time::timeout};

use crate::{
    network::{NatsServer, Options, has_nats_server, node, wait_for_filters, wait_for_nodes},
    support::{
        PATIENCE,
        wire::{Frame, Wire},
    },
};

const MIRRORING: &str = "export = { names = ['*'], topics = ['#'] }\nimport = { names = ['*'], topics = ['#'] }\n\
                         mirror = ['sensors/#']\n";

/// A program that knows NATS and not ELBUS.
struct Program {
    runtime: tokio::runtime::Runtime,
    client: async_nats::Client,
    subscriber: async_nats::Subscriber,
}

impl Program {
    fn connect(server: &NatsServer, subject: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, subscriber) = runtime.block_on(async {
            let client = async_nats::connect(server.url()).await.unwrap();
            let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
            client.flush().await.unwrap();
            (client, subscriber)
        });
        Program { runtime, client, subscriber }
    }

    fn publish(&self, subject: &str, payload: &'static str) {
        self.runtime.block_on(async {
            self.client.publish(subject.to_owned(), payload.into()).await.unwrap();
            self.client.flush().await.unwrap();
        });
    }

    fn publish_as_bridge(&self, subject: &str, bus: &str, payload: &'static str) {
        let mut headers = HeaderMap::new();
        headers.insert("Elbus-Bus", bus);
        self.runtime.block_on(async {
            self.client.publish_with_headers(subject.to_owned(), headers, payload.into()).await.unwrap();
        });
    }

    fn next(&mut self) -> (String, String) {
        use futures_util::StreamExt;
        let subscriber = &mut self.subscriber;
        let next = async { timeout(PATIENCE, subscriber.next()).await };
        let message = self.runtime.block_on(next).unwrap().unwrap();
        (message.subject.to_string(), String::from_utf8(message.payload.to_vec()).unwrap())
    }
}

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
        bridge: Some("mirror = ['sensors/boiler', 'sensors/+', 'sensors/#', 'sensors/+']\n"),
        ..Options::default()
    };
    let mill = node("mill", &[server.url()], &options);
    mill.wait_for_log("connected to NATS");
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

fn sender_of(client: &mut Wire) -> String {
    let Frame::Data(_, sender, ..) = client.frame() else { panic!("no publication") };
    sender
}
