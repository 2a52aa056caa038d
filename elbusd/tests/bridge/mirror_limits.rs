//! Limits of mirrored topics: bursts and floods of NATS programs, what a stop or a start has to do with them,
//! and one connection that is lost or not permitted while the other one is used.

use elbus_protocol::{Op, Qos};
use std::{fs, io::Write, net::TcpStream, os::unix::fs::PermissionsExt, time::Duration};

use crate::{
    link_proxy::{Direction, LinkProxy},
    nats_program::{MIRRORING, MIRRORS, Program, figure, mirrored, wait_for_drops},
    network::{NatsServer, Options, has_nats_server, node, wait_for_client, wait_for_filters},
    support::{
        daemon::{Daemon, folder},
        field, plugin, wait_until,
        wire::{Frame, Wire, numbered_frames},
    },
};

fn mirroring(url: String, more: &Options<'_>) -> Daemon {
    let daemon = node("mill", &[url], &Options { bridge: Some(MIRRORING), ..more.clone() });
    daemon.wait_for_log(MIRRORS);
    daemon
}

/// Returns how many publications of 10,000 bytes wait for local receivers.
fn waiting(witness: &mut Wire) -> u64 {
    // each counts with its topic and what it costs beside
    figure(witness, "parked_bytes", "") / (10_000 + 9 + 128)
}

/// Receives until everything is accounted for. Returns the numbers of what has arrived.
fn account_for(receiver: &mut Wire, witness: &mut Wire, count: u32) -> Vec<u32> {
    let mut got = vec![];
    wait_until("everything has arrived or is counted", || {
        while let Some(frame) = receiver.frame_within(Duration::from_millis(100)) {
            got.push(u32::from_le_bytes(frame.payload()[..4].try_into().unwrap()));
        }
        got.len() as u64 + mirrored(witness, "dropped") >= u64::from(count)
    });
    assert_eq!(got.len() as u64 + mirrored(witness, "dropped"), u64::from(count));
    assert!(got.is_sorted_by(|one, other| one < other), "repeated or out of order");
    got
}

#[test]
fn a_burst_of_short_publications_arrives_whole() {
    if !has_nats_server("bursts of NATS programs") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = mirroring(proxy.url(), &Options::default());
    let (mut receiver, mut witness) = (mill.client("receiver"), mill.client("witness"));
    receiver.subscribe(&["sensors/#"]);
    let program = Program::connect(&server, "unused");
    // what has gathered while the link was frozen comes at once
    proxy.freeze();
    const COUNT: u32 = 100_000;
    program.publish_numbered("sensors.a", COUNT, 4);
    proxy.restore();
    let got = account_for(&mut receiver, &mut witness, COUNT);
    assert_eq!(got.len(), COUNT as usize, "the receiver is fast");
}

#[test]
fn a_flood_of_long_publications_takes_limited_memory() {
    if !has_nats_server("floods of NATS programs") {
        return;
    }
    let server = NatsServer::with_config("max_payload: 8MB\nmax_pending: 512MB\n");
    let options = Options {
        unix: ", queue_bytes = 100000, stall_seconds = 60.0, timeout_seconds = 90.0",
        more: "[broker]\nhold_budget_seconds = 60.0\nhold_window_seconds = 120.0\n",
        ..Options::default()
    };
    let mill = mirroring(server.url(), &options);
    let (mut slow, mut witness) = (mill.client("slow"), mill.client("witness"));
    slow.subscribe(&["sensors/#"]);
    let before = mill.memory();
    // 600 MB
    const COUNT: u64 = 60_000;
    let mut message = b"PUB sensors.a 10000\r\n".to_vec();
    message.resize(message.len() + 10_000, b'x');
    message.extend_from_slice(b"\r\n");
    let floods = [(); 2].map(|()| {
        let mut stranger = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let message = message.clone();
        std::thread::spawn(move || {
            stranger.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
            (0..COUNT / 2).for_each(|_| stranger.write_all(&message).unwrap());
            stranger
        })
    });
    let mut most = 0;
    wait_until("everything is counted", || {
        most = most.max(mill.memory());
        mirrored(&mut witness, "dropped") + mirrored(&mut witness, "from_nats") + waiting(&mut witness)
            == COUNT
    });
    floods.into_iter().for_each(|flood| drop(flood.join().unwrap()));
    assert!(most < before + (64 << 10), "{before} KiB, then {most} KiB");
}

