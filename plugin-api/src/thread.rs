//! Threads of a plugin: behind the panic barrier, and waited for no longer than a limit.

use std::{
    convert::Infallible,
    sync::{Arc, mpsc},
    thread::{self, ThreadId},
    time::Duration,
};

use crate::{abi::guard::PanicScope, plugin_error::PluginError};

/// A thread of an instance, created by [`Host::spawn`](crate::Host::spawn). Dropping it does not stop the
/// thread.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{PluginError, testing::FakeHost};
/// use std::time::Duration;
///
/// let fake = FakeHost::new();
/// let thread = fake.host("demo").spawn(|| tracing::info!("working"))?;
/// assert!(thread.ended_within(Duration::from_secs(10)));
/// # Ok::<(), PluginError>(())
/// ```
#[derive(Debug)]
pub struct PluginThread {
    id: ThreadId,
    /// Nothing is ever sent: it disconnects when the thread ends, even by a panic.
    ended: mpsc::Receiver<Infallible>,
}

impl PluginThread {
    pub(crate) fn spawn(
        scope: Arc<PanicScope>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self, PluginError> {
        let (alive, ended) = mpsc::channel();
        let name = scope.name().to_owned();
        let body = move || {
            let _alive = alive;
            scope.run_even_failed("a thread", |_| (), work);
        };
        let spawned = thread::Builder::new().name(name).spawn(body);
        let handle = spawned.map_err(|error| PluginError::new(format!("cannot create a thread: {error}")))?;
        Ok(PluginThread { id: handle.thread().id(), ended })
    }

    /// Blocks until the thread has ended, at most for `limit`, and returns whether it has. Called in that
    /// thread itself it returns `true` immediately: the thread ends when its caller returns.
    pub fn ended_within(self, limit: Duration) -> bool {
        thread::current().id() == self.id
            || self.ended.recv_timeout(limit) != Err(mpsc::RecvTimeoutError::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;

    #[test]
    fn waiting_for_a_thread_has_a_limit() {
        let fake = FakeHost::new();
        let (go, wait) = mpsc::channel::<()>();
        let thread = fake.host("x").spawn(move || _ = wait.recv()).unwrap();
        assert!(!thread.ended_within(Duration::from_millis(1)));
        drop(go);
        let quick = fake.host("x").spawn(|| ()).unwrap();
        assert!(quick.ended_within(Duration::from_secs(30)));
        assert!(fake.failures().is_empty());
    }

    #[test]
    fn a_thread_does_not_wait_for_itself() {
        let (give, take) = mpsc::channel::<PluginThread>();
        let (sender, receiver) = mpsc::channel();
        let thread = FakeHost::new().host("x").spawn(move || {
            let itself = take.recv().unwrap();
            sender.send(itself.ended_within(Duration::from_secs(60))).unwrap();
        });
        give.send(thread.unwrap()).unwrap();
        assert!(receiver.recv_timeout(Duration::from_secs(30)).unwrap());
    }

    #[test]
    fn a_panic_fails_the_instance() {
        let fake = FakeHost::new();
        let thread = fake.host("x").spawn(|| panic!("broken")).unwrap();
        assert!(thread.ended_within(Duration::from_secs(30)));
        let failures = fake.failures();
        assert!(failures.len() == 1 && failures[0].starts_with("panic in a thread: broken"), "{failures:?}");
    }
}
