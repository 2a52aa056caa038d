//! 20,000 messages to oneself as fast as the client can, while it reads what comes back. A file of its own, so that no
//! other test takes the time of the reader: what is meant here is a burst, not a client that lags behind.

use busrt::QoS;
use busrt::client::AsyncClient;
use elbus_compat::{Bus, Peer, confirmed, within};

const COUNT: u32 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_to_oneself_arrive_in_order() {
    for bus in Bus::each() {
        for qos in [QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed] {
            burst(bus.peer(&format!("burst{}", qos as u8)).await, qos).await;
        }
    }
}

async fn burst(peer: Peer, qos: QoS) {
    let Peer { mut client, events, name } = peer;
    let reader = tokio::spawn(async move {
        for number in 0..COUNT {
            let frame = within("the next message", events.recv()).await.expect("the connection is open");
            assert_eq!(frame.payload()[..4], number.to_le_bytes());
        }
    });
    let mut operations = Vec::new();
    for number in 0..COUNT {
        let mut payload = vec![0; 100];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        operations.push(client.send(&name, payload.into(), qos).await);
    }
    for operation in operations {
        confirmed(operation).await.unwrap();
    }
    reader.await.unwrap();
}
