//! In-process clients of ELBUS and of BUS/RT 0.5.6 in one run: sending and receiving, calling another client,
//! and calling the broker. Plain tokio channels are the lower limit. Each measurement is one task from its
//! start to its end, so that it does not include entering the runtime. There are two kinds of runtimes: one
//! thread, and two workers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make public functions; a benchmark fails by panicking"
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
use elbus_plugin_api::{Qos, inproc::InprocClient};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, mpsc},
};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

const PAYLOAD: &[u8] = &[b'x'; 100];
const BURSTS: [usize; 2] = [1, 128];
/// An RPC request with call id 1.
const REQUEST: &[u8] = b"\x01\x01\0\0\0echo\0parameters";

/// The runtimes: the name in the results, and the number of workers, 0 for the calling thread.
const RUNTIMES: [(&str, usize); 2] = [("one thread", 0), ("two workers", 2)];

fn runtime(workers: usize) -> Runtime {
    let mut builder = if workers == 0 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build().unwrap()
}

/// Measures a task. `iterate` creates a task that does the given number of iterations and returns the time
/// they took.
fn measure<F: Future<Output = Duration> + Send + 'static>(
    group: &mut Group<'_>,
    name: &str,
    runtime: &Runtime,
    iterate: impl Fn(u64) -> F,
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| runtime.block_on(runtime.spawn(iterate(iterations))).unwrap());
    });
}

fn broker() -> Broker {
    Broker::builder()
        .plugin(PluginDeclaration::linked("clients", elbus_inproc::plugin()))
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()
        .unwrap()
}

fn send_and_receive(criterion: &mut Criterion) {
    for (runtime, workers) in RUNTIMES {
        for burst in BURSTS {
            let mut group = criterion.benchmark_group(format!("send and receive {burst}, {runtime}"));
            group.throughput(Throughput::Elements(burst as u64));
            send_and_receive_elbus(&mut group, workers, burst);
            send_and_receive_busrt(&mut group, workers, burst);
            send_and_receive_tokio(&mut group, workers, burst);
            if burst > 1 {
                send_and_receive_batches(&mut group, workers, burst);
            }
        }
    }
}

fn send_and_receive_elbus(group: &mut Group<'_>, workers: usize, burst: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let clients = Arc::new((broker.connect("a").unwrap(), broker.connect("b").unwrap()));
    measure(group, "elbus", &runtime, |iterations| {
        let clients = clients.clone();
        async move {
            let ((sender, receiver), start) = (&*clients, Instant::now());
            for _ in 0..iterations {
                for _ in 0..burst {
                    sender.send("b", PAYLOAD, Qos::NO).await.unwrap();
                }
                for _ in 0..burst {
                    black_box(receiver.receive().await.unwrap());
                }
            }
            start.elapsed()
        }
    });
}

/// The same with the calls for several messages at once, which BUS/RT does not have.
fn send_and_receive_batches(group: &mut Group<'_>, workers: usize, burst: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let clients = Arc::new((broker.connect("a").unwrap(), broker.connect("b").unwrap()));
    measure(group, "elbus, send_all", &runtime, |iterations| {
        let clients = clients.clone();
        async move {
            let ((sender, receiver), start) = (&*clients, Instant::now());
            let payloads = vec![PAYLOAD.into(); burst];
            let mut received = Vec::new();
            for _ in 0..iterations {
                sender.send_all("b", &payloads, Qos::NO).await.unwrap();
                assert_eq!(receiver.try_receive_many(&mut received, burst), burst);
                received.drain(..).for_each(|message| drop(black_box(message)));
            }
            start.elapsed()
        }
    });
}

fn send_and_receive_busrt(group: &mut Group<'_>, workers: usize, burst: usize) {
    let runtime = runtime(workers);
    let (_broker, sender, mut receiver) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let (sender, receiver) = (broker.register_client("a").await, broker.register_client("b").await);
        (broker, Arc::new(Mutex::new(sender.unwrap())), receiver.unwrap())
    });
    let events = receiver.take_event_channel().unwrap();
    measure(group, "busrt", &runtime, |iterations| {
        let (sender, events) = (sender.clone(), events.clone());
        async move {
            let (mut sender, start) = (sender.lock().await, Instant::now());
            for _ in 0..iterations {
                for _ in 0..burst {
                    sender.send("b", PAYLOAD.into(), QoS::No).await.unwrap();
                }
                for _ in 0..burst {
                    black_box(events.recv().await.unwrap());
                }
            }
            start.elapsed()
        }
    });
}

