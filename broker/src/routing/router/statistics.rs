//! Counters, and lists of clients for control methods. Changes nothing in the registry.

use elbus_protocol::name::is_secondary;
use std::{sync::Arc, time::Instant};

use super::Router;
use crate::{
    routing::{
        optioned::SubscriptionReport,
        registered_client::{RegisteredClient, Totals},
    },
    sync::atomic::Ordering,
};

impl Router {
    /// Returns the name of the client with this [id](RegisteredClient::id). Visits all clients.
    pub(crate) fn client_by_number(&self, number: u64) -> Option<String> {
        let registry = self.registry.read();
        registry.all().find(|member| member.id == number).map(|member| member.name.to_string())
    }

    /// Counts frames that a full queue did not take.
    #[inline]
    pub(in crate::routing) fn count_refused(&self, frames: usize) {
        self.refused_frames.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Returns the number of registered clients, secondaries included, parts of the broker excluded.
    pub(crate) fn client_count(&self) -> usize {
        self.registry.read().client_count()
    }

    /// Returns the number of clients that would get a publication to the topic.
    pub(crate) fn subscriber_count(&self, topic: &str) -> usize {
        let resolved = self.resolve_topic(topic);
        resolved.recipients.iter().count() + resolved.optioned().map_or(0, |optioned| optioned.count())
    }

    /// Returns how many frames full queues have refused since the start.
    pub(crate) fn refused_frames(&self) -> u64 {
        self.refused_frames.load(Ordering::Relaxed)
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
