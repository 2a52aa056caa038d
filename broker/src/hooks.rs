//! The hooks that plugins have registered: interceptors and observers, in the order in which they apply, and
//! [`resolvers`].
//!
//! Owns the list and its limits. Senders work on a [`HookTable`], a copy that never changes; they get another
//! one when the epoch of access changes. Calls nothing of a plugin while a lock is held.

mod resolvers;
mod table;

use elbus_plugin_api::{
    abi::{InterceptorObject, ObserverQueue, ReplayObject, SubscriptionListenerObject},
    hooks::{HookScope, MAX_HOOKS, OnFailure, SubscriptionChange},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    callbacks::{self, Callback, owner_name},
    statistics::InstanceStatistics,
    sync::{Mutex, RwLock},
};
pub(crate) use resolvers::Resolvers;
use table::ObserverEntry;
pub(crate) use table::{AppliedHooks, HookTable, InterceptorEntry, InterceptorResult};

/// Removed instances that are remembered; a failure is handled long before as many others are removed.
const MAX_RETIRED: usize = 1024;

/// The instance that registers hooks, and what its declaration says about them.
#[derive(Clone, Default)]
pub(crate) struct HookOwner {
    pub(crate) owner: u32,
    pub(crate) instance: Arc<str>,
    pub(crate) priority: i32,
    /// Overrides what the plugin declares.
    pub(crate) on_failure: Option<OnFailure>,
    pub(crate) statistics: Arc<InstanceStatistics>,
}

/// All hooks of a broker.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Lock order: this, then `table`, `listener` or `watchers`.
    registered: Mutex<Registered>,
    /// `None` if there are no hooks.
    table: RwLock<Option<Arc<HookTable>>>,
    /// A leaf lock.
    listener: RwLock<Option<RegisteredListener>>,
    /// A leaf lock.
    watchers: RwLock<Vec<RegisteredListener>>,
}

/// The subscription listener, the only one, since marks of two could not be told apart; or a watcher.
#[derive(Clone)]
pub(crate) struct RegisteredListener {
    id: u64,
    owner: u32,
    statistics: Arc<InstanceStatistics>,
    object: Arc<SubscriptionListenerObject>,
}

impl RegisteredListener {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Has it learn a change.
    pub(crate) fn on_change(&self, change: &SubscriptionChange<'_>, replay: Option<ReplayObject>) {
        let call = || self.object.on_change(change, replay.into());
        self.statistics.on_change.time(|| callbacks::for_client(self.owner, Callback::OnChange, call));
    }
}

#[derive(Default)]
struct Registered {
    last_id: u64,
    /// The owner numbers of instances that serve, by name.
    serving: HashMap<Arc<str>, u32>,
    /// The last owner numbers of instances whose declarations were removed.
    retired: BTreeSet<u32>,
    /// By priority, those after others last, then by the name of the instance, then in the order in which
    /// they were added.
    interceptors: Vec<RegisteredInterceptor>,
    observers: Vec<RegisteredObserver>,
}

struct RegisteredInterceptor {
    id: u64,
    of: HookOwner,
    scope: Arc<HookScope>,
    closed: bool,
    /// `None` once the instance has stopped or failed.
    object: Option<Arc<InterceptorObject>>,
}

struct RegisteredObserver {
    id: u64,
    of: HookOwner,
    scope: Arc<HookScope>,
    queue: ObserverQueue,
}

impl RegisteredObserver {
    /// Adds what it has missed to the counters of its instance; returns its queue.
    fn end(self) -> ObserverQueue {
        self.of.statistics.missed.fetch_add(self.queue.missed_in_total(), Relaxed);
        self.queue
    }
}

/// What was removed. Dropped by the caller, since that runs code of plugins.
#[derive(Default)]
pub(crate) struct RemovedHooks {
    objects: Vec<Arc<InterceptorObject>>,
    queues: Vec<ObserverQueue>,
    listeners: Vec<RegisteredListener>,
    /// Interceptors whose messages are rejected from now on, and those whose messages pass.
    pub(crate) closed: usize,
    pub(crate) open: usize,
}

impl RemovedHooks {
    /// Returns whether anything has changed.
    pub(crate) fn any(&self) -> bool {
        !self.objects.is_empty() || !self.queues.is_empty()
    }
}

impl Drop for RemovedHooks {
    fn drop(&mut self) {
        self.queues.iter().for_each(ObserverQueue::end);
    }
}

impl Registered {
    /// Of interceptors without an object, keeps one for each instance and scope: one that fails whenever it
    /// is restarted leaves no more each time.
    fn forget_repeated(&mut self) {
        let mut kept: Vec<(Arc<str>, Arc<HookScope>)> = Vec::new();
        self.interceptors.retain(|hook| {
            let known = |(instance, scope): &(Arc<str>, Arc<HookScope>)| {
                *instance == hook.of.instance && *scope == hook.scope
            };
            let repeated = hook.object.is_none() && kept.iter().any(known);
            if hook.object.is_none() && !repeated {
                kept.push((hook.of.instance.clone(), hook.scope.clone()));
            }
            !repeated
        });
    }
}

