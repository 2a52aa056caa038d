//! The cached recipients of the topics or masks of a sender. Does not resolve them.

use std::{collections::HashMap, sync::Arc};

use super::{
    Hashing, cache_memory::CacheMemory, index::text_table::TextTable, recipients::Recipients,
    router::Resolved,
};

/// The longest topic or mask that is cached, in bytes.
const MAX_TARGET_BYTES: usize = 1024;
/// Routes that are visited to determine whether a sender has other receivers.
const RECENT_ROUTES: usize = 16;
/// More targets than this are not in the processor's cache.
const MANY_TARGETS: usize = 32 * 1024;
/// Memory of a route beside its recipients, in bytes.
const ROUTE_BYTES: usize = 128;

/// Recipients by topic or mask, all of one epoch. Of targets to which the sender may not send, only the last
/// is cached.
///
/// If there is no memory for another target, the cached ones stay: more targets than fit, used in turn, would
/// otherwise replace each other before they are used again. All are removed when twice as many lookups have
/// missed.
#[derive(Default)]
pub(super) struct RouteCache {
    epoch: u64,
    /// Changes whenever routes are removed.
    generation: u64,
    last_target: String,
    last: Option<Arc<Recipients>>,
    /// Indices in `routes`.
    targets: TextTable,
    /// Each set of recipients, once.
    routes: Vec<Arc<Recipients>>,
    /// Indices in `routes`, by the hash of their recipients.
    by_recipients: HashMap<u64, u32, Hashing>,
    /// Their memory in bytes.
    bytes: usize,
    /// Targets for which there was no memory.
    not_cached: usize,
    /// Some routes of the previous epoch, so that a change does not hide the recipients of a sender.
    previous: Vec<Arc<Recipients>>,
}

impl RouteCache {
    /// Returns the recipients, cached or from `resolve`.
    #[inline]
    pub(super) fn get(
        &mut self,
        epoch: u64,
        target: &str,
        memory: &mut CacheMemory,
        resolve: impl FnOnce() -> Resolved,
    ) -> Arc<Recipients> {
        if let Some(last) = &self.last
            && self.epoch == epoch
            && self.last_target == target
        {
            return last.clone();
        }
        self.look_up(epoch, target, memory, resolve)
    }

    #[cold]
    fn look_up(
        &mut self,
        epoch: u64,
        target: &str,
        memory: &mut CacheMemory,
        resolve: impl FnOnce() -> Resolved,
    ) -> Arc<Recipients> {
        let recipients = match self.cached(epoch, target.as_bytes()) {
            Some((_, recipients)) => recipients.clone(),
            None => {
                let (index, recipients) = self.add(target, memory, resolve());
                if index.is_none() && target.len() > MAX_TARGET_BYTES {
                    return recipients;
                }
                recipients
            }
        };
        self.last_target.clear();
        self.last_target.push_str(target);
        self.last = Some(recipients.clone());
        recipients
    }

    /// Returns the index of the cached route of a target.
    #[inline(always)]
    pub(super) fn index_of(&self, epoch: u64, target: &[u8]) -> Option<u32> {
        if self.epoch == epoch { self.targets.get(target) } else { None }
    }

