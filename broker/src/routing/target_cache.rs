//! The clients that a sender has most recently sent messages to, so that sending to a few in turn takes no
//! lock of the broker. Keeps no client alive; only the client itself knows whether it is still registered.

use std::sync::{Arc, Weak};

use super::registered_client::RegisteredClient;
use crate::hooks::AppliedHooks;

/// Capacity: a longer search would take longer than one in the registry.
const CAPACITY: usize = 8;

#[derive(Default)]
pub(super) struct TargetCache {
    known: Vec<CachedTarget>,
    /// The index of the client found last. The search begins here, so targets in turn are found at the second
    /// step.
    last: usize,
}

/// A client. Its name is stored separately: comparing it touches no reference count.
struct CachedTarget {
    name: Arc<str>,
    member: Weak<RegisteredClient>,
    /// The hooks that apply to messages to it, if a message was sent to it while the broker had hooks.
    hooks: Option<AppliedHooks>,
}

impl TargetCache {
    /// Returns the client of a name, cached or found by `find`.
    #[inline]
    pub(super) fn get(
        &mut self,
        name: &str,
        find: impl FnOnce(&str) -> Option<Arc<RegisteredClient>>,
    ) -> Option<Arc<RegisteredClient>> {
        let count = self.known.len();
        let mut at = self.last;
        for _ in 0..count {
            match self.known.get(at) {
                Some(known) if is_same(&known.name, name) => {
                    self.last = at;
                    match known.member.upgrade() {
                        Some(member) if !member.is_gone() => return Some(member),
                        _ => return self.find_again(name, find),
                    }
                }
                Some(_) => at += 1,
                None => at = 0,
            }
            if at == count {
                at = 0;
            }
        }
        self.remember(name, find)
    }

    /// Returns the hooks of a cached client.
    pub(super) fn hooks_of(&self, name: &str) -> Option<AppliedHooks> {
        self.position(name).and_then(|at| self.known.get(at)?.hooks)
    }

    /// Sets the hooks of a client, if it is cached.
    pub(super) fn set_hooks(&mut self, name: &str, hooks: AppliedHooks) {
        if let Some(known) = self.position(name).and_then(|at| self.known.get_mut(at)) {
            known.hooks = Some(hooks);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let is_known = |at: &usize| self.known.get(*at).is_some_and(|known| is_same(&known.name, name));
        Some(self.last).filter(is_known).or_else(|| (0..self.known.len()).find(is_known))
    }

    /// Returns the cached clients, registered or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        self.known.iter().map(|known| &known.member)
    }

    /// Looks up a name again: its client has left, and another one may have the name.
    #[cold]
    fn find_again(
        &mut self,
        name: &str,
        find: impl FnOnce(&str) -> Option<Arc<RegisteredClient>>,
    ) -> Option<Arc<RegisteredClient>> {
        self.known.swap_remove(self.last);
        self.last = 0;
        self.remember(name, find)
    }

    fn remember(
        &mut self,
        name: &str,
        find: impl FnOnce(&str) -> Option<Arc<RegisteredClient>>,
    ) -> Option<Arc<RegisteredClient>> {
        let member = find(name)?;
        let known = CachedTarget { name: member.name.clone(), member: Arc::downgrade(&member), hooks: None };
        if self.known.len() < CAPACITY {
            self.last = self.known.len();
            self.known.push(known);
        } else {
            // in turn: replaces the oldest
            self.last = (self.last + 1) % CAPACITY;
            self.known[self.last] = known;
        }
        Some(member)
    }
}

/// Returns whether two names are equal. Most names that differ do so at the end, which is compared first.
#[inline]
fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().last() == other.as_bytes().last() && one == other
}

#[cfg(test)]
mod tests;