impl Hooks {
    /// Returns the hooks as they are now; `None` if there are none.
    pub(crate) fn table(&self) -> Option<Arc<HookTable>> {
        self.table.read().clone()
    }

    /// Adds an interceptor; returns its id.
    ///
    /// # Errors
    /// There are [`MAX_HOOKS`] already.
    pub(crate) fn add_interceptor(
        &self,
        of: HookOwner,
        scope: HookScope,
        declared: OnFailure,
        object: InterceptorObject,
    ) -> Result<u64, String> {
        let mut registered = self.registered.lock();
        if registered.interceptors.len() >= MAX_HOOKS {
            return Err(format!("the broker has {MAX_HOOKS} interceptors already, which is the limit"));
        }
        registered.last_id += 1;
        let id = registered.last_id;
        let closed = of.on_failure.unwrap_or(declared) == OnFailure::Closed;
        let (scope, object) = (Arc::new(scope), Some(Arc::new(object)));
        registered.interceptors.push(RegisteredInterceptor { id, of, scope, closed, object });
        registered.interceptors.sort_by(|one, other| {
            let order = |hook: &RegisteredInterceptor| (hook.of.priority, hook.scope.is_after_others());
            order(one).cmp(&order(other)).then_with(|| one.of.instance.cmp(&other.of.instance))
        });
        self.publish(&registered);
        Ok(id)
    }

    /// Adds an observer; returns its id.
    ///
    /// # Errors
    /// There are [`MAX_HOOKS`] already.
    pub(crate) fn add_observer(
        &self,
        of: HookOwner,
        scope: HookScope,
        queue: ObserverQueue,
    ) -> Result<u64, String> {
        let mut registered = self.registered.lock();
        if registered.observers.len() >= MAX_HOOKS {
            return Err(format!("the broker has {MAX_HOOKS} observers already, which is the limit"));
        }
        registered.last_id += 1;
        let id = registered.last_id;
        registered.observers.push(RegisteredObserver { id, of, scope: Arc::new(scope), queue });
        self.publish(&registered);
        Ok(id)
    }

    /// Returns how many messages the observers of each instance have missed that observe now.
    pub(crate) fn missed(&self) -> Vec<(Arc<InstanceStatistics>, u64)> {
        let registered = self.registered.lock();
        let missed = |hook: &RegisteredObserver| (hook.of.statistics.clone(), hook.queue.missed_in_total());
        registered.observers.iter().map(missed).collect()
    }

    /// Returns the subscription listener, if there is one.
    pub(crate) fn listener(&self) -> Option<RegisteredListener> {
        self.listener.read().clone()
    }

    /// Returns whether there is a subscription listener.
    #[inline]
    pub(crate) fn has_listener(&self) -> bool {
        self.listener.read().is_some()
    }

