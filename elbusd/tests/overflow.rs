//! The overflow policy "latest" of a transport and of a name, over real sockets: a client with plain filters
//! that does not read holds nobody, and gets the newest publication of each topic when it reads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{FrameKind, Op, Qos};
use std::collections::BTreeMap;
use support::{
    daemon::Daemon,
    field,
    wire::{Frame, Wire, numbered_frames},
};

const COUNT: u32 = 20_000;
const OK: u8 = 0x01;

fn number(frame: &Frame) -> u32 {
    u32::from_le_bytes(frame.payload()[..4].try_into().unwrap())
}

/// Publishes numbers to both topics. Each is acknowledged, although nobody reads.
fn publish(publisher: &mut Wire) {
    let mut writer = publisher.writer();
    let writing = std::thread::spawn(move || {
        for topic in ["t/1", "t/2"] {
            writer.write(&numbered_frames(Op::Publish, Qos::PROCESSED, topic, COUNT, 1000));
        }
    });
    for number in (0..COUNT).chain(0..COUNT) {
        assert_eq!(publisher.expect_ack(number), OK);
    }
    writing.join().unwrap();
}

/// Reads until the last number of each topic; returns how many publications came.
fn read_newest(slow: &mut Wire) -> u32 {
    let (mut last, mut count) = (BTreeMap::new(), 0);
    while last.values().filter(|last| **last == COUNT - 1).count() < 2 {
        let frame = slow.frame();
        let Frame::Data(FrameKind::Publish, _, topic, ..) = &frame else { panic!("{frame:?}") };
        let number = number(&frame);
        let before = last.insert(topic.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{number} of {topic} after {before:?}");
        count += 1;
    }
    count
}

#[test]
fn a_transport_keeps_the_newest_values_for_slow_clients() {
    let daemon = Daemon::start_config(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", queue_bytes = 100000, timeout_seconds = 600.0 }
        [[plugin]]
        name = "panels"
        library = "elbus_unix"
        config = { path = "panels.sock", queue_bytes = 100000, overflow = "latest", timeout_seconds = 600.0 }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#,
    );
    let (mut witness, mut publisher) = (daemon.client("witness"), daemon.client("publisher"));
    let panels = format!("unix:{}", daemon.path("panels.sock").display());
    let mut slow = Wire::connect(&daemon, &panels, "slow");
    slow.subscribe(&["t/#"]);
    publish(&mut publisher);
    let info = witness.control("client.info", &[("name", "slow")]).unwrap();
    assert_eq!(field(&info, "overflow").as_str(), Some("latest"));
    let waiting = field(&info, "options").as_array().unwrap()[0].clone();
    assert_eq!(field(&waiting, "filter").as_str(), Some(""));
    assert!(field(&waiting, "replaced").as_u64().unwrap() > u64::from(COUNT), "{waiting:?}");
    assert!(read_newest(&mut slow) < COUNT / 2);
    // messages are no values: they hold their sender, or are refused, as with the policy "block"
    assert_eq!(witness.send("slow", b"one of a kind"), OK);
    assert_eq!(slow.frame().payload(), b"one of a kind");
}

#[test]
fn rules_set_the_policy_of_a_name_and_a_reload_changes_it() {
    let config = |overflow: &str| {
        format!(
            r#"
            [[plugin]]
            name = "local"
            library = "elbus_unix"
            config = {{ path = "bus.sock", queue_bytes = 100000, timeout_seconds = 600.0 }}
            [[plugin]]
            name = "rpc"
            library = "elbus_rpc"
            [[plugin]]
            name = "acl"
            library = "elbus_acl"
            [[plugin.config.client]]
            name = "panel.*"
            subscribe = ["allow #"]
            {overflow}
            [[plugin.config.client]]
            name = "*"
            send = ["allow *"]
            publish = ["allow #"]
            call = ["allow *"]
            "#
        )
    };
    let daemon = Daemon::start_config(&config("overflow = \"latest\""));
    let (mut witness, mut publisher) = (daemon.client("witness"), daemon.client("publisher"));
    let mut slow = daemon.client("panel.slow");
    slow.subscribe(&["t/#"]);
    publish(&mut publisher);
    assert!(read_newest(&mut slow) < COUNT / 2);

    std::fs::write(daemon.path("broker.toml"), config("")).unwrap();
    witness.control("config.reload", &[]).unwrap();
    let info = witness.control("client.info", &[("name", "panel.slow")]).unwrap();
    assert_eq!(field(&info, "overflow").as_str(), Some("block"), "{info}");
    // from now on every publication arrives
    let mut writer = publisher.writer();
    let writing = std::thread::spawn(move || {
        writer.write(&numbered_frames(Op::Publish, Qos::NO, "t/1", COUNT, 1000));
        writer
    });
    for expected in 0..COUNT {
        assert_eq!(number(&slow.frame()), expected);
    }
    drop(writing.join().unwrap());
}
