//! The names, subscriptions and exclusions of all clients. Plain data without locks: the router holds the
//! lock.

use elbus_plugin_api::Code;
use elbus_protocol::name::{is_secondary, primary_of};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use super::{
    Hashing,
    index::filter_tree::FilterTree,
    index::id_set::Ids,
    index::mask::each_match,
    index::paged_slab::PagedSlab,
    optioned::{Pacer, Subscriber},
    recipients::Recipients,
    registered_client::RegisteredClient,
    shapes::Shapes,
};
use filters::{ClientFilters, Departed};
use with_options::{OptionedFilters, OwnOptioned};

mod filters;
mod listed_filters;
mod replays;
mod requested;
mod with_options;

pub(super) use filters::{FilterRefusal, MAX_SHARED_FILTERS, Reserved};
pub(super) use listed_filters::ListedFilters;

/// A client and its filters.
struct RegistryEntry {
    member: Arc<RegisteredClient>,
    subscriptions: ClientFilters,
    exclusions: ClientFilters,
    /// Its subscriptions with options; `None` if there are none.
    optioned: Option<Box<OwnOptioned>>,
    /// What it gets because of its plain subscriptions, if its overflow policy is to keep the newest values.
    newest: Option<Arc<Subscriber>>,
}

/// One kind of filters of all clients.
#[derive(Default)]
struct Filters {
    tree: FilterTree,
    shapes: Shapes,
}

/// One of the two sets of filters of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FilterSet {
    Subscriptions,
    Exclusions,
}

/// All registered clients and their filters.
pub(super) struct Registry {
    entries: PagedSlab<Option<RegistryEntry>>,
    by_name: HashMap<Arc<str>, u32, Hashing>,
    /// The keys are the names themselves: a walk over many names does not touch their clients.
    in_order: BTreeMap<Arc<str>, Arc<RegisteredClient>>,
    /// The number of them that are parts of the broker.
    internal: usize,
    subscriptions: Filters,
    exclusions: Filters,
    optioned: OptionedFilters,
    /// The [memory](requested::weight) of all filters of all clients.
    filter_bytes: usize,
    /// Departed clients whose filters are not all removed yet.
    departed: Vec<Departed>,
    /// Departed members of groups whose unsent publications are not given to others yet, by their ids.
    parked: HashMap<u64, Departed, Hashing>,
}

