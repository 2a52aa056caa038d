//! In-process clients on a bus: sending, receiving and disconnecting.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_plugin_api::{
    ClientInfo, Code, FrameKind, NullSink, Op, Payload, Plugin, Qos, Request, inproc::InprocClient,
};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};
use support::{Bus, LONG, run};

fn text(client: &InprocClient) -> String {
    let message = client.receive_timeout(LONG).unwrap();
    String::from_utf8(message.payload().to_vec()).unwrap()
}

#[test]
fn messages_broadcasts_and_publications_are_delivered() {
    let (_bus, plugin, host) = Bus::with_plugin("");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    assert_eq!(host.connect("a").err(), Some(Code::Busy));
    assert_eq!(plugin.status().detail, "2 clients");
    b.subscribe("t/1").unwrap();
    run(async {
        a.send("b", "one", Qos::NO).await.unwrap();
        a.send("b", "two", Qos::REALTIME).await.unwrap();
        a.broadcast("*", "all", Qos::PROCESSED).await.unwrap();
        a.publish("t/1", "topical", Qos::NO).await.unwrap();
        a.publish("t/2", "unheard", Qos::NO).await.unwrap();
        assert_eq!(a.send("c", "x", Qos::NO).await, Err(Code::NotRegistered));
        assert_eq!(a.send("a\0b", "x", Qos::NO).await, Err(Code::BadData));
        let mut found = Vec::new();
        for _ in 0..4 {
            let m = b.receive().await.unwrap();
            assert_eq!(m.sender(), "a");
            found.push((
                m.kind(),
                m.is_realtime(),
                m.topic().to_owned(),
                String::from_utf8(m.into_payload().into()).unwrap(),
            ));
        }
        let expected = [
            (FrameKind::Message, false, "", "one"),
            (FrameKind::Message, true, "", "two"),
            (FrameKind::Broadcast, false, "", "all"),
            (FrameKind::Publish, false, "t/1", "topical"),
        ];
        let expected = expected.map(|(k, r, t, p)| (k, r, t.to_owned(), p.to_owned()));
        assert_eq!(found, expected);
        assert!(b.try_receive().is_none());
        assert_eq!(a.receive().await.unwrap().payload(), b"all", "a broadcast to all includes the sender");
    });
}

#[test]
fn large_payloads_are_not_copied() {
    let (_bus, _plugin, host) = Bus::with_plugin("");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    let payload = bytes(100_000);
    let address = payload.as_ptr().addr();
    run(a.send("b", payload, Qos::NO)).unwrap();
    let received = b.receive_timeout(LONG).unwrap().into_payload();
    assert_eq!(received.as_ptr().addr(), address);
}

fn bytes(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[test]
fn a_disconnected_client_frees_its_name_and_can_read_what_it_received() {
    let (bus, plugin, host) = Bus::with_plugin("");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    run(a.send("b", "last", Qos::NO)).unwrap();
    bus.kick("b", "kicked by a test");
    assert_eq!(bus.wait_until_left("b"), "kicked by a test");
    assert_eq!(run(a.send("b", "x", Qos::NO)), Err(Code::NotRegistered));
    assert_eq!(run(b.send("a", "x", Qos::NO)), Err(Code::NotRegistered), "it is not registered");
    assert_eq!(text(&b), "last");
    assert!(run(b.receive()).is_none() && b.receive_timeout(LONG).is_none());
    drop(a);
    assert_eq!(bus.wait_until_left("a"), "closed");
    let again = host.connect("a").unwrap();
    plugin.stop(LONG);
    assert!(bus.clients().is_empty());
    assert!(run(again.receive()).is_none());
    assert_eq!(host.connect("c").err(), Some(Code::NotSupported));
}

#[test]
fn a_waiting_reader_returns_when_the_client_is_disconnected() {
    let (bus, _plugin, host) = Bus::with_plugin("");
    let a = host.connect("a").unwrap();
    std::thread::scope(|scope| {
        let (ready, started) = std::sync::mpsc::channel();
        let a = &a;
        let reader = scope.spawn(move || {
            let mut receive = std::pin::pin!(a.receive());
            assert!(poll_once(receive.as_mut()).is_pending());
            ready.send(()).unwrap();
            run(receive)
        });
        started.recv_timeout(LONG).unwrap();
        bus.kick("a", "enough");
        assert!(reader.join().unwrap().is_none());
    });
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn senders_wait_for_a_full_queue_and_lose_nothing() {
    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 20_000\nstall_seconds = 60.0");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    const COUNT: usize = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run(async {
                for n in 0..COUNT {
                    a.send("b", format!("{n:01000}"), Qos::NO).await.unwrap();
                    assert!(bus.queued_bytes("b") < 40_000, "the sender waits");
                }
            });
        });
        for n in 0..COUNT {
            assert_eq!(text(&b), format!("{n:01000}"));
        }
    });
    assert!(b.try_receive().is_none());
    assert_eq!(bus.events(), []);
}

