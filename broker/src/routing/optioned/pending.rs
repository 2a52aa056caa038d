//! Values that wait for a client, the newest for each topic. Owns which value waits, in which order and since
//! when it may be delivered; never a client, a lock or a clock.
//!
//! A topic keeps its place in the order while newer values replace its value. With an interval, a topic from
//! which a value was taken gives no other one before the interval has passed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::routing::Hashing;

/// The most topics of one subscription.
pub(in crate::routing) const MAX_TOPICS: usize = 10_000;
/// Memory of a topic beside its text and its value, in bytes.
const TOPIC_BYTES: usize = 192;

/// A publication that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::routing) struct Value {
    pub(in crate::routing) sender: Box<str>,
    pub(in crate::routing) sender_id: u64,
    pub(in crate::routing) realtime: bool,
    pub(in crate::routing) payload: Vec<u8>,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing) enum Put {
    /// It waits.
    Added,
    /// It waits in place of an older one.
    Replaced,
    /// It does not fit and is dropped, together with an older one of its topic.
    Dropped {
        /// Whether there was an older one.
        older: bool,
    },
}

#[derive(Default)]
struct Topic {
    /// `None` while only the interval lasts.
    value: Option<Value>,
    /// When the interval ends, if it lasts: then the topic is in `later`.
    free_at: Option<Instant>,
    /// Its place in `ready`, if it is there.
    place: u64,
}

/// The values that wait for one subscription.
#[derive(Default)]
pub(in crate::routing) struct PendingValues {
    topics: HashMap<Arc<str>, Topic, Hashing>,
    /// Topics with a value that can be delivered, by their places: a topic in the middle can leave.
    ready: BTreeMap<u64, Arc<str>>,
    last_place: u64,
    /// Topics whose interval lasts, by its end.
    later: BTreeSet<(Instant, Arc<str>)>,
    /// How many of them have a value.
    waiting: usize,
    bytes: usize,
}

impl PendingValues {
    /// Returns the memory of topics and values, in bytes.
    pub(in crate::routing) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of values that wait.
    pub(in crate::routing) fn len(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// Adds the newest value of a topic, if all values then take at most `limit` bytes.
    pub(in crate::routing) fn put(&mut self, topic: &str, value: ValueRef<'_>, limit: usize) -> Put {
        let bytes = value.sender.len() + value.payload.len();
        if let Some((key, held)) = self.topics.get_key_value(topic) {
            let before = held.value.as_ref().map_or(0, bytes_of);
            let (key, has_value, waits) = (key.clone(), held.value.is_some(), held.free_at.is_some());
            let fits = self.bytes - before + bytes <= limit;
            self.bytes = self.bytes - before + if fits { bytes } else { 0 };
            let Some(held) = self.topics.get_mut(topic) else { return Put::Dropped { older: false } };
            let place = held.place;
            if fits {
                value.write_to(held.value.get_or_insert_default());
            } else {
                // an older value must not arrive in its place
                held.value = None;
            }
            match (has_value, fits, waits) {
                (false, true, true) => self.waiting += 1,
                (false, true, false) => self.make_ready(key),
                (true, false, true) => self.waiting -= 1,
                (true, false, false) => {
                    self.ready.remove(&place);
                    self.remove(&key);
                }
                (true, true, _) | (false, false, _) => {}
            }
            return match (fits, has_value) {
                (false, older) => Put::Dropped { older },
                (true, true) => Put::Replaced,
                (true, false) => Put::Added,
            };
        }
        let bytes = bytes + topic.len() + TOPIC_BYTES;
        if self.topics.len() >= MAX_TOPICS || self.bytes + bytes > limit {
            return Put::Dropped { older: false };
        }
        self.bytes += bytes;
        let key: Arc<str> = topic.into();
        let mut held = Topic::default();
        value.write_to(held.value.get_or_insert_default());
        self.topics.insert(key.clone(), held);
        self.make_ready(key);
        Put::Added
    }

    /// Takes the next value that can be delivered at `now`. Its topic gives no other one for `interval`.
    pub(in crate::routing) fn take(&mut self, now: Instant, interval: Duration) -> Option<(Arc<str>, Value)> {
        self.advance(now);
        let (_, key) = self.ready.pop_first()?;
        let held = self.topics.get_mut(&key)?;
        let value = held.value.take()?;
        self.bytes -= bytes_of(&value);
        if interval.is_zero() {
            self.remove(&key);
        } else {
            let free_at = now + interval;
            held.free_at = Some(free_at);
            self.later.insert((free_at, key.clone()));
        }
        Some((key, value))
    }

    /// Returns whether a value can be delivered at `now`.
    pub(in crate::routing) fn is_ready(&mut self, now: Instant) -> bool {
        self.advance(now);
        !self.ready.is_empty()
    }

    /// Returns when to look again for a value whose interval lasts, if there is one.
    pub(in crate::routing) fn next_due(&self) -> Option<Instant> {
        self.later.first().filter(|_| self.waiting > 0).map(|(due, _)| *due)
    }

    /// Ends the intervals that have passed.
    fn advance(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.later.pop_first() else { return };
            match self.topics.get_mut(&key) {
                Some(held) if held.value.is_some() => {
                    held.free_at = None;
                    self.waiting -= 1;
                    self.make_ready(key);
                }
                _ => self.remove(&key),
            }
        }
    }

