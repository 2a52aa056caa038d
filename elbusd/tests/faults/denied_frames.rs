//! A client without any permission that sends targets of many segments, checked against long lists of rules.

use elbus_protocol::{
    Op, Qos,
    request::{encode_filters, encode_request},
};
use elbus_testing::attempts::three_times_at_most;
use std::time::{Duration, Instant};

use crate::support::{daemon::Daemon, level::Level, load::Load, wire::Wire};

/// The maximum length of a list.
const RULES: usize = 1000;
/// The maximum length of a target.
const TARGET_BYTES: usize = 65_535;
const ROUNDS: u32 = 30;
/// The maximum time that another client may wait for an acknowledgement, on a machine that also runs other
/// tests.
const PATIENCE: Duration = Duration::from_secs(2);

fn config() -> String {
    let rules = |patterns: [&str; 4]| {
        let rules = patterns.iter().cycle().take(RULES).map(|pattern| format!("\"deny {pattern}\""));
        rules.collect::<Vec<_>>().join(", ")
    };
    let names = rules(["?.?.?.x", "?.{name}.x", "{name}.?.?.?.?.x", "x.*"]);
    let topics = rules(["+/+/+/x", "+/{name}/x", "{name}/+/+/+/+/x", "x/#"]);
    format!(
        "[[plugin]]\nname = \"local\"\nbuiltin = \"unix\"\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\nbuiltin = \"rpc\"\n\
         [[plugin]]\nname = \"access\"\nbuiltin = \"acl\"\n[plugin.config]\n\
         [[plugin.config.client]]\nname = \"hostile.*\"\n\
         send = [{names}]\nbroadcast = [{names}]\ncall = [{names}]\n\
         publish = [{topics}]\nsubscribe = [{topics}]\n\
         [[plugin.config.client]]\nname = \"*\"\nsend = [\"allow *\"]\npublish = [\"allow #\"]\n\
         subscribe = [\"allow #\"]\ncall = [\"allow *\"]\n"
    )
}

#[test]
fn denied_frames_cost_other_clients_nothing() {
    three_times_at_most(flood_with_denied_frames);
}

fn flood_with_denied_frames() {
    let daemon = Daemon::start_config(&config());
    let load = Load::start(&daemon);
    let (mut other, mut hostile) = (daemon.client("other"), daemon.client("hostile.1"));
    let before = Level::of(&daemon);
    let flood = |hostile: &mut Wire, round: u32| {
        let (mut out, mut ids) = (Vec::new(), round * 100..round * 100);
        for (op, segment, wildcard) in [
            (Op::Message, "a.", "?."),
            (Op::Broadcast, "a.", "?."),
            (Op::Publish, "a/", "+/"),
            (Op::Subscribe, "a/", "+/"),
        ] {
            let separator = &segment[1..];
            for text in [segment, wildcard, separator, "aa"] {
                // each target is new, so no decision is cached
                let target = format!("{round}{}", text.repeat(TARGET_BYTES / text.len() - 8));
                match op {
                    Op::Subscribe => {
                        encode_filters(&mut out, ids.end, op, Qos::PROCESSED, [&*target]).unwrap()
                    }
                    _ => encode_request(&mut out, ids.end, op, Qos::PROCESSED, &target, "", b"").unwrap(),
                }
                ids.end += 1;
            }
        }
        hostile.write(&out);
        ids
    };
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        let mut ids = flood(&mut hostile, round);
        let begun = Instant::now();
        assert_eq!(other.acked(Op::Publish, "other", b""), 0x01);
        longest = longest.max(begun.elapsed());
        assert!(ids.all(|id| hostile.expect_ack(id) == 0x79), "every frame is denied");
    }
    assert!(longest < PATIENCE, "another client waited for {longest:?}");
    before.wait_for(&daemon);
    load.stop();
}
