//! The sink of registrations that receive nothing: system senders, and clients in unit tests.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
use elbus_plugin_api::{
    DeliveryStatus, Queued, Run, SinkLimits,
    abi::{NotifierObject, RawSink, RawSink_TO, SinkObject},
};

/// Returns a sink that takes nothing: it answers as if its client had left.
pub(super) fn closed_sink() -> SinkObject {
    RawSink_TO::from_value(ClosedSink, TD_Opaque)
}

struct ClosedSink;

impl RawSink for ClosedSink {
    fn deliver(&self, _: &mut Run<'_>) -> u8 {
        DeliveryStatus::CLOSED.bits()
    }

    fn flush(&self) {}

    fn when_drained(&self, notifier: NotifierObject) {
        notifier.notify();
    }

    fn close(&self, _: RStr<'_>) {}

    fn queued(&self) -> Queued {
        Queued::default()
    }

    fn limit(&self, _: &SinkLimits) {}
}
