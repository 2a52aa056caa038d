//! Runs futures of the user that can panic. Owns the barrier; reports nothing.

use std::{future::poll_fn, panic::AssertUnwindSafe, task::Poll};

/// Runs a future to completion. Returns `None` if it panics.
pub(crate) async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
