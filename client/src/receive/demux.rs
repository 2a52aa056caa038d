//! Routes each received frame to its consumer: the caller of a reply, the server of calls, the subscriptions
//! whose filter matches, or the frames of the client. Owns these tables; never reads a socket.

use bytes::Bytes;
use elbus_protocol::{
    FrameKind, MISSED_TOPIC,
    rpc::{RpcFrame, decode_rpc},
    topic,
};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    gaps::GapReport,
    inbox::{Inbox, SharedRead},
    pending_calls::PendingCalls,
    topic_cache::{Inboxes, TopicCache},
};
use crate::{
    error::{Error, rpc_error::RpcError},
    frame::Frame,
    subscription_state::{SubscriptionState, known_text, matched_part},
};

pub(crate) struct Demux {
    /// The queue of [`Frames`](crate::Frames).
    frames_inbox: Arc<Inbox>,
    pub(crate) calls: PendingCalls,
    /// Released before any other lock is taken.
    tables: Mutex<Tables>,
    /// The filters of all consumers. No other lock is taken while it is locked here.
    filters: Arc<Mutex<SubscriptionState>>,
    /// Frames without a consumer.
    unclaimed: AtomicU64,
    received: AtomicU64,
}

#[derive(Default)]
struct Tables {
    subscriptions: Vec<SubscriptionEntry>,
    /// Counts changes of the tables.
    epoch: u64,
    calls_inbox: Option<Arc<Inbox>>,
    /// The client is subscribed to reports for its own use.
    expects_reports: bool,
    next_id: u64,
    ended: bool,
}

struct SubscriptionEntry {
    id: u64,
    filters: Vec<String>,
    inbox: Arc<Inbox>,
}

/// Which publications a subscription gets.
enum Match {
    No,
    /// Those to the topic.
    Alone,
    /// Those that it is chosen for as a member of a group.
    Shared,
}

impl SubscriptionEntry {
    fn matches(&self, topic: &str) -> Match {
        let mut found = Match::No;
        for filter in &self.filters {
            // a broker without options takes the whole text for the filter
            let (matched, is_shared) = matched_part(filter);
            if topic::matches(matched, topic) || matched != filter && topic::matches(filter, topic) {
                found = Match::Shared;
                if !is_shared {
                    return Match::Alone;
                }
            }
        }
        found
    }
}

/// The reader's copy of the tables, kept between batches.
#[derive(Default)]
pub(crate) struct DemuxCache {
    epoch: u64,
    topics: TopicCache,
    calls_inbox: Option<Arc<Inbox>>,
    expects_reports: bool,
    batch: Vec<Frame>,
    /// Reads so far.
    reads: u64,
}

impl Demux {
    pub(crate) fn new(
        frames_inbox: Arc<Inbox>,
        calls: PendingCalls,
        filters: Arc<Mutex<SubscriptionState>>,
    ) -> Self {
        Demux {
            frames_inbox,
            calls,
            tables: Mutex::default(),
            filters,
            unclaimed: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Delivers the frames of a read, which share memory of `shared_bytes`, and empties `frames`. `touched`
    /// is set to the inboxes that received frames.
    pub(crate) fn deliver(
        &self,
        frames: &mut Vec<Frame>,
        shared_bytes: usize,
        cache: &mut DemuxCache,
        touched: &mut Vec<Arc<Inbox>>,
    ) {
        touched.clear();
        self.received.fetch_add(frames.len() as u64, Ordering::Relaxed);
        let has_subscriptions = self.refresh(cache);
        cache.reads += 1;
        let read = SharedRead { id: cache.reads, bytes: shared_bytes };
        let mut current: Option<Arc<Inbox>> = None;
        let mut batch = std::mem::take(&mut cache.batch);
        for frame in frames.drain(..) {
            let inbox = match frame.kind() {
                FrameKind::Message => match self.classify(&frame, cache) {
                    MessageTarget::Done => continue,
                    MessageTarget::Server(inbox) => inbox,
                    MessageTarget::Frames => &self.frames_inbox,
                },
                FrameKind::Publish if has_subscriptions || cache.expects_reports => {
                    let inboxes = self.matching_inboxes(&frame, cache);
                    if cache.expects_reports && frame.topic() == MISSED_TOPIC {
                        self.push(current.take(), &mut batch, read, touched);
                        if !self.note_gap(&frame) && inboxes.is_empty() {
                            continue;
                        }
                    }
                    match &inboxes[..] {
                        [] => &self.frames_inbox,
                        [only] => &only.clone(),
                        several => {
                            self.push(current.take(), &mut batch, read, touched);
                            for inbox in several {
                                batch.push(frame.clone());
                                self.push(Some(inbox.clone()), &mut batch, read, touched);
                            }
                            continue;
                        }
                    }
                }
                _ => &self.frames_inbox,
            };
            if current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, inbox)) {
                self.push(current.replace(inbox.clone()), &mut batch, read, touched);
            }
            batch.push(frame);
        }
        self.push(current, &mut batch, read, touched);
        cache.batch = batch;
    }

