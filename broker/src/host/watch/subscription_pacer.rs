//! The thread that serves subscriptions with options when they are due. Owns the waiting; routing decides
//! what to do.

use elbus_plugin_api::QueueBudget;
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{host::wake_signal::WakeSignal, routing::Router};

/// Starts the thread, which ends with the router. Without it, the last value of an interval waits for the
/// next publication, and nothing that was missed is reported.
pub(crate) fn serve_subscriptions(router: &Arc<Router>, budget: &QueueBudget) {
    router.pacer.set_budget(budget.clone());
    let signal = Arc::<WakeSignal>::default();
    let signalled = signal.clone();
    router.pacer.set_waker(move || signalled.signal());
    let served = Arc::downgrade(router);
    let body = move || serve(&served, &signal);
    if let Err(error) = std::thread::Builder::new().name("subscriptions".to_owned()).spawn(body) {
        tracing::error!(%error, "$every and reports of missed messages do not work: cannot start a thread");
    }
}

fn serve(router: &Weak<Router>, signal: &WakeSignal) {
    // not held while waiting, so that the router can be dropped
    while let Some(next) = router.upgrade().map(|router| router.serve_due(Instant::now())) {
        signal.wait(next);
    }
}
