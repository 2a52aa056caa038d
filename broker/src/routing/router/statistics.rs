//! Counters, and lists of clients for control methods. Changes nothing in the registry.

use elbus_protocol::name::is_secondary;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Router;
use crate::{
    routing::{
        optioned::SubscriptionReport,
        registered_client::RegisteredClient,
        registry::{FilterSet, ListedFilters},
    },
    statistics::{CountsBy, Refusal, RegistrationRefusal, Totals},
};

impl Router {
    /// Returns the name of the client with this [id](RegisteredClient::id). Visits all clients.
    pub(crate) fn client_by_number(&self, number: u64) -> Option<String> {
        let registry = self.registry.read();
        registry.all().find(|member| member.id == number).map(|member| member.name.to_string())
    }

    /// Counts frames that were not queued for a recipient.
    #[cold]
    pub(in crate::routing) fn count_refused(&self, why: Refusal, frames: usize) {
        self.refused.add(why, frames);
    }

    /// Returns the number of registered clients, secondaries included, parts of the broker excluded.
    pub(crate) fn client_count(&self) -> usize {
        self.registry.read().client_count()
    }

    /// Returns the messages that were not queued for a recipient, by the reason.
    pub(crate) fn refused(&self) -> &CountsBy<Refusal> {
        &self.refused
    }

    /// Returns the refused registrations, by the reason.
    pub(crate) fn refused_registrations(&self) -> &CountsBy<RegistrationRefusal> {
        &self.refused_registrations
    }

    /// Returns how many publications subscriptions with options have missed.
    pub(crate) fn missed(&self) -> u64 {
        self.pacer.missed()
    }

    /// Returns for how long senders have waited for a receiver since it has registered.
    pub(crate) fn held_senders(&self, receiver: &RegisteredClient) -> Duration {
        receiver.held_senders(Instant::now())
    }

    /// Returns the number of clients that would get a publication to the topic.
    pub(crate) fn subscriber_count(&self, topic: &str) -> usize {
        let resolved = self.resolve_topic(topic);
        resolved.recipients.iter().count() + resolved.optioned().map_or(0, |optioned| optioned.count())
    }

    /// Returns how many frames full queues have refused since the start.
    pub(crate) fn refused_frames(&self) -> u64 {
        self.refused.sum()
    }

    /// Returns all frames and bytes since the start, those of departed clients included. With many clients
    /// the figures are up to 0.1 s old.
    pub(crate) fn totals(&self) -> Totals {
        self.totals.get(Instant::now(), || {
            let registry = self.registry.read();
            let mut totals = self.departed.totals();
            registry.all().for_each(|member| totals += member.counts.totals());
            (totals, registry.client_count())
        })
    }

    /// Returns the names of the first `limit` secondaries of a client.
    pub(crate) fn secondaries(&self, primary: &str, limit: usize) -> Vec<String> {
        let registry = self.registry.read();
        registry.secondaries(primary).take(limit).map(|member| member.name.to_string()).collect()
    }

    /// Returns the first `limit` subscriptions with options of a client.
    pub(crate) fn optioned_of(
        &self,
        client: &Arc<RegisteredClient>,
        limit: usize,
    ) -> Vec<SubscriptionReport> {
        self.registry.read().optioned_of(client, limit)
    }

    /// Returns subscriptions of a client without options, and its exclusions.
    pub(crate) fn filters_of(&self, client: &Arc<RegisteredClient>) -> (ListedFilters, ListedFilters) {
        let registry = self.registry.read();
        let listed = |set| registry.listed_filters(client, set);
        (listed(FilterSet::Subscriptions), listed(FilterSet::Exclusions))
    }

    /// Returns every primary client and the number of its registrations, in order of names.
    pub(crate) fn primaries(&self) -> Vec<(Arc<RegisteredClient>, usize)> {
        let registry = self.registry.read();
        registry
            .all()
            .filter(|member| !is_secondary(&member.name))
            .map(|member| (member.clone(), 1 + registry.secondaries(&member.name).count()))
            .collect()
    }
}
