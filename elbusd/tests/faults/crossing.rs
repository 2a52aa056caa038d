//! Floods of requests with filters, and innocent clients beside them: these are served in time and stay connected.

use elbus_protocol::{Op, Qos, request::encode_filters};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use crate::support::{daemon::Daemon, rounds, wire::Wire};

/// Far above what a message takes beside the adversaries, also in a build without optimisation on a busy machine; without
/// limits it would be minutes.
const WORST: Duration = Duration::from_secs(4);

/// A client that sends to itself, again and again, until it is told to stop: returns the longest time one message took.
struct Innocent {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Innocent {
    fn start(mut client: Wire, name: &'static str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        client.subscribe(&["innocent/+/data"]);
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
        Innocent { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.thread.join().unwrap();
        assert!(worst < WORST, "a message took {worst:?}");
    }
}

fn filters_frame(id: u32, op: Op, filters: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_filters(&mut out, id, op, Qos::PROCESSED, filters.iter().map(String::as_str)).unwrap();
    out
}

#[test]
fn floods_of_requests_with_filters_hold_up_nobody_and_end_nobodys_connection() {
    let daemon = Daemon::start("library", &["--timeout", "2", "--log", "warn"]);
    let innocents =
        [("a.innocent", daemon.client("a.innocent")), ("b.innocent", daemon.client("b.innocent"))]
            .map(|(name, client)| Innocent::start(client, name));
    let floods: Vec<_> = (0..3)
        .map(|number| {
            let mut adversary = daemon.client(&format!("flood.{number}"));
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
                        let mut writer = adversary.writer();
                        let frame = filters_frame(7, op, filters);
                        let writing = spawn(move || writer.write(&frame));
                        assert_eq!(adversary.expect_ack(7), code, "{op:?} of {}", filters.len());
                        writing.join().unwrap();
                    }
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    innocents.into_iter().for_each(Innocent::finish);
}
