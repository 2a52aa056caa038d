//! The task that reads from a connection: requests to read, and waiting for the end of the connection.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use crate::connection::Connection;

impl Connection {
    /// Makes the reader read everything that has arrived, whether or not readiness was reported.
    pub(crate) fn request_read(&self) {
        self.is_read_requested.store(true, Ordering::Release);
        if let Some(reader) = &self.lock().reader {
            reader.wake_by_ref();
        }
    }

    /// Returns whether a [requested read](Self::request_read) is not complete.
    #[inline]
    pub(crate) fn is_read_requested(&self) -> bool {
        self.is_read_requested.load(Ordering::Acquire)
    }

    /// The reader has found nothing more to read.
    pub(crate) fn finish_requested_read(&self) {
        self.is_read_requested.store(false, Ordering::Release);
    }

    /// Waits until `other` is done or the connection has closed.
    pub(crate) async fn wait_unless_closed(&self, mut other: impl Future<Output = ()> + Unpin) {
        poll_fn(|context| {
            if self.poll_closed(context).is_ready() {
                return Poll::Ready(());
            }
            Pin::new(&mut other).poll(context)
        })
        .await;
    }

    /// Makes the calling task the reader that is woken by requests and closing.
    pub(crate) async fn set_reader(&self) {
        poll_fn(|context| {
            _ = self.poll_closed(context);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_closed(&self, context: &Context<'_>) -> Poll<()> {
        let mut out = self.lock();
        if out.is_closed() {
            return Poll::Ready(());
        }
        match &mut out.reader {
            Some(reader) => reader.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}
