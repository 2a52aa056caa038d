//! The thread that restarts failed instances. Owns the waiting; `restart_backoff` decides when a restart is
//! due, and `plugins` starts the instance.

use std::sync::{Arc, Weak};

use super::plugins::Plugins;

/// Starts the thread, which ends with the plugins. Without it failed instances stay failed.
pub(crate) fn supervise(plugins: &Arc<Plugins>) {
    let plugins = Arc::downgrade(plugins);
    let body = move || run(&plugins);
    if let Err(error) = std::thread::Builder::new().name("supervisor".to_owned()).spawn(body) {
        tracing::error!(%error, "failed plugins are not restarted: cannot start a thread");
    }
}

fn run(plugins: &Weak<Plugins>) {
    loop {
        // not held while waiting, so that the plugins can be dropped
        let Some((next, context)) = plugins
            .upgrade()
            .filter(|plugins| !plugins.has_ended())
            .map(|plugins| (plugins.next_restart(), plugins.context.clone()))
        else {
            return;
        };
        context.failures.wait(next);
        match plugins.upgrade() {
            Some(plugins) => plugins.restart_due(),
            None => return,
        }
    }
}
