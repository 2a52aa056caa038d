//! Finds the topics of a filter, some at a time: in each shard, from the part of the filter before its first
//! wildcard on.

use elbus_protocol::topic;
use std::{ops::Bound, sync::Arc};

use super::{SHARDS, Topics, Value, index_of};

/// Topics that are looked at under one lock.
pub(crate) const MAX_VISITS: usize = 512;

/// A topic filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    text: Box<str>,
    /// Length of the part before the first wildcard; `None` if there is no wildcard.
    prefix: Option<usize>,
}

impl Filter {
    pub(crate) fn new(text: &str) -> Self {
        let mut start = 0;
        for segment in text.split('/') {
            if segment == "+" || segment == "#" {
                return Filter { text: text.into(), prefix: Some(start) };
            }
            start += segment.len() + 1;
        }
        Filter { text: text.into(), prefix: None }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Where a walk continues.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    shard: usize,
    after: Option<Arc<str>>,
}

impl Cursor {
    /// Parses what [`to_string`](ToString::to_string) has returned.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (shard, after) = text.split_once(':')?;
        let after = after.strip_prefix('>').map(Arc::from);
        shard.parse().ok().map(|shard| Cursor { shard, after })
    }

    /// Returns whether it is behind `other` in a walk.
    pub(crate) fn is_behind(&self, other: &Cursor) -> bool {
        (self.shard, &self.after) > (other.shard, &other.after)
    }

    /// Returns whether there are no more topics.
    pub(crate) fn is_at_end(&self) -> bool {
        self.shard >= SHARDS
    }

    /// Continues after a topic.
    pub(crate) fn after(topic: &Arc<str>) -> Self {
        Cursor { shard: index_of(topic), after: Some(topic.clone()) }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.after {
            Some(topic) => write!(f, "{}:>{topic}", self.shard),
            None => write!(f, "{}:", self.shard),
        }
    }
}

/// A topic that was found, and its value.
pub(crate) type Found = (Arc<str>, Value);

impl Topics {
    /// Finds topics of a filter in one shard, at most `limit`, and moves the cursor on. Returns the number of
    /// topics that it has looked at, at most [`MAX_VISITS`].
    pub(crate) fn walk(
        &self,
        filter: &Filter,
        cursor: &mut Cursor,
        limit: usize,
        found: &mut Vec<Found>,
    ) -> usize {
        let Some(prefix) = filter.prefix.and_then(|length| filter.text.get(..length)) else {
            let value = self.get(&filter.text).filter(|_| !cursor.is_at_end());
            found.extend(value.map(|value| (Arc::from(&*filter.text), value)));
            cursor.shard = SHARDS;
            return 1;
        };
        let Some(shard) = self.shards.get(cursor.shard) else { return 0 };
        let shard = shard.lock();
        let start = match &cursor.after {
            Some(topic) => Bound::Excluded(&**topic),
            None => Bound::Included(prefix),
        };
        let mut visits = 0;
        let mut topics = shard.ordered.range::<str, _>((start, Bound::Unbounded));
        let last = loop {
            match topics.next().filter(|name| name.starts_with(prefix)) {
                None => break None,
                Some(name) => {
                    visits += 1;
                    let entry = shard.get(name).filter(|_| topic::matches(&filter.text, name));
                    found.extend(entry.map(|entry| (name.clone(), entry.value.clone())));
                    if visits >= MAX_VISITS || found.len() >= limit {
                        break Some(name.clone());
                    }
                }
            }
        };
        match last {
            Some(topic) => cursor.after = Some(topic),
            None => *cursor = Cursor { shard: cursor.shard + 1, after: None },
        }
        visits.max(1)
    }
}
