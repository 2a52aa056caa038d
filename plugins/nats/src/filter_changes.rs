//! The filters of local clients: those that the thread of the instance knows, and the changes that it has not
//! handled yet. A change and its reverse cancel each other, so what waits is bounded by the subscriptions
//! that exist and those that the thread knows. Knows nothing of other nodes.

use elbus_plugin_api::hooks::SubscriptionEvent;
use std::{
    collections::{HashMap, HashSet},
    mem,
};

/// Changes of the filters of a client, as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FilterChange {
    pub(crate) event: SubscriptionEvent,
    pub(crate) client: u64,
    pub(crate) filters: Vec<String>,
}

/// What has changed since the thread last looked. The order does not matter: each filter of a client is in
/// one of the lists at most.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) removed: Vec<String>,
    pub(crate) added: Vec<String>,
}

/// The filters of all clients.
#[derive(Debug, Default)]
pub(crate) struct FilterChanges {
    clients: HashMap<u64, ClientFilters>,
    /// Clients with changes that wait.
    changed: HashSet<u64>,
    /// How many filters the thread knows.
    known: usize,
    /// The first subscriptions are learnt.
    is_watching: bool,
}

#[derive(Debug, Default)]
struct ClientFilters {
    /// What the thread knows.
    known: HashSet<String>,
    /// Filters that have changed since: whether the client has each one now.
    changes: HashMap<String, bool>,
    has_left: bool,
}

impl FilterChanges {
    /// Adds a change. Those of a client come in order, except that an existing subscription can be reported
    /// after it has changed: then the change counts.
    pub(crate) fn add(&mut self, FilterChange { event, client, filters }: FilterChange) {
        let of = self.clients.entry(client).or_default();
        if event == SubscriptionEvent::Left {
            of.changes.clear();
            of.has_left = true;
        }
        for filter in filters {
            let has_it = event != SubscriptionEvent::Unsubscribed;
            if of.has_left || (event == SubscriptionEvent::Existing && of.changes.contains_key(&filter)) {
                continue;
            }
            // until everything is learnt, an existing one can still be reported that has ended meanwhile
            if self.is_watching && of.known.contains(&filter) == has_it {
                of.changes.remove(&filter);
            } else {
                of.changes.insert(filter, has_it);
            }
        }
        if self.is_watching {
            self.note(client);
        }
    }

    /// The first subscriptions are learnt: nothing is reported that existed before a change.
    pub(crate) fn begin(&mut self) {
        self.is_watching = true;
        for of in self.clients.values_mut() {
            of.changes.retain(|_, has_it| *has_it);
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.note(client);
        }
    }

    /// Notes whether a client has changes, and forgets one that has nothing.
    fn note(&mut self, client: u64) {
        let Some(of) = self.clients.get(&client) else { return };
        if !of.changes.is_empty() || (of.has_left && !of.known.is_empty()) {
            self.changed.insert(client);
            return;
        }
        self.changed.remove(&client);
        if of.known.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// Takes what has changed; nothing before [`begin`](Self::begin).
    pub(crate) fn take(&mut self) -> Difference {
        let mut difference = Difference::default();
        let Difference { removed, added } = &mut difference;
        for client in self.changed.drain() {
            let Some(of) = self.clients.get_mut(&client) else { continue };
            if of.has_left {
                removed.extend(of.known.drain());
            }
            for (filter, has_it) in mem::take(&mut of.changes) {
                if has_it {
                    added.push(filter.clone());
                    of.known.insert(filter);
                } else {
                    of.known.remove(&filter);
                    removed.push(filter);
                }
            }
            if of.known.is_empty() {
                self.clients.remove(&client);
            }
        }
        self.known = self.known + added.len() - removed.len();
        difference
    }

    /// Returns the filters that the thread knows, as often as clients have them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.clients.values().flat_map(|of| &of.known).cloned().collect()
    }

