//! Traffic during a test: each message is numbered, acknowledged and counted, and none may be lost, repeated
//! or reordered.

use elbus_protocol::{FrameKind, Op, Qos, request::encode_request};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    daemon::Daemon,
    wait_until,
    wire::{Frame, Wire},
};

/// Messages per write.
const BATCH: u32 = 16;
/// Pause between two batches, so that other clients get CPU time.
const PAUSE: Duration = Duration::from_millis(1);
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// The number of a sender's last message.
const END: u32 = u32::MAX;

/// The counts of acknowledged and received messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged messages, publications and calls.
    pub(crate) acknowledged: u32,
    /// Received messages and publications. A publication to several receivers counts once.
    pub(crate) arrived: u32,
}

/// At each address of a broker, a client that sends to one client, publishes to two others, and calls the
/// broker.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    batches: Arc<AtomicU32>,
    senders: Vec<JoinHandle<u32>>,
    receivers: Vec<JoinHandle<u32>>,
}

impl Load {
    pub(crate) fn start(daemon: &Daemon) -> Self {
        let mut load = Load {
            stopping: Arc::default(),
            batches: Arc::default(),
            senders: Vec::new(),
            receivers: Vec::new(),
        };
        for (index, address) in daemon.addresses().iter().enumerate() {
            let name = |role: &str| format!("load.{index}.{role}");
            let topic = format!("load/{index}");
            for (role, subscribes) in [("receiver", false), ("subscriber", true), ("other", true)] {
                let mut client = Wire::connect(daemon, address, &name(role));
                if subscribes {
                    client.subscribe(&[&topic]);
                }
                load.receivers.push(std::thread::spawn(move || receive(client, subscribes)));
            }
            let sender = Wire::connect(daemon, address, &name("sender"));
            let (target, stopping, batches) = (name("receiver"), load.stopping.clone(), load.batches.clone());
            load.senders.push(std::thread::spawn(move || send(sender, &target, &topic, &stopping, &batches)));
        }
        load.wait_for_more();
        load
    }

    /// Waits until all senders have had at least one more batch acknowledged.
    pub(crate) fn wait_for_more(&self) {
        let enough = self.batches.load(Ordering::Relaxed) + 2 * self.senders.len() as u32;
        wait_until("the load makes progress", || {
            self.batches.load(Ordering::Relaxed) >= enough || self.senders.iter().any(JoinHandle::is_finished)
        });
    }

    /// Stops the load, and checks that all acknowledged messages have arrived, in order and once.
    pub(crate) fn stop(self) -> Counts {
        self.stopping.store(true, Ordering::Relaxed);
        let acknowledged = self.senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        let arrived: Vec<u32> = self.receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        // two of the three receivers per address received the same publications
        let arrived_once = arrived.chunks(3).map(|of| {
            assert_eq!(of[1], of[2], "both subscribers received all publications");
            of[0] + of[1]
        });
        let counts = Counts { acknowledged, arrived: arrived_once.sum() };
        assert_eq!(counts.acknowledged, counts.arrived, "all acknowledged messages have arrived");
        counts
    }
}

fn send(mut client: Wire, target: &str, topic: &str, stopping: &AtomicBool, batches: &AtomicU32) -> u32 {
    let (mut number, mut out) = (0u32, Vec::new());
    let ends = [(Op::Message, target), (Op::Publish, topic)];
    while !stopping.load(Ordering::Relaxed) {
        out.clear();
        for (op, target) in ends {
            for n in number..number + BATCH {
                encode_request(&mut out, n, op, Qos::PROCESSED, target, "", &n.to_le_bytes()).unwrap();
            }
        }
        client.write(&out);
        for _ in ends {
            for n in number..number + BATCH {
                assert_eq!(client.expect_ack(n), 0x01);
            }
        }
        number += BATCH;
        assert!(client.call(".broker", "test", &[]).is_ok());
        batches.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    for (op, target) in ends {
        assert_eq!(client.acked(op, target, &END.to_le_bytes()), 0x01);
    }
    number * ends.len() as u32
}

fn receive(mut client: Wire, published: bool) -> u32 {
    let kind = if published { FrameKind::Publish } else { FrameKind::Message };
    let mut pings = client.writer();
    // all the time: the sender can be held, and the timeout of a test can be short
    let pinging = std::thread::spawn(move || {
        while pings.try_write(&[0; 9]) {
            std::thread::sleep(PING_INTERVAL);
        }
    });
    let expected = receive_all(&mut client, kind);
    client.shutdown(std::net::Shutdown::Both);
    pinging.join().unwrap();
    expected
}

/// Returns the number of messages before the last one.
fn receive_all(client: &mut Wire, kind: FrameKind) -> u32 {
    let mut expected = 0;
    loop {
        let frame = client.frame();
        let Frame::Data(got, sender, _, payload, _) = &frame else { panic!("{frame:?}") };
        if sender == ".broker" {
            continue;
        }
        assert_eq!(*got, kind);
        match u32::from_le_bytes(payload[..].try_into().unwrap()) {
            END => return expected,
            number => assert_eq!(number, expected, "in order, none missing"),
        }
        expected += 1;
    }
}