#[test]
fn a_client_that_receives_nothing_is_disconnected_and_its_senders_continue() {
    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 10_000\nstall_seconds = 0.05");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    run(async {
        let mut sent = 0;
        while a.send("b", bytes(3_000), Qos::NO).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 4, "the last of them waited for the close");
        let why = bus.wait_until_left("b");
        assert!(why.starts_with("received nothing for 0.05 s (stall_seconds) with 12"), "{why}");
        assert!(why.ends_with("over 10000 (queue_bytes)"), "{why}");
        let events = bus.events();
        assert!(matches!(&events[..], [(elbus_plugin_api::EventKind::SlowConsumer, name, _)] if name == "b"));
        for _ in 0..4 {
            assert_eq!(b.receive().await.unwrap().payload().len(), 3_000);
        }
        assert!(b.receive().await.is_none());
    });
}

#[test]
fn a_client_that_sends_to_itself_without_reading_is_disconnected() {
    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 10_000\nstall_seconds = 0.05");
    let a = host.connect("a").unwrap();
    run(async { while a.send("a", bytes(3_000), Qos::NO).await.is_ok() {} });
    assert!(bus.wait_until_left("a").starts_with("received nothing"));
}

#[test]
fn overflow_disconnects_or_drops_the_newest() {
    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 10_000\noverflow = 'disconnect'");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    let mut receive = std::pin::pin!(b.receive());
    while run(a.send("b", bytes(3_000), Qos::NO)).is_ok() {}
    let why = bus.wait_until_left("b");
    assert!(why.ends_with("bytes queued, the next message exceeds 10000 (queue_bytes)"), "{why}");
    assert_eq!(run(receive.as_mut()).unwrap().payload().len(), 3_000);

    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 10_000\noverflow = 'drop_newest'");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    let results: Vec<_> = (0..5).map(|_| run(a.send("b", bytes(3_000), Qos::NO))).collect();
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(Code::NotDelivered), Err(Code::NotDelivered)]);
    let realtime: Vec<_> = (0..5).map(|_| run(a.send("b", bytes(3_000), Qos::REALTIME)).is_ok()).collect();
    assert_eq!(realtime, [true, true, true, false, false], "up to twice the limit");
    let mut received = 0;
    while b.try_receive().is_some() {
        received += 1;
    }
    assert_eq!(received, 6);
    assert_eq!(bus.events(), []);
}

