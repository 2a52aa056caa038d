//! Messages between clients of different transports.

use elbus_compat::{Bus, pattern};

#[tokio::test]
async fn messages_of_every_size_pass_between_transports() {
    let buses: Vec<_> = Bus::each().collect();
    for from in &buses {
        for to in &buses {
            let (mut sender, receiver) = (from.peer("sender").await, to.peer("receiver").await);
            let sizes = [0, 1, 8_192, 16_384, 65_536, 1 << 20, 16 << 20];
            for size in sizes.into_iter().filter(|size| *size <= from.max_sent_bytes()) {
                let payload = pattern(size);
                sender.send(&receiver.name, &payload).await.unwrap();
                assert!(receiver.next().await.payload() == payload, "{size} bytes");
            }
            drop(receiver);
            sender.wait_until_unregistered(&to.name("receiver")).await;
            let name = sender.name.clone();
            drop(sender);
            to.peer("watcher").await.wait_until_unregistered(&name).await;
        }
    }
}