    /// Puts a topic behind all that are ready.
    fn make_ready(&mut self, key: Arc<str>) {
        self.last_place += 1;
        if let Some(held) = self.topics.get_mut(&key) {
            held.place = self.last_place;
        }
        self.ready.insert(self.last_place, key);
    }

    /// Removes a topic without a value.
    fn remove(&mut self, key: &Arc<str>) {
        if self.topics.remove(key).is_some() {
            self.bytes -= key.len() + TOPIC_BYTES;
        }
        // memory is returned after many topics were pending
        if self.topics.is_empty() {
            *self = PendingValues::default();
        }
    }
}

/// A value that is not copied yet.
#[derive(Clone, Copy)]
pub(in crate::routing) struct ValueRef<'v> {
    pub(in crate::routing) sender: &'v str,
    pub(in crate::routing) sender_id: u64,
    pub(in crate::routing) realtime: bool,
    pub(in crate::routing) payload: &'v [u8],
}

impl ValueRef<'_> {
    /// Copies it, into the memory of an older value where that suffices.
    fn write_to(self, value: &mut Value) {
        if *value.sender != *self.sender {
            value.sender = self.sender.into();
        }
        (value.sender_id, value.realtime) = (self.sender_id, self.realtime);
        if value.payload.capacity() > 2 * self.payload.len() {
            value.payload = Vec::new();
        }
        value.payload.clear();
        value.payload.extend_from_slice(self.payload);
    }
}

