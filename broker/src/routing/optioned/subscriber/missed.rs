//! What a subscription has missed: exact counts, and a report to the client at most once a second. Owns the
//! counts; never decides what is dropped.

use elbus_plugin_api::{BROKER_NAME, Encoding, FrameKind, Payload, Qos, Run};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Subscriber;
use crate::{
    routing::registered_client::RegisteredClient,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The topic of reports. A client gets those about itself, if it is subscribed to it.
pub(in crate::routing) const MISSED_TOPIC: &str = ".broker/missed";
/// The shortest time between two reports about one subscription.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What a subscription has missed.
#[derive(Default)]
pub(in crate::routing) struct Missed {
    /// Publications that were dropped.
    pub(super) dropped: AtomicU64,
    /// Publications that a newer one of the same topic has replaced.
    pub(super) replaced: AtomicU64,
}

/// What is to be reported.
#[derive(Default)]
pub(super) struct Unreported {
    count: u64,
    /// The topic of the last one.
    topic: String,
    last_report: Option<Instant>,
}

#[derive(Serialize)]
struct Report<'r> {
    filter: &'r str,
    topic: &'r str,
    count: u64,
}

impl Subscriber {
    /// Counts publications that were dropped, and has them reported.
    #[cold]
    pub(in crate::routing) fn miss(self: &Arc<Self>, topic: &str, count: usize) {
        self.missed.dropped.fetch_add(count as u64, Relaxed);
        if topic == MISSED_TOPIC {
            return;
        }
        let (first, due) = {
            let mut unreported = self.unreported.lock();
            unreported.count += count as u64;
            if unreported.topic != topic {
                topic.clone_into(&mut unreported.topic);
            }
            let due = unreported.last_report.map(|last| last + REPORT_INTERVAL);
            (unreported.count == count as u64, due)
        };
        if first {
            self.pacer.schedule(self, due.unwrap_or_else(Instant::now));
        }
    }

    /// Reports what was missed, if that is due and the client `is_subscribed` to reports. While the queue of
    /// the client is full, it is tried again.
    pub(in crate::routing) fn report_missed(
        self: &Arc<Self>,
        now: Instant,
        is_subscribed: impl Fn(&Arc<RegisteredClient>) -> bool,
    ) {
        let (topic, count) = {
            let mut unreported = self.unreported.lock();
            if unreported.count == 0 {
                return;
            }
            let due = unreported.last_report.map(|last| last + REPORT_INTERVAL).filter(|due| *due > now);
            if let Some(due) = due {
                drop(unreported);
                return self.pacer.schedule(self, due);
            }
            unreported.last_report = Some(now);
            if self.client.is_full() {
                drop(unreported);
                return self.pacer.schedule(self, now + REPORT_INTERVAL);
            }
            (std::mem::take(&mut unreported.topic), std::mem::take(&mut unreported.count))
        };
        if self.client.is_gone() || !is_subscribed(&self.client) {
            return;
        }
        let report = Report { filter: &self.text, topic: &topic, count };
        let Ok(body) = rmp_serde::to_vec_named(&report) else { return };
        let payloads = [Payload::from(body.as_slice())];
        let mut encoding = Encoding::new();
        let mut run =
            Run::new(FrameKind::Publish, Qos::NO, BROKER_NAME, MISSED_TOPIC, &payloads, None, &mut encoding);
        let delivery = self.client.deliver(&mut run);
        if delivery.is_taken() {
            self.client.counts.sent(1, MISSED_TOPIC.len() + 1 + body.len());
        }
        self.settle(delivery);
    }
}
