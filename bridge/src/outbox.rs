//! The way from senders' threads to a node: runs that wait to be published, and the windows that limit them.
//!
//! Owns the only lock of this crate. Senders' threads push under it, the task of the bridge takes chunks and
//! returns what has arrived. No callback except `defer` runs under it, and no other lock is taken under it.

mod calls;
mod chunk;
mod congestion;
mod list_parts;
mod pending_results;
mod queue;
mod recent;
mod sender_queues;
#[cfg(test)]
mod tests;
mod windows;

pub(crate) use chunk::{Chunk, Entry, cost_of_one};
pub(crate) use congestion::Acknowledged;
pub(crate) use queue::Leftovers;
pub(crate) use sender_queues::MAX_TRANSFERS;

use crate::{proxy_id::ProxyId, settings::Limits, wire::List};
use elbus_protocol::{Code, Op, Qos, rpc};
use parking_lot::Mutex;
use queue::{Measures, Queue};
use std::sync::Arc;

/// What the messages of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingRun<'a> {
    /// [`Op::Message`] or [`Op::Broadcast`] for a client, [`Op::Publish`] for a topic.
    pub op: Op,
    /// The quality of service.
    pub qos: Qos,
    /// The local name of the sender.
    pub sender: &'a str,
    /// The recipient.
    pub to: To<'a>,
}

/// The recipient of a run.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    /// A remote client.
    Client(ProxyId),
    /// The subscribers of a topic.
    Topic(&'a str),
}

/// What an outbox answers when a run is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The run was taken.
    Taken {
        /// Senders should wait until [`Output::Drained`](crate::Output::Drained).
        is_full: bool,
        /// The queue was empty: wake the task that polls the bridge.
        wakes: bool,
    },
    /// The run was not taken: the receiver is too far over its window.
    Refused,
    /// The run was not taken: a message is too long, or the name of the sender or the topic cannot travel.
    Invalid,
    /// The run was not taken: the client has left, or its node is lost.
    Closed,
}

/// The way to a node. Senders' threads push, the task of the plugin polls the [`Bridge`](crate::Bridge).
///
/// # Threads
/// Every method can be called from any thread. One lock is held for the time of a copy.
#[derive(Debug)]
pub struct Outbox<C> {
    queue: Mutex<Queue<C>>,
    max_name_bytes: usize,
    max_message_bytes: usize,
}

impl<C> Outbox<C> {
    /// Creates an open outbox whose chunks begin with room for a header of `head_len` bytes.
    pub(crate) fn new(limits: &Limits, head_len: usize) -> Self {
        Outbox {
            queue: Mutex::new(Queue::new(limits, head_len)),
            max_name_bytes: limits.max_name_bytes,
            max_message_bytes: limits.max_message_bytes,
        }
    }

