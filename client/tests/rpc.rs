//! Calls: results, errors, concurrency, and calls without an answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Bytes, Call, CallOptions, Client, Error, Frame, Qos, Router, RpcError};
use elbus_protocol::rpc::{RpcFrame, decode_rpc, encode_error, encode_reply};
use std::{sync::Arc, time::Duration};
use support::{TestBroker, Transport, broker_kinds, in_time, next, wait_until};
use tokio::sync::{Barrier, mpsc};

const SHORT: Duration = Duration::from_millis(200);

#[derive(serde::Serialize, serde::Deserialize)]
struct Add {
    a: i64,
    b: i64,
}

/// Id and method of a request.
fn request(frame: &Frame) -> (u32, String) {
    match decode_rpc(frame.payload()).unwrap() {
        RpcFrame::Request { call_id, method, .. } => (call_id, String::from_utf8(method.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn calculator() -> Router {
    Router::new()
        .method("add", |add: Add| async move { Ok::<_, RpcError>(add.a + add.b) })
        .method("nothing", |(): ()| async { Ok::<_, RpcError>(()) })
        .method("refuse", |code: i16| async move { Err::<(), _>(RpcError::new(code, "no")) })
        .method("panic", |(): ()| async { if true { panic!("on purpose") } else { Ok::<(), RpcError>(()) } })
        .raw("echo", |call: Call| async move { Ok(call.params().clone()) })
        .raw("who", |call: Call| async move {
            Ok(Bytes::from(format!("{} {}", call.sender(), call.is_realtime())))
        })
}

fn code_of(outcome: Result<Bytes, Error>) -> i16 {
    match outcome {
        Err(Error::Rpc(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_return_results_and_errors() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _server_frames) = broker.connect(*transport, "server").await;
            let (client, _frames) = broker.connect(*transport, "client").await;
            server.serve(calculator()).unwrap();
            assert_eq!(client.call("server", "echo", "hello").await.unwrap(), "hello");
            assert_eq!(client.call("server", "echo", "").await.unwrap(), "");
            let large = vec![7; 2 << 20];
            assert!(client.call("server", "echo", large.clone()).await.unwrap() == large);
            assert_eq!(client.call_as::<i64>("server", "add", &Add { a: 1, b: 2 }).await.unwrap(), 3);
            client.call_as::<()>("server", "nothing", &()).await.unwrap();
            let realtime = CallOptions::new().realtime(true);
            assert_eq!(client.call_with("server", "who", "", realtime).await.unwrap(), "client true");
            let (secondary, _) = client.secondary().await.unwrap();
            assert_eq!(secondary.call("server", "who", "").await.unwrap(), "client%%0 false");
            // a client can call itself
            assert_eq!(server.call("server", "who", "").await.unwrap(), "server false");
            assert_eq!(code_of(client.call("server", "none", "").await), -32601);
            assert_eq!(code_of(client.call("server", "add", "not msgpack").await), -32602);
            assert_eq!(code_of(client.call("server", "panic", "").await), -32603);
            let refused = client.call_as::<()>("server", "refuse", &-7i16).await;
            assert!(
                matches!(&refused, Err(Error::Rpc(e)) if e.code == -7 && e.text() == Some("no")),
                "{refused:?}"
            );
            let wrong = client.call_as::<String>("server", "add", &Add { a: 1, b: 2 }).await;
            assert!(matches!(wrong, Err(Error::Conversion { .. })), "{wrong:?}");
            assert_eq!(
                client.call("server", "echo", "still").await.unwrap(),
                "still",
                "{kind:?} {transport:?}"
            );
            // the broker answers calls too
            assert_eq!(client.call(".broker", "test", "").await.unwrap(), &b"\x81\xA2ok\xC3"[..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_fails_at_once_without_target_and_times_out_if_the_target_disconnects() {
    const LONG: Duration = Duration::from_secs(3600);
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (client, _frames) = broker.connect(*transport, "client").await;
            let slow = CallOptions::new().timeout(LONG);
            let unknown = in_time("the answer", client.call_with("nobody", "m", "", slow)).await;
            assert!(
                matches!(&unknown, Err(Error::NotRegistered { target, .. }) if target == "nobody"),
                "{unknown:?}"
            );
            let (server, mut requests) = broker.connect(*transport, "server").await;
            let call = client.call_with("server", "m", "", CallOptions::new().timeout(SHORT));
            let vanish = async {
                next(&mut requests).await;
                server.close().await;
            };
            let (outcome, ()) = in_time("the timeout", async { tokio::join!(call, vanish) }).await;
            assert!(
                matches!(outcome, Err(Error::Timeout { after: SHORT, .. })),
                "{kind:?} {transport:?} {outcome:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_reply_and_notifications_arrive() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _server_frames) = broker.connect(*transport, "server").await;
            let (client, mut frames) = broker.connect(*transport, "client").await;
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let notified = sender.clone();
            let router = Router::new()
                .raw("m", move |call| {
                    sender
                        .send(format!("{} {:?} {}", call.method(), call.params(), call.wants_reply()))
                        .unwrap();
                    async { Ok(Bytes::from("unwanted")) }
                })
                .notification(move |notification| {
                    notified.send(format!("{} {:?}", notification.sender(), notification.payload())).unwrap();
                    async {}
                });
            server.serve(router).unwrap();
            for qos in [Qos::NO, Qos::PROCESSED, Qos::REALTIME, Qos::REALTIME_PROCESSED] {
                client.call0("server", "m", "x", qos).await.unwrap();
                assert_eq!(in_time("a call", receiver.recv()).await.unwrap(), "m b\"x\" false");
                client.notify("server", "y", qos).await.unwrap();
                assert_eq!(in_time("a notification", receiver.recv()).await.unwrap(), "client b\"y\"");
            }
            let unknown = client.call0("nobody", "m", "", Qos::PROCESSED).await;
            assert!(matches!(unknown, Err(Error::NotRegistered { .. })));
            let unknown = client.notify("nobody", "", Qos::PROCESSED).await;
            assert!(matches!(unknown, Err(Error::NotRegistered { .. })));
            // no reply was sent
            client.send("client", "end", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_run_concurrently() {
    const CALLS: u32 = 1000;
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (server, _server_frames) = broker.connect(*transport, "server").await;
            let (client, _frames) = broker.connect(*transport, "client").await;
            // none completes before all have started
            let all = Arc::new(Barrier::new(CALLS as usize));
            let router = Router::new().method("double", move |n: u32| {
                let all = all.clone();
                async move {
                    all.wait().await;
                    Ok::<_, RpcError>(2 * n)
                }
            });
            server.serve(router).unwrap();
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..CALLS {
                let client = client.clone();
                calls.spawn(async move {
                    let doubled: u32 = client.call_as("server", "double", &n).await.unwrap();
                    assert_eq!(doubled, 2 * n);
                });
            }
            in_time("the replies", async {
                while let Some(call) = calls.join_next().await {
                    call.unwrap();
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_forged_replies_complete_no_call() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            // answers by hand
            let (server, mut requests) = broker.connect(*transport, "server").await;
            let (forger, _forger_frames) = broker.connect(*transport, "forger").await;
            let (client, mut frames) = broker.connect(*transport, "client").await;
            let own = client.clone();
            let cancelled = tokio::spawn(async move { own.call("server", "first", "").await });
            let (first, method) = request(&next(&mut requests).await);
            assert_eq!(method, "first");
            cancelled.abort();
            assert!(cancelled.await.unwrap_err().is_cancelled());
            let call = client.call("server", "second", "");
            let answers = async {
                let (second, method) = request(&next(&mut requests).await);
                assert_eq!(method, "second");
                assert_ne!(first, second);
                server.send("client", encode_reply(first, b"late"), Qos::PROCESSED).await.unwrap();
                forger.send("client", encode_reply(second, b"forged"), Qos::PROCESSED).await.unwrap();
                server.send("client", encode_error(second, 5, b"right"), Qos::PROCESSED).await.unwrap();
                server.send("client", encode_reply(second, b"twice"), Qos::PROCESSED).await.unwrap();
            };
            let (outcome, ()) = in_time("the reply", async { tokio::join!(call, answers) }).await;
            assert!(
                matches!(&outcome, Err(Error::Rpc(e)) if e.code == 5 && e.data == "right"),
                "{outcome:?}"
            );
            client.send("client", "end", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"end", "{kind:?} {transport:?}");
            wait_until("all three invalid replies are counted", || client.stats().unclaimed == 3).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_can_call_in_both_directions() {
    async fn serve(client: &Client) {
        let own = client.clone();
        let router = Router::new().method("down", move |n: u32| {
            let own = own.clone();
            async move {
                if n == 0 {
                    return Ok(0);
                }
                let other = if own.name() == "a" { "b" } else { "a" };
                let below: u32 = own
                    .call_as(other, "down", &(n - 1))
                    .await
                    .map_err(|e| RpcError::internal(e.to_string()))?;
                Ok(below + 1)
            }
        });
        client.serve(router).unwrap();
    }
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (a, _a_frames) = broker.connect(*transport, "a").await;
            let (b, _b_frames) = broker.connect(*transport, "b").await;
            serve(&a).await;
            serve(&b).await;
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..20 {
                for (client, target) in [(a.clone(), "b"), (b.clone(), "a")] {
                    calls.spawn(async move { client.call_as::<u32>(target, "down", &20u32).await.unwrap() });
                }
            }
            let all = in_time("the replies", calls.join_all()).await;
            assert_eq!(all, [20; 40], "{kind:?} {transport:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_completes_while_frames_are_unread() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        let (server, _server_frames) = broker.connect(Transport::Unix, "server").await;
        let builder = Client::builder("client").queue_bytes(1 << 20);
        let (client, _frames) = broker.connect_with(Transport::Unix, builder).await.unwrap();
        server.serve(calculator()).unwrap();
        for _ in 0..200 {
            server.send("client", vec![0; 10_000], Qos::NO).await.unwrap();
        }
        server.round_trip().await.unwrap();
        assert_eq!(client.call("server", "echo", "x").await.unwrap(), "x", "{kind:?}");
    }
}
