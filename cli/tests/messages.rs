//! `elbus send` and `elbus publish`: the sources of payloads, and the recipients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{FrameKind, Frames};
use support::Bus;

/// Returns kind, sender, topic and payload of the next frame.
fn next(bus: &Bus, frames: &mut Frames) -> (FrameKind, String, String, Vec<u8>) {
    let frame = bus.next(frames);
    (frame.kind(), frame.sender().to_owned(), frame.topic().to_owned(), frame.payload().to_vec())
}

#[test]
fn payloads_come_from_arguments_files_and_stdin() {
    let bus = Bus::start();
    let (_display, mut frames) = bus.client("display");
    std::fs::write(bus.path("file"), b"\0of a file\xff").unwrap();
    let table: [(&[&str], &[u8], &[u8]); 9] = [
        (&["hello"], b"unused", b"hello"),
        (&["-5"], b"", b"-5"),
        (&[""], b"unused", b""),
        (&["-"], b"\0from stdin\n", b"\0from stdin\n"),
        (&[], b"from stdin", b"from stdin"),
        (&["@file"], b"", b"\0of a file\xff"),
        (&["--text", "@file"], b"", b"@file"),
        (&["--text", "-"], b"", b"-"),
        (&["--msgpack", "{\"k\":[1,\"a\"]}"], b"", b"\x81\xa1k\x92\x01\xa1a"),
    ];
    for (arguments, input, payload) in table {
        let ended = bus.run_with_input(&[&["-n", "me", "send", "display"], arguments].concat(), input);
        assert_eq!(ended.succeeded(), "", "no output");
        let expected = (FrameKind::Message, "me".to_owned(), String::new(), payload.to_vec());
        assert_eq!(next(&bus, &mut frames), expected, "{arguments:?}");
    }
}

#[test]
fn a_large_payload_arrives_whole_with_every_quality_of_service() {
    let bus = Bus::start();
    let (_display, mut frames) = bus.client("display");
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    for qos in ["no", "processed", "realtime", "realtime-processed"] {
        bus.run_with_input(&["send", "display", "--qos", qos], &large).succeeded();
        let frame = bus.next(&mut frames);
        assert!(frame.payload() == large, "{qos}: {} bytes", frame.payload().len());
        assert_eq!(frame.is_realtime(), qos.starts_with("realtime"));
    }
}

#[test]
fn a_wildcard_in_the_target_sends_a_broadcast() {
    let bus = Bus::start();
    let (_a, mut a) = bus.client("plant.a");
    let (_b, mut b) = bus.client("plant.b");
    let (_star, mut star) = bus.client("plant*");
    bus.run(&["send", "plant.?", "all"]).succeeded();
    for frames in [&mut a, &mut b] {
        let (kind, _, _, payload) = next(&bus, frames);
        assert_eq!((kind, payload), (FrameKind::Broadcast, b"all".to_vec()));
    }
    bus.run(&["send", "plant*", "one"]).succeeded();
    let (kind, _, _, payload) = next(&bus, &mut star);
    assert_eq!((kind, payload), (FrameKind::Message, b"one".to_vec()), "part of a segment is no wildcard");
    bus.run(&["send", "nobody.*", "x"]).succeeded();
}

#[test]
fn an_unregistered_target_is_an_error_if_acknowledged() {
    let bus = Bus::start();
    let failure = bus.failure(1, &["send", "nobody", "x"]);
    assert_eq!(
        failure,
        "error: no client is registered as \"nobody\": elbus broker clients lists the registered clients"
    );
    bus.run(&["send", "nobody", "x", "--qos", "no"]).succeeded();
}

#[test]
fn publications_reach_all_subscribers_or_one_receiver() {
    let bus = Bus::start();
    let (a, mut frames_a) = bus.client("a");
    let (b, mut frames_b) = bus.client("b");
    bus.runtime.block_on(async {
        a.add_filters("temperature/+").await.unwrap();
        b.add_filters("#").await.unwrap();
        b.exclude(".broker/#").await.unwrap();
    });
    bus.run(&["publish", "temperature/boiler", "71.5", "--for", "b"]).succeeded();
    bus.run(&["publish", "temperature/boiler", "72"]).succeeded();
    let topic = || "temperature/boiler".to_owned();
    let (_, _, shown, payload) = next(&bus, &mut frames_b);
    assert_eq!((shown, payload), (topic(), b"71.5".to_vec()));
    for frames in [&mut frames_a, &mut frames_b] {
        let (kind, _, shown, payload) = next(&bus, frames);
        assert_eq!((kind, shown, payload), (FrameKind::Publish, topic(), b"72".to_vec()));
    }
}

#[test]
fn verbose_prints_details() {
    let bus = Bus::start();
    let ended = bus.run(&["-v", "-n", "me", "publish", "a/b", "12345"]);
    assert_eq!(ended.code, 0);
    assert_eq!(ended.stderr, format!("connected to {} as me\npublished 5 bytes to a/b\n", bus.address()));
}
