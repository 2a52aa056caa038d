//! The router: the registry behind its lock, and everything that changes it or asks it.
//!
//! Lock order: a change of access rules, the registry, then the event queue or the policy of a client. No
//! sink, notifier or listener is called while any of them is held.

mod system_senders;

use elbus_plugin_api::{ClientInfo, Code, EventKind, Locality, WARNINGS_TOPIC, abi::SinkObject};
use elbus_protocol::name::{check_name, is_secondary};
use std::{sync::Arc, time::Instant};

use system_senders::SystemSenders;

use super::{
    Hashing,
    cache_memory::SharedCacheMemory,
    holds::Holds,
    recipients::Recipients,
    registered_client::{Counts, RegisteredClient, Totals},
    registry::{FilterSet, Registry},
    router_settings::RouterSettings,
    totals_cache::TotalsCache,
};
use crate::{
    access::{Access, PolicySnapshot},
    client_origin::{ClientOrigin, StringInterner},
    events::Events,
    sync::{
        RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Registers and removes clients, and resolves recipients.
pub(crate) struct Router {
    pub(crate) access: Access,
    pub(super) words: StringInterner,
    /// Makes numbers of identities.
    pub(super) identities: Hashing,
    /// Held to copy them only.
    settings: RwLock<RouterSettings>,
    /// [`RouterSettings::max_topic_bytes`], read for every run.
    max_topic_bytes: AtomicUsize,
    pub(super) registry: RwLock<Registry>,
    pub(super) system: SystemSenders,
    /// Memory of the caches of all senders.
    pub(super) cache_memory: Arc<SharedCacheMemory>,
    /// Changed, under the registry's lock, whenever somebody new may match a mask.
    names_epoch: AtomicU64,
    /// Changed, under the registry's lock, whenever a subscription or exclusion changes.
    pub(super) topics_epoch: AtomicU64,
    departed: Counts,
    totals: TotalsCache,
    refused_frames: AtomicU64,
    pub(crate) holds: Arc<Holds>,
    pub(crate) events: Events,
}

/// Recipients, and the epoch they were right in.
pub(crate) struct Resolved {
    pub(super) epoch: u64,
    pub(super) recipients: Arc<Recipients>,
}

impl Resolved {
    /// Those who are still there.
    pub(crate) fn recipients(&self) -> Vec<Arc<RegisteredClient>> {
        self.recipients.iter().collect()
    }

    /// Nobody, as the sender may not send there. Right in any epoch: when rules change, senders forget what
    /// they remember.
    pub(super) fn denied(epoch: u64) -> Self {
        Resolved { epoch, recipients: Arc::new(Recipients::denied()) }
    }
}

impl Router {
    pub(crate) fn new(settings: RouterSettings) -> Arc<Self> {
        Arc::new(Router {
            access: Access::default(),
            words: StringInterner::default(),
            identities: Hashing::default(),
            settings: RwLock::new(settings),
            max_topic_bytes: AtomicUsize::new(settings.max_topic_bytes),
            registry: RwLock::default(),
            system: SystemSenders::default(),
            cache_memory: Arc::default(),
            names_epoch: AtomicU64::new(1),
            topics_epoch: AtomicU64::new(1),
            departed: Counts::default(),
            totals: TotalsCache::default(),
            refused_frames: AtomicU64::new(0),
            holds: Arc::default(),
            events: Events::default(),
        })
    }

    pub(super) fn settings(&self) -> RouterSettings {
        *self.settings.read()
    }

    /// Sets other limits for what comes from now on.
    pub(crate) fn set_settings(&self, settings: RouterSettings) {
        *self.settings.write() = settings;
        self.max_topic_bytes.store(settings.max_topic_bytes, Ordering::Relaxed);
    }

    /// The longest target, mask, topic or receiver that is routed, in bytes.
    #[inline]
    pub(super) fn max_topic_bytes(&self) -> usize {
        self.max_topic_bytes.load(Ordering::Relaxed)
    }

    /// Registers a client (protocol section 2), until its [`Sender`](super::sender::Sender) is dropped.
    pub(crate) fn register(
        &self,
        name: &str,
        info: ClientInfo,
        owner: u32,
        sink: SinkObject,
    ) -> Result<Arc<RegisteredClient>, Code> {
        if let Err(error) = check_name(name)
            && !(info.internal && is_part(name))
        {
            return Err(error.code());
        }
        let limit = self.settings().max_name_bytes;
        if name.len() > limit {
            tracing::debug!(bytes = name.len(), limit, "name refused: longer than max_name_bytes");
            return Err(Code::BadData);
        }
        let name: Arc<str> = name.into();
        let origin = ClientOrigin::new(info, &self.words);
        let policy = self.access.admit(&name, &origin).map_err(|refusal| refusal.code)?;
        let limits = policy.as_ref().map(|policy| policy.sink_limits());
        let member = Arc::new(RegisteredClient::new(name.clone(), origin, owner, sink, policy));
        if let Some(limits) = limits {
            member.limit(&limits);
        }
        let name = &*name;
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        if self.settings().force_register
            && !is_secondary(name)
            && let Some(old) = registry.find(name).filter(|old| !old.origin.internal).cloned()
        {
            self.remove(&mut registry, &old, "replaced by a newer client of the same name", &mut evicted);
        }
        if let Some(refusal) = registry.stranger_to_primary(&member) {
            drop(registry);
            self.access.note_refusal(name, &member.origin, &refusal);
            return Err(Code::AccessDenied);
        }
        registry.add(member.clone())?;
        if !member.origin.internal {
            if member.origin.locality != Locality::InProcess {
                // No cached route is wrong for it: topics of the broker itself are never cached.
                let warnings = std::iter::once((0, WARNINGS_TOPIC));
                _ = registry.change(&member, FilterSet::Subscriptions, true, warnings, |_| ());
            }
            if !is_secondary(name) {
                self.events.enqueue(EventKind::ClientRegistered, name, &member.origin.kind);
            }
        }
        self.names_epoch.fetch_add(1, Ordering::Release);
        drop(registry);
        while !member.is_gone() && !self.has_current_policy(&member) {
            // they were replaced meanwhile, perhaps before it could be seen by who did
            self.reauthorize(&member);
        }
        self.close_all(&evicted);
        tracing::debug!(
            client = name,
            kind = &*member.origin.kind,
            source = member.origin.source,
            "registered"
        );
        self.events.dispatch();
        Ok(member)
    }

    /// Unregisters a client, if it still is.
    pub(super) fn leave(&self, member: &Arc<RegisteredClient>, why: &str) {
        if member.system.is_some() {
            return self.system.end(|other| other.id == member.id);
        }
        let mut evicted = vec![];
        if !member.is_gone() {
            self.remove(&mut self.registry.write(), member, why, &mut evicted);
        }
        member.drained();
        // its own connection is ending already
        evicted.retain(|(other, _)| !Arc::ptr_eq(other, member));
        self.close_all(&evicted);
        self.events.dispatch();
    }

    /// Unregisters the client of this name and ends its connection; `false` where there is none, or it is a
    /// part of the broker.
    pub(crate) fn evict(&self, name: &str, why: &str) -> bool {
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        let found = registry.find(name).filter(|member| !member.origin.internal).cloned();
        if let Some(member) = &found {
            self.remove(&mut registry, member, why, &mut evicted);
        }
        drop(registry);
        self.close_all(&evicted);
        self.events.dispatch();
        found.is_some()
    }

    /// Unregisters all clients of an instance and ends their connections.
    pub(crate) fn evict_owner(&self, owner: u32, why: &str) {
        self.system.end(|member| member.owner == owner);
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        let members: Vec<_> = registry.all().filter(|member| member.owner == owner).cloned().collect();
        for member in &members {
            self.remove(&mut registry, member, why, &mut evicted);
        }
        drop(registry);
        self.close_all(&evicted);
        self.events.dispatch();
    }

    /// Removes a client, and its secondaries where it is a primary. Those to be closed once the lock is
    /// released are added to `evicted`.
    pub(super) fn remove(
        &self,
        registry: &mut Registry,
        member: &Arc<RegisteredClient>,
        why: &str,
        evicted: &mut Vec<(Arc<RegisteredClient>, String)>,
    ) {
        if !registry.remove(member) {
            return;
        }
        self.departed.add(member.counts.totals());
        tracing::debug!(client = &*member.name, why, "left");
        evicted.push((member.clone(), why.to_owned()));
        if is_secondary(&member.name) || member.origin.internal {
            return;
        }
        self.events.enqueue(EventKind::ClientLeft, &member.name, why);
        let secondaries: Vec<_> = registry.secondaries(&member.name).cloned().collect();
        for secondary in secondaries {
            let why = format!("its primary client {} left", member.name);
            self.remove(registry, &secondary, &why, evicted);
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<RegisteredClient>> {
        self.registry.read().find(name).cloned()
    }

    /// The name of a client by its [number](RegisteredClient::id). Looks at all of them.
    pub(crate) fn client_by_number(&self, number: u64) -> Option<String> {
        let registry = self.registry.read();
        registry.all().find(|member| member.id == number).map(|member| member.name.to_string())
    }

    pub(super) fn names_epoch(&self) -> u64 {
        self.names_epoch.load(Ordering::Acquire)
    }

    pub(super) fn topics_epoch(&self) -> u64 {
        self.topics_epoch.load(Ordering::Acquire)
    }

    /// Those whose name matches the mask; under access rules without those secondaries whose primary is not
    /// allowed, though the mask is.
    pub(crate) fn resolve_mask(&self, access: Option<&PolicySnapshot>, mask: &str) -> Resolved {
        let registry = self.registry.read();
        let epoch = self.names_epoch();
        let matching = registry.matching(mask);
        // another wildcard, or none, matches a secondary only together with its primary, or names the primary
        let Some(access) = access.filter(|_| mask.contains('?')) else {
            return Resolved { epoch, recipients: Arc::new(Recipients::new(matching.into_iter())) };
        };
        let mut matching: Vec<_> = matching.into_iter().cloned().collect();
        drop(registry); // the check can take a while
        matching.retain(|member| access.allows_broadcast_to(&member.name));
        Resolved { epoch, recipients: Arc::new(Recipients::new(matching.iter())) }
    }

    pub(crate) fn resolve_topic(&self, topic: &str) -> Resolved {
        let registry = self.registry.read();
        let epoch = self.topics_epoch();
        Resolved { epoch, recipients: Arc::new(registry.subscribed(topic)) }
    }

    /// Counts frames that a full queue did not take.
    pub(super) fn count_refused(&self, frames: usize) {
        self.refused_frames.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// How many clients are registered, secondaries included, parts of the broker itself not.
    pub(crate) fn client_count(&self) -> usize {
        self.registry.read().client_count()
    }

    /// How many clients a publication to the topic would be given to.
    pub(crate) fn subscriber_count(&self, topic: &str) -> usize {
        self.resolve_topic(topic).recipients.iter().count()
    }

    pub(crate) fn refused_frames(&self) -> u64 {
        self.refused_frames.load(Ordering::Relaxed)
    }

    /// All frames and bytes since the start, departed clients included; of many clients, up to 0.1 s old.
    pub(crate) fn totals(&self) -> Totals {
        self.totals.get(Instant::now(), || {
            let registry = self.registry.read();
            let mut totals = self.departed.totals();
            registry.all().for_each(|member| totals += member.counts.totals());
            (totals, registry.client_count())
        })
    }

    /// The names of the secondaries of a client, the first `limit` of them.
    pub(crate) fn secondaries(&self, primary: &str, limit: usize) -> Vec<String> {
        let registry = self.registry.read();
        registry.secondaries(primary).take(limit).map(|member| member.name.to_string()).collect()
    }

    /// Every primary client with the number of its instances, in order of names.
    pub(crate) fn primaries(&self) -> Vec<(Arc<RegisteredClient>, usize)> {
        let registry = self.registry.read();
        registry
            .all()
            .filter(|member| !is_secondary(&member.name))
            .map(|member| (member.clone(), 1 + registry.secondaries(&member.name).count()))
            .collect()
    }

    /// Ends the connections of those who were removed. To be called when the lock of the registry is
    /// released.
    pub(super) fn close_all(&self, evicted: &[(Arc<RegisteredClient>, String)]) {
        for (member, why) in evicted {
            member.close(why);
            member.drained();
        }
        // many filters are removed in steps, so that others get the registry between them
        while self.registry.write().clear_departed() {}
    }
}

/// Whether a part of the broker may have this name: `.WORD`. Names with a second dot are those by which
/// access rules know system senders.
fn is_part(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| !rest.contains('.'))
}
