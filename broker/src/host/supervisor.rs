//! The thread that starts failed instances again when it is time. Owns the waiting; when it is time is `revival`'s, how
//! an instance is started is `plugins`'.

use std::sync::{Arc, Weak};

use super::{core::Core, plugins::Plugins};

/// Starts the thread, which ends with the plugins. Without it failed instances stay failed.
pub(super) fn supervise(plugins: &Arc<Plugins>, core: Arc<Core>) {
    let plugins = Arc::downgrade(plugins);
    let body = move || watch(&plugins, &core);
    if let Err(error) = std::thread::Builder::new().name("supervisor".to_owned()).spawn(body) {
        tracing::error!(%error, "no thread to start failed plugins again in");
    }
}

fn watch(plugins: &Weak<Plugins>, core: &Core) {
    loop {
        // not held while waiting: the plugins may be dropped meanwhile
        let Some(next) = plugins.upgrade().filter(|plugins| !plugins.has_ended()).map(|p| p.next_revival())
        else {
            return;
        };
        core.failures.wait(next);
        match plugins.upgrade() {
            Some(plugins) => plugins.revive(),
            None => return,
        }
    }
}
