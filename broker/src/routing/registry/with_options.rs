//! The subscriptions with options of all clients, apart from plain ones: traffic that none of them matches
//! does not meet them. Owns which there are; their limits are counted together with those of plain ones.

use elbus_plugin_api::config::Overflow;
use elbus_protocol::subscription::{DeliveryMode, Sharing, Subscription};
use std::{
    collections::{HashMap, HashSet, hash_map},
    sync::Arc,
};

use super::{Registry, RegistryEntry, requested::Requested};
use crate::routing::{
    Hashing,
    index::{filter_tree::FilterTree, id_set::Ids, paged_slab::PagedSlab},
    optioned::{OptionedRecipients, Pacer, Subscriber, SubscriptionReport, group::Group, groups::GroupRoute},
    registered_client::RegisteredClient,
};

/// Topics of the broker itself begin with this.
const BROKER_TOPICS: &str = ".broker/";

/// The subscriptions with options of all clients.
pub(super) struct OptionedFilters {
    /// Filters without options; its members are indices of `subscriptions`.
    pub(super) tree: FilterTree,
    subscriptions: PagedSlab<Option<Optioned>>,
    /// Groups by their options, and how many subscriptions each of them has.
    groups: HashMap<Box<str>, (Arc<Group>, usize), Hashing>,
    last_serial: u64,
    /// Clients whose overflow policy is to keep the newest values.
    newest: usize,
    pacer: Arc<Pacer>,
}

/// A subscription with options.
pub(super) struct Optioned {
    /// The entry of its client.
    pub(super) entry: u32,
    /// Where its filter stands.
    node: u32,
    pub(super) subscriber: Arc<Subscriber>,
}

/// The subscriptions with options of one client, by their texts.
pub(super) type OwnOptioned = HashMap<Arc<str>, u32, Hashing>;

/// Those of a client that has left.
pub(super) type DepartedOptioned = hash_map::IntoValues<Arc<str>, u32>;

impl OptionedFilters {
    pub(super) fn new(pacer: Arc<Pacer>) -> Self {
        OptionedFilters {
            tree: FilterTree::default(),
            subscriptions: PagedSlab::default(),
            groups: HashMap::default(),
            last_serial: 0,
            newest: 0,
            pacer,
        }
    }

    /// Adds a subscription; `false` if the client has it.
    pub(super) fn add(
        &mut self,
        own: &mut OwnOptioned,
        entry: u32,
        member: &Arc<RegisteredClient>,
        requested: Requested<'_>,
    ) -> bool {
        let text = requested.text();
        if own.contains_key(&*text) {
            return false;
        }
        let Ok(parsed) = Subscription::parse(&text) else { return false };
        let group = match parsed.sharing {
            Sharing::None => None,
            Sharing::Share { group } => Some(self.join(format!("$share/{group}"), None)),
            Sharing::Key { group, levels } => Some(self.join(format!("$key/{group}/{levels}"), Some(levels))),
        };
        self.last_serial += 1;
        let mode = parsed.mode;
        let text: Arc<str> = text.into();
        let subscriber =
            Subscriber::new(text.clone(), mode, group, self.last_serial, member.clone(), self.pacer.clone());
        let id = self.subscriptions.add(None);
        let Some(node) = self.tree.insert(requested.filter, id) else { return false };
        self.subscriptions[id] = Some(Optioned { entry, node, subscriber: Arc::new(subscriber) });
        own.insert(text, id);
        true
    }

    /// Returns whether the overflow policy of any client is to keep the newest values.
    #[inline]
    pub(super) fn has_newest(&self) -> bool {
        self.newest > 0
    }

    /// Returns the subscription that stands for the plain ones of a client with that policy. Its text is
    /// empty.
    fn add_newest(&mut self, member: &Arc<RegisteredClient>) -> Arc<Subscriber> {
        self.newest += 1;
        self.last_serial += 1;
        let (serial, pacer) = (self.last_serial, self.pacer.clone());
        Arc::new(Subscriber::new("".into(), DeliveryMode::Queued, None, serial, member.clone(), pacer))
    }

