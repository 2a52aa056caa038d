//! Rate limits: what a client can send per second, from its first byte on, even if it reconnects.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use std::time::{Duration, Instant};
use support::{
    daemon::{BOTH, Daemon},
    plugin_source,
    wire::{Frame, Wire},
};

fn config(code: &str, limits: &str) -> String {
    let source = |plugin: &str| plugin_source(code, plugin);
    format!(
        "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"network\"\n{}\nconfig = {{ bind = \"127.0.0.1:0\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"access\"\n{}\n[plugin.config]\ndefault = \"allow\"\n\
         [[plugin.config.client]]\nname = \"hostile.*\"\n\
         send = [\"allow *\"]\nlimits = {{ {limits} }}\n",
        source("unix"),
        source("tcp"),
        source("acl"),
    )
}

fn messages(target: &str, count: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    (0..count).for_each(|n| encode_request(&mut out, n, Op::Message, Qos::NO, target, "", payload).unwrap());
    out
}

/// Writes the handshake and all requests at once, as the protocol permits.
fn all_at_once(name: &str, requests: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap().to_le_bytes();
    [&[0xEB, 1, 0][..], &length, name.as_bytes(), requests].concat()
}

#[test]
fn rate_limits_count_the_first_read() {
    for code in BOTH {
        for (limits, count, payload, at_least) in [
            // 10 at once, then 10 per second
            ("messages_per_second = 10", 25, 1, Duration::from_millis(1400)),
            // 20 kB at once, then 20 kB per second; a read beyond that is delayed before any of it is
            // dispatched
            ("bytes_per_second = 20000", 50, 1000, Duration::from_millis(1400)),
        ] {
            let daemon = Daemon::start_config(&config(code, limits));
            for (index, address) in daemon.addresses().iter().enumerate() {
                // skips announcements about the previous client
                let name = format!("target.{index}");
                let mut target = Wire::connect(&daemon, address, &name);
                let mut hostile = Wire::raw(&daemon, address);
                let begun = Instant::now();
                let requests = messages(&name, if payload == 1 { 2000 } else { count }, &vec![b'x'; payload]);
                hostile.write(&all_at_once(&format!("hostile.{index}"), &requests));
                for n in 0..count {
                    assert!(matches!(target.frame(), Frame::Data(..)), "{limits}: {n}");
                }
                assert!(begun.elapsed() >= at_least, "{limits}: {count} in {:?}", begun.elapsed());
            }
        }
    }
}

#[test]
fn reconnecting_does_not_refill_the_rate_limit() {
    const RATE: u32 = 100;
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, &format!("messages_per_second = {RATE}")));
        for address in daemon.addresses() {
            let mut target = Wire::connect(&daemon, &address, "target");
            let begun = Instant::now();
            let (mut sent, mut connections) = (0, 0);
            // the burst at once, then the same under another name
            while begun.elapsed() < Duration::from_secs(2) {
                let mut hostile = Wire::connect(&daemon, &address, &format!("hostile.{connections}"));
                connections += 1;
                for _ in 0..RATE {
                    hostile.request(Op::Message, Qos::PROCESSED, "target", "", b"x");
                    match hostile.frame_within(Duration::from_millis(15)) {
                        Some(Frame::Ack(..)) => sent += 1,
                        _ => break,
                    }
                }
            }
            let may = f64::from(RATE) * (begun.elapsed().as_secs_f64() + 1.0);
            assert!(
                f64::from(sent) < 1.5 * may,
                "{sent} messages over {connections} connections, the limit is {may}"
            );
            (0..sent).for_each(|_| assert!(matches!(target.frame(), Frame::Data(..))));
            // clients without a limit stay unlimited
            let mut other = Wire::connect(&daemon, &address, "other");
            let begun = Instant::now();
            // half a minute with the limit
            (0..30 * RATE).for_each(|_| assert_eq!(other.send("other", b"x"), 0x01));
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        }
    }
}
