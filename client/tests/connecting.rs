//! Connecting and closing: errors, names, secondary clients, and what remains after the end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Address, Client, ConnectionEvent, Error, Qos};
use std::time::{Duration, Instant};
use support::{BrokerKind, TestBroker, Transport, broker_kinds, fake_broker::FakeBroker, in_time, next};
use tokio::io::AsyncWriteExt;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn connection_errors_name_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.sock");
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for address in [Address::from(path.clone()), Address::from(closed)] {
        let error = Client::connect(address.clone(), "a").await.unwrap_err();
        assert!(
            matches!(&error, Error::NoBroker { address: at, .. } if *at == address.to_string()),
            "{error:?}"
        );
        assert!(error.to_string().contains(&address.to_string()) && !error.to_string().contains('\n'));
        assert!(std::error::Error::source(&error).is_some());
    }
    let bad = Client::connect("no address", "a").await;
    assert!(matches!(bad, Err(Error::BadAddress { .. })), "{bad:?}");
}

#[tokio::test]
async fn a_listener_with_another_protocol_is_not_a_broker() {
    let fake = FakeBroker::listen();
    for (answer, close) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], false),
        (&[0xEB, 2, 0], false),
        (&[0xEB, 1, 0, 0x75], true),
        (&[0xEB, 1, 0, 0x01, 0x55], false),
        (&[0xEB, 1], true),
        (&[], true),
    ] {
        let connect = Client::connect(fake.path(), "a");
        let listen = async {
            let mut peer = fake.accept().await;
            peer.stream.write_all(answer).await.unwrap();
            if close {
                // without unread bytes, so that the connection is not reset
                peer.stream.shutdown().await.unwrap();
            }
            peer
        };
        let (connected, _peer) = tokio::join!(in_time("an answer", connect), listen);
        assert!(matches!(connected, Err(Error::NotABroker { .. })), "{answer:?}: {connected:?}");
    }
}

#[tokio::test]
async fn a_silent_listener_times_out() {
    let fake = FakeBroker::listen();
    let begin = Instant::now();
    for sent in [&[][..], &[0xEB], &[0xEB, 1, 0], &[0xEB, 1, 0, 1]] {
        let connect = Client::builder("a").timeout(SHORT).connect(fake.path());
        let listen = async {
            let mut peer = fake.accept().await;
            // the client can have given up by then
            _ = peer.stream.write_all(sent).await;
            peer
        };
        let (connected, _peer) = tokio::join!(in_time("the timeout", connect), listen);
        assert!(matches!(connected, Err(Error::Timeout { after: SHORT, .. })), "{connected:?}");
    }
    assert!(begin.elapsed() >= 4 * SHORT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_names_are_typed_errors() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let name = format!("{transport:?}");
            let (first, mut frames) = broker.connect(*transport, &name).await;
            let taken = broker.connect_with(*transport, Client::builder(&name)).await;
            assert!(
                matches!(&taken, Err(Error::NameTaken { name: which, .. }) if *which == name),
                "{taken:?}"
            );
            // the owner of the name is not affected
            first.send(&name, "still here", Qos::PROCESSED).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"still here");
            let orphan = broker.connect_with(*transport, Client::builder("missing%%0")).await;
            assert!(
                matches!(&orphan, Err(Error::NoPrimary { name, .. }) if name == "missing%%0"),
                "{orphan:?}"
            );
            for bad in ["", ".broker", ".hidden"] {
                let refused = broker.connect_with(*transport, Client::builder(bad)).await;
                assert!(
                    matches!(&refused, Err(Error::NameRefused { name, .. }) if name == bad)
                        || kind == BrokerKind::Busrt && refused.is_err(),
                    "{transport:?} {refused:?}"
                );
            }
            let long = broker.connect_with(Transport::Unix, Client::builder(&"x".repeat(65_536))).await;
            assert!(matches!(long, Err(Error::NameRefused { .. })), "{long:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secondary_clients_are_independent_until_the_primary_ends() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let name = format!("{transport:?}");
            let (primary, mut frames) = broker.connect(*transport, &name).await;
            let (zero, mut zero_frames) = primary.secondary().await.unwrap();
            let (one, mut one_frames) = primary.secondary().await.unwrap();
            assert_eq!((zero.name(), one.name()), (&*format!("{name}%%0"), &*format!("{name}%%1")));
            one.send(&name, "", Qos::PROCESSED).await.unwrap();
            let frame = next(&mut frames).await;
            assert_eq!((frame.sender(), frame.primary_sender()), (one.name(), &*name));
            zero.add_filters("t").await.unwrap();
            primary.publish_for("t", &name, "for the secondary", Qos::NO).await.unwrap();
            assert_eq!(next(&mut zero_frames).await.payload(), b"for the secondary");
            // each ends alone, and all end with the primary
            in_time("close", zero.close()).await;
            one.round_trip().await.unwrap();
            in_time("close", primary.close()).await;
            assert!(in_time("the end", one_frames.next()).await.is_none(), "{kind:?} {transport:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secondaries_of_a_secondary_have_unique_names() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let (primary, _frames) = broker.connect(*transport, &format!("{transport:?}")).await;
        let (first, _first_frames) = primary.secondary().await.unwrap();
        let (second, _second_frames) = first.secondary().await.unwrap();
        let (third, _third_frames) = primary.secondary().await.unwrap();
        let names: std::collections::HashSet<_> =
            [&first, &second, &third].map(|client| client.name()).into();
        assert_eq!(names.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_writes_what_is_queued_and_frees_the_name() {
    const FRAMES: u32 = 300;
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (receiver, mut received) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            for _ in 0..3 {
                let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
                let mut events = client.events();
                for number in 0..FRAMES {
                    // more than sockets hold
                    let payload = [&number.to_le_bytes()[..], &[0; 20_000]].concat();
                    client.send(receiver.name(), payload, Qos::NO).await.unwrap();
                }
                let clone = client.clone();
                let closing = tokio::spawn(async move { clone.close().await });
                for number in 0..FRAMES {
                    assert_eq!(
                        next(&mut received).await.payload()[..4],
                        number.to_le_bytes(),
                        "{kind:?} {transport:?}"
                    );
                }
                in_time("close", closing).await.unwrap();
                assert!(in_time("the end", frames.next()).await.is_none());
                assert_eq!(in_time("the event", events.next()).await, Some(ConnectionEvent::Closed));
                assert_eq!(events.next().await, None);
                assert_eq!(client.events().next().await, None);
                assert!(!client.is_connected());
                assert!(matches!(client.connected().await, Err(Error::Closed)));
                for qos in [Qos::NO, Qos::PROCESSED] {
                    assert!(matches!(client.send("b", "", qos).await, Err(Error::Closed)));
                }
                assert!(matches!(client.add_filters("t").await, Err(Error::Closed)));
                assert!(matches!(client.call("b", "m", "").await, Err(Error::Closed)));
                assert!(matches!(client.ping().await, Err(Error::Closed)));
                // closing twice does nothing
                in_time("close", client.close()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_ends_with_its_last_user() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let (name, mut events) = (client.name().to_owned(), client.events());
            let mut subscription = client.subscribe("t").await.unwrap();
            drop(client);
            other.send(&name, "x", Qos::PROCESSED).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"x");
            drop(frames);
            other.publish("t", "y", Qos::PROCESSED).await.unwrap();
            assert_eq!(in_time("a publication", subscription.next()).await.unwrap().payload(), b"y");
            drop(subscription);
            while in_time("the end", events.next()).await.is_some() {}
            let (_again, _frames) = broker.connect(*transport, &name).await;
        }
    }
}