/// The same through a tokio channel, without names: the lower limit.
fn send_and_receive_tokio(group: &mut Group<'_>, workers: usize, burst: usize) {
    let runtime = runtime(workers);
    let (sender, receiver) = mpsc::unbounded_channel::<Vec<u8>>();
    let receiver = Arc::new(Mutex::new(receiver));
    measure(group, "tokio channel", &runtime, |iterations| {
        let (sender, receiver) = (sender.clone(), receiver.clone());
        async move {
            let (mut receiver, start) = (receiver.lock().await, Instant::now());
            for _ in 0..iterations {
                for _ in 0..burst {
                    sender.send(PAYLOAD.to_vec()).unwrap();
                }
                for _ in 0..burst {
                    black_box(receiver.recv().await.unwrap());
                }
            }
            start.elapsed()
        }
    });
}

/// A call to another client. For ELBUS the RPC frames are written by hand, because its in-process client has
/// no RPC layer.
fn call(criterion: &mut Criterion) {
    for (runtime, workers) in RUNTIMES {
        let mut group = criterion.benchmark_group(format!("call another client, {runtime}"));
        call_elbus(&mut group, workers);
        call_busrt(&mut group, workers);
        call_tokio(&mut group, workers);
    }
}

async fn respond(client: InprocClient) {
    while let Some(request) = client.receive().await {
        let reply = [&[0x11], &request.payload()[1..5], &request.payload()[10..]].concat();
        if client.send(request.sender(), reply, Qos::NO).await.is_err() {
            return;
        }
    }
}

fn call_elbus(group: &mut Group<'_>, workers: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let caller = Arc::new(broker.connect("a").unwrap());
    runtime.spawn(respond(broker.connect("b").unwrap()));
    measure(group, "elbus", &runtime, |iterations| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..iterations {
                caller.send("b", REQUEST, Qos::NO).await.unwrap();
                let reply = caller.receive().await.unwrap();
                assert_eq!(reply.payload().get(5..), Some(&b"parameters"[..]));
            }
            start.elapsed()
        }
    });
}

fn call_busrt(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (_broker, caller, _callee) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        let callee = RpcClient::new(broker.register_client("b").await.unwrap(), Echo);
        (broker, Arc::new(caller), callee)
    });
    measure(group, "busrt", &runtime, |iterations| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..iterations {
                let reply = caller.call("b", "echo", b"parameters".as_slice().into(), QoS::No).await.unwrap();
                assert_eq!(reply.payload(), b"parameters");
            }
            start.elapsed()
        }
    });
}

/// Request and reply through two tokio channels: the cost of the runtime alone.
fn call_tokio(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (requester, mut requests) = mpsc::unbounded_channel::<Vec<u8>>();
    let (responder, replies) = mpsc::unbounded_channel::<Vec<u8>>();
    runtime.spawn(async move {
        while let Some(request) = requests.recv().await {
            responder.send(request).unwrap();
        }
    });
    let replies = Arc::new(Mutex::new(replies));
    measure(group, "tokio channels", &runtime, |iterations| {
        let (requester, replies) = (requester.clone(), replies.clone());
        async move {
            let (mut replies, start) = (replies.lock().await, Instant::now());
            for _ in 0..iterations {
                requester.send(REQUEST.to_vec()).unwrap();
                black_box(replies.recv().await.unwrap());
            }
            start.elapsed()
        }
    });
}

/// A call to the broker, method `test`.
fn call_broker(criterion: &mut Criterion) {
    for (runtime, workers) in RUNTIMES {
        let mut group = criterion.benchmark_group(format!("call the broker, {runtime}"));
        call_broker_elbus(&mut group, workers);
        call_broker_busrt(&mut group, workers);
    }
}

fn call_broker_elbus(group: &mut Group<'_>, workers: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let caller = Arc::new(broker.connect("a").unwrap());
    measure(group, "elbus", &runtime, |iterations| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..iterations {
                caller.send(".broker", b"\x01\x01\0\0\0test\0".as_slice(), Qos::NO).await.unwrap();
                black_box(caller.receive().await.unwrap());
            }
            start.elapsed()
        }
    });
}

fn call_broker_busrt(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (_broker, caller) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        broker.init_default_core_rpc().await.unwrap();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        (broker, Arc::new(caller))
    });
    measure(group, "busrt", &runtime, |iterations| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(caller.call(".broker", "test", busrt::empty_payload!(), QoS::No).await.unwrap());
            }
            start.elapsed()
        }
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
