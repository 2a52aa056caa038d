//! The filters of clients in the registry: admitting, adding and removing them. Owns their number and memory;
//! decides about all filters of a request before it adds the first.

use std::sync::Arc;

use super::{
    FilterSet, Filters, Registry, RegistryEntry,
    requested::{Requested, weight},
    with_options::DepartedOptioned,
};
use crate::routing::{
    client_keys::BudgetOwner,
    filter_limits::FilterLimits,
    index::filter_tree::Filter,
    index::id_set::{IdSet, Ids},
    registered_client::RegisteredClient,
    shapes::{ClientShapes, Shape, is_complex},
};
use elbus_protocol::{request, subscription::has_options};

/// Filters of a client up to this memory are admitted regardless of the memory of all filters.
const RESERVED_BYTES: usize = 128 * 1024;
/// The most filters that a client shares with groups: each group delivers a publication on its own.
pub(in crate::routing) const MAX_SHARED_FILTERS: usize = 1024;
/// Filters of a client that are removed at once when it leaves; more are removed in steps.
const REMOVED_AT_ONCE: usize = 512;

/// The filters of one kind that a client has.
#[derive(Default)]
pub(super) struct ClientFilters {
    /// Their nodes in the tree.
    nodes: IdSet,
    /// The number of filters with options, and of those that are shared by a group.
    optioned: usize,
    shared: usize,
    /// The memory of all of them in bytes, see [`weight`].
    bytes: usize,
    /// The complex ones; `None` if there are none.
    shapes: Option<Box<ClientShapes>>,
}

/// A client that has left, and the nodes of its filters. Its entry is reused after they are removed.
pub(super) struct Departed {
    entry: u32,
    subscriptions: Ids,
    exclusions: Ids,
    optioned: DepartedOptioned,
}

/// Why the filters of a request are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterRefusal {
    /// The client is no longer registered.
    Gone,
    /// The client would have too many.
    Count,
    /// They would take too much memory.
    Memory,
    /// The filters of all clients take too much memory.
    TotalMemory,
    /// Too many complex shapes.
    Complex,
    /// The client would share too many filters with groups.
    Shared,
    /// Checking them takes too many comparisons with access rules.
    Comparisons,
}

/// The complex filters of a request that were counted before they are added, by their numbers in the request.
#[derive(Default)]
pub(crate) struct Reserved(Vec<(usize, Shape)>);

impl Registry {
    /// Returns the id of this registration.
    pub(super) fn id_of(&self, member: &Arc<RegisteredClient>) -> Option<u32> {
        let id = *self.by_name.get(&*member.name)?;
        let entry = self.entries[id].as_ref()?;
        Arc::ptr_eq(&entry.member, member).then_some(id)
    }

    /// Returns the entry of this registration.
    pub(super) fn entry_of_member(&self, member: &Arc<RegisteredClient>) -> Option<&RegistryEntry> {
        self.entries[self.id_of(member)?].as_ref()
    }

    fn filters_of(
        &mut self,
        set: FilterSet,
        id: u32,
    ) -> Option<(&mut Filters, &mut ClientFilters, &mut usize)> {
        let entry = self.entries[id].as_mut()?;
        Some(match set {
            FilterSet::Subscriptions => {
                (&mut self.subscriptions, &mut entry.subscriptions, &mut self.filter_bytes)
            }
            FilterSet::Exclusions => (&mut self.exclusions, &mut entry.exclusions, &mut self.filter_bytes),
        })
    }

    /// Decides whether a client gets all filters of a request, and counts the complex ones among them.
    /// Admission stays valid: only the client itself adds filters.
    pub(in super::super) fn admit(
        &mut self,
        member: &Arc<RegisteredClient>,
        set: FilterSet,
        body: &str,
        limits: &FilterLimits,
    ) -> Result<Reserved, FilterRefusal> {
        let id = self.id_of(member).ok_or(FilterRefusal::Gone)?;
        let optioned = self.entries[id].as_mut().and_then(|entry| entry.optioned.take());
        let has_optioned =
            |one: Requested<'_>| optioned.as_ref().is_some_and(|own| own.contains_key(&*one.text()));
        let result = self.admit_to(id, member, set, body, limits, has_optioned);
        if let Some(entry) = self.entries[id].as_mut() {
            entry.optioned = optioned;
        }
        result
    }