    /// Returns how many filters the thread knows.
    pub(crate) fn known(&self) -> usize {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SubscriptionEvent::{Existing, Left, Subscribed, Unsubscribed};

    fn change(event: SubscriptionEvent, client: u64, filters: &[&str]) -> FilterChange {
        FilterChange { event, client, filters: filters.iter().map(|filter| (*filter).to_owned()).collect() }
    }

    /// Takes what has changed, sorted: removals and additions.
    fn taken(changes: &mut FilterChanges) -> (Vec<String>, Vec<String>) {
        let Difference { mut removed, mut added } = changes.take();
        removed.sort();
        added.sort();
        (removed, added)
    }

    fn lists(removed: &[&str], added: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        (owned(removed), owned(added))
    }

    fn watching() -> FilterChanges {
        let mut changes = FilterChanges::default();
        changes.begin();
        changes
    }

    #[test]
    fn a_client_that_changes_its_mind_leaves_nothing_behind() {
        let mut changes = watching();
        changes.add(change(Subscribed, 1, &["known"]));
        assert_eq!(taken(&mut changes), lists(&[], &["known"]));
        for number in 0..1000 {
            let filter = format!("t/{number}");
            changes.add(change(Subscribed, 1, &[&filter]));
            changes.add(change(Unsubscribed, 1, &[&filter, "known"]));
            changes.add(change(Subscribed, 1, &["known"]));
            // the thread knows nothing of these
            changes.add(change(Subscribed, 10 + number, &[&filter]));
            changes.add(change(Left, 10 + number, &[]));
        }
        assert!(changes.changed.is_empty() && changes.clients.len() == 1);
        assert!(changes.clients[&1].changes.is_empty());
        assert_eq!(taken(&mut changes), lists(&[], &[]));
        changes.add(change(Unsubscribed, 1, &["known"]));
        changes.add(change(Subscribed, 1, &["other"]));
        assert_eq!((taken(&mut changes), changes.known()), (lists(&["known"], &["other"]), 1));
        changes.add(change(Subscribed, 1, &["more"]));
        changes.add(change(Left, 1, &[]));
        assert_eq!((taken(&mut changes), changes.known()), (lists(&["other"], &[]), 0));
        changes.add(change(Left, 2, &[]));
        assert!(changes.clients.is_empty(), "a client without subscriptions is not kept");
    }

    #[test]
    fn a_change_that_is_reported_twice_is_one() {
        let mut changes = watching();
        changes.add(change(Subscribed, 1, &["a"]));
        taken(&mut changes);
        // a subscription of the time when the first ones were learnt can be
        changes.add(change(Subscribed, 1, &["a"]));
        changes.add(change(Unsubscribed, 1, &["a"]));
        assert_eq!((taken(&mut changes), changes.known()), (lists(&["a"], &[]), 0));
        assert!(changes.clients.is_empty());
    }

    #[test]
    fn while_the_first_subscriptions_are_learnt_a_change_counts_whatever_existed() {
        let mut changes = FilterChanges::default();
        for (event, client, filters) in [
            (Subscribed, 1, &["new"][..]),
            (Unsubscribed, 1, &["ended"]),
            (Existing, 1, &["ended", "old", "new"]),
            (Unsubscribed, 2, &["back"]),
            (Subscribed, 2, &["back"]),
            (Existing, 2, &["back"]),
            (Left, 3, &[]),
            (Existing, 3, &["of one who has left"]),
        ] {
            changes.add(change(event, client, filters));
        }
        assert_eq!(taken(&mut changes), lists(&[], &[]), "not yet");
        changes.begin();
        assert_eq!(taken(&mut changes), lists(&[], &["back", "new", "old"]));
        assert_eq!((changes.known(), changes.clients.len()), (3, 2));
        changes.add(change(Left, 1, &[]));
        assert_eq!(taken(&mut changes), lists(&["new", "old"], &[]));
    }

    #[test]
    fn a_filter_that_moves_from_one_client_to_another_is_removed_and_added_at_once() {
        let mut changes = watching();
        changes.add(change(Subscribed, 1, &["a"]));
        taken(&mut changes);
        changes.add(change(Subscribed, 2, &["a"]));
        changes.add(change(Left, 1, &[]));
        assert_eq!(taken(&mut changes), lists(&["a"], &["a"]));
    }
}
