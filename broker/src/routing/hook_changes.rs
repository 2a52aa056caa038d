//! Hooks that come and go: changes the list, and makes senders ask for it again. Decides about no message.

use abi_stable::{sabi_trait::TD_Opaque, std_types::ROption};
use elbus_plugin_api::{
    abi::{
        InterceptorObject, NotifierObject, ObservedRuns, ObserverObject, ObserverQueue, RawObserver,
        RawObserver_TO,
    },
    hooks::{HookScope, OnFailure},
};
use std::sync::{Arc, Weak};

use super::router::Router;
use crate::{callbacks::owner_name, hooks::HookOwner};

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
        owner: u32,
        scope: HookScope,
        queue_bytes: usize,
    ) -> Result<ObserverObject, String> {
        let queue = ObserverQueue::new(queue_bytes);
        let id = self.hooks.add_observer(owner, scope, queue.clone())?;
        self.access.advance();
        let observer = RegisteredObserver { queue, id, router: Arc::downgrade(self) };
        Ok(RawObserver_TO::from_value(observer, TD_Opaque))
    }

    /// Removes a hook as its plugin wishes.
    pub(crate) fn remove_hook(&self, id: u64) {
        let removed = self.hooks.remove(id);
        if removed.any() {
            self.access.advance();
        }
    }

    /// Removes the hooks of an instance that has stopped or failed, see [the rules for
    /// hooks](elbus_plugin_api::hooks). `goes_on` is `false` when the broker stops: what happens to messages
    /// then is not logged.
    pub(crate) fn remove_hooks_of(&self, owner: u32, goes_on: bool) {
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

    /// Lets messages pass that are rejected because their interceptors have ended, for the owners for which
    /// `ends` returns `true`.
    pub(crate) fn reopen_hooks(&self, ends: impl Fn(&HookOwner) -> bool) {
        if self.hooks.reopen(ends) {
            self.access.advance();
        }
    }
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
