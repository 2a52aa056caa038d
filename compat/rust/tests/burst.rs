//! 20,000 messages of a client to itself, as fast as possible, while it reads them. The test has a file of
//! its own, so that no other test slows down the reader: it tests a burst, not a slow client.

use busrt::QoS;
use busrt::client::AsyncClient;
use elbus_compat::{Bus, Peer, acknowledged, within};

const COUNT: u32 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_itself_arrives_in_order() {
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
        acknowledged(operation).await.unwrap();
    }
    reader.await.unwrap();
}
