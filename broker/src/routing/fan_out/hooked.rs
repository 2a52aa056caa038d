//! Runs that hooks apply to: which hooks do, as the caches of the sender have it, and whether the sender is
//! held before they are intercepted.

use elbus_plugin_api::{Op, Request};

use super::{FanOut, Scope, allows_message};
use crate::{
    access::PolicySnapshot,
    hooks::{AppliedHooks, HookTable},
    routing::router::Router,
};
use std::sync::Arc;

/// The hooks on the way to a target.
pub(in crate::routing) enum Route {
    /// There are none.
    Free,
    /// Access rules deny the operation; observers see that.
    Denied(AppliedHooks),
    Hooked(AppliedHooks),
}

impl FanOut {
    /// Finds the hooks that apply to an operation on a target.
    pub(in crate::routing) fn find_hooks(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        table: &HookTable,
        op: Op,
        target: &str,
    ) -> Route {
        let (applied, is_denied) = match op {
            Op::Message => self.message_hooks(router, access, table, target),
            Op::Broadcast => {
                let recipients = self.mask_recipients(router, access, target);
                (recipients.hooks(), recipients.is_refused())
            }
            _ => {
                let recipients = self.topic_recipients(router, access, target);
                (recipients.hooks(), recipients.is_refused())
            }
        };
        if is_denied {
            let AppliedHooks { observers, .. } = table.applied(op, target);
            Route::Denied(AppliedHooks { interceptors: 0, observers })
        } else if applied.is_empty() {
            Route::Free
        } else {
            Route::Hooked(applied)
        }
    }

    /// Finds the hooks of messages to a client, and whether access rules deny them.
    fn message_hooks(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        table: &HookTable,
        target: &str,
    ) -> (AppliedHooks, bool) {
        if let Some(applied) = self.targets.hooks_of(target) {
            return (applied, false);
        }
        let applied = table.applied(Op::Message, target);
        if access.is_some_and(|access| !allows_message(access, target)) {
            return (applied, true);
        }
        // a client that is not registered is not cached
        self.targets.get(target, |name| router.find(name));
        self.targets.set_hooks(target, applied);
        (applied, false)
    }

    /// Returns whether a full recipient holds the sender of a request. If none does, the request does not
    /// block any more, so that it can be intercepted and then routed in parts.
    pub(in crate::routing) fn is_held(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        op: Op,
        request: &Request<'_>,
        body_bytes: usize,
    ) -> bool {
        if self.may_block && router.holds.any() {
            let target = request.target();
            if op == Op::Message {
                let peer = self.targets.get(target, |name| router.find(name));
                if let Some(peer) = peer.filter(|peer| peer.is_full())
                    && self.is_held_by(&router.holds, &peer, body_bytes)
                {
                    self.block(&peer);
                }
            } else {
                let recipients = match op {
                    Op::Broadcast => self.mask_recipients(router, access, target),
                    _ => self.topic_recipients(router, access, target),
                };
                self.block_on_full(router, &recipients, Scope::of(op, request), target, body_bytes);
            }
        }
        self.may_block = false;
        self.blocked
    }

    /// Returns whether interceptors apply to frames of a mixed run. Such frames are dispatched alone.
    #[inline]
    pub(super) fn is_intercepted(&self, op: Op, target: &str) -> bool {
        self.hooks.as_ref().is_some_and(|table| table.applied(op, target).interceptors != 0)
    }
}
