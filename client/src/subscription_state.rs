//! The subscriptions and exclusions that the user wants, which outlive a connection: the broker forgets them
//! when it ends. Owns the sets; never sends.

use elbus_protocol::{
    MISSED_TOPIC, Op, WARNINGS_TOPIC,
    subscription::{Sharing, Subscription},
    topic,
};
use std::collections::{HashMap, HashSet};

/// Limit of filters in one frame when they are restored.
const MAX_FRAME_FILTERS: usize = 1000;
/// Limit of their bytes, unless a single filter is longer; a broker refuses frames of more than 4 MiB.
const MAX_FRAME_BYTES: usize = 1 << 20;

/// Splits filters into chunks that fit into one frame.
pub(crate) fn frame_chunks<'a, 'f>(mut filters: &'a [&'f str]) -> impl Iterator<Item = &'a [&'f str]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |filter: &&&str| {
            bytes += filter.len() + 1;
            bytes <= MAX_FRAME_BYTES
        };
        let count = filters.iter().take(MAX_FRAME_FILTERS).take_while(fits).count().max(1);
        let (chunk, rest) = filters.split_at_checked(count)?;
        filters = rest;
        Some(chunk)
    })
}

#[derive(Default)]
pub(crate) struct SubscriptionState {
    subscribed: HashMap<String, Uses>,
    excluded: HashSet<String>,
    /// The user has unsubscribed from the topic that the broker subscribes every client to.
    warnings_declined: bool,
}

/// The users of a filter.
#[derive(Default)]
struct Uses {
    frames: bool,
    subscriptions: usize,
    gaps: bool,
    /// The broker has acknowledged it.
    acknowledged: bool,
}

impl Uses {
    fn is_used(&self) -> bool {
        self.frames || self.subscriptions > 0 || self.gaps
    }
}

/// Which part of a client uses a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterUser {
    /// [`Client::add_filters`](crate::Client::add_filters).
    Frames,
    /// A [`Subscription`](crate::Subscription) with its own queue.
    Subscription,
    /// The client itself, for reports of what its filters with options have missed.
    Gaps,
}

/// A filter as it is matched: without its options, and whether a group shares its publications.
pub(crate) fn matched_part(filter: &str) -> (&str, bool) {
    match Subscription::parse(filter) {
        Ok(parsed) => (parsed.filter, parsed.sharing != Sharing::None),
        Err(_) => (filter, false),
    }
}

/// Returns the text by which the broker knows a filter: what follows a `#` is left out.
pub(crate) fn known_text(filter: &str) -> &str {
    let mut end = 0;
    for segment in filter.split('/') {
        end += segment.len();
        if segment == "#" {
            break;
        }
        end += 1;
    }
    filter.get(..end).unwrap_or(filter)
}

impl SubscriptionState {
    /// Adds a use of a filter. Returns whether it is new, and [`unsubscribe`](Self::unsubscribe) reverts it.
    pub(crate) fn subscribe(&mut self, filter: &str, user: FilterUser) -> bool {
        self.warnings_declined &= filter != WARNINGS_TOPIC;
        let uses = self.subscribed.entry(filter.to_owned()).or_default();
        match user {
            FilterUser::Frames => !std::mem::replace(&mut uses.frames, true),
            FilterUser::Gaps => !std::mem::replace(&mut uses.gaps, true),
            FilterUser::Subscription => {
                uses.subscriptions += 1;
                true
            }
        }
    }

    /// Removes a use of a filter. Returns whether it was the last one, so that the broker has to unsubscribe
    /// the client.
    pub(crate) fn unsubscribe(&mut self, filter: &str, user: FilterUser) -> bool {
        if let Some(uses) = self.subscribed.get_mut(filter) {
            match user {
                FilterUser::Frames => uses.frames = false,
                FilterUser::Gaps => uses.gaps = false,
                FilterUser::Subscription => uses.subscriptions = uses.subscriptions.saturating_sub(1),
            }
            if uses.is_used() {
                return false;
            }
            self.subscribed.remove(filter);
        }
        self.warnings_declined |= filter == WARNINGS_TOPIC;
        true
    }

