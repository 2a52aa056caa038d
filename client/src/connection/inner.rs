//! The state that all handles and tasks of a client share. Never waits for the broker.

use elbus_protocol::name::SECONDARY_SEPARATOR;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use tokio::{runtime::Handle, sync::Notify};

#[cfg(feature = "in-process")]
use super::in_process::InProcessLink;
use super::{endpoint::Endpoint, feature_cache::FeatureCache, send_queue::SendQueue};
use crate::{
    error::Error,
    events::EventSender,
    receive::{
        demux::Demux,
        inbox::{Inbox, Receiver},
        pending_calls::PendingCalls,
        read_limit::ReadLimit,
    },
    settings::{Overflow, Reconnect, Settings},
    subscription_state::SubscriptionState,
};

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) endpoint: Endpoint,
    pub(crate) read_limit: Arc<ReadLimit>,
    pub(crate) send_queue: SendQueue,
    #[cfg(feature = "in-process")]
    pub(crate) in_process: InProcessLink,
    pub(crate) demux: Demux,
    pub(crate) events: EventSender,
    /// Taken before the lock of the send queue.
    pub(crate) subscriptions: Arc<Mutex<SubscriptionState>>,
    /// What the broker of the current connection understands.
    pub(super) features: FeatureCache,
    /// Number of secondary clients of the same primary so far.
    pub(crate) secondaries: Arc<AtomicU32>,
    pub(crate) reconnects: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    /// Panics of functions that were called for a frame.
    pub(crate) handler_panics: AtomicU64,
    /// Counts reads: each is a sign of life of the broker.
    pub(super) reads: AtomicU64,
    /// The reader waits for consumers.
    pub(super) reader_paused: AtomicBool,
    closing: AtomicBool,
    close_requested: Notify,
    /// The queue of calls that arrive before they are served, with `queue_calls`.
    queued_calls: Mutex<Option<Receiver>>,
    /// The runtime of the client's tasks.
    pub(crate) runtime: Handle,
}

impl Inner {
    /// Creates the state of a client that is not yet connected, and the queue of its frames. Must be called
    /// within a runtime.
    pub(super) fn new(
        name: String,
        settings: Settings,
        endpoint: Endpoint,
        secondaries: Arc<AtomicU32>,
    ) -> (Arc<Self>, Receiver) {
        let Settings { queue_bytes, max_frame_bytes, overflow, queue_calls, .. } = settings;
        let read_limit = Arc::new(ReadLimit::default());
        let frames_inbox = Inbox::new(queue_bytes, overflow, read_limit.clone());
        let receiver = Receiver::new(frames_inbox.clone());
        let subscriptions = Arc::default();
        let calls = PendingCalls::new(read_limit.clone());
        let inner = Arc::new(Inner {
            name,
            settings,
            endpoint,
            send_queue: SendQueue::new(queue_bytes, max_frame_bytes, read_limit.clone()),
            #[cfg(feature = "in-process")]
            in_process: InProcessLink::default(),
            demux: Demux::new(frames_inbox, calls, Arc::clone(&subscriptions)),
            events: EventSender::new(),
            subscriptions,
            features: FeatureCache::default(),
            secondaries,
            reconnects: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            handler_panics: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            reader_paused: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            close_requested: Notify::new(),
            queued_calls: Mutex::new(None),
            runtime: Handle::current(),
            read_limit,
        });
        if queue_calls {
            let inbox = inner.new_call_inbox();
            *inner.queued_calls.lock() = Some(Receiver::new(inbox.clone()));
            inner.demux.start_serving(inbox);
        }
        (inner, receiver)
    }

    /// Returns the name of the next secondary client.
    pub(crate) fn next_secondary_name(&self) -> String {
        let number = self.secondaries.fetch_add(1, Ordering::Relaxed);
        let primary = elbus_protocol::name::primary_of(&self.name);
        format!("{primary}{SECONDARY_SEPARATOR}{number}")
    }

    /// Returns a new queue with the client's limit and overflow policy.
    pub(crate) fn new_inbox(&self) -> Arc<Inbox> {
        Inbox::new(self.settings.queue_bytes, self.settings.overflow, self.read_limit.clone())
    }

    /// Returns a new queue for calls. It drops none, because their callers would wait for a reply.
    fn new_call_inbox(&self) -> Arc<Inbox> {
        Inbox::new(self.settings.queue_bytes, Overflow::Block, self.read_limit.clone())
    }

    /// Returns the queue of calls, which from now on receives them.
    pub(crate) fn start_serving(&self) -> Result<Receiver, Error> {
        let queued = self.queued_calls.lock().take();
        if let Some(receiver) = queued {
            return Ok(receiver);
        }
        let inbox = self.new_call_inbox();
        let receiver = Receiver::new(inbox.clone());
        if self.demux.start_serving(inbox) { Ok(receiver) } else { Err(Error::AlreadyServing) }
    }

    pub(crate) fn reconnects(&self) -> bool {
        self.settings.reconnect != Reconnect::Off && !self.is_closing()
    }

    /// Ends the client once its queue is written. Returns at once.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.close_requested.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits for [`close`](Self::close).
    pub(super) async fn close_requested(&self) {
        while !self.is_closing() {
            self.close_requested.notified().await;
        }
    }
}
