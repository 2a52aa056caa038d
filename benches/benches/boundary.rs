//! The cost of the plugin boundary: a dispatch from client to sink through a loaded plugin, through a linked
//! one, and called directly. Each dispatch crosses the boundary twice.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make public functions; a benchmark fails by panicking"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use elbus_bench_plugin::{Dispatcher, METHOD};
use elbus_broker::{Broker, PluginDeclaration};
use elbus_plugin_api::Call;
use std::time::Duration;

/// A broker with one plugin, and a function that calls the plugin's control method once for many dispatches.
fn dispatch_through(plugin: PluginDeclaration) -> (Broker, impl Fn(u64, u64) -> Duration) {
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
    let (_loaded_broker, loaded) =
        dispatch_through(PluginDeclaration::library("loaded", "elbus_bench_plugin"));
    let (_linked_broker, linked) =
        dispatch_through(PluginDeclaration::linked("linked", elbus_bench_plugin::plugin()));
    let broker = Broker::builder().start().unwrap();
    let mut direct = Dispatcher::new(broker.host(), "direct").unwrap();
    for messages in [1, 128] {
        let mut group = criterion.benchmark_group(format!("dispatch a run of {messages}"));
        group.throughput(Throughput::Elements(messages));
        group.bench_function("loaded", |b| b.iter_custom(|iterations| loaded(iterations, messages)));
        group.bench_function("linked", |b| b.iter_custom(|iterations| linked(iterations, messages)));
        group.bench_function("direct", |b| {
            b.iter_custom(|iterations| direct.run(iterations, messages as usize).unwrap());
        });
    }
}

criterion_group!(boundary, dispatch);
criterion_main!(boundary);