impl Registry {
    pub(super) fn new(pacer: Arc<Pacer>) -> Self {
        Registry {
            entries: PagedSlab::default(),
            by_name: HashMap::default(),
            in_order: BTreeMap::new(),
            internal: 0,
            subscriptions: Filters::default(),
            exclusions: Filters::default(),
            optioned: OptionedFilters::new(pacer),
            filter_bytes: 0,
            departed: Vec::new(),
            parked: HashMap::default(),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<RegisteredClient>> {
        self.entry_of(name).map(|entry| &entry.member)
    }

    fn entry_of(&self, name: &str) -> Option<&RegistryEntry> {
        let entry = *self.by_name.get(name)?;
        self.entries[entry].as_ref()
    }

    /// Adds a client.
    ///
    /// # Errors
    /// [`Code::Busy`] if the name is taken, [`Code::NotRegistered`] for a secondary without its primary.
    pub(super) fn add(&mut self, member: Arc<RegisteredClient>) -> Result<(), Code> {
        if self.by_name.contains_key(&*member.name) {
            return Err(Code::Busy);
        }
        if is_secondary(&member.name) && !self.by_name.contains_key(primary_of(&member.name)) {
            return Err(Code::NotRegistered);
        }
        let entry = RegistryEntry {
            member: member.clone(),
            subscriptions: ClientFilters::default(),
            exclusions: ClientFilters::default(),
            optioned: None,
            newest: None,
        };
        let id = self.entries.add(Some(entry));
        self.by_name.insert(member.name.clone(), id);
        self.internal += usize::from(member.origin.internal);
        self.in_order.insert(member.name.clone(), member);
        Ok(())
    }

    /// Returns why a client may not be a secondary of its primary, which must have the same identity. `None`
    /// if it may, or if there is no such primary.
    pub(super) fn stranger_to_primary(&self, member: &RegisteredClient) -> Option<String> {
        if !is_secondary(&member.name) || member.origin.internal {
            return None;
        }
        let (primary, own) =
            (self.find(primary_of(&member.name))?.origin.identity(), member.origin.identity());
        let why = || {
            let (primary, own) = (primary.word(), own.word());
            format!(
                "a secondary must be of the same {primary} as its primary; it is of another, by its {own}"
            )
        };
        (primary != own).then(why)
    }

    /// Removes this registration and its filters. Returns `false` if it was removed before. Many filters are
    /// [cleared](Self::clear_departed) later.
    pub(super) fn remove(&mut self, member: &Arc<RegisteredClient>) -> bool {
        if !self.find(&member.name).is_some_and(|found| Arc::ptr_eq(found, member)) {
            return false;
        }
        member.mark_gone();
        let Some(id) = self.by_name.remove(&*member.name) else { return false };
        self.in_order.remove(&*member.name);
        self.internal -= usize::from(member.origin.internal);
        self.vacate(id);
        // returns memory after many clients have left
        if self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
        true
    }

    /// Returns the number of clients, parts of the broker excluded.
    pub(super) fn client_count(&self) -> usize {
        self.in_order.len() - self.internal
    }

    /// Returns the secondaries of a primary, in order of their names.
    pub(super) fn secondaries(&self, primary: &str) -> impl Iterator<Item = &Arc<RegisteredClient>> {
        let prefix = format!("{primary}%%");
        self.in_order
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&*prefix))
            .map(|(_, member)| member)
    }

    /// Returns all clients in order of their names.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<RegisteredClient>> {
        self.in_order.values()
    }

    /// Returns the clients whose name matches the mask, parts of the broker excluded. A mask that begins with
    /// a wildcard matches no client of another node.
    pub(super) fn matching(&self, mask: &str) -> Vec<&Arc<RegisteredClient>> {
        let mut matching = vec![];
        let is_local = matches!(mask.split('.').next(), Some("*" | "?"));
        each_match(mask, &self.in_order, |_, member| {
            if !(member.origin.internal || is_local && member.origin.node().is_some()) {
                matching.push(member);
            }
        });
        matching
    }

    /// Returns the clients that are subscribed to the topic and do not exclude it.
    pub(super) fn subscribed(&self, topic: &str) -> Recipients {
        let mut ids = Ids::new();
        self.subscriptions.tree.matches(topic, &mut ids);
        if self.has_optioned() || self.optioned.has_newest() {
            return self.subscribed_with_options(topic, ids);
        }
        if !ids.is_empty() && !self.exclusions.tree.is_empty() {
            self.exclude(topic, &mut ids);
        }
        Recipients::new(ids.iter().filter_map(|id| self.entries[*id].as_ref().map(|entry| &entry.member)))
    }

    /// As [`subscribed`](Self::subscribed), in a broker with subscriptions with options; `ids` has those with
    /// plain ones.
    #[cold]
    fn subscribed_with_options(&self, topic: &str, mut ids: Ids) -> Recipients {
        let excluding =
            if self.exclusions.tree.is_empty() { Ids::new() } else { self.exclude(topic, &mut ids) };
        let optioned = self.optioned_recipients(topic, &ids, &excluding);
        ids.retain(|id| self.newest_of(*id, topic).is_none());
        let members = ids.iter().filter_map(|id| self.entries[*id].as_ref().map(|entry| &entry.member));
        Recipients::new(members).with_optioned(optioned)
    }

    /// Removes the clients that exclude the topic, and returns them in order.
    fn exclude(&self, topic: &str, ids: &mut Ids) -> Ids {
        let mut excluding = Ids::new();
        self.exclusions.tree.matches(topic, &mut excluding);
        excluding.sort_unstable();
        ids.retain(|id| excluding.binary_search(id).is_err());
        excluding
    }
}
