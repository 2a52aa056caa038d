//! The thread that enforces hold budgets. Owns the waiting; routing decides what to examine and when.

use elbus_plugin_api::QueueBudget;
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{host::wake_signal::WakeSignal, routing::Holds};

/// Starts the thread, which ends with the router. Without it, receivers may hold their senders indefinitely.
pub(crate) fn watch_holds(holds: &Arc<Holds>, budget: &QueueBudget) {
    let signal = Arc::<WakeSignal>::default();
    let signalled = signal.clone();
    holds.set_waker(move || signalled.signal());
    let watched = Arc::downgrade(holds);
    let body = move || watch(&watched, &signal);
    match std::thread::Builder::new().name("hold watch".to_owned()).spawn(body) {
        Ok(_) => holds.find_cycles(budget.clone()),
        Err(error) => {
            tracing::error!(%error, "hold budgets are not enforced: cannot start a thread");
        }
    }
}

fn watch(holds: &Weak<Holds>, signal: &WakeSignal) {
    // not held while waiting, so that the router can be dropped
    while let Some(next) = holds.upgrade().map(|holds| holds.check(Instant::now())) {
        signal.wait(next);
    }
}