#[test]
fn what_a_stop_leaves_behind_is_counted_and_logged() {
    if !has_nats_server("mirrored topics that wait at a stop") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = mirroring(proxy.url(), &Options::default());
    let mut client = mill.client("m");
    proxy.freeze();
    const COUNT: u32 = 1500;
    let mut writer = client.writer();
    let frames = numbered_frames(Op::Publish, Qos::REALTIME_PROCESSED, "sensors/a", COUNT, 60_000);
    let sending = std::thread::spawn(move || writer.write(&frames));
    for number in 0..COUNT {
        assert!(matches!(client.frame(), Frame::Ack(id, 0x01 | 0x77) if id == number));
    }
    sending.join().unwrap();
    let (status, log) = mill.stop();
    assert!(status.success(), "{log}");
    assert!(!log.contains("has not ended within the deadline"), "{log}");
    let line = log.lines().find(|line| line.contains("reason=\"the bridge has stopped\""));
    let count = line.and_then(|line| line.split_once("count=")).map(|(_, rest)| rest);
    let count: usize = count.and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    // 8 MiB of them
    assert!((100..=200).contains(&count), "{count}");
}

#[test]
fn a_slow_link_does_not_end_the_connection_of_mirrored_topics() {
    if !has_nats_server("slow links of mirrored topics") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = mirroring(proxy.url(), &Options::default());
    let mut program = Program::connect(&server, "sensors.>");
    let mut client = mill.client("m");
    // 12 s, during which the server has nothing to send
    proxy.throttle(Direction::ToServer, 100_000);
    const COUNT: u32 = 120;
    client.write(&numbered_frames(Op::Publish, Qos::NO, "sensors/a", COUNT, 10_000));
    (0..COUNT).for_each(|number| assert_eq!(program.next_number(), number));
    assert!(!mill.log().contains("mirrored topics lost"), "{}", mill.log());
    assert_eq!((mirrored(&mut client, "to_nats"), mirrored(&mut client, "dropped")), (COUNT.into(), 0));
}

#[test]
fn retained_values_are_not_published_to_nats_again() {
    if !has_nats_server("mirrored topics with retained values") {
        return;
    }
    let server = NatsServer::start();
    let more = "[[plugin]]\nname = 'retained'\nlibrary = 'elbus_retain'\n\
                config = { topic = [{ filter = 'sensors/#' }] }\n";
    let mill = mirroring(server.url(), &Options { more, ..Options::default() });
    let mut client = mill.client("m");
    for number in 0..100 {
        assert_eq!(client.acked(Op::Publish, &format!("sensors/{number}"), b"old"), 0x01);
    }
    wait_until("they have reached NATS", || mirrored(&mut client, "to_nats") == 100);
    let mut program = Program::connect(&server, "sensors.>");
    client.control("plugin.reload", &[("name", "bridge")]).unwrap();
    wait_until("mirrored again", || mill.log().matches(MIRRORS).count() == 2);
    // a subscriber gets them
    let mut late = mill.client("late");
    late.subscribe(&["sensors/#"]);
    (0..100).for_each(|_| assert_eq!(late.frame().payload(), b"old"));
    assert_eq!(client.acked(Op::Publish, "sensors/end", b"end"), 0x01);
    assert_eq!(program.next(), ("sensors.end".to_owned(), "end".to_owned()));
    assert_eq!(mirrored(&mut client, "dropped"), 0);
    assert!(!mill.log().contains("mirrored publications were dropped"), "{}", mill.log());
}

#[test]
fn mirrored_topics_that_the_server_does_not_permit_are_reported_and_leave_links_alone() {
    if !has_nats_server("permissions of mirrored topics") {
        return;
    }
    let server = NatsServer::with_config(
        "authorization { users: [{ user: bridge, password: secret, permissions: { \
         publish: [\"plant.all\", \"plant.to.>\"], subscribe: \"plant.>\" } }] }\n",
    );
    let folder = folder();
    let path = folder.path().join("password");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("user = 'bridge'\npassword_file = '{}'\n{MIRRORING}", path.display());
    let options = Options { bridge: Some(&keys), ..Options::default() };
    let (mill, press) = (node("mill", &[server.url()], &options), node("press", &[server.url()], &options));
    mill.wait_for_log("NATS server reports an error");
    let mut client = mill.client("from");
    wait_until("the state names the subject", || {
        let detail = field(&plugin(&mut client, "bridge").unwrap(), "detail").to_string();
        detail.contains("; mirrored topics: ") && detail.to_lowercase().contains("permissions violation")
    });
    let mut to = press.client("to");
    wait_for_client(&mill, "@press.to");
    assert_eq!(client.send("@press.to", b"x"), 0x01);
    assert_eq!(to.frame().payload(), b"x");
}

