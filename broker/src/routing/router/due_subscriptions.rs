//! Serving the subscriptions with options that are due. [`Pacer`](crate::routing::optioned::Pacer) owns when.

use std::time::Instant;

use super::Router;
use crate::routing::optioned::subscriber::missed::MISSED_TOPIC;

impl Router {
    /// Feeds clients and reports what they have missed, as far as that is due. Returns when the next
    /// subscription is due, if any is.
    pub(crate) fn serve_due(&self, now: Instant) -> Option<Instant> {
        let (subscribers, next) = self.pacer.take(now);
        for subscriber in subscribers {
            subscriber.report_missed(now, |client| self.registry.read().is_subscribed(client, MISSED_TOPIC));
            subscriber.feed();
        }
        next
    }
}
