//! Windows: for each receiver the bytes that are queued, or sent and not yet taken by the far broker. Decides
//! which senders should wait.

use super::Pushed;
use crate::settings::Limits;
use foldhash::fast::RandomState;
use std::{collections::HashMap, sync::Arc};

/// The least that a receiver can have outstanding when the window of its node is exhausted, in bytes.
const LEAST_WINDOW: usize = 16 << 10;

/// All windows of an outbox. Window 0 is that of publications.
#[derive(Debug)]
pub(super) struct Windows {
    windows: HashMap<u64, Window, RandomState>,
    /// Windows with [`Window::is_full`].
    full: Vec<u64>,
    /// Sum of all windows.
    outstanding: usize,
    receiver_window: usize,
    node_window: usize,
    pair_credit: usize,
}

#[derive(Debug)]
struct Window {
    target: Arc<str>,
    outstanding: usize,
    max: usize,
    /// Whether senders wait for it to drain.
    is_full: bool,
    is_open: bool,
}

impl Windows {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut windows = HashMap::<u64, Window, RandomState>::default();
        windows.insert(0, Window::new(Arc::from(""), limits.publication_window));
        Windows {
            windows,
            full: Vec::new(),
            outstanding: 0,
            receiver_window: limits.receiver_window,
            node_window: limits.node_window,
            pair_credit: limits.pair_credit,
        }
    }

    /// Returns the name of the receiver.
    ///
    /// # Errors
    /// The window is closed, or too many bytes are outstanding already.
    pub(super) fn target(&self, id: u64) -> Result<Arc<str>, Pushed> {
        match self.windows.get(&id) {
            Some(window) if window.is_open => {
                if window.outstanding > 2 * window.max || self.outstanding > 2 * self.node_window {
                    return Err(Pushed::Refused);
                }
                Ok(Arc::clone(&window.target))
            }
            _ => Err(Pushed::Closed),
        }
    }

    /// Adds bytes that were queued.
    pub(super) fn add(&mut self, id: u64, bytes: usize) {
        self.outstanding += bytes;
        if let Some(window) = self.windows.get_mut(&id) {
            window.outstanding += bytes;
        }
    }

    /// Subtracts bytes that were taken or are lost. Returns whether the window had as many outstanding.
    pub(super) fn returned(&mut self, id: u64, bytes: usize) -> bool {
        let Some(window) = self.windows.get_mut(&id) else { return false };
        let returned = bytes.min(window.outstanding);
        window.outstanding -= returned;
        self.outstanding -= returned;
        if window.outstanding == 0 && !window.is_open {
            self.windows.remove(&id);
        }
        returned == bytes
    }

    pub(super) fn outstanding(&self, id: u64) -> usize {
        self.windows.get(&id).map_or(0, |window| window.outstanding)
    }

    pub(super) fn open(&mut self, id: u64, target: Arc<str>) {
        let max = self.receiver_window;
        let window = self.windows.entry(id).or_insert_with(|| Window::new(target, max));
        window.is_open = true;
    }

    pub(super) fn close(&mut self, id: u64) {
        if let Some(window) = self.windows.get_mut(&id) {
            window.is_open = false;
            if window.outstanding == 0 {
                self.windows.remove(&id);
            }
        }
    }

    /// Returns the most that a window may have outstanding at present.
    fn limit(&self, window: &Window) -> usize {
        let left = self.node_window.saturating_sub(self.outstanding) / 2;
        window.max.min(left.max(LEAST_WINDOW))
    }

    /// Determines whether senders to a window should wait, and notes it if they should. `load` are the bytes
    /// that the link has queued or in flight.
    pub(super) fn check_full(&mut self, id: u64, load: usize) -> bool {
        let Some(window) = self.windows.get(&id) else { return false };
        let is_full = window.outstanding > self.limit(window) || load > self.pair_credit;
        if is_full && !window.is_full {
            self.full.push(id);
            if let Some(window) = self.windows.get_mut(&id) {
                window.is_full = true;
            }
        }
        is_full
    }

    fn has_drained(&self, id: u64, load: usize) -> bool {
        self.windows
            .get(&id)
            .is_none_or(|window| window.outstanding <= self.limit(window) / 2 && load <= self.pair_credit / 2)
    }

    pub(super) fn is_full(&self, id: u64, load: usize) -> bool {
        self.windows.get(&id).is_some_and(|window| window.is_full) && !self.has_drained(id, load)
    }

    /// Returns windows that were full and are no longer.
    pub(super) fn take_drained(&mut self, load: usize) -> Vec<u64> {
        if self.full.is_empty() {
            return Vec::new();
        }
        let full = std::mem::take(&mut self.full);
        let (drained, full) = full.into_iter().partition(|id| self.has_drained(*id, load));
        self.full = full;
        for id in &drained {
            if let Some(window) = self.windows.get_mut(id) {
                window.is_full = false;
            }
        }
        drained
    }

    /// Removes all windows.
    pub(super) fn clear(&mut self) {
        self.windows.clear();
        self.full.clear();
        self.outstanding = 0;
    }
}

impl Window {
    fn new(target: Arc<str>, max: usize) -> Self {
        Window { target, outstanding: 0, max, is_full: false, is_open: true }
    }
}
