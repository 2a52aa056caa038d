//! Hooks that come and go: changes the list, and makes senders ask for it again. Decides about no message.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{ROption, RStr},
};
use elbus_plugin_api::{
    abi::{
        InterceptorObject, NotifierObject, ObservedRuns, ObserverObject, ObserverQueue, RawObserver,
        RawObserver_TO, RawReplay_TO, ReplayObject, SubscriptionListenerObject, subscription_change,
    },
    hooks::{HookScope, OnFailure, SubscriptionEvent},
};
use elbus_protocol::{
    request,
    subscription::{Sharing, Subscription},
};
use std::sync::{Arc, Weak};

use super::{
    filter_changes::FILTERS_PER_LOCK, marked::Marking, registered_client::RegisteredClient,
    replays::BegunReplay, router::Router,
};
use crate::{callbacks::owner_name, hooks::HookOwner, statistics::InstanceStatistics};

impl Router {
    /// Adds an interceptor; returns its id.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add_interceptor(
        &self,
        of: HookOwner,
        scope: HookScope,
        declared: OnFailure,
        object: InterceptorObject,
    ) -> Result<u64, String> {
        let id = self.hooks.add_interceptor(of, scope, declared, object)?;
        self.access.advance();
        Ok(id)
    }

    /// Adds an observer.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add_observer(
        self: &Arc<Self>,
        of: HookOwner,
        scope: HookScope,
        queue_bytes: usize,
    ) -> Result<ObserverObject, String> {
        let queue = ObserverQueue::for_scope(queue_bytes, &scope);
        let id = self.hooks.add_observer(of, scope, queue.clone())?;
        self.access.advance();
        let observer = RegisteredObserver { queue, id, router: Arc::downgrade(self) };
        Ok(RawObserver_TO::from_value(observer, TD_Opaque))
    }

    /// Adds the subscription listener; returns its id.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn add_subscription_listener(
        &self,
        of: HookOwner,
        listener: SubscriptionListenerObject,
    ) -> Result<u64, String> {
        self.hooks.add_listener(of, listener)
    }

    /// Adds a subscription watcher, and has it learn the subscriptions that there are; returns its id.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add_subscription_watcher(
        &self,
        of: HookOwner,
        watcher: SubscriptionListenerObject,
    ) -> Result<u64, String> {
        let watcher = self.hooks.add_watcher(of, watcher)?;
        let clients: Vec<_> = self.registry.read().all().cloned().collect();
        for client in clients {
            let (nodes, optioned) = {
                let registry = self.registry.read();
                (registry.subscription_nodes(&client), registry.optioned_texts(&client))
            };
            let report = |filters: &[RStr<'_>]| {
                let event = SubscriptionEvent::Existing;
                if !filters.is_empty() {
                    watcher.on_change(&subscription_change(event, &client.name, client.id, filters), None);
                }
            };
            for nodes in nodes.chunks(FILTERS_PER_LOCK) {
                // a node of a filter that has ended meanwhile is left out, or stands for another one of the
                // client
                let filters = self.registry.read().subscriptions_at(&client, nodes);
                let filters: Vec<RStr<'_>> = filters.iter().map(|filter| filter.as_str().into()).collect();
                report(&filters);
            }
            let filters: Vec<RStr<'_>> = optioned.iter().map(|filter| (&**filter).into()).collect();
            report(&filters);
        }
        Ok(watcher.id())
    }

    /// Returns how many messages the observers of each instance have missed that observe now.
    pub(crate) fn missed_by_observers(&self) -> Vec<(Arc<InstanceStatistics>, u64)> {
        self.hooks.missed()
    }

    /// Has replays wait until the result is dropped, if a plugin can replay what it keeps. Interceptors may
    /// mark publications from then on.
    pub(super) fn begin_marking(&self) -> Option<Marking<'_>> {
        self.hooks.has_listener().then(|| self.marked.begin())
    }

    /// Returns a mark greater than all before.
    pub(crate) fn next_mark(&self) -> u64 {
        self.marked.next_mark()
    }

    /// Has the subscription listener learn a change of a client's filters: of those of a request, the ones
    /// with these numbers. To be called without any lock.
    pub(super) fn report_change(
        &self,
        client: &Arc<RegisteredClient>,
        event: SubscriptionEvent,
        body: &str,
        changed: &[usize],
        replay: Option<ReplayObject>,
    ) {
        if changed.is_empty() {
            return;
        }
        self.report_to_all(client, event, body, changed, replay);
        // another thread can have reported in the meantime that it has left
        if client.is_gone() {
            self.report_left(client);
        }
    }

    fn report_to_all(
        &self,
        client: &RegisteredClient,
        event: SubscriptionEvent,
        body: &str,
        changed: &[usize],
        replay: Option<ReplayObject>,
    ) {
        let watchers = self.hooks.watchers();
        if !watchers.is_empty() {
            let filters: Vec<RStr<'_>> = changed_texts(body, changed).map(RStr::from).collect();
            let change = subscription_change(event, &client.name, client.id, &filters);
            watchers.iter().for_each(|watcher| watcher.on_change(&change, None));
        }
        let Some(listener) = self.hooks.listener() else { return };
        let texts = changed_texts(body, changed);
        let plain = |text| Subscription::parse(text).map_or(text, |parsed| parsed.filter);
        let filters: Vec<RStr<'_>> = texts.map(|text| plain(text).into()).collect();
        listener.on_change(&subscription_change(event, &client.name, client.id, &filters), replay);
    }

    /// Returns the replay for filters that were added, unless all of them share publications.
    pub(super) fn replay_of(
        self: &Arc<Self>,
        client: &Arc<RegisteredClient>,
        body: &str,
        added: &[usize],
        begun: BegunReplay,
    ) -> Option<ReplayObject> {
        let is_shared = |text| Subscription::parse(text).is_ok_and(|parsed| parsed.sharing != Sharing::None);
        if changed_texts(body, added).all(is_shared) {
            return None;
        }
        let new = self.registry.read().new_filters(client, body, added);
        Some(RawReplay_TO::from_value(self.replay(begun, new), TD_Opaque))
    }

    /// Has the subscription listener learn that a client has left, and frees its marks. To be called without
    /// any lock.
    pub(super) fn report_left(&self, client: &RegisteredClient) {
        if client.is_replaying() {
            self.replays.forget(client);
        }
        if client.origin.internal {
            return;
        }
        let change = subscription_change(SubscriptionEvent::Left, &client.name, client.id, &[]);
        for listener in self.hooks.watchers().iter().chain(&self.hooks.listener()) {
            listener.on_change(&change, None);
        }
    }

    /// Removes a hook as its plugin wishes.
    pub(crate) fn remove_hook(&self, id: u64) {
        self.remove_resolver(id);
        let removed = self.hooks.remove(id);
        if removed.any() {
            self.access.advance();
        }
    }

    /// Removes an observer. An interceptor with this id stays.
    pub(crate) fn remove_observer(&self, id: u64) {
        if self.hooks.remove_observer(id).any() {
            self.access.advance();
        }
    }

    /// Removes the hooks of an instance that has stopped or failed, see [the rules for
    /// hooks](elbus_plugin_api::hooks). `goes_on` is `false` when the broker stops: what happens to messages
    /// then is not logged.
    pub(crate) fn remove_hooks_of(&self, owner: u32, goes_on: bool) {
        self.remove_resolvers_of(owner);
        let removed = self.hooks.remove_owner(owner);
        if removed.any() {
            self.access.advance();
        }
        if goes_on && removed.closed > 0 {
            let (plugin, interceptors) = (owner_name(owner), removed.closed);
            tracing::warn!(
                plugin,
                interceptors,
                "plugin has ended; messages that it would intercept are rejected until it serves again"
            );
        }
        if goes_on && removed.open > 0 {
            let (plugin, interceptors) = (owner_name(owner), removed.open);
            tracing::warn!(plugin, interceptors, "plugin has ended; messages pass its interceptors");
        }
    }

    /// Records that an instance serves: its interceptors decide from now on, not that previous ones have
    /// ended.
    pub(crate) fn serve_hooks(&self, instance: &str, owner: u32) {
        if self.hooks.serve(instance, owner) {
            self.access.advance();
        }
    }

    /// Records that the declaration of an instance was removed: none of its interceptors rejects any more.
    pub(crate) fn retire_hooks(&self, owner: u32) {
        let is_changed = self.hooks.retire(owner);
        // one that fails at this moment has its hooks until another thread handles that
        let removed = self.hooks.remove_owner(owner);
        if is_changed || removed.any() {
            self.access.advance();
        }
    }

    /// Lets messages pass that are rejected because their interceptors have ended, for the owners for which
    /// `ends` returns `true`.
    pub(crate) fn reopen_hooks(&self, ends: impl Fn(&HookOwner) -> bool) {
        if self.hooks.reopen(ends) {
            self.access.advance();
        }
    }
}

/// Returns the filters of a request with these numbers.
fn changed_texts<'b>(body: &'b str, changed: &[usize]) -> impl Iterator<Item = &'b str> {
    let texts = request::filters(body).enumerate();
    texts.filter(|(number, _)| changed.binary_search(number).is_ok()).map(|(_, text)| text)
}

/// The reading end of an observer's queue. Dropping it ends the observation.
struct RegisteredObserver {
    queue: ObserverQueue,
    id: u64,
    router: Weak<Router>,
}

impl RawObserver for RegisteredObserver {
    fn receive(&self, into: &mut ObservedRuns, notifier: ROption<NotifierObject>) -> bool {
        self.queue.receive(into, notifier)
    }

    fn missed(&self) -> u64 {
        self.queue.missed_in_total()
    }

    fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for RegisteredObserver {
    fn drop(&mut self) {
        if let Some(router) = self.router.upgrade() {
            router.remove_hook(self.id);
        }
    }
}
