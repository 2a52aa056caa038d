//! A registered client: its name, its origin, its sink and its counters.

mod awaited;
pub(super) mod blocked_senders;

use abi_stable::std_types::RStr;
use elbus_plugin_api::{
    DeliveryStatus, MixedRun, Overdraft, Queued, Run, SinkLimits,
    abi::{NotifierObject, SinkObject},
    config::Overflow,
    inproc::RunBatch,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use super::client_keys::ClientKeys;
use crate::{
    access::PolicySnapshot,
    callbacks::{self, Callback},
    client_origin::ClientOrigin,
    statistics::{Counts, InstanceStatistics},
    sync::{Mutex, atomic::AtomicU8},
};
use blocked_senders::BlockedSenders;

/// [`RegisteredClient::state`]: it has been unregistered.
const GONE: u8 = 1;
/// [`RegisteredClient::state`]: its sink takes no mixed runs.
const NO_MIXED_RUNS: u8 = 16;
/// [`RegisteredClient::state`]: a plugin replays publications to it, or did so lately.
const REPLAYING: u8 = 32;
/// [`RegisteredClient::state`]: it has left, and was a member of groups.
const PARKED: u8 = 128;

/// A registered client. Exists while a sender may deliver to it; its name is free once
/// [`is_gone`](RegisteredClient::is_gone) returns `true`.
pub(crate) struct RegisteredClient {
    pub(crate) name: Arc<str>,
    /// The ID of this registration: unique in the process, never 0, never reused.
    pub(crate) id: u64,
    pub(crate) origin: ClientOrigin,
    /// Its keys in hold budgets.
    pub(super) keys: ClientKeys,
    /// The owner number of the instance that registered it.
    pub(crate) owner: u32,
    sink: SinkObject,
    pub(crate) counts: Counts,
    /// The counters of the instance that registered it; `None` in tests.
    pub(crate) statistics: Option<Arc<InstanceStatistics>>,
    /// The rights of a system sender; `None` for a client.
    pub(crate) system: Option<SystemRights>,
    /// Flags: [`GONE`], [`NO_MIXED_RUNS`], and those of [`blocked_senders`] and [`missed`](super::missed).
    pub(super) state: AtomicU8,
    /// How long senders have waited for it, in nanoseconds, until it has last drained.
    held_nanos: AtomicU64,
    /// Senders that wait for its queue to drain. A leaf lock, held briefly.
    pub(super) blocked: Mutex<BlockedSenders>,
    /// Frames that were dropped because its hold budget was spent for their sender.
    pub(crate) dropped: AtomicU64,
    /// Whether a refusal of its filters was logged.
    filters_refused: AtomicBool,
    /// Whether its overflow policy is to keep the newest values.
    keeps_newest: AtomicBool,
    /// The access rules that apply to it; `None` if there are none. A leaf lock, held briefly.
    policy: Mutex<Option<Arc<PolicySnapshot>>>,
}

/// The rights of a system sender beyond those that rules grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SystemRights {
    pub(crate) admin: bool,
}

