//! Registration: valid names, when a name is free again, secondaries, keep-alive.

use std::time::{Duration, Instant};

use busrt::client::AsyncClient;
use busrt::rpc::{Rpc, RpcClient};
use busrt::{ErrorKind, QoS, empty_payload};
use elbus_compat::{Bus, Peer};

#[tokio::test]
async fn taken_and_invalid_names_are_refused() {
    for bus in Bus::each() {
        let mut owner = bus.peer("owner").await;
        let own = owner.name.clone();
        assert_eq!(bus.refusal(&own).await, ErrorKind::Busy);
        owner.send(&own, b"unharmed").await.unwrap();
        assert_eq!(owner.next().await.payload(), b"unharmed");
        for name in ["", ".broker", ".mine"] {
            assert_eq!(bus.refusal(name).await, ErrorKind::Data, "{name:?}");
        }
        assert_eq!(bus.refusal(&bus.name("absent%%0")).await, ErrorKind::NotRegistered);
    }
}

#[tokio::test]
async fn disconnecting_frees_the_name_and_ends_subscriptions() {
    for bus in Bus::each() {
        let (mut watcher, mut peer) = (bus.peer("watcher").await, bus.peer("peer").await);
        let name = peer.name.clone();
        peer.subscribe(&[&bus.topic("#")]).await;
        drop(peer);
        watcher.wait_until_unregistered(&name).await;
        let successor = bus.peer("peer").await;
        watcher.publish(&bus.topic("x"), b"for the previous client").await;
        assert!(successor.payloads_from(&mut watcher).await.is_empty());
    }
}

#[tokio::test]
async fn secondaries_are_clients_of_their_own() {
    for bus in Bus::each() {
        let (mut other, primary) = (bus.peer("other").await, bus.peer("p").await);
        let mut first = Peer::new(primary.client.register_secondary().await.unwrap());
        let mut second = Peer::new(primary.client.register_secondary().await.unwrap());
        assert_eq!([&first.name, &second.name], [&bus.name("p%%0"), &bus.name("p%%1")]);
        first.subscribe(&[&bus.topic("#")]).await;
        other.publish(&bus.topic("x"), b"publication").await;
        other.broadcast(&bus.name("?"), b"broadcast").await;
        assert_eq!(primary.payloads_from(&mut other).await, [b"broadcast"]);
        assert_eq!(first.payloads_from(&mut other).await, [b"publication".as_slice(), b"broadcast"]);
        assert_eq!(second.payloads_from(&mut other).await, [b"broadcast"]);
        for peer in [&mut first, &mut second] {
            peer.send(&primary.name, b"up").await.unwrap();
            let frame = primary.next().await;
            assert_eq!((frame.sender(), frame.primary_sender()), (peer.name.as_str(), primary.name.as_str()));
        }

        let gone = first.name.clone();
        drop(first);
        other.wait_until_unregistered(&gone).await;
        other.send(&second.name, b"you stay").await.unwrap();
        other.send(&primary.name, b"you too").await.unwrap();
    }
}

#[tokio::test]
async fn secondaries_are_disconnected_with_their_primary() {
    for bus in Bus::each() {
        let (mut other, primary) = (bus.peer("other").await, bus.peer("p").await);
        let first = Peer::new(primary.client.register_secondary().await.unwrap());
        let second = bus.peer("p%%by another process").await;
        drop(primary);
        for peer in [first, second] {
            other.wait_until_unregistered(&peer.name).await;
            peer.wait_until_disconnected().await;
        }
        bus.peer("p").await;
    }
}

/// The broker has its default timeout of 5 s. Both addresses are tested at the same time.
#[tokio::test]
async fn silent_clients_are_disconnected() {
    let start = Instant::now();
    let mut silent = Vec::new();
    for bus in Bus::each() {
        silent.push((bus.peer("silent").await, bus));
    }
    for (peer, bus) in silent {
        peer.wait_until_disconnected().await;
        assert!(start.elapsed() > Duration::from_secs(5), "disconnected after {:?}", start.elapsed());
        bus.peer("silent").await;
    }
}

#[tokio::test]
async fn pings_keep_a_client_connected() {
    let mut peers = Vec::new();
    for bus in Bus::each() {
        peers.push(bus.peer("pinging").await);
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        for peer in &mut peers {
            peer.client.ping().await.unwrap();
        }
    }
    for mut peer in peers {
        let own = peer.name.clone();
        peer.send(&own, b"awake").await.unwrap();
        assert_eq!(peer.next().await.payload(), b"awake");
    }
}

#[tokio::test]
async fn an_rpc_client_keeps_itself_connected() {
    let mut rpcs = Vec::new();
    for bus in Bus::each() {
        rpcs.push(RpcClient::new0(bus.connect(&bus.name("rpc")).await.unwrap()));
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    for rpc in rpcs {
        assert!(rpc.is_connected());
        rpc.call(".broker", "test", empty_payload!(), QoS::Processed).await.unwrap();
    }
}
