//! The recipients of a publication or a broadcast: resolved once, and cached by senders until something
//! changes.

use smallvec::SmallVec;
use std::{
    hash::{BuildHasher, Hasher},
    sync::{Arc, Weak},
};

use super::registered_client::RegisteredClient;
use crate::hooks::AppliedHooks;

/// Recipients, held weakly: an idle sender keeps no departed client alive, nor its socket.
pub(super) struct Recipients {
    members: SmallVec<[Weak<RegisteredClient>; 2]>,
    hooks: AppliedHooks,
    is_denied: bool,
}

impl Recipients {
    /// No recipients, because the sender may not send there.
    pub(super) fn denied() -> Self {
        Recipients { members: SmallVec::new(), hooks: AppliedHooks::default(), is_denied: true }
    }

    /// Whether the sender may not send there.
    #[inline]
    pub(super) fn is_denied(&self) -> bool {
        self.is_denied
    }

    pub(super) fn new<'m>(members: impl Iterator<Item = &'m Arc<RegisteredClient>>) -> Self {
        let mut weak = SmallVec::new();
        members.for_each(|member| weak.push(Arc::downgrade(member)));
        if weak.spilled() {
            weak.shrink_to_fit();
        }
        Recipients { members: weak, hooks: AppliedHooks::default(), is_denied: false }
    }

    /// Returns whether both are the same clients in the same order.
    #[inline]
    pub(super) fn has_same_members(&self, other: &Recipients) -> bool {
        (self.is_denied, self.hooks) == (other.is_denied, other.hooks)
            && self.members.len() == other.members.len()
            && self.members.iter().zip(&other.members).all(|(one, other)| one.ptr_eq(other))
    }

    /// Returns a hash of the clients and their order.
    pub(super) fn hash(&self, hashing: &impl BuildHasher) -> u64 {
        let mut hasher = hashing.build_hasher();
        self.members.iter().for_each(|member| hasher.write_usize(member.as_ptr().addr()));
        hasher.finish()
    }

    /// Returns the hooks that apply to what is sent to them.
    #[inline]
    pub(super) fn hooks(&self) -> AppliedHooks {
        self.hooks
    }

    /// Sets the hooks that apply to what is sent to them.
    pub(super) fn set_hooks(&mut self, hooks: AppliedHooks) {
        self.hooks = hooks;
    }

    /// Returns all recipients, registered or not.
    pub(super) fn members(&self) -> &[Weak<RegisteredClient>] {
        &self.members
    }

    /// Returns their memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        if self.members.spilled() { size_of_val(self.members.as_slice()) } else { 0 }
    }

    /// Returns the recipients that are still registered.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<RegisteredClient>> {
        self.members.iter().filter_map(Weak::upgrade).filter(|member| !member.is_gone())
    }
}
