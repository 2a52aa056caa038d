//! Who within the program gets a received frame: the caller a reply belongs to, the server of calls, subscriptions whose
//! filter matches, or the frames of the client. Owns these tables; never reads a socket.

use bytes::Bytes;
use elbus_protocol::{
    FrameKind,
    rpc::{RpcFrame, decode_rpc},
    topic,
};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Error, Frame, RpcError,
    receive::inbox::Inbox,
    receive::pending_calls::Calls,
    receive::topic_cache::{Inboxes, Topics},
};

pub(crate) struct Switchboard {
    /// Of [`Frames`](crate::Frames).
    main: Arc<Inbox>,
    pub(crate) calls: Calls,
    /// Taken before that of an inbox; none of the two is held while the other is waited for.
    tables: Mutex<Tables>,
    /// Frames that nobody wanted.
    unclaimed: AtomicU64,
    received: AtomicU64,
}

#[derive(Default)]
struct Tables {
    subscriptions: Vec<Subscribed>,
    /// Counts changes of the subscriptions.
    epoch: u64,
    serving: Option<Arc<Inbox>>,
    next: u64,
    ended: bool,
}

struct Subscribed {
    id: u64,
    filters: Vec<String>,
    inbox: Arc<Inbox>,
}

/// What the reader remembers between batches.
#[derive(Default)]
pub(crate) struct Memory {
    epoch: u64,
    topics: Topics,
    serving: Option<Arc<Inbox>>,
    batch: Vec<Frame>,
}

impl Switchboard {
    pub(crate) fn new(main: Arc<Inbox>, calls: Calls) -> Self {
        Switchboard {
            main,
            calls,
            tables: Mutex::default(),
            unclaimed: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Hands frames over and empties `frames`; `touched` becomes the inboxes that got some.
    pub(crate) fn route(&self, frames: &mut Vec<Frame>, memory: &mut Memory, touched: &mut Vec<Arc<Inbox>>) {
        touched.clear();
        self.received.fetch_add(frames.len() as u64, Ordering::Relaxed);
        let has_subscriptions = self.refresh(memory);
        let mut current: Option<Arc<Inbox>> = None;
        let mut batch = std::mem::take(&mut memory.batch);
        for frame in frames.drain(..) {
            let inbox = match frame.kind() {
                FrameKind::Message => match self.claim(&frame, memory) {
                    Claim::Done => continue,
                    Claim::Served(inbox) => inbox,
                    Claim::Raw => &self.main,
                },
                FrameKind::Publish if has_subscriptions => {
                    let inboxes = self.subscribers(&frame, memory);
                    match &inboxes[..] {
                        [] => &self.main,
                        [only] => &only.clone(),
                        several => {
                            self.hand_over(current.take(), &mut batch, touched);
                            for inbox in several {
                                batch.push(frame.clone());
                                self.hand_over(Some(inbox.clone()), &mut batch, touched);
                            }
                            continue;
                        }
                    }
                }
                _ => &self.main,
            };
            if current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, inbox)) {
                self.hand_over(current.replace(inbox.clone()), &mut batch, touched);
            }
            batch.push(frame);
        }
        self.hand_over(current, &mut batch, touched);
        memory.batch = batch;
    }

    fn hand_over(&self, inbox: Option<Arc<Inbox>>, batch: &mut Vec<Frame>, touched: &mut Vec<Arc<Inbox>>) {
        let Some(inbox) = inbox else { return };
        let unclaimed = inbox.push(batch);
        if unclaimed > 0 {
            self.unclaimed.fetch_add(unclaimed, Ordering::Relaxed);
        }
        if !touched.iter().any(|known| Arc::ptr_eq(known, &inbox)) {
            touched.push(inbox);
        }
    }

    /// Brings the memory up to date; whether there are subscriptions.
    fn refresh(&self, memory: &mut Memory) -> bool {
        let tables = self.tables.lock();
        if memory.epoch != tables.epoch {
            memory.epoch = tables.epoch;
            memory.topics.clear();
            memory.serving = tables.serving.clone();
        }
        !tables.subscriptions.is_empty()
    }

