//! The core without transports: topics among filters and masks among names, beside the crate `submap` 0.3,
//! which routes in BUS/RT; subscribing and unsubscribing. `publish` includes the delivery to a sink; `lookup`
//! only finds the receivers, as `submap` does.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make public functions; a benchmark fails by panicking"
)]

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{Client, ClientInfo, Locality, NullSink, Op, Payload, Qos, Request};
use submap::{BroadcastMap, SubMap};

/// Numbers of names.
const NAMES: [usize; 3] = [10, 10_000, 1_000_000];
/// Numbers of filters. 1,000 is the reference for the cost of subscribing.
const FILTERS: [usize; 4] = [10, 1000, 10_000, 1_000_000];
/// Different topics or masks that are used in turn: more than any cache of recipients holds.
const QUERIES: usize = 100_000;
/// A filter that differs from all others, and is subscribed and unsubscribed beside them.
const NEW_FILTER: &str = "plant/line5/new/+";

fn register(broker: &Broker, name: &str) -> Client {
    let info = ClientInfo::new("bench", Locality::Remote);
    broker.host().register(name, &info, NullSink).unwrap()
}

/// A filter by number. Most are exact, some have a wildcard in the middle or at the end.
fn filter(n: usize) -> String {
    match n % 10 {
        0 => format!("plant/line{}/sensor{n}/#", n % 100),
        1 => format!("plant/+/sensor{n}/value"),
        _ => format!("plant/line{}/sensor{n}/value", n % 100),
    }
}

/// A pseudo-random permutation of the numbers below `size`.
fn scatter(n: usize, size: usize) -> usize {
    n.wrapping_mul(7919) % size
}

/// Topics or masks that each match one of `size` filters or names.
fn queries(size: usize, query: impl Fn(usize) -> String) -> Vec<String> {
    (0..QUERIES).map(|n| query(scatter(n, size))).collect()
}

fn topics(criterion: &mut Criterion) {
    for size in FILTERS {
        let topics = queries(size, |n| format!("plant/line{}/sensor{n}/value", n % 100));
        let mut next = 0;
        let mut topic = || {
            next = (next + 1) % topics.len();
            topics[next].as_str()
        };
        {
            let mut settings = BrokerSettings::default();
            (settings.max_filters, settings.filter_memory_bytes) = (usize::MAX, usize::MAX);
            let broker = Broker::builder().settings(settings).start().unwrap();
            let (mut subscriber, mut sender) = (register(&broker, "subscriber"), register(&broker, "sender"));
            for n in 0..size {
                subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, &filter(n), &[]));
            }
            let payloads = [Payload::from(&b"x"[..])];
            let mut group = criterion.benchmark_group(format!("publish among {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| {
                    let request = Request::new(Op::Publish, Qos::NO, topic(), &payloads);
                    assert_eq!(sender.dispatch(&request).reached(), 1);
                });
            });
            group.finish();
            let mut group = criterion.benchmark_group(format!("lookup among {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| assert_eq!(broker.subscriber_count(topic()), 1));
            });
            group.finish();
            let mut group =
                criterion.benchmark_group(format!("subscribe and unsubscribe beside {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| {
                    subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, NEW_FILTER, &[]));
                    subscriber.dispatch(&Request::new(Op::Unsubscribe, Qos::NO, NEW_FILTER, &[])).code()
                });
            });
            group.finish();
        }
        let mut map = SubMap::<u32>::new().separator('/').match_any("+").wildcard("#");
        map.register_client(&1);
        for n in 0..size {
            map.subscribe(&filter(n), &1);
        }
        let mut group = criterion.benchmark_group(format!("lookup among {size} filters"));
        group.bench_function("submap", |bencher| {
            bencher.iter(|| assert_eq!(map.get_subscribers(topic()).len(), 1))
        });
        group.finish();
        let mut group = criterion.benchmark_group(format!("subscribe and unsubscribe beside {size} filters"));
        group.bench_function("submap", |bencher| {
            bencher.iter(|| (map.subscribe(NEW_FILTER, &1), map.unsubscribe(NEW_FILTER, &1)));
        });
    }
}

/// Masks that each match one name. The wildcard is after the segments in which names differ, or before them.
fn masks(criterion: &mut Criterion) {
    for size in NAMES {
        let name = |n: usize| format!("plant.line{}.sensor{n}.out", n % 100);
        let broker = Broker::builder().start().unwrap();
        let mut sender = register(&broker, "sender");
        let _clients: Vec<_> = (0..size).map(|n| register(&broker, &name(n))).collect();
        let mut map = BroadcastMap::<u32>::new().separator('.').match_any("?").wildcard("*");
        for n in 0..size {
            map.register_client(&name(n), &(n as u32));
        }
        let trailing = queries(size, |n| format!("plant.line{}.sensor{n}.?", n % 100));
        let leading = queries(size, |n| format!("?.line{}.sensor{n}.out", n % 100));
        for (position, masks) in [("trailing", trailing), ("leading", leading)] {
            let mut group =
                criterion.benchmark_group(format!("mask among {size} names, {position} wildcard"));
            group.sample_size(10);
            broadcast(&mut group, &mut sender, &masks, 1);
            let mut next = 0;
            group.bench_function("submap", |bencher| {
                bencher.iter(|| {
                    next = (next + 1) % masks.len();
                    assert_eq!(map.get_clients_by_mask(&masks[next]).len(), 1);
                });
            });
        }
    }
}

/// A set of names: its title, a name by number, and a mask that matches none of them.
type NameSet = (&'static str, fn(usize) -> String, &'static str);

/// Masks that match no name, among names with few common prefixes: names without a dot, names that each have
/// a first segment of their own, and names of which 20 share the first segment.
fn unmatched_masks(criterion: &mut Criterion) {
    let size = NAMES[2];
    let flat = |n: usize| format!("sensor{n}");
    let distinct = |n: usize| format!("sensor{n}.out");
    let shared = |n: usize| format!("line{}.sensor{n}.out", n / 20);
    let name_sets: [NameSet; 3] = [
        ("one segment", flat, "?.?.?"),
        ("distinct first segments", distinct, "?.in"),
        ("20 per first segment", shared, "?.in"),
    ];
    for (title, name, mask) in name_sets {
        let broker = Broker::builder().start().unwrap();
        let mut sender = register(&broker, "sender");
        let _clients: Vec<_> = (0..size).map(|n| register(&broker, &name(scatter(n, size)))).collect();
        let masks: Vec<_> = (0..1000).map(|n| format!("{mask}.{n}")).collect();
        let mut group = criterion.benchmark_group(format!("unmatched mask among {size} names, {title}"));
        group.sample_size(10);
        broadcast(&mut group, &mut sender, &masks, 0);
        group.finish();
    }
}

/// Broadcasts to each mask in turn.
fn broadcast(group: &mut BenchmarkGroup<'_, WallTime>, sender: &mut Client, masks: &[String], reached: u32) {
    let payloads = [Payload::from(&b"x"[..])];
    let mut next = 0;
    group.bench_function("elbus", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % masks.len();
            let request = Request::new(Op::Broadcast, Qos::NO, &masks[next], &payloads);
            assert_eq!(sender.dispatch(&request).reached(), reached);
        });
    });
}

criterion_group!(routing, topics, masks, unmatched_masks);
criterion_main!(routing);
