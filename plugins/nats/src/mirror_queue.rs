//! The queue of what local clients publish to mirrored topics: their threads add, that of the instance takes.
//! Limited in bytes. Knows nothing of the connection but what becomes of publications.

use bytes::Bytes;
use elbus_bridge::mirror::MAX_SUBJECT_BYTES;
use elbus_plugin_api::{DeliveryStatus, FrameKind, Notifier, Queued, Run, Sink};
use parking_lot::Mutex;
use std::{collections::VecDeque, mem, sync::Arc};

use crate::{
    inputs::Inputs,
    mirror_drops::{DropReason, MirrorDrops},
    own_clients::stays_local,
    sinks::{ProxyNames, Waiters},
};

/// Bytes of publications that wait for the connection from which on publishers are held; at twice as many,
/// publications are refused.
const QUEUE_BYTES: usize = 4 << 20;
/// What a message costs beside its topic and its payload.
const MESSAGE_COST: usize = 128;

/// Returns the bytes that a message counts for while it waits.
pub(crate) fn cost(topic: &str, payload: &[u8]) -> usize {
    topic.len() + payload.len() + MESSAGE_COST
}

/// What becomes of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They wait to be published.
    Publish,
    /// They are dropped and counted.
    Drop(DropReason),
}

/// The queue. Any thread adds, that of the instance takes.
pub(crate) struct Queue {
    /// A leaf lock.
    waiting: Mutex<Waiting>,
    waiters: Waiters,
    pub(crate) drops: MirrorDrops,
    pub(crate) inputs: Arc<Inputs>,
    proxies: Arc<ProxyNames>,
}

struct Waiting {
    messages: VecDeque<(Arc<str>, Bytes)>,
    bytes: usize,
    fate: Fate,
}

impl Queue {
    /// Creates a queue that drops everything until there is a connection.
    pub(crate) fn new(inputs: Arc<Inputs>, proxies: Arc<ProxyNames>) -> Self {
        let fate = Fate::Drop(DropReason::NotConnected);
        let waiting = Mutex::new(Waiting { messages: VecDeque::new(), bytes: 0, fate });
        Queue { waiting, waiters: Waiters::default(), drops: MirrorDrops::default(), inputs, proxies }
    }

    /// Sets what becomes of publications from now on. Those that wait stay.
    pub(crate) fn set_fate(&self, fate: Fate) {
        self.waiting.lock().fate = fate;
    }

    /// Drops what waits, and what is published from now on.
    pub(crate) fn drop_all(&self, reason: DropReason) {
        let messages = {
            let mut waiting = self.waiting.lock();
            waiting.fate = Fate::Drop(reason);
            waiting.bytes = 0;
            mem::take(&mut waiting.messages)
        };
        self.drops.add(reason, messages.len());
        self.waiters.notify();
    }

    /// Takes the next message: topic and payload. Lets publishers continue once the queue has drained.
    pub(crate) fn pop(&self) -> Option<(Arc<str>, Bytes)> {
        let (next, is_drained) = {
            let mut waiting = self.waiting.lock();
            let was_full = waiting.bytes > QUEUE_BYTES;
            let next = waiting.messages.pop_front()?;
            waiting.bytes -= cost(&next.0, &next.1);
            (next, was_full && waiting.bytes <= QUEUE_BYTES)
        };
        if is_drained {
            self.waiters.notify();
        }
        Some(next)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().messages.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }
}

/// The receiving side of mirrored topics.
pub(crate) struct MirrorSink(pub(crate) Arc<Queue>);

impl Sink for MirrorSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let queue = &self.0;
        let (sender, topic, payloads) = (run.sender(), run.topic(), run.payloads());
        if run.kind() != FrameKind::Publish || stays_local(sender) || queue.proxies.has_alias(sender) {
            return DeliveryStatus::TAKEN;
        }
        // a retained value of before, which NATS programs have had
        if run.sender_id() == 0 {
            return DeliveryStatus::TAKEN;
        }
        if topic.len() > MAX_SUBJECT_BYTES {
            queue.drops.add(DropReason::NoSubject, payloads.len());
            return DeliveryStatus::TAKEN;
        }
        let mut waiting = queue.waiting.lock();
        let (refused, status) = match waiting.fate {
            Fate::Drop(reason) => (Some(reason), DeliveryStatus::TAKEN),
            Fate::Publish if waiting.bytes > 2 * QUEUE_BYTES => {
                (Some(DropReason::QueueFull), DeliveryStatus::REFUSED)
            }
            Fate::Publish => (None, DeliveryStatus::TAKEN),
        };
        if let Some(reason) = refused {
            drop(waiting);
            queue.drops.add(reason, payloads.len());
            return status;
        }
        let was_empty = waiting.messages.is_empty();
        let topic: Arc<str> = topic.into();
        for payload in payloads {
            waiting.bytes += cost(&topic, payload.bytes());
            waiting.messages.push_back((topic.clone(), Bytes::copy_from_slice(payload.bytes())));
        }
        // real-time messages hold nobody: beyond twice the limit they are refused
        let is_full = waiting.bytes > QUEUE_BYTES && !run.is_realtime();
        let full = if is_full { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN };
        full | if was_empty { DeliveryStatus::DIRTY } else { DeliveryStatus::TAKEN }
    }

    fn flush(&self) {
        self.0.inputs.wake();
    }

    fn when_drained(&self, notifier: Notifier) {
        self.0.waiters.add(notifier, || self.0.bytes() > QUEUE_BYTES);
    }

    fn queued(&self) -> Queued {
        let waiting = self.0.waiting.lock();
        Queued { frames: waiting.messages.len() as u64, bytes: waiting.bytes as u64 }
    }

    fn close(&self, _: &str) {
        self.0.waiters.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use elbus_plugin_api::{Encoding, Payload, Qos};

    fn deliver(sink: &MirrorSink, topic: &str, payload: &[u8]) -> DeliveryStatus {
        let (payloads, mut encoding) = ([Payload::from(payload)], Encoding::new());
        let kind = FrameKind::Publish;
        let run = Run::new(kind, Qos::NO, "plc", topic, &payloads, None, &mut encoding);
        sink.deliver(&mut run.with_sender_id(1))
    }

    #[test]
    fn topics_count_as_payloads_do() {
        let sink = MirrorSink(Arc::new(Queue::new(Arc::default(), Arc::default())));
        assert_eq!(deliver(&sink, "a", b"x"), DeliveryStatus::TAKEN);
        assert_eq!((sink.0.bytes(), sink.0.drops.total()), (0, 1), "there is no connection");
        sink.0.set_fate(Fate::Publish);
        let topic = "t".repeat(2000);
        let mut taken = 0;
        while deliver(&sink, &topic, b"x") != DeliveryStatus::REFUSED {
            taken += 1;
        }
        assert!(taken * 2000 < 3 * QUEUE_BYTES, "{taken} topics of 2,000 bytes");
        assert_eq!(deliver(&sink, &"t".repeat(MAX_SUBJECT_BYTES + 1), b"x"), DeliveryStatus::TAKEN);
        assert_eq!(sink.0.drops.total(), 3, "no subject is as long");
        while sink.0.pop().is_some() {}
        assert_eq!((sink.0.bytes(), sink.0.is_empty()), (0, true));
        assert_eq!(deliver(&sink, "a", b"x"), DeliveryStatus::DIRTY);
        sink.0.drop_all(DropReason::Stopped);
        assert_eq!((sink.0.bytes(), sink.0.drops.total()), (0, 4));
    }
}
