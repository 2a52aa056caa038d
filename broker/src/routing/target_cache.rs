//! The clients that a sender has last sent messages to, so that sending to a few in turn takes no lock of the
//! broker. Never keeps one alive, nor decides whether one is still registered but by what the client itself
//! says.

use std::sync::{Arc, Weak};

use super::registered_client::RegisteredClient;

/// Capacity: searching more would take longer than the registry.
const REMEMBERED: usize = 8;

#[derive(Default)]
pub(super) struct TargetCache {
    known: Vec<Known>,
    /// The one found last. Looking begins here, hence those in turn are found at the second look.
    last: usize,
}

/// A client, and its name apart, so that looking at the others touches no count of theirs.
struct Known {
    name: Arc<str>,
    member: Weak<RegisteredClient>,
}

impl TargetCache {
    /// The client of a name, remembered or found by `find`.
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

    /// Those that are remembered, registered or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        self.known.iter().map(|known| &known.member)
    }

    /// The one of the name has left. Who comes after it is another client.
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
        let known = Known { name: member.name.clone(), member: Arc::downgrade(&member) };
        if self.known.len() < REMEMBERED {
            self.last = self.known.len();
            self.known.push(known);
        } else {
            // in turn, so that the oldest goes
            self.last = (self.last + 1) % REMEMBERED;
            self.known[self.last] = known;
        }
        Some(member)
    }
}

/// Whether two names are the same. Most that differ do so at the end, which is compared first.
#[inline]
fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().last() == other.as_bytes().last() && one == other
}

#[cfg(test)]
mod tests;
