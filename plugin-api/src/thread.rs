//! A thread of a plugin: behind the panic barrier, and waited for no longer than one has time.

use std::{
    convert::Infallible,
    sync::{Arc, mpsc},
    thread::{self, ThreadId},
    time::Duration,
};

use crate::{PluginError, guard::PanicScope};

/// A thread of an instance, made by [`Host::spawn`](crate::Host::spawn). Dropping it lets the thread run on.
#[derive(Debug)]
pub struct PluginThread {
    id: ThreadId,
    /// Nothing is ever sent: it disconnects when the thread ends, however it ends.
    ended: mpsc::Receiver<Infallible>,
}

impl PluginThread {
    pub(crate) fn spawn(
        instance: Arc<PanicScope>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self, PluginError> {
        let (alive, ended) = mpsc::channel();
        let name = instance.name().to_owned();
        let body = move || {
            let _alive = alive;
            instance.run_even_failed("a thread", |_| (), work);
        };
        let spawned = thread::Builder::new().name(name).spawn(body);
        let handle = spawned.map_err(|error| PluginError::new(format!("cannot start a thread: {error}")))?;
        Ok(PluginThread { id: handle.thread().id(), ended })
    }

    /// Blocks until the thread has ended, `limit` at most; whether it has. Called in that thread itself it does not
    /// wait, and says `true`: the thread ends when its caller returns.
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
    fn waited_for_within_limits() {
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
        let (tell, told) = mpsc::channel();
        let thread = FakeHost::new().host("x").spawn(move || {
            let itself = take.recv().unwrap();
            tell.send(itself.ended_within(Duration::from_secs(60))).unwrap();
        });
        give.send(thread.unwrap()).unwrap();
        assert!(told.recv_timeout(Duration::from_secs(30)).unwrap());
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
