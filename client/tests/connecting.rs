//! The beginning and the end of a client: what can go wrong with either, and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::{Address, Client, ConnectionEvent, Error, Qos};
use std::time::{Duration, Instant};
use support::{Kind, TestBroker, Way, fake::Fake, kinds, next, soon};
use tokio::io::AsyncWriteExt;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn where_nobody_listens_the_address_is_named() {
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
async fn whoever_speaks_something_else_is_no_broker() {
    let fake = Fake::listen();
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
                // after everything is read: otherwise the system resets the connection
                peer.stream.shutdown().await.unwrap();
            }
            peer
        };
        let (connected, _peer) = tokio::join!(soon("an answer", connect), listen);
        assert!(matches!(connected, Err(Error::NotABroker { .. })), "{answer:?}: {connected:?}");
    }
}

#[tokio::test]
async fn a_listener_that_says_nothing_is_waited_for_no_longer_than_the_timeout() {
    let fake = Fake::listen();
    let begin = Instant::now();
    for said in [&[][..], &[0xEB], &[0xEB, 1, 0], &[0xEB, 1, 0, 1]] {
        let connect = Client::builder("a").timeout(SHORT).connect(fake.path());
        let listen = async {
            let mut peer = fake.accept().await;
            peer.stream.write_all(said).await.unwrap();
            peer
        };
        let (connected, _peer) = tokio::join!(soon("the timeout", connect), listen);
        assert!(matches!(connected, Err(Error::Timeout { after: SHORT, .. })), "{connected:?}");
    }
    assert!(begin.elapsed() >= 4 * SHORT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_judged_by_the_broker_and_the_answer_is_typed() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let name = format!("{way:?}");
            let (first, mut frames) = broker.connect(*way, &name).await;
            let taken = broker.join(*way, Client::builder(&name)).await;
            assert!(matches!(&taken, Err(Error::NameTaken { name: which }) if *which == name), "{taken:?}");
            // whoever has it notices nothing
            first.send(&name, "still here", Qos::PROCESSED).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"still here");
            let orphan = broker.join(*way, Client::builder("nobody%%0")).await;
            assert!(matches!(&orphan, Err(Error::NoPrimary { name }) if name == "nobody%%0"), "{orphan:?}");
            for bad in ["", ".broker", ".hidden"] {
                let refused = broker.join(*way, Client::builder(bad)).await;
                assert!(
                    matches!(&refused, Err(Error::NameRefused { name, .. }) if name == bad)
                        || kind == Kind::Busrt && refused.is_err(),
                    "{way:?} {refused:?}"
                );
            }
            let long = broker.join(Way::Unix, Client::builder(&"x".repeat(65_536))).await;
            assert!(matches!(long, Err(Error::NameRefused { .. })), "{long:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secondary_clients_are_clients_of_their_own() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let name = format!("{way:?}");
            let (primary, mut frames) = broker.connect(*way, &name).await;
            let (zero, mut zero_frames) = primary.secondary().await.unwrap();
            let (one, mut one_frames) = primary.secondary().await.unwrap();
            assert_eq!((zero.name(), one.name()), (&*format!("{name}%%0"), &*format!("{name}%%1")));
            one.send(&name, "", Qos::PROCESSED).await.unwrap();
            let frame = next(&mut frames).await;
            assert_eq!((frame.sender(), frame.primary_sender()), (one.name(), &*name));
            zero.subscribe("t").await.unwrap();
            primary.publish_for("t", &name, "for the secondary", Qos::NO).await.unwrap();
            assert_eq!(next(&mut zero_frames).await.payload(), b"for the secondary");
            // one ends without the others, and all with the primary
            soon("close", zero.close()).await;
            one.round_trip().await.unwrap();
            soon("close", primary.close()).await;
            assert!(soon("the end", one_frames.next()).await.is_none(), "{kind:?} {way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_may_have_secondaries() {
    let broker = TestBroker::start(Kind::Elbus);
    for way in Kind::Elbus.ways() {
        let (primary, _frames) = broker.connect(*way, &format!("{way:?}")).await;
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
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (receiver, mut received) = broker.connect(*way, &format!("{way:?}.b")).await;
            for _ in 0..3 {
                let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
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
                        "{kind:?} {way:?}"
                    );
                }
                soon("close", closing).await.unwrap();
                assert!(soon("the end", frames.next()).await.is_none());
                assert_eq!(soon("the event", events.next()).await, Some(ConnectionEvent::Closed));
                assert_eq!(events.next().await, None);
                assert_eq!(client.events().next().await, None);
                assert!(!client.is_connected());
                assert!(matches!(client.connected().await, Err(Error::Closed)));
                for qos in [Qos::NO, Qos::PROCESSED] {
                    assert!(matches!(client.send("b", "", qos).await, Err(Error::Closed)));
                }
                assert!(matches!(client.subscribe("t").await, Err(Error::Closed)));
                assert!(matches!(client.call("b", "m", "").await, Err(Error::Closed)));
                assert!(matches!(client.ping().await, Err(Error::Closed)));
                // a second time does nothing
                soon("close", client.close()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_lives_as_long_as_anything_that_needs_it() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (other, _) = broker.connect(*way, &format!("{way:?}.b")).await;
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            let (name, mut events) = (client.name().to_owned(), client.events());
            let mut subscription = client.subscription("t").await.unwrap();
            drop(client);
            other.send(&name, "x", Qos::PROCESSED).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"x");
            drop(frames);
            other.publish("t", "y", Qos::PROCESSED).await.unwrap();
            assert_eq!(soon("a publication", subscription.next()).await.unwrap().payload(), b"y");
            drop(subscription);
            while soon("the end", events.next()).await.is_some() {}
            let (_again, _frames) = broker.connect(*way, &name).await;
        }
    }
}
