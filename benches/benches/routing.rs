//! The core without transports: topics among filters and masks among names, as many as there may be, beside the crate `submap`
//! 0.3, which BUS/RT routes by; subscribing and unsubscribing. A topic is published, which includes the delivery, and looked
//! up, which is what `submap` does.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a benchmark that cannot go on should not"
)]

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{Client, ClientInfo, Op, Payload, Qos, Request, testing::NullSink};
use submap::{BroadcastMap, SubMap};

const SIZES: [usize; 3] = [10, 10_000, 1_000_000];
/// The same for filters: subscribing beside a million is compared with subscribing beside a thousand.
const SIZES_OF_FILTERS: [usize; 4] = [10, 1000, 10_000, 1_000_000];
/// So many topics, or masks, in turn: more than any cache of recipients remembers.
const ASKED: usize = 100_000;
/// Differs from all others, and is subscribed and unsubscribed beside them.
const NEW: &str = "plant/line5/new/+";

fn client(broker: &Broker, name: &str) -> Client {
    let info = ClientInfo { kind: "bench".into(), ..Default::default() };
    broker.host().register(name, &info, NullSink).unwrap()
}

/// Most filters are plain, some have a wildcard in the middle or at the end.
fn filter(n: usize) -> String {
    match n % 10 {
        0 => format!("plant/line{}/sensor{n}/#", n % 100),
        1 => format!("plant/+/sensor{n}/value"),
        _ => format!("plant/line{}/sensor{n}/value", n % 100),
    }
}

fn asked<T>(size: usize, make: impl Fn(usize) -> T) -> Vec<T> {
    (0..ASKED).map(|n| make(n.wrapping_mul(7919) % size)).collect()
}

fn topics(criterion: &mut Criterion) {
    for size in SIZES_OF_FILTERS {
        let topics = asked(size, |n| format!("plant/line{}/sensor{n}/value", n % 100));
        let mut next = 0;
        let mut topic = || {
            next = (next + 1) % topics.len();
            topics[next].as_str()
        };
        {
            let mut settings = BrokerSettings::default();
            (settings.max_filters, settings.filter_memory_bytes) = (usize::MAX, usize::MAX);
            let broker = Broker::builder().settings(settings).start().unwrap();
            let (mut subscriber, mut sender) = (client(&broker, "s"), client(&broker, "p"));
            for n in 0..size {
                subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, &filter(n), &[]));
            }
            let payloads = [Payload::from(&b"x"[..])];
            let mut group = criterion.benchmark_group(format!("topic among {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| {
                    let request = Request::new(Op::Publish, Qos::NO, topic(), &payloads);
                    let reached = sender.dispatch(&request).reached();
                    assert_eq!(reached, 1);
                });
            });
            group.finish();
            let mut group = criterion.benchmark_group(format!("look-up of a topic among {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| assert_eq!(broker.subscriber_count(topic()), 1));
            });
            group.finish();
            let mut group =
                criterion.benchmark_group(format!("subscribe and unsubscribe beside {size} filters"));
            group.bench_function("elbus", |bencher| {
                bencher.iter(|| {
                    subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, NEW, &[]));
                    subscriber.dispatch(&Request::new(Op::Unsubscribe, Qos::NO, NEW, &[])).code()
                });
            });
            group.finish();
        }
        let mut map = SubMap::<u32>::new().separator('/').match_any("+").wildcard("#");
        map.register_client(&1);
        for n in 0..size {
            map.subscribe(&filter(n), &1);
        }
        let mut group = criterion.benchmark_group(format!("look-up of a topic among {size} filters"));
        group.bench_function("submap", |bencher| {
            bencher.iter(|| assert_eq!(map.get_subscribers(topic()).len(), 1))
        });
        group.finish();
        let mut group = criterion.benchmark_group(format!("subscribe and unsubscribe beside {size} filters"));
        group.bench_function("submap", |bencher| {
            bencher.iter(|| (map.subscribe(NEW, &1), map.unsubscribe(NEW, &1)));
        });
    }
}

/// Masks that each match one name: with the wildcard behind all that tells names apart, and in front of it.
fn masks(criterion: &mut Criterion) {
    for size in SIZES {
        let name = |n: usize| format!("plant.line{}.sensor{n}.out", n % 100);
        let broker = Broker::builder().start().unwrap();
        let mut sender = client(&broker, "sender");
        let _clients: Vec<_> = (0..size).map(|n| client(&broker, &name(n))).collect();
        let mut map = BroadcastMap::<u32>::new().separator('.').match_any("?").wildcard("*");
        for n in 0..size {
            map.register_client(&name(n), &(n as u32));
        }
        let behind = asked(size, |n| format!("plant.line{}.sensor{n}.?", n % 100));
        let in_front = asked(size, |n| format!("?.line{}.sensor{n}.out", n % 100));
        for (place, masks) in [("behind", behind), ("in front", in_front)] {
            let mut group = criterion.benchmark_group(format!("mask among {size} names, wildcard {place}"));
            group.sample_size(10);
            ours(&mut group, &mut sender, &masks, 1);
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

/// What a set of names is called, the name of a number, and a mask that matches none of them.
type Kind = (&'static str, fn(usize) -> String, &'static str);

/// Masks that match nobody, and names that give a search little to skip: none has a dot, or each has a first segment of
/// its own, or few share one.
fn masks_of_nobody(criterion: &mut Criterion) {
    let size = SIZES[2];
    let flat = |n: usize| format!("sensor{n}");
    let apart = |n: usize| format!("sensor{n}.out");
    let few = |n: usize| format!("line{}.sensor{n}.out", n / 20);
    let kinds: [Kind; 3] = [("flat", flat, "?.?.?"), ("apart", apart, "?.in"), ("in twenties", few, "?.in")];
    for (kind, name, mask) in kinds {
        let broker = Broker::builder().start().unwrap();
        let mut sender = client(&broker, "sender");
        let _clients: Vec<_> =
            (0..size).map(|n| client(&broker, &name(n.wrapping_mul(7919) % size))).collect();
        let masks: Vec<_> = (0..1000).map(|n| format!("{mask}.{n}")).collect();
        let mut group = criterion.benchmark_group(format!("mask of nobody among {size} names, {kind}"));
        group.sample_size(10);
        ours(&mut group, &mut sender, &masks, 0);
        group.finish();
    }
}

fn ours(group: &mut BenchmarkGroup<'_, WallTime>, sender: &mut Client, masks: &[String], reached: u32) {
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

criterion_group!(routing, topics, masks, masks_of_nobody);
criterion_main!(routing);
