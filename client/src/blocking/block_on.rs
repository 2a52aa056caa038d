//! Waits for async functions. Owns the runtime of all blocking clients and the rule where waiting is allowed;
//! does not know the functions, and never uses a runtime of the program.

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
use tokio::{
    runtime::{Builder, Runtime},
    task::unconstrained,
};

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
    /// Returns whether this thread runs the tasks of the blocking clients. A wait on it would last until its
    /// limit.
    static RUNS_CLIENTS: Cell<bool> = const { Cell::new(false) };
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
        .on_thread_start(|| RUNS_CLIENTS.set(true))
        .enable_all()
        .build()
        .map_err(|error| Error::NoRuntime { source: Arc::new(error) })?;
    let runtime = Arc::new(BlockingRuntime(Some(started)));
    *current = Arc::downgrade(&runtime);
    Ok(runtime)
}

/// Waits for a future on this thread, which is parked and can belong to another runtime.
///
/// The runtime's own `block_on` panics if it is nested, and it would be: in a task of another runtime, and
/// if a method calls another client while its own is waited for.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Error> {
    if RUNS_CLIENTS.get() {
        return Err(Error::InAsyncContext);
    }
    // the future's timers and tasks belong to the runtime
    let runtime = runtime()?;
    let _context = runtime.0.as_ref().map(Runtime::enter);
    // a task that this function is called in gets no new budget of operations before the function returns
    let mut future = pin!(unconstrained(future));
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
        RUNS_CLIENTS.set(false);
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
    async fn a_wait_in_a_task_of_another_runtime_completes() {
        block_on(async { tokio::time::sleep(Duration::from_millis(1)).await }).unwrap();
        // more operations than one poll of a task can complete
        for number in 0..1000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            sender.send(number).unwrap();
            assert_eq!(block_on(receiver).unwrap(), Ok(number));
        }
    }

    #[test]
    fn a_wait_in_a_task_of_the_clients_is_an_error() {
        let waited = block_on(async {
            let in_task = tokio::spawn(async { block_on(async {}) }).await.unwrap();
            let in_function = run_blocking(|| block_on(async {})).await;
            (in_task, in_function)
        });
        assert!(matches!(waited, Ok((Err(Error::InAsyncContext), Ok(())))), "{waited:?}");
    }
}
