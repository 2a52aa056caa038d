//! How a blocking function waits for an async one. Owns the runtime behind all blocking clients, and the rule where
//! waiting is forbidden; never knows what is waited for.

use parking_lot::Mutex;
use std::{
    cell::Cell,
    panic::resume_unwind,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::Error;

/// The runtime of the blocking clients, while there are any.
static RUNTIME: Mutex<Weak<BlockingRuntime>> = Mutex::new(Weak::new());

/// A runtime that ends in the background, since it may be dropped anywhere: also in one of its own tasks.
#[derive(Debug)]
pub(super) struct BlockingRuntime(Option<Runtime>);

impl Drop for BlockingRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

thread_local! {
    /// This is a thread that runs users' functions, and nothing async.
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// The runtime, which is there for as long as somebody keeps what this returns: each client does.
pub(super) fn runtime() -> Result<Arc<BlockingRuntime>, Error> {
    let mut current = RUNTIME.lock();
    if let Some(runtime) = current.upgrade() {
        return Ok(runtime);
    }
    let started = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("elbus client")
        .enable_all()
        .build()
        .map_err(|error| Error::NoRuntime { source: Arc::new(error) })?;
    let runtime = Arc::new(BlockingRuntime(Some(started)));
    *current = Arc::downgrade(&runtime);
    Ok(runtime)
}

/// Waits for a future on this thread.
///
/// Not with the runtime's own `block_on`, which panics where it is nested: a method may call another client, and both
/// wait here.
pub(super) fn wait<F: Future>(future: F) -> Result<F::Output, Error> {
    if Handle::try_current().is_ok() && !MAY_WAIT.get() {
        return Err(Error::InAsyncContext);
    }
    // timers and tasks of the future belong there
    let runtime = runtime()?;
    let _context = runtime.0.as_ref().map(Runtime::enter);
    let mut future = pin!(future);
    // what is only queued, and a frame that is there, needs nothing to be woken by
    let at_once = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(output) = at_once {
        return Ok(output);
    }
    let parked = Arc::new(Parked { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(parked.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        while !parked.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// A thread that waits for one future. The flag is its own: a nested wait, or the user, may take the token of the thread.
struct Parked {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs a user's function where it may wait, of which there are as many threads as are needed, up to 512. A panic goes
/// on in the caller.
pub(super) async fn apart<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> T {
    let ran = tokio::task::spawn_blocking(|| {
        MAY_WAIT.set(true);
        function()
    });
    match ran.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // only a runtime that ends cancels, and it does not while somebody waits
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};

    #[test]
    fn a_wait_within_a_wait_takes_no_wake_from_it() {
        let outcome = wait(async {
            let mut woken = false;
            poll_fn(|context| {
                if std::mem::replace(&mut woken, true) {
                    return Poll::Ready(7);
                }
                MAY_WAIT.set(true);
                context.waker().wake_by_ref();
                wait(tokio::time::sleep(Duration::from_millis(1))).unwrap();
                Poll::Pending
            })
            .await
        });
        assert_eq!(outcome.unwrap(), 7);
    }

    #[test]
    fn a_panic_goes_on_in_the_caller() {
        let caught = std::panic::catch_unwind(|| wait(apart(|| panic!("as it should"))));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "as it should");
    }

    #[tokio::test]
    async fn tasks_must_not_wait() {
        assert!(matches!(wait(async {}), Err(Error::InAsyncContext)));
        let blocking = tokio::task::spawn_blocking(|| wait(async {})).await.unwrap();
        assert!(matches!(blocking, Err(Error::InAsyncContext)));
    }
}
