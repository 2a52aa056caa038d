//! The recipients of a publication or a broadcast: resolved once, and cached by senders until something
//! changes.

use elbus_plugin_api::Code;
use smallvec::SmallVec;
use std::{
    hash::{BuildHasher, Hasher},
    sync::{Arc, Weak},
};

use super::{optioned::OptionedRecipients, registered_client::RegisteredClient};
use crate::hooks::AppliedHooks;

/// Recipients, held weakly: an idle sender keeps no departed client alive, nor its socket.
pub(super) struct Recipients {
    members: SmallVec<[Weak<RegisteredClient>; 2]>,
    /// What few targets have, apart, so that the others stay small.
    extras: Option<Box<Extras>>,
    /// Why nobody gets anything, else [`Code::Ok`].
    refusal: Code,
}

#[derive(Default)]
struct Extras {
    hooks: AppliedHooks,
    /// The recipients by subscriptions with options, if there are any.
    optioned: Option<OptionedRecipients>,
}

impl Recipients {
    /// No recipients: what is sent there is answered with this code.
    pub(super) fn refused(refusal: Code) -> Self {
        Recipients { members: SmallVec::new(), extras: None, refusal }
    }

    /// No recipients, because the sender may not send there.
    pub(super) fn denied() -> Self {
        Recipients::refused(Code::AccessDenied)
    }

    /// Returns whether what is sent there is refused.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        self.refusal != Code::Ok
    }

    /// Returns the answer to what is sent there, if it is refused.
    #[inline]
    pub(super) fn refusal(&self) -> Code {
        self.refusal
    }

    /// Adds the recipients by subscriptions with options.
    pub(super) fn with_optioned(mut self, optioned: Option<OptionedRecipients>) -> Self {
        if optioned.is_some() {
            self.extras.get_or_insert_default().optioned = optioned;
        }
        self
    }

    /// Returns the recipients by subscriptions with options, if there are any.
    #[inline]
    pub(super) fn optioned(&self) -> Option<&OptionedRecipients> {
        self.extras.as_ref()?.optioned.as_ref()
    }

    /// Converts them into the recipients by subscriptions with options, if there are any.
    pub(super) fn into_optioned(self) -> Option<OptionedRecipients> {
        self.extras.and_then(|extras| extras.optioned)
    }

    pub(super) fn new<'m>(members: impl Iterator<Item = &'m Arc<RegisteredClient>>) -> Self {
        let mut weak = SmallVec::new();
        members.for_each(|member| weak.push(Arc::downgrade(member)));
        if weak.spilled() {
            weak.shrink_to_fit();
        }
        Recipients { members: weak, extras: None, refusal: Code::Ok }
    }

    /// Returns whether both are the same clients in the same order.
    #[inline]
    pub(super) fn has_same_members(&self, other: &Recipients) -> bool {
        self.refusal == other.refusal
            && (self.extras.is_none() && other.extras.is_none() || self.has_same_extras(other))
            && self.members.len() == other.members.len()
            && self.members.iter().zip(&other.members).all(|(one, other)| one.ptr_eq(other))
    }

    #[cold]
    fn has_same_extras(&self, other: &Recipients) -> bool {
        let has_same_optioned = match (self.optioned(), other.optioned()) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        has_same_optioned && self.hooks() == other.hooks()
    }

    /// Returns a hash of the clients and their order.
    pub(super) fn hash(&self, hashing: &impl BuildHasher) -> u64 {
        let mut hasher = hashing.build_hasher();
        self.members.iter().for_each(|member| hasher.write_usize(member.as_ptr().addr()));
        if let Some(optioned) = self.optioned() {
            optioned.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns the hooks that apply to what is sent to them.
    #[inline]
    pub(super) fn hooks(&self) -> AppliedHooks {
        self.extras.as_ref().map_or_else(AppliedHooks::default, |extras| extras.hooks)
    }

    /// Sets the hooks that apply to what is sent to them.
    pub(super) fn set_hooks(&mut self, hooks: AppliedHooks) {
        if !hooks.is_empty() {
            self.extras.get_or_insert_default().hooks = hooks;
        }
    }

    /// Returns all recipients, registered or not.
    pub(super) fn members(&self) -> &[Weak<RegisteredClient>] {
        &self.members
    }

    /// Returns their memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let members = if self.members.spilled() { size_of_val(self.members.as_slice()) } else { 0 };
        members
            + self.extras.as_ref().map_or(0, |extras| {
                size_of::<Extras>() + extras.optioned.as_ref().map_or(0, |optioned| optioned.bytes())
            })
    }

    /// Returns the recipients that are still registered.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<RegisteredClient>> {
        self.members.iter().filter_map(Weak::upgrade).filter(|member| !member.is_gone())
    }
}
