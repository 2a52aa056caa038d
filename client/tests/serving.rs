//! Serving: start and end, panics, and long results in parts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{
    Bytes, Call, CallOptions, Client, Error, Notification, Qos, Router, RpcError, RpcHandler,
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use support::{BrokerKind, TestBroker, Transport, broker_kinds, in_time, next, wait_until};
use tokio::sync::Notify;

const SHORT: Duration = Duration::from_millis(200);

fn echo() -> Router {
    Router::new().raw("echo", |call: Call| async move { Ok(call.params().clone()) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_one_server_and_calls_are_frames_after_it_stops() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, mut frames) = broker.connect(*transport, "server").await;
            let (client, _client_frames) = broker.connect(*transport, "client").await;
            let serving = server.serve(echo()).unwrap();
            assert!(matches!(server.serve(echo()), Err(Error::AlreadyServing)));
            assert_eq!(client.call("server", "echo", "x").await.unwrap(), "x");
            // other messages are delivered as frames
            client.send("server", "raw", Qos::NO).await.unwrap();
            client.broadcast("server", "\u{1}broadcast", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"raw");
            assert_eq!(next(&mut frames).await.payload(), b"\x01broadcast");
            serving.stop();
            let unanswered = client.call_with("server", "echo", "x", CallOptions::new().timeout(SHORT)).await;
            assert!(
                matches!(unanswered, Err(Error::Timeout { .. })),
                "{kind:?} {transport:?} {unanswered:?}"
            );
            assert_eq!(next(&mut frames).await.payload()[0], 1);
            client.notify("server", "n", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"\0n");
            server.serve(echo()).unwrap();
            assert_eq!(client.call("server", "echo", "again").await.unwrap(), "again");
        }
    }
}

/// Calls that arrived before the stop are answered after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_answers_the_calls_that_have_arrived() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _frames) = broker.connect(*transport, "server").await;
            let (client, _client_frames) = broker.connect(*transport, "client").await;
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (begin, wait) = (begun.clone(), go.clone());
            let router = Router::new().raw("wait", move |_| {
                let (begin, wait) = (begin.clone(), wait.clone());
                async move {
                    begin.notify_one();
                    wait.notified().await;
                    Ok(Bytes::from("done"))
                }
            });
            let serving = server.serve(router).unwrap();
            let call = tokio::spawn(async move {
                let result = client.call("server", "wait", "").await;
                (client, result)
            });
            in_time("the method", begun.notified()).await;
            serving.stop();
            go.notify_one();
            let (client, result) = in_time("the result", call).await.unwrap();
            assert_eq!(result.unwrap(), "done", "{kind:?} {transport:?}");
            drop(client);
        }
    }
}

/// In process, every acknowledged call is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_in_process_loses_no_acknowledged_call() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let (server, _frames) = broker.connect(Transport::InProcess, "server").await;
    let (client, _client_frames) = broker.connect(Transport::Unix, "client").await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, wait) = (begun.clone(), go.clone());
    let router = Router::new().raw("wait", move |_| {
        let (begin, wait) = (begin.clone(), wait.clone());
        async move {
            begin.notify_one();
            wait.notified().await;
            Ok(Bytes::from("done"))
        }
    });
    let serving = server.serve(router).unwrap();
    let call = tokio::spawn(async move {
        let result = client.call("server", "wait", "").await;
        (client, result)
    });
    in_time("the method", begun.notified()).await;
    let drained = tokio::spawn(serving.drain());
    let (other, _other_frames) = broker.connect(Transport::Unix, "other").await;
    let refused = async {
        while !matches!(
            other.call0("server", "x", "", Qos::PROCESSED).await,
            Err(Error::NotRegistered { .. })
        ) {
            tokio::task::yield_now().await;
        }
    };
    in_time("the refusal of further calls", refused).await;
    go.notify_one();
    in_time("all calls are answered", drained).await.unwrap();
    let (_client, result) = in_time("the result", call).await.unwrap();
    assert_eq!(result.unwrap(), "done");
    let sent = server.publish("topic", "x", Qos::PROCESSED).await;
    assert!(sent.is_err(), "a draining client can only reply: {sent:?}");
}

/// Methods that still run after the client's timeout are cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_cancels_waiting_methods() {
    struct Ended(Arc<Notify>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        let server = Client::builder("server").timeout(Duration::from_secs(3));
        let (server, _frames) = broker.connect_with(kind.transports()[0], server).await.unwrap();
        let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begin, end) = (begun.clone(), ended.clone());
        let router = Router::new().raw("wait", move |_| {
            let (begin, ended) = (begin.clone(), Ended(end.clone()));
            async move {
                begin.notify_one();
                std::future::pending::<()>().await;
                drop(ended);
                Ok(Bytes::new())
            }
        });
        let serving = server.serve(router).unwrap();
        server.call0("server", "wait", "", Qos::NO).await.unwrap();
        in_time("the method", begun.notified()).await;
        serving.stop();
        in_time("the end of the method", ended.notified()).await;
    }
}

