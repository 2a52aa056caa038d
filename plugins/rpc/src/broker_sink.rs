//! The sink of `.broker`: passes delivered calls to the dispatcher. It queues nothing, so it is never full.

use elbus_plugin_api::{DeliveryStatus, FrameKind, Notifier, Queued, Run, Sink};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::dispatcher::Dispatcher;

pub(crate) struct BrokerSink {
    dispatcher: Arc<Dispatcher>,
    closed: AtomicBool,
}

impl BrokerSink {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        BrokerSink { dispatcher, closed: AtomicBool::new(false) }
    }
}

impl Sink for BrokerSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        if self.closed.load(Ordering::Relaxed) {
            return DeliveryStatus::CLOSED;
        }
        // broadcasts and publications are not calls
        if run.kind() == FrameKind::Message && self.dispatcher.serve(run) {
            return DeliveryStatus::DIRTY;
        }
        DeliveryStatus::TAKEN
    }

    fn flush(&self) {
        self.dispatcher.flush();
    }

    fn when_drained(&self, notifier: Notifier) {
        notifier.notify();
    }

    /// Does nothing: the client is removed when the instance stops, since it may be in use further up this
    /// thread's stack.
    fn close(&self, _: &str) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn queued(&self) -> Queued {
        self.dispatcher.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Encoding, Payload, Qos, testing::FakeHost};

    fn deliver(address: &BrokerSink, kind: FrameKind, qos: Qos, payload: &[u8]) -> DeliveryStatus {
        let payloads = [Payload::from(payload)];
        let mut encoding = Encoding::new();
        address.deliver(&mut Run::new(kind, qos, "a", "", &payloads, None, &mut encoding))
    }

    #[test]
    fn replies_have_the_real_time_flag_of_their_request() {
        let fake = FakeHost::new();
        let host = fake.host("rpc");
        let dispatcher = Arc::new(Dispatcher::new(host.clone()));
        dispatcher.open(host.system_client());
        let address = BrokerSink::new(dispatcher);
        for qos in [Qos::NO, Qos::PROCESSED, Qos::REALTIME, Qos::REALTIME_PROCESSED] {
            let delivery = deliver(&address, FrameKind::Message, qos, b"\x01\x01\0\0\0x\0");
            assert_eq!(delivery, DeliveryStatus::DIRTY);
            address.flush();
        }
        let replied: Vec<_> = fake.requests().iter().map(|request| request.qos).collect();
        assert_eq!(replied, [Qos::NO, Qos::NO, Qos::REALTIME, Qos::REALTIME]);
    }

    #[test]
    fn a_closed_sink_reports_that_it_is_closed() {
        let fake = FakeHost::new();
        let address = BrokerSink::new(Arc::new(Dispatcher::new(fake.host("rpc"))));
        assert_eq!(deliver(&address, FrameKind::Broadcast, Qos::NO, b""), DeliveryStatus::TAKEN);
        address.close("kicked");
        assert_eq!(deliver(&address, FrameKind::Message, Qos::NO, b""), DeliveryStatus::CLOSED);
    }
}