    /// Returns whether the filter is in use.
    pub(crate) fn is_subscribed(&self, filter: &str) -> bool {
        self.subscribed.contains_key(filter)
    }

    /// Notes that the broker has acknowledged these filters.
    pub(crate) fn acknowledge(&mut self, filters: &[&str]) {
        for filter in filters {
            if let Some(uses) = self.subscribed.get_mut(*filter) {
                uses.acknowledged = true;
            }
        }
    }

    /// Returns whether the broker certainly delivers publications to a topic because of a filter that no
    /// group shares. Takes as long as there are filters.
    pub(crate) fn is_alone(&self, topic: &str) -> bool {
        let acknowledged = self.subscribed.iter().filter(|(_, uses)| uses.acknowledged);
        let mut parts = acknowledged.map(|(filter, _)| matched_part(filter));
        parts.any(|(filter, is_shared)| !is_shared && topic::matches(filter, topic))
    }

    /// Returns whether the client is subscribed to reports for its own use.
    pub(crate) fn has_gaps(&self) -> bool {
        self.subscribed.get(MISSED_TOPIC).is_some_and(|uses| uses.gaps)
    }

    /// Returns whether [`Frames`](crate::Frames) are subscribed to this topic.
    pub(crate) fn frames_have(&self, topic: &str) -> bool {
        let mut own = self.subscribed.iter().filter(|(_, uses)| uses.frames);
        own.any(|(filter, _)| topic::matches(matched_part(filter).0, topic))
    }

    /// Returns whether [`Frames`](crate::Frames) are subscribed to the filter that the broker knows as this;
    /// an empty one stands for all without options.
    pub(crate) fn frames_know(&self, known: &str) -> bool {
        let mut own = self.subscribed.iter().filter(|(_, uses)| uses.frames);
        own.any(|(filter, _)| {
            known_text(filter) == known || known.is_empty() && matched_part(filter).0 == filter
        })
    }

    /// Returns whether restoring the state includes this operation on the filter.
    pub(crate) fn includes(&self, op: Op, filter: &str) -> bool {
        match op {
            Op::Exclude => self.excluded.contains(filter),
            Op::Unsubscribe => self.declined() == Some(filter),
            _ => self.is_subscribed(filter),
        }
    }

    /// Adds an exclusion. Returns whether it is new.
    pub(crate) fn exclude(&mut self, filter: &str) -> bool {
        self.excluded.insert(filter.to_owned())
    }

    pub(crate) fn unexclude(&mut self, filter: &str) {
        self.excluded.remove(filter);
    }

    /// Returns the operations that restore this state with a new connection, in order.
    ///
    /// Reports have a frame of their own: other filters must not depend on whether the broker allows them.
    pub(crate) fn operations(&self) -> [(Op, Vec<&str>); 4] {
        let gaps = self.has_gaps().then_some(MISSED_TOPIC);
        let subscribed = self.subscribed.keys().map(String::as_str);
        [
            (Op::Exclude, self.excluded.iter().map(String::as_str).collect()),
            (Op::Subscribe, gaps.into_iter().collect()),
            (Op::Subscribe, subscribed.filter(|filter| gaps != Some(*filter)).collect()),
            (Op::Unsubscribe, self.declined().into_iter().collect()),
        ]
    }

