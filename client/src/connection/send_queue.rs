//! The sending side of a connection. Owns the frames to be written, the operations that wait for their
//! acknowledgement and the decision when to write; never reads, and wakes no task while it holds its lock.
//!
//! A frame after a pause is written at once by its sender. Frames that follow closely are gathered: the
//! flusher task writes them when it is scheduled, or the next sender does after [`GATHER_WINDOW`]. A sender
//! that has queued many frames has probably only let other tasks run, so the flusher lets it continue once
//! more. So a single frame never waits, and a stream of frames takes few writes without an explicit batch.

use elbus_protocol::{
    EncodeError, Op, Qos,
    request::{PING, encode_filters, encode_request_head},
};
use elbus_socket::{Queue, Socket};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

use super::{
    ack_table::{AckEvent, AckTable, FrameAck, PendingAck},
    request::Request,
};
use crate::{error::Error, receive::read_limit::ReadLimit};

/// For this long after a write, further frames are gathered.
const GATHER_WINDOW: Duration = Duration::from_micros(40);
/// A sender that has queued this many frames since the flusher last looked is likely to continue.
const STREAM_FRAMES: u32 = 64;
/// Number of gathered frames after which the clock is read again.
const CLOCK_INTERVAL: u32 = 16;
/// Payloads from this size on are queued by reference count instead of copied, in bytes.
const SHARE_FROM_BYTES: usize = 64 * 1024;

/// Why a frame was not queued.
pub(crate) enum QueueError {
    /// The queue is full: the sender has to wait.
    Full,
    Failed(Error),
}

impl From<Error> for QueueError {
    fn from(error: Error) -> Self {
        QueueError::Failed(error)
    }
}

pub(crate) struct SendQueue {
    limit: usize,
    max_frame_bytes: usize,
    read_limit: Arc<ReadLimit>,
    flush_requested: Notify,
    /// A leaf lock, except for the pool of spare buffers.
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    socket: Option<Arc<Socket>>,
    /// Why there is no socket.
    disconnect_reason: Error,
    /// The socket accepts no more; the flusher waits for it.
    full: bool,
    /// The flusher has been notified.
    flush_pending: bool,
    /// Frames queued since then, or since the flusher last looked.
    gathered: u32,
    last_write: Instant,
    /// A frame was sent since the last [`SendQueue::ping_if_idle`].
    sent_since_ping: bool,
    acks: AckTable,
    /// Tasks that wait until at most this many bytes are queued.
    waiters: Vec<(usize, Waker)>,
    frames: u64,
    bytes: u64,
}

/// What the flusher has to do next.
pub(crate) enum FlushResult {
    /// Wait for the next request.
    Done,
    /// Let other tasks run, and flush again.
    Gathering,
    /// Wait until the socket is writable.
    Full(Arc<Socket>),
    /// End: there is no connection.
    Disconnected,
}

impl SendQueue {
    pub(crate) fn new(limit: usize, max_frame_bytes: usize, read_limit: Arc<ReadLimit>) -> Self {
        SendQueue {
            limit,
            max_frame_bytes,
            flush_requested: Notify::new(),
            state: Mutex::new(State {
                queue: Queue::default(),
                socket: None,
                disconnect_reason: Error::disconnected("not yet connected"),
                full: false,
                flush_pending: false,
                gathered: 0,
                last_write: Instant::now(),
                sent_since_ping: false,
                acks: AckTable::new(read_limit.clone()),
                waiters: Vec::new(),
                frames: 0,
                bytes: 0,
            }),
            read_limit,
        }
    }

    /// Queues a frame with target and payload. Returns its operation id, for the acknowledgement.
    #[inline]
    pub(crate) fn send(&self, request: &Request<'_>, ack: Option<FrameAck>) -> Result<u32, QueueError> {
        let Request { op, qos, target, receiver, head, payload } = request;
        let len = head.len().saturating_add(payload.len());
        if len > self.max_frame_bytes {
            return Err(Error::FrameTooLong { len, limit: self.max_frame_bytes }.into());
        }
        self.queue(qos.is_realtime(), ack, |queue, op_id| {
            let write_head = |out: &mut Vec<u8>| {
                encode_request_head(out, op_id, *op, *qos, target, receiver, len)?;
                out.extend_from_slice(head);
                Ok(())
            };
            if payload.len() >= SHARE_FROM_BYTES {
                queue.push_large(payload.clone(), write_head)
            } else {
                queue.push_with(1, |out| {
                    write_head(out)?;
                    out.extend_from_slice(payload);
                    Ok(())
                })
            }
        })
    }

