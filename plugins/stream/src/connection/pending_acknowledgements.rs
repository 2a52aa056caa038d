//! Acknowledgements whose codes are supplied later, and those that wait behind them: a client gets its
//! acknowledgements in the order of its frames. Owns their number and time limit. While there are none, all
//! of this costs an acknowledgement one comparison.

use elbus_plugin_api::{Code, DeliveryStatus, Notifier, PendingResult};
use elbus_protocol::delivery::{ACK_BYTES, encode_ack};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Connection, SendState,
    acknowledgement_list::Entry,
    deferred::Deferred,
    waiter::{Side, Waiter},
};
use crate::server::log_throttle::LogCategory;

/// The longest time that an acknowledgement waits for its code. Longer than a message can wait for a name.
pub(crate) const PENDING_LIMIT: Duration = Duration::from_secs(75);

impl SendState {
    /// Queues acknowledgements behind those that wait for their codes; `None` if there are none.
    #[inline]
    pub(super) fn acknowledge_behind<I: Iterator<Item = (u32, u8)>>(
        &mut self,
        acks: impl FnOnce() -> I,
    ) -> Option<DeliveryStatus> {
        let pending = self.acknowledgements.as_mut()?;
        if pending.entries.is_empty() { None } else { Some(pending.push_behind(acks())) }
    }
}

impl Connection {
    /// Acknowledges a run of the client's own requests once its result is known: operation ids, and the
    /// positions of their frames in the result. Later acknowledgements wait.
    #[cold]
    pub(crate) fn acknowledge_later(
        self: &Arc<Self>,
        acks: Box<[(u32, u32)]>,
        result: PendingResult,
    ) -> DeliveryStatus {
        let mut out = self.lock();
        if out.is_closed() {
            drop(out);
            return DeliveryStatus::CLOSED;
        }
        let is_new = out.acknowledgements.is_none();
        let pending = out.acknowledgements.get_or_insert_default();
        let id = pending.push_pending(acks, result.clone());
        let delivery = if pending.is_full() { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN };
        drop(out);
        if is_new {
            self.server.acknowledging.lock().push(Arc::downgrade(self));
        }
        self.continue_when_known(id, &result);
        delivery
    }

    fn continue_when_known(self: &Arc<Self>, id: u64, result: &PendingResult) {
        let connection = Arc::downgrade(self);
        let notifier = Notifier::new(move || {
            if let Some(connection) = connection.upgrade() {
                connection.acknowledge_pending(id);
            }
        });
        if result.when_complete(notifier) {
            self.acknowledge_pending(id);
        }
    }

    /// Sends the acknowledgements of a run whose result may be known now, and those that waited behind them.
    fn acknowledge_pending(self: &Arc<Self>, id: u64) {
        // the result is asked without the lock: it is an object of another plugin
        let (result, frames) =
            match self.lock().acknowledgements.as_mut().and_then(|waiting| waiting.find(id)) {
                Some(Entry::Pending(run)) => (
                    run.result.clone(),
                    run.acks.iter().map(|(_, frame)| *frame as usize).collect::<Vec<_>>(),
                ),
                _ => return, // it has got another code in the meantime
            };
        if !result.is_complete() {
            return self.continue_when_known(id, &result);
        }
        let code = |frame: &usize| result.code(*frame).unwrap_or(Code::Other) as u8;
        let codes: Vec<_> = frames.iter().map(code).collect();
        let mut out = self.lock();
        let mut previous = None;
        if let Some(entry) = out.acknowledgements.as_mut().and_then(|waiting| waiting.find(id))
            && let Entry::Pending(run) = entry
        {
            let known = run.with_codes(|index| codes.get(index).copied().unwrap_or(Code::Other as u8));
            previous = Some(std::mem::replace(entry, known));
        }
        let after = self.send_known(&mut out);
        drop(out);
        drop(previous); // outside the lock as well
        self.finish(after);
    }

    /// Sends the acknowledgements before the first that is not known.
    fn send_known(self: &Arc<Self>, out: &mut SendState) -> Deferred {
        let mut after = Deferred::default();
        let SendState { acknowledgements, queue, .. } = out;
        let Some(pending) = acknowledgements else { return after };
        let mut sends = false;
        while let Some(Entry::Known(known)) = pending.entries.front() {
            let Ok(()) = queue.push_with(known.len(), |buffer| {
                buffer.reserve(known.len() * ACK_BYTES);
                for (id, code) in known {
                    buffer.extend_from_slice(&encode_ack(*id, *code));
                }
                Ok::<_, Infallible>(())
            });
            pending.frames -= known.len();
            pending.entries.pop_front();
            sends = true;
        }
        if !pending.is_full()
            && let Some(notifier) = pending.reader.take()
        {
            after.notifiers.push(Waiter { notifier, side: Side::Own });
        }
        if sends && out.full_since.is_none() {
            after.merge(self.write(out));
        }
        self.account(out);
        after
    }

    /// Calls `notifier` once there is room for acknowledgements that wait.
    pub(crate) fn when_acknowledged(&self, notifier: Notifier) {
        let mut out = self.lock();
        match &mut out.acknowledgements {
            Some(pending) if pending.is_full() => pending.reader = Some(notifier),
            _ => {
                drop(out);
                notifier.notify();
            }
        }
    }

    /// Answers the acknowledgements that have waited for `limit` with [`Code::Timeout`]. Returns whether any
    /// still wait. Called by housekeeping.
    pub(crate) fn expire_acknowledgements(self: &Arc<Self>, now: Instant, limit: Duration) -> bool {
        let mut out = self.lock();
        let (mut frames, mut expired) = (0, Vec::new());
        for entry in out.acknowledgements.iter_mut().flat_map(|pending| &mut pending.entries) {
            if let Entry::Pending(run) = entry
                && now.saturating_duration_since(run.since) >= limit
            {
                frames += run.acks.len();
                let known = run.with_codes(|_| Code::Timeout as u8);
                expired.push(std::mem::replace(entry, known));
            }
        }
        let after = if frames > 0 { self.send_known(&mut out) } else { Deferred::default() };
        let ended = out.acknowledgements.take_if(|pending| pending.entries.is_empty());
        let waits = out.acknowledgements.is_some();
        drop(out);
        drop((expired, ended));
        self.finish(after);
        if frames > 0 && self.server.admits(LogCategory::Late, self.source) {
            let (client, limit_seconds) = (self.name(), limit.as_secs_f64());
            tracing::warn!(
                client,
                frames,
                limit_seconds,
                "frames acknowledged with a timeout: their recipient has not supplied a result"
            );
        }
        waits
    }
}

#[cfg(test)]
mod tests;
