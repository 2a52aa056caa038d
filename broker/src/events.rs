//! Events: what happened, told to all listeners one at a time and in order.
//!
//! Whoever changes something notes the event while holding the lock of what it changes, so the order of events is
//! that of the changes; after releasing the lock it calls [`Events::tell`]. If another thread is telling already,
//! that one takes the new events along. Listeners run without any lock of the broker held.

use elbus_plugin_api::{Event, EventKind, abi::ListenerObject};
use std::{collections::VecDeque, sync::Arc};

use crate::sync::{Mutex, RwLock};

/// Events and who hears them.
#[derive(Default)]
pub(crate) struct Events {
    /// Lock order: after the registry's lock, before nothing.
    noted: Mutex<VecDeque<Noted>>,
    /// Held by the thread that tells; only ever tried, so a listener may cause events itself.
    telling: Mutex<()>,
    listeners: RwLock<Vec<(u32, Arc<ListenerObject>)>>,
}

struct Noted {
    kind: EventKind,
    subject: String,
    detail: String,
    unix_nanos: u64,
}

impl Events {
    /// Adds a listener of an instance.
    pub(crate) fn listen(&self, owner: u32, listener: ListenerObject) {
        self.listeners.write().push((owner, Arc::new(listener)));
    }

    /// Removes the listeners of an instance.
    pub(crate) fn remove_owner(&self, owner: u32) {
        let mut gone = vec![];
        self.listeners.write().retain(|(o, listener)| {
            let stays = *o != owner;
            if !stays {
                gone.push(listener.clone());
            }
            stays
        });
        drop(gone); // runs code of the plugin: outside the lock
    }

    /// Notes an event of this moment, to be told by [`tell`](Events::tell).
    pub(crate) fn note(&self, kind: EventKind, subject: &str, detail: &str) {
        let event = Event::now(kind, subject, detail);
        let (subject, detail) = (subject.to_owned(), detail.to_owned());
        self.noted.lock().push_back(Noted { kind, subject, detail, unix_nanos: event.unix_nanos });
    }

    /// Tells what was noted. Call it without any lock held.
    pub(crate) fn tell(&self) {
        // The queue is looked at again after the lock was released: an event that was noted while another thread
        // held it, and whose own thread therefore left, is not forgotten.
        while !self.noted.lock().is_empty() {
            let Some(_telling) = self.telling.try_lock() else { return };
            loop {
                let next = self.noted.lock().pop_front();
                let Some(event) = next else { break };
                let event = Event {
                    kind: event.kind,
                    subject: &event.subject,
                    detail: &event.detail,
                    unix_nanos: event.unix_nanos,
                };
                let listeners: Vec<_> = self.listeners.read().iter().map(|(_, l)| l.clone()).collect();
                listeners.iter().for_each(|listener| listener.on_event(&event.to_raw()));
            }
        }
    }
}