    /// Queues a topic operation. Returns its operation id.
    pub(crate) fn change_filters(
        &self,
        op: Op,
        filters: &[&str],
        ack: PendingAck,
    ) -> Result<u32, QueueError> {
        self.queue(false, Some(ack), |queue, op_id| {
            queue.push_with(1, |out| encode_filters(out, op_id, op, Qos::PROCESSED, filters.iter().copied()))
        })
    }

    /// Queues a ping.
    pub(crate) fn ping(&self) -> Result<(), Error> {
        let queued = self.queue(false, None::<FrameAck>, |queue, _| {
            queue.push(&PING, 1);
            Ok(())
        });
        match queued {
            Ok(_) | Err(QueueError::Full) => Ok(()), // the queued frames are a sign of life as well
            Err(QueueError::Failed(error)) => Err(error),
        }
    }

    /// Queues a ping, unless a frame has been sent since the last call.
    pub(crate) fn ping_if_idle(&self) {
        let mut state = self.state.lock();
        let idle = !std::mem::replace(&mut state.sent_since_ping, false);
        if idle && let Some(socket) = &state.socket {
            socket.give_back_memory();
        }
        drop(state);
        if idle {
            // without a connection there is nothing to keep alive
            let _ = self.ping();
            self.state.lock().sent_since_ping = false;
        }
    }

