//! Announcements of ELBUS: publishes as `.broker` which clients register and leave, and the shutdown of the
//! broker (section 8 of the protocol).
//!
//! It owns the lifecycle of an instance and the sending. It makes no decisions about clients, stores nothing
//! and never waits: announcements are best effort, and a client that missed some gets `resync` when its queue
//! has drained.
#![deny(unsafe_code)]

mod announcement;

use elbus_plugin_api::{
    Client, Config, Event, EventKind, Host, Op, Payload, Plugin, PluginError, Qos, Request,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use announcement::Announcement;

/// The announcement plugin.
pub struct Announce {
    host: Host,
    announcer: Arc<Announcer>,
}

/// Publishes announcements from [`start`](Plugin::start) to [`stop`](Plugin::stop).
#[derive(Default)]
struct Announcer {
    /// Events arrive one at a time, so the lock is contended only during start and stop. Held while
    /// dispatching, which causes no event on this thread.
    client: Mutex<Option<Client>>,
}

impl Plugin for Announce {
    const ABOUT: &'static str = "announces clients that register or leave, and the shutdown of the broker";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Announce { host, announcer: Arc::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        *self.announcer.client.lock() = Some(self.host.system_client());
        let announcer = self.announcer.clone();
        self.host.add_listener(move |event: &Event<'_>| announcer.announce(event));
        Ok(())
    }

    fn stop(&self, _: Duration) {
        self.announcer.end();
    }
}

impl Drop for Announce {
    fn drop(&mut self) {
        self.announcer.end();
    }
}

impl Announcer {
    fn announce(&self, event: &Event<'_>) {
        let Some(announcement) = Announcement::of(event) else { return };
        if event.kind == EventKind::PublicationsMissed {
            // the topics of the missed publications are unknown
            self.publish(event, &announcement);
            return self.publish(event, &announcement.into_alert());
        }
        self.publish(event, &announcement);
    }

    fn publish(&self, event: &Event<'_>, announcement: &Announcement<'_>) {
        let payload = match announcement.payload() {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "announcement cannot be encoded");
                return;
            }
        };
        let mut client = self.client.lock();
        let Some(client) = client.as_mut() else { return };
        let payloads = [Payload::from(&*payload)];
        let op = if event.kind == EventKind::PublicationsMissed { Op::PublishFor } else { Op::Publish };
        let mut request = Request::new(op, Qos::NO, announcement.topic(), &payloads);
        match event.kind {
            // events are dispatched later: the client may have subscribed meanwhile, and needs no
            // announcement of itself
            EventKind::ClientRegistered | EventKind::ClientLeft => request = request.except(event.subject),
            EventKind::PublicationsMissed => request = request.with_receiver(event.subject),
            _ => {}
        }
        // the shutdown announcement is the last one, so it must not be dropped
        if event.kind != EventKind::Shutdown {
            request = request.best_effort();
        }
        client.dispatch(&request.ending_batch());
    }

    fn end(&self) {
        let client = self.client.lock().take();
        drop(client); // outside the lock, since dropping enters the broker
    }
}

elbus_plugin_api::export_plugin!(Announce);
