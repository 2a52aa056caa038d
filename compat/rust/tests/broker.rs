//! The methods of `.broker`, with the result types of the crate, and the broker's announcements.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use busrt::borrow::Cow;
use busrt::client::AsyncClient;
use busrt::common::{BrokerInfo, BrokerStats, ClientList};
use busrt::rpc::{Rpc, RpcClient, RpcError, RpcEvent};
use busrt::{QoS, empty_payload};
use elbus_compat::{Bus, Peer, acknowledged, pattern, within};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct ListParams<'a> {
    filter: Option<&'a str>,
}

#[derive(Deserialize)]
struct Announcement {
    s: String,
    d: Option<String>,
    t: u64,
}

async fn caller(bus: &Bus) -> RpcClient {
    RpcClient::new0(bus.connect(&bus.name("caller")).await.unwrap())
}

async fn ask(rpc: &RpcClient, method: &str, params: Cow<'_>) -> Result<RpcEvent, RpcError> {
    within("a reply", rpc.call(".broker", method, params, QoS::Processed)).await
}

async fn filtered(rpc: &RpcClient, filter: Option<&str>) -> RpcEvent {
    let params = rmp_serde::to_vec_named(&ListParams { filter }).unwrap();
    ask(rpc, "client.list", params.into()).await.unwrap()
}

#[tokio::test]
async fn the_methods_test_info_and_stats() {
    for bus in Bus::each() {
        let rpc = caller(&bus).await;
        let reply = ask(&rpc, "test", empty_payload!()).await.unwrap();
        assert_eq!((reply.payload(), reply.sender()), (b"\x81\xa2ok\xc3".as_slice(), ".broker"));
        let reply = ask(&rpc, "info", empty_payload!()).await.unwrap();
        let info: BrokerInfo = rmp_serde::from_slice(reply.payload()).unwrap();
        assert!(!info.author.is_empty() && !info.version.is_empty());
        let reply = ask(&rpc, "stats", empty_payload!()).await.unwrap();
        let stats: BrokerStats = rmp_serde::from_slice(reply.payload()).unwrap();
        assert!(stats.r_frames > 0 && stats.w_frames > 0 && stats.r_bytes > 0 && stats.w_bytes > 0);
    }
}

#[tokio::test]
async fn the_client_list() {
    for bus in Bus::each() {
        let rpc = caller(&bus).await;
        let peer = bus.peer("peer").await;
        let _secondary = peer.client.register_secondary().await.unwrap();
        let reply = ask(&rpc, "client.list", empty_payload!()).await.unwrap();
        let list: ClientList = rmp_serde::from_slice(reply.payload()).unwrap();
        assert!(list.clients.is_sorted_by_key(|client| client.name));
        let entry = |name: &str| list.clients.iter().find(|client| client.name == name).cloned().unwrap();
        let own = entry(&peer.name);
        assert_eq!((own.instances, own.queue), (2, 0));
        assert!(own.port.is_some());
        match own.kind {
            "local_ipc" => assert_eq!(own.source, None),
            "tcp" | "websocket" => assert!(own.source.unwrap().contains(':')),
            other => panic!("kind {other}"),
        }
        let broker = entry(".broker");
        assert_eq!((broker.kind, broker.source, broker.port, broker.instances), ("internal", None, None, 1));

        let reply = filtered(&rpc, Some(&format!("^{}\\.pe+r$", bus.prefix))).await;
        let list: ClientList = rmp_serde::from_slice(reply.payload()).unwrap();
        assert_eq!(list.clients.iter().map(|client| client.name).collect::<Vec<_>>(), [peer.name.as_str()]);
        let reply = filtered(&rpc, None).await;
        let list: ClientList = rmp_serde::from_slice(reply.payload()).unwrap();
        assert!(list.clients.iter().any(|client| client.name == ".broker"));
    }
}

