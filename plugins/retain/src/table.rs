//! The limits of the topics of one `[[plugin.config.topic]]`, and what counts against them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::settings::{StoreKind, TopicSettings};

/// A table of the configuration. Counters are changed by any thread.
pub(crate) struct Table {
    pub(crate) settings: TopicSettings,
    topics: AtomicUsize,
    /// Of topics, senders and payloads. Clients choose all of them, so a limit of topics alone would not
    /// limit memory.
    bytes: AtomicUsize,
    refused: AtomicU64,
    is_reported: AtomicBool,
}

impl Table {
    pub(crate) fn new(settings: TopicSettings) -> Self {
        Table {
            settings,
            topics: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            is_reported: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        self.settings.store == StoreKind::Disk
    }

    pub(crate) fn topics(&self) -> usize {
        self.topics.load(Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns the number of values that were not kept.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts another topic with its bytes. Returns `false` and counts nothing beyond a limit.
    pub(crate) fn add(&self, bytes: usize) -> bool {
        if self.topics.fetch_add(1, Relaxed) >= self.settings.max_topics {
            self.topics.fetch_sub(1, Relaxed);
            return false;
        }
        let fits = self.resize(0, bytes);
        if !fits {
            self.topics.fetch_sub(1, Relaxed);
        }
        fits
    }

    /// Counts a value that has replaced another one. Returns `false` and counts nothing beyond the limit.
    pub(crate) fn resize(&self, from: usize, to: usize) -> bool {
        // most values are as long as the ones before, and all publishers share the counter
        if to == from {
            return true;
        }
        if to < from {
            self.bytes.fetch_sub(from - to, Relaxed);
            return true;
        }
        let more = to - from;
        let before = self.bytes.fetch_add(more, Relaxed);
        let fits = before.saturating_add(more) <= self.settings.max_bytes;
        if !fits {
            self.bytes.fetch_sub(more, Relaxed);
        }
        fits
    }

    /// Counts a topic less.
    pub(crate) fn remove(&self, bytes: usize) {
        self.topics.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Counts a value that was not kept. The first one is logged.
    pub(crate) fn refuse(&self, topic: &str, bytes: usize) {
        self.refused.fetch_add(1, Relaxed);
        if !self.is_reported.swap(true, Relaxed) {
            let TopicSettings { filter, max_topics, max_bytes, .. } = &self.settings;
            tracing::warn!(
                topic,
                bytes,
                filter,
                topics = self.topics(),
                max_topics,
                kept_bytes = self.bytes(),
                max_bytes,
                "value not kept: limit reached (max_topics, max_bytes); further ones are only counted"
            );
        }
    }
}
