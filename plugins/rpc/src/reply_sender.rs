//! Sends replies as the client `.broker`, and records the callers whose queues are full. Never waits.
//!
//! A reply is queued for its own caller, and transports stop reading a client while its queue is over the
//! limit. But a call of a few bytes can have a reply of a million, and one read can contain a thousand calls.
//! Therefore calls of a caller over its limit are refused until its queue has drained. Each caller has its
//! own notifier, so that a slow caller does not delay others.

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
    /// The registration of the caller: a later owner of the name gets no reply.
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

    /// Returns whether the caller can get a reply. A reply to the broker itself would be delivered to this
    /// plugin while the client is in use.
    pub(crate) fn can_be_answered(&self) -> bool {
        self.name != BROKER_NAME
    }
}

/// Lock order: `state`, then the locks of dispatching, or `congested`, which is a leaf lock. While `state` is
/// held, no method is called and nothing is delivered to this plugin.
#[derive(Default)]
pub(crate) struct ReplySender {
    state: Mutex<Option<SendState>>,
    congested: Arc<CongestedCallers>,
}

struct SendState {
    client: Client,
    /// Sends to congested callers, whose notifiers are pending. If `client` did, the notifier of the next
    /// caller would wait for them too.
    to_congested: Client,
    /// A flush is due; the caller of the first dispatch since the last flush makes it.
    dirty: bool,
}

impl ReplySender {
    /// Replies are sent by `client`, and to congested callers by `to_congested`.
    pub(crate) fn open(&self, client: Client, to_congested: Client) {
        *self.state.lock() = Some(SendState { client, to_congested, dirty: false });
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().is_some()
    }

    pub(crate) fn close(&self) {
        let state = self.state.lock().take();
        drop(state); // outside the lock: dropping the client drops the sink of this plugin
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
        if self.is_congested_caller(to) {
            state.to_congested.dispatch(request);
        } else if state.client.dispatch(request).is_congested() {
            // at once, so that the notifier waits for this caller alone
            self.congested.add(to.id);
            let (congested, id) = (self.congested.clone(), to.id);
            state.client.when_ready(Notifier::new(move || congested.remove(id)));
        }
        !std::mem::replace(&mut state.dirty, true)
    }

    /// Flushes the dispatched replies.
    pub(crate) fn flush(&self) {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return };
        state.dirty = false;
        state.client.end_batch();
        // the broker remembers full receivers until `when_ready` is called
        if state.to_congested.end_batch() && !self.congested.any.load(Ordering::Relaxed) {
            state.to_congested.when_ready(Notifier::new(|| ()));
        }
    }

    /// Returns whether the caller was over its limit and has not drained since.
    pub(crate) fn is_congested_caller(&self, caller: &Caller<'_>) -> bool {
        self.congested.any.load(Ordering::Relaxed) && self.congested.ids.lock().contains(&caller.id)
    }
}

/// The callers that were over their limit when a reply was dispatched. A notifier is pending for each.
#[derive(Default)]
struct CongestedCallers {
    /// Set if there are any, which saves taking the lock. Changed under the lock.
    any: AtomicBool,
    /// The registrations of these callers.
    ids: Mutex<HashSet<u64>>,
}

impl CongestedCallers {
    fn add(&self, id: u64) {
        let mut ids = self.ids.lock();
        self.any.store(true, Ordering::Relaxed);
        ids.insert(id);
    }

    /// Removes a caller, which has drained or left.
    fn remove(&self, id: u64) {
        let mut ids = self.ids.lock();
        ids.remove(&id);
        if ids.is_empty() {
            self.any.store(false, Ordering::Relaxed);
            *ids = HashSet::new();
        }
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
        let host = fake.host("rpc");
        reply_sender.open(host.system_client(), host.system_client());
        let (a, b) = (caller("a", 1), caller("b", 2));
        let reply = SharedBytes::from(vec![0; 10]);
        assert!(!reply_sender.is_congested_caller(&a));
        for must_flush in [true, false, false] {
            assert_eq!(reply_sender.send_shared(&a, &reply), must_flush, "only for the first");
        }
        reply_sender.flush();
        assert!(reply_sender.send_shared(&a, &reply));
        reply_sender.flush();
        assert!(reply_sender.is_congested_caller(&a) && !reply_sender.is_congested_caller(&b));
        assert_eq!(fake.pending_notifiers(), 1, "one notifier for a caller");
        fake.drain("a");
        assert!(!reply_sender.is_congested_caller(&a));
    }

    #[test]
    fn one_slow_caller_does_not_hold_up_another_one() {
        let fake = FakeHost::new();
        ["slow", "quick", "late"].iter().for_each(|name| fake.congest(name));
        let reply_sender = ReplySender::default();
        let host = fake.host("rpc");
        reply_sender.open(host.system_client(), host.system_client());
        let (slow, quick, late) = (caller("slow", 1), caller("quick", 2), caller("late", 3));
        let reply = SharedBytes::from(vec![0; 10]);
        // in one batch, and in a later one, together with another reply to the slow one
        for batch in [&[&slow, &quick][..], &[&slow, &late]] {
            batch.iter().for_each(|caller| _ = reply_sender.send_shared(caller, &reply));
            reply_sender.flush();
        }
        let congested = || [&slow, &quick, &late].map(|caller| reply_sender.is_congested_caller(caller));
        assert_eq!(congested(), [true, true, true]);
        fake.drain("quick");
        assert_eq!(congested(), [true, false, true]);
        fake.drain("late");
        assert_eq!(congested(), [true, false, false]);
        fake.drain("slow");
        assert_eq!((congested(), fake.pending_notifiers()), ([false; 3], 0));
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
