//! What a client is subscribed to and excludes, as its user wants it: the broker knows that for one connection only.
//! Owns the sets; never sends.

use elbus_protocol::{Op, WARNINGS_TOPIC};
use std::collections::{HashMap, HashSet};

/// Filters of one frame when they are asked for again.
const FRAME_FILTERS: usize = 1000;
/// Bytes of these, unless a single filter is longer; a broker refuses frames of more than 4 MiB.
const FRAME_BYTES: usize = 1 << 20;

/// Splits filters into what one frame takes.
pub(crate) fn frames_of<'a, 'f>(mut filters: &'a [&'f str]) -> impl Iterator<Item = &'a [&'f str]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |filter: &&&str| {
            bytes += filter.len() + 1;
            bytes <= FRAME_BYTES
        };
        let count = filters.iter().take(FRAME_FILTERS).take_while(fits).count().max(1);
        let (frame, left) = filters.split_at_checked(count)?;
        filters = left;
        Some(frame)
    })
}

#[derive(Default)]
pub(crate) struct Wishes {
    subscribed: HashMap<String, Uses>,
    excluded: HashSet<String>,
    /// The user has unsubscribed from what the broker subscribes everybody to.
    declined: bool,
}

#[derive(Default)]
struct Uses {
    /// By [`Client::subscribe`](crate::Client::subscribe).
    asked: bool,
    /// Subscriptions with a queue of their own.
    subscriptions: usize,
}

/// Who wants a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Clients,
    Subscriptions,
}

impl Wishes {
    /// Adds a subscription. Returns whether it is new, so that [`unsubscribe`](Self::unsubscribe) takes it back.
    pub(crate) fn subscribe(&mut self, filter: &str, whose: Whose) -> bool {
        self.declined &= filter != WARNINGS_TOPIC;
        let uses = self.subscribed.entry(filter.to_owned()).or_default();
        match whose {
            Whose::Clients => !std::mem::replace(&mut uses.asked, true),
            Whose::Subscriptions => {
                uses.subscriptions += 1;
                true
            }
        }
    }

    /// Whether nobody wants the filter any more: the broker is to be told.
    pub(crate) fn unsubscribe(&mut self, filter: &str, whose: Whose) -> bool {
        if let Some(uses) = self.subscribed.get_mut(filter) {
            match whose {
                Whose::Clients => uses.asked = false,
                Whose::Subscriptions => uses.subscriptions = uses.subscriptions.saturating_sub(1),
            }
            if uses.asked || uses.subscriptions > 0 {
                return false;
            }
            self.subscribed.remove(filter);
        }
        self.declined |= filter == WARNINGS_TOPIC;
        true
    }

    /// Whether somebody wants the filter.
    pub(crate) fn wants(&self, filter: &str) -> bool {
        self.subscribed.contains_key(filter)
    }

    /// Whether a filter is still to be asked for by this operation.
    pub(crate) fn asks(&self, op: Op, filter: &str) -> bool {
        match op {
            Op::Exclude => self.excluded.contains(filter),
            Op::Unsubscribe => self.declined() == Some(filter),
            _ => self.wants(filter),
        }
    }

    /// Adds an exclusion. Returns whether it is new.
    pub(crate) fn exclude(&mut self, filter: &str) -> bool {
        self.excluded.insert(filter.to_owned())
    }

    pub(crate) fn unexclude(&mut self, filter: &str) {
        self.excluded.remove(filter);
    }

    pub(crate) fn subscribed(&self) -> impl Iterator<Item = &str> {
        self.subscribed.keys().map(String::as_str)
    }

    pub(crate) fn excluded(&self) -> impl Iterator<Item = &str> {
        self.excluded.iter().map(String::as_str)
    }

    /// What the broker subscribes everybody to, where the user does not want it.
    pub(crate) fn declined(&self) -> Option<&'static str> {
        self.declined.then_some(WARNINGS_TOPIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_stays_while_somebody_wants_it() {
        let mut wishes = Wishes::default();
        wishes.subscribe("a", Whose::Clients);
        wishes.subscribe("a", Whose::Clients);
        wishes.subscribe("a", Whose::Subscriptions);
        assert!(!wishes.unsubscribe("a", Whose::Clients));
        assert_eq!(wishes.subscribed().collect::<Vec<_>>(), ["a"]);
        assert!(wishes.unsubscribe("a", Whose::Subscriptions));
        assert_eq!(wishes.subscribed().count(), 0);
        assert!(wishes.unsubscribe("never wanted", Whose::Clients), "the broker may know it all the same");
    }

    #[test]
    fn only_what_is_new_is_taken_back() {
        let mut wishes = Wishes::default();
        assert!(wishes.subscribe("a", Whose::Clients) && !wishes.subscribe("a", Whose::Clients));
        assert!(wishes.subscribe("a", Whose::Subscriptions) && wishes.subscribe("a", Whose::Subscriptions));
        assert!(wishes.exclude("x") && !wishes.exclude("x"));
    }

    #[test]
    fn filters_are_split_into_frames_that_a_broker_takes() {
        let long = "x".repeat(65_000);
        let filters: Vec<&str> = std::iter::repeat_n("a", 1500).chain([&*long; 40]).collect();
        let frames: Vec<_> = frames_of(&filters).collect();
        assert_eq!(frames.concat(), filters);
        assert_eq!(frames.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [1000, 516, 16, 8]);
        let longer = "x".repeat(2 << 20);
        assert_eq!(frames_of(&[&longer, &longer]).count(), 2);
        assert_eq!(frames_of(&[]).count(), 0);
    }

    #[test]
    fn the_warnings_of_the_broker_can_be_declined() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.declined(), None);
        assert!(wishes.unsubscribe(".broker/warn", Whose::Clients));
        assert_eq!(wishes.declined(), Some(".broker/warn"));
        wishes.subscribe(".broker/warn", Whose::Clients);
        assert_eq!(wishes.declined(), None);
    }
}
