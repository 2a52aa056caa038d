//! In-process clients: sending and receiving, and calling another client, ours and those of BUS/RT 0.5.6 in one run. Both run
//! on one thread, in the same runtime, one message at a time and in bursts of 64.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a benchmark that cannot go on should not"
)]

use busrt::{
    QoS,
    client::AsyncClient,
    rpc::{Rpc, RpcClient, RpcEvent, RpcHandlers, RpcResult},
};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use elbus_broker::{Broker, PluginDeclaration};
use elbus_plugin_api::{Qos, local::LocalClient};
use std::{hint::black_box, sync::Arc};
use tokio::runtime::{Builder, Runtime};

const PAYLOAD: &[u8] = &[b'x'; 100];
const BURSTS: [usize; 2] = [1, 64];

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn broker() -> Broker {
    Broker::builder()
        .plugin(PluginDeclaration::linked("clients", elbus_inproc::plugin()))
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()
        .unwrap()
}

fn send_and_receive(criterion: &mut Criterion) {
    for burst in BURSTS {
        let mut group = criterion.benchmark_group(format!("send and receive {burst}"));
        group.throughput(Throughput::Elements(burst as u64));
        ours(&mut group, burst);
        theirs(&mut group, burst);
    }
}

fn ours(group: &mut BenchmarkGroup<'_, WallTime>, burst: usize) {
    let broker = broker();
    let (sender, receiver) = (broker.connect("a").unwrap(), broker.connect("b").unwrap());
    let runtime = runtime();
    group.bench_function("elbus", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                for _ in 0..burst {
                    sender.send("b", PAYLOAD, Qos::NO).await.unwrap();
                }
                for _ in 0..burst {
                    black_box(receiver.receive().await.unwrap());
                }
            });
        });
    });
}

fn theirs(group: &mut BenchmarkGroup<'_, WallTime>, burst: usize) {
    let runtime = runtime();
    let (_broker, mut sender, mut receiver) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let (sender, receiver) = (broker.register_client("a").await, broker.register_client("b").await);
        (broker, sender.unwrap(), receiver.unwrap())
    });
    let events = receiver.take_event_channel().unwrap();
    group.bench_function("busrt", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                for _ in 0..burst {
                    sender.send("b", PAYLOAD.into(), QoS::No).await.unwrap();
                }
                for _ in 0..burst {
                    black_box(events.recv().await.unwrap());
                }
            });
        });
    });
}

/// A request frame with call id 1, and the reply to it.
const REQUEST: &[u8] = b"\x01\x01\0\0\0echo\0parameters";

/// One call of another client, in the frames of the RPC layer, as far as the in-process client itself has it.
fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call another client");
    let broker = broker();
    let (caller, callee) = (broker.connect("a").unwrap(), broker.connect("b").unwrap());
    let local = runtime();
    let answer = |callee: &Arc<LocalClient>| {
        let callee = callee.clone();
        async move {
            while let Some(request) = callee.receive().await {
                let params = &request.payload[10..];
                let reply = [&[0x11], &request.payload[1..5], params].concat();
                if callee.send(&request.sender, reply, Qos::NO).await.is_err() {
                    return;
                }
            }
        }
    };
    local.spawn(answer(&Arc::new(callee)));
    group.bench_function("elbus", |bencher| {
        bencher.iter(|| {
            local.block_on(async {
                caller.send("b", REQUEST, Qos::NO).await.unwrap();
                let reply = caller.receive().await.unwrap();
                assert_eq!(reply.payload.get(5..), Some(&b"parameters"[..]));
            });
        });
    });

    let runtime = runtime();
    let (_broker, caller, _callee) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        let callee = RpcClient::new(broker.register_client("b").await.unwrap(), Echo);
        (broker, caller, callee)
    });
    group.bench_function("busrt", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let reply = caller.call("b", "echo", b"parameters".as_slice().into(), QoS::No).await.unwrap();
                assert_eq!(reply.payload(), b"parameters");
            });
        });
    });
}

/// A call of the broker itself, method `test`.
fn call_broker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call the broker");
    let broker = broker();
    let (caller, local) = (broker.connect("a").unwrap(), runtime());
    group.bench_function("elbus", |bencher| {
        bencher.iter(|| {
            local.block_on(async {
                caller.send(".broker", b"\x01\x01\0\0\0test\0".as_slice(), Qos::NO).await.unwrap();
                black_box(caller.receive().await.unwrap());
            });
        });
    });
    let runtime = runtime();
    let (_broker, caller) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        broker.init_default_core_rpc().await.unwrap();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        (broker, caller)
    });
    group.bench_function("busrt", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                black_box(caller.call(".broker", "test", busrt::empty_payload!(), QoS::No).await.unwrap());
            });
        });
    });
}

struct Echo;

#[busrt::async_trait]
impl RpcHandlers for Echo {
    async fn handle_call(&self, event: RpcEvent) -> RpcResult {
        Ok(Some(event.payload().to_vec()))
    }
}

criterion_group!(in_process, send_and_receive, call, call_broker);
criterion_main!(in_process);
