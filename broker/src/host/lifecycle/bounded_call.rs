//! Lifecycle calls with a time limit: the caller continues if a plugin does not return. Owns the waiting; the
//! caller decides what follows from a timeout.

use elbus_plugin_api::PluginError;
use std::{
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use crate::{
    callbacks::{self, Callback},
    host::api::context::BrokerContext,
};

/// Interval at which a waiting caller checks whether the broker is ending.
const STEP: Duration = Duration::from_millis(20);

/// The instance to call, and the thread to call it in.
#[derive(Clone, Copy)]
pub(super) struct Callee<'a> {
    pub(super) name: &'a str,
    pub(super) owner: u32,
    /// Linked in: called in the current thread, whose runtime it uses. Such a plugin is watched but has no
    /// time limit.
    pub(super) linked: bool,
}

impl Callee<'_> {
    /// Makes a call that may block, in a thread of its own unless the plugin is linked in.
    ///
    /// # Errors
    /// The plugin has not returned within `start_seconds`, or the broker is ending. The thread is then
    /// abandoned, and its late result is dropped.
    pub(super) fn call<R: Send + 'static>(
        self,
        context: &BrokerContext,
        callback: Callback,
        call: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, PluginError> {
        let owner = self.owner;
        if self.linked {
            return Ok(callbacks::for_caller(owner, callback, "the broker", call));
        }
        let (done, result) = mpsc::channel();
        let body = move || _ = done.send(callbacks::for_caller(owner, callback, "the broker", call));
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).spawn(body);
        spawned.map_err(|error| PluginError::new(format!("cannot start a thread: {error}")))?;
        let limit = context.start_limit();
        // counts steps instead of time, so that suspending the whole process makes no plugin late
        let mut steps_left = limit.as_nanos().div_ceil(STEP.as_nanos());
        let callback = callback.name();
        loop {
            match result.recv_timeout(STEP) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PluginError::new(format!("{callback} has ended without a result")));
                }
                Err(RecvTimeoutError::Timeout) if context.is_interrupted() => {
                    let plugin = self.name;
                    tracing::error!(plugin, callback, "callback abandoned: the broker is ending");
                    return Err(PluginError::new(format!("the broker is ending; abandoned in {callback}")));
                }
                Err(RecvTimeoutError::Timeout) if steps_left <= 1 => {
                    let seconds = limit.as_secs_f64();
                    let text = format!("{callback} has not returned within {seconds} s (start_seconds)");
                    return Err(PluginError::new(text));
                }
                Err(RecvTimeoutError::Timeout) => steps_left -= 1,
            }
        }
    }
}
