//! The subscriptions that topics were found to match, so that a topic is looked for once. Owns how much memory that takes:
//! topics are what others send.

use std::{collections::HashMap, sync::Arc};

use crate::receive::inbox::Inbox;

/// Topics that are remembered, at most.
const MAX_TOPICS: usize = 4096;
/// Memory that they may take, about, in bytes.
const MAX_BYTES: usize = 512 * 1024;
/// A longer topic is not remembered.
const MAX_TOPIC_BYTES: usize = 1024;
/// What one takes beside its text and its subscriptions.
const TOPIC_BYTES: usize = 96;

/// The inboxes of the subscriptions that match a topic.
pub(crate) type Inboxes = Arc<[Arc<Inbox>]>;

#[derive(Default)]
pub(crate) struct Topics {
    by_topic: HashMap<Box<str>, Inboxes, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Topics {
    pub(crate) fn get(&self, topic: &str) -> Option<Inboxes> {
        self.by_topic.get(topic).cloned()
    }

    pub(crate) fn remember(&mut self, topic: &str, inboxes: &Inboxes) {
        let bytes = TOPIC_BYTES + topic.len() + size_of_val(&**inboxes);
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

    fn remembers(topics: &mut Topics, topic: &str) -> bool {
        let known = topics.get(topic).is_some();
        if !known {
            topics.remember(topic, &Inboxes::from([]));
        }
        let held: usize = topics.by_topic.keys().map(|topic| topic.len()).sum();
        assert!(held <= topics.bytes && topics.bytes <= MAX_BYTES && topics.by_topic.len() <= MAX_TOPICS);
        known
    }

    #[test]
    fn as_many_topics_as_are_remembered_are_looked_for_once() {
        let mut topics = Topics::default();
        for turn in 0..3 {
            for number in 0..MAX_TOPICS {
                assert_eq!(remembers(&mut topics, &format!("topic/{number}")), turn > 0, "{number}");
            }
        }
    }

    #[test]
    fn what_is_remembered_is_limited_in_bytes() {
        let mut topics = Topics::default();
        for number in 0..3000 {
            assert!(!remembers(&mut topics, &format!("{number}/{}", "x".repeat(1000))));
        }
        let long = "x".repeat(MAX_TOPIC_BYTES + 1);
        assert!(!remembers(&mut topics, &long) && !remembers(&mut topics, &long), "too long");
    }
}
