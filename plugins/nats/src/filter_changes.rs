//! Changed subscriptions of local clients that the thread of the instance has not handled yet. A change and
//! its reverse cancel each other, so that there are never more than subscriptions that exist or existed when
//! the thread last looked.

use elbus_plugin_api::hooks::SubscriptionEvent;
use std::collections::{HashMap, HashSet, hash_map::Entry};

/// Changes of the filters of a client, as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FilterChange {
    pub(crate) event: SubscriptionEvent,
    pub(crate) client: u64,
    pub(crate) filters: Vec<String>,
}

/// The changes that wait.
#[derive(Debug, Default)]
pub(crate) struct FilterChanges {
    /// Changes while the first subscriptions are learnt, in order: an existing one can be reported after it
    /// has changed, and then the change counts.
    first: Vec<FilterChange>,
    /// The first subscriptions are learnt.
    is_watching: bool,
    /// Later changes.
    clients: HashMap<u64, ClientChanges>,
    /// Clients whose subscriptions the thread knows.
    known: HashSet<u64>,
}

#[derive(Debug, Default)]
struct ClientChanges {
    /// Whether each filter was added; else it was removed.
    filters: HashMap<String, bool>,
    has_left: bool,
}

impl FilterChanges {
    /// Adds a change. Those of a client come in order, and each one changes something.
    pub(crate) fn add(&mut self, change: FilterChange) {
        let FilterChange { event, client, filters } = change;
        if !self.is_watching {
            self.known.insert(client);
            return self.first.push(FilterChange { event, client, filters });
        }
        let waiting = self.clients.entry(client).or_default();
        for filter in filters {
            let is_added = event == SubscriptionEvent::Subscribed;
            match waiting.filters.entry(filter) {
                Entry::Vacant(entry) => drop(entry.insert(is_added)),
                Entry::Occupied(entry) if *entry.get() != is_added => drop(entry.remove()),
                Entry::Occupied(_) => {}
            }
        }
        if event == SubscriptionEvent::Left {
            waiting.filters.clear();
            waiting.has_left = self.known.remove(&client);
        }
        if waiting.filters.is_empty() && !waiting.has_left {
            self.clients.remove(&client);
        }
    }

    /// The first subscriptions are learnt: nothing is reported that existed before a change.
    pub(crate) fn begin(&mut self) {
        self.is_watching = true;
    }

    /// Takes the changes of the time before [`begin`](Self::begin), in order.
    pub(crate) fn take_first(&mut self) -> Vec<FilterChange> {
        std::mem::take(&mut self.first)
    }

    /// Takes the later changes; those of a client are in order.
    pub(crate) fn take_later(&mut self) -> Vec<FilterChange> {
        let mut changes = vec![];
        for (client, ClientChanges { filters, has_left }) in self.clients.drain() {
            if has_left {
                changes.push(FilterChange { event: SubscriptionEvent::Left, client, filters: vec![] });
                continue;
            }
            let (added, removed): (Vec<_>, Vec<_>) = filters.into_iter().partition(|(_, is_added)| *is_added);
            let kinds = [(SubscriptionEvent::Unsubscribed, removed), (SubscriptionEvent::Subscribed, added)];
            for (event, filters) in kinds.into_iter().filter(|(_, filters)| !filters.is_empty()) {
                if event == SubscriptionEvent::Subscribed {
                    self.known.insert(client);
                }
                let filters = filters.into_iter().map(|(filter, _)| filter).collect();
                changes.push(FilterChange { event, client, filters });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(event: SubscriptionEvent, client: u64, filters: &[&str]) -> FilterChange {
        FilterChange { event, client, filters: filters.iter().map(|filter| (*filter).to_owned()).collect() }
    }

    fn taken(changes: &mut FilterChanges) -> Vec<FilterChange> {
        let mut all = changes.take_later();
        all.sort_by_key(|change| change.client);
        all
    }

    fn watching() -> FilterChanges {
        let mut changes = FilterChanges::default();
        changes.begin();
        changes
    }

    #[test]
    fn a_client_that_changes_its_mind_leaves_nothing_behind() {
        use SubscriptionEvent::{Left, Subscribed, Unsubscribed};
        let mut changes = watching();
        changes.add(change(Subscribed, 1, &["known"]));
        assert_eq!(taken(&mut changes), [change(Subscribed, 1, &["known"])]);
        for number in 0..1000 {
            let filter = format!("t/{number}");
            changes.add(change(Subscribed, 1, &[&filter]));
            changes.add(change(Unsubscribed, 1, &[&filter, "known"]));
            changes.add(change(Subscribed, 1, &["known"]));
            // the thread knows nothing of these
            changes.add(change(Subscribed, 10 + number, &[&filter]));
            changes.add(change(Left, 10 + number, &[]));
        }
        assert!(changes.clients.is_empty());
        assert_eq!(taken(&mut changes), []);
        changes.add(change(Unsubscribed, 1, &["known"]));
        changes.add(change(Subscribed, 1, &["other"]));
        let expected = [change(Unsubscribed, 1, &["known"]), change(Subscribed, 1, &["other"])];
        assert_eq!(taken(&mut changes), expected);
        changes.add(change(Subscribed, 1, &["more"]));
        changes.add(change(Left, 1, &[]));
        assert_eq!(taken(&mut changes), [change(Left, 1, &[])]);
        assert!(changes.known.is_empty());
    }

    #[test]
    fn changes_while_the_first_subscriptions_are_learnt_stay_in_order() {
        use SubscriptionEvent::{Existing, Left, Subscribed, Unsubscribed};
        let mut changes = FilterChanges::default();
        let first = [(Subscribed, "a"), (Unsubscribed, "a"), (Existing, "a")];
        for (event, filter) in first {
            changes.add(change(event, 1, &[filter]));
        }
        changes.begin();
        changes.add(change(Left, 1, &[]));
        let order: Vec<_> = changes.take_first().into_iter().map(|change| change.event).collect();
        assert_eq!(order, [Subscribed, Unsubscribed, Existing]);
        assert_eq!(changes.take_later(), [change(Left, 1, &[])]);
    }
}
