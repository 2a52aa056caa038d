//! A client whose runtime has ended: its operations fail, nothing waits indefinitely.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{ConnectionEvent, Error, Qos};
use support::{BrokerKind, TestBroker, in_time};
use tokio::runtime::Runtime;

#[test]
fn a_client_ends_with_its_runtime() {
    let here = Runtime::new().unwrap();
    let broker = here.block_on(async { TestBroker::start(BrokerKind::Elbus) });
    for transport in BrokerKind::Elbus.transports() {
        let there = Runtime::new().unwrap();
        let (client, mut frames) = there.block_on(broker.connect(*transport, &format!("{transport:?}")));
        let mut events = client.events();
        drop(there);
        here.block_on(async {
            in_time("the end of close", client.close()).await;
            assert!(!client.is_connected(), "{transport:?}");
            let sent = client.send("x", "", Qos::NO).await;
            assert!(matches!(sent, Err(Error::Disconnected { .. })), "{transport:?} {sent:?}");
            assert!(in_time("the last frame", frames.next()).await.is_none());
            assert_eq!(in_time("an event", events.next()).await, Some(ConnectionEvent::Closed));
        });
    }
    drop(here.enter());
    here.block_on(async move { broker.embedded().stop(std::time::Duration::ZERO).await });
}