/// The ID of the last registration. Not one of `sync`: no order depends on it.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl RegisteredClient {
    pub(crate) fn new(
        name: Arc<str>,
        origin: ClientOrigin,
        owner: u32,
        sink: SinkObject,
        policy: Option<Arc<PolicySnapshot>>,
    ) -> Self {
        RegisteredClient {
            keys: ClientKeys::of(&name, &origin),
            name,
            id: LAST_ID.fetch_add(1, Relaxed) + 1,
            origin,
            owner,
            sink,
            counts: Counts::default(),
            statistics: None,
            system: None,
            state: AtomicU8::new(0),
            held_nanos: AtomicU64::new(0),
            blocked: Mutex::default(),
            dropped: AtomicU64::new(0),
            filters_refused: AtomicBool::new(false),
            keeps_newest: AtomicBool::new(false),
            policy: Mutex::new(policy),
        }
    }

    /// Makes this the registration of a system sender with these rights.
    pub(super) fn with_system_rights(mut self, rights: SystemRights) -> Self {
        self.system = Some(rights);
        self
    }

    /// Sets the counters of the instance that registers it.
    pub(super) fn counted_in(mut self, statistics: Arc<InstanceStatistics>) -> Self {
        self.statistics = Some(statistics);
        self
    }

    /// Hands a run to its sink.
    #[inline]
    pub(super) fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        callbacks::for_client(self.owner, Callback::Deliver, || {
            DeliveryStatus::from_bits(self.sink.deliver(run))
        })
    }

    /// Hands a mixed run to its sink.
    #[inline]
    pub(super) fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> DeliveryStatus {
        callbacks::for_client(self.owner, Callback::DeliverMixed, || {
            DeliveryStatus::from_bits(self.sink.deliver_mixed(run))
        })
    }

    /// Ends the pause of a mixed run.
    #[inline]
    pub(super) fn resume_sending(&self) {
        callbacks::for_client(self.owner, Callback::ResumeSending, || self.sink.resume_sending());
    }

    /// Returns whether its sink takes mixed runs, as far as is known.
    #[inline]
    pub(super) fn takes_mixed_runs(&self) -> bool {
        self.state.load(Relaxed) & NO_MIXED_RUNS == 0
    }

    /// Records that its sink takes no mixed runs.
    #[cold]
    pub(super) fn set_takes_no_mixed_runs(&self) {
        self.state.fetch_or(NO_MIXED_RUNS, Relaxed);
    }

    /// Returns whether what it receives is delivered in turn with [replays](super::replays).
    #[inline]
    pub(super) fn is_replaying(&self) -> bool {
        self.state.load(Relaxed) & REPLAYING != 0
    }

    /// Sets whether it is.
    pub(super) fn set_replaying(&self, replaying: bool) {
        if replaying {
            self.state.fetch_or(REPLAYING, Relaxed);
        } else {
            self.state.fetch_and(!REPLAYING, Relaxed);
        }
    }

    /// Lets its sink send what was delivered.
    #[inline]
    pub(super) fn flush(&self) {
        callbacks::for_client(self.owner, Callback::Flush, || self.sink.flush());
    }

    /// Notifies when its sink has drained.
    pub(super) fn when_drained(&self, notifier: NotifierObject) {
        callbacks::for_client(self.owner, Callback::WhenDrained, || self.sink.when_drained(notifier));
    }

    /// Notifies when the queue of its sink is empty.
    pub(super) fn when_empty(&self, notifier: NotifierObject) {
        callbacks::for_client(self.owner, Callback::WhenEmpty, || self.sink.when_empty(notifier));
    }

    /// Lets its sink close, and takes the publications that it has not sent, if any is for a group.
    pub(super) fn take_unsent(&self, reason: &str, unsent: &mut RunBatch) {
        callbacks::for_client(self.owner, Callback::TakeUnsent, || {
            self.sink.take_unsent(RStr::from_str(reason), unsent);
        });
    }

    /// Marks that its filters stay in the registry until its unsent publications are given to others.
    pub(super) fn mark_parked(&self) {
        self.state.fetch_or(PARKED, Relaxed);
    }

    /// Takes the mark away; returns whether there was one.
    pub(super) fn unmark_parked(&self) -> bool {
        self.state.load(Relaxed) & PARKED != 0 && self.state.fetch_and(!PARKED, Relaxed) & PARKED != 0
    }

    /// Lets its sink close the connection.
    pub(super) fn close(&self, reason: &str) {
        callbacks::for_client(self.owner, Callback::Close, || self.sink.close(RStr::from_str(reason)));
    }

    /// Returns what its sink has queued.
    pub(crate) fn queued(&self) -> Queued {
        callbacks::for_client(self.owner, Callback::Queued, || self.sink.queued())
    }

    /// Sets the limits of its sink.
    pub(super) fn limit(&self, limits: &SinkLimits) {
        callbacks::for_client(self.owner, Callback::Limit, || self.sink.limit(limits));
    }

    /// Lets its sink queue more than its limit. Returns whether the sink supports it.
    pub(super) fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        callbacks::for_client(self.owner, Callback::Overdraw, || self.sink.overdraw(overdraft))
    }

    /// Returns the bytes of its sink's overdraft.
    pub(super) fn overdrawn(&self) -> u64 {
        callbacks::for_client(self.owner, Callback::Overdrawn, || self.sink.overdrawn())
    }

    /// Returns the access rules that apply to it.
    pub(crate) fn policy(&self) -> Option<Arc<PolicySnapshot>> {
        self.policy.lock().clone()
    }

    /// Replaces its policy.
    pub(super) fn set_policy(&self, policy: Option<Arc<PolicySnapshot>>) {
        let previous = std::mem::replace(&mut *self.policy.lock(), policy);
        if let Some(previous) = previous {
            previous.leave();
        }
    }

    /// Returns whether publications to it wait as the newest value of each topic.
    #[inline]
    pub(super) fn keeps_newest(&self) -> bool {
        self.keeps_newest.load(Relaxed)
    }

    /// Sets whether they do. Called only by the registry, under its lock.
    pub(super) fn set_keeps_newest(&self, keeps_newest: bool) {
        self.keeps_newest.store(keeps_newest, Relaxed);
    }

    /// Returns its overflow policy: that of the rules for its name, else that of its transport.
    pub(crate) fn overflow(&self) -> Overflow {
        self.policy().and_then(|policy| policy.overflow()).unwrap_or(self.origin.overflow)
    }

    /// Returns whether it has been unregistered.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Relaxed) & GONE != 0
    }

    /// Returns whether this is the first refusal of its filters; only the first is logged.
    pub(super) fn is_first_refusal(&self) -> bool {
        !self.filters_refused.swap(true, Relaxed)
    }

    /// Marks it unregistered. Called only by the registry, under its lock, and for system senders.
    pub(super) fn mark_gone(&self) {
        self.state.fetch_or(GONE, Relaxed);
        if let Some(policy) = &*self.policy.lock() {
            policy.leave();
        }
    }
}