/// Panics before and after it returns a future.
struct Panics;

impl RpcHandler for Panics {
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        assert!(call.method() != "at once", "on purpose");
        async move {
            tokio::task::yield_now().await;
            assert!(call.method() != "later", "on purpose");
            Ok("fine".into())
        }
    }

    async fn notification(&self, _: Notification) {
        panic!("on purpose");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_method_affects_no_other_call() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _frames) = broker.connect(*transport, "server").await;
            let (client, _client_frames) = broker.connect(*transport, "client").await;
            server.serve(Panics).unwrap();
            for method in ["later", "at once"] {
                let failed = client.call("server", method, "").await;
                assert!(matches!(&failed, Err(Error::Rpc(e)) if e.code == -32603), "{method}: {failed:?}");
            }
            for _ in 0..3 {
                client.notify("server", "", Qos::PROCESSED).await.unwrap();
                assert_eq!(
                    client.call("server", "good", "").await.unwrap(),
                    "fine",
                    "{kind:?} {transport:?}"
                );
            }
        }
    }
}

/// A stream of numbers that is not always ready.
struct Countdown(u32);

impl futures_core::Stream for Countdown {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u32>> {
        self.0 = self.0.saturating_sub(1);
        if self.0 % 2 == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready((self.0 > 0).then_some(self.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_return_items_one_by_one_and_in_blocks() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _frames) = broker.connect(*transport, "server").await;
            let (client, _client_frames) = broker.connect(*transport, "client").await;
            let router =
                Router::new()
                    .cursor("squares", "squares.next", |to: u64| async move {
                        if to > 1000 {
                            Err(RpcError::invalid_params("at most 1000"))
                        } else {
                            Ok((0..to).map(|n| n * n))
                        }
                    })
                    .cursor_stream("down", "down.next", |from: u32| async move {
                        Ok::<_, RpcError>(Countdown(from))
                    });
            server.serve(router).unwrap();
            let mut squares = client.cursor::<u64>("server", "squares", &5u64, "squares.next").await.unwrap();
            let mut got = vec![];
            while let Some(square) = squares.next().await.unwrap() {
                got.push(square);
            }
            assert_eq!(got, [0, 1, 4, 9, 16]);
            assert_eq!(squares.next().await.unwrap(), None);
            let mut squares = client.cursor::<u64>("server", "squares", &5u64, "squares.next").await.unwrap();
            assert_eq!(squares.next().await.unwrap(), Some(0));
            assert_eq!(squares.block(3).await.unwrap(), [1, 4, 9]);
            assert_eq!(squares.block(3).await.unwrap(), [16]);
            assert_eq!(squares.block(3).await.unwrap(), []);
            let mut down = client.cursor::<u32>("server", "down", &9u32, "down.next").await.unwrap();
            assert_eq!(down.next().await.unwrap(), Some(8));
            assert_eq!(down.block(100).await.unwrap(), [6, 4, 2], "{kind:?} {transport:?}");
            let refused = client.cursor::<u64>("server", "squares", &2000u64, "squares.next").await;
            assert!(matches!(&refused, Err(Error::Rpc(e)) if e.code == -32602), "{refused:?}");
            // other clients cannot read a cursor, even with its token
            let opened = client.call("server", "squares", vec![5]).await.unwrap();
            let stolen = server.call("server", "squares.next", opened.clone()).await;
            assert!(matches!(&stolen, Err(Error::Rpc(e)) if e.code == -32001), "{stolen:?}");
            assert_eq!(client.call("server", "squares.next", opened).await.unwrap(), &[0][..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_arrive_before_serve_are_queued() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let name = format!("server.{transport:?}");
        let (server, mut frames) =
            broker.connect_with(*transport, Client::builder(&name).queue_calls()).await.unwrap();
        let (caller, _) = broker.connect(*transport, &format!("caller.{transport:?}")).await;
        let calling = tokio::spawn(async move { caller.call(&name, "double", vec![0x15]).await });
        wait_until("the call has arrived", || server.stats().frames_received == 1).await;
        server
            .serve(Router::new().method("double", |n: u8| async move { Ok::<_, RpcError>(2 * n) }))
            .unwrap();
        assert_eq!(*in_time("the reply", calling).await.unwrap().unwrap(), [0x2A]);
        assert!(frames.try_next().is_none());
    }
}
