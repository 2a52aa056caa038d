//! Acknowledgements of the client's own requests, queued for it in the order of its frames.

use elbus_plugin_api::DeliveryStatus;
use elbus_protocol::delivery::{ACK_BYTES, encode_ack};
use std::{convert::Infallible, sync::Arc};

use super::{Connection, waiter::Side};

impl Connection {
    /// Appends the acknowledgements of a run of the client's own requests.
    #[inline]
    pub(crate) fn acknowledge(self: &Arc<Self>, op_ids: &[u32], code: u8) -> DeliveryStatus {
        let mut out = self.lock();
        if out.is_closed() {
            return DeliveryStatus::CLOSED;
        }
        if let Some(delivery) = out.acknowledge_behind(|| op_ids.iter().map(|id| (*id, code))) {
            return delivery;
        }
        let Ok(()) = out.queue.push_with(op_ids.len(), |buffer| {
            buffer.reserve(op_ids.len() * ACK_BYTES);
            for id in op_ids {
                buffer.extend_from_slice(&encode_ack(*id, code));
            }
            Ok::<_, Infallible>(())
        });
        self.account(&mut out);
        let full = out.queue.bytes() > self.limit(&out, Side::Own).bytes;
        out.mark_dirty() | if full { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN }
    }

    /// Appends acknowledgements, each with its own code.
    pub(crate) fn acknowledge_each(
        self: &Arc<Self>,
        mut acks: impl Iterator<Item = (u32, u8)>,
    ) -> DeliveryStatus {
        let mut out = self.lock();
        if out.is_closed() {
            return DeliveryStatus::CLOSED;
        }
        if let Some(delivery) = out.acknowledge_behind(|| &mut acks) {
            return delivery;
        }
        let mut count = 0;
        let Ok(()) = out.queue.push_with(0, |buffer| {
            for (id, code) in acks {
                buffer.extend_from_slice(&encode_ack(id, code));
                count += 1;
            }
            Ok::<_, Infallible>(())
        });
        out.queue.count_frames(count);
        self.account(&mut out);
        let full = out.queue.bytes() > self.limit(&out, Side::Own).bytes;
        out.mark_dirty() | if full { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN }
    }
}