    /// Ends it, when the client leaves.
    pub(super) fn remove_newest(&mut self, newest: Option<Arc<Subscriber>>) {
        if let Some(newest) = newest {
            self.newest -= 1;
            newest.end();
        }
    }

    fn join(&mut self, name: String, levels: Option<u8>) -> Arc<Group> {
        let new = || (Arc::new(Group::new(&name, levels)), 0);
        let (group, count) = self.groups.entry(name.as_str().into()).or_insert_with(new);
        *count += 1;
        group.clone()
    }

    /// Removes a subscription; `false` if the client does not have it.
    pub(super) fn remove(&mut self, own: &mut OwnOptioned, requested: Requested<'_>) -> bool {
        let Some(id) = own.remove(&*requested.text()) else { return false };
        self.remove_at(id);
        true
    }

    /// Removes the subscription with this index.
    pub(super) fn remove_at(&mut self, id: u32) {
        let Some(optioned) = self.subscriptions.release(id) else { return };
        self.tree.remove_at(optioned.node, id);
        optioned.subscriber.end();
        if let Some(group) = &optioned.subscriber.group
            && let Some((_, count)) = self.groups.get_mut(&group.name)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group.name);
            }
        }
    }

    /// Returns the subscription with this index.
    pub(super) fn subscription(&self, id: u32) -> Option<&Optioned> {
        self.subscriptions[id].as_ref()
    }

    fn subscriber(&self, id: u32) -> Option<&Arc<Subscriber>> {
        self.subscriptions[id].as_ref().map(|optioned| &optioned.subscriber)
    }

    #[cfg(test)]
    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }
}

impl Registry {
    /// Returns the recipients of a topic by subscriptions with options. `plain` has those by plain ones,
    /// `excluding` in order those that exclude the topic.
    #[cold]
    pub(super) fn optioned_recipients(
        &self,
        topic: &str,
        plain: &[u32],
        excluding: &[u32],
    ) -> Option<OptionedRecipients> {
        let mut matching = Ids::new();
        self.optioned.tree.matches(topic, &mut matching);
        if matching.is_empty() && !self.optioned.has_newest() {
            return None;
        }
        let newest = plain.iter().filter_map(|entry| self.newest_of(*entry, topic));
        let mut plain: Ids = plain.into();
        plain.sort_unstable();
        let gets_it = |optioned: &&Optioned| {
            let entry = optioned.entry;
            plain.binary_search(&entry).is_err()
                && excluding.binary_search(&entry).is_err()
                && self.entries[entry].is_some()
        };
        let matching = matching.iter().filter_map(|id| self.optioned.subscriptions[*id].as_ref());
        let matching = matching.filter(gets_it).map(|optioned| &optioned.subscriber);
        OptionedRecipients::new(matching.chain(newest).collect())
    }

    /// Returns what keeps the newest values of a topic for a client that has plain subscriptions to it.
    /// Announcements of the broker are events, not values.
    pub(super) fn newest_of(&self, entry: u32, topic: &str) -> Option<&Arc<Subscriber>> {
        let newest = self.entries[entry].as_ref()?.newest.as_ref()?;
        (!topic.starts_with(BROKER_TOPICS)).then_some(newest)
    }

    /// Sets the overflow policy of a client. Returns the subscriptions that no longer keep values because of
    /// it, and whether anything has changed.
    pub(in crate::routing) fn set_overflow(
        &mut self,
        member: &Arc<RegisteredClient>,
        overflow: Overflow,
    ) -> (Vec<Arc<Subscriber>>, bool) {
        let keeps_newest = overflow == Overflow::Latest;
        let Some(id) = self.id_of(member).filter(|_| member.keeps_newest() != keeps_newest) else {
            return (Vec::new(), false);
        };
        member.set_keeps_newest(keeps_newest);
        if keeps_newest {
            let newest = self.optioned.add_newest(member);
            if let Some(entry) = self.entries[id].as_mut() {
                entry.newest = Some(newest);
            }
            return (Vec::new(), true);
        }
        let Some(entry) = self.entries[id].as_mut() else { return (Vec::new(), true) };
        let newest = entry.newest.take();
        let own = entry.optioned.iter().flat_map(|own| own.values());
        let mut former: Vec<_> = own.filter_map(|id| self.optioned.subscriber(*id).cloned()).collect();
        former.extend(newest.clone());
        self.optioned.newest -= usize::from(newest.is_some());
        (former, true)
    }

