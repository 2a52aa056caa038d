//! The receiving side of a client: where the broker delivers, and the limits that it sets.

use abi_stable::{StableAbi, std_types::RStr};

use crate::{
    config::{Limit, Overflow},
    delivery_status::DeliveryStatus,
    inproc::RunBatch,
    mixed_run::MixedRun,
    notifier::Notifier,
    run::Run,
};

/// The receiving side of a client: the broker delivers the client's messages into it.
///
/// The author of a transport implements it over the queue of a connection; a plugin with a client of its own
/// handles messages in it. The broker owns the sink from [`Host::register`](crate::Host::register) until the
/// registration ends.
///
/// # Threads
/// Every method can be called from any thread, at any time and concurrently, usually by the thread of a
/// sender. No method may block, perform I/O that can block, or call the [`Client`](crate::Client) of the same
/// registration. A sink that reacts to messages passes them to a thread or task of the plugin.
///
/// # Sinks without a queue
/// Only [`deliver`](Sink::deliver) is required. The other methods have defaults for a sink that handles
/// messages inside `deliver` and keeps none of them: it answers [`DeliveryStatus::TAKEN`], never `DIRTY` or
/// `FULL`. A sink with a queue implements `flush`, `when_drained`, `close` and `queued`.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{DeliveryStatus, Run, Sink};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// /// Counts messages.
/// struct Counter(AtomicU64);
///
/// impl Sink for Counter {
///     fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
///         self.0.fetch_add(run.payloads().len() as u64, Ordering::Relaxed);
///         DeliveryStatus::TAKEN
///     }
/// }
/// ```
pub trait Sink: Send + Sync + 'static {
    /// Takes a run of messages. The result says whether it was taken, whether the queue is over its limit,
    /// and whether the caller must [`flush`](Sink::flush).
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus;

    /// Takes frames of one sender with different targets. Takes all of them or none: if it refuses them, or
    /// answers [`DeliveryStatus::UNSUPPORTED`] as the default does, the broker delivers each frame as a
    /// [`Run`] of its own. A sink can also refuse a run because it would prolong a pause.
    ///
    /// If the run [pauses](MixedRun::pauses) sending and was taken, the sink sends nothing until
    /// [`resume_sending`](Sink::resume_sending), which the broker calls once for each such run.
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> DeliveryStatus {
        let _ = run;
        DeliveryStatus::UNSUPPORTED
    }

    /// Ends the pause of one [mixed run](Sink::deliver_mixed), and sends what should have been sent since. It
    /// does not replace [`flush`](Sink::flush). The default does nothing.
    fn resume_sending(&self) {}

    /// Starts sending what was delivered. Called once after [`deliver`](Sink::deliver) has answered
    /// [`DeliveryStatus::DIRTY`], for any number of runs. The default does nothing: a sink that never answers
    /// `DIRTY` is never flushed.
    fn flush(&self) {}

    /// Calls `notifier` once when the queue has drained far enough for senders to continue: immediately if it
    /// has, and also if the sink closes. The default calls it immediately, as is right for a sink that never
    /// answers [`DeliveryStatus::FULL`].
    fn when_drained(&self, notifier: Notifier) {
        notifier.notify();
    }

    /// Calls `notifier` once when the queue is empty: immediately if it is, and also if the sink closes. The
    /// broker then delivers what it keeps for subscriptions that get the newest values only, possibly within
    /// the call of the notifier: no lock of the sink may be held. The default calls it immediately, as is
    /// right for a sink that keeps nothing.
    fn when_empty(&self, notifier: Notifier) {
        notifier.notify();
    }

    /// Takes no more messages, and appends the whole publications to `unsent` that were not yet handed to the
    /// client, if any of them was delivered [for a group](Run::is_for_group): other members get them. What
    /// the client may have got already must not be among them. Called after the registration has ended and
    /// before [`close`](Sink::close). The default appends nothing: what is queued is lost with the client.
    fn take_unsent(&self, reason: &str, unsent: &mut RunBatch) {
        let _ = (reason, unsent);
    }

    /// Closes the connection; `reason` is for the log. Queued messages can be lost. The default does nothing:
    /// the plugin notices by [`Dispatch::is_gone`](crate::Dispatch::is_gone). Also called after the instance
    /// has failed.
    fn close(&self, reason: &str) {
        let _ = reason;
    }

    /// Returns what is queued. The default is nothing.
    fn queued(&self) -> Queued {
        Queued::default()
    }

    /// Sets the limits of this client. The effective limit is the stricter of these and the transport's. A
    /// transport that reads from its client applies them; the default ignores them.
    fn limit(&self, limits: &SinkLimits) {
        let _ = limits;
    }

    /// Raises the queue limit of this client temporarily, because it is in a cycle of clients each of which
    /// is not read until another one has drained. Replaces the previous overdraft, and restarts the time
    /// within which the client must read something. Ends when senders can continue as usual. Returns `false`
    /// if there is no overdraft, as the default does: a sink that never answers [`DeliveryStatus::FULL`]
    /// needs none.
    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        let _ = overdraft;
        false
    }

    /// Returns the bytes of the current overdraft.
    fn overdrawn(&self) -> u64 {
        0
    }
}

