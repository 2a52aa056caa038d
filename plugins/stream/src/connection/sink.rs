//! Delivery to a connection, within the limits of its queue. Owns the overflow policy.

use elbus_plugin_api::{
    DeliveryStatus, MixedRun, Notifier, Overdraft, Queued, Run, Sink, SinkLimits, config::Admission,
    inproc::RunBatch,
};
use elbus_socket::QueueDepth;
use std::sync::{Arc, atomic::Ordering};

use crate::connection::{
    Connection, SendState, close_reason::CloseReason, deferred::Deferred, mixed_wire::MixedWire,
    queue_limit::QueueLimit, waiter::Side, wire::Wire,
};

/// A connection as the broker's [`Sink`].
pub(crate) struct ConnectionSink(pub(crate) Arc<Connection>);

impl Sink for ConnectionSink {
    #[inline]
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        self.0.deliver(run)
    }

    #[inline]
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> DeliveryStatus {
        self.0.deliver_mixed(run)
    }

    fn resume_sending(&self) {
        self.0.resume_sending();
    }

    #[inline]
    fn flush(&self) {
        self.0.flush();
    }

    fn when_drained(&self, notifier: Notifier) {
        self.0.when_drained(notifier, Side::Senders);
    }

    fn when_empty(&self, notifier: Notifier) {
        self.0.when_empty(notifier);
    }

    fn take_unsent(&self, reason: &str, unsent: &mut RunBatch) {
        self.0.close(CloseReason::Closed(reason.into()));
        let frames = self.0.lock().held.as_mut().and_then(|held| held.group_frames.take());
        if let Some(frames) = frames {
            frames.take_into(unsent);
        }
    }

    fn close(&self, reason: &str) {
        self.0.close(CloseReason::Closed(reason.into()));
    }

    fn queued(&self) -> Queued {
        let QueueDepth { frames, bytes } = self.0.lock().queue.queued();
        Queued { frames, bytes }
    }

    fn limit(&self, limits: &SinkLimits) {
        self.0.limits.restrict(&self.0.server.settings, limits);
    }

    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        self.0.overdraw(overdraft)
    }

    fn overdrawn(&self) -> u64 {
        self.0.overdrawn()
    }
}

impl Connection {
    /// Queues a run: one lock, one copy.
    #[inline]
    pub(crate) fn deliver(self: &Arc<Self>, run: &mut Run<'_>) -> DeliveryStatus {
        let (realtime, for_group) = (run.is_realtime(), run.is_for_group());
        // its payload is cloned before the lock: it counts in the sender's library
        let wire = Wire::of(run);
        let delivery = self.append(realtime, wire.bytes(), |out| {
            if for_group {
                return out.push_for_group(wire);
            }
            let sent = match out.socket() {
                Some(socket) if out.queue.is_empty() && !out.is_blocked() => wire.send_ahead(socket),
                _ => 0,
            };
            let pushed = sent == wire.bytes() || wire.push(&mut out.queue, sent);
            if sent > 0 {
                out.skip_partial_frame();
            }
            pushed
        });
        if delivery.has(DeliveryStatus::REFUSED) {
            self.server.counts.refused_runs.fetch_add(1, Ordering::Relaxed);
        }
        delivery
    }

    /// Queues a mixed run: one lock, one copy. Refuses a run that would prolong a pause too much; its frames
    /// are then delivered one by one.
    #[inline]
    pub(crate) fn deliver_mixed(self: &Arc<Self>, run: &mut MixedRun<'_>) -> DeliveryStatus {
        let pauses = run.pauses();
        let wire = MixedWire::of(run);
        self.append(false, wire.bytes(), |out| {
            if pauses && !out.may_pause() {
                return false;
            }
            wire.push(&mut out.queue);
            if pauses {
                out.pause();
            }
            true
        })
    }

    #[inline]
    fn append(
        self: &Arc<Self>,
        realtime: bool,
        bytes: usize,
        push: impl FnOnce(&mut SendState) -> bool,
    ) -> DeliveryStatus {
        let mut out = self.lock();
        if out.is_closed() {
            return DeliveryStatus::CLOSED;
        }
        let mut flags = DeliveryStatus::TAKEN;
        if out.queue.bytes().saturating_add(bytes) > self.limit(&out, Side::Senders).bytes {
            let (admission, mut after) = self.apply_overflow_policy(&mut out, realtime, bytes);
            let refusal = match admission {
                Admission::Take => None,
                Admission::TakeFull => {
                    flags = DeliveryStatus::FULL;
                    None
                }
                Admission::Refuse => Some(DeliveryStatus::REFUSED),
                Admission::Disconnect => {
                    let reason = self.overflow_reason(&out, bytes);
                    after.merge(self.end(&mut out, reason));
                    Some(DeliveryStatus::CLOSED)
                }
            };
            drop(out);
            self.finish(after);
            if let Some(refusal) = refusal {
                return refusal;
            }
            out = self.lock();
            if out.is_closed() {
                return DeliveryStatus::CLOSED;
            }
        }
        if !push(&mut out) {
            return DeliveryStatus::REFUSED;
        }
        self.account(&mut out);
        if out.queue.is_empty() {
            return flags; // sent already
        }
        out.mark_dirty() | flags
    }

    /// Applies the overflow policy to a queue that would exceed its limit. Sends first what has merely not
    /// been flushed.
    #[cold]
    fn apply_overflow_policy(
        self: &Arc<Self>,
        out: &mut SendState,
        realtime: bool,
        bytes: usize,
    ) -> (Admission, Deferred) {
        // also in a pause: bytes that are merely not sent yet must not count against the limit
        let after = if out.is_blocked() { Deferred::default() } else { self.write_even_paused(out) };
        let QueueLimit { bytes: limit, shared } = self.limit(out, Side::Senders);
        // real-time frames cannot wait, so they can exceed the limit up to twice, unless it is a share of the
        // budget
        let twice = || self.limits.queue_bytes().saturating_mul(2).max(limit);
        let cannot_wait = realtime.then(|| if shared { limit } else { twice() });
        let admission = self.limits.overflow().admit(out.queue.bytes(), bytes, limit, cannot_wait);
        (admission, after)
    }

    /// Returns why a client is disconnected whose queue would have `bytes` more.
    fn overflow_reason(&self, out: &SendState, bytes: usize) -> CloseReason {
        let QueueLimit { bytes: limit, shared } = self.limit(out, Side::Senders);
        let bytes = out.queue.bytes().saturating_add(bytes);
        match shared {
            true => CloseReason::Crowded { bytes, share: limit },
            false => CloseReason::Overflow { bytes, limit },
        }
    }
}

#[cfg(test)]
mod tests;
