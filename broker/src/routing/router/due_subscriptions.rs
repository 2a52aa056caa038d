//! Serving the subscriptions with options that are due. [`Pacer`](crate::routing::optioned::Pacer) owns when.

use elbus_protocol::MISSED_TOPIC;
use std::time::Instant;

use super::Router;

impl Router {
    /// Feeds clients, reports what they have missed, and frees the marks of replays, as far as that is due.
    /// Returns when something is due next, if anything is.
    pub(crate) fn serve_due(&self, now: Instant) -> Option<Instant> {
        let (subscribers, next) = self.pacer.take(now);
        for subscriber in subscribers {
            subscriber.report_missed(now, |client| self.registry.read().is_subscribed(client, MISSED_TOPIC));
            subscriber.feed();
        }
        [next, self.replays.sweep(now)].into_iter().flatten().min()
    }
}
