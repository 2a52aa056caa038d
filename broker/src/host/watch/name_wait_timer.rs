//! The thread that ends the waits for names when their time is over. Owns the waiting; routing decides which
//! waits end.

use elbus_plugin_api::QueueBudget;
use std::{
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use crate::{host::wake_signal::WakeSignal, routing::Router};

/// Starts the thread with the first name resolver. It ends with the router.
#[derive(Default)]
pub(crate) struct NameWaitTimer(OnceLock<()>);

impl NameWaitTimer {
    /// Starts the thread, unless it was started before.
    pub(crate) fn start(&self, router: &Arc<Router>, budget: &QueueBudget) {
        self.0.get_or_init(|| {
            let signal = Arc::<WakeSignal>::default();
            let signalled = signal.clone();
            router.set_wait_timer(budget.clone(), move || signalled.signal());
            let router = Arc::downgrade(router);
            let body = move || end_waits(&router, &signal);
            if let Err(error) = std::thread::Builder::new().name("name waits".to_owned()).spawn(body) {
                tracing::error!(%error, "messages wait for names without a limit: cannot start a thread");
            }
        });
    }
}

fn end_waits(router: &Weak<Router>, signal: &WakeSignal) {
    // not held while waiting, so that the router can be dropped
    while let Some(next) = router.upgrade().map(|router| router.end_due_waits(Instant::now())) {
        signal.wait(next);
    }
}
