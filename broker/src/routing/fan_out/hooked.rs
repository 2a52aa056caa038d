//! Runs and frames of mixed runs that hooks apply to: which hooks do, as the caches of the sender have it,
//! and whether the sender is held before they are intercepted.

use elbus_plugin_api::{Frame, Op, Request};

use super::{
    FanOut, Scope, allows_message,
    mixed::{MAX_BODY_BYTES, MAX_FRAMES, MAX_WORK, RESOLVING},
};
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
        self.forbid_blocking();
        self.blocked
    }

    /// Finds the first frames of a mixed run to which the same interceptors apply. Those that are intercepted
    /// have the same operation and quality of service, and none of their recipients is over its limit.
    pub(in crate::routing) fn find_leading(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        table: &HookTable,
        frames: &[Frame<'_>],
    ) -> Leading {
        let mut leading = Leading::default();
        let (mut kind, mut bytes) = (None, 0);
        for (index, frame) in frames.iter().take(MAX_FRAMES).enumerate() {
            bytes += frame.body().len();
            if index > 0 && bytes > MAX_BODY_BYTES {
                break;
            }
            if index == 0 || !frame.repeats() {
                let Some(interceptors) =
                    self.interceptors_of(router, access, table, frame, &mut leading.work)
                else {
                    break;
                };
                // what is not intercepted can be of any kind
                let of_frame = (interceptors, (interceptors != 0).then_some((frame.op(), frame.qos())));
                if *kind.get_or_insert(of_frame) != of_frame {
                    break;
                }
                leading.interceptors = interceptors;
            }
            leading.frames += 1;
            if leading.work >= MAX_WORK {
                break;
            }
        }
        leading
    }

    /// Finds the interceptors that apply to a frame of a mixed run. `None` if there are some and a recipient
    /// may hold the sender: [`is_held`](Self::is_held) decides about such a frame alone.
    fn interceptors_of(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        table: &HookTable,
        frame: &Frame<'_>,
        work: &mut u32,
    ) -> Option<u64> {
        let target = frame.target_bytes();
        if target.first() == Some(&b'.') || target.len() > router.max_topic_bytes() {
            return Some(0);
        }
        match frame.op() {
            Some(Op::Publish) => {
                let topics = self.topics.as_ref();
                let cached = topics.and_then(|topics| topics.cached(router.topics_epoch(), target));
                let resolved;
                let recipients = match cached {
                    Some((_, recipients)) => recipients,
                    None => {
                        *work += RESOLVING;
                        resolved = self.topic_recipients(router, access, frame.target());
                        &resolved
                    }
                };
                let interceptors = recipients.hooks().interceptors;
                if recipients.is_refused() || interceptors == 0 {
                    return Some(0);
                }
                let may_hold = router.holds.any()
                    && (recipients.optioned().is_some() || recipients.iter().any(|member| member.is_full()));
                (!may_hold).then_some(interceptors)
            }
            Some(Op::Message) => {
                let name = frame.target();
                let interceptors = table.applied(Op::Message, name).interceptors;
                if interceptors == 0 || access.is_some_and(|access| !allows_message(access, name)) {
                    return Some(0);
                }
                let may_hold = router.holds.any()
                    && self.targets.get(name, |name| router.find(name)).is_some_and(|peer| peer.is_full());
                (!may_hold).then_some(interceptors)
            }
            _ => Some(0),
        }
    }
}

/// The first frames of a mixed run.
#[derive(Default)]
pub(in crate::routing) struct Leading {
    /// How many they are. 0: the first one must be dispatched alone.
    pub(in crate::routing) frames: usize,
    /// The interceptors that apply to each of them.
    pub(in crate::routing) interceptors: u64,
    /// The work of finding them.
    pub(in crate::routing) work: u32,
}