    fn admit_to(
        &mut self,
        id: u32,
        member: &Arc<RegisteredClient>,
        set: FilterSet,
        body: &str,
        limits: &FilterLimits,
        has_optioned: impl Fn(Requested<'_>) -> bool,
    ) -> Result<Reserved, FilterRefusal> {
        let (filters, own, total) = self.filters_of(set, id).ok_or(FilterRefusal::Gone)?;
        let fits = |requested: &RequestedFilters| {
            let bytes = own.bytes + requested.bytes;
            if own.nodes.len() + own.optioned + requested.count > limits.count {
                Err(FilterRefusal::Count)
            } else if requested.shared > 0 && own.shared + requested.shared > MAX_SHARED_FILTERS {
                Err(FilterRefusal::Shared)
            } else if bytes > limits.memory {
                Err(FilterRefusal::Memory)
            } else if bytes > RESERVED_BYTES && *total + requested.bytes > limits.total_memory {
                Err(FilterRefusal::TotalMemory)
            } else {
                Ok(())
            }
        };
        // as if all were new: that is so for most requests, which then need no search
        let mut requested = RequestedFilters::default();
        request::filters(body).for_each(|filter| requested.add(Requested::new(filter)));
        if !requested.complex && fits(&requested).is_ok() {
            return Ok(Reserved::default());
        }
        let mut new: Vec<_> = request::filters(body).map(Requested::new).zip(0..).collect();
        new.sort_unstable();
        new.dedup_by_key(|(requested, _)| *requested);
        new.retain(|(one, _)| match one.has_options() {
            true => !has_optioned(*one),
            false => !filters.tree.has(one.filter, id),
        });
        requested = RequestedFilters::default();
        new.iter().for_each(|(filter, _)| requested.add(*filter));
        if requested.count > 0 {
            fits(&requested)?;
        }
        let mut reserved = Reserved::default();
        for (filter, number) in new {
            let Some(shape) = filters.shapes.of(filter.filter) else { continue };
            let client_shapes = own.shapes.get_or_insert_with(|| {
                let identity = filters.shapes.number(BudgetOwner::identity_of(&member.origin));
                Box::new(ClientShapes::of(identity))
            });
            if !filters.shapes.reserve(client_shapes, shape, limits.complex) {
                self.release(member, set, reserved, &[]);
                return Err(FilterRefusal::Complex);
            }
            reserved.0.push((number, shape));
        }
        Ok(reserved)
    }

    /// Releases what was counted for filters that were not added.
    pub(in super::super) fn release(
        &mut self,
        member: &Arc<RegisteredClient>,
        set: FilterSet,
        reserved: Reserved,
        added: &[usize],
    ) {
        let Some(id) = self.id_of(member) else { return };
        let Some((filters, own, _)) = self.filters_of(set, id) else { return };
        for (number, shape) in reserved.0 {
            if added.binary_search(&number).is_err()
                && let Some(shapes) = &mut own.shapes
            {
                filters.shapes.release(shapes, shape);
            }
        }
        own.shapes.take_if(|shapes| shapes.is_empty());
    }

    /// Adds admitted filters of a client, or removes filters. Calls `changed` with the number of each filter
    /// that was added or removed.
    pub(in super::super) fn change<'f>(
        &mut self,
        member: &Arc<RegisteredClient>,
        set: FilterSet,
        add: bool,
        changes: impl Iterator<Item = (usize, &'f str)>,
        mut changed: impl FnMut(usize),
    ) -> Result<(), FilterRefusal> {
        let id = self.id_of(member).ok_or(FilterRefusal::Gone)?;
        for (number, text) in changes {
            if set == FilterSet::Subscriptions && has_options(text) {
                if self.change_optioned(member, id, add, Requested::new(text)) {
                    changed(number);
                }
                continue;
            }
            let filter = Filter::from(text);
            let (filters, own, total) = self.filters_of(set, id).ok_or(FilterRefusal::Gone)?;
            if add {
                let Some(node) = filters.tree.insert(filter, id) else { continue };
                own.nodes.insert(node);
                own.bytes += weight(filter);
                *total += weight(filter);
            } else {
                let Some(node) = filters.tree.remove(filter, id) else { continue };
                own.nodes.remove(node);
                own.removed(weight(filter), filter, filters, total);
            }
            changed(number);
        }
        Ok(())
    }

    /// Adds an admitted subscription with options, or removes one; returns whether it was not there, or was.
    fn change_optioned(
        &mut self,
        member: &Arc<RegisteredClient>,
        id: u32,
        add: bool,
        requested: Requested<'_>,
    ) -> bool {
        let Some(entry) = self.entries[id].as_mut() else { return false };
        let own = entry.optioned.get_or_insert_default();
        let changed = match add {
            true => self.optioned.add(own, id, member, requested),
            false => self.optioned.remove(own, requested),
        };
        entry.optioned.take_if(|own| own.is_empty());
        let (own, weight) = (&mut entry.subscriptions, requested.weight());
        if changed && add {
            own.optioned += 1;
            own.shared += usize::from(requested.is_shared());
            own.bytes += weight;
            self.filter_bytes += weight;
        } else if changed {
            own.optioned -= 1;
            own.shared -= usize::from(requested.is_shared());
            own.removed(weight, requested.filter, &mut self.subscriptions, &mut self.filter_bytes);
        }
        changed
    }

    /// Returns the nodes of the subscriptions of a client.
    pub(in super::super) fn subscription_nodes(&self, member: &Arc<RegisteredClient>) -> Ids {
        self.filter_nodes(member, FilterSet::Subscriptions)
    }

    /// Returns the nodes of the filters of a client that have no options.
    pub(super) fn filter_nodes(&self, member: &Arc<RegisteredClient>, set: FilterSet) -> Ids {
        let mut nodes = Ids::new();
        let Some(entry) = self.entry_of_member(member) else { return nodes };
        match set {
            FilterSet::Subscriptions => entry.subscriptions.nodes.extend_into(&mut nodes),
            FilterSet::Exclusions => entry.exclusions.nodes.extend_into(&mut nodes),
        }
        nodes
    }

    /// Returns the subscriptions that a client still has at these nodes.
    pub(in super::super) fn subscriptions_at(
        &self,
        member: &Arc<RegisteredClient>,
        nodes: &[u32],
    ) -> Vec<String> {
        let entry = self.id_of(member).and_then(|id| self.entries[id].as_ref());
        let Some(entry) = entry else { return Vec::new() };
        let own = nodes.iter().filter(|node| entry.subscriptions.nodes.contains(**node));
        own.map(|node| self.subscriptions.tree.text_at(*node)).collect()
    }

    /// Clears the entry of a client that leaves.
    pub(super) fn vacate(&mut self, id: u32) {
        let Some(mut entry) = self.entries[id].take() else { return };
        self.optioned.remove_newest(entry.take_newest());
        let (optioned, has_groups) = (entry.take_optioned(), entry.subscriptions.shared > 0);
        let mut departed =
            Departed { entry: id, subscriptions: Ids::new(), exclusions: Ids::new(), optioned };
        for (own, filters, nodes) in [
            (entry.subscriptions, &mut self.subscriptions, &mut departed.subscriptions),
            (entry.exclusions, &mut self.exclusions, &mut departed.exclusions),
        ] {
            own.nodes.extend_into(nodes);
            self.filter_bytes -= own.bytes;
            if let Some(shapes) = own.shapes {
                filters.shapes.release_all(&shapes);
            }
        }
        if has_groups {
            // until the other members have what it has not got
            entry.member.mark_parked();
            self.parked.insert(entry.member.id, departed);
            return;
        }
        self.departed.push(departed);
        if self.departed.len() == 1 {
            self.clear_departed();
        }
    }

    /// Lets the filters of a departed member of groups be removed.
    pub(in super::super) fn unpark(&mut self, member: &RegisteredClient) {
        self.departed.extend(self.parked.remove(&member.id));
    }

    /// Returns the entry that a departed member of groups had, while its filters are there.
    pub(super) fn parked_entry(&self, member: &RegisteredClient) -> Option<u32> {
        self.parked.get(&member.id).map(|departed| departed.entry)
    }

    /// Removes some filters of clients that have left. Returns whether there are more.
    pub(in super::super) fn clear_departed(&mut self) -> bool {
        let mut left = REMOVED_AT_ONCE;
        while let Some(departed) = self.departed.last_mut() {
            let id = departed.entry;
            for (nodes, filters) in [
                (&mut departed.subscriptions, &mut self.subscriptions),
                (&mut departed.exclusions, &mut self.exclusions),
            ] {
                let from = nodes.len() - left.min(nodes.len());
                left -= nodes.len() - from;
                nodes.drain(from..).for_each(|node| _ = filters.tree.remove_at(node, id));
            }
            for id in departed.optioned.by_ref().take(left) {
                left -= 1;
                self.optioned.remove_at(id);
            }
            if !departed.subscriptions.is_empty()
                || !departed.exclusions.is_empty()
                || departed.optioned.len() > 0
            {
                return true;
            }
            self.entries.release(id);
            self.departed.pop();
        }
        false
    }
}

impl ClientFilters {
    /// Counts a filter less.
    fn removed(&mut self, weight: usize, filter: Filter<'_>, filters: &mut Filters, total: &mut usize) {
        self.bytes -= weight;
        *total -= weight;
        if let Some(shapes) = &mut self.shapes
            && let Some(shape) = filters.shapes.of(filter)
        {
            filters.shapes.release(shapes, shape);
            self.shapes.take_if(|shapes| shapes.is_empty());
        }
    }
}

/// The sums of a request, if all its filters are new.
#[derive(Default)]
struct RequestedFilters {
    count: usize,
    shared: usize,
    bytes: usize,
    complex: bool,
}

impl RequestedFilters {
    fn add(&mut self, requested: Requested<'_>) {
        self.count += 1;
        self.shared += usize::from(requested.is_shared());
        self.bytes += requested.weight();
        self.complex |= is_complex(requested.filter).0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