    /// Reads what looking up these targets will read, if they are so many that it is not in the processor's
    /// cache.
    #[inline]
    pub(super) fn read_ahead<'t>(&self, targets: impl Iterator<Item = &'t [u8]>) {
        if self.targets.len() > MANY_TARGETS {
            self.targets.read_ahead(targets);
        }
    }

    /// Returns the cached route of a target: its index and its recipients.
    pub(super) fn cached(&self, epoch: u64, target: &[u8]) -> Option<(u32, &Arc<Recipients>)> {
        let index = self.index_of(epoch, target)?;
        Some((index, self.routes.get(index as usize)?))
    }

    /// Returns a number that changes whenever routes are removed: until then, indices stay valid.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Caches the recipients of a target, if there is memory. If the epoch has changed, all other routes are
    /// removed. Returns the index of the route, and the recipients, which other targets may share.
    pub(super) fn add(
        &mut self,
        target: &str,
        memory: &mut CacheMemory,
        resolved: Resolved,
    ) -> (Option<u32>, Arc<Recipients>) {
        if resolved.epoch != self.epoch {
            self.clear(memory);
            self.last = None;
            self.epoch = resolved.epoch;
        }
        let recipients = resolved.recipients;
        if recipients.is_refused() || target.len() > MAX_TARGET_BYTES {
            return (None, recipients);
        }
        let hash = recipients.hash(self.by_recipients.hasher());
        let known = self.by_recipients.get(&hash).copied();
        let same = known.filter(|index| {
            let route = self.routes.get(*index as usize);
            route.is_some_and(|route| route.has_same_members(&recipients))
        });
        let route_bytes = if same.is_some() { 0 } else { ROUTE_BYTES + recipients.bytes() };
        let bytes = TextTable::bytes_of(target.len()) + route_bytes;
        if !memory.try_take(bytes) {
            self.not_cached += 1;
            if self.not_cached > 2 * self.targets.len() {
                self.clear(memory);
            }
            return (None, recipients);
        }
        self.bytes += bytes;
        let index = same.unwrap_or_else(|| {
            let index = self.routes.len() as u32;
            self.routes.push(recipients.clone());
            self.by_recipients.insert(hash, index);
            index
        });
        if !self.targets.set(target.as_bytes(), index) {
            let bytes = TextTable::bytes_of(target.len());
            self.bytes -= bytes;
            memory.give_back(bytes);
        }
        let shared = self.routes.get(index as usize).cloned();
        (Some(index), shared.unwrap_or(recipients))
    }

    /// Removes all routes. Some are kept as those of the previous epoch.
    pub(super) fn clear(&mut self, memory: &mut CacheMemory) {
        if !self.routes.is_empty() {
            self.routes.truncate(RECENT_ROUTES);
            self.previous = std::mem::take(&mut self.routes);
        }
        self.generation += 1;
        self.targets = TextTable::default();
        self.by_recipients = HashMap::default();
        memory.give_back(std::mem::take(&mut self.bytes));
        self.not_cached = 0;
    }

    /// Returns some of the routes that were used recently.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Arc<Recipients>> {
        self.last.iter().chain(self.routes.iter().rev().take(RECENT_ROUTES)).chain(&self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(epoch: u64) -> Resolved {
        Resolved { epoch, recipients: Arc::new(Recipients::new(std::iter::empty())) }
    }

    fn memory() -> CacheMemory {
        CacheMemory::new(Arc::default())
    }

    /// Looks up a target. Returns whether it had to be resolved.
    fn asks(routes: &mut RouteCache, memory: &mut CacheMemory, epoch: u64, target: &str) -> bool {
        let mut asked = false;
        routes.get(epoch, target, memory, || {
            asked = true;
            resolved(epoch)
        });
        asked
    }

    #[test]
    fn cached_topics_are_resolved_once() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        for turn in 0..3 {
            for number in 0..20_000 {
                let topic = format!("topic/{number}");
                assert_eq!(asks(&mut routes, &mut memory, 1, &topic), turn == 0, "{topic}");
            }
        }
        assert!(asks(&mut routes, &mut memory, 2, "topic/1"), "another epoch");
        assert!(routes.bytes < 1000, "the routes of the other epoch are removed");
    }

    #[test]
    fn topics_with_the_same_recipients_share_them() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        let one = routes.get(1, "one", &mut memory, || resolved(1));
        let denied = routes.get(1, "denied", &mut memory, || Resolved::denied(1));
        let after = routes.get(1, "after", &mut memory, || resolved(1));
        assert!(Arc::ptr_eq(&one, &after) && denied.is_refused() && !after.is_refused());
        assert_eq!((routes.routes.len(), routes.targets.len()), (1, 2));
    }

    #[test]
    fn topics_in_turn_for_which_there_is_no_memory_leave_the_others() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        let topic = |number: u32| format!("{number}/{}", "x".repeat(1000));
        let count = |routes: &mut RouteCache, memory: &mut CacheMemory, topics: std::ops::Range<u32>| {
            topics.filter(|number| asks(routes, memory, 1, &topic(*number))).count()
        };
        assert_eq!(count(&mut routes, &mut memory, 0..10_000), 10_000);
        let cached = routes.targets.len();
        assert!((2000..10_000).contains(&cached) && routes.bytes <= 16 << 20, "limited in bytes: {cached}");
        assert_eq!(count(&mut routes, &mut memory, 0..10_000), 10_000 - cached);
        // other targets replace them in the end
        (0..30).for_each(|_| _ = count(&mut routes, &mut memory, 20_000..21_000));
        assert_eq!(count(&mut routes, &mut memory, 20_000..21_000), 0);
    }

    #[test]
    fn a_long_topic_is_not_cached() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        let long = "x".repeat(MAX_TARGET_BYTES + 1);
        for _ in 0..2 {
            assert!(asks(&mut routes, &mut memory, 1, &long), "too long to be cached");
        }
        assert!(routes.last_target.capacity() <= 2 * MAX_TARGET_BYTES);
        assert!(asks(&mut routes, &mut memory, 1, "t") && !asks(&mut routes, &mut memory, 1, "t"));
        assert!(asks(&mut routes, &mut memory, 2, &long) && asks(&mut routes, &mut memory, 2, "t"));
    }

    #[test]
    fn only_the_last_denied_target_is_cached() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        for number in 0..100 {
            for turn in 0..2 {
                let mut asked = false;
                let denied = routes.get(1, &number.to_string(), &mut memory, || {
                    asked = true;
                    Resolved::denied(1)
                });
                assert!(denied.is_refused() && asked == (turn == 0));
            }
        }
        assert_eq!((routes.targets.len(), routes.bytes), (0, 0));
    }

    #[test]
    fn denials_are_not_cached_beyond_their_epoch() {
        let (mut routes, mut memory) = (RouteCache::default(), memory());
        assert!(routes.get(1, "t", &mut memory, || Resolved::denied(1)).is_refused());
        assert!(!routes.get(2, "t", &mut memory, || resolved(2)).is_refused());
    }
}
