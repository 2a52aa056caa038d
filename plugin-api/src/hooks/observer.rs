//! Observers: the reading end of what has been routed.

use abi_stable::std_types::ROption;
use elbus_protocol::{Code, Op};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::mpsc::RecvTimeoutError,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::observer_queue::{ObservedRun, ObservedRuns};
use crate::{
    abi::{IntoRaw, ObserverObject},
    inproc::{Message, waker_of_thread},
    notifier::Notified,
};

/// Receives copies of the messages in its [scope](super::HookScope), after they have been routed.
///
/// Messages of one sender arrive in the order in which they were routed. They wait in a queue of limited
/// size; what does not fit is dropped and [counted](Observation::missed), so that no sender waits for an
/// observer.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Code, Op, hooks::HookScope, testing::FakeHost};
///
/// let fake = FakeHost::new();
/// let (_hook, mut observer) = fake.host("audit").add_observer(&HookScope::everything(), 1 << 20)?;
/// fake.observe("boiler", Op::Publish, "sensors/boiler", &[b"20.5"], Code::Ok, 2);
/// let seen = observer.receive_blocking().expect("the instance is running");
/// assert_eq!((seen.sender(), seen.target(), seen.payload()), ("boiler", "sensors/boiler", &b"20.5"[..]));
/// assert_eq!((seen.code(), seen.recipients(), seen.missed()), (Code::Ok, 2, 0));
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub struct Observer {
    raw: ObserverObject,
    received: ObservedRuns,
    messages: VecDeque<Observation>,
    waiting: Option<Notified>,
}

/// A message that has been routed.
#[derive(Debug, Clone)]
pub struct Observation {
    op: u8,
    code: u8,
    recipients: u32,
    sender_id: u64,
    unix_nanos: u64,
    missed: u64,
    receiver: Box<str>,
    message: Message,
}

impl Observer {
    pub(crate) fn new(raw: ObserverObject) -> Self {
        Observer { raw, received: ObservedRuns::new(), messages: VecDeque::new(), waiting: None }
    }

