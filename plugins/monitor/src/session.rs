//! A session: one client that monitors. Shared by the thread that sends to it and the methods that it calls.

use elbus_plugin_api::hooks::Hook;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::outbox::Totals;

/// One client that monitors.
pub(crate) struct Session {
    pub(crate) id: u64,
    /// Name and registration of the client.
    pub(crate) client: Box<str>,
    pub(crate) client_id: u64,
    pub(crate) started: Instant,
    /// The number of the last batch that the client has received.
    confirmed: AtomicU64,
    /// A leaf lock.
    state: Mutex<State>,
}

struct State {
    renewed: Instant,
    totals: Totals,
    /// Why the session ends, once it does.
    reason: Option<&'static str>,
    /// `None` once the session ends: nothing is observed any more, and the thread ends.
    hook: Option<Hook>,
    /// Whether the thread has ended.
    finished: bool,
}

impl Session {
    pub(crate) fn new(id: u64, client: &str, client_id: u64, hook: Hook) -> Self {
        let started = Instant::now();
        let state = State {
            renewed: started,
            totals: Totals::default(),
            reason: None,
            hook: Some(hook),
            finished: false,
        };
        let (confirmed, state) = (AtomicU64::new(0), Mutex::new(state));
        Session { id, client: client.into(), client_id, started, confirmed, state }
    }

    /// Ends the session. The first reason counts.
    pub(crate) fn end(&self, reason: &'static str) {
        let mut state = self.state.lock();
        state.reason.get_or_insert(reason);
        let hook = state.hook.take();
        drop(state);
        drop(hook); // enters the broker: outside the lock
    }

    /// Renews the lease. The client has received all batches up to this number.
    pub(crate) fn renew(&self, batch: u64) {
        self.confirmed.fetch_max(batch, Ordering::Relaxed);
        self.state.lock().renewed = Instant::now();
    }

    /// Returns the number of the last batch that the client has received.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Returns whether the lease has ended.
    pub(crate) fn is_expired(&self, lease: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.state.lock().renewed) > lease
    }

    /// Returns why the session ends, once it does.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.state.lock().reason
    }

    /// Records that the thread has ended.
    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
    }

    /// Returns whether the thread has ended.
    pub(crate) fn has_finished(&self) -> bool {
        self.state.lock().finished
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state.lock().totals
    }

    pub(crate) fn set_totals(&self, totals: Totals) {
        self.state.lock().totals = totals;
    }
}
