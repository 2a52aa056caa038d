//! Who gets a publication because of subscriptions with options: resolved once, kept by the senders until
//! something changes.
//!
//! A client gets a publication once. Its plain filter decides before any with options; then `$lossy`,
//! `$latest` and `$every` without sharing, in this order and with shorter intervals first; then its groups.
//! The earlier of two equal subscriptions decides.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    sync::{Arc, Weak},
};

use super::{group::Group, groups::GroupRoute, subscriber::Subscriber};

/// The recipients by subscriptions with options, held weakly.
pub(crate) struct OptionedRecipients {
    /// Those that share with nobody, in the order of their subscriptions.
    pub(in crate::routing) alone: Vec<Weak<Subscriber>>,
    pub(in crate::routing) groups: Vec<GroupRoute>,
    /// Whether a client is a member of several of the groups.
    pub(in crate::routing) overlap: bool,
}

/// A subscription with options that matches a topic, as `explain` shows it.
pub(crate) struct OptionedMatch {
    pub(crate) client: Arc<str>,
    pub(crate) filter: Arc<str>,
    /// The group, for instance `$share/GROUP`.
    pub(crate) group: Option<String>,
}

impl OptionedRecipients {
    /// Creates them from the subscriptions that match, without those of clients that have a plain filter;
    /// `None` if there are none.
    pub(in crate::routing) fn new(mut matching: Vec<&Arc<Subscriber>>) -> Option<Self> {
        if matching.is_empty() {
            return None;
        }
        // those of one client side by side, the deciding one first
        matching.sort_unstable_by_key(|one| (one.client.id, one.group.is_some(), one.mode(), one.serial));
        let mut alone = vec![];
        let mut groups: BTreeMap<*const Group, (Arc<Group>, Vec<&Arc<Subscriber>>)> = BTreeMap::new();
        let mut overlap = false;
        for of_client in matching.chunk_by(|one, other| one.client.id == other.client.id) {
            let mut joined = 0;
            for subscriber in of_client {
                let Some(group) = &subscriber.group else {
                    alone.push(*subscriber);
                    break;
                };
                let (_, members) =
                    groups.entry(Arc::as_ptr(group)).or_insert_with(|| (group.clone(), vec![]));
                // those of one client follow each other: a client can be a member of thousands of groups
                if members.last().is_none_or(|last| last.client.id != subscriber.client.id) {
                    members.push(subscriber);
                    joined += 1;
                }
            }
            overlap |= joined > 1;
        }
        alone.sort_unstable_by_key(|subscriber| subscriber.serial);
        let mut groups: Vec<_> = groups.into_values().collect();
        for (_, members) in &mut groups {
            members.sort_unstable_by_key(|subscriber| subscriber.serial);
        }
        groups.sort_unstable_by_key(|(_, members)| members.first().map(|member| member.serial));
        let weak = |all: Vec<&Arc<Subscriber>>| all.into_iter().map(Arc::downgrade).collect();
        let groups = groups.into_iter().map(|(group, members)| GroupRoute::new(group, weak(members)));
        Some(OptionedRecipients { groups: groups.collect(), alone: weak(alone), overlap })
    }

    fn subscribers(&self) -> impl Iterator<Item = &Weak<Subscriber>> {
        self.alone.iter().chain(self.groups.iter().flat_map(|route| &route.members))
    }

    /// Returns whether both are the same subscriptions in the same order.
    pub(in crate::routing) fn is_same(&self, other: &OptionedRecipients) -> bool {
        self.alone.len() == other.alone.len()
            && self.subscribers().count() == other.subscribers().count()
            && self.subscribers().zip(other.subscribers()).all(|(one, other)| one.ptr_eq(other))
    }

    /// Hashes who they are, in order.
    pub(in crate::routing) fn hash(&self, hasher: &mut impl Hasher) {
        self.subscribers().for_each(|subscriber| hasher.write_usize(subscriber.as_ptr().addr()));
    }

    /// Returns their memory.
    pub(in crate::routing) fn bytes(&self) -> usize {
        let members = self.subscribers().count() * (size_of::<Weak<Subscriber>>() + size_of::<u32>());
        size_of::<Self>() + self.groups.len() * size_of::<GroupRoute>() + members
    }

    /// Returns how many clients get a publication: those that share with nobody, and one of each group.
    pub(crate) fn count(&self) -> usize {
        let is_there = |one: &&Weak<Subscriber>| one.upgrade().is_some_and(|one| !one.client.is_gone());
        let groups = self.groups.iter().filter(|route| route.members.iter().any(|one| is_there(&one)));
        self.alone.iter().filter(is_there).count() + groups.count()
    }

    /// Returns the subscriptions of clients that are registered.
    pub(crate) fn matches(&self) -> impl Iterator<Item = OptionedMatch> {
        let there = self.subscribers().filter_map(Weak::upgrade).filter(|one| !one.client.is_gone());
        there.map(|one| OptionedMatch {
            client: one.client.name.clone(),
            filter: one.text.clone(),
            group: one.group.as_ref().map(|group| group.name.to_string()),
        })
    }
}