#[test]
fn a_sender_that_never_waits_is_refused_beyond_its_overdraft() {
    let (_bus, _plugin, host) = Bus::with_plugin("queue_bytes = 10_000\nstall_seconds = 60.0");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    let mut sent = 0;
    while sent < 100 {
        let mut send = std::pin::pin!(a.send("b", bytes(1_000), Qos::NO));
        // drops the send as soon as it would wait, repeatedly
        if let Poll::Ready(result) = poll_once(send.as_mut()) {
            result.unwrap();
        }
        sent += 1;
    }
    a.subscribe("t").unwrap(); // publishers are not held
    let mut received = 0;
    while b.try_receive().is_some() {
        received += 1;
    }
    assert!((15..25).contains(&received), "{received} kilobytes: twice the limit");
    run(a.send("b", "x", Qos::NO)).unwrap();
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl std::task::Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_batch_wakes_its_reader_once_without_a_flush() {
    let (bus, _plugin, host) = Bus::with_plugin("");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    run(a.send("b", "1", Qos::NO)).unwrap();
    assert_eq!(text(&b), "1");
    let counter = Arc::new(Counter::default());
    let waker = counter.clone().into();
    let wait = || {
        let mut receive = std::pin::pin!(b.receive());
        assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    };
    wait();
    run(a.send("b", "2", Qos::NO)).unwrap();
    run(a.send("b", "3", Qos::NO)).unwrap();
    assert_eq!((bus.flushes(), counter.0.load(SeqCst)), (0, 1));
    assert_eq!((text(&b), text(&b)), ("2".into(), "3".into()));
    wait();
    let mut other = host.register("other", &ClientInfo::in_process(), NullSink).unwrap();
    for payload in ["4", "5"] {
        let payloads = [Payload::from(payload.as_bytes())];
        assert_eq!(other.dispatch(&Request::new(Op::Message, Qos::NO, "b", &payloads)).reached(), 1);
    }
    assert_eq!((bus.flushes(), counter.0.load(SeqCst)), (0, 1), "the batch continues");
    other.end_batch();
    assert_eq!((bus.flushes(), counter.0.load(SeqCst)), (1, 2));
    assert_eq!((text(&b), text(&b)), ("4".into(), "5".into()));
}

#[test]
fn batches_are_sent_and_received_in_order() {
    let (_bus, _plugin, host) = Bus::with_plugin("");
    let (a, b) = (host.connect("a").unwrap(), host.connect("b").unwrap());
    b.subscribe("t").unwrap();
    let large = || vec![b'x'; 70_000];
    let sent: Vec<bytes::Bytes> =
        (0..1000).map(|n| if n % 300 == 7 { large().into() } else { n.to_string().into() }).collect();
    run(a.send_all("b", &sent, Qos::NO)).unwrap();
    run(a.publish_all("t", &sent, Qos::NO)).unwrap();
    let mut received = Vec::new();
    assert_eq!(b.try_receive_many(&mut received, 1), 1);
    assert_eq!(b.try_receive_many(&mut received, 0), 0);
    assert_eq!(b.try_receive_many(&mut received, 700), 700);
    received.extend(b.try_receive()); // both directions alternate
    while b.try_receive_many(&mut received, 64) > 0 {}
    let payloads = received.iter().map(elbus_plugin_api::inproc::Message::payload);
    assert!(payloads.eq(sent.iter().chain(&sent).map(|payload| &payload[..])));
    assert!(
        received
            .iter()
            .map(elbus_plugin_api::inproc::Message::topic)
            .eq([""; 1000].into_iter().chain(["t"; 1000]))
    );
    assert_eq!(received[7].payload().as_ptr(), sent[7].as_ptr(), "large payloads are not copied");
    assert_eq!(run(a.send_all("c", &sent, Qos::NO)), Err(Code::NotRegistered));
    assert_eq!(run(a.send_all("b", &[], Qos::NO)), Ok(()));
}

/// A waker that runs its task in the calling thread: an invalid waker, but easily written.
struct Inline {
    client: Arc<InprocClient>,
    peer: &'static str,
    left: parking_lot::Mutex<usize>,
}

impl Inline {
    /// Answers all queued messages, then waits with a waker that does the same.
    fn poll(self: &Arc<Self>) {
        while let Some(message) = self.client.try_receive() {
            {
                let mut left = self.left.lock();
                if *left == 0 {
                    continue;
                }
                *left -= 1;
            }
            let mut send = std::pin::pin!(self.client.send(self.peer, message.into_payload(), Qos::NO));
            assert!(poll_once(send.as_mut()).is_ready());
        }
        let this = self.clone();
        let mut receive = Box::pin(async move { this.client.receive().await });
        let waker = Arc::new(AtOnce(self.clone())).into();
        // registers the waker; a message received here is not answered and ends the exchange
        let _ = receive.as_mut().poll(&mut Context::from_waker(&waker));
    }
}

struct AtOnce(Arc<Inline>);

impl std::task::Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        self.0.poll();
    }
}