#[test]
fn mirrored_topics_go_on_while_nodes_lose_their_connections() {
    if !has_nats_server("mirrored topics without links") {
        return;
    }
    let server = NatsServer::start();
    let options = Options { bridge: Some(MIRRORING), ..Options::default() };
    let (mill, press) = (node("mill", &[server.url()], &options), node("press", &[server.url()], &options));
    for daemon in [&mill, &press] {
        daemon.wait_for_log(MIRRORS);
        daemon.wait_for_log("joined the bus");
    }
    let mut program = Program::connect(&server, "sensors.>");
    let (mut from, mut to) = (mill.client("from"), press.client("to"));
    to.subscribe(&["sensors/#"]);
    let _probe = press.client("probe");
    wait_for_client(&mill, "@press.probe");
    wait_for_filters(&mill, "press", 1);
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stranger.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").unwrap();
    for round in 1..=3 {
        // a header that is not UTF-8
        stranger.write_all(b"HPUB plant.all 18 19\r\nNATS/1.0\r\na: \xff\r\n\r\nx\r\n").unwrap();
        for number in 0..50 {
            let topic = format!("sensors/{round}/{number}");
            assert_eq!(from.acked(Op::Publish, &topic, b"of the mill"), 0x01);
            assert_eq!(program.next().0, topic.replace('/', "."), "once, and in order");
            program.publish("sensors.program", "of the program");
            assert_eq!(program.next().1, "of the program");
        }
        wait_until("the links are used again", || {
            [&mill, &press].iter().all(|daemon| {
                let log = daemon.log();
                let (lost, again) = ("connection to NATS lost", "connected to NATS bus");
                log.matches(lost).count() == round && log.matches(again).count() == round + 1
            })
        });
        // and the server has handled the subscriptions of both
        wait_until("a message crosses", || from.send("@press.probe", b"x") == 0x01);
    }
    assert_eq!(from.acked(Op::Publish, "sensors/end", b"of the mill"), 0x01);
    let mut count = 0;
    let mut last = String::new();
    while last != "sensors/end" {
        let Frame::Data(_, sender, topic, ..) = to.frame() else { panic!("no publication") };
        count += usize::from(sender == "@nats");
        last = topic;
    }
    wait_until("those of the program have arrived once", || {
        count += usize::from(to.frame_within(Duration::from_millis(50)).is_some());
        count == 150
    });
    assert_eq!(to.frame_within(Duration::from_millis(200)), None);
    for daemon in [&mill, &press] {
        let log = daemon.log();
        assert!(!log.contains("mirrored topics lost") && !log.contains("node lost"), "{log}");
    }
}

#[test]
fn a_bridge_whose_server_is_silent_restarts_in_time() {
    if !has_nats_server("restart with a silent server") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = mirroring(proxy.url(), &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let _receiver = press.client("receiver");
    wait_for_client(&mill, "@press.receiver");
    let (mut client, mut operator) = (mill.client("m"), mill.client("operator"));
    proxy.freeze();
    // both connections have more to send than is taken
    client.write(&numbered_frames(Op::Message, Qos::REALTIME, "@press.receiver", 100, 60_000));
    client.write(&numbered_frames(Op::Publish, Qos::REALTIME, "sensors/a", 300, 60_000));
    wait_for_drops(&mill, "the server takes them too slowly");
    operator.control("plugin.reload", &[("name", "bridge")]).unwrap();
    assert!(!mill.log().contains("has not ended within the deadline"), "{}", mill.log());
    proxy.restore();
    wait_until("both are connected again", || {
        mill.log().matches(MIRRORS).count() == 2 && mill.log().matches("connected to NATS bus").count() == 2
    });
    wait_for_client(&mill, "@press.receiver");
    let mut program = Program::connect(&server, "sensors.>");
    assert_eq!(client.acked(Op::Publish, "sensors/b", b"again"), 0x01);
    while program.next_message().subject.as_str() != "sensors.b" {}
}
