//! The thread that looks at receivers that hold senders. Owns the waiting; what is looked at is routing's.

use elbus_plugin_api::QueueBudget;
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::bell::Bell;
use crate::routing::Holds;

/// Starts the thread, which ends with the router. Without it receivers may hold their senders for any time.
pub(crate) fn watch_holds(holds: &Arc<Holds>, budget: &QueueBudget) {
    let bell = Arc::<Bell>::default();
    let rung = bell.clone();
    holds.set_waker(move || rung.ring());
    let watched = Arc::downgrade(holds);
    let body = move || watch(&watched, &bell);
    match std::thread::Builder::new().name("hold watch".to_owned()).spawn(body) {
        Ok(_) => holds.find_cycles(budget.clone()),
        Err(error) => {
            tracing::error!(%error, "hold budgets are not enforced: the thread could not be started");
        }
    }
}

fn watch(holds: &Weak<Holds>, bell: &Bell) {
    // not held while waiting: the router may be dropped meanwhile
    while let Some(next) = holds.upgrade().map(|holds| holds.check(Instant::now())) {
        bell.wait(next);
    }
}
