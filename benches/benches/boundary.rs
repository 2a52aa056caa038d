//! One dispatch through a loaded plugin, through a linked one, and as a direct call, in one run. From the sending client
//! through the core to the receiving sink and back: the boundary is crossed twice.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a benchmark that cannot go on should not"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use elbus_bench_plugin::{Dispatching, METHOD};
use elbus_broker::{Broker, PluginDeclaration};
use elbus_plugin_api::Call;
use std::time::Duration;

/// A broker with one plugin, told to dispatch through its control method, which is called once for many dispatches.
fn through(plugin: PluginDeclaration) -> (Broker, impl Fn(u64, u64) -> Duration) {
    let broker = Broker::builder().plugin(plugin).start().unwrap();
    let host = broker.host().clone();
    let run = move |dispatches: u64, messages: u64| {
        let params = [dispatches.to_le_bytes(), messages.to_le_bytes()].concat();
        let nanos = host.call(&Call::by_broker(METHOD, &params)).unwrap();
        Duration::from_nanos(u64::from_le_bytes(nanos.try_into().unwrap()))
    };
    (broker, run)
}

fn dispatch(criterion: &mut Criterion) {
    let (_loaded, through_loaded) = through(PluginDeclaration::library("loaded", "elbus_bench_plugin"));
    let (_linked, through_linked) =
        through(PluginDeclaration::linked("linked", elbus_bench_plugin::plugin()));
    let broker = Broker::builder().start().unwrap();
    let mut direct = Dispatching::new(broker.host(), "direct").unwrap();
    for messages in [1, 128] {
        let mut group = criterion.benchmark_group(format!("dispatch a run of {messages}"));
        group.throughput(Throughput::Elements(messages));
        group.bench_function("loaded", |b| b.iter_custom(|times| through_loaded(times, messages)));
        group.bench_function("linked", |b| b.iter_custom(|times| through_linked(times, messages)));
        group.bench_function("direct", |b| {
            b.iter_custom(|times| direct.run(times, messages as usize).unwrap());
        });
    }
}

criterion_group!(boundary, dispatch);
criterion_main!(boundary);
