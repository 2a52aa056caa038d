//! Announcements of ELBUS: publishes as `.broker` who comes, who goes, and when the broker ends (section 8 of the
//! protocol).
//!
//! It owns the life of an instance and the sending. It decides nothing about clients, keeps nothing, and never
//! waits: a receiver that does not keep up is its transport's business.
#![deny(unsafe_code)]

mod announcement;

use elbus_plugin_api::{
    Client, Config, Event, EventKind, Host, Notifier, Op, Payload, Plugin, PluginError, Qos, Request,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
    /// The broker has been asked to say when receivers over their limit have drained.
    waiting: Arc<AtomicBool>,
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
        let mut request = Request::new(Op::Publish, Qos::NO, announcement.topic(), &payloads);
        if matches!(event.kind, EventKind::ClientRegistered | EventKind::ClientLeft) {
            // events are dispatched later: the client may have subscribed meanwhile, and knows about itself
            request = request.except(event.subject);
        }
        let _ = client.dispatch(&request);
        // Announcements hold nobody up, so nobody waits. But the broker keeps the receivers that are over their
        // limit until it is asked about them; once at a time is enough.
        if client.end_batch() && !self.waiting.swap(true, Ordering::AcqRel) {
            let waiting = self.waiting.clone();
            client.when_ready(Notifier::new(move || waiting.store(false, Ordering::Release)));
        }
    }

    fn end(&self) {
        let client = self.client.lock().take();
        drop(client); // outside the lock, since dropping enters the broker
    }
}

elbus_plugin_api::export_plugin!(Announce);

#[cfg(test)]
mod tests {
    use super::*;
    use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
    use elbus_plugin_api::{
        Code, Dispatch,
        abi::{NotifierObject, RawClient, RawClient_TO},
    };

    /// A speaker whose receivers are always over their limit.
    struct Crowded(Arc<Mutex<(usize, Vec<NotifierObject>)>>);

    impl RawClient for Crowded {
        fn dispatch(&mut self, _: &Request<'_>) -> Dispatch {
            self.0.lock().0 += 1;
            Dispatch::new(Code::Ok, 1)
        }
        fn end_batch(&mut self) -> bool {
            true
        }
        fn when_ready(&mut self, notifier: NotifierObject) {
            self.0.lock().1.push(notifier);
        }
        fn set_close_reason(&mut self, _: RStr<'_>) {}
    }

    #[test]
    fn full_receivers_are_asked_about_once_at_a_time_and_waited_for_never() {
        let seen = Arc::new(Mutex::new((0, Vec::new())));
        let client = Client::from_object(RawClient_TO::from_value(Crowded(seen.clone()), TD_Opaque));
        let speaker = Speaker { client: Mutex::new(Some(client)), waiting: Arc::default() };
        let event = Event::now(EventKind::ClientRegistered, "a", "");
        let counts = || {
            let seen = seen.lock();
            (seen.0, seen.1.len())
        };
        (0..3).for_each(|_| speaker.tell(&event));
        assert_eq!(counts(), (3, 1));
        let notifiers = std::mem::take(&mut seen.lock().1);
        notifiers.iter().for_each(|notifier| notifier.notify());
        speaker.tell(&event);
        assert_eq!(counts(), (4, 1));
        speaker.end();
        speaker.tell(&event);
        assert_eq!(counts().0, 4);
    }
}
