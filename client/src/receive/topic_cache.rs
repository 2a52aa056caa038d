//! Caches which subscriptions match a topic. Owns the limits of its memory: topics are chosen by other
//! clients.

use std::{collections::HashMap, sync::Arc};

use super::inbox::Inbox;

/// Limit of cached topics.
const MAX_TOPICS: usize = 4096;
/// Limit of the memory of the cache, approximately, in bytes.
const MAX_BYTES: usize = 512 * 1024;
/// Longer topics are not cached.
const MAX_TOPIC_BYTES: usize = 1024;
/// Memory of one entry without its text and inboxes, in bytes.
const ENTRY_BYTES: usize = 96;

/// The inboxes of the subscriptions that match a topic.
pub(crate) type Inboxes = Arc<[Arc<Inbox>]>;

#[derive(Default)]
pub(crate) struct TopicCache {
    by_topic: HashMap<Box<str>, Inboxes, foldhash::fast::RandomState>,
    bytes: usize,
}

impl TopicCache {
    pub(crate) fn get(&self, topic: &str) -> Option<Inboxes> {
        self.by_topic.get(topic).cloned()
    }

    /// Adds an entry, unless it is too large. A full cache is cleared first.
    pub(crate) fn insert(&mut self, topic: &str, inboxes: &Inboxes) {
        let bytes = ENTRY_BYTES + topic.len() + size_of_val(&**inboxes);
        if topic.len() > MAX_TOPIC_BYTES || bytes > MAX_BYTES {
            return;
        }
        if self.by_topic.len() >= MAX_TOPICS || self.bytes + bytes > MAX_BYTES {
            self.clear();
        }
        self.by_topic.insert(topic.into(), inboxes.clone());
        self.bytes += bytes;
    }

    pub(crate) fn clear(&mut self) {
        self.by_topic.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks up a topic and adds it on a miss. Returns whether it was a hit.
    fn look_up(cache: &mut TopicCache, topic: &str) -> bool {
        let hit = cache.get(topic).is_some();
        if !hit {
            cache.insert(topic, &Inboxes::from([]));
        }
        let bytes: usize = cache.by_topic.keys().map(|topic| topic.len()).sum();
        assert!(bytes <= cache.bytes && cache.bytes <= MAX_BYTES && cache.by_topic.len() <= MAX_TOPICS);
        hit
    }

    #[test]
    fn as_many_topics_as_the_limit_are_cached() {
        let mut cache = TopicCache::default();
        for round in 0..3 {
            for number in 0..MAX_TOPICS {
                assert_eq!(look_up(&mut cache, &format!("topic/{number}")), round > 0, "{number}");
            }
        }
    }

    #[test]
    fn the_cache_is_limited_in_bytes() {
        let mut cache = TopicCache::default();
        for number in 0..3000 {
            assert!(!look_up(&mut cache, &format!("{number}/{}", "x".repeat(1000))));
        }
        let long = "x".repeat(MAX_TOPIC_BYTES + 1);
        assert!(!look_up(&mut cache, &long) && !look_up(&mut cache, &long), "too long");
    }
}
