//! Sends replies as the client `.broker`, and records the callers whose queues are full. Never waits.
//!
//! A reply is queued for its own caller, and transports stop reading a client while its queue is over the
//! limit. But a call of a few bytes can have a reply of a million, and one read holds a thousand calls: a
//! caller over its limit is refused until its queue has drained.

use elbus_plugin_api::{
    BROKER_NAME, Call, Client, Notifier, Op, Payload, Qos, Request, SHARE_FROM_BYTES, SharedBytes,
};
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::reply_batch::ReplyBatch;

/// The client that a reply goes to, and the quality of service.
pub(crate) struct Caller<'a> {
    pub(crate) name: &'a str,
    /// Its registration: a later owner of the name gets no reply.
    pub(crate) id: u64,
    pub(crate) qos: Qos,
}

impl<'a> Caller<'a> {
    /// Creates a call of this caller.
    pub(crate) fn call(&self, method: &'a str, params: &'a [u8]) -> Call<'a> {
        Call { caller: self.name, caller_id: self.id, method, params }
    }

    fn request(&self, payloads: &'a [Payload<'a>]) -> Request<'a> {
        Request::new(Op::Message, self.qos, self.name, payloads).with_receiver_id(self.id)
    }

    /// Whether it can get a reply. One to the broker itself would be delivered to this plugin while the
    /// client is in use.
    pub(crate) fn can_be_answered(&self) -> bool {
        self.name != BROKER_NAME
    }
}

/// Lock order: `state`, then what dispatching takes, or `congested`, which is a leaf. No method is called
/// and nothing of this plugin is delivered to while `state` is held.
#[derive(Default)]
pub(crate) struct ReplySender {
    state: Mutex<Option<SendState>>,
    congested: Arc<CongestedCallers>,
}

struct SendState {
    client: Client,
    /// A flush is due; the caller of the first dispatch since the last one makes it.
    dirty: bool,
}

impl ReplySender {
    pub(crate) fn open(&self, client: Client) {
        *self.state.lock() = Some(SendState { client, dirty: false });
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().is_some()
    }

    pub(crate) fn close(&self) {
        let state = self.state.lock().take();
        drop(state); // outside the lock: the sink of the client is ours and goes with it
    }

    /// Dispatches the replies and clears the batch. Returns `true` if the caller must
    /// [`flush`](ReplySender::flush).
    pub(crate) fn send(&self, to: &Caller<'_>, replies: &mut ReplyBatch) -> bool {
        let must_flush = replies.with_payloads(|payloads| self.dispatch(to, &to.request(payloads)));
        replies.clear();
        must_flush.unwrap_or(false)
    }

    /// Dispatches one reply. A large one is shared with its recipient instead of copied.
    pub(crate) fn send_shared(&self, to: &Caller<'_>, reply: &SharedBytes) -> bool {
        let payloads = [Payload::from(&**reply)];
        let request = to.request(&payloads);
        if reply.len() < SHARE_FROM_BYTES {
            return self.dispatch(to, &request);
        }
        self.dispatch(to, &request.with_shared(reply))
    }

    fn dispatch(&self, to: &Caller<'_>, request: &Request<'_>) -> bool {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return false };
        let result = state.client.dispatch(request);
        if result.is_congested() {
            self.congested.add(to.id);
        }
        !std::mem::replace(&mut state.dirty, true)
    }

    /// Flushes the dispatched replies.
    pub(crate) fn flush(&self) {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return };
        state.dirty = false;
        // one notifier at a time: the broker remembers full receivers until `when_ready` is called
        if state.client.end_batch() && self.congested.wait() {
            let congested = self.congested.clone();
            state.client.when_ready(Notifier::new(move || congested.clear()));
        }
    }

    /// Whether the caller was over its limit and has not drained since.
    pub(crate) fn is_congested_caller(&self, caller: &Caller<'_>) -> bool {
        self.congested.any.load(Ordering::Relaxed) && self.congested.ids.lock().contains(&caller.id)
    }
}

/// The callers that were over their limit when a reply was dispatched.
#[derive(Default)]
struct CongestedCallers {
    /// A notifier is pending: the broker calls it when they have drained.
    waiting: AtomicBool,
    /// A hint that spares the lock: changed under it.
    any: AtomicBool,
    /// Their registrations.
    ids: Mutex<HashSet<u64>>,
}

impl CongestedCallers {
    fn add(&self, id: u64) {
        let mut ids = self.ids.lock();
        self.any.store(true, Ordering::Relaxed);
        ids.insert(id);
    }

    /// Marks a notifier as pending. Returns whether none was.
    fn wait(&self) -> bool {
        !self.waiting.swap(true, Ordering::AcqRel)
    }

    /// Removes all callers, since they have drained. One that has not is added with its next reply.
    fn clear(&self) {
        let mut ids = self.ids.lock();
        self.any.store(false, Ordering::Relaxed);
        *ids = HashSet::new();
        self.waiting.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::testing::FakeHost;

    fn caller(name: &str, id: u64) -> Caller<'_> {
        Caller { name, id, qos: Qos::NO }
    }

    #[test]
    fn a_caller_is_congested_until_it_has_drained() {
        let fake = FakeHost::new();
        fake.congest("a");
        let reply_sender = ReplySender::default();
        reply_sender.open(fake.host("rpc").system_client());
        let (a, b) = (caller("a", 1), caller("b", 2));
        let reply = SharedBytes::from(vec![0; 10]);
        assert!(!reply_sender.is_congested_caller(&a));
        for must_flush in [true, false, false] {
            assert_eq!(reply_sender.send_shared(&a, &reply), must_flush, "to the first only");
        }
        reply_sender.flush();
        assert!(reply_sender.send_shared(&a, &reply));
        reply_sender.flush();
        assert!(reply_sender.is_congested_caller(&a) && !reply_sender.is_congested_caller(&b));
        assert_eq!(fake.pending_notifiers(), 1, "one for a caller, however many replies");
        fake.drain("a");
        assert!(!reply_sender.is_congested_caller(&a));
    }

    #[test]
    fn without_a_client_nothing_is_sent() {
        let reply_sender = ReplySender::default();
        assert!(
            !reply_sender.send_shared(&Caller { name: "a", id: 1, qos: Qos::NO }, &vec![0; 100_000].into())
        );
        reply_sender.flush();
        reply_sender.close();
    }
}
