//! What a client is subscribed to and excludes, as its user wants it: the broker knows that for one connection only.
//! Owns the sets; never sends.

use elbus_protocol::WARNINGS_TOPIC;
use std::collections::{HashMap, HashSet};

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
    fn the_warnings_of_the_broker_can_be_declined() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.declined(), None);
        assert!(wishes.unsubscribe(".broker/warn", Whose::Clients));
        assert_eq!(wishes.declined(), Some(".broker/warn"));
        wishes.subscribe(".broker/warn", Whose::Clients);
        assert_eq!(wishes.declined(), None);
    }
}
