//! Calls of an instance's lifecycle with a limit: the thread that waits goes on when a plugin does not return. Owns the
//! waiting; what follows from it is the caller's.

use elbus_plugin_api::{PluginError, Status, abi::InstanceObject};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::core::Core;
use crate::calls::{self, Callback};

/// While a plugin is waited for, it is looked this often whether the broker is ending.
const STEP: Duration = Duration::from_millis(20);

/// Who is called, and where.
#[derive(Clone, Copy)]
pub(super) struct Callee<'a> {
    pub(super) name: &'a str,
    pub(super) owner: u32,
    /// Linked in: called in this thread, whose runtime it uses. Such a plugin is watched, but waited for.
    pub(super) linked: bool,
}

impl Callee<'_> {
    /// Makes a call that may block, in a thread of its own unless the plugin is linked in.
    ///
    /// # Errors
    /// It has not returned within the limit, or the broker is ending: then its thread is abandoned, and what the call
    /// returns later is dropped.
    pub(super) fn call<R: Send + 'static>(
        self,
        core: &Core,
        callback: Callback,
        call: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, PluginError> {
        let owner = self.owner;
        if self.linked {
            return Ok(calls::other(owner, callback, "the broker", call));
        }
        let (done, waiting) = mpsc::channel();
        let body = move || _ = done.send(calls::other(owner, callback, "the broker", call));
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).spawn(body);
        spawned.map_err(|error| PluginError::new(format!("cannot start a thread: {error}")))?;
        let limit = core.start_limit();
        // waits rather than time: while the whole process is stopped, nobody is late
        let mut left = limit.as_nanos().div_ceil(STEP.as_nanos());
        let callback = callback.name();
        loop {
            match waiting.recv_timeout(STEP) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PluginError::new(format!("{callback} has ended without a result")));
                }
                Err(RecvTimeoutError::Timeout) if core.is_interrupted() => {
                    let plugin = self.name;
                    tracing::error!(plugin, callback, "abandoned: the broker is ending");
                    return Err(PluginError::new(format!("the broker is ending; abandoned in {callback}")));
                }
                Err(RecvTimeoutError::Timeout) if left <= 1 => {
                    let seconds = limit.as_secs_f64();
                    let text = format!("{callback} has not returned within {seconds} s (start_seconds)");
                    return Err(PluginError::new(text));
                }
                Err(RecvTimeoutError::Timeout) => left -= 1,
            }
        }
    }
}

/// How long a status is waited for.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// What an instance has said of itself last. Asking it never blocks for long.
#[derive(Default)]
pub(super) struct StatusCell(Mutex<(u32, Arc<Asked>)>);

#[derive(Default)]
struct Asked {
    /// When the question was asked that has not been answered yet. A leaf.
    since: Mutex<Option<Instant>>,
    /// A leaf.
    last: Mutex<Status>,
}

impl StatusCell {
    /// Asks an instance in a thread of its own. If it does not answer, or the previous question is still unanswered, this
    /// is what it said last.
    pub(super) fn ask(&self, object: Option<Arc<InstanceObject>>, name: &str, owner: u32) -> Status {
        let Some(object) = object else { return Status::default() };
        let asked = self.of(owner);
        {
            let mut since = asked.since.lock();
            if since.is_some() {
                drop(since);
                return asked.last.lock().clone();
            }
            *since = Some(Instant::now());
        }
        let (answering, (done, waiting)) = (asked.clone(), mpsc::channel::<()>());
        let body = move || {
            let _done = done;
            let status = calls::other(owner, Callback::Status, "the broker", || object.status());
            *answering.last.lock() = Status::from_raw(status);
            *answering.since.lock() = None;
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        if spawned.is_err() {
            *asked.since.lock() = None;
        }
        _ = waiting.recv_timeout(STATUS_PATIENCE);
        asked.last.lock().clone()
    }

    /// Whether a question to the instance as it is now has not been answered although it was waited for. One that somebody
    /// else has asked this moment proves nothing.
    pub(super) fn is_unanswered(&self, owner: u32) -> bool {
        self.of(owner).since.lock().is_some_and(|since| since.elapsed() >= STATUS_PATIENCE)
    }

    /// That of the instance as it is now: a question to an earlier one may never be answered.
    fn of(&self, owner: u32) -> Arc<Asked> {
        let mut current = self.0.lock();
        if current.0 != owner {
            *current = (owner, Arc::default());
        }
        current.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi_stable::{sabi_trait::TD_Opaque, std_types::RResult};
    use elbus_plugin_api::abi::{RawInstance, RawInstance_TO, RawPluginError, RawStatus};

    /// Says when it is asked, and answers when it is told to.
    struct Slow {
        asked: mpsc::Sender<()>,
        told: Mutex<mpsc::Receiver<()>>,
    }

    impl RawInstance for Slow {
        fn start(&self) -> RResult<(), RawPluginError> {
            RResult::ROk(())
        }
        fn serve(&self) {}
        fn stop(&self, _: u64) {}
        fn status(&self) -> RawStatus {
            _ = self.asked.send(());
            _ = self.told.lock().recv();
            RawStatus::default()
        }
        fn refresh(&self) -> RResult<(), RawPluginError> {
            RResult::ROk(())
        }
    }

    #[test]
    fn who_is_asked_by_another_at_the_same_moment_is_not_silent() {
        let owner = 1_000_003;
        let ((asked, was_asked), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let slow = Slow { asked, told: Mutex::new(told) };
        let object = Arc::new(RawInstance_TO::from_value(slow, TD_Opaque));
        let cell = StatusCell::default();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| cell.ask(Some(object.clone()), "slow", owner));
            was_asked.recv().unwrap();
            cell.ask(Some(object.clone()), "slow", owner);
            assert!(!cell.is_unanswered(owner), "asked a moment ago");
            other.join().unwrap();
        });
        assert!(cell.is_unanswered(owner), "and waited for");
        tell.send(()).unwrap();
        while cell.of(owner).since.lock().is_some() {
            std::thread::yield_now();
        }
        assert!(!cell.is_unanswered(owner));
    }
}