    fn push(
        &self,
        inbox: Option<Arc<Inbox>>,
        batch: &mut Vec<Frame>,
        read: SharedRead,
        touched: &mut Vec<Arc<Inbox>>,
    ) {
        let Some(inbox) = inbox else { return };
        let unclaimed = inbox.push(batch, read);
        if unclaimed > 0 {
            self.unclaimed.fetch_add(unclaimed, Ordering::Relaxed);
        }
        if !touched.iter().any(|known| Arc::ptr_eq(known, &inbox)) {
            touched.push(inbox);
        }
    }

    /// Updates the cache. Returns whether there are subscriptions.
    fn refresh(&self, cache: &mut DemuxCache) -> bool {
        let tables = self.tables.lock();
        if cache.epoch != tables.epoch {
            cache.epoch = tables.epoch;
            cache.topics.clear();
            cache.calls_inbox = tables.calls_inbox.clone();
            cache.expects_reports = tables.expects_reports;
        }
        !tables.subscriptions.is_empty()
    }

    fn classify<'c>(&self, frame: &Frame, cache: &'c DemuxCache) -> MessageTarget<'c> {
        let payload = frame.payload();
        let part = |data: &[u8]| -> Bytes { frame.to_payload().slice_ref(data) };
        match decode_rpc(payload) {
            Ok(RpcFrame::Reply { call_id, result }) => {
                self.complete(call_id, frame.sender(), || Ok(part(result)))
            }
            Ok(RpcFrame::Error { call_id, code, data }) => self
                .complete(call_id, frame.sender(), || Err(Error::Rpc(RpcError::with_data(code, part(data))))),
            Ok(RpcFrame::Request { .. } | RpcFrame::Notification { .. }) => {
                cache.calls_inbox.as_ref().map_or(MessageTarget::Frames, MessageTarget::Server)
            }
            Err(_) => MessageTarget::Frames,
        }
    }

    fn complete(
        &self,
        call: u32,
        sender: &str,
        outcome: impl FnOnce() -> Result<Bytes, Error>,
    ) -> MessageTarget<'static> {
        if self.calls.complete(call, sender, outcome) {
            MessageTarget::Done
        } else if self.calls.was_issued(call) {
            // the caller has given up
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
            MessageTarget::Done
        } else {
            MessageTarget::Frames
        }
    }

    /// Returns the inboxes of the subscriptions that match the topic of a publication.
    fn matching_inboxes(&self, frame: &Frame, cache: &mut DemuxCache) -> Inboxes {
        let topic = frame.topic();
        if let Some(inboxes) = cache.topics.get(topic) {
            return inboxes;
        }
        let (mut alone, mut shared) = (vec![], vec![]);
        for entry in &self.tables.lock().subscriptions {
            match entry.matches(topic) {
                Match::No => {}
                Match::Alone => alone.push(entry.inbox.clone()),
                Match::Shared => shared.push(entry.inbox.clone()),
            }
        }
        // what the client gets by a filter without a group, another member gets because of the group
        if !shared.is_empty() && !self.filters.lock().is_alone(topic) {
            alone.append(&mut shared);
        }
        let inboxes = Inboxes::from(alone);
        cache.topics.insert(topic, &inboxes);
        inboxes
    }

    /// Counts what the broker reports in the queues that have missed it. Returns whether [`Frames`] are
    /// subscribed to reports, too.
    ///
    /// [`Frames`]: crate::Frames
    #[cold]
    fn note_gap(&self, frame: &Frame) -> bool {
        if let Some(GapReport { filter, count }) = GapReport::of(frame) {
            // an empty one stands for all filters without options, by a policy of the broker
            let is_meant =
                |own: &String| known_text(own) == filter || filter.is_empty() && matched_part(own).0 == own;
            let concerns = |entry: &&SubscriptionEntry| entry.filters.iter().any(is_meant);
            let mut inboxes: Vec<_> = {
                let tables = self.tables.lock();
                tables.subscriptions.iter().filter(concerns).map(|entry| entry.inbox.clone()).collect()
            };
            if self.filters.lock().frames_know(&filter) {
                inboxes.push(self.frames_inbox.clone());
            }
            inboxes.iter().for_each(|inbox| inbox.add_missed(count));
        }
        self.filters.lock().frames_have(MISSED_TOPIC)
    }

    /// Takes reports of the broker into account from now on.
    pub(crate) fn expect_reports(&self) {
        let mut tables = self.tables.lock();
        tables.epoch += 1;
        tables.expects_reports = true;
    }

    /// Has the cached consumers of topics determined again.
    pub(crate) fn filters_changed(&self) {
        self.tables.lock().epoch += 1;
    }

    /// Adds a subscription: publications that match are delivered to the inbox. Returns its id for
    /// [`remove_subscription`](Self::remove_subscription).
    pub(crate) fn add_subscription(&self, filters: Vec<String>, inbox: Arc<Inbox>) -> u64 {
        let mut tables = self.tables.lock();
        let id = tables.next_id;
        tables.next_id += 1;
        tables.epoch += 1;
        let ended = tables.ended;
        tables.subscriptions.push(SubscriptionEntry { id, filters, inbox: inbox.clone() });
        drop(tables);
        if ended {
            inbox.end();
        }
        id
    }

    /// Removes a subscription and returns its filters.
    pub(crate) fn remove_subscription(&self, id: u64) -> Vec<String> {
        let mut tables = self.tables.lock();
        let Some(index) = tables.subscriptions.iter().position(|entry| entry.id == id) else {
            return Vec::new();
        };
        tables.epoch += 1;
        let entry = tables.subscriptions.swap_remove(index);
        drop(tables);
        entry.filters
    }

    /// Delivers calls and notifications to the inbox. Returns `false` if another inbox already receives them.
    pub(crate) fn start_serving(&self, inbox: Arc<Inbox>) -> bool {
        let mut tables = self.tables.lock();
        if tables.calls_inbox.is_some() {
            return false;
        }
        tables.epoch += 1;
        let ended = tables.ended;
        tables.calls_inbox = Some(inbox.clone());
        drop(tables);
        if ended {
            inbox.end();
        }
        true
    }

    /// Ends the inbox of calls; further calls and notifications are delivered as ordinary frames.
    pub(crate) fn stop_serving(&self) {
        let mut tables = self.tables.lock();
        tables.epoch += 1;
        let inbox = tables.calls_inbox.take();
        drop(tables);
        if let Some(inbox) = inbox {
            inbox.end();
        }
    }

    /// Ends all inboxes.
    pub(crate) fn end(&self) {
        let mut tables = self.tables.lock();
        tables.ended = true;
        let subscriptions = tables.subscriptions.iter().map(|entry| entry.inbox.clone());
        let inboxes: Vec<_> =
            subscriptions.chain(tables.calls_inbox.clone()).chain([self.frames_inbox.clone()]).collect();
        drop(tables);
        for inbox in inboxes {
            inbox.end();
        }
    }

    /// Returns how many frames were received, and how many of them had no consumer.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.unclaimed.load(Ordering::Relaxed))
    }
}

/// The consumer of a message.
enum MessageTarget<'c> {
    /// The message was a reply and has been consumed.
    Done,
    Server(&'c Arc<Inbox>),
    Frames,
}
