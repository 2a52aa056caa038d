//! The thread that looks at receivers that hold senders. Owns the waiting; what is looked at is routing's.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::bell::Bell;
use crate::routing::Holds;

/// Starts the thread, which ends with the router. Without it receivers may hold their senders for any time.
pub(crate) fn watch_holds(holds: &Arc<Holds>) {
    let bell = Arc::<Bell>::default();
    let rung = bell.clone();
    holds.set_bell(move || rung.ring());
    let holds = Arc::downgrade(holds);
    let body = move || watch(&holds, &bell);
    if let Err(error) = std::thread::Builder::new().name("hold watch".to_owned()).spawn(body) {
        tracing::error!(%error, "hold budgets are not enforced: the thread could not be started");
    }
}

fn watch(holds: &Weak<Holds>, bell: &Bell) {
    // not held while waiting: the router may be dropped meanwhile
    while let Some(next) = holds.upgrade().map(|holds| holds.look(Instant::now())) {
        bell.wait(next);
    }
}
