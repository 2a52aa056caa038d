//! Events of the broker, dispatched to all listeners one at a time and in order, by a thread of their own.
//!
//! A change enqueues its event while it holds the lock of what it changes, so events have the order of the
//! changes; after it has released the lock it calls [`Events::dispatch`], which wakes the thread. A change
//! never waits for a listener. Listeners run without any lock of the broker held. The queue is bounded, see
//! [`queue`].

mod queue;

use elbus_plugin_api::{
    Event, EventKind,
    abi::{IntoRaw, ListenerObject},
};
use parking_lot::{Condvar, Mutex as PlainMutex};
use std::{
    io,
    sync::Arc,
    thread::{self, Thread},
    time::{Duration, Instant},
};

use self::queue::{EventQueue, PendingEvent};
use crate::{
    callbacks::{self, Callback},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// The events of a broker and their listeners.
#[derive(Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Lock order: after the registry's lock; no lock is taken while it is held.
    queue: Mutex<EventQueue>,
    /// Held while listeners are called; threads only try to lock it. Replaced when a listener does not
    /// return.
    dispatching: RwLock<Arc<Mutex<()>>>,
    listeners: RwLock<Vec<(u32, Arc<ListenerObject>)>>,
    /// The thread that dispatches. Without one, the thread that calls [`Events::dispatch`] does.
    thread: PlainMutex<Option<Thread>>,
    ended: AtomicBool,
    /// Signalled whenever the queue becomes empty. A leaf lock.
    idle: (PlainMutex<()>, Condvar),
}

impl Events {
    /// Starts the thread that dispatches; it ends with [`end`](Self::end), or when this is dropped.
    ///
    /// # Errors
    /// The thread could not be started. The threads that cause events then dispatch them.
    pub(crate) fn start(&self) -> io::Result<()> {
        let shared = self.0.clone();
        let dispatching = self.0.dispatching.read().clone();
        let body = move || {
            while !shared.ended.load(Ordering::Acquire) {
                shared.dispatch_queued();
                if !shared.is_current(&dispatching) {
                    return;
                }
                thread::park();
            }
            shared.dispatch_queued();
        };
        let handle = thread::Builder::new().name("elbus events".to_owned()).spawn(body)?;
        *self.0.thread.lock() = Some(handle.thread().clone());
        Ok(())
    }

    /// Abandons the dispatching thread, whose listener does not return, and starts another one.
    pub(crate) fn replace_thread(&self) {
        *self.0.dispatching.write() = Arc::default();
        self.0.queue.lock().mark_missed();
        if let Err(error) = self.start() {
            tracing::error!(%error, "no thread for events: the threads that cause them dispatch them");
            *self.0.thread.lock() = None;
        }
    }

    /// Lets the thread end once it has dispatched what is queued.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        if let Some(thread) = &*self.0.thread.lock() {
            thread.unpark();
        }
    }

    /// Adds a listener of an instance.
    pub(crate) fn add_listener(&self, owner: u32, listener: ListenerObject) {
        self.0.listeners.write().push((owner, Arc::new(listener)));
    }

    /// Removes the listeners of an instance.
    pub(crate) fn remove_owner(&self, owner: u32) {
        let mut removed = vec![];
        self.0.listeners.write().retain(|(o, listener)| {
            let stays = *o != owner;
            if !stays {
                removed.push(listener.clone());
            }
            stays
        });
        drop(removed); // runs code of the plugin: outside the lock
    }

    /// Enqueues an event with the current time. Must be followed by [`dispatch`](Events::dispatch).
    pub(crate) fn enqueue(&self, kind: EventKind, subject: &str, detail: &str) {
        let event = Event::now(kind, subject, detail);
        self.0.queue.lock().push(PendingEvent::new(kind, subject, detail, event.unix_nanos));
    }

    /// Wakes the thread that dispatches queued events. Must be called without any lock held.
    pub(crate) fn dispatch(&self) {
        let thread = self.0.thread.lock().clone();
        match thread {
            Some(thread) => thread.unpark(),
            None => self.0.dispatch_queued(),
        }
    }

    /// Blocks until the queued events are dispatched, for `limit` at most.
    pub(crate) fn flush(&self, limit: Duration) {
        self.dispatch();
        let end = Instant::now() + limit;
        let (lock, changed) = &self.0.idle;
        let mut idle = lock.lock();
        while !self.0.queue.lock().is_idle() {
            if changed.wait_until(&mut idle, end).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn dispatch_queued(&self) {
        // The queue is checked again after the lock was released: an event that was enqueued while another
        // thread held it, and whose own thread therefore left, is not forgotten.
        let current = self.dispatching.read().clone();
        while !self.queue.lock().is_empty() {
            let Some(dispatching) = current.try_lock() else { return };
            loop {
                if !self.is_current(&current) {
                    return; // replaced while a listener did not return
                }
                let now = Event::now(EventKind::EventsMissed, "", "").unix_nanos;
                let next = self.queue.lock().pop(now);
                let Some(event) = next else { break };
                self.call_listeners(&event, || self.is_current(&current));
            }
            let count = self.queue.lock().take_dropped_alerts();
            if count > 0 {
                tracing::warn!(count, "events dropped: listeners are too slow");
            }
            drop(dispatching);
        }
        let (lock, changed) = &self.idle;
        let _idle = lock.lock();
        changed.notify_all();
    }

    fn is_current(&self, dispatching: &Arc<Mutex<()>>) -> bool {
        Arc::ptr_eq(&self.dispatching.read(), dispatching)
    }

    /// Calls the listeners, unless this thread is replaced meanwhile.
    fn call_listeners(&self, event: &PendingEvent, is_current: impl Fn() -> bool) {
        let PendingEvent { kind, subject, detail, unix_nanos } = event;
        let event = Event::at(*unix_nanos, *kind, subject, detail);
        let listeners = self.listeners.read().clone();
        for (owner, listener) in listeners {
            callbacks::for_caller(owner, Callback::OnEvent, "the broker", || {
                listener.on_event(&event.into_raw())
            });
            if !is_current() {
                return;
            }
        }
    }
}