    /// Adds the subscription listener; returns its id.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn add_listener(
        &self,
        of: HookOwner,
        object: SubscriptionListenerObject,
    ) -> Result<u64, String> {
        let mut registered = self.registered.lock();
        let mut listener = self.listener.write();
        if let Some(other) = &*listener {
            let other = owner_name(other.owner);
            return Err(format!(
                "plugin {other} is the subscription listener, of which a broker has one: remove one of the two \
                 plugins, or merge their tables"
            ));
        }
        registered.last_id += 1;
        let id = registered.last_id;
        let HookOwner { owner, statistics, .. } = of;
        *listener = Some(RegisteredListener { id, owner, statistics, object: Arc::new(object) });
        Ok(id)
    }

    /// Returns the subscription watchers.
    pub(crate) fn watchers(&self) -> Vec<RegisteredListener> {
        self.watchers.read().clone()
    }

    /// Adds a subscription watcher.
    ///
    /// # Errors
    /// There are [`MAX_HOOKS`] already.
    pub(crate) fn add_watcher(
        &self,
        of: HookOwner,
        object: SubscriptionListenerObject,
    ) -> Result<RegisteredListener, String> {
        let mut registered = self.registered.lock();
        let mut watchers = self.watchers.write();
        if watchers.len() >= MAX_HOOKS {
            return Err(format!(
                "the broker has {MAX_HOOKS} subscription watchers already, which is the limit"
            ));
        }
        registered.last_id += 1;
        let HookOwner { owner, statistics, .. } = of;
        let id = registered.last_id;
        let watcher = RegisteredListener { id, owner, statistics, object: Arc::new(object) };
        watchers.push(watcher.clone());
        Ok(watcher)
    }

    /// Removes one hook, as its plugin wishes.
    pub(crate) fn remove(&self, id: u64) -> RemovedHooks {
        let mut removed = RemovedHooks::default();
        let mut registered = self.registered.lock();
        let interceptors = registered.interceptors.extract_if(.., |hook| hook.id == id);
        removed.objects.extend(interceptors.filter_map(|hook| hook.object));
        let observers = registered.observers.extract_if(.., |hook| hook.id == id);
        removed.queues.extend(observers.map(RegisteredObserver::end));
        removed.listeners.extend(self.listener.write().take_if(|listener| listener.id == id));
        removed.listeners.extend(self.watchers.write().extract_if(.., |watcher| watcher.id == id));
        self.publish(&registered);
        removed
    }

    /// Removes one observer, as its plugin wishes.
    pub(crate) fn remove_observer(&self, id: u64) -> RemovedHooks {
        let mut removed = RemovedHooks::default();
        let mut registered = self.registered.lock();
        let observers = registered.observers.extract_if(.., |hook| hook.id == id);
        removed.queues.extend(observers.map(RegisteredObserver::end));
        self.publish(&registered);
        removed
    }

    /// Removes the hooks of an instance that has stopped or failed. Of its interceptors, those that fail
    /// closed stay without their object: what they would have checked is rejected.
    pub(crate) fn remove_owner(&self, owner: u32) -> RemovedHooks {
        let mut removed = RemovedHooks::default();
        let mut registered = self.registered.lock();
        for hook in registered.interceptors.iter_mut().filter(|hook| hook.of.owner == owner) {
            if let Some(object) = hook.object.take() {
                removed.objects.push(object);
                *(if hook.closed { &mut removed.closed } else { &mut removed.open }) += 1;
            }
        }
        registered.serving.retain(|_, serving| *serving != owner);
        let Registered { interceptors, serving, retired, .. } = &mut *registered;
        // a failed instance can be removed after its replacement serves, or after its declaration was removed
        let is_replaced = |of: &HookOwner| serving.contains_key(&of.instance) || retired.contains(&of.owner);
        interceptors.retain(|hook| hook.of.owner != owner || hook.closed && !is_replaced(&hook.of));
        registered.forget_repeated();
        removed.listeners.extend(self.listener.write().take_if(|listener| listener.owner == owner));
        removed.listeners.extend(self.watchers.write().extract_if(.., |watcher| watcher.owner == owner));
        let observers = registered.observers.extract_if(.., |hook| hook.of.owner == owner);
        removed.queues.extend(observers.map(RegisteredObserver::end));
        self.publish(&registered);
        removed
    }

    /// Records that an instance serves: the interceptors of its previous creations are removed, also those of
    /// one that has failed and is not removed yet. Returns whether there were any.
    pub(crate) fn serve(&self, instance: &str, owner: u32) -> bool {
        let is_previous = |of: &HookOwner| &*of.instance == instance && of.owner != owner;
        let mut registered = self.registered.lock();
        registered.serving.insert(instance.into(), owner);
        let previous = registered.interceptors.extract_if(.., |hook| is_previous(&hook.of));
        let previous: Vec<_> = previous.collect();
        if !previous.is_empty() {
            self.publish(&registered);
        }
        // what is dropped runs code of the plugin: outside the lock
        drop(registered);
        !previous.is_empty()
    }

    /// Records that the declaration of an instance was removed: it leaves nothing that rejects. Returns
    /// whether there was anything.
    pub(crate) fn retire(&self, owner: u32) -> bool {
        {
            let mut registered = self.registered.lock();
            registered.retired.insert(owner);
            if registered.retired.len() > MAX_RETIRED {
                registered.retired.pop_first();
            }
        }
        self.reopen(|of| of.owner == owner)
    }

    /// Removes closed interceptors without an object for which `ends` returns `true`; returns whether there
    /// were any.
    pub(crate) fn reopen(&self, ends: impl Fn(&HookOwner) -> bool) -> bool {
        let mut registered = self.registered.lock();
        let before = registered.interceptors.len();
        registered.interceptors.retain(|hook| hook.object.is_some() || !ends(&hook.of));
        let changed = registered.interceptors.len() != before;
        if changed {
            self.publish(&registered);
        }
        changed
    }

    fn publish(&self, registered: &Registered) {
        let interceptors = registered.interceptors.iter().map(|hook| InterceptorEntry {
            owner: hook.of.owner,
            instance: hook.of.instance.clone(),
            statistics: hook.of.statistics.clone(),
            scope: hook.scope.clone(),
            closed: hook.closed,
            object: hook.object.as_ref().map(Arc::downgrade).unwrap_or_default(),
        });
        let observers = registered
            .observers
            .iter()
            .map(|hook| ObserverEntry { scope: hook.scope.clone(), queue: hook.queue.clone() });
        let table = HookTable::new(interceptors.collect(), observers.collect());
        *self.table.write() = table.map(Arc::new);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
