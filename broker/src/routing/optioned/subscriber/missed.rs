//! What a subscription has missed: exact counts, and a report to the client at most once a second. Owns the
//! counts; never decides what is dropped.

use elbus_plugin_api::{BROKER_NAME, DeliveryStatus, Encoding, FrameKind, Payload, Qos, Run};
use elbus_protocol::MISSED_TOPIC;
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

/// The most of a topic that is kept for a report, in bytes: a client can have many subscriptions, and others
/// choose the topics.
const MAX_TOPIC_BYTES: usize = 1024;
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

/// Returns the begin of a text, at most `bytes` long.
fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes { text } else { (0..=bytes).rev().find_map(|end| text.get(..end)).unwrap_or("") }
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
        self.pacer.count_missed(count);
        if topic == MISSED_TOPIC {
            return;
        }
        let (first, due) = {
            let mut unreported = self.unreported.lock();
            unreported.count += count as u64;
            let kept = cut(topic, MAX_TOPIC_BYTES);
            if unreported.topic != kept {
                kept.clone_into(&mut unreported.topic);
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
        } else if delivery.has(DeliveryStatus::REFUSED) {
            // a queue that never is over its limit can refuse it, too
            let mut unreported = self.unreported.lock();
            unreported.count += count;
            if unreported.topic.is_empty() {
                unreported.topic = topic;
            }
            drop(unreported);
            self.pacer.schedule(self, now + REPORT_INTERVAL);
        }
        self.settle(delivery);
    }
}
