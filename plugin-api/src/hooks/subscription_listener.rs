//! Subscription listeners: what clients subscribe to, and deliveries to a client as a part of its
//! subscription.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RSlice, RStr},
};

use crate::{
    abi::{IntoRaw, ReplayObject},
    buffer::Payload,
    notifier::Notifier,
};

/// Learns what clients subscribe to. A function will do.
///
/// Called in the thread of the client that subscribes, after its filters have changed and before it gets its
/// acknowledgement, so it must not block: a listener passes its work to a thread of its own. The order of
/// changes of one client is the order of the calls.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{hooks::{Replay, SubscriptionChange, SubscriptionEvent}, testing::FakeHost};
/// use std::sync::mpsc;
///
/// let (sender, subscribed) = mpsc::channel();
/// let fake = FakeHost::new();
/// let _hook = fake.host("demo").add_subscription_listener(
///     move |change: &SubscriptionChange<'_>, _: Option<Replay>| {
///         if change.event() == Some(SubscriptionEvent::Subscribed) {
///             change.filters().for_each(|filter| _ = sender.send(filter.to_owned()));
///         }
///     },
/// )?;
/// fake.subscribe("panel", &["sensors/#"]);
/// assert_eq!(subscribed.try_recv().as_deref(), Ok("sensors/#"));
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub trait SubscriptionListener: Send + Sync + 'static {
    /// Handles a change. `replay` delivers to the client as a part of what it has subscribed to; it exists
    /// for [`SubscriptionEvent::Subscribed`] only, and only if the filters share publications with nobody.
    /// Dropping it ends it.
    fn on_change(&self, change: &SubscriptionChange<'_>, replay: Option<Replay>);
}

impl<F: Fn(&SubscriptionChange<'_>, Option<Replay>) + Send + Sync + 'static> SubscriptionListener for F {
    fn on_change(&self, change: &SubscriptionChange<'_>, replay: Option<Replay>) {
        self(change, replay);
    }
}

/// What a client has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum SubscriptionEvent {
    /// It has subscribed to filters that it did not have.
    Subscribed = 1,
    /// It has unsubscribed from filters.
    Unsubscribed = 2,
    /// It has excluded filters.
    Excluded = 3,
    /// It has removed exclusions.
    Unexcluded = 4,
    /// It has left, and its subscriptions have ended. Can be reported twice, if a change was reported
    /// meanwhile.
    Left = 5,
    /// It had subscribed to filters before the watcher was added, see
    /// [`Host::add_subscription_watcher`](crate::Host::add_subscription_watcher).
    Existing = 6,
}

impl SubscriptionEvent {
    const ALL: [SubscriptionEvent; 6] = [
        SubscriptionEvent::Subscribed,
        SubscriptionEvent::Unsubscribed,
        SubscriptionEvent::Excluded,
        SubscriptionEvent::Unexcluded,
        SubscriptionEvent::Left,
        SubscriptionEvent::Existing,
    ];
}

/// A change of the subscriptions of a client.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct SubscriptionChange<'a> {
    event: u32,
    flags: u32,
    client: RStr<'a>,
    client_id: u64,
    filters: RSlice<'a, RStr<'a>>,
}

impl<'a> SubscriptionChange<'a> {
    /// Creates a change.
    pub(crate) fn new(
        event: SubscriptionEvent,
        client: &'a str,
        client_id: u64,
        filters: &'a [RStr<'a>],
    ) -> Self {
        let client = RStr::from_str(client);
        SubscriptionChange {
            event: event as u32,
            flags: 0,
            client,
            client_id,
            filters: RSlice::from_slice(filters),
        }
    }

    /// Returns what the client has done. `None` for an event that this side does not know.
    pub fn event(&self) -> Option<SubscriptionEvent> {
        SubscriptionEvent::ALL.into_iter().find(|event| *event as u32 == self.event)
    }

    /// Returns the full name of the client.
    pub fn client(&self) -> &'a str {
        self.client.as_str()
    }

    /// Returns the id of its registration.
    pub fn client_id(&self) -> u64 {
        self.client_id
    }

    /// Returns the filters that have changed: without their options for a listener, as the client has written
    /// them for a watcher. Empty if the client has left.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let filters = self.filters.as_slice();
        filters.iter().map(|filter| filter.as_str())
    }
}

/// Delivers earlier publications to a client as a part of its new subscription, once and in order with those
/// that are published meanwhile.
///
/// What keeps such publications is an [`Interceptor`](super::Interceptor) that *marks* them: it keeps a
/// publication with a mark ([`Host::next_mark`](crate::Host::next_mark)) and sets the mark in its run
/// ([`InterceptedRun::set_mark`](super::InterceptedRun::set_mark)). The broker compares marks: what the
/// client has already received live is skipped by [`send`](Replay::send), and what it has received by `send`
/// is not delivered again live. Therefore `send` the publication that is current when it is called, not a
/// copy from the time of the subscription.
///
/// # Threads
/// Any thread may use it; no method blocks.
pub struct Replay(ReplayObject);

/// What became of a publication that was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Replayed {
    /// It is queued for the client.
    Sent = 1,
    /// The client does not get it: it has received this one or a newer one live, had already been subscribed
    /// to the topic, or is not subscribed to it any more.
    Skipped = 2,
    /// It is not queued, since something is waiting in the queue of the client already: send it again, or
    /// the one that is current then, after [`when_ready`](Replay::when_ready).
    Wait = 3,
    /// The client has left, or the hook has ended.
    Ended = 4,
}

/// A publication to replay.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct EarlierPublication<'a> {
    flags: u32,
    sender: RStr<'a>,
    sender_id: u64,
    topic: RStr<'a>,
    payload: Payload<'a>,
    mark: u64,
}

impl<'a> EarlierPublication<'a> {
    /// Creates a publication by the client `sender` that was marked with `mark`.
    pub fn new(sender: &'a str, topic: &'a str, payload: &'a [u8], mark: u64) -> Self {
        EarlierPublication {
            flags: 0,
            sender: RStr::from_str(sender),
            sender_id: 0,
            topic: RStr::from_str(topic),
            payload: Payload::from(payload),
            mark,
        }
    }

    /// Returns the name of the sender.
    pub fn sender(&self) -> &'a str {
        self.sender.as_str()
    }

    /// Returns the topic.
    pub fn topic(&self) -> &'a str {
        self.topic.as_str()
    }

    /// Returns the payload.
    pub fn payload(&self) -> Payload<'a> {
        self.payload
    }

    /// Returns the mark.
    pub fn mark(&self) -> u64 {
        self.mark
    }
}

impl Replay {
    pub(crate) fn new(object: ReplayObject) -> Self {
        Replay(object)
    }

    /// Queues an earlier publication for the client, unless its queue has something already.
    pub fn send(&self, publication: &EarlierPublication<'_>) -> Replayed {
        match self.0.send(publication) {
            1 => Replayed::Sent,
            2 => Replayed::Skipped,
            3 => Replayed::Wait,
            _ => Replayed::Ended,
        }
    }

    /// Has the client's transport send what was queued. Call it after a series of [`send`](Replay::send).
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Calls `notifier` once when the queue of the client is empty, or the client has left.
    pub fn when_ready(&self, notifier: Notifier) {
        self.0.when_ready(notifier.into_raw());
    }
}

pub(crate) fn replay_of(object: ROption<ReplayObject>) -> Option<Replay> {
    match object {
        ROption::RSome(object) => Some(Replay::new(object)),
        ROption::RNone => None,
    }
}
