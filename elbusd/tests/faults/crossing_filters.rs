//! Clients whose filters all match one topic, floods of requests with filters, and other clients beside them,
//! which are served in time and stay connected.

use elbus_protocol::{
    Op, Qos,
    request::{encode_filters, encode_request},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use crate::support::{
    daemon::{BOTH, Daemon},
    rounds,
    wire::Wire,
};

const SEGMENTS: usize = 18;
/// Far more than a message takes beside the hostile clients, even without optimisation on a busy machine.
/// Without limits it would take minutes.
const WORST: Duration = Duration::from_secs(10);

/// A client that sends to itself until it is stopped, and returns the longest time a message took.
struct OtherClient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl OtherClient {
    fn start(mut client: Wire, name: &'static str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        client.subscribe(&["other/+/data"]);
        let thread = spawn(move || {
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(client.send(name, b"x"), 0x01);
                assert_eq!(client.frame().payload(), b"x");
                worst = worst.max(begun.elapsed());
            }
            worst
        });
        OtherClient { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.thread.join().unwrap();
        assert!(worst < WORST, "a message took {worst:?}");
    }
}

/// Returns the filter with a `+` for each bit of `set`.
fn crossing(set: usize) -> String {
    let segment = |at: usize| if set >> at & 1 == 1 { "+" } else { "t" };
    (0..SEGMENTS).map(segment).chain(["#"]).collect::<Vec<_>>().join("/")
}

fn filters_frame(id: u32, op: Op, filters: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_filters(&mut out, id, op, Qos::PROCESSED, filters.iter().map(String::as_str)).unwrap();
    out
}

/// Subscribes to filters that all match one topic; returns how many requests were accepted and refused.
fn subscribe_to_crossing_filters(hostile: &mut Wire, number: usize) -> (usize, usize) {
    let (mut accepted, mut refused) = (0, 0);
    for part in 0..rounds(8, 128) {
        let sets = (0..64).map(|at| 1 + number + 8 * (part * 64 + at));
        let filters: Vec<_> = sets.map(crossing).collect();
        match hostile.filters(Op::Subscribe, &filters.iter().map(String::as_str).collect::<Vec<_>>()) {
            0x01 => accepted += 1,
            0x74 => refused += 1,
            code => panic!("{code:x}"),
        }
        for filter in &filters[..8] {
            hostile.filters(Op::Subscribe, &[filter]);
        }
    }
    (accepted, refused)
}

/// Publishes to new topics which the crossing filters of all clients match.
fn publish_to_new_topics(hostile: &mut Wire, number: usize) {
    let topic = vec!["t"; SEGMENTS].join("/");
    for round in 0..rounds(6, 100) {
        let mut out = Vec::new();
        for at in 0..25_000 / (topic.len() + 20) {
            let topic = format!("{topic}/{number}/{round}/{at}");
            encode_request(&mut out, 0, Op::Publish, Qos::NO, &topic, "", b"").unwrap();
        }
        hostile.write(&out);
        // reads everything up to the answer: a client that does not read is disconnected
        assert_eq!(hostile.acked(Op::Publish, "end/of/round", b""), 0x01);
        hostile.forget_frames();
    }
}

#[test]
fn crossing_filters_and_new_topics_delay_no_other_client() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--timeout", "20", "--log", "warn"]);
        let other = OtherClient::start(daemon.client("other"), "other");
        // each in a thread of its own: none is silent for longer than the timeout because of the others
        let hostile_clients: Vec<_> = (0..8)
            .map(|number| {
                let mut hostile = daemon.client(&format!("crossing.{number}"));
                spawn(move || {
                    let requests = subscribe_to_crossing_filters(&mut hostile, number);
                    publish_to_new_topics(&mut hostile, number);
                    requests
                })
            })
            .collect();
        let requests = hostile_clients.into_iter().map(|hostile| hostile.join().unwrap());
        let (accepted, refused) =
            requests.fold((0, 0), |sum, (accepted, refused)| (sum.0 + accepted, sum.1 + refused));
        assert!(refused > accepted, "{accepted} accepted, {refused} refused");
        other.finish();
    }
}

#[test]
fn floods_of_filter_requests_delay_and_disconnect_no_other_client() {
    let daemon = Daemon::start("library", &["--timeout", "20", "--log", "warn"]);
    let others = [("a.other", daemon.client("a.other")), ("b.other", daemon.client("b.other"))]
        .map(|(name, client)| OtherClient::start(client, name));
    let floods: Vec<_> = (0..3)
        .map(|number| {
            let mut hostile = daemon.client(&format!("flood.{number}"));
            spawn(move || {
                let large: Vec<_> = (0..1_000_000).map(|at| format!("{number}/{at}/é")).collect();
                let many: Vec<_> = large[..16_000].to_vec();
                for _ in 0..rounds(3, 100) {
                    let (adds, takes) =
                        [(Op::Subscribe, Op::Unsubscribe), (Op::Exclude, Op::Unexclude)][number % 2];
                    for (op, filters, code) in [
                        (adds, &many, 0x01),
                        (adds, &large, 0x72),
                        (takes, &many, 0x01),
                        (takes, &large, 0x72),
                    ] {
                        let mut writer = hostile.writer();
                        let frame = filters_frame(7, op, filters);
                        let writing = spawn(move || writer.write(&frame));
                        assert_eq!(hostile.expect_ack(7), code, "{op:?} of {}", filters.len());
                        writing.join().unwrap();
                    }
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    others.into_iter().for_each(OtherClient::finish);
}