    fn claim<'m>(&self, frame: &Frame, memory: &'m Memory) -> Claim<'m> {
        let payload = frame.payload();
        let part = |data: &[u8]| -> Bytes { frame.to_payload().slice_ref(data) };
        match decode_rpc(payload) {
            Ok(RpcFrame::Reply { call_id, result }) => {
                self.complete(call_id, frame.sender(), || Ok(part(result)))
            }
            Ok(RpcFrame::Error { call_id, code, data }) => self
                .complete(call_id, frame.sender(), || Err(Error::Rpc(RpcError { code, data: part(data) }))),
            Ok(RpcFrame::Request { .. } | RpcFrame::Notification { .. }) => {
                memory.serving.as_ref().map_or(Claim::Raw, Claim::Served)
            }
            Err(_) => Claim::Raw,
        }
    }

    fn complete(
        &self,
        call: u32,
        sender: &str,
        outcome: impl FnOnce() -> Result<Bytes, Error>,
    ) -> Claim<'static> {
        if self.calls.complete(call, Some(sender), outcome) {
            Claim::Done
        } else if self.calls.was_made(call) {
            // the caller has given up
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
            Claim::Done
        } else {
            Claim::Raw
        }
    }

    /// The inboxes of subscriptions that a topic matches.
    fn subscribers(&self, frame: &Frame, memory: &mut Memory) -> Inboxes {
        if let Some(inboxes) = memory.topics.get(frame.topic()) {
            return inboxes;
        }
        let topic = frame.topic();
        let tables = self.tables.lock();
        let matches = |entry: &&Subscribed| entry.filters.iter().any(|filter| topic::matches(filter, topic));
        let inboxes: Inboxes =
            tables.subscriptions.iter().filter(matches).map(|entry| entry.inbox.clone()).collect();
        drop(tables);
        memory.topics.remember(topic, &inboxes);
        inboxes
    }

    /// From now on publications that match go to the inbox. The number is for [`unsubscribe`](Self::unsubscribe).
    pub(crate) fn subscribe(&self, filters: Vec<String>, inbox: Arc<Inbox>) -> u64 {
        let mut tables = self.tables.lock();
        let id = tables.next;
        tables.next += 1;
        tables.epoch += 1;
        let ended = tables.ended;
        tables.subscriptions.push(Subscribed { id, filters, inbox: inbox.clone() });
        drop(tables);
        if ended {
            inbox.end();
        }
        id
    }

    /// Takes a subscription out; its filters come back.
    pub(crate) fn unsubscribe(&self, id: u64) -> Vec<String> {
        let mut tables = self.tables.lock();
        let Some(index) = tables.subscriptions.iter().position(|entry| entry.id == id) else {
            return Vec::new();
        };
        tables.epoch += 1;
        let entry = tables.subscriptions.swap_remove(index);
        drop(tables);
        entry.filters
    }

    /// From now on calls and notifications go to the inbox; `false` where another one has them.
    pub(crate) fn serve(&self, inbox: Arc<Inbox>) -> bool {
        let mut tables = self.tables.lock();
        if tables.serving.is_some() {
            return false;
        }
        tables.epoch += 1;
        let ended = tables.ended;
        tables.serving = Some(inbox.clone());
        drop(tables);
        if ended {
            inbox.end();
        }
        true
    }

    /// Calls and notifications are ordinary frames again.
    pub(crate) fn serve_no_more(&self) {
        let mut tables = self.tables.lock();
        tables.epoch += 1;
        let inbox = tables.serving.take();
        drop(tables);
        if let Some(inbox) = inbox {
            inbox.end();
        }
    }

    /// Says to everybody that nothing will follow.
    pub(crate) fn end(&self) {
        let mut tables = self.tables.lock();
        tables.ended = true;
        let subscriptions = tables.subscriptions.iter().map(|entry| entry.inbox.clone());
        let inboxes: Vec<_> =
            subscriptions.chain(tables.serving.clone()).chain([self.main.clone()]).collect();
        drop(tables);
        for inbox in inboxes {
            inbox.end();
        }
    }

    /// Frames received, and those that nobody wanted.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.unclaimed.load(Ordering::Relaxed))
    }
}

/// Who a message is for.
enum Claim<'m> {
    /// It has been taken.
    Done,
    Served(&'m Arc<Inbox>),
    Raw,
}
