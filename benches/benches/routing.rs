//! The core without transports: dispatch to one client, topics against many filters, subscribing.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use elbus_broker::Broker;
use elbus_plugin_api::{
    Client, ClientInfo, Code, Delivery, Op, Payload, Qos, Queued, Request, Run, Sink, Wake,
};
use std::hint::black_box;

struct Nowhere;

impl Sink for Nowhere {
    fn deliver(&self, run: &mut Run<'_>) -> Delivery {
        black_box(run.payloads().len());
        Delivery::TAKEN
    }
    fn flush(&self) {}
    fn when_drained(&self, wake: Wake) {
        wake.wake();
    }
    fn close(&self, _: &str) {}
    fn queued(&self) -> Queued {
        Queued::default()
    }
}

fn client(broker: &Broker, name: &str) -> Result<Client, Code> {
    broker.host().register(name, &ClientInfo { kind: "bench".into(), ..Default::default() }, Nowhere)
}

fn dispatch(criterion: &mut Criterion) {
    let Ok(broker) = Broker::builder().start() else { return };
    let (Ok(mut sender), Ok(_receiver)) = (client(&broker, "a"), client(&broker, "b")) else { return };
    let payload = [0u8; 100];
    let mut group = criterion.benchmark_group("dispatch");
    for run in [1, 128] {
        let payloads = vec![Payload::from(&payload[..]); run];
        group.throughput(Throughput::Elements(run as u64));
        group.bench_function(format!("a run of {run} to one client"), |bencher| {
            bencher.iter(|| sender.dispatch(&Request::new(Op::Message, Qos::NO, "b", &payloads)).reached());
        });
    }
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish to a topic not seen before");
    for filters in [10, 10_000, 1_000_000] {
        let Ok(broker) = Broker::builder().start() else { return };
        let (Ok(mut subscriber), Ok(mut sender)) = (client(&broker, "s"), client(&broker, "p")) else {
            return;
        };
        for n in 0..filters {
            let filter = format!("plant/line{}/sensor{n}/value", n % 100);
            subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, &filter, &[]));
        }
        let topics: Vec<_> = (0..100_000usize)
            .map(|n| n.wrapping_mul(7919) % filters)
            .map(|n| format!("plant/line{}/sensor{n}/value", n % 100))
            .collect();
        let payloads = [Payload::from(&b"x"[..])];
        let mut next = 0;
        group.bench_function(format!("{filters} filters"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % topics.len();
                sender.dispatch(&Request::new(Op::Publish, Qos::NO, &topics[next], &payloads)).reached()
            });
        });
        group.bench_function(format!("subscribe and unsubscribe beside {filters}"), |bencher| {
            bencher.iter(|| {
                subscriber.dispatch(&Request::new(Op::Subscribe, Qos::NO, "plant/line5/new/+", &[]));
                subscriber.dispatch(&Request::new(Op::Unsubscribe, Qos::NO, "plant/line5/new/+", &[])).code()
            });
        });
    }
}

criterion_group!(routing, dispatch, topics);
criterion_main!(routing);
