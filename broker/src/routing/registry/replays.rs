//! Which earlier publications a client gets because of filters that it has added: those to which it was not
//! subscribed before. Owns no state.

use elbus_protocol::request;
use std::sync::Arc;

use super::{Registry, requested::Requested};
use crate::routing::{
    index::id_set::Ids,
    optioned::Subscriber,
    registered_client::RegisteredClient,
    replays::{NewFilters, Way},
};

impl Registry {
    /// Finds the filters of a request with these numbers, which the client has just added.
    pub(in crate::routing) fn new_filters(
        &self,
        client: &Arc<RegisteredClient>,
        body: &str,
        added: &[usize],
    ) -> NewFilters {
        let mut new = NewFilters::default();
        let own = self.entry_of_member(client).and_then(|entry| entry.optioned.as_deref());
        let added =
            request::filters(body).enumerate().filter(|(number, _)| added.binary_search(number).is_ok());
        for (_, text) in added {
            let requested = Requested::new(text);
            if requested.has_options() {
                new.optioned.extend(own.and_then(|own| own.get(&*requested.text()).copied()));
            } else {
                new.plain.extend(self.subscriptions.tree.find(requested.filter));
            }
        }
        new
    }

    /// Returns how a client gets an earlier publication to a topic because of new filters.
    pub(in crate::routing) fn way_of_replay(
        &self,
        client: &Arc<RegisteredClient>,
        topic: &str,
        new: &NewFilters,
    ) -> Way {
        let Some(id) = self.id_of(client) else { return Way::Closed };
        let plain = self.subscriptions.tree.nodes_of(topic, id);
        let is_new = plain.iter().all(|node| new.plain.contains(node));
        let mut matching = Ids::new();
        self.optioned.tree.matches(topic, &mut matching);
        let own = matching.iter().filter_map(|index| Some((*index, self.optioned.subscription(*index)?)));
        let own = own.filter(|(_, optioned)| optioned.entry == id && optioned.subscriber.group.is_none());
        let mut deciding: Option<&Arc<Subscriber>> = None;
        let mut was_subscribed = !is_new;
        for (index, optioned) in own {
            was_subscribed |= !new.optioned.contains(&index);
            let subscriber = &optioned.subscriber;
            if deciding
                .is_none_or(|other| (subscriber.mode(), subscriber.serial) < (other.mode(), other.serial))
            {
                deciding = Some(subscriber);
            }
        }
        if was_subscribed || self.excludes(id, topic) {
            return Way::Closed;
        }
        match (plain.is_empty(), deciding) {
            (false, _) => self.newest_of(id, topic).cloned().map_or(Way::Plain, Way::Optioned),
            (true, Some(subscriber)) => Way::Optioned(subscriber.clone()),
            (true, None) => Way::Closed,
        }
    }

    fn excludes(&self, id: u32, topic: &str) -> bool {
        !self.exclusions.tree.is_empty() && !self.exclusions.tree.nodes_of(topic, id).is_empty()
    }
}
