//! Announcements of ELBUS: publishes as `.broker` who comes, who goes, and when the broker ends (section 8
//! of the protocol).
//!
//! It owns the life of an instance and the sending. It decides nothing about clients, keeps nothing, and
//! never waits: announcements are best effort, and a client that missed some gets `resync` when its queue
//! has drained.
#![deny(unsafe_code)]

mod announcement;

use elbus_plugin_api::{
    Client, Config, Event, EventKind, Host, Op, Payload, Plugin, PluginError, Qos, Request,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use announcement::Announcement;

/// The announcer.
pub struct Announce {
    host: Host,
    speaker: Arc<Speaker>,
}

/// Who speaks, from [`start`](Plugin::start) to [`stop`](Plugin::stop).
#[derive(Default)]
struct Speaker {
    /// Events come one at a time, hence the lock is for the moments of starting and stopping. Held while
    /// dispatching, which leads to no event on this thread before it is released.
    client: Mutex<Option<Client>>,
}

impl Plugin for Announce {
    const ABOUT: &'static str = "publishes who comes, who goes, and when the broker ends";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Announce { host, speaker: Arc::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        *self.speaker.client.lock() = Some(self.host.system_client());
        let speaker = self.speaker.clone();
        self.host.add_listener(move |event: &Event<'_>| speaker.tell(event));
        Ok(())
    }

    fn stop(&self, _: Duration) {
        self.speaker.end();
    }
}

impl Drop for Announce {
    fn drop(&mut self) {
        self.speaker.end();
    }
}

impl Speaker {
    fn tell(&self, event: &Event<'_>) {
        let Some(announcement) = Announcement::of(event) else { return };
        if event.kind == EventKind::PublicationsMissed {
            // which topic it has missed something of is not known
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
            // events are dispatched later: the client may have subscribed meanwhile, and knows about itself
            EventKind::ClientRegistered | EventKind::ClientLeft => request = request.except(event.subject),
            EventKind::PublicationsMissed => request = request.with_receiver(event.subject),
            _ => {}
        }
        // the only one that nothing follows
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