/// A sink that takes everything and keeps nothing: for a client that only sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl Sink for NullSink {
    #[inline]
    fn deliver(&self, _: &mut Run<'_>) -> DeliveryStatus {
        DeliveryStatus::TAKEN
    }
}

/// Bytes that can be queued for a client beyond its limit.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdraft<'a> {
    flags: u32,
    /// Bytes of any messages.
    pub queue_bytes: u64,
    /// Bytes until the client itself is no longer read; its senders wait as before.
    pub own_bytes: u64,
    cycle: RStr<'a>,
}

impl<'a> Overdraft<'a> {
    /// Creates the overdraft of a client in `cycle`, a description that is logged if the client is
    /// disconnected; empty once the client is in no cycle.
    pub fn new(queue_bytes: u64, own_bytes: u64, cycle: &'a str) -> Self {
        Overdraft { flags: 0, queue_bytes, own_bytes, cycle: RStr::from_str(cycle) }
    }

    /// Returns the description of the cycle: the clients that wait for each other, and their overdrafts.
    pub fn cycle(&self) -> &'a str {
        self.cycle.as_str()
    }
}

/// [`SinkLimits::flags`]: the number of an overflow policy.
const OVERFLOW_BITS: u32 = 7;

/// Limits of one client.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SinkLimits {
    flags: u32,
    /// Bytes that can be queued for it.
    pub queue_bytes: Limit,
    /// Bytes of one frame it sends.
    pub max_frame_bytes: Limit,
    /// Frames it sends per second.
    pub messages_per_second: Limit,
    /// Bytes it sends per second.
    pub bytes_per_second: Limit,
}

impl SinkLimits {
    /// Returns the policy that replaces the transport's, if there is one.
    pub fn overflow(&self) -> Option<Overflow> {
        Overflow::from_number(self.flags & OVERFLOW_BITS)
    }

    /// Sets the policy that replaces the transport's.
    pub fn set_overflow(&mut self, overflow: Option<Overflow>) {
        self.flags = self.flags & !OVERFLOW_BITS | overflow.map_or(0, Overflow::number);
    }
}

/// The content of a queue.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queued {
    /// Whole frames; an estimate while one is partly sent.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buffer::Payload, run::Encoding};
    use elbus_protocol::{FrameKind, Qos};
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    #[test]
    fn a_sink_without_a_queue_is_never_full_and_makes_nobody_wait() {
        let payloads = [Payload::from(&b"x"[..])];
        let mut encoding = Encoding::new();
        let mut run = Run::new(FrameKind::Message, Qos::NO, "a", "", &payloads, None, &mut encoding);
        assert_eq!(NullSink.deliver(&mut run), DeliveryStatus::TAKEN);
        let notified = Arc::new(AtomicBool::new(false));
        let flag = notified.clone();
        NullSink.when_drained(Notifier::new(move || flag.store(true, Ordering::SeqCst)));
        assert!(notified.load(Ordering::SeqCst), "senders continue at once");
        assert_eq!((NullSink.queued(), NullSink.overdrawn()), (Queued::default(), 0));
        let mut limits = SinkLimits::default();
        for overflow in [None, Some(Overflow::DropNewest), Some(Overflow::Latest), None] {
            limits.set_overflow(overflow);
            assert_eq!(limits.overflow(), overflow);
        }
        assert!(!NullSink.overdraw(&Overdraft::new(1, 1, "")));
    }
}