#[test]
fn wakers_that_run_their_task_inline_neither_deadlock_nor_nest() {
    let (_bus, _plugin, host) = Bus::with_plugin("");
    const ROUNDS: usize = 20_000;
    let player = |name: &'static str, peer| {
        let client = Arc::new(host.connect(name).unwrap());
        Arc::new(Inline { client, peer, left: parking_lot::Mutex::new(ROUNDS) })
    };
    let (ping, pong) = (player("ping", "pong"), player("pong", "ping"));
    ping.poll();
    pong.poll();
    let (done, end) = std::sync::mpsc::channel();
    let server = host.connect("server").unwrap();
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            run(server.send("ping", "ball", Qos::NO)).unwrap();
            done.send(()).unwrap();
        })
        .unwrap();
    end.recv_timeout(LONG).unwrap();
    assert_eq!((*ping.left.lock(), *pong.left.lock()), (0, 0));
}

#[test]
fn a_task_run_within_its_own_clients_dispatch_can_send() {
    let (_bus, _plugin, host) = Bus::with_plugin("");
    let client = Arc::new(host.connect("a").unwrap());
    let other = host.connect("b").unwrap();
    let task = Arc::new(Inline { client, peer: "b", left: parking_lot::Mutex::new(1) });
    task.poll();
    let (done, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // wakes the task, which sends through the client of this very send
        run(task.client.send("a", "echo", Qos::NO)).unwrap();
        done.send(()).unwrap();
    });
    end.recv_timeout(LONG).unwrap();
    assert_eq!(text(&other), "echo");
}

#[test]
fn messages_of_many_threads_arrive_once_and_in_order() {
    const THREADS: usize = 4;
    const COUNT: usize = 3_000;
    let (bus, _plugin, host) = Bus::with_plugin("queue_bytes = 5_000\nstall_seconds = 60.0");
    let clients: Vec<InprocClient> = (0..THREADS).map(|n| host.connect(&n.to_string()).unwrap()).collect();
    std::thread::scope(|scope| {
        for (n, client) in clients.iter().enumerate() {
            // each client sends to all, itself included, and receives from all
            scope.spawn(move || {
                run(async {
                    for count in 0..COUNT {
                        let target = ((n + count) % THREADS).to_string();
                        client.send(&target, count.to_string(), Qos::NO).await.unwrap();
                    }
                });
            });
            scope.spawn(move || {
                let mut last = [None; THREADS];
                for _ in 0..COUNT {
                    let message = client.receive_timeout(LONG).unwrap();
                    let sender: usize = message.sender().parse().unwrap();
                    let count: usize = std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
                    assert!(last[sender].replace(count).is_none_or(|before| before < count));
                }
            });
        }
    });
    assert_eq!(bus.events(), []);
    for client in &clients {
        assert!(client.try_receive().is_none());
    }
}

#[test]
fn clients_connect_and_close_on_many_threads() {
    let (bus, plugin, host) = Bus::with_plugin("");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let host = host.clone();
            let bus = bus.clone();
            scope.spawn(move || {
                for n in 0..200 {
                    let name = format!("{thread}.{n}");
                    let client = host.connect(&name).unwrap();
                    run(client.broadcast("*", "hello", Qos::NO)).unwrap();
                    if n % 3 == 0 {
                        bus.kick(&name, "out");
                    }
                    assert_eq!(text(&client), "hello", "its own");
                }
            });
        }
    });
    assert!(bus.clients().is_empty());
    assert_eq!(plugin.status().detail, "0 clients");
    plugin.stop(LONG);
}