    /// Appends a run. If it is taken, `defer` is called once, under the lock: it returns what completes the
    /// acknowledgement of the run, or `None` if its sender does not wait for the result. It must not call the
    /// outbox. [`Output::Complete`](crate::Output::Complete) gives it back exactly once.
    ///
    /// Publications never wait for a result: `defer` is not called for them.
    pub fn push<'p>(
        &self,
        run: &OutgoingRun<'_>,
        payloads: impl Iterator<Item = &'p [u8]> + Clone,
        defer: impl FnOnce() -> Option<C>,
    ) -> Pushed {
        let mut measures = Measures::default();
        for payload in payloads.clone() {
            measures.count += 1;
            measures.longest = measures.longest.max(payload.len());
            measures.bytes = measures.bytes.saturating_add(4 + payload.len());
        }
        if measures.count == 0 || measures.longest > self.max_message_bytes || !self.can_travel(run) {
            return Pushed::Invalid;
        }
        measures.has_calls = run.op == Op::Message && payloads.clone().any(is_call);
        self.queue.lock().push(run, measures, payloads, defer)
    }

    /// Returns whether sender and recipient can be carried.
    fn can_travel(&self, run: &OutgoingRun<'_>) -> bool {
        let sender = run.sender.as_bytes();
        let is_sender_valid = !matches!(sender, [] | [b'@', ..]) && sender.len() <= self.max_name_bytes;
        is_sender_valid
            && match (run.op, run.to) {
                (Op::Message | Op::Broadcast, To::Client(_)) => true,
                (Op::Publish, To::Topic(topic)) => {
                    topic.len() <= usize::from(u16::MAX) && !topic.starts_with('.') && !topic.contains('\0')
                }
                _ => false,
            }
    }

    /// Returns whether senders to the recipient should wait. A sink whose `when_drained` is called checks it
    /// after it has stored the notifier, because the recipient can have drained in the meantime. `None` are
    /// publications to the node.
    pub fn is_full(&self, proxy: Option<ProxyId>) -> bool {
        self.queue.lock().is_full(window_of(proxy))
    }

    /// Returns the bytes that are queued, or sent and not yet taken by the far broker. `None` are
    /// publications to the node.
    pub fn outstanding(&self, proxy: Option<ProxyId>) -> usize {
        self.queue.lock().outstanding(window_of(proxy))
    }

    /// Opens the window of a client.
    pub(crate) fn open(&self, proxy: ProxyId, target: Arc<str>) {
        self.queue.lock().open(proxy.0, target);
    }

    /// Closes the window of a client: nothing more is taken for it.
    pub(crate) fn close(&self, proxy: ProxyId) {
        self.queue.lock().close(proxy.0);
    }

    /// Takes the next chunk to publish, if there is one.
    pub(crate) fn take_chunk(&self) -> Option<Chunk> {
        self.queue.lock().take_chunk()
    }

    /// Returns bytes queued and in flight.
    pub(crate) fn loads(&self) -> (usize, usize) {
        self.queue.lock().loads()
    }

    /// Appends changes of a list behind everything that is queued.
    pub(crate) fn append_list(&self, list: List, version: u64, changes: &[(bool, &str)], is_delta: bool) {
        self.queue.lock().append_list(list, version, changes, is_delta);
    }

    /// Returns whether changes of a list can be appended as such: they fit in one record, which is applied as
    /// a whole, and there is room for them. Otherwise a snapshot stands for them.
    pub(crate) fn has_room_for(&self, changes: &[(bool, &str)]) -> bool {
        list_parts::fits_in_one(changes) && self.queue.lock().has_room_for_changes()
    }

    /// Returns whether a snapshot of a list waits to be taken.
    pub(crate) fn has_snapshot(&self, list: List) -> bool {
        self.queue.lock().has_snapshot(list)
    }

    /// A chunk has arrived.
    pub(crate) fn arrived(&self, batch: Acknowledged, entries: &[Entry]) {
        self.queue.lock().arrived(batch, entries);
    }

    /// A chunk was lost. Returns how many messages it had, and numbers of pieced messages that are
    /// incomplete.
    pub(crate) fn lost(
        &self,
        bytes: usize,
        entries: &[Entry],
        completed: &mut Vec<(C, Code)>,
    ) -> (u64, Vec<u32>) {
        self.queue.lock().lost(bytes, entries, completed)
    }

    /// Bytes that the far broker has taken. Returns whether the window had as many outstanding.
    pub(crate) fn returned(&self, window: u64, bytes: usize) -> bool {
        self.queue.lock().returned(window, bytes)
    }

    /// Results have arrived. Returns how many nothing waited for.
    pub(crate) fn results(
        &self,
        results: impl Iterator<Item = (u64, Code)>,
        completed: &mut Vec<(C, Code)>,
    ) -> u64 {
        self.queue.lock().results(results, completed)
    }

    /// Returns the number of the next reference.
    pub(crate) fn next_reference(&self) -> u64 {
        self.queue.lock().next_reference()
    }

    /// Ends waiting for references below `upto`.
    pub(crate) fn time_out(&self, upto: u64, completed: &mut Vec<(C, Code)>) {
        self.queue.lock().time_out(upto, completed);
    }

    /// Returns windows that were full and are no longer.
    pub(crate) fn take_drained(&self) -> Vec<u64> {
        self.queue.lock().take_drained()
    }

    /// Returns whether a local client has sent to the node recently, so that the node can answer it.
    pub(crate) fn has_sent(&self, client: &str) -> bool {
        self.queue.lock().has_sent(client)
    }

    /// A run of a client has arrived: its replies end calls.
    pub(crate) fn replied<'p>(&self, proxy: ProxyId, caller: &str, payloads: impl Iterator<Item = &'p [u8]>) {
        let mut replies = payloads.filter(|payload| is_reply(payload)).peekable();
        if replies.peek().is_some() {
            self.queue.lock().replied(proxy.0, caller, replies);
        }
    }

    /// Takes how many calls were not recorded since the last call.
    pub(crate) fn take_calls_dropped(&self) -> u64 {
        self.queue.lock().take_calls_dropped()
    }

    /// Closes the outbox: nothing more is taken. Returns what was in it.
    pub(crate) fn end(&self) -> Leftovers<C> {
        self.queue.lock().end()
    }
}

fn window_of(proxy: Option<ProxyId>) -> u64 {
    proxy.map_or(0, |proxy| proxy.0)
}

/// Returns whether a payload begins like a request that wants a reply.
fn is_call(payload: &[u8]) -> bool {
    matches!(payload, [rpc::REQUEST, a, b, c, d, ..] if [*a, *b, *c, *d] != [0; 4])
}

/// Returns whether a payload begins like a reply.
fn is_reply(payload: &[u8]) -> bool {
    matches!(payload, [rpc::REPLY | rpc::ERROR, _, _, _, _, ..])
}
