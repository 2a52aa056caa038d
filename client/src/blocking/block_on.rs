//! Waits for async functions. Owns the runtime of all blocking clients and the rule where waiting is not
//! allowed; never knows the functions.

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

use crate::error::Error;

/// The runtime of the blocking clients, while one exists.
static RUNTIME: Mutex<Weak<BlockingRuntime>> = Mutex::new(Weak::new());

/// A runtime that is shut down in the background, because it can be dropped in one of its own tasks.
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
    /// Whether this thread runs functions of the user, which can block, although it belongs to a runtime.
    static BLOCKING_ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Returns the runtime, which runs until the last reference to it is dropped. Each client holds one.
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
/// The runtime's own `block_on` panics if it is nested, and it would be: a method can call another client
/// while its own is waited for.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Error> {
    if Handle::try_current().is_ok() && !BLOCKING_ALLOWED.get() {
        return Err(Error::InAsyncContext);
    }
    // the future's timers and tasks belong to the runtime
    let runtime = runtime()?;
    let _context = runtime.0.as_ref().map(Runtime::enter);
    let mut future = pin!(future);
    // a future that is ready at once, as most sends are, needs no waker
    let first_poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(output) = first_poll {
        return Ok(output);
    }
    let thread_waker = Arc::new(ThreadWaker { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(thread_waker.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        while !thread_waker.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Wakes a thread that waits for one future. The flag is needed because a nested wait, or the user, can
/// consume the thread's park token.
struct ThreadWaker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs a function of the user on a thread on which it can block. There are as many such threads as needed,
/// up to 512. A panic is resumed in the caller.
pub(super) async fn run_blocking<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> T {
    let ran = tokio::task::spawn_blocking(|| {
        BLOCKING_ALLOWED.set(true);
        function()
    });
    match ran.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // cancelled by the end of the runtime, which does not end while a client waits
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};

    #[test]
    fn a_nested_wait_consumes_no_wake_of_the_outer_one() {
        let outcome = block_on(async {
            let mut woken = false;
            poll_fn(|context| {
                if std::mem::replace(&mut woken, true) {
                    return Poll::Ready(7);
                }
                BLOCKING_ALLOWED.set(true);
                context.waker().wake_by_ref();
                block_on(tokio::time::sleep(Duration::from_millis(1))).unwrap();
                Poll::Pending
            })
            .await
        });
        assert_eq!(outcome.unwrap(), 7);
    }

    #[test]
    fn a_panic_is_resumed_in_the_caller() {
        let caught = std::panic::catch_unwind(|| block_on(run_blocking(|| panic!("on purpose"))));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
    }

    #[tokio::test]
    async fn waiting_in_a_task_is_an_error() {
        assert!(matches!(block_on(async {}), Err(Error::InAsyncContext)));
        let blocking = tokio::task::spawn_blocking(|| block_on(async {})).await.unwrap();
        assert!(matches!(blocking, Err(Error::InAsyncContext)));
    }
}