#[tokio::test]
async fn clients_are_counted() {
    for bus in Bus::each() {
        let rpc = caller(&bus).await;
        let mut peer = bus.peer("peer").await;
        let own = peer.name.clone();
        for payload in [0, 10, 1000].map(pattern) {
            peer.send(&own, &payload).await.unwrap();
        }
        peer.client.ping().await.unwrap();
        peer.send(&own, b"").await.unwrap();
        let body_bytes = 4 * (own.len() as u64 + 1) + 1010;
        let reply = filtered(&rpc, Some(&format!("^{own}$"))).await;
        let list: ClientList = rmp_serde::from_slice(reply.payload()).unwrap();
        let client = &list.clients[0];
        assert_eq!((client.r_frames, client.r_bytes), (4, body_bytes));
        assert_eq!((client.w_frames, client.w_bytes), (8, body_bytes + 4 * 6));
    }
}

#[tokio::test]
async fn benchmarks_return_their_params() {
    for bus in Bus::each() {
        let rpc = caller(&bus).await;
        let sizes = [0, 1, 8_192, 100_000, 1 << 20, 8 << 20];
        for size in sizes.into_iter().filter(|size| *size <= bus.max_sent_bytes()) {
            let params = pattern(size);
            let reply = ask(&rpc, "benchmark.test", params.as_slice().into()).await.unwrap();
            assert!(reply.payload() == params, "{size} bytes");
        }
    }
}

#[tokio::test]
async fn invalid_calls_get_error_codes() {
    let bad_filter = rmp_serde::to_vec_named(&ListParams { filter: Some("(") }).unwrap();
    for bus in Bus::each() {
        let rpc = caller(&bus).await;
        for (method, params, code, has_data) in [
            ("test", b"x".as_slice(), -32_602, false),
            ("info", b"\xc0", -32_602, false),
            ("stats", b"\x80", -32_602, false),
            ("client.list", b"\xc1", -32_700, true),
            ("client.list", &bad_filter, -32_700, true),
            ("none.such", b"", -32_601, false),
            ("", b"", -32_601, false),
        ] {
            let error = ask(&rpc, method, params.into()).await.unwrap_err();
            let data = error.data().unwrap_or_default();
            assert_eq!((error.code(), !data.is_empty()), (code, has_data), "{method}");
        }
        acknowledged(rpc.call0(".broker", "none.such", empty_payload!(), QoS::Processed).await)
            .await
            .unwrap();
        acknowledged(rpc.notify(".broker", b"x".as_slice().into(), QoS::Processed).await).await.unwrap();
        ask(&rpc, "test", empty_payload!()).await.unwrap();
    }
}

#[tokio::test]
async fn primaries_are_announced() {
    for bus in Bus::each() {
        let mut watcher = bus.peer("watcher").await;
        watcher.subscribe(&[".broker/info"]).await;
        let peer = bus.peer("peer").await;
        let secondary = peer.client.register_secondary().await.unwrap();
        let name = peer.name.clone();
        drop(secondary);
        watcher.wait_until_unregistered(&format!("{name}%%0")).await;
        drop(peer);
        watcher.wait_until_unregistered(&name).await;
        let _last = bus.peer("last").await;
        let expected = [("reg", "peer"), ("unreg", "peer"), ("reg", "last")]
            .map(|(event, label)| format!("{event} {}", bus.name(label)));
        assert_eq!(announcements(&watcher, &bus, 3).await, expected);
    }
}

/// Returns the next announcements about clients of this test, in order.
async fn announcements(watcher: &Peer, bus: &Bus, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let frame = watcher.next().await;
        assert_eq!((frame.sender(), frame.topic()), (".broker", Some(".broker/info")));
        assert!(!frame.is_realtime());
        let Announcement { s, d, t } = rmp_serde::from_slice(frame.payload()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(Duration::from_nanos(t)) < Duration::from_secs(60));
        let subject = d.unwrap_or_default();
        // the watcher's own registration can be announced after it has subscribed
        if subject.starts_with(&bus.prefix) && subject != watcher.name {
            seen.push(format!("{s} {subject}"));
        }
    }
    seen
}