    /// Returns the next message; `None` once the [`Hook`](super::Hook) was dropped or the instance has ended,
    /// and everything before has been received.
    pub async fn receive(&mut self) -> Option<Observation> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Returns the next message, as [`receive`](Observer::receive); blocks until there is one.
    pub fn receive_blocking(&mut self) -> Option<Observation> {
        let waker = waker_of_thread();
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll(&mut context) {
                Poll::Ready(observation) => return observation,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Returns the next message, as [`receive_blocking`](Observer::receive_blocking); blocks at most for
    /// `limit`.
    ///
    /// # Errors
    /// [`Timeout`](RecvTimeoutError::Timeout) if there was none within `limit`, and
    /// [`Disconnected`](RecvTimeoutError::Disconnected) once none will follow.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{hooks::HookScope, testing::FakeHost};
    /// use std::{sync::mpsc::RecvTimeoutError, time::Duration};
    ///
    /// let host = FakeHost::new().host("audit");
    /// let (hook, mut observer) = host.add_observer(&HookScope::everything(), 1 << 20)?;
    /// let mut receive = || observer.receive_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(receive(), RecvTimeoutError::Timeout);
    /// drop(hook);
    /// assert_eq!(receive(), RecvTimeoutError::Disconnected);
    /// # Ok::<(), elbus_plugin_api::PluginError>(())
    /// ```
    pub fn receive_timeout(&mut self, limit: Duration) -> Result<Observation, RecvTimeoutError> {
        let waker = waker_of_thread();
        let mut context = Context::from_waker(&waker);
        let begun = Instant::now();
        loop {
            if let Poll::Ready(observation) = self.poll(&mut context) {
                return observation.ok_or(RecvTimeoutError::Disconnected);
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            std::thread::park_timeout(left);
        }
    }

    /// Returns the next message if there is one. Does not block.
    pub fn try_receive(&mut self) -> Option<Observation> {
        self.take_next().or_else(|| {
            self.take_over(ROption::RNone);
            self.take_next()
        })
    }

    /// Returns the number of messages that were dropped so far because the queue was full.
    pub fn missed(&self) -> u64 {
        self.raw.missed()
    }

    fn take_next(&mut self) -> Option<Observation> {
        self.messages.pop_front()
    }

    /// Moves what is queued into `messages`. Returns `false` if nothing is and nothing will follow.
    fn take_over(&mut self, notifier: ROption<crate::abi::NotifierObject>) -> bool {
        let open = self.raw.receive(&mut self.received, notifier);
        for run in std::mem::take(&mut self.received) {
            self.split(run);
        }
        open
    }

    fn split(&mut self, run: ObservedRun) {
        let ObservedRun { op, code, recipients, sender_id, unix_nanos, mut missed, receiver, .. } = run;
        let receiver: Box<str> = receiver.as_str().into();
        run.run.into_messages(|message| {
            let missed = std::mem::take(&mut missed);
            let receiver = receiver.clone();
            let observation =
                Observation { op, code, recipients, sender_id, unix_nanos, missed, receiver, message };
            self.messages.push_back(observation);
        });
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Observation>> {
        loop {
            if let Some(next) = self.take_next() {
                return Poll::Ready(Some(next));
            }
            if let Some(waiting) = &mut self.waiting {
                if Pin::new(waiting).poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.waiting = None;
            }
            let (notifier, notified) = Notified::pair();
            let open = self.take_over(ROption::RSome(notifier.into_raw()));
            if self.messages.is_empty() {
                if !open {
                    return Poll::Ready(None);
                }
                self.waiting = Some(notified);
            }
        }
    }
}

impl Observation {
    /// Returns the operation: message, broadcast, publication or limited publication.
    pub fn op(&self) -> Op {
        Op::from_wire(self.op).unwrap_or(Op::Message)
    }

    /// Returns whether it was sent as real-time.
    pub fn is_realtime(&self) -> bool {
        self.message.is_realtime()
    }

    /// Returns the full registered name of the sender.
    pub fn sender(&self) -> &str {
        self.message.sender()
    }

    /// Returns the id of the sender's registration; 0 is the broker itself.
    pub fn sender_id(&self) -> u64 {
        self.sender_id
    }

    /// Returns the name, mask or topic that it was sent to.
    pub fn target(&self) -> &str {
        self.message.topic()
    }

    /// Returns the primary name that a limited publication is for; empty for other operations.
    pub fn receiver(&self) -> &str {
        &self.receiver
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// Returns the payload in a form that can be kept without copying.
    pub fn to_payload(&self) -> bytes::Bytes {
        self.message.to_payload()
    }

    /// Returns the result code.
    pub fn code(&self) -> Code {
        Code::from_wire(self.code).unwrap_or(Code::Other)
    }

    /// Returns the number of clients that it was queued for.
    pub fn recipients(&self) -> u32 {
        self.recipients
    }

    /// Returns when it was routed.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.unix_nanos)
    }

    /// Returns when it was routed, in nanoseconds since 1970.
    pub fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// Returns the number of messages that were dropped right before this one because the queue was full.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hooks::HookScope, testing::FakeHost};

    #[test]
    fn messages_are_received_in_order_with_what_was_missed_before_them() {
        let fake = FakeHost::new();
        let host = fake.host("demo");
        let (_hook, mut observer) = host.add_observer(&HookScope::everything(), 400).unwrap();
        assert!(observer.try_receive().is_none());
        for round in 0..2_u32 {
            fake.observe("s", Op::Message, "t", &[b"a", b"b"], Code::Busy, round);
            fake.observe("s", Op::Message, "t", &[&[0; 1000], b"c"], Code::Ok, 0);
            let seen: Vec<_> = std::iter::from_fn(|| observer.try_receive()).collect();
            let payloads: Vec<_> = seen.iter().map(Observation::payload).collect();
            assert_eq!(payloads, [b"a", b"b"]);
            let missed: Vec<_> = seen.iter().map(Observation::missed).collect();
            assert_eq!(missed, [if round == 0 { 0 } else { 2 }, 0]);
            assert!(seen.iter().all(|seen| (seen.code(), seen.recipients()) == (Code::Busy, round)));
        }
        assert_eq!(observer.missed(), 4);
    }

    #[test]
    fn a_reader_that_waits_is_woken() {
        let fake = FakeHost::new();
        let (_hook, mut observer) =
            fake.host("demo").add_observer(&HookScope::everything(), 1 << 20).unwrap();
        let reader = std::thread::spawn(move || observer.receive_blocking().map(|seen| seen.sender_id()));
        assert!(fake.wait_until(Duration::from_secs(10), |fake| {
            fake.observe("s", Op::Publish, "t", &[b"x"], Code::Ok, 1);
            reader.is_finished()
        }));
        assert_eq!(reader.join().unwrap(), Some(fake.id_of("s")));
    }
}