fn bytes_of(value: &Value) -> usize {
    value.sender.len() + value.payload.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: usize = usize::MAX;

    fn value(payload: &[u8]) -> ValueRef<'_> {
        ValueRef { sender: "s", sender_id: 1, realtime: false, payload }
    }

    fn take(values: &mut PendingValues, now: Instant, interval: u64) -> Option<(String, Vec<u8>)> {
        let taken = values.take(now, Duration::from_millis(interval));
        taken.map(|(topic, value)| (topic.to_string(), value.payload))
    }

    #[test]
    fn the_newest_value_keeps_the_place_of_its_topic() {
        let (mut values, now) = (PendingValues::default(), Instant::now());
        assert_eq!(values.put("a", value(b"1"), ALL), Put::Added);
        assert_eq!(values.put("b", value(b"2"), ALL), Put::Added);
        assert_eq!(values.put("a", value(b"3"), ALL), Put::Replaced);
        assert_eq!(values.len(), 2);
        assert_eq!(take(&mut values, now, 0), Some(("a".into(), b"3".to_vec())));
        assert_eq!(values.put("a", value(b"4"), ALL), Put::Added);
        assert_eq!(take(&mut values, now, 0), Some(("b".into(), b"2".to_vec())));
        assert_eq!(take(&mut values, now, 0), Some(("a".into(), b"4".to_vec())));
        assert_eq!((take(&mut values, now, 0), values.bytes(), values.len()), (None, 0, 0));
    }

    #[test]
    fn a_value_that_does_not_fit_leaves_no_older_one_behind() {
        let (mut values, now) = (PendingValues::default(), Instant::now());
        let limit = 2 * (TOPIC_BYTES + 1) + 100;
        assert_eq!(values.put("a", value(&[1; 40]), limit), Put::Added);
        assert_eq!(values.put("b", value(&[2; 40]), limit), Put::Added);
        assert_eq!(values.put("c", value(&[]), limit), Put::Dropped { older: false });
        assert_eq!(values.put("a", value(&[3; 90]), limit), Put::Dropped { older: true });
        assert_eq!(take(&mut values, now, 0), Some(("b".into(), vec![2; 40])));
        assert_eq!((take(&mut values, now, 0), values.bytes()), (None, 0));
    }

    #[test]
    fn a_value_that_does_not_fit_costs_no_search_among_the_others() {
        // with a search it takes minutes: 10,000 long texts are compared for each of 40,000 values
        let (mut values, now) = (PendingValues::default(), Instant::now());
        let topic = |number: usize| format!("{}{number:05}", "x".repeat(500));
        for number in 0..MAX_TOPICS {
            assert_eq!(values.put(&topic(number), value(b""), ALL), Put::Added);
        }
        let (last, limit) = (topic(MAX_TOPICS - 1), values.bytes() + 10);
        for _ in 0..20_000 {
            assert_eq!(values.put(&last, value(&[0; 20]), limit), Put::Dropped { older: true });
            assert_eq!(values.put(&last, value(b"1"), limit), Put::Added);
        }
        assert!(now.elapsed() < Duration::from_secs(20), "{:?}", now.elapsed());
        assert_eq!(take(&mut values, now, 0), Some((topic(0), vec![])));
    }

    #[test]
    fn the_number_of_topics_is_limited() {
        let mut values = PendingValues::default();
        for number in 0..MAX_TOPICS {
            assert_eq!(values.put(&number.to_string(), value(b"x"), ALL), Put::Added);
        }
        assert_eq!(values.put("one more", value(b"x"), ALL), Put::Dropped { older: false });
        assert_eq!(values.put("7", value(b"y"), ALL), Put::Replaced);
    }

    #[test]
    fn a_topic_gives_one_value_in_an_interval_and_the_last_one_arrives() {
        let (mut values, now) = (PendingValues::default(), Instant::now());
        let at = |millis| now + Duration::from_millis(millis);
        values.put("a", value(b"1"), ALL);
        assert_eq!(take(&mut values, now, 10), Some(("a".into(), b"1".to_vec())));
        assert_eq!(values.next_due(), None, "nothing waits");
        values.put("a", value(b"2"), ALL);
        values.put("a", value(b"3"), ALL);
        values.put("b", value(b"4"), ALL);
        assert_eq!(take(&mut values, at(9), 10), Some(("b".into(), b"4".to_vec())));
        assert_eq!((take(&mut values, at(9), 10), values.next_due()), (None, Some(at(10))));
        assert!(!values.is_ready(at(9)) && values.is_ready(at(10)));
        assert_eq!(take(&mut values, at(10), 10), Some(("a".into(), b"3".to_vec())));
        assert_eq!((take(&mut values, at(30), 10), values.bytes()), (None, 0), "nothing is kept afterwards");
    }

    proptest! {
        /// Whatever is put and taken: at most one value of a topic in an interval, always the newest, and
        /// the memory is what is there.
        #[test]
        fn equals_a_naive_model(
            steps in prop::collection::vec((0..4u8, 0..60usize, 0..4u64, any::<bool>()), 1..200),
            interval in 0..6u64,
        ) {
            let (mut values, start, mut millis) = (PendingValues::default(), Instant::now(), 0);
            let (mut newest, mut taken_at) = (HashMap::new(), HashMap::new());
            let limit = 2 * (TOPIC_BYTES + 2) + 70;
            for (topic, len, passed, takes) in steps {
                millis += passed;
                let name = topic.to_string();
                if !takes {
                    match values.put(&name, value(&vec![topic; len]), limit) {
                        Put::Dropped { older } => prop_assert_eq!(newest.remove(&name).is_some(), older),
                        Put::Added => assert!(newest.insert(name, len).is_none()),
                        Put::Replaced => assert!(newest.insert(name, len).is_some()),
                    }
                    prop_assert!(values.bytes() <= limit);
                } else if let Some((name, payload)) =
                    take(&mut values, start + Duration::from_millis(millis), interval)
                {
                    prop_assert_eq!(newest.remove(&name), Some(payload.len()));
                    let before = taken_at.insert(name, millis);
                    prop_assert!(before.is_none_or(|before| millis - before >= interval));
                } else {
                    let waits = |name: &String| taken_at.get(name).is_some_and(|at| millis - at < interval);
                    prop_assert!(newest.keys().all(waits));
                }
                prop_assert_eq!(values.len(), newest.len());
            }
        }
    }
}