    /// Returns the topic that the broker subscribes every client to, if the user has unsubscribed from it.
    fn declined(&self) -> Option<&'static str> {
        self.warnings_declined.then_some(WARNINGS_TOPIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_stays_subscribed_until_its_last_use_ends() {
        let mut state = SubscriptionState::default();
        state.subscribe("a", FilterUser::Frames);
        state.subscribe("a", FilterUser::Frames);
        state.subscribe("a", FilterUser::Subscription);
        assert!(!state.unsubscribe("a", FilterUser::Frames));
        assert!(state.is_subscribed("a") && state.includes(Op::Subscribe, "a"));
        assert!(state.unsubscribe("a", FilterUser::Subscription));
        assert!(!state.is_subscribed("a"));
        assert!(state.unsubscribe("unknown", FilterUser::Frames), "the broker can still have it");
    }

    #[test]
    fn only_a_new_use_is_reverted() {
        let mut state = SubscriptionState::default();
        assert!(state.subscribe("a", FilterUser::Frames) && !state.subscribe("a", FilterUser::Frames));
        assert!(
            state.subscribe("a", FilterUser::Subscription) && state.subscribe("a", FilterUser::Subscription)
        );
        assert!(state.exclude("x") && !state.exclude("x"));
    }

    #[test]
    fn filters_are_split_into_frames_that_a_broker_accepts() {
        let long = "x".repeat(65_000);
        let filters: Vec<&str> = std::iter::repeat_n("a", 1500).chain([&*long; 40]).collect();
        let chunks: Vec<_> = frame_chunks(&filters).collect();
        assert_eq!(chunks.concat(), filters);
        assert_eq!(chunks.iter().map(|chunk| chunk.len()).collect::<Vec<_>>(), [1000, 516, 16, 8]);
        let longer = "x".repeat(2 << 20);
        assert_eq!(frame_chunks(&[&longer, &longer]).count(), 2);
        assert_eq!(frame_chunks(&[]).count(), 0);
    }

    #[test]
    fn filters_are_matched_without_their_options() {
        assert_eq!(matched_part("$share/g/$latest/a/#"), ("a/#", true));
        assert_eq!(matched_part("$every/5/a"), ("a", false));
        assert_eq!(matched_part("$latest/"), ("$latest/", false), "malformed: the broker refuses it");
        for (filter, known) in
            [("$lossy/a/#/b", "$lossy/a/#"), ("#", "#"), ("a/b", "a/b"), ("", ""), ("a/", "a/")]
        {
            assert_eq!(known_text(filter), known);
        }
    }

    #[test]
    fn a_filter_without_a_group_counts_once_it_is_acknowledged() {
        let mut state = SubscriptionState::default();
        state.subscribe("$share/g/a", FilterUser::Subscription);
        state.subscribe("$latest/a", FilterUser::Frames);
        state.acknowledge(&["$share/g/a"]);
        assert!(!state.is_alone("a"));
        state.acknowledge(&["$latest/a"]);
        assert!(state.is_alone("a") && !state.is_alone("b"));
        assert!(state.frames_have("a") && state.frames_know("$latest/a") && !state.frames_know("a"));
    }

    #[test]
    fn reports_are_restored_first_and_alone() {
        let mut state = SubscriptionState::default();
        state.subscribe("$latest/a", FilterUser::Frames);
        assert_eq!(state.operations()[1].1, [""; 0]);
        state.subscribe(MISSED_TOPIC, FilterUser::Gaps);
        assert!(
            state.unsubscribe("unknown", FilterUser::Frames)
                && !state.unsubscribe(MISSED_TOPIC, FilterUser::Frames)
        );
        let [_, (_, gaps), (_, others), _] = state.operations();
        assert_eq!((gaps, others), (vec![MISSED_TOPIC], vec!["$latest/a"]));
    }

    #[test]
    fn the_broker_warnings_can_be_declined() {
        let mut state = SubscriptionState::default();
        assert_eq!(state.declined(), None);
        assert!(state.unsubscribe(".broker/warn", FilterUser::Frames));
        assert_eq!(state.declined(), Some(".broker/warn"));
        state.subscribe(".broker/warn", FilterUser::Frames);
        assert_eq!(state.declined(), None);
    }
}
