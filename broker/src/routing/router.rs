//! The router: the registry behind its lock, and the resolution of recipients.
//!
//! [`registration`] adds and removes clients, `filter_changes.rs` changes their subscriptions, and
//! [`statistics`] counts and lists them.
//!
//! Lock order: a change of access rules, the registry, then the event queue, the policy of a client, or the
//! names that are awaited. No sink, notifier or listener is called while any of them is held.

pub(crate) mod client_figures;
mod due_subscriptions;
pub(super) mod name_waits;
mod reclaiming;
mod registration;
mod statistics;
mod system_senders;

use elbus_plugin_api::{Code, Op};
use std::sync::Arc;

use system_senders::SystemSenders;

use super::{
    Hashing,
    cache_memory::SharedCacheMemory,
    holds::Holds,
    marked::MarkedPublications,
    optioned::{OptionedRecipients, Pacer},
    recipients::Recipients,
    registered_client::RegisteredClient,
    registry::Registry,
    replays::Replays,
    router_settings::RouterSettings,
    totals_cache::TotalsCache,
    waiting_names::WaitingNames,
};
use crate::{
    access::{Access, PolicySnapshot},
    client_origin::StringInterner,
    events::Events,
    hooks::{HookTable, Hooks, Resolvers},
    statistics::{Counts, CountsBy, Instances, Refusal, RegistrationRefusal},
    sync::{
        RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Registers and removes clients, and resolves recipients. Any thread may call it; it never blocks for I/O.
pub(crate) struct Router {
    pub(crate) access: Access,
    /// Senders copy them when the epoch of access changes.
    pub(crate) hooks: Hooks,
    pub(super) replays: Arc<Replays>,
    /// The last number that a kept publication was given.
    pub(super) marked: MarkedPublications,
    /// Asked about names that are not registered.
    pub(super) resolvers: Resolvers,
    /// Messages that wait for such names.
    waiting: WaitingNames,
    pub(super) words: StringInterner,
    /// Hashes identities to numbers.
    pub(super) identities: Hashing,
    /// Locked only to copy them.
    settings: RwLock<RouterSettings>,
    /// [`RouterSettings::max_topic_bytes`], read for every run.
    max_topic_bytes: AtomicUsize,
    pub(super) registry: RwLock<Registry>,
    pub(super) system: SystemSenders,
    /// Memory of the caches of all senders.
    pub(super) cache_memory: Arc<SharedCacheMemory>,
    /// Changes, under the registry's lock, when a new client may match a mask.
    names_epoch: AtomicU64,
    /// Changes, under the registry's lock, when a subscription or exclusion changes.
    pub(super) topics_epoch: AtomicU64,
    /// What departed clients have sent and received.
    departed: Counts,
    totals: TotalsCache,
    refused: CountsBy<Refusal>,
    refused_registrations: CountsBy<RegistrationRefusal>,
    /// Counters of each instance of a plugin.
    pub(crate) instances: Instances,
    pub(crate) holds: Arc<Holds>,
    /// When subscriptions with options are due.
    pub(crate) pacer: Arc<Pacer>,
    pub(crate) events: Events,
}

/// Recipients, and the epoch in which they were resolved.
pub(crate) struct Resolved {
    pub(super) epoch: u64,
    pub(super) recipients: Arc<Recipients>,
}

impl Resolved {
    /// Returns the recipients that are still registered.
    pub(crate) fn recipients(&self) -> Vec<Arc<RegisteredClient>> {
        self.recipients.iter().collect()
    }

    /// Adds the hooks that apply to the target.
    #[inline]
    pub(super) fn with_hooks(self, table: Option<&HookTable>, op: Op, target: &str) -> Self {
        match table {
            None => self,
            Some(table) => self.with_hooks_of(table, op, target),
        }
    }

    #[cold]
    fn with_hooks_of(mut self, table: &HookTable, op: Op, target: &str) -> Self {
        if let Some(recipients) = Arc::get_mut(&mut self.recipients) {
            recipients.set_hooks(table.applied(op, target));
        }
        self
    }

    /// Returns the recipients by subscriptions with options, if there are any.
    pub(crate) fn optioned(&self) -> Option<&OptionedRecipients> {
        self.recipients.optioned()
    }

    /// Returns no recipients: what is sent there is answered with this code.
    pub(super) fn refused(epoch: u64, code: Code) -> Self {
        Resolved { epoch, recipients: Arc::new(Recipients::refused(code)) }
    }

    /// Returns no recipients because the sender may not send there. Valid in any epoch: when rules change,
    /// senders clear their caches.
    pub(super) fn denied(epoch: u64) -> Self {
        Resolved { epoch, recipients: Arc::new(Recipients::denied()) }
    }
}

impl Router {
    pub(crate) fn new(settings: RouterSettings) -> Arc<Self> {
        let holds = Arc::<Holds>::default();
        let pacer = Arc::new(Pacer::new(holds.clone()));
        Arc::new(Router {
            access: Access::default(),
            hooks: Hooks::default(),
            replays: Replays::new(pacer.clone()),
            marked: MarkedPublications::default(),
            resolvers: Resolvers::default(),
            waiting: WaitingNames::default(),
            words: StringInterner::default(),
            identities: Hashing::default(),
            settings: RwLock::new(settings),
            max_topic_bytes: AtomicUsize::new(settings.max_topic_bytes),
            registry: RwLock::new(Registry::new(pacer.clone())),
            system: SystemSenders::default(),
            cache_memory: Arc::default(),
            names_epoch: AtomicU64::new(1),
            topics_epoch: AtomicU64::new(1),
            departed: Counts::default(),
            totals: TotalsCache::default(),
            refused: CountsBy::default(),
            refused_registrations: CountsBy::default(),
            instances: Instances::default(),
            holds,
            pacer,
            events: Events::default(),
        })
    }

    pub(super) fn settings(&self) -> RouterSettings {
        *self.settings.read()
    }

    /// Replaces the limits. They apply to further requests.
    pub(crate) fn set_settings(&self, settings: RouterSettings) {
        *self.settings.write() = settings;
        self.max_topic_bytes.store(settings.max_topic_bytes, Ordering::Relaxed);
    }

    /// Returns the length limit of targets, masks, topics and receivers, in bytes.
    #[inline]
    pub(super) fn max_topic_bytes(&self) -> usize {
        self.max_topic_bytes.load(Ordering::Relaxed)
    }

    /// Returns the client registered under this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<RegisteredClient>> {
        self.registry.read().find(name).cloned()
    }

    pub(super) fn names_epoch(&self) -> u64 {
        self.names_epoch.load(Ordering::Acquire)
    }

    pub(super) fn topics_epoch(&self) -> u64 {
        self.topics_epoch.load(Ordering::Acquire)
    }

    /// Resolves a mask to the clients whose names match it. Under access rules, secondaries are left out if a
    /// broadcast to their primary is not allowed.
    pub(crate) fn resolve_mask(&self, access: Option<&PolicySnapshot>, mask: &str) -> Resolved {
        let registry = self.registry.read();
        let epoch = self.names_epoch();
        let matching = registry.matching(mask);
        // another wildcard, or none, matches a secondary only together with its primary, or names the primary
        let Some(access) = access.filter(|_| mask.contains('?')) else {
            return Resolved { epoch, recipients: Arc::new(Recipients::new(matching.into_iter())) };
        };
        let mut matching: Vec<_> = matching.into_iter().cloned().collect();
        drop(registry); // the check can take long
        matching.retain(|member| access.allows_broadcast_to(&member.name));
        Resolved { epoch, recipients: Arc::new(Recipients::new(matching.iter())) }
    }

    /// Resolves a topic to its subscribers.
    pub(crate) fn resolve_topic(&self, topic: &str) -> Resolved {
        let registry = self.registry.read();
        let epoch = self.topics_epoch();
        Resolved { epoch, recipients: Arc::new(registry.subscribed(topic)) }
    }
}
