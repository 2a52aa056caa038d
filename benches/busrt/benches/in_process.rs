//! In-process clients: sending and receiving, and calling, ours and those of BUS/RT 0.5.6 in one run, and bare tokio
//! channels as what can at best be had. What is measured is one task from beginning to end, so that entering a runtime is
//! no part of it, in runtimes of two shapes: one thread, and two workers.
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
/// A request frame with call id 1, as the RPC layer makes it.
const REQUEST: &[u8] = b"\x01\x01\0\0\0echo\0parameters";

/// The shapes of the runtime: its name in the results, and how many workers, 0 for the thread that asks.
const SHAPES: [(&str, usize); 2] = [("one thread", 0), ("two workers", 2)];

fn runtime(workers: usize) -> Runtime {
    let mut builder = if workers == 0 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build().unwrap()
}

/// Measures a task: `turns` makes one that takes as many turns as it is told and says how long it took.
fn measure<F: Future<Output = Duration> + Send + 'static>(
    group: &mut Group<'_>,
    who: &str,
    runtime: &Runtime,
    turns: impl Fn(u64) -> F,
) {
    group.bench_function(who, |bencher| {
        bencher.iter_custom(|count| runtime.block_on(runtime.spawn(turns(count))).unwrap());
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
    for (shape, workers) in SHAPES {
        for burst in BURSTS {
            let mut group = criterion.benchmark_group(format!("send and receive {burst}, {shape}"));
            group.throughput(Throughput::Elements(burst as u64));
            send_and_receive_ours(&mut group, workers, burst);
            send_and_receive_theirs(&mut group, workers, burst);
            send_and_receive_channel(&mut group, workers, burst);
            if burst > 1 {
                send_and_receive_many(&mut group, workers, burst);
            }
        }
    }
}

fn send_and_receive_ours(group: &mut Group<'_>, workers: usize, burst: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let clients = Arc::new((broker.connect("a").unwrap(), broker.connect("b").unwrap()));
    measure(group, "elbus", &runtime, |turns| {
        let clients = clients.clone();
        async move {
            let ((sender, receiver), start) = (&*clients, Instant::now());
            for _ in 0..turns {
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

/// The same messages by the calls for several at once, which BUS/RT has no match for.
fn send_and_receive_many(group: &mut Group<'_>, workers: usize, burst: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let clients = Arc::new((broker.connect("a").unwrap(), broker.connect("b").unwrap()));
    measure(group, "elbus, send_all", &runtime, |turns| {
        let clients = clients.clone();
        async move {
            let ((sender, receiver), start) = (&*clients, Instant::now());
            let payloads = vec![PAYLOAD.into(); burst];
            let mut received = Vec::new();
            for _ in 0..turns {
                sender.send_all("b", &payloads, Qos::NO).await.unwrap();
                assert_eq!(receiver.try_receive_many(&mut received, burst), burst);
                received.drain(..).for_each(|message| drop(black_box(message)));
            }
            start.elapsed()
        }
    });
}

fn send_and_receive_theirs(group: &mut Group<'_>, workers: usize, burst: usize) {
    let runtime = runtime(workers);
    let (_broker, sender, mut receiver) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let (sender, receiver) = (broker.register_client("a").await, broker.register_client("b").await);
        (broker, Arc::new(Mutex::new(sender.unwrap())), receiver.unwrap())
    });
    let events = receiver.take_event_channel().unwrap();
    measure(group, "busrt", &runtime, |turns| {
        let (sender, events) = (sender.clone(), events.clone());
        async move {
            let (mut sender, start) = (sender.lock().await, Instant::now());
            for _ in 0..turns {
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

/// The same messages through one channel of tokio, which knows no names: what is left to save.
fn send_and_receive_channel(group: &mut Group<'_>, workers: usize, burst: usize) {
    let runtime = runtime(workers);
    let (send, receive) = mpsc::unbounded_channel::<Vec<u8>>();
    let receive = Arc::new(Mutex::new(receive));
    measure(group, "tokio channel", &runtime, |turns| {
        let (send, receive) = (send.clone(), receive.clone());
        async move {
            let (mut receive, start) = (receive.lock().await, Instant::now());
            for _ in 0..turns {
                for _ in 0..burst {
                    send.send(PAYLOAD.to_vec()).unwrap();
                }
                for _ in 0..burst {
                    black_box(receive.recv().await.unwrap());
                }
            }
            start.elapsed()
        }
    });
}

/// One call of another client, in the frames of the RPC layer, as far as the in-process client itself has it.
fn call(criterion: &mut Criterion) {
    for (shape, workers) in SHAPES {
        let mut group = criterion.benchmark_group(format!("call another client, {shape}"));
        call_ours(&mut group, workers);
        call_theirs(&mut group, workers);
        call_channels(&mut group, workers);
    }
}

async fn answer(client: InprocClient) {
    while let Some(request) = client.receive().await {
        let reply = [&[0x11], &request.payload()[1..5], &request.payload()[10..]].concat();
        if client.send(request.sender(), reply, Qos::NO).await.is_err() {
            return;
        }
    }
}

fn call_ours(group: &mut Group<'_>, workers: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let caller = Arc::new(broker.connect("a").unwrap());
    runtime.spawn(answer(broker.connect("b").unwrap()));
    measure(group, "elbus", &runtime, |turns| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..turns {
                caller.send("b", REQUEST, Qos::NO).await.unwrap();
                let reply = caller.receive().await.unwrap();
                assert_eq!(reply.payload().get(5..), Some(&b"parameters"[..]));
            }
            start.elapsed()
        }
    });
}

fn call_theirs(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (_broker, caller, _callee) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        let callee = RpcClient::new(broker.register_client("b").await.unwrap(), Echo);
        (broker, Arc::new(caller), callee)
    });
    measure(group, "busrt", &runtime, |turns| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..turns {
                let reply = caller.call("b", "echo", b"parameters".as_slice().into(), QoS::No).await.unwrap();
                assert_eq!(reply.payload(), b"parameters");
            }
            start.elapsed()
        }
    });
}

/// Request and reply through two channels of tokio: what the runtime alone takes for two tasks that wait in turn.
fn call_channels(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (ask, mut asked) = mpsc::unbounded_channel::<Vec<u8>>();
    let (reply, replied) = mpsc::unbounded_channel::<Vec<u8>>();
    runtime.spawn(async move {
        while let Some(request) = asked.recv().await {
            reply.send(request).unwrap();
        }
    });
    let replied = Arc::new(Mutex::new(replied));
    measure(group, "tokio channels", &runtime, |turns| {
        let (ask, replied) = (ask.clone(), replied.clone());
        async move {
            let (mut replied, start) = (replied.lock().await, Instant::now());
            for _ in 0..turns {
                ask.send(REQUEST.to_vec()).unwrap();
                black_box(replied.recv().await.unwrap());
            }
            start.elapsed()
        }
    });
}

/// A call of the broker itself, method `test`.
fn call_broker(criterion: &mut Criterion) {
    for (shape, workers) in SHAPES {
        let mut group = criterion.benchmark_group(format!("call the broker, {shape}"));
        call_broker_ours(&mut group, workers);
        call_broker_theirs(&mut group, workers);
    }
}

fn call_broker_ours(group: &mut Group<'_>, workers: usize) {
    let (broker, runtime) = (broker(), runtime(workers));
    let caller = Arc::new(broker.connect("a").unwrap());
    measure(group, "elbus", &runtime, |turns| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..turns {
                caller.send(".broker", b"\x01\x01\0\0\0test\0".as_slice(), Qos::NO).await.unwrap();
                black_box(caller.receive().await.unwrap());
            }
            start.elapsed()
        }
    });
}

fn call_broker_theirs(group: &mut Group<'_>, workers: usize) {
    let runtime = runtime(workers);
    let (_broker, caller) = runtime.block_on(async {
        let broker = busrt::broker::Broker::new();
        broker.init_default_core_rpc().await.unwrap();
        let caller = RpcClient::new0(broker.register_client("a").await.unwrap());
        (broker, Arc::new(caller))
    });
    measure(group, "busrt", &runtime, |turns| {
        let caller = caller.clone();
        async move {
            let start = Instant::now();
            for _ in 0..turns {
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