    #[inline]
    fn queue(
        &self,
        realtime: bool,
        ack: Option<impl Into<PendingAck>>,
        append: impl FnOnce(&mut Queue, u32) -> Result<(), EncodeError>,
    ) -> Result<u32, QueueError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.socket.is_none() {
            return Err(state.disconnect_reason.clone().into());
        }
        let queued = state.queue.bytes();
        if queued > self.limit {
            match self.limit.saturating_mul(2) {
                _ if !realtime => return Err(QueueError::Full),
                limit if queued > limit => return Err(Error::QueueFull { queued, limit }.into()),
                _ => {}
            }
        }
        let alone = ack.is_some() && state.acks.is_empty();
        let op_id = if ack.is_some() { state.acks.next_id() } else { 0 };
        append(&mut state.queue, op_id).map_err(Error::from)?;
        if let Some(ack) = ack {
            state.acks.insert(ack.into());
        }
        state.frames += 1;
        state.bytes += (state.queue.bytes() - queued) as u64;
        state.sent_since_ping = true;
        if state.full {
            return Ok(op_id);
        }
        // nothing else is in flight, or the last write was a while ago: there is nothing to gather
        if realtime || alone || state.is_write_due() {
            let wakers = self.write(state);
            drop(guard);
            wake_all(wakers);
        } else if !std::mem::replace(&mut state.flush_pending, true) {
            state.gathered = 0;
            drop(guard);
            self.flush_requested.notify_one();
        }
        Ok(op_id)
    }

    /// Writes the queue once. The caller wakes the returned wakers after it has released its lock.
    fn write(&self, state: &mut State) -> Vec<Waker> {
        state.flush_pending = false;
        let Some(socket) = &state.socket else { return Vec::new() };
        match socket.send(&state.queue) {
            Ok(sent) => state.queue.advance(sent),
            Err(error) => {
                tracing::debug!(%error, "write failed");
                socket.shutdown(); // the reader wakes, reads what has arrived, and ends the connection
                return self.reset(state, &Error::disconnected_by("write failed", error));
            }
        }
        let was_full = std::mem::replace(&mut state.full, !state.queue.is_empty());
        if state.full {
            if !was_full {
                self.flush_requested.notify_one();
            }
        } else {
            state.last_write = Instant::now();
        }
        state.take_ready_waiters()
    }

    /// Writes the queue for the flusher.
    pub(crate) fn flush(&self) -> FlushResult {
        let mut state = self.state.lock();
        let is_stream = std::mem::take(&mut state.gathered) >= STREAM_FRAMES;
        if is_stream && !state.full && state.last_write.elapsed() < GATHER_WINDOW {
            return FlushResult::Gathering;
        }
        let wakers = if state.queue.is_empty() { Vec::new() } else { self.write(&mut state) };
        state.flush_pending = false;
        let result = match &state.socket {
            None => FlushResult::Disconnected,
            Some(socket) if state.full => FlushResult::Full(socket.clone()),
            Some(_) => FlushResult::Done,
        };
        drop(state);
        wake_all(wakers);
        result
    }

    /// Waits until a flush is requested.
    pub(crate) async fn flush_requested(&self) {
        self.flush_requested.notified().await;
    }

    /// Waits until senders can continue, or the connection is lost.
    pub(crate) async fn capacity(&self) {
        self.wait_for_at_most(self.limit / 2).await;
    }

    /// Waits until everything is written, or the connection is lost.
    pub(crate) async fn drained(&self) {
        self.wait_for_at_most(0).await;
    }

    async fn wait_for_at_most(&self, bytes: usize) {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock();
            if state.socket.is_none() || state.queue.bytes() <= bytes {
                return Poll::Ready(());
            }
            state.waiters.push((bytes, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Returns a future of the outcome of an operation; dropping it forgets the operation.
    pub(crate) fn acknowledgement(&self, op_id: u32) -> Acknowledgement<'_> {
        Acknowledgement { queue: self, key: Some(op_id as usize) }
    }

    /// Processes received acknowledgements.
    pub(crate) fn acknowledge(&self, acks: &[(u32, u8)], events: &mut Vec<AckEvent>) {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        for &(op_id, code) in acks {
            state.acks.complete(op_id, code, events, &mut wakers);
        }
        drop(state);
        wake_all(wakers);
    }

    /// Starts using a connection.
    pub(crate) fn attach(&self, socket: Arc<Socket>) {
        let mut state = self.state.lock();
        state.queue.clear();
        state.socket = Some(socket);
        state.full = false;
        state.flush_pending = false;
    }

    /// Stops using the connection: discards the queue and fails the operations in flight.
    pub(crate) fn detach(&self, reason: &Error) {
        let wakers = self.reset(&mut self.state.lock(), reason);
        wake_all(wakers);
    }

    fn reset(&self, state: &mut State, reason: &Error) -> Vec<Waker> {
        state.socket = None;
        state.disconnect_reason = reason.clone();
        state.queue.clear();
        let mut wakers: Vec<_> = state.waiters.drain(..).map(|(_, waker)| waker).collect();
        state.acks.fail_all(reason, &mut wakers);
        self.flush_requested.notify_one();
        self.read_limit.wake_reader(); // it does not wait for consumers without a connection
        wakers
    }

    /// Returns whether there is no connection to write to.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.state.lock().socket.is_none()
    }

    /// Returns the frames and bytes queued so far, and the bytes queued now.
    pub(crate) fn counts(&self) -> (u64, u64, usize) {
        let state = self.state.lock();
        (state.frames, state.bytes, state.queue.bytes())
    }
}

impl State {
    /// Returns whether the last write was long enough ago. While frames are gathered, reads the clock only
    /// every few frames.
    #[inline]
    fn is_write_due(&mut self) -> bool {
        self.gathered += 1;
        (!self.flush_pending || self.gathered.is_multiple_of(CLOCK_INTERVAL))
            && self.last_write.elapsed() >= GATHER_WINDOW
    }

    fn take_ready_waiters(&mut self) -> Vec<Waker> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let queued = self.queue.bytes();
        let ready = self.waiters.extract_if(.., |(bytes, _)| queued <= *bytes);
        ready.map(|(_, waker)| waker).collect()
    }
}

fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// See [`SendQueue::acknowledgement`].
pub(crate) struct Acknowledgement<'a> {
    queue: &'a SendQueue,
    /// `None` once the outcome has been returned.
    key: Option<usize>,
}

impl Future for Acknowledgement<'_> {
    type Output = Result<u8, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else { return Poll::Ready(Err(Error::Closed)) };
        let mut state = self.queue.state.lock();
        let polled = state.acks.poll(key, context);
        let Some(polled) = polled else { return Poll::Ready(Err(state.disconnect_reason.clone())) };
        drop(state);
        if polled.is_ready() {
            self.key = None;
        }
        polled
    }
}

impl Drop for Acknowledgement<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.queue.state.lock().acks.abandon(key);
        }
    }
}

#[cfg(test)]
mod tests;