    /// Returns whether no client has a subscription with options.
    #[inline]
    pub(super) fn has_optioned(&self) -> bool {
        !self.optioned.tree.is_empty()
    }

    /// Returns the groups because of which a departed client has got publications to a topic, with their
    /// other members; none if it got them because of another subscription as well.
    pub(in crate::routing) fn groups_of_departed(
        &self,
        member: &RegisteredClient,
        topic: &str,
    ) -> Vec<GroupRoute> {
        let Some(entry) = self.parked_entry(member) else { return Vec::new() };
        let (mut plain, mut matching) = (Ids::new(), Ids::new());
        self.subscriptions.tree.matches(topic, &mut plain);
        if plain.contains(&entry) {
            return Vec::new();
        }
        self.optioned.tree.matches(topic, &mut matching);
        let mut groups: HashSet<*const Group, Hashing> = HashSet::default();
        for optioned in matching.iter().filter_map(|id| self.optioned.subscriptions[*id].as_ref()) {
            match &optioned.subscriber.group {
                _ if optioned.entry != entry => {}
                Some(group) => _ = groups.insert(Arc::as_ptr(group)),
                None => return Vec::new(),
            }
        }
        let recipients = self.subscribed(topic).into_optioned();
        let routes = recipients.map(|recipients| recipients.groups).unwrap_or_default();
        routes.into_iter().filter(|route| groups.contains(&Arc::as_ptr(&route.group))).collect()
    }

    fn own_optioned(&self, member: &Arc<RegisteredClient>) -> Option<&OwnOptioned> {
        self.entry_of_member(member)?.optioned.as_deref()
    }

    /// Returns whether a client gets publications to a topic, by a plain subscription or one that it shares
    /// with nobody.
    pub(in crate::routing) fn is_subscribed(&self, member: &Arc<RegisteredClient>, topic: &str) -> bool {
        let Some(id) = self.id_of(member) else { return false };
        let has = |tree: &FilterTree| {
            let mut ids = Ids::new();
            tree.matches(topic, &mut ids);
            ids.contains(&id)
        };
        let has_optioned = || {
            let mut ids = Ids::new();
            self.optioned.tree.matches(topic, &mut ids);
            let own = ids.iter().filter_map(|id| self.optioned.subscriptions[*id].as_ref());
            own.filter(|optioned| optioned.entry == id).any(|optioned| optioned.subscriber.group.is_none())
        };
        (has(&self.subscriptions.tree) || has_optioned()) && !has(&self.exclusions.tree)
    }

    /// Returns the first `limit` subscriptions with options of a client, in order of their texts.
    pub(in crate::routing) fn optioned_of(
        &self,
        member: &Arc<RegisteredClient>,
        limit: usize,
    ) -> Vec<SubscriptionReport> {
        let mut own: Vec<_> = self.own_optioned(member).into_iter().flatten().collect();
        own.sort_unstable();
        let newest = self.entry_of_member(member).and_then(|entry| entry.newest.as_ref());
        let subscribers = own.iter().filter_map(|(_, id)| self.optioned.subscriber(**id));
        newest.into_iter().chain(subscribers).take(limit).map(|subscriber| subscriber.report()).collect()
    }

    /// Returns the texts of all subscriptions with options of a client.
    pub(in crate::routing) fn optioned_texts(&self, member: &Arc<RegisteredClient>) -> Vec<Arc<str>> {
        self.own_optioned(member).into_iter().flat_map(HashMap::keys).cloned().collect()
    }
}

impl RegistryEntry {
    /// Takes what keeps the newest values out, when the client leaves.
    pub(super) fn take_newest(&mut self) -> Option<Arc<Subscriber>> {
        self.newest.take()
    }

    /// Takes the subscriptions with options out, when the client leaves.
    pub(super) fn take_optioned(&mut self) -> DepartedOptioned {
        self.optioned.take().map(|own| *own).unwrap_or_default().into_values()
    }
}
